"""Contexts that come again: is a level fixed by its seed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from reckon.errors import InputError


def check_contexts(reset: Callable[[int], object], seeds: Sequence[int]) -> None:
    """Makes sure that a finite number of contexts is what it says: each seed gives one level, whenever it is asked for.

    All levels are begun once, and then once more, so that a generator that merely goes on is found out. What differs
    after the first observation alone is not.

    Args:
        reset: from the seed of a context to the first observation in it: an array, or a mapping or tuple of them.
        seeds: of the contexts; a few of many will do.

    Raises:
        InputError: the environment began twice in different ways.
    """
    first = {seed: copy.deepcopy(reset(seed)) for seed in seeds}
    for seed, before in first.items():
        if not _same(before, reset(seed)):
            raise InputError(
                f"contexts: the level of seed {seed} began in two different ways. A finite number of contexts needs an "
                "environment whose level is fixed by its seed. Seed whatever makes the level in reset(seed=...), or "
                "take infinitely many contexts."
            )


def _same(one: object, other: object) -> bool:
    """Whether two observations are equal."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return set(one) == set(other) and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return np.array_equal(np.asarray(one), np.asarray(other))
