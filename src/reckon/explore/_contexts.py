"""Contexts that come again: is a level fixed by its seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from reckon.errors import InputError


def check_contexts(reset: Callable[[int], ArrayLike], seeds: Sequence[int]) -> None:
    """Makes sure that a finite number of contexts is what it says: each seed gives one level, whenever it is asked for.

    All levels are begun once, and then once more, so that a generator that merely goes on is found out. What differs
    after the first observation alone is not.

    Args:
        reset: from the seed of a context to the first observation in it.
        seeds: of the contexts; a few of many will do.

    Raises:
        InputError: the environment began twice in different ways.
    """
    first = {seed: np.array(reset(seed)) for seed in seeds}
    for seed, before in first.items():
        if not np.array_equal(before, np.asarray(reset(seed))):
            raise InputError(
                f"contexts: the level of seed {seed} began in two different ways. A finite number of contexts needs an "
                "environment whose level is fixed by its seed. Seed whatever makes the level in reset(seed=...), or "
                "take infinitely many contexts."
            )
