r"""Sections 5.1 and 5.2 of the specification process-advantage-verifiers: Setlur et al. 2024 (arXiv:2410.08146).

A network learns to write a planted sequence, from the outcome alone or with the step advantages of a prover whose
values are exact; then a fixed policy is searched for it, with exact values and with noisy ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from reckon.studies._claims import ByArm, Claim, Effect, less
from reckon.studies._planted_learn import AT, BASE, learn
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json, Rng, Rollouts

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.search import Values
    from reckon.studies._planted_policy import Use

EVERY = 10  # steps between two points of a curve
SAMPLES, PROBLEMS, NOISE = 3, 400, 20  # of the search; rollouts behind a noisy value
SEARCH_ALPHA = 0.5


def cell(settings: Settings, seed: int) -> Measured:
    """One arm: a search or a training run."""
    return _search(settings, seed) if settings["does"] == "search" else _learn(settings, seed)


def _learn(settings: Settings, seed: int) -> Measured:
    """Policy gradient for some steps; how often it is right on the way."""
    from reckon.studies._planted import diagnostics, prover
    from reckon.studies._planted_policy import exact_judge

    q, v = prover_values(cast("float", settings["gamma"]), cast("int", settings["k"]))
    learned = learn(
        lambda policy: exact_judge(policy, q, v, cast("Use", settings["use"]), alpha=1.0),
        cast("float", settings["entropy"]),
        cast("int", settings["steps"]),
        seed,
    )
    variance, agreement = diagnostics(prover(BASE), q)
    shown = range(0, learned.most, EVERY)
    return Measured(
        metrics=learned.metrics | {"distinguishability": variance, "alignment": agreement},
        curves={
            "step": [float(i) for i in shown],
            "accuracy": [learned.accuracy[i] for i in shown],
            "entropy of a token": [learned.entropy[i] for i in shown],
        },
    )


def prover_values(gamma: float, k: int) -> tuple[Tensor, Tensor]:
    """Q and V of the best of k completions of the law mu_gamma; see `reckon.studies._planted.q_and_v`."""
    from reckon.process import best_of_k
    from reckon.studies._planted import prover, q_and_v

    q, v = q_and_v(prover(gamma))
    return best_of_k(q, k), best_of_k(v, k)


def _search(settings: Settings, seed: int) -> Measured:
    """Ways to search the base policy for a right response, on the same problems at the same width."""
    import torch

    from reckon.search import Beam, beam_search
    from reckon.studies._planted import LENGTH, Planted, TableContinues, prover, q_and_v

    width, size = cast("int", settings["width"]), cast("int", settings["problems"])
    task, root = Planted(size), Rng((seed, "process-advantage-verifiers", "search"))
    problems = task.problems("test")
    base, strong = (q_and_v(prover(gamma)) for gamma in (BASE, 15.0))

    def right(rollouts: Rollouts) -> Tensor:
        outcomes = [task.check(rollouts.problem(row), text).outcome for row, text in enumerate(rollouts.text)]
        return torch.tensor(outcomes, dtype=torch.float64)

    def noisy(tables: tuple[Tensor, Tensor], name: str) -> Values:
        draw = root.child(name, width).numpy()
        return lambda r: torch.from_numpy(draw.binomial(NOISE, values_after(tables[1], r).numpy()) / NOISE)

    def exact(tables: tuple[Tensor, Tensor]) -> Values:
        return lambda r: values_after(tables[1], r)

    policy = TableContinues(prover(BASE))
    ways: dict[str, tuple[Values, float, Values | int]] = {
        "Q exact": (exact(base), 0.0, 1),
        "Q and A of mu_15, exact": (exact(base), SEARCH_ALPHA, exact(strong)),
        "Q noisy": (noisy(base, "q"), 0.0, 1),
        "Q noisy, A of Bo4 from it": (noisy(base, "q"), SEARCH_ALPHA, 4),
        "Q noisy, A of mu_15 noisy": (noisy(base, "q"), SEARCH_ALPHA, noisy(strong, "mu")),
    }
    metrics = {}
    for name, (values, alpha, mu) in ways.items():
        plan = Beam(width=width, samples=SAMPLES, alpha=alpha, max_steps=LENGTH, init="fill")
        found = beam_search(policy, problems, values, plan, root.child("beam", width), mu)
        metrics[name] = float(right(found.rollouts).mean())
        metrics[f"tokens: {name}"] = float(found.generated.double().mean())
    many = TableContinues(prover(BASE), one_step=False).sample(problems, SAMPLES * width, root.child("many", width))
    metrics["best of 3B"] = float((right(many).reshape(size, -1).amax(dim=1)).mean())
    metrics["tokens: best of 3B"] = float(many.seq.mask.sum()) / size
    return Measured(metrics=metrics)


def values_after(v: Tensor, rollouts: Rollouts) -> Tensor:
    """[n] float64: the chance of success after what each response holds so far, by the table `v` [LENGTH + 1, 6]."""
    import torch

    from reckon.studies._planted import END, FOUND, states

    tokens, size = rollouts.seq.tokens, rollouts.seq.mask.sum(dim=1)
    k = states(tokens).gather(1, size[:, None])[:, 0]
    over = ((tokens == END) & rollouts.seq.mask).any(dim=1)
    value = v[size, k]
    return torch.where(k == FOUND, 1.0, torch.where(over, 0.0, value))


def _sooner(arm: str, other: str, least: float) -> Effect:
    return Effect(
        says=f"steps to 0.9: {other} less {arm}",
        of=lambda found: found[other]["steps to 0.9"] - found[arm]["steps to 0.9"],
        least=least,
    )


def _more(metric: str, arm: str, other: str, least: float) -> Effect:
    return less(arm, other, metric, least=least)


def _better(arm: str, way: str, other: str, least: float) -> Effect:
    return Effect(says=f"{arm}: {way} less {other}", of=lambda found: found[arm][way] - found[arm][other], least=least)


def _no_gain(arm: str, way: str, other: str) -> Effect:
    return Effect(
        says=f"{arm}: 0.05 plus {other} less {way}",
        of=lambda found: 0.05 + found[arm][other] - found[arm][way],
    )


def _twice(found: ByArm) -> float:
    return found[_TUNED]["steps to 0.9"] - 2 * found[_MU10]["steps to 0.9"]


_OUTCOME, _TUNED = "outcome", "outcome, entropy 0"
_MU2, _MU5, _MU10, _MU15, _MU100 = "mu_2", "mu_5", "mu_10", "mu_15", "mu_100"
_BO4, _BO64 = "Bo4 of mu_5", "Bo64 of mu_5"
_SUMMED, _COLD = "mu_10 summed as a reward", "mu_10, entropy 0"
_Q, _EXACT_A, _NOISY = "Q exact", "Q and A of mu_15, exact", "Q noisy"
_NOISY_BO4, _NOISY_A, _BEST = "Q noisy, A of Bo4 from it", "Q noisy, A of mu_15 noisy", "best of 3B"


def _run(use: str, gamma: float = BASE, k: int = 1, entropy: float = 0.01, steps: int = 300) -> dict[str, Json]:
    return {"does": "learn", "use": use, "gamma": gamma, "k": k, "entropy": entropy, "steps": steps}


def _beam(width: int) -> dict[str, Json]:
    return {"does": "search", "width": width, "problems": PROBLEMS}


# Arm: its settings, and the pilot's steps to 0.9 ("-" = not within the arm's steps).
_RUNS: dict[str, tuple[dict[str, Json], str]] = {
    _OUTCOME: (_run("nothing", steps=500), "- in 1,500"),
    _TUNED: (_run("nothing", entropy=0.0, steps=500), "261, 357, 201"),
    _MU2: (_run("advantage", 2.0), "-, -, -"),
    _MU5: (_run("advantage", 5.0), "272, -, 227"),
    _MU10: (_run("advantage", 10.0), "100, 94, 90"),
    _MU15: (_run("advantage", 15.0), "100, 93, 100"),
    _MU100: (_run("advantage", 100.0), "127 to 151"),
    _BO4: (_run("advantage", k=4), "88, 107"),
    _BO64: (_run("advantage", k=64), "194, -"),
    _SUMMED: (_run("return", 10.0), "-, -, -"),
    _COLD: (_run("advantage", 10.0, entropy=0.0), "-, -, -"),
}
_WAYS = (_BEST, _Q, _EXACT_A, _NOISY, _NOISY_BO4, _NOISY_A)
# Width: the pilot's share of problems solved, in the order of _WAYS.
_BEAMS: dict[int, tuple[str, ...]] = {
    1: ("0.016", "0.28", "", "0.08", "0.08", "0.17"),
    4: ("0.063", "0.89", "", "0.44", "0.34", "0.71"),
    8: ("0.122", "0.99", "", "0.65", "0.64", "0.91"),
}
_PASSES = {_OUTCOME: "0.00 to 0.02", _MU10: "0.39, 0.59, 0.92"}
_B4, _B8 = "search, B = 4", "search, B = 8"

_CLAIMS = (
    Claim(
        says="A prover of middling strength helps most: gamma 10 before 2, 5 and 100",
        effects=(_sooner(_MU10, _MU2, 100), _sooner(_MU10, _MU5, 50), _sooner(_MU10, _MU100, 15)),
    ),
    Claim(
        says="The best of 4 of a weak prover is among the best, the best of 1 or 64 is not",
        effects=(
            _sooner(_BO4, _MU5, 50),
            _sooner(_BO4, _BO64, 30),
            Effect(
                says="steps to 0.9: one and a half times those of mu_10 less those of Bo4",
                of=lambda found: 1.5 * found[_MU10]["steps to 0.9"] - found[_BO4]["steps to 0.9"],
            ),
        ),
    ),
    Claim(
        says="Step advantages need at most half the steps of the tuned outcome alone, in every seed",
        effects=(
            Effect(says="steps to 0.9: outcome, entropy 0 less twice those of mu_10", of=_twice),
            Effect(says="share of seeds in which it is so", of=lambda found: float(_twice(found) >= 0), least=1.0),
        ),
    ),
    Claim(
        says="Pass@64 grows much sooner with step advantages",
        effects=(_more("pass@64", _MU10, _OUTCOME, 0.3), _more("pass@64", _MU10, _TUNED, 0.3)),
    ),
    Claim(
        says="Summed into returns as a reward, the same numbers no longer help",
        effects=(
            _sooner(_MU10, _SUMMED, 100),
            _more("accuracy at the end", _MU10, _SUMMED, 0.5),
        ),
    ),
    Claim(
        says="Without an entropy bonus the policy collapses under step advantages",
        effects=(_more("accuracy at the end", _MU10, _COLD, 0.3),),
    ),
    Claim(
        says="Search by steps beats best of N at equal tokens",
        effects=(_better(_B4, _Q, _BEST, 0.3), _better(_B4, _NOISY, _BEST, 0.1), _better(_B8, _NOISY, _BEST, 0.2)),
    ),
    Claim(
        says="With noisy values, advantages of a stronger prover beat Q alone",
        effects=(_better(_B4, _NOISY_A, _NOISY, 0.1), _better(_B8, _NOISY_A, _NOISY, 0.1)),
    ),
    Claim(
        says="Advantages of the best of 4 made of the same noisy Q gain nothing",
        effects=(_no_gain(_B4, _NOISY_BO4, _NOISY), _no_gain(_B8, _NOISY_BO4, _NOISY)),
    ),
    Claim(
        says="With exact Q, advantages gain nothing in search",
        effects=(_no_gain(_B4, _EXACT_A, _Q), _no_gain(_B8, _EXACT_A, _Q)),
    ),
    Claim(
        says="Advantages of a learned verifier; label budgets, seeds by the first pit",
        why="this study reads exact values; no verifier is trained in it",
    ),
    Claim(
        says="Gains of 8 to 15 points and 5 times less compute with language models of 2B to 27B",
        why="the toy has no language model",
    ),
)


def _rows() -> tuple[Row, ...]:
    rows = [
        Row(arm=arm, metric="steps to 0.9", says=f"steps to 0.9 (at most {settings['steps']})", pilot=pilot)
        for arm, (settings, pilot) in _RUNS.items()
    ]
    rows += [Row(arm=arm, metric="solved", says="share of seeds that got there") for arm in _RUNS]
    rows += [
        Row(arm=arm, metric="pass@64", says=f"pass@64 after {AT} steps", pilot=_PASSES.get(arm, "")) for arm in _RUNS
    ]
    for arm in (_MU2, _MU5, _MU10, _MU15, _MU100, _BO4, _BO64):
        rows.append(Row(arm=arm, metric="distinguishability", says="E Var[A^mu] over the visits of mu_5, exact"))
        rows.append(Row(arm=arm, metric="alignment", says="E[A^mu A^pi] over the visits of mu_5, exact"))
    for width, pilots in _BEAMS.items():
        arm = f"search, B = {width}"
        for way, pilot in zip(_WAYS, pilots, strict=True):
            rows.append(Row(arm=arm, metric=way, says=f"solved: {way}", pilot=pilot))
        rows += [Row(arm=arm, metric=f"tokens: {way}", says=f"tokens a problem: {way}") for way in (_BEST, _NOISY_A)]
    return tuple(rows)


STUDY = Study(
    name="process-advantage-verifiers",
    title="Process advantages: what a step did for another policy's chances",
    source="Setlur et al. 2024, Rewarding Progress, arXiv:2410.08146; the planted sequence, with exact values.",
    arms={arm: settings for arm, (settings, _) in _RUNS.items()} | {f"search, B = {b}": _beam(b) for b in _BEAMS},
    seeds=(0, 1, 2, 3, 4),
    fast={"steps": 2, "problems": 4},
    cell=cell,
    claims=_CLAIMS,
    rows=_rows(),
    notes=(
        "A run that does not get to 0.9 counts with the number of its steps, which makes the distance to it too small.",
        "Values come from the exact table, so the prover's rollouts cost nothing here. With a verifier they would have "
        "to be counted; the outcome arms get no such help. Q in the policy gradient is the response's one outcome.",
        "mu_5 is the best of 1 of mu_5. The policy's mean of A is taken off exactly at each step.",
        "Strong provers still help here: the target leaves five spare tokens, so even a strong prover's chances fall "
        "when they are wasted.",
        "Beam search starts with 3B first steps, as the pilot must have done to reach its numbers; the paper starts "
        "with 3. Noisy values are means of 20 rollouts, drawn anew for every beginning; alpha is 0.5.",
        "On half the steps in every seed: in four seeds mu_10 needs 2.1 to 4.1 times fewer steps than the outcome "
        "alone without an entropy bonus, but in seed 4 that finds the target at step 111, against 77. The outcome "
        "alone waits for a first lucky find, so its time differs threefold between seeds, and the pilot's three were "
        "slow ones. With the entropy bonus that mu_10 has, the outcome alone does not get there in 500 steps in any "
        "seed. The rule asked for every seed and stays.",
        "The entropy bonus of 0.01 drowns the outcome alone: it drives that arm, and the one with summed advantages, "
        "to the uniform law (2.71 nats), where nothing is found. Summed, the advantages fail as the outcome does; per "
        "step they overcome the bonus.",
        "The best of 4 made of a noisy Q does not only gain nothing in search: it loses 5 to 8 points.",
        "Neither diagnostic orders the provers as learning does: mu_100 has by far the largest of both sums among the "
        "provers by gamma, and is slower than mu_10.",
        "The rules were committed before the first full run, after the pilot's table had been read and mu_10 and the "
        "search with B = 1 and 4 had been tried: they test that it repeats, not a guess made blind. That trial chose "
        "the network's first weights (He et al. 2015): under PyTorch's own, which are smaller, mu_10 took about 145 "
        "steps, not the pilot's 95.",
        "The curve of entropy was added after the first full run, and left its numbers as they were.",
        "The judges are the parts of PAV-RL: a verifier and an exact_advantage, which gives Q(s, a) less the policy's "
        "mean of Q there. At first the study had a judge of its own; the same arms were run with the parts, and no "
        "number moved. The steps are those of reckon.train: a test makes the same weights by it, bit for bit.",
    ),
)
