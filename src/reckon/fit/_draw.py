"""Which rows to learn from, and in which proportion: balancing, bucketing, pairs out of scored responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from reckon.errors import InputError
from reckon.fit._checks import check_choice
from reckon.fit._rows import Example, Paired, Prefix, Unpaired
from reckon.tasks import prompt_key
from reckon.types import Problem, Rng

Balance: TypeAlias = Literal["none", "dataset", "instruction"]
PairsHow: TypeAlias = Literal["cross", "best_vs_random"]
_T = TypeVar("_T")


def balanced(rows: Sequence[Unpaired], how: Balance, rng: Rng) -> list[Unpaired]:
    """As many right rows as wrong ones, the surplus dropped at random (Yuan et al. 2024, arXiv:2412.01981).

    Args:
        rows: with labels; 0.5 and above counts as right.
        how: "none" keeps all; "dataset" balances over all rows; "instruction" for each prompt by itself, where a prompt
            whose responses are all right or all wrong vanishes.
        rng: decides which of the surplus stay.

    Returns:
        The rows that stay, in order.

    Raises:
        InputError: nothing would be left, or there is no such way.
    """
    check_choice("how", how, Balance)
    if how == "none":
        return list(rows)
    groups: dict[str, tuple[list[int], list[int]]] = {}
    for place, row in enumerate(rows):
        if row.label is None:
            raise InputError(f"the response to problem {row.problem.id!r} has no label, so it cannot be balanced.")
        key = prompt_key(row.problem.prompt) if how == "instruction" else ""
        groups.setdefault(key, ([], []))[row.label >= 0.5].append(place)
    kept: list[int] = []
    for number, (wrong, right) in enumerate(groups.values()):
        size = min(len(wrong), len(right))
        for name, places in (("wrong", wrong), ("right", right)):
            kept += _some(places, size, rng.child("balance", number, name))
    if not kept:
        raise InputError(
            f"balancing by {how} leaves no row: nowhere is there a right response beside a wrong one. "
            "Sample more responses to a prompt, or balance otherwise."
        )
    return [rows[place] for place in sorted(kept)]


def thinned(rows: Sequence[Example], rng: Rng, *, prompts: float = 1.0, responses: int | None = None) -> list[Example]:
    """Fewer of the rows, as less money would have bought: what a judge learns from 25% of the prompts, or 2 responses.

    What a smaller number keeps, a larger one keeps too, so that a curve over numbers grows by adding rows.

    Args:
        rows: of any kind.
        rng: decides which prompts and which of a prompt's rows stay.
        prompts: share of the prompts, in (0, 1], rounded to whole prompts and at least one.
        responses: most rows of a prompt; None = all.

    Returns:
        The rows that stay, in order.
    """
    groups = _by_key(rows)
    kept = _some(range(len(groups)), max(1, round(prompts * len(groups))), rng.child("prompts"))
    places = [
        place
        for number in kept
        for place in _some(groups[number], responses or len(rows), rng.child("responses", number))
    ]
    return [rows[place] for place in sorted(places)]


def by_buckets(rows: Sequence[Example], rng: Rng) -> Sequence[int]:
    """An order for `fit` in which prefixes with q below 0.5 and above come equally often, in turn.

    A pass has as many draws as there are rows: the bucket that is too full loses some at random, other ones each pass,
    and the other repeats (Setlur et al. 2024, arXiv:2410.08146, section 4). With one bucket empty it is a shuffle.

    Raises:
        InputError: a row is not a `Prefix`.
    """
    buckets: tuple[list[int], list[int]] = ([], [])
    for place, row in enumerate(rows):
        if not isinstance(row, Prefix):
            raise InputError(f"buckets are of prefixes, not of rows of kind {type(row).__name__}.")
        buckets[row.q >= 0.5].append(place)
    if not buckets[0] or not buckets[1]:
        return [int(place) for place in rng.numpy().permutation(len(rows))]
    size = -(-len(rows) // 2)
    low, high = (_repeated(places, size, rng.child("bucket", name)) for name, places in enumerate(buckets))
    return [place for pair in zip(low, high, strict=True) for place in pair][: len(rows)]


def by_prompt(rows: Sequence[Example], rng: Rng) -> Sequence[int]:
    """An order for `fit` in which all rows of a prompt follow each other, the prompts shuffled, and their rows too.

    In a mini-batch a prompt is computed once for all its rows, so where rows are many responses or prefixes to few
    prompts this costs a fraction of a shuffle; the price is fewer prompts in a step.
    """
    found = _by_key(rows)
    order: list[int] = []
    for number in rng.child("prompts").numpy().permutation(len(found)).tolist():
        places = found[number]
        order += [places[i] for i in rng.child("rows", number).numpy().permutation(len(places)).tolist()]
    return order


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Responses to one problem and a score for each."""

    problem: Problem
    texts: tuple[str, ...]
    scores: tuple[float, ...]
    ended: tuple[bool, ...] | None = None  # None = all have

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.scores) or len(self.ended or self.texts) != len(self.texts):
            raise InputError(
                f"problem {self.problem.id!r} needs one score for each of its {len(self.texts)} responses."
            )


def pairs(
    scored: Sequence[Scored],
    rng: Rng,
    *,
    higher_is_better: bool,
    how: PairsHow = "cross",
    cap: int | None = None,
    margins: bool = False,
) -> list[Paired]:
    """Pairs out of scored responses, in order of the problems; responses with equal scores or texts make none.

    Args:
        scored: responses by problem.
        rng: decides which pairs stay under the cap, and against which response the best one stands.
        higher_is_better: has no default, since reading it wrongly trains the opposite.
        how: "cross": every response with every worse one, as in the implicit reward's code; "best_vs_random": the best
            with one that is worse (UltraFeedback's and Nectar's rule).
        cap: most pairs of a problem. Without one the cross product weights problems by how mixed their responses are:
            4 right and 4 wrong make 16 pairs, 7 and 1 make 7.
        margins: keep the difference of the scores as each pair's margin.

    Raises:
        InputError: `cap` is below 1, or there is no such way.
    """
    check_choice("how", how, PairsHow)
    if cap is not None and cap < 1:
        raise InputError(f"`cap` is {cap}, but must be at least 1 pair of a problem.")
    made = []
    for number, group in enumerate(scored):
        sign = 1 if higher_is_better else -1
        goodness = [sign * score for score in group.scores]
        found = [
            (i, j)
            for i in range(len(goodness))
            for j in range(len(goodness))
            if goodness[i] > goodness[j] and group.texts[i] != group.texts[j]
        ]
        if how == "best_vs_random":
            best = max(goodness, default=0.0)
            first = next((i for i, j in found if goodness[i] == best), None)
            found = _some([pair for pair in found if pair[0] == first], 1, rng.child("pair", number))
        elif cap is not None:
            found = _some(found, cap, rng.child("pair", number))
        ended = group.ended or (True,) * len(goodness)
        made += [
            Paired(
                problem=group.problem,
                chosen=group.texts[i],
                rejected=group.texts[j],
                margin=goodness[i] - goodness[j] if margins else None,
                ended=(ended[i], ended[j]),
            )
            for i, j in found
        ]
    return made


def by_problem(rows: Sequence[Unpaired]) -> list[Scored]:
    """Labelled responses gathered by prompt, their labels as scores: what `pairs` takes."""
    groups: dict[str, list[Unpaired]] = {}
    for row in rows:
        if row.label is not None:
            groups.setdefault(prompt_key(row.problem.prompt), []).append(row)
    return [
        Scored(
            problem=found[0].problem,
            texts=tuple(row.text for row in found),
            scores=tuple(row.label for row in found if row.label is not None),
            ended=tuple(row.ended for row in found),
        )
        for found in groups.values()
    ]


def _by_key(rows: Sequence[Example]) -> list[list[int]]:
    """The places of each prompt's rows, prompts in the order in which they come first."""
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(prompt_key(row.problem.prompt), []).append(place)
    return list(groups.values())


def _some(items: Sequence[_T], size: int, rng: Rng) -> list[_T]:
    """At most `size` of the items, in order."""
    if len(items) <= size:
        return list(items)
    return [items[int(place)] for place in sorted(rng.numpy().permutation(len(items))[:size])]


def _repeated(places: Sequence[int], size: int, rng: Rng) -> list[int]:
    """`size` of the places: each once, at random, before any comes again."""
    out: list[int] = []
    for turn in range(-(-size // len(places))):
        out += [places[int(i)] for i in rng.child(turn).numpy().permutation(len(places))]
    return out[:size]
