"""Whether one policy does better than another on the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reckon.errors import InputError
from reckon.evaluate._evaluate import Evaluation
from reckon.evaluate._statistics import Difference, mcnemar, paired_difference
from reckon.evaluate._summary import Item, items


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations of the same problems, set against each other."""

    before: float  # pass@1 on the problems both know the verdict of
    after: float
    difference: Difference  # after - before, paired by problem
    b: int  # problems right only before
    c: int  # problems right only after
    p: float  # McNemar's exact two-sided p-value
    n: int  # problems compared
    unknown: int  # problems left out, since one side or the other does not know its verdict

    def __str__(self) -> str:
        change = self.difference
        left = f"; {self.unknown} problems left out, their verdict is unknown" if self.unknown else ""
        return (
            f"{self.before:.1%} -> {self.after:.1%} on {self.n} problems "
            f"({change.mean * 100:+.1f} points, 95% interval {change.low * 100:+.1f} to {change.high * 100:+.1f}): "
            f"{self.c} now right, {self.b} now wrong, McNemar p = {self.p:.2g}{left}"
        )


def compare(before: Evaluation, after: Evaluation) -> Comparison:
    """Compares two evaluations problem by problem; see `compare_shares` for several answers to each.

    Raises:
        InputError: if the two do not hold the same problems (id, prompt and reference), if a problem has more than one
            answer that counts (evaluate greedily or with k = 1), or if no problem has a known verdict on both sides.
    """
    pairs = [(_verdict(one), _verdict(other)) for one, other in _paired(before, after)]
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    _check_known(known)
    old, new = [float(x) for x, _ in known], [float(y) for _, y in known]
    change = _difference(old, new)
    b = sum(x and not y for x, y in known)
    c = sum(y and not x for x, y in known)
    return Comparison(
        before=sum(old) / len(old),
        after=sum(new) / len(new),
        difference=change,
        b=b,
        c=c,
        p=mcnemar(b, c),
        n=len(known),
        unknown=len(pairs) - len(known),
    )


def compare_shares(before: Evaluation, after: Evaluation) -> Difference:
    """By how much more often samples are right in the second evaluation, paired by problem; McNemar's test has no word.

    A problem counts with the share of its samples with a known verdict that are right, and is left out where none is
    known on one side.

    Raises:
        InputError: if the two do not hold the same problems, or no problem has a known verdict on both sides.
    """
    shares = [(one.share, other.share) for one, other in _paired(before, after)]
    known = [(x, y) for x, y in shares if x is not None and y is not None]
    _check_known(known)
    return _difference([x for x, _ in known], [y for _, y in known])


def _paired(before: Evaluation, after: Evaluation) -> list[tuple[Item, Item]]:
    """The same problems of both."""
    first = {item.problem: item for item in items(before.responses)}
    second = {item.problem: item for item in items(after.responses)}
    _check_same(first, second)
    return [(item, second[problem]) for problem, item in first.items()]


def _difference(old: Sequence[float], new: Sequence[float]) -> Difference:
    change = paired_difference(old, new)
    return replace(change, low=max(-1.0, change.low), high=min(1.0, change.high))  # shares differ by at most 1


def _check_known(known: Sequence[object]) -> None:
    if not known:
        raise InputError("compare: no problem has a known verdict in both evaluations; check the task's references.")


def _check_same(first: dict[str, Item], second: dict[str, Item]) -> None:
    for one, other, where in ((first, second, "first"), (second, first, "second")):
        alone = [problem for problem in one if problem not in other]
        if alone:
            raise InputError(
                f"compare: {len(alone)} problems, such as {alone[0]!r}, are only in the {where} evaluation; "
                "evaluate both on the same split with the same n."
            )
    for problem, item in first.items():
        if (item.prompt, item.reference) != (second[problem].prompt, second[problem].reference):
            raise InputError(
                f"compare: problem {problem!r} has another prompt or reference answer in the second evaluation; "
                "evaluate both with the same task settings and seed."
            )


def _verdict(item: Item) -> bool | None:
    if len(item.first) != 1:
        raise InputError(
            f"compare: problem {item.problem!r} has {len(item.first)} answers that count; "
            "McNemar's test needs one each, so evaluate with greedy=True or with k=1."
        )
    return None if item.share is None else item.share == 1.0
