"""Scores of whole runs, pooled over tasks: the interquartile mean and its stratified bootstrap. NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from reckon.errors import InputError
from reckon.evaluate._signals_bootstrap import Estimate
from reckon.types import Rng

DRAWS = 2000
_AT_ONCE = 4_000_000  # scores in memory
Statistic = Callable[[np.ndarray], np.ndarray]


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of what is left without the lowest and the highest quarter, over the last axis.

    As sure as a mean, and as little moved by a run that failed or shone as a median (Agarwal et al. 2021,
    arXiv:2108.13264, section 4.3). A quarter that is no whole number of scores is rounded down, on either side.

    Args:
        scores: [..., n] float, n at least 1.

    Returns:
        [...] float64.
    """
    count = scores.shape[-1]
    cut = count // 4
    ordered = np.sort(scores, axis=-1)[..., cut : count - cut]
    mean: np.ndarray = ordered.mean(axis=-1, dtype=np.float64)
    return mean


def pooled(
    tasks: Sequence[Sequence[float]], rng: Rng, *, statistic: Statistic = interquartile_mean, draws: int = DRAWS
) -> Estimate:
    """A statistic of all runs on all tasks, and its 95% percentile interval by the stratified bootstrap.

    In each draw every task keeps as many runs as it had, drawn with replacement from its own (Agarwal et al. 2021,
    arXiv:2108.13264, section 4.1: tasks are fixed, runs are chance).

    Args:
        tasks: the scores of each task's runs, at least one; a task with one run has no spread of its own.
        rng: of the draws.
        statistic: from [..., n] scores to [...].
        draws: how many.

    Returns:
        The bounds are NaN where no task has two runs: then nothing is known of their spread.

    Raises:
        InputError: there is no task, or one has no run or a score that is not finite.
    """
    found = [np.asarray(runs, dtype=np.float64) for runs in tasks]
    if not found or any(not len(runs) or not np.isfinite(runs).all() for runs in found):
        raise InputError("pooled: every task needs one finite score or more. Leave out the tasks that were not run.")
    value = float(statistic(np.concatenate(found)))
    if max(len(runs) for runs in found) < 2:
        return Estimate(value=value, low=math.nan, high=math.nan)
    generator, told = rng.numpy(), []
    size = max(1, _AT_ONCE // sum(map(len, found)))
    for first in range(0, draws, size):
        count = min(size, draws - first)
        drawn = [runs[generator.integers(len(runs), size=(count, len(runs)))] for runs in found]
        told.append(statistic(np.concatenate(drawn, axis=1)))
    low, high = np.quantile(np.concatenate(told), [0.025, 0.975]).tolist()
    return Estimate(value=value, low=low, high=high)
