"""A reward head of ordered stages where hardly a rollout is right: PRESTO (Faletto and Bien, ICML 2023) as a judge.

A small model adds six digits modulo 10, one by one, and errs at every second step, so that under 2 % of its responses
are right in every step. Judges learn from them: by right or wrong alone, or by how far a response was right. In a
second world the errors are as many, but large digits are harder to add than small ones, so that prompts differ.
"""

from __future__ import annotations

import math
from typing import cast

from reckon.studies._claims import Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json


def cell(settings: Settings, seed: int) -> Measured:
    """One judge: fitted as `reckon fit` fits it, opened as a recipe opens it, asked about responses to new prompts."""
    import numpy as np

    from reckon.studies import _staged_rollouts as rollouts
    from reckon.studies._implicit_prm_texts import Size

    written = rollouts.make_written(Size.of(settings), seed)
    head = cast("str", settings["head"])
    if head == "none":
        share = (written.stages == rollouts.RIGHT).mean()
        scores = np.full(len(written.right), math.log(share / (1 - share)))
    else:
        network = cast("rollouts.Network", settings["network"])
        folder = rollouts.judge(written, network, cast("rollouts.Head", head), cast("int", settings["epochs"]))
        scores = rollouts.log_odds(folder, written.test)
    metrics = rollouts.measured(scores, written)
    if settings.get("uneven"):
        metrics["known"] = rollouts.by_chance(written, cast("float", settings["error"]))
    return Measured(metrics=metrics)


METRICS = {
    "auc": "AUC of right in every step",
    "skill": "Brier score less than that of the share alone, percent",
    "log loss": "log loss",
    "best/16": "best of 16 is right in every step",
}
_ABOUT = {
    "learned": "right responses learned from, percent",
    "right": "right responses asked about, percent",
    "oracle": "prompts with a right one among 16",
}
_WORLD: dict[str, Json] = {
    "operations": 6,
    "error": 0.5,
    "worked": 1000,
    "passes": 10,
    "examples": 4000,
    "sft_lr": 1e-3,
    "pool": 400,
    "asked": 200,
    "epochs": 3,
}
_UNEVEN: dict[str, Json] = {**_WORLD, "uneven": True, "asked": 400}
STAGED, BINARY = "staged head, policy frozen", "binary head, policy frozen"
OUTCOME = "outcome model, all weights"
GRADED, GRADED_BINARY = "staged head, graded network", "binary head, graded network"
SHARE = "share of right responses"
_JUDGES: dict[str, dict[str, Json]] = {
    STAGED: {"network": "policy", "head": "staged"},
    BINARY: {"network": "policy", "head": "binary"},
    OUTCOME: {"network": "outcome", "head": "own"},
    GRADED: {"network": "graded", "head": "staged"},
    GRADED_BINARY: {"network": "graded", "head": "binary"},
    SHARE: {"network": "policy", "head": "none"},
}
EVEN, UNEVEN = "", ", uneven"  # what the arms of a world end with
_ARMS: dict[str, dict[str, Json]] = {
    judge + world: {**made, **settings}
    for world, made in ((EVEN, _WORLD), (UNEVEN, _UNEVEN))
    for judge, settings in _JUDGES.items()
}


def _better(arm: str, other: str, world: str) -> tuple[Effect, ...]:
    """Ranking, probabilities and choice."""
    arm, other = arm + world, other + world
    return (
        less(arm, other, "auc", says=METRICS["auc"], least=0.02),
        less(arm, other, "skill", says=METRICS["skill"]),
        less(arm, other, "best/16", says=METRICS["best/16"], least=0.01),
    )


def _claims(world: str, where: str) -> tuple[Claim, ...]:
    """The same of both worlds."""
    graded = GRADED + world
    return (
        Claim(
            says=f"{where}: on the same frozen states a head that learned stages is the better judge: ranking, "
            "probabilities, choice",
            effects=_better(STAGED, BINARY, world),
        ),
        Claim(
            says=f"{where}: frozen as it is, it beats an outcome model that learned right and wrong with all its "
            "weights",
            effects=_better(STAGED, OUTCOME, world),
        ),
        Claim(
            says=f"{where}: on a network that first learned the stage as a share, it beats that outcome model",
            effects=_better(GRADED, OUTCOME, world),
        ),
        Claim(
            says=f"{where}: on that network too it beats a binary head",
            effects=_better(GRADED, GRADED_BINARY, world),
        ),
        Claim(
            says=f"{where}: there its probabilities are better than the share of right responses alone",
            effects=(
                Effect(
                    says=f"{METRICS['skill']}: {graded}",
                    of=lambda found: found[graded]["skill"],
                    least=1.0,
                ),
            ),
        ),
    )


STUDY = Study(
    name="staged-reward-head",
    title="A reward head of ordered stages, where under 2 % of rollouts are right",
    source="A use of our own of Faletto and Bien 2023, Predicting Rare Events by Shrinking Towards Proportional Odds, "
    "ICML.",
    arms=_ARMS,
    seeds=tuple(range(5)),
    fast={
        "operations": 3,
        "error": 0.3,
        "worked": 1000,
        "passes": 8,
        "examples": 500,
        "pool": 32,
        "asked": 12,
        "epochs": 1,
    },
    cell=cell,
    claims=(*_claims(EVEN, "Even errors"), *_claims(UNEVEN, "Uneven errors")),
    rows=(
        *(Row(arm=arm, metric=metric, says=says) for arm in _ARMS for metric, says in METRICS.items()),
        *(
            Row(arm=SHARE + world, metric=metric, says=says)
            for world in (EVEN, UNEVEN)
            for metric, says in _ABOUT.items()
        ),
        Row(arm=SHARE + UNEVEN, metric="known", says="AUC of the chance that the generator gives the prompt"),
    ),
    notes=(
        "Right is right in every step and no more of them; a right last digit alone is not. Stages: a third of the "
        "steps right from the first on, two thirds, all.",
        "Heads read the state after the last token and are solved for exactly, the penalty chosen by five folds of "
        "prompts. A binary head is the same with two stages, so a logit with a tuned lasso.",
        "The outcome model is `reckon fit outcome-bce`: three passes, the step kept that is best on 15 % of the "
        "prompts. The graded network is the same with the stage, divided by three, as its label.",
        "All judges are fitted by `fit_command`, opened by `load_judge`, and asked about 16 responses to each of 200 "
        "new prompts, 400 where errors are uneven. Every arm of a seed and a world sees the same rows.",
        "Even errors: one step in two. Chosen before any run: the rules, the world and the settings; the rate of 1e-3 "
        "is that of outcome models in implicit-prm-transformer. Nothing but the fast form was run before.",
        "Uneven errors: adding a digit errs with a tenth of it, as often in the mean. This world was added after the "
        "first had been run, in which no judge learned anything, under the rules of the first. A pilot (seed 100) saw "
        "the shares of stages alone, and how they depend on the digits; no judge was asked before the rules stood "
        "here. Two others were dropped on the way: prompts of unequal lengths, which the small model does not learn to "
        "add, and the first world with more steps wrong and 2.5 times the responses, where the graded network does not "
        "learn the stage.",
    ),
)
