"""Section 5.3 of the specification process-advantage-verifiers, by transformers: Setlur et al. 2024, arXiv:2410.08146.

The planted sequence as text. A language model of two layers learns a prover's values from labels of prefixes, and
stands as a judge in the recipe of another one, which trains by the one loop on the outcome and on what each letter did
to the prover's chance. The exact values are known, so both the verifier and what it is worth to a policy can be
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from reckon.studies._claims import ByArm, Claim, Effect
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json, Metrics, Rng

if TYPE_CHECKING:
    from reckon.models import LanguageModel
    from reckon.studies._language_model import Start
    from reckon.studies._saved_judge import SavedJudge
    from reckon.types import Parts

STEPS, ANSWERS = 100, 64
LONG = 600  # steps of the outcome alone: as many rollouts as the dearest verifier and its policy
RATE, VERIFIER_RATE, CRITIC_RATE = 3e-3, 3e-3, 3e-3
WINDOW, SOLVED = 5, 0.9  # steps that accuracy is averaged over, and where it counts as solved
EARLY, EVERY = 20, 10  # steps in which credit is compared, and between two looks
SOONER, ALL = "steps to 0.9", "rollouts to 0.9, labels included"
V_RANK, V_SHARE, A_RANK, A_SHARE = (
    "values, low: rank",
    "values, low: share",
    "advantages, rank",
    "advantages, low: share",
)
AGREES = "agreement with exact credit"
SPENT = "rollouts for labels"
_ASKED = ("imitated", "base", "gamma", "rollouts", "n_mc", "fit_steps", "tests")  # settings that a verifier depends on


def cell(settings: Settings, seed: int) -> Measured:
    """A verifier, fitted and measured, if it is to be learned; and a policy that trains on what the arm credits."""
    saved: SavedJudge | None = None
    told: Metrics = {}
    if settings["judge"] == "learned":
        saved, told = _verifier(seed, *(cast("int", settings[name]) for name in _ASKED))
    if not settings["trains"]:
        return Measured(metrics=told)
    found, recent = _train(settings, saved, seed)
    found[ALL] = found[SOONER] * ANSWERS + told.get(SPENT, 0.0)
    shown = recent[:STEPS]
    panel = "learned advantages" if saved is not None else "outcome and exact advantages"
    return Measured(
        metrics=told | found,
        curves={"step": [float(i + 1) for i in range(len(shown))], f"accuracy of {WINDOW} steps, {panel}": shown},
    )


def _train(settings: Settings, saved: SavedJudge | None, seed: int) -> tuple[Metrics, list[float]]:
    """What became of a policy, and its accuracy at each step, the mean of the last few."""
    from reckon.studies._language_model import run
    from reckon.studies._planted_texts import agreement

    gamma = cast("float", settings["gamma"])

    def look(model: LanguageModel, _: Parts, step: int) -> Metrics:
        if saved is None or step > EARLY:
            return {}
        return {AGREES: agreement(model, str(saved.folder), gamma, Rng((seed, "probe", step)))}

    start = _start(seed, cast("int", settings["imitated"]), cast("float", settings["base"]))
    done = run(recipe_of(settings, saved), start, seed, examine=look, every=EVERY)
    right = list(done.curve("outcome/mean").values())
    recent = [sum(right[max(0, i + 1 - WINDOW) : i + 1]) / min(i + 1, WINDOW) for i in range(len(right))]
    solved = [i + 1 for i, mean in enumerate(recent) if i + 1 >= WINDOW and mean >= SOLVED]
    found = {
        SOONER: float(solved[0] if solved else len(right)),
        "solved": float(bool(solved)),
        "mean": sum(right) / len(right),
        "end": recent[-1],
    }
    if saved is not None:
        agreed = done.curve(AGREES).values()
        found[AGREES] = sum(agreed) / len(agreed)
    return found, recent


def recipe_of(settings: Settings, saved: SavedJudge | None) -> dict[str, Json]:
    """An arm as a recipe: the outcome with what a step did beside it, and what a step is held against."""
    from reckon.studies import _planted_texts as planted

    recipe: dict[str, Json] = {
        "method": "rloo",
        "task": {"kind": f"{planted.__file__}:PlantedText"},
        "reward": {"correct": {"kind": "verifier"}, **_progress(settings, saved)},
        "objective": {
            "gradient": {"kind": "policy_gradient", "average": "constant", "length": 1},
            "entropy": {"kind": "entropy_bonus", "coef": settings["entropy"], "average": "constant", "length": 1},
        },
        "optimizer": {"lr": settings["lr"]},
        "steps": settings["steps"],
        "prompts": 1,
        "answers": ANSWERS,
    }
    if settings["against"] == "critic":
        recipe["critic"] = {"optimizer": {"lr": CRITIC_RATE}}
        learn: Json = {"kind": "value_loss", "coef": 1.0}
        recipe["advantage"] = {"kind": "gae", "lam": 1.0, "expects": "all", "learn": learn}
    return recipe


def _progress(settings: Settings, saved: SavedJudge | None) -> dict[str, Json]:
    """The judge of steps as a recipe has it: what it knows, and what it holds a step against."""
    from reckon.studies import _planted_texts as planted

    if settings["judge"] == "none":
        return {}
    folder: dict[str, Json] = {} if saved is None else {"folder": str(saved.folder)}
    if settings["against"] == "policy":
        return {"progress": {"kind": f"{planted.__file__}:Progress", "gamma": settings["gamma"], **folder}}
    if saved is not None:
        return {"progress": {"kind": "fitted", **folder}}
    return {"progress": {"kind": "exact_advantage", "values": f"{planted.__file__}:exact_values"}}


@lru_cache(maxsize=1)
def _start(seed: int, imitated: int, base: float) -> Start:
    from reckon.studies._planted_texts import make_start

    return make_start(seed, imitated, base)


@lru_cache(maxsize=1)
def _verifier(
    seed: int, imitated: int, base: float, gamma: float, rollouts: int, n_mc: int, fit_steps: int, tests: int
) -> tuple[SavedJudge, Metrics]:
    """A judge's folder, and how good it is on what its prover writes."""
    from reckon.studies import _planted_texts as planted
    from reckon.studies._planted import Planted, prover, q_and_v, sample, table_law
    from reckon.studies._planted_quality import quality
    from reckon.studies._planted_verifier import draw_labels
    from reckon.studies._saved_judge import SavedJudge

    root, law = Rng((seed, "process-advantage-verifiers-transformer")), prover(gamma)
    drawn = draw_labels("random", n_mc, rollouts, root.child("labels"), gamma)
    start = _start(seed, imitated, base)
    model = planted.fit_verifier(start, drawn.traces, fit_steps, root.child("fit"), VERIFIER_RATE)
    test = sample(table_law(law), Planted().problems("test"), tests, root.child("test"))
    found = quality(planted.Reads(model), q_and_v(law)[1], test)
    told = {name: found[name] for name in (V_RANK, V_SHARE, A_RANK, A_SHARE)}
    told |= {"labels": float(sum(map(len, drawn.traces))), SPENT: float(drawn.rollouts)}
    return SavedJudge(model, {"kind": "step_advantage", "splitter": planted.STEP}), told


def _arm(judge: str, **changes: Json) -> dict[str, Json]:
    return {
        "judge": judge,
        "against": "policy",  # what a step is held against: the prover's own value, a critic's, or the policy's mean
        "gamma": 10.0,  # of the prover
        "rollouts": 0,
        "n_mc": 1,
        "trains": True,  # False: the verifier is measured, and no policy learns from it
        "entropy": 0.01,
        "imitated": 3200,
        "base": 2.0,  # gamma of the law whose responses are imitated
        "fit_steps": 300,
        "tests": 1000,
        "lr": RATE,
        "steps": STEPS,
        **changes,
    }


OUTCOME, BONUS = "outcome, entropy 0", "outcome"
EASY_OUTCOME, EASY_EXACT = "outcome, entropy 0, from mu_5", "exact mu_10, from mu_5"
EXACT, WEAK, STRONG = "exact mu_10", "exact mu_2", "exact mu_100"
CRITIC, PROVER = "exact mu_10, held against a critic", "exact mu_10, held against its own value"
FEW_1, FEW_20, MIDDLE, MANY_1, MANY_20 = (
    f"learned mu_10, {rollouts:,} rollouts, n_mc {n_mc}"
    for rollouts, n_mc in ((2000, 1), (2000, 20), (8000, 1), (32000, 1), (32000, 20))
)
FEW_STRONG = "learned mu_100, 2,000 rollouts, n_mc 1"
FITTED = f"{MANY_20}, held against a critic"
ARMS: dict[str, dict[str, Json]] = {
    OUTCOME: _arm("none", entropy=0.0, steps=LONG),
    BONUS: _arm("none"),
    EXACT: _arm("exact"),
    WEAK: _arm("exact", gamma=2.0),
    STRONG: _arm("exact", gamma=100.0),
    CRITIC: _arm("exact", against="critic"),
    PROVER: _arm("exact", against="prover"),
    FEW_1: _arm("learned", rollouts=2000),
    FEW_STRONG: _arm("learned", rollouts=2000, gamma=100.0),
    FEW_20: _arm("learned", rollouts=2000, n_mc=20, trains=False),
    MIDDLE: _arm("learned", rollouts=8000),
    MANY_1: _arm("learned", rollouts=32000, trains=False),
    MANY_20: _arm("learned", rollouts=32000, n_mc=20),
    FITTED: _arm("learned", rollouts=32000, n_mc=20, against="critic"),
    EASY_OUTCOME: _arm("none", entropy=0.0, base=5.0),
    EASY_EXACT: _arm("exact", base=5.0),
}
TRAINED = tuple(arm for arm, settings in ARMS.items() if settings["trains"])
BUDGETS = (FEW_1, MIDDLE, MANY_20)  # verifiers of mu_10 that policies learn from alike
VERIFIERS = (FEW_1, FEW_20, MIDDLE, MANY_1, MANY_20)  # of mu_10

SAYS: Mapping[str, str] = {
    SOONER: SOONER,
    ALL: ALL,
    "solved": "share of seeds that got there",
    "mean": "accuracy, all steps",
    "end": f"accuracy, last {WINDOW} steps",
    "labels": "prefixes labeled",
    V_RANK: "values, q < 0.5: rank correlation",
    V_SHARE: "values, q < 0.5: squared error as a share of the variance",
    A_RANK: "advantages, steps before it is right: rank correlation",
    A_SHARE: "advantages, q < 0.5: squared error as a share of the variance",
    AGREES: f"credit, what the policy writes before it is right, first {EARLY} steps: rank correlation",
}


def _more(arm: str, other: str, metric: str, least: float = 0.0) -> Effect:
    return Effect(
        says=f"{SAYS[metric]}: {arm} less {other}",
        of=lambda found: found[arm][metric] - found[other][metric],
        least=least,
    )


def _needed(found: ByArm, arm: str, metric: str, other: str) -> float:
    """What an arm needed; if it never got there, at least as many steps as the one it is compared with may take."""
    own, longest = (cast("int", ARMS[name]["steps"]) for name in (arm, other))
    missing = 0 if found[arm]["solved"] else max(longest - own, 0)
    return found[arm][metric] + missing * (ANSWERS if metric == ALL else 1)


def _sooner(arm: str, other: str, times: float = 1.0, metric: str = SOONER) -> Effect:
    """That `other` needs more than so many times what `arm` does."""
    less = arm if times == 1 else f"{times:g} times {arm}"
    return Effect(
        says=f"{metric}: {other} less {less}",
        of=lambda found: found[other][metric] - times * _needed(found, arm, metric, other),
    )


def _within(arm: str, other: str) -> Effect:
    """That `arm` needs at most one and a half times the steps of `other`."""
    return Effect(
        says=f"{SOONER}: 1.5 times {other} less {arm}",
        of=lambda found: 1.5 * found[other][SOONER] - found[arm][SOONER],
    )


def _mean(found: ByArm, metric: str, arms: tuple[str, ...]) -> float:
    return sum(found[arm][metric] for arm in arms) / len(arms)


def _best(found: ByArm) -> str:
    return max(BUDGETS, key=lambda arm: found[arm][A_RANK])


CLAIMS = (
    Claim(
        says="Exact advantages of mu_10 need less than half of the steps of the outcome alone",
        effects=(_sooner(EXACT, OUTCOME, 2.0), _sooner(EXACT, BONUS, 2.0)),
    ),
    Claim(
        says="A prover of middling strength helps most, too weak and too strong ones less",
        effects=(_sooner(EXACT, WEAK, 2.0), _sooner(EXACT, STRONG, 1.2)),
    ),
    Claim(
        says="With few labels, too, the middling prover helps more than the strong one",
        effects=(_sooner(FEW_1, FEW_STRONG, 1.2), _more(FEW_1, FEW_STRONG, AGREES, 0.05)),
    ),
    Claim(
        says="Where the start is right one time in two hundred, the outcome alone is as quick",
        effects=(_within(EASY_OUTCOME, EASY_EXACT),),
    ),
    Claim(
        says="Held against a critic, as in the paper, or the prover's own value, exact advantages do as well",
        effects=(_within(CRITIC, EXACT), _within(PROVER, EXACT)),
    ),
    Claim(
        says="With few rollouts coverage wins: one completion of many prefixes before twenty of few",
        effects=(_more(FEW_1, FEW_20, V_RANK, 0.05), _more(FEW_1, FEW_20, A_RANK, 0.05)),
    ),
    Claim(
        says="With many rollouts the labels' quality wins: twenty completions before one",
        effects=(_more(MANY_20, MANY_1, V_RANK), _more(MANY_20, MANY_1, A_RANK)),
    ),
    Claim(
        says="Advantages are much noisier than values",
        effects=(
            Effect(
                says="mean over the verifiers of mu_10: values' rank correlation less advantages'",
                of=lambda found: _mean(found, V_RANK, VERIFIERS) - _mean(found, A_RANK, VERIFIERS),
                least=0.1,
            ),
        ),
    ),
    Claim(
        says="On the policy's own responses a verifier's credit is worse than on the prover's",
        effects=(
            Effect(
                says="mean over three budgets: rank correlation of advantages less that of credit",
                of=lambda found: _mean(found, A_RANK, BUDGETS) - _mean(found, AGREES, BUDGETS),
                least=0.05,
            ),
        ),
    ),
    Claim(
        says="The verifier that ranks advantages best needs less than one and a half times the steps of exact ones",
        effects=(
            Effect(
                says=f"{SOONER}: 1.5 times {EXACT} less the best verifier",
                of=lambda found: 1.5 * found[EXACT][SOONER] - found[_best(found)][SOONER],
            ),
        ),
    ),
    Claim(
        says="More rollouts for labels save steps",
        effects=(_sooner(MANY_20, FEW_1),),
    ),
    Claim(
        says="A verifier of 32,000 rollouts needs less than half of the steps of the outcome alone",
        effects=(_sooner(MANY_20, OUTCOME, 2.0),),
    ),
    *(
        Claim(
            says=f"With its labels counted, it saves rollouts over the outcome: {arm}",
            effects=(_sooner(arm, OUTCOME, metric=ALL),),
        )
        for arm in BUDGETS
    ),
    Claim(
        says="As a user has it, with `fitted` and a critic, a verifier of 32,000 rollouts saves steps over the outcome",
        effects=(_sooner(FITTED, OUTCOME),),
    ),
    Claim(
        says="The same with language models of 2B to 27B and 300,000 labels",
        why="a transformer of two layers and a word of five letters are no such models and data",
    ),
)


def _rows() -> tuple[Row, ...]:
    every = (ALL, "solved", "mean", "end")
    rows = [Row(arm=arm, metric=SOONER, says=f"{SOONER} (at most {ARMS[arm]['steps']})") for arm in TRAINED]
    rows += [Row(arm=arm, metric=metric, says=SAYS[metric]) for metric in every for arm in TRAINED]
    rows += [
        Row(arm=arm, metric=metric, says=SAYS[metric])
        for metric in ("labels", V_RANK, V_SHARE, A_RANK, A_SHARE)
        for arm in VERIFIERS
    ]
    rows += [Row(arm=FEW_STRONG, metric=metric, says=SAYS[metric]) for metric in ("labels", A_RANK)]
    # Not of FITTED: it is measured as held against the policy's mean, which that one is not.
    rows += [Row(arm=arm, metric=AGREES, says=SAYS[AGREES]) for arm in (*BUDGETS, FEW_STRONG)]
    return tuple(rows)


STUDY = Study(
    name="process-advantage-verifiers-transformer",
    title="Process advantages of a learned verifier, both of them transformers",
    source="Setlur et al. 2024, Rewarding Progress, arXiv:2410.08146; the planted sequence as text.",
    arms=ARMS,
    seeds=(0, 1, 2),
    fast={"imitated": 64, "rollouts": 200, "n_mc": 1, "fit_steps": 2, "tests": 50, "steps": 2},
    cell=cell,
    claims=CLAIMS,
    rows=_rows(),
    notes=(
        "Ten letters from a to n, of which five in a row must be `dgadf`. Policies begin as models that have seen "
        "3,200 responses of mu_2 once, which is right 0.00015 of the time: the specification's policy, a worse "
        "imitator, is at 0.0001 after as many of mu_5. `from mu_5` begins at 0.0054: one in three steps.",
        "64 responses a step, leave-one-out baseline, policy gradient on sums over tokens, entropy bonus 0.01 where "
        "the arm does not say 0, alpha = 1. 0.9 is the mean of 5 steps. A run that does not get there counts with all "
        f"its {STEPS} steps. The outcome alone has {LONG}: as many rollouts as the dearest verifier and its policy.",
        "A verifier begins as the policy does, with a new head; all its weights learn, 300 steps on 128 prefixes, and "
        "it is the one of six looks that was best on a fifth of its traces. Labels are those of the study "
        "process-advantage-verifiers-learned, random seeds alone. A budget holds all that is sampled for labels; that "
        "a prover is there to be asked, and what the start imitates, is not counted.",
        "Where the arm does not say otherwise, a step is held against the policy's exact mean: the chance after each "
        "of the fourteen letters and the end is asked for, in every place. Of a verifier too; only what ends a "
        "response is checked. A critic is a model of its own that learns what a token will be credited with. Under "
        "`fitted`, the part for what `reckon fit` leaves, steps are letters and the end belongs to the last of them.",
        "The vocabulary has the letters, the end and the prompt. With the hundred characters of other studies the "
        "entropy bonus, of being uniform over them, wins beside advantages of 0.01: nothing is learned.",
        "Tuning, on seed 100, which the study does not use; all policies have one rate. From mu_5 the outcome alone "
        "took 56, 18 and 12 steps at rates of 3e-4, 1e-3 and 3e-3, exact mu_10 38, 17 and 21. From mu_2, where 3e-4 "
        "was not tried, exact mu_10 took 26 and 13 steps at 1e-3 and 3e-3, the verifier of 32,000 rollouts 26 and 15, "
        "and the outcome alone was not there after 150 at either. So 3e-3 is the best of the outcome where that can be "
        "told, and of both others where the study is about them; the other arms take it over. The critic's rate is "
        "the middle one of 1e-3, 3e-3 and 1e-2, which were alike (14 steps); the verifier's has the lowest loss on "
        "traces held back, of 8,000 rollouts: 0.169, 0.165 and 0.158 at 3e-4, 1e-3 and 3e-3.",
        "Those runs also showed, once each, what some claims test: mu_2 is never there and mu_100 late (26 steps), the "
        "prover's own value does as well as the policy's mean, from mu_5 the outcome alone is as quick, a verifier of "
        "32,000 rollouts does nearly as well as the truth, and with `fitted` and a critic it takes 18 steps; with "
        "2,000, both rates at 1e-3, the policy was sure and wrong after 60. It was they that made the start mu_2. The "
        "rules were committed after them, before any run on seeds 0 to 2.",
        f"One rule was changed after the run, against the method: beside the outcome alone, which may take {LONG} "
        f"steps, a run that was not there after its {STEPS} counts as if it had taken {LONG} too. As committed it "
        f"counted {STEPS}, so that giving up looked like saving: four claims were seen by that (half of the outcome's "
        "steps with 32,000 rollouts; rollouts saved with 2,000 and with 8,000, where no policy ever got there; steps "
        "saved with `fitted`).",
    ),
)
