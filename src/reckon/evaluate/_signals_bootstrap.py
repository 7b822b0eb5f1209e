"""Intervals by drawing whole problems anew: answers to one problem are not independent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reckon.types import Rng

DRAWS = 1000
_AT_ONCE = 2_000_000  # weights in memory


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and its 95% interval; the bounds are NaN where fewer than two problems speak for it."""

    value: float
    low: float = math.nan
    high: float = math.nan


UNKNOWN = Estimate(value=math.nan)


def ratio(sums: np.ndarray) -> np.ndarray:
    """First over second of [..., 2]; NaN where the second is 0."""
    top, bottom = sums[..., 0], sums[..., 1]
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)


def harmonic(sums: np.ndarray) -> np.ndarray:
    """Harmonic mean of the two ratios in [..., 4], 0 where both are 0."""
    one, other = ratio(sums[..., :2]), ratio(sums[..., 2:])
    total = one + other
    return np.where(total == 0, 0.0, 2 * one * other / np.where(total == 0, 1.0, total))


def bootstrap(
    sums: np.ndarray,
    unit: np.ndarray,
    rng: Rng,
    statistic: Callable[[np.ndarray], np.ndarray] = ratio,
    draws: int = DRAWS,
) -> Estimate:
    """A statistic of sums over groups, with the percentile interval of the bootstrap (Efron 1979) over problems.

    Args:
        sums: [G, S] float64, what each group adds; a group of zeros says nothing and is not drawn.
        unit: [G] int64, the problem each group poses: problems are drawn, with all their groups.
        rng: for the draws.
        statistic: of [..., S] sums.
        draws: how many.
    """
    value = float(statistic(sums.sum(axis=0)))
    speaks = np.abs(sums).sum(axis=1) > 0
    _, place = np.unique(unit[speaks], return_inverse=True)
    count = int(place.max()) + 1 if len(place) else 0
    if count < 2:
        return Estimate(value=value)
    each = np.zeros((count, sums.shape[1]))
    np.add.at(each, place, sums[speaks])
    generator, found = rng.numpy(), []
    size = max(1, _AT_ONCE // count)
    for start in range(0, draws, size):
        weights = generator.multinomial(count, np.full(count, 1 / count), size=min(size, draws - start))
        found.append(statistic(weights @ each))
    known = np.concatenate(found)
    known = known[np.isfinite(known)]
    if len(known) < draws / 2:  # most draws cannot say: neither can we
        return Estimate(value=value)
    low, high = np.quantile(known, [0.025, 0.975]).tolist()
    return Estimate(value=value, low=low, high=high)
