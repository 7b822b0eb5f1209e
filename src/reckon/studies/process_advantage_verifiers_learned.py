"""Section 5.3 of the specification process-advantage-verifiers: Setlur et al. 2024 (arXiv:2410.08146).

A small network learns a prover's values on the planted sequence from a fixed number of rollouts, spent in six ways; its
values and step advantages are compared with the exact ones, and a policy learns from the advantages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from reckon.studies._claims import ByArm, Claim, Effect
from reckon.studies._planted_learn import ANSWERS, learn
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Batch, Json, Rng, Stream

BUDGETS = {"small": 2_000, "middle": 8_000, "large": 32_000}  # rollouts for labels, seeds and rough looks included
EARLY = 10  # first steps of policy gradient, in which the policy is still far from the prover
SOONER, SOLVED = "steps to 0.9", "solved"
STEPS, OUTCOME_STEPS = 200, 500  # at most: of a policy that learns from a verifier, and from the outcome alone
PLACES = tuple(BUDGETS)
AXIS = "log10 of rollouts for labels"
ALL = "rollouts to 0.9, labels included"
AGREES = "agreement with the exact judge"
V_RANK, A_RANK = "values, low: rank", "advantages, rank"
# The panels; all arms are in the last one, which makes the legend.
CURVES = {"Rank correlation of advantages": A_RANK, "Rank correlation of values": V_RANK, ALL: ALL, SOONER: SOONER}


def cell(settings: Settings, seed: int) -> Measured:
    """One way to spend each label budget, or one judge that needs no labels."""
    sizes = dict(zip(BUDGETS, cast("list[int]", settings["budgets"]), strict=True))
    if settings["seeds"] is None:
        found = dict.fromkeys(sizes, _without_labels(settings, seed))
    else:
        by_size = {size: _with_labels(settings, size, seed) for size in dict.fromkeys(sizes.values())}
        found = {name: by_size[size] for name, size in sizes.items()}
    curves = {
        name: [of[metric] for of in found.values()] for name, metric in CURVES.items() if metric in found["small"]
    }
    return Measured(
        metrics={f"{name}: {metric}": value for name, of in found.items() for metric, value in of.items()},
        curves={AXIS: [math.log10(size) for size in sizes.values()], **curves},
    )


def _without_labels(settings: Settings, seed: int) -> dict[str, float]:
    """The outcome alone, or exact advantages."""
    from reckon.studies._planted_policy import Use, exact_judge
    from reckon.studies._planted_verifier import GAMMA
    from reckon.studies.process_advantage_verifiers import prover_values

    q, v = prover_values(GAMMA, 1)
    use = cast("Use", settings["use"])
    learned = learn(
        lambda policy: exact_judge(policy, q, v, use, alpha=1.0),
        cast("float", settings["entropy"]),
        cast("int", settings["steps"]),
        seed,
        until_solved=True,
    )
    return learned.metrics | {ALL: ANSWERS * learned.metrics[SOONER]}


def _with_labels(settings: Settings, size: int, seed: int) -> dict[str, float]:
    """Labels, a verifier, how good it is, and a policy that learns from it."""
    from reckon.studies._planted import Planted, prover, sample, table_law
    from reckon.studies._planted_policy import NetworkPolicy, exact_judge
    from reckon.studies._planted_quality import agreement, quality
    from reckon.studies._planted_verifier import GAMMA, LearnedJudge, Seeds, draw_labels, fit_verifier
    from reckon.studies.process_advantage_verifiers import prover_values

    root, (q, v) = Rng((seed, "process-advantage-verifiers-learned")), prover_values(GAMMA, 1)
    drawn = draw_labels(cast("Seeds", settings["seeds"]), cast("int", settings["n_mc"]), size, root.child(size))
    steps, balanced = cast("int", settings["fit_steps"]), bool(settings["balanced"])
    verifier = fit_verifier(drawn, steps, root.child("fit"), balanced=balanced)
    test = sample(
        table_law(prover(GAMMA)), Planted().problems("test"), cast("int", settings["tests"]), root.child("test")
    )
    found = quality(verifier, v, test) | {
        "labels": float(sum(map(len, drawn.traces))),
        "rollouts for labels": float(drawn.rollouts),
    }
    if not settings["steps"]:
        return found
    agreed: list[float] = []

    def observe(policy: NetworkPolicy, batch: Batch, streams: Mapping[str, Stream]) -> None:
        if batch.step < EARLY:
            agreed.append(agreement(batch, streams, exact_judge(policy, q, v, "advantage", alpha=1.0)))

    learned = learn(
        lambda policy: LearnedJudge(policy, verifier, alpha=1.0),
        cast("float", settings["entropy"]),
        cast("int", settings["steps"]),
        seed,
        until_solved=True,
        observe=observe,
    )
    spent = drawn.rollouts + ANSWERS * learned.metrics[SOONER]
    return {**found, **learned.metrics, ALL: spent, AGREES: sum(agreed) / len(agreed)}


_TUNED, _EXACT = "outcome, entropy 0", "exact mu_10"
_BALANCED, _BOTH = "random, n_mc 20, balanced", "half first pit, n_mc 4"


def _name(seeds: str, n_mc: int) -> str:
    return f"{seeds}, n_mc {n_mc}"


def _plan(seeds: str, n_mc: int, steps: int = 0, balanced: bool = False) -> dict[str, Json]:
    """Steps of policy gradient: 0 = the verifier is fitted and measured, and no policy learns from it."""
    return {"seeds": seeds, "n_mc": n_mc, "balanced": balanced, "entropy": 0.01, "steps": steps}


TRAINED = (_name("random", 1), _name("random", 20), _name("first pit", 20))  # a policy learns from these
WAYS = {
    name: _plan(seeds, n_mc, steps=STEPS if name in TRAINED else 0)
    for seeds in ("random", "first pit")
    for n_mc in (1, 4, 20)
    for name in [_name(seeds, n_mc)]
}
VARIANTS = {_BALANCED: _plan("random", 20, balanced=True), _BOTH: _plan("both", 4)}
_WITHOUT: dict[str, dict[str, Json]] = {
    _TUNED: {"seeds": None, "use": "nothing", "entropy": 0.0, "steps": OUTCOME_STEPS},
    _EXACT: {"seeds": None, "use": "advantage", "entropy": 0.01, "steps": 300},
}
_COMMON: dict[str, Json] = {"budgets": list(BUDGETS.values()), "fit_steps": 200, "tests": 2000}
_ARMS = {arm: {**own, **_COMMON} for arm, own in {**WAYS, **VARIANTS, **_WITHOUT}.items()}


def _mean(found: ByArm, metric: str, places: Sequence[str], arms: Sequence[str]) -> float:
    return sum(found[arm][f"{place}: {metric}"] for place in places for arm in arms) / (len(places) * len(arms))


def _ahead(metric: str, place: str, arms: Sequence[str], others: Sequence[str], least: float, sign: int = 1) -> Effect:
    """How far the mean of some arms is ahead of that of others with one budget; sign -1: less is better."""
    first, second = (arms, others) if sign > 0 else (others, arms)
    return Effect(
        says=f"{BUDGETS[place]:,} rollouts, {metric}: {' and '.join(first)} less {' and '.join(second)}",
        of=lambda found: _mean(found, metric, [place], first) - _mean(found, metric, [place], second),
        least=least,
    )


def _gap(metric: str, other: str, least: float, arms: Sequence[str] = tuple(WAYS)) -> Effect:
    return Effect(
        says=f"mean over {len(arms)} ways and all budgets: {metric} less {other}",
        of=lambda found: _mean(found, metric, PLACES, arms) - _mean(found, other, PLACES, arms),
        least=least,
    )


def _picked(found: ByArm, places: Sequence[str], sign: int) -> tuple[str, str]:
    """The way and budget whose advantages rank best (1) or worst (-1) on the prover's own responses, in this seed."""
    return max(
        ((arm, place) for arm in TRAINED for place in places), key=lambda at: sign * found[at[0]][f"{at[1]}: {A_RANK}"]
    )


def _read(found: ByArm, metric: str, sign: int = 1, places: Sequence[str] = PLACES) -> float:
    arm, place = _picked(found, places, sign)
    return found[arm][f"{place}: {metric}"]


def _needed(found: ByArm, metric: str, sign: int, places: Sequence[str]) -> float:
    """As `_read`; a run that never got there counts at least as long as the outcome alone may take."""
    arm, place = _picked(found, places, sign)
    missing = 0 if found[arm][f"{place}: {SOLVED}"] else OUTCOME_STEPS - STEPS
    return found[arm][f"{place}: {metric}"] + missing * (ANSWERS if metric == ALL else 1)


def _judge(arm: str, found: ByArm, metric: str = SOONER) -> float:
    return found[arm][f"small: {metric}"]  # these have no labels, and the same number at every budget


_R1, _R4, _R20, _P20 = _name("random", 1), _name("random", 4), _name("random", 20), _name("first pit", 20)
_RANDOM = tuple(_name("random", n_mc) for n_mc in (1, 4, 20))
_PIT = tuple(_name("first pit", n_mc) for n_mc in (1, 4, 20))
V_SHARE, A_SHARE = "values, low: share", "advantages, low: share"

_CLAIMS = (
    Claim(
        says="With few rollouts coverage wins: one completion of many prefixes before twenty of few",
        effects=(
            _ahead(V_RANK, "small", [_R1], [_R20], 0.05),
            _ahead(V_SHARE, "small", [_R1], [_R20], 0.05, sign=-1),
            _ahead(A_RANK, "small", [_R1], [_R20], 0.05),
        ),
    ),
    Claim(
        says="With many rollouts the labels' quality wins: twenty completions before one",
        effects=(
            _ahead(V_RANK, "large", [_R20], [_R1], 0.0),
            _ahead(V_SHARE, "large", [_R20], [_R1], 0.0, sign=-1),
            _ahead(A_RANK, "large", [_R20], [_R1], 0.0),
        ),
    ),
    Claim(
        says="Seeds by the first pit rank advantages better, with few rollouts, and with many at 20 completions",
        effects=(_ahead(A_RANK, "small", _PIT, _RANDOM, 0.05), _ahead(A_RANK, "large", [_P20], [_R20], 0.0)),
    ),
    Claim(
        says="Half of the rollouts for first pits and half for random seeds is better than random seeds alone",
        effects=tuple(_ahead(A_RANK, place, [_BOTH], [_R4], 0.0) for place in PLACES),
    ),
    Claim(
        says="Advantages are much noisier than values",
        effects=(_gap(A_SHARE, V_SHARE, 0.1), _gap(V_RANK, A_RANK, 0.1)),
    ),
    Claim(
        says="Low and high labels drawn equally often, and recalibrated, leave values as good",
        effects=(
            Effect(
                says=f"8,000 and 32,000 rollouts, {V_SHARE}: 0.1 plus {_R20} less the same balanced",
                of=lambda found: (
                    0.1 + _mean(found, V_SHARE, PLACES[1:], [_R20]) - _mean(found, V_SHARE, PLACES[1:], [_BALANCED])
                ),
            ),
        ),
    ),
    Claim(
        says="On the policy's own responses a verifier's advantages are worse than on the prover's",
        effects=(_gap(A_RANK, AGREES, 0.05, TRAINED),),
    ),
    Claim(
        says="The best verifier's advantages need at most one and a half times the steps of exact ones",
        effects=(
            Effect(
                says="steps to 0.9: one and a half times those of exact mu_10 less those of the best verifier",
                of=lambda found: 1.5 * _judge(_EXACT, found) - _read(found, SOONER),
            ),
        ),
    ),
    Claim(
        says="The worst verifier costs steps",
        effects=(
            Effect(
                says="steps to 0.9: the worst verifier less the best",
                of=lambda found: _read(found, SOONER, -1) - _read(found, SOONER),
                least=30,
            ),
        ),
    ),
    Claim(
        says="Even the worst verifier needs fewer steps than the outcome alone",
        effects=(
            Effect(
                says="steps to 0.9: outcome, entropy 0 less the worst verifier",
                of=lambda found: _judge(_TUNED, found) - _needed(found, SOONER, -1, PLACES),
            ),
        ),
    ),
    Claim(
        says="With the labels' rollouts counted, the best verifier of the smallest budget still saves rollouts",
        effects=(
            Effect(
                says="rollouts to 0.9: outcome, entropy 0 less the best verifier of 2,000, its labels included",
                of=lambda found: _judge(_TUNED, found, ALL) - _needed(found, ALL, 1, ["small"]),
            ),
        ),
    ),
    Claim(
        says="The same with language models of 2B to 27B and 300,000 labels",
        why="the toy has no language model",
    ),
)

# What is told of every way and budget. Where all exact values are 1, they have no ranks.
_TOLD = {
    "labels": "prefixes labeled",
    "values, low: error": "values, q < 0.5: mean squared error",
    "values, high: error": "values, q >= 0.5: mean squared error",
    V_RANK: "values, q < 0.5: rank correlation",
    "advantages, low: error": "advantages, q < 0.5: mean squared error",
    "advantages, high: error": "advantages, q >= 0.5: mean squared error",
    "advantages, low: rank": "advantages, q < 0.5: rank correlation",
    "advantages, high: rank": "advantages, q >= 0.5: rank correlation",
    A_RANK: "advantages, steps before it is right: rank correlation",
    AGREES: "the same on the policy's responses, first 10 steps",
    SOONER: f"steps to 0.9 (at most {STEPS})",
    SOLVED: f"share of seeds that got there within {STEPS} steps",
    ALL: f"{ALL}; of {STEPS} steps where it never got there",
}


def _rows() -> tuple[Row, ...]:
    rows = [
        Row(arm=arm, metric=f"{place}: {metric}", says=f"{size:,}: {says}")
        for metric, says in _TOLD.items()
        for place, size in BUDGETS.items()
        for arm in (TRAINED if metric in (AGREES, SOONER, SOLVED, ALL) else (*WAYS, *VARIANTS))
    ]
    for arm, settings in _WITHOUT.items():
        rows.append(Row(arm=arm, metric=f"small: {SOONER}", says=f"steps to 0.9 (at most {settings['steps']})"))
        rows.append(Row(arm=arm, metric=f"small: {ALL}", says="rollouts to 0.9"))
    return tuple(rows)


STUDY = Study(
    name="process-advantage-verifiers-learned",
    title="Process advantages of a learned verifier: what to spend rollouts on",
    source="Setlur et al. 2024, Rewarding Progress, arXiv:2410.08146; the planted sequence, a verifier of its own.",
    arms=_ARMS,
    seeds=(0, 1, 2, 3, 4),
    fast={"budgets": [1000, 1000, 1000], "fit_steps": 3, "tests": 100, "steps": 2},
    cell=cell,
    claims=_CLAIMS,
    rows=_rows(),
    axis=AXIS,
    notes=(
        "A budget holds all that is sampled for labels: seeds, rough looks and completions. Not counted are the 3,200 "
        "responses of mu_5 that the policy imitates first, in all arms alike, and that mu_10 is there to be asked.",
        "No text that is not right yet is worth more than 0.44 under mu_10. So q >= 0.5 are the texts in which the "
        "target stands, all worth 1: values have no ranks there. A share is the squared error as a share of the exact "
        "numbers' variance; 1 is what a constant would have.",
        "The verifier, a GRU with 32 units, sees tokens and places, and is never told what is spelled. A response "
        "that is over is checked: the end token and the tenth are credited with the verdict less the value before.",
        "Labels are drawn by reckon.annotate. A wrong response that ended by itself gives no label for its whole text: "
        "before the end it could have gone on, which its verdict does not say. A high value for a first pit is one "
        "success in four looks: the usual threshold of a half would be passed by luck alone. Right seeds are labeled "
        "1 for nothing.",
        "Every verifier takes 200 steps of Adam and is the one of 10 looks that was best on a fifth of its traces. "
        "Best and worst verifier are chosen in each seed by the rank correlation of their advantages on responses of "
        "mu_10, among the three ways and three budgets a policy learned from, not by what the policy made of them.",
        "The rules were committed before the run on seeds 0 to 4, but after single verifiers on seed 100 with 2,000 "
        "and 10,000 rollouts, of which two were learned from: they chose the network's size and that labels are drawn "
        "as they are (equally from both halves, values from 20 completions were worse than a constant), and they had "
        "shown that one completion of random seeds does well and first pits alone do badly. The specification's "
        "expectations stand as claims all the same. The policies' rate and entropy bonus are those of "
        "process-advantage-verifiers; none was tried for a verifier.",
        f"Two rules were changed after the run, against the method: beside the outcome alone, which may take "
        f"{OUTCOME_STEPS} steps, a verifier's run that was not there after its {STEPS} counts as if it had taken "
        f"{OUTCOME_STEPS} too. As committed it counted {STEPS}, so that giving up looked like saving (-2 steps and "
        "-2,107 rollouts). No verdict changed.",
        "Of the specification's 5.3 a policy learned from three of the six ways, and no verifier of mu_100 was made: "
        "process-advantage-verifiers-transformer has one.",
    ),
)
