r"""Section 5 of the specification domain-sampling: RuleReasoner (Liu, Li and Zheng 2026, arXiv:2506.08672) as a bandit.

A small network answers questions of eight domains of unequal size and difficulty; all that differs between the arms is
which problems are posed, and which answers are kept. GRPO, sampling, keeping and learning are reckon's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from reckon.studies._bits import NAMES, Bits
from reckon.studies._claims import ByArm, Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Batch, Json, Refill, Rng, Sampler, Stream, Task

GROUPS, ANSWERS = 64, 8  # a step
STEPS = 400
ONE = STEPS * GROUPS * ANSWERS  # rollouts of as many steps that waste none
EVERY = 40 * GROUPS * ANSWERS  # rollouts between two points of a curve
AXIS = "rollouts, thousands"


def sampler_of(kind: str, task: Task) -> Sampler:
    """The sampler of an arm."""
    from reckon import samplers
    from reckon.studies._released_sampler import ReleasedSampler

    made: Mapping[str, Callable[[], Sampler]] = {
        "equal": lambda: samplers.FixedDomains(task),
        "running mean": lambda: samplers.DomainSampler(task),
        "running mean, tau 0.3": lambda: samplers.DomainSampler(task, tau=0.3),
        "running mean, tau 0.8": lambda: samplers.DomainSampler(task, tau=0.8),
        "shuffled": lambda: samplers.DomainSampler(task, control="shuffled"),
        "inverted": lambda: samplers.DomainSampler(task, control="inverted"),
        "released": lambda: ReleasedSampler(task),
        "proportional": lambda: samplers.Uniform(task),
        "easy to hard": lambda: samplers.EasyToHard(task, passes=7),
        "adaptive difficulty": lambda: samplers.AdaptiveDifficulty(task),
    }
    return made[kind]()


def cell(settings: Settings, seed: int) -> Measured:
    """One arm: GRPO until it has made its steps and spent its rollouts; its accuracy on fresh problems on the way."""
    from reckon.methods import grpo
    from reckon.samplers import DropEqual
    from reckon.studies._bits_policy import BitsPolicy
    from reckon.studies._watched import Watched
    from reckon.train import take_step

    root, task = Rng((seed, "domain-sampling")), Bits(seed)
    policy, fresh = BitsPolicy(root.child("weights").integer() % 2**31, task), task.problems("test")
    parts = replace(grpo(task), sampler=sampler_of(cast("str", settings["sampler"]), task))
    if settings["equal groups"] == "refilled":
        parts = replace(parts, keep=DropEqual(), refill=Refill(rounds=8, on_short="fill"))

    steps, budget = cast("int", settings["steps"]), cast("int", settings["rollouts"])
    grid, points = range(0, budget + 1, EVERY), list[dict[str, float]]()
    drawn, step, metrics = dict.fromkeys(NAMES, 0), 0, dict[str, float]()

    def look(batch: Batch, streams: Mapping[str, Stream]) -> None:
        """Before the policy learns from rollouts that go beyond a point of the curve."""
        del streams
        for problem in batch.seen.problems:
            drawn[problem.domain] += 1
        while len(points) < len(grid) and grid[len(points)] < sum(drawn.values()):
            points.append(policy.accuracy(fresh))

    parts = replace(parts, reward=Watched(parts.reward, look))
    while step < steps or sum(drawn.values()) < budget:
        take_step(policy, task, parts, root.child(step), step=step, prompts=GROUPS, answers=ANSWERS)
        step += 1
        if step == steps:
            metrics = _after(policy.accuracy(fresh), drawn)
    points += [policy.accuracy(fresh)] * (len(grid) - len(points))
    return Measured(
        metrics=metrics | {"when spent": _mean(points[-1])},
        curves={
            AXIS: [spent / 1000 for spent in grid],
            "mean over domains": [_mean(point) for point in points],
            **{name: [point[name] for point in points] for name in NAMES},
        },
    )


def _mean(accuracy: Mapping[str, float]) -> float:
    return sum(accuracy.values()) / len(accuracy)


def _after(accuracy: Mapping[str, float], drawn: Mapping[str, int]) -> dict[str, float]:
    rollouts = sum(drawn.values())
    return {
        "mean": _mean(accuracy),
        "worst": min(accuracy.values()),
        "rollouts": rollouts / 1000,
        **{f"accuracy: {name}": value for name, value in accuracy.items()},
        **{f"share: {name}": number / rollouts for name, number in drawn.items()},
    }


def _less(arm: str, other: str, least: float, metric: str = "mean") -> Effect:
    return less(arm, other, metric, says=METRICS[metric], least=least)


def _near(arm: str, other: str) -> Effect:
    return Effect(
        says=f"{METRICS['mean']}: {arm} less {other}",
        of=lambda found: found[arm]["mean"] - found[other]["mean"],
        within=0.03,
    )


def _dear(found: ByArm) -> float:
    return found[_DAPO]["rollouts"] / found[_DADS]["rollouts"] - 3


METRICS = {
    "mean": f"accuracy after {STEPS} steps, mean over domains",
    "worst": f"accuracy after {STEPS} steps, worst domain",
    "rollouts": f"rollouts of {STEPS} steps, thousands",
    "when spent": f"accuracy after {2 * ONE // 1000} thousand rollouts, mean over domains",
}
_EQUAL, _DADS, _DAPO = "equal shares", "by accuracy", "equal groups refilled (DAPO)"
_SHARP, _FLAT = "by accuracy, tau 0.3", "by accuracy, tau 0.8"
_RELEASED, _SHUFFLED, _INVERTED = "by accuracy, as released", "weights shuffled", "weights inverted"
_PROPORTIONAL = "proportional"


def _run(sampler: str, groups: str = "kept", *, rollouts: int = ONE) -> dict[str, Json]:
    return {"sampler": sampler, "equal groups": groups, "steps": STEPS, "rollouts": rollouts}


# Arm: its settings, and the pilot's numbers in the order of METRICS.
_ARMS: dict[str, tuple[dict[str, Json], tuple[str, ...]]] = {
    _EQUAL: (_run("equal", rollouts=2 * ONE), ("0.592", "", "204.8", "")),
    _DADS: (_run("running mean", rollouts=2 * ONE), ("0.631", "", "204.8", "")),
    _SHARP: (_run("running mean, tau 0.3"), ("0.631", "", "204.8", "")),
    _FLAT: (_run("running mean, tau 0.8"), ("0.627", "", "204.8", "")),
    _RELEASED: (_run("released"), ("0.631", "", "204.8", "")),
    _SHUFFLED: (_run("shuffled"), ("0.582", "", "204.8", "")),
    _INVERTED: (_run("inverted"), ("0.546", "", "204.8", "")),
    _PROPORTIONAL: (_run("proportional"), ("0.652 (5 seeds)", "", "204.8", "")),
    "easy to hard": (_run("easy to hard"), ("about 0.46 (5 seeds)", "", "204.8", "")),
    "adaptive difficulty (AdaRFT)": (_run("adaptive difficulty"), ("about 0.46 (5 seeds)", "", "204.8", "")),
    _DAPO: (_run("equal", "refilled", rollouts=2 * ONE), ("0.664 (5 seeds)", "", "799 (5 seeds)", "")),
}

_CLAIMS = (
    Claim(
        says="More problems where it goes badly beat equal shares, at equal steps and rollouts",
        effects=(_less(_DADS, _EQUAL, 0.02), _less(_DADS, _EQUAL, 0.0, "when spent")),
    ),
    Claim(
        says="The temperature hardly matters",
        effects=(_less(_SHARP, _EQUAL, 0.02), _less(_FLAT, _EQUAL, 0.02)),
    ),
    Claim(
        says="The direction matters: shuffled weights are as good as equal ones, inverted ones worse",
        effects=(_near(_SHUFFLED, _EQUAL), _less(_DADS, _SHUFFLED, 0.02), _less(_EQUAL, _INVERTED, 0.02)),
    ),
    Claim(
        says="The released code's arithmetic, faults included, does as well as the paper's",
        effects=(_less(_RELEASED, _EQUAL, 0.02), _near(_RELEASED, _DADS)),
    ),
    Claim(
        says="Dropping equal groups and drawing again comes to the same at equal steps, for three times the rollouts",
        effects=(
            _near(_DAPO, _DADS),
            Effect(says=f"{METRICS['rollouts']}: {_DAPO} as a multiple of {_DADS}, less 3", of=_dear),
        ),
    ),
    Claim(
        says="At equal rollouts, weighing domains is ahead of dropping equal groups",
        effects=(_less(_DADS, _DAPO, 0.02, "when spent"),),
    ),
    Claim(
        says="Shares by size are ahead of equal ones early on",
        effects=(_less(_PROPORTIONAL, _EQUAL, 0.02),),
    ),
    Claim(
        says="Shares by size fall behind equal ones by 1,600 steps; a domain of wrong answers takes its share for ever",
        why="the pilot tried both at sizes that would take this study beyond its 20 minutes",
    ),
    Claim(
        says="Gains on unseen benchmarks, over large models, and on long reasoning",
        why="answers of one token about 16 bits have none of them",
    ),
)


def _rows() -> tuple[Row, ...]:
    rows = [
        Row(arm=arm, metric=metric, says=says, pilot=number)
        for arm, (settings, pilot) in _ARMS.items()
        for (metric, says), number in zip(METRICS.items(), pilot, strict=True)
        if metric != "when spent" or settings["rollouts"] == 2 * ONE
    ]
    for arm in (_EQUAL, _DADS, _PROPORTIONAL, _DAPO):
        rows += [Row(arm=arm, metric=f"accuracy: {d}", says=f"accuracy after {STEPS} steps, {d}") for d in NAMES]
    for arm in (_DADS, _DAPO):
        rows += [Row(arm=arm, metric=f"share: {d}", says=f"share of the rollouts, {d}") for d in NAMES]
    return tuple(rows)


STUDY = Study(
    name="domain-sampling",
    title="Which domain next: sampling by accuracy, its controls and its neighbors",
    source="Liu, Li and Zheng 2026, RuleReasoner, arXiv:2506.08672; the contextual bandit of eight domains.",
    arms={arm: settings for arm, (settings, _) in _ARMS.items()},
    seeds=tuple(range(12)),
    fast={"steps": 2, "rollouts": 2 * GROUPS * ANSWERS},
    cell=cell,
    claims=_CLAIMS,
    rows=_rows(),
    axis=AXIS,
    notes=(
        "The axis is what was generated, dropped groups included: an arm that drops groups makes fewer steps of the "
        "same rollouts.",
        "Accuracy is that of the likeliest answer to 300 fresh problems of each domain; the mean is over domains, not "
        "over problems.",
        "All arms of a seed share the problems, the first weights and the random numbers behind the answers; seeds "
        "draw their own. Which bits a domain asks about, and that the network's hidden layer is a ReLU, are choices of "
        "ours, so the pilot's numbers are for orientation.",
        "Refilling draws from equal shares, 8 times at most, and then fills the batch with groups that were dropped.",
        "Difficulty, for the two arms that read it, is the place of the problem's domain in the list of domains: a "
        "label by hand, one for a whole domain. This says nothing about labels for single problems. Easy to hard goes "
        "seven times through each domain, hardest last; the last 8 of its 400 steps begin again with the easiest.",
        "Every step is one of reckon's loop: its samplers, `collect`, GRPO's parts and an update; the policy is a "
        "network, since a table could not answer fresh problems.",
        "The rules were committed before the run. They come from the specification, whose pilot had been read. A first "
        "commit of them had more arms; it was cut to these, for time, before any result was looked at.",
    ),
)
