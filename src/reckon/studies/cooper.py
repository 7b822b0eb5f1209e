r"""Section 5a of the specification cooper: Hong et al. 2025 (arXiv:2508.05613) on a table of six actions.

An action is a style, strict, loose or a hack, and an effort. A rule cannot read the loose style; a reward model takes
the hack for right whatever it says. Everything else is what trains a language model: the parts of the method `cooper`,
its pairs made and checked from texts, its monitor.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from reckon.studies._claims import ByArm, Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json, Rng

if TYPE_CHECKING:
    from reckon.models import LanguageModel
    from reckon.models.table import TablePolicy
    from reckon.studies._hacking_world import CellJudge, Questions
    from reckon.types import Parts

KL = 0.01
STEPS = 400
EVERY = 10  # steps between two points of a curve


def cell(settings: Settings, seed: int) -> Measured:
    """One run; what the table holds on the way, computed exactly."""
    from reckon.studies._hacking_world import (
        ANSWERS,
        GROUPS,
        Questions,
        cells_right,
        expected,
        expected_reward,
        start_policy,
    )
    from reckon.train import take_step

    learner, task = start_policy(), Questions()
    judge, parts = _parts(settings, task, learner)

    def state() -> dict[str, float]:
        law = learner.probabilities()[0]
        found = expected(law)
        paid = (
            found["verified"] if judge is None else expected_reward(law, judge, binary=settings["output"] == "binary")
        )
        return {**found, "reward": paid}

    steps = cast("int", settings["steps"])
    seen, alarm = [state()], list[int]()
    for step in range(steps):
        rng = Rng((seed, "cooper", step))
        done = take_step(learner, task, parts, rng, step=step, prompts=GROUPS, answers=ANSWERS)
        seen.append(state())
        if done.metrics["reward/judge/alarm/gamed"]:
            alarm.append(step + 1)
    best = max(range(steps + 1), key=lambda step: seen[step]["accuracy"])
    metrics = {f"accuracy/{at}": seen[min(at, steps)]["accuracy"] for at in (0, 100, 300, 400)}
    metrics |= {f"reward/{at}": seen[min(at, steps)]["reward"] for at in (0, 400)}
    metrics |= {f"loose/{at}": seen[min(at, steps)]["loose"] for at in (0, 100, 400)}
    metrics |= {
        "hack/400": seen[-1]["hack"],
        "accuracy/best": seen[best]["accuracy"],
        "reward/best": seen[best]["reward"],
        "cells": 6.0 if judge is None else float(cells_right(judge)),
        "alarm": float(alarm[0] if alarm else steps + 1),
        "accuracy/alarm": seen[alarm[0] if alarm else steps]["accuracy"],
    }
    shown = range(0, steps + 1, EVERY)
    curves = {name: [seen[step][name] for step in shown] for name in ("accuracy", "reward", "loose", "hack")}
    return Measured(metrics=metrics, curves={"step": [float(step) for step in shown], **curves})


def _parts(settings: Settings, task: Questions, learner: TablePolicy) -> tuple[CellJudge | None, Parts]:
    """The reward model of an arm, None for the rule, and its method: that of Cooper with another reward."""
    from reckon.methods import cooper
    from reckon.rewards import HackMonitor, OnlineReferenceBased, ReferenceBased, Sum, Verifier
    from reckon.studies._hacking_world import CellJudge

    start = CellJudge()
    given = cast("LanguageModel", start)  # in all that a judge of texts asks of one
    parts = cooper(task, lr=cast("float", settings["lr"]), kl=KL, policy=given, reference=learner.reference())
    kind = settings["reward"]
    if kind == "rule":
        return None, replace(parts, reward=Sum({"judge": HackMonitor(Verifier())}))
    if kind == "static":
        return start, replace(parts, reward=Sum({"judge": HackMonitor(ReferenceBased(given))}))
    monitor = cast("Sum", parts.reward).parts["judge"]
    assert isinstance(monitor, HackMonitor)
    assert isinstance(monitor.reward, OnlineReferenceBased)
    online = replace(
        monitor.reward,
        output=settings["output"],  # type: ignore[arg-type]
        every=settings["every"],  # type: ignore[arg-type]
        positive=settings["positive"],  # type: ignore[arg-type]
        negatives=settings["negatives"],  # type: ignore[arg-type]
    )
    return cast("CellJudge", online.model), replace(parts, reward=Sum({"judge": HackMonitor(online)}))


def _arm(reward: str, lr: float = 0.0, **changes: Json) -> dict[str, Json]:
    return {
        "reward": reward,
        "lr": lr,
        "output": "probability",
        "every": 1,
        "positive": "first",
        "negatives": "change_number",
        "steps": STEPS,
        **changes,
    }


def _cooper(lr: float) -> str:
    return f"Cooper, rate {lr:g}"


_RATES = (0.5, 2.0, 4.0, 8.0, 16.0, 32.0)
_RULE, _STATIC, _WRITTEN, _SLOW, _FAST = "rule", "static judge", _cooper(2.0), _cooper(4.0), _cooper(16.0)
_REJECTED = "Cooper, rate 4, rejected negatives"
_ARMS: dict[str, dict[str, Json]] = {
    _RULE: _arm("rule"),
    _STATIC: _arm("static"),
    **{_cooper(lr): _arm("online", lr) for lr in _RATES},
    _REJECTED: _arm("online", 4.0, negatives="rejected"),
    "Cooper, rate 4, all positives": _arm("online", 4.0, positive="all"),
    "Cooper, rate 4, lowest score": _arm("online", 4.0, positive="lowest_score"),
    "Cooper, rate 16, every 4 steps": _arm("online", 16.0, every=4),
    "Cooper, rate 16, binary": _arm("online", 16.0, output="binary"),
}
# Arm: the pilot's accuracy at step 300 and at the end, and its training reward at the end. Where it has one number the
# specification does not say of which step. Its rates 0.5 and 2 are 4 and 16 here: see the notes.
_PILOT: dict[str, tuple[str, str, str]] = {
    _RULE: ("", "0.647", "0.73"),
    _STATIC: ("", "0.104 to 0.106", "0.97"),
    _FAST: ("", "0.641 to 0.643", "0.72"),
    _SLOW: ("0.47 to 0.58", "0.40 to 0.52", "0.71"),
    _REJECTED: ("", "0.629 to 0.633", "0.65"),
}
_METRICS = {
    "accuracy/300": "accuracy at step 300",
    "accuracy/400": "accuracy at the end",
    "reward/400": "reward at the end",
}


def _less(arm: str, other: str, metric: str, least: float = 0.0) -> Effect:
    return less(arm, other, metric, says=_METRICS[metric], least=least)


def _as_accurate(arm: str) -> Effect:
    return Effect(
        says=f"accuracy at the end: {arm} less {_RULE}",
        of=lambda found: found[arm]["accuracy/400"] - found[_RULE]["accuracy/400"],
        within=0.02,
    )


def _above(arm: str, metric: str, bound: float, says: str) -> Effect:
    return Effect(says=f"{says} less {bound:g}: {arm}", of=lambda found: found[arm][metric] - bound)


def _sounds(arm: str) -> Effect:
    return Effect(says=f"runs with an alarm: {arm}", of=lambda found: float(found[arm]["alarm"] <= STEPS), least=1.0)


def _quiet(arm: str) -> Effect:
    return Effect(says=f"runs without an alarm: {arm}", of=lambda found: float(found[arm]["alarm"] > STEPS), least=1.0)


def _collapse(found: ByArm) -> float:
    return found[_STATIC]["accuracy/best"] - found[_STATIC]["accuracy/400"]


def _rise(found: ByArm) -> float:
    return found[_STATIC]["reward/400"] - found[_STATIC]["reward/best"]


STUDY = Study(
    name="cooper",
    title="Cooper: a judge that learns from what a rule is sure of, on a table of six actions",
    source="Hong et al. 2025, Cooper, arXiv:2508.05613; the tabular hacking world.",
    arms=_ARMS,
    seeds=(0, 1, 2, 3, 4),
    fast={"steps": 2},
    cell=cell,
    claims=(
        Claim(
            says="A static judge is hacked: it ends paying above 0.9 for accuracy below 0.2",
            effects=(
                Effect(
                    says=f"0.2 less accuracy at the end: {_STATIC}",
                    of=lambda found: 0.2 - found[_STATIC]["accuracy/400"],
                ),
                _above(_STATIC, "reward/400", 0.9, "reward at the end"),
            ),
        ),
        Claim(
            says="It rises first and then collapses while its reward goes on rising",
            effects=(
                Effect(says=f"best accuracy less accuracy at the end: {_STATIC}", of=_collapse, least=0.3),
                Effect(says=f"reward at the end less reward at the best accuracy: {_STATIC}", of=_rise, least=0.1),
            ),
        ),
        Claim(
            says="Cooper at the specification's rate 2, its loss a mean over pairs as written, is level with the rule",
            effects=(_as_accurate(_WRITTEN),),
        ),
        Claim(
            says="Cooper at rate 16, which is rate 2 on the sum over a step's eight pairs, is level with the rule",
            effects=(_as_accurate(_FAST),),
        ),
        Claim(
            says="Its judge is right about all six cells at the end",
            effects=(_above(_FAST, "cells", 5.5, "cells judged right at the end"),),
        ),
        Claim(
            says="A slower judge (rate 4) lies between rule and static judge: collapse is delayed and not prevented",
            effects=(_less(_RULE, _SLOW, "accuracy/400", 0.05), _less(_SLOW, _STATIC, "accuracy/400", 0.05)),
        ),
        Claim(
            says="The judge must outrun the policy: the faster it learns, the more accuracy is left, up to rate 16",
            effects=tuple(_less(_cooper(more), _cooper(less), "accuracy/400") for less, more in pairwise(_RATES[:5])),
        ),
        Claim(
            says="The rule lets the loose style die, which was right",
            effects=(
                Effect(
                    says=f"share of the loose style at the start less that at the end: {_RULE}",
                    of=lambda found: found[_RULE]["loose/0"] - found[_RULE]["loose/400"],
                    least=0.3,
                ),
            ),
        ),
        Claim(
            says="Rejected negatives work here at a rate at which corrupted ones fail, and the loose style dies faster",
            effects=(
                _less(_REJECTED, _SLOW, "accuracy/400", 0.05),
                Effect(
                    says=f"share of the loose style at step 100: {_SLOW} less {_REJECTED}",
                    of=lambda found: found[_SLOW]["loose/100"] - found[_REJECTED]["loose/100"],
                    least=0.05,
                ),
            ),
        ),
        Claim(
            says="The monitor sounds under the static judge before accuracy is below 0.3, not under rule or fast judge",
            effects=(
                _sounds(_STATIC),
                _above(_STATIC, "accuracy/alarm", 0.3, "accuracy at the first alarm"),
                _quiet(_RULE),
                _quiet(_FAST),
            ),
        ),
        Claim(says="It sounds in the slow collapse too (rate 4)", effects=(_sounds(_SLOW),)),
        Claim(
            says="Half a point more than a rule, accuracy on VerifyBench, what an assistant's negatives are worth",
            why="a table of six actions has none of them",
        ),
    ),
    rows=tuple(
        Row(arm=arm, metric=metric, says=says, pilot=pilot)
        for arm in _ARMS
        for (metric, says), pilot in zip(_METRICS.items(), _PILOT.get(arm, ("", "", "")), strict=True)
    )
    + tuple(
        Row(arm=arm, metric="alarm", says=f"step of the first alarm ({STEPS + 1} = none)")
        for arm in (_STATIC, _WRITTEN, _SLOW, _FAST)
    ),
    notes=(
        "A rate multiplies the gradient of the loss as the specification writes it, a mean over a step's valid pairs. "
        "Before the run, on a seed that is not among its own, rate 2 collapsed, as it did in a few lines of NumPy that "
        "share nothing with this code (tests/studies/test_cooper.py). With the sum over the eight pairs in the mean's "
        "place those lines give the pilot's numbers: 0.43 to 0.57 at step 300 for its rate 0.5, 0.63 to 0.64 for its "
        "rate 2. So the pilot's rates 0.5 and 2 are 4 and 16 here; the claim at rate 2 as written stands beside them.",
        "The monitor compared two windows that follow each other when that seed was looked at, and missed the slow "
        "collapse; it has since compared with the best stretch of the run. Its claims are about that form.",
        "Accuracy, shares and rewards are computed from the table, not estimated from samples; the alarm's step is the "
        "monitor's own, from samples. The training rewards of the specification's pilot lie above what a table of its "
        "accuracy can earn, and are probably those of a last batch.",
        "Loop, pairs, checks and monitor are those of a real run: every response is a text that rule, corruptor and "
        "judge read.",
        "Seen in the run and claimed nowhere: learning from the right response with the lowest score is far worse than "
        "from the first (accuracy 0.18 against 0.50 at step 300), for the judge scores the hack highest and is hardly "
        "ever shown it so; all right responses in the first one's place change little; at rate 16 a judge that learns "
        "at every fourth step does as well; and with a binary reward three runs of five collapsed halfway, the "
        "monitor sounded, and they recovered.",
        "The rules were committed before the first full run, after the pilot's table and one seed had been looked at.",
    ),
)
