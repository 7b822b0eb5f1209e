"""Exams on running sums: how often the answer is right, how many lines are, and where the first one is not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, cast

from reckon.evaluate import Answers, Difference, Evaluation, evaluate, paired_difference
from reckon.tasks import RunningSums
from reckon.types import Metrics, Problem, Rng, Step

if TYPE_CHECKING:
    from reckon.evaluate import Response
    from reckon.studies._study import Settings

HELD_OUT, LONGER, LARGER = "held-out", "longer", "larger"
EXAMS = (HELD_OUT, LONGER, LARGER)
_RNG = Rng(("signals-on-smollm", "exam"))  # of no seed: the start sits each exam once, for all
_TOTAL = re.compile(r"(?:^|\n)Total: (\d{1,12})\s*$")


def total(text: str) -> str | None:
    """The number that a response ends with as the worked solutions do, `Total: 85`; None where it does not."""
    found = _TOTAL.search(text)
    return None if found is None else found[1]


def make_task(sums: Mapping[str, object], *, seed: int = 0, train: int = 0, test: int = 0) -> RunningSums:
    """Problems of a kind.

    Args:
        sums: `count` and `size`, each a list of the least and the most.
        seed: of the problems; none of a test split is in a train split of any seed.
        train: how many problems the split has.
        test: the same.
    """
    low_high = {name: cast("tuple[int, int]", tuple(cast("list[int]", sums[name]))) for name in ("count", "size")}
    return RunningSums(**low_high, seed=seed, train=train, dev=0, test=test)


def exam_task(settings: Settings, name: str) -> RunningSums:
    """The problems of an exam."""
    about = cast("Mapping[str, Mapping[str, object]]", settings["exams"])[name]
    return make_task(about, test=cast("int", about["problems"]))


def sit(policy: Answers, task: RunningSums, samples: int) -> Evaluation:
    """Poses every test problem so many times at temperature 1: the same problems and random numbers for all."""
    return evaluate(policy, task, rng=_RNG, split="test", k=samples, greedy=False)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """How far a response got before it went wrong."""

    judged: int  # lines that can be judged
    right: int  # of these, the valid ones
    reached: float  # in [0, 1]: right lines before the first that is wrong or missing, as a share of those needed


def walk(steps: Sequence[Step], needed: int, *, right: bool) -> Walk:
    """Reads the lines of a response in order.

    Args:
        steps: as `RunningSums.steps` has them; those that cannot be judged are passed over.
        needed: lines of the worked solution: one less than there are numbers, and the total.
        right: whether the answer is. A right response without a wrong line has come all the way, also where it added
            several numbers in one line.
    """
    valid = [step.valid for step in steps if step.valid is not None]
    before = valid.index(False) if False in valid else len(valid)
    whole = right and bool(valid) and before == len(valid)
    return Walk(judged=len(valid), right=sum(valid), reached=1.0 if whole else min(before, needed) / needed)


def marks(found: Evaluation, task: RunningSums) -> Metrics:
    """What a policy is worth by an exam.

    Returns:
        "accuracy" with the Wilson 95% interval "low" and "high" over problems; "pass@k" of the k samples;
        "right steps", the share of all judged lines that are valid; "first error", the mean of `Walk.reached`;
        "length" in tokens; "cut", the share that ran into the limit; "entropy", in nats a token: the mean of
        -log p of what was drawn at temperature 1, an unbiased estimate.
    """
    problems = {problem.id: problem for problem in task.problems("test")}
    walks = [_walk(task, problems[response.problem], response) for response in found.responses]
    judged, drawn = sum(one.judged for one in walks), sum(len(response.tokens) for response in found.responses)
    samples = 1 + max(response.sample for response in found.responses)
    scores = found.metrics
    return {
        "accuracy": scores["pass@1"],
        "low": scores["low"],
        "high": scores["high"],
        f"pass@{samples}": scores[f"pass@{samples}"],
        "right steps": sum(one.right for one in walks) / judged if judged else float("nan"),
        "first error": fmean(one.reached for one in walks),
        "length": scores["length/mean"],
        "cut": scores["truncated"],
        "entropy": -sum(sum(response.logprobs) for response in found.responses) / drawn,
    }


def shares(found: Evaluation, samples: int) -> dict[str, float]:
    """By problem: the share of its first so many samples that are right."""
    right: dict[str, list[bool]] = {}
    for response in found.responses:
        if response.sample < samples:
            right.setdefault(response.problem, []).append(response.outcome == 1)
    return {problem: fmean(outcomes) for problem, outcomes in right.items()}


def gained(before: Evaluation, after: Evaluation, samples: int) -> Difference:
    """By how much more of the samples are right than at the start, paired by problem."""
    old, new = shares(before, samples), shares(after, samples)
    return paired_difference([old[problem] for problem in new], list(new.values()))


def _walk(task: RunningSums, problem: Problem, response: Response) -> Walk:
    needed = len(re.findall(r"\d+", problem.prompt_text))
    return walk(task.steps(problem, response.text), needed, right=response.outcome == 1)
