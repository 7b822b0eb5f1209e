"""Problems made on demand, in splits that cannot overlap.

Which split a problem belongs to is decided by a hash of its content alone, not by the seed or the settings of a task,
so a problem seen in training under any seed is never in a test set.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Generic, TypeVar, cast, get_args, overload

import numpy as np

from reckon.errors import InputError
from reckon.types import Json, Problem, Rng, Split

SPLITS: tuple[Split, ...] = get_args(Split)
SHARES = (0.8, 0.1, 0.1)  # of all possible problems, for train, dev and test
KEPT = 8  # lists of problems of each kind of task
Target = TypeVar("Target")
Owner = TypeVar("Owner")


def check_split(split: str) -> None:
    """Raises InputError unless it is "train", "dev" or "test"."""
    if split not in SPLITS:
        raise InputError(f"{split!r} is not a split. Choose one of: {', '.join(SPLITS)}.")


def split_of(key: str, shares: Sequence[float] = SHARES) -> Split:
    """The split that content belongs to, whoever generates it.

    Args:
        key: what makes the problem this problem and no other; the same wherever it turns up.
        shares: parts of train, dev and test, summing to 1.
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    if place < shares[0]:
        return "train"
    return "dev" if place < shares[0] + shares[1] else "test"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A problem before it is known whether its split is the wanted one."""

    key: str  # decides the split; variants that would give each other away share it
    prompt: str
    answer: str
    domain: str
    columns: Mapping[str, Json] = field(default_factory=dict)


class Generated(Sequence[Problem], Generic[Target]):
    """A lazy list of distinct problems of one split, the same for the same (rng, size, build, targets).

    Args:
        split: the wanted split.
        size: how many problems, >= 0.
        rng: names the stream; problem i is drawn from its child i.
        targets: what to aim at, one drawn uniformly for each problem: the wanted answer or domain. A draft that does
            not fit is redrawn for the same target, so that skipping and duplicates do not skew the targets.
        build: (generator, target) -> a draft, or None when this draw came to nothing.
        space: about how many problems the rarest target has. Where that is scarce all are made at once, so that
            too small a space is reported at the start and not in the middle of a run.
        patience: draws for one problem before the space counts as used up.
        remedy: ends the error message.
    """

    def __init__(
        self,
        *,
        split: Split,
        size: int,
        rng: Rng,
        targets: Sequence[Target],
        build: Callable[[np.random.Generator, Target], Draft | None],
        space: float = float("inf"),
        patience: int = 5_000,
        shares: Sequence[float] = SHARES,
        remedy: str,
    ) -> None:
        check_split(split)
        if size < 0:
            raise InputError(f"The size of split '{split}' must be 0 or more, not {size}.")
        self._split, self._size, self._rng, self._targets, self._build = split, size, rng, targets, build
        self._patience, self._shares, self._remedy = patience, shares, remedy
        self._made: list[Problem] = []
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        if space * len(targets) * min(shares) < 20 * size:
            self._make(size)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Problem, ...]: ...
    def __getitem__(self, index: int | slice) -> Problem | tuple[Problem, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self._size)))
        place = index + self._size if index < 0 else index
        if not 0 <= place < self._size:
            raise IndexError(f"problem {index} of {self._size}")
        self._make(place + 1)
        return self._made[place]

    def _make(self, count: int) -> None:
        with self._lock:
            while len(self._made) < count:
                self._made.append(self._next(len(self._made)))

    def _next(self, index: int) -> Problem:
        generator = self._rng.child(index).numpy()
        target = self._targets[int(generator.integers(len(self._targets)))]
        for _ in range(self._patience):
            draft = self._build(generator, target)
            if draft is None or draft.prompt in self._seen or split_of(draft.key, self._shares) != self._split:
                continue
            self._seen.add(draft.prompt)
            digest = hashlib.sha256(draft.prompt.encode()).hexdigest()[:12]
            return Problem(
                id=f"{draft.domain}-{digest}",
                prompt=draft.prompt,
                answer=draft.answer,
                domain=draft.domain,
                columns=draft.columns,
            )
        aim = f" with {target!r}" if len(self._targets) > 1 else ""
        raise InputError(
            f"Only {index} different problems were found for split '{self._split}', which should have {self._size}: "
            f"there are no more{aim}. {self._remedy}"
        )


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a list of problems depends on; equal for tasks that have the same settings."""

    task: object = field(compare=False)
    kind: type
    settings: str  # not the task itself, which cannot be hashed where a setting is a list
    split: Split


def made_once(problems: Callable[[Owner, Split], Generated[Target]]) -> Callable[[Owner, Split], Generated[Target]]:
    """Gives tasks with the same settings the same list, which a recipe asks for again and again.

    The last 8 lists are kept. `problems.__wrapped__` makes one anew.
    """

    @lru_cache(maxsize=KEPT)
    def kept(asked: _Asked) -> Generated[Target]:
        return problems(cast("Owner", asked.task), asked.split)

    @wraps(problems)
    def found(task: Owner, split: Split) -> Generated[Target]:
        return kept(_Asked(task=task, kind=type(task), settings=repr(task), split=split))

    return found


def check_pair(owner: object, name: str, *, least: int) -> None:
    """Raises InputError unless the setting is a (low, high) with least <= low <= high."""
    pair = getattr(owner, name)
    if len(pair) != 2 or not least <= pair[0] <= pair[1]:
        raise InputError(
            f"{type(owner).__name__}: `{name}` must be two numbers, low and high, with {least} <= low <= high, "
            f"not {list(pair)!r}."
        )


def ways(choices: int, places: int) -> float:
    """How many sequences of so many places there are: infinitely many where it is more than a float holds."""
    return float("inf") if places * math.log10(choices) > 300 else float(choices) ** places


def check_sizes(owner: object) -> None:
    """Raises InputError unless `train`, `dev` and `test` are 0 or more."""
    for name in SPLITS:
        if getattr(owner, name) < 0:
            raise InputError(f"{type(owner).__name__}: `{name}` must be 0 or more, not {getattr(owner, name)}.")


def check_choice(owner: object, name: str, choices: Sequence[str]) -> None:
    """Raises InputError unless the setting is one of the choices."""
    if getattr(owner, name) not in choices:
        raise InputError(
            f"{type(owner).__name__}: `{name}` must be one of {', '.join(choices)}, not {getattr(owner, name)!r}."
        )
