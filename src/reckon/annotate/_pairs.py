"""Pairs of a right response and the same response made wrong, validated: what a reference-based judge learns from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from reckon.annotate._calls import gather
from reckon.annotate._corrupt import Corruptor
from reckon.errors import InputError
from reckon.tasks import verdict_on
from reckon.types import Batch, Metrics, Problem, Rng, Rollouts, Task

if TYPE_CHECKING:
    from torch import Tensor

Positive: TypeAlias = Literal["first", "random", "all", "lowest_score"]
Refusal: TypeAlias = Literal["nothing", "failed", "no answer", "right", "same answer", "unknown", "positive unread"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two responses to a problem."""

    problem: Problem
    chosen: str  # right
    rejected: str  # wrong
    row: int  # which of the rollouts `chosen` is


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs in the order of the batch, and why there are no more."""

    pairs: tuple[Pair, ...]
    valid: tuple[bool, ...]  # G: whether a prompt has a pair
    positive: tuple[bool, ...]  # G: whether a prompt has a right response
    refused: Mapping[Refusal, int]  # negatives that were not taken, by reason

    @property
    def share(self) -> float:
        """Prompts with a pair. Watch it: where no response is right no pair is built, and so collapse does not end."""
        return sum(self.valid) / len(self.valid) if self.valid else 0.0

    def metrics(self) -> Metrics:
        """Numbers to be logged."""
        prompts = max(len(self.valid), 1)
        return {
            "pairs/share": self.share,
            "pairs/positive_share": sum(self.positive) / prompts,
            "pairs/n": float(len(self.pairs)),
            **{f"pairs/refused/{reason.replace(' ', '_')}": float(n) for reason, n in sorted(self.refused.items())},
        }


def build_pairs(
    rollouts: Rollouts,
    outcome: Tensor,
    task: Task,
    corruptor: Corruptor,
    rng: Rng,
    *,
    positive: Positive = "first",
    scores: Tensor | None = None,
    tries: int = 3,
    workers: int = 1,
    seconds: float | None = None,
) -> Pairs:
    """Builds a pair for each prompt that has a right response, by corrupting that response.

    Hong et al. 2025, arXiv:2508.05613 (Cooper), with the faults of its code left out: a negative without an answer is
    refused, it is compared with the reference as well as with the positive, prompts keep the order of the batch, and
    the corruptor is not called where there is no positive.

    Args:
        rollouts: N responses to G prompts.
        outcome: [N] float, the verifier's verdict; only 1 is right, NaN is not.
        task: reads and checks answers.
        corruptor: makes negatives; called with the problem, the response and random numbers of its row and try.
        rng: names the random numbers.
        positive: which right response: the "first", one at "random", "all" of them, or that with the "lowest_score",
            the one a judge is most wrong about.
        scores: [N] float, the judge's, for "lowest_score".
        tries: how often the corruptor may try, until a negative is valid.
        workers: the most calls at a time.
        seconds: the most one call may take; None = no limit.

    Raises:
        InputError: a setting cannot be, or scores are missing.
    """
    if tries < 1:
        raise InputError(f"`tries` is {tries}; the corruptor must be called at least once.")
    chosen = choose_positives(rollouts, outcome, rng.child("positive"), positive=positive, scores=scores)
    refused: Counter[Refusal] = Counter()
    found: dict[int, str] = {}

    def corrupt(job: tuple[int, Rng]) -> str | Awaitable[str | None] | None:
        row, stream = job
        return corruptor(rollouts.problem(row), rollouts.text[row], stream)

    for attempt in range(tries):
        jobs = [(row, rng.child("corrupt", row, attempt)) for row in chosen if row not in found]
        for (row, _), called in zip(jobs, gather(corrupt, jobs, workers=workers, seconds=seconds), strict=True):
            reason: Refusal | None = "failed"
            if called.failure is None:
                reason = why_refused(task, rollouts.problem(row), rollouts.text[row], called.value)
            if reason is not None:
                refused[reason] += 1
            elif called.value is not None:
                found[row] = called.value
    pairs = tuple(
        Pair(problem=rollouts.problem(row), chosen=rollouts.text[row], rejected=found[row], row=row)
        for row in chosen
        if row in found
    )
    return _pairs(rollouts, pairs, chosen, refused)


def pairs_of(
    batch: Batch,
    task: Task,
    corruptor: Corruptor,
    rng: Rng,
    *,
    positive: Positive = "first",
    scores: Tensor | None = None,
    workers: int = 1,
    seconds: float | None = None,
) -> Pairs:
    """`build_pairs` of the rollouts of a training batch, judged by its outcome; arguments as there."""
    return build_pairs(
        batch.rollouts,
        batch.outcome,
        task,
        corruptor,
        rng,
        positive=positive,
        scores=scores,
        workers=workers,
        seconds=seconds,
    )


def rejected_pairs(rollouts: Rollouts, outcome: Tensor) -> Pairs:
    """Pairs of each prompt's first right and first wrong response.

    Tempting, for it needs no corruptor; but the verifier's false negatives, right answers in a form it does not know,
    become negatives, and so the judge learns the verifier's blindness. For comparison.
    """
    groups = rollouts.seq.group.tolist()
    verdicts = outcome.tolist()
    pairs, chosen = [], []
    for group in range(len(rollouts.problems)):
        rows = [row for row, other in enumerate(groups) if other == group]
        right = next((row for row in rows if verdicts[row] == 1), None)
        wrong = next((row for row in rows if verdicts[row] == 0), None)
        if right is None:
            continue
        chosen.append(right)
        if wrong is not None:
            texts = rollouts.text[right], rollouts.text[wrong]
            pairs.append(Pair(problem=rollouts.problem(right), chosen=texts[0], rejected=texts[1], row=right))
    return _pairs(rollouts, tuple(pairs), chosen, {})


def choose_positives(
    rollouts: Rollouts, outcome: Tensor, rng: Rng, *, positive: Positive = "first", scores: Tensor | None = None
) -> list[int]:
    """The rows of the right responses to be corrupted, in the order of the batch; arguments as in `build_pairs`."""
    if positive not in get_args(Positive):
        raise InputError(f"`positive` is {positive!r}; it must be one of {', '.join(get_args(Positive))}.")
    if (positive == "lowest_score") != (scores is not None):
        raise InputError("`scores` and positive='lowest_score' belong together: give both or neither.")
    n = len(rollouts.text)
    if tuple(outcome.shape) != (n,) or (scores is not None and tuple(scores.shape) != (n,)):
        raise InputError(f"`outcome` and `scores` must have one value for each of the {n} responses.")
    right: dict[int, list[int]] = {}
    for row, (group, verdict) in enumerate(zip(rollouts.seq.group.tolist(), outcome.tolist(), strict=True)):
        if verdict == 1:
            right.setdefault(group, []).append(row)
    worth = [] if scores is None else [math.inf if math.isnan(score) else score for score in scores.tolist()]
    chosen = []
    for group, rows in right.items():
        if positive == "all":
            chosen += rows
        elif positive == "random":
            chosen.append(rows[int(rng.child(group).numpy().integers(len(rows)))])
        elif positive == "lowest_score":
            chosen.append(min(rows, key=lambda row: worth[row]))
        else:
            chosen.append(rows[0])
    return chosen


def why_refused(task: Task, problem: Problem, positive: str, negative: str | None) -> Refusal | None:
    """Why a negative may not be used; None if it may.

    It must have an answer that can be read, the positive too, and the answer must be wrong by the reference and another
    than the positive's. A verdict that is unknown is no proof of that.
    """
    if negative is None:
        return "nothing"
    good, bad = verdict_on(task, problem, positive), verdict_on(task, problem, negative)
    if not good.answer:
        return "positive unread"
    if not bad.answer:
        return "no answer"
    if bad.outcome is None:
        return "unknown"
    if bad.outcome == 1:
        return "right"
    # Told from the positive by the checker, not by the letter: 1/2 and 0.5 are one answer.
    beside = verdict_on(task, replace(problem, answer=good.answer), negative)
    if bad.answer == good.answer or beside.outcome == 1:
        return "same answer"
    return "unknown" if beside.outcome is None else None


def _pairs(rollouts: Rollouts, pairs: tuple[Pair, ...], chosen: Sequence[int], refused: Mapping[Refusal, int]) -> Pairs:
    groups = rollouts.seq.group.tolist()
    every = range(len(rollouts.problems))
    having, paired = {groups[row] for row in chosen}, {groups[pair.row] for pair in pairs}
    return Pairs(
        pairs=pairs,
        valid=tuple(group in paired for group in every),
        positive=tuple(group in having for group in every),
        refused=dict(refused),
    )
