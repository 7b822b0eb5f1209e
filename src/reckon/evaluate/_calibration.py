"""Whether a score means what it says: Brier score, reliability, binned error, and monotone recalibration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reckon.errors import InputError
from reckon.evaluate._statistics import wilson
from reckon.types import Rng


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Answers with neighboring scores."""

    score: float  # their mean
    rate: float  # the share of them that is right
    low: float  # Wilson 95% of the rate
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far scores can be read as probabilities of being right."""

    probability: bool  # all scores lie in [0, 1]; else only the recalibrated figures mean anything
    brier: float  # NaN where scores are no probabilities
    error: float  # debiased binned error (root mean square); NaN where scores are no probabilities
    plain: float  # the usual, biased expected calibration error, for comparison with other people's
    recalibrated: float  # Brier score after monotone recalibration, cross-fitted over problems
    recalibrated_error: float  # debiased binned error after it
    base: float  # Brier score of always saying the share of right answers
    bins: tuple[Bin, ...]  # of the scores as they are

    @property
    def skill(self) -> float:
        """How much of the base rate's Brier score recalibration takes away; 0 = no better than the base rate."""
        return 1.0 - self.recalibrated / self.base if self.base > 0 else math.nan


def brier(probabilities: np.ndarray, right: np.ndarray) -> float:
    """Mean squared difference of probability and verdict (Brier 1950, Monthly Weather Review 78:1-3); NaN of nothing.

    Args:
        probabilities: [N] float64 in [0, 1], NaN = left out.
        right: [N] float64, 1 or 0, NaN = left out.

    Raises:
        InputError: a probability is outside [0, 1].
    """
    known = np.isfinite(probabilities) & np.isfinite(right)
    p, y = probabilities[known], right[known]
    if len(p) and (p.min() < 0 or p.max() > 1):
        raise InputError(f"brier: scores from {p.min():g} to {p.max():g} are no probabilities; recalibrate them first.")
    return float(((p - y) ** 2).mean()) if len(p) else math.nan


def reliability(scores: np.ndarray, right: np.ndarray, bins: int = 10) -> list[Bin]:
    """Bins that hold equally many answers, from the lowest scores to the highest.

    Equal scores are never torn apart, so there may be fewer bins, and some may hold more.

    Args:
        scores: [N] float64, NaN = left out.
        right: [N] float64, 1 or 0, NaN = left out.
        bins: at least 1.

    Raises:
        InputError: fewer than 1 bin.
    """
    if bins < 1:
        raise InputError(f"reliability: {bins} bins; give at least 1.")
    known = np.isfinite(scores) & np.isfinite(right)
    order = np.argsort(scores[known], kind="stable")
    x, y = scores[known][order], right[known][order]
    starts = {0, len(x)}
    for cut in (round(i * len(x) / bins) for i in range(1, bins)):
        if 0 < cut < len(x):  # within a run of equal scores, the nearer end of it
            first, behind = (int(place) for place in (np.searchsorted(x, x[cut]), np.searchsorted(x, x[cut], "right")))
            starts.add(first if cut - first <= behind - cut else behind)
    found = []
    for start, stop in itertools.pairwise(sorted(starts)):
        n, hits = stop - start, float(y[start:stop].sum())
        low, high = wilson(hits, n)
        found.append(Bin(score=float(x[start:stop].mean()), rate=hits / n, low=low, high=high, n=n))
    return found


def plain_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error (Naeini et al. 2015, AAAI): the bins' mean distance of score and rate.

    Biased upwards: bins of few answers are off by chance even where nothing is wrong.
    """
    total = sum(b.n for b in bins)
    return sum(b.n * abs(b.score - b.rate) for b in bins) / total if total else math.nan


def debiased_error(bins: Sequence[Bin]) -> float:
    """Root mean squared distance of score and rate, less what chance adds.

    Kumar et al. 2019 (arXiv:1909.10155, section 5): each bin's squared distance loses the variance of its own rate,
    rate * (1 - rate) / (n - 1). Where that leaves less than nothing, the error is 0: there is no sign of any. Bins of
    one answer say nothing and are left out.
    """
    known = [b for b in bins if b.n > 1]
    total = sum(b.n for b in known)
    if not total:
        return math.nan
    squared = sum(b.n * ((b.score - b.rate) ** 2 - b.rate * (1 - b.rate) / (b.n - 1)) for b in known) / total
    return math.sqrt(max(0.0, squared))


def isotonic(scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The never-falling function of the scores closest to the verdicts, by pooling adjacent violators.

    Ayer et al. 1955 (Annals of Mathematical Statistics 26:641-647); Zadrozny and Elkan 2002 for calibration.

    Args:
        scores: [N] float64, all known.
        right: [N] float64, all known.

    Returns:
        Distinct scores, ascending, and the function's value at each; between them it is linear.
    """
    x, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=right) / counts if len(x) else np.zeros(0)
    blocks: list[list[float]] = []  # mean, weight, distinct scores
    for mean, weight in zip(means.tolist(), counts.tolist(), strict=True):
        blocks.append([mean, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            last, before = blocks.pop(), blocks.pop()
            both = before[1] + last[1]
            blocks.append([(before[0] * before[1] + last[0] * last[1]) / both, both, before[2] + last[2]])
    return x, np.repeat([block[0] for block in blocks], [int(block[2]) for block in blocks])


def recalibrated(scores: np.ndarray, right: np.ndarray, unit: np.ndarray, rng: Rng, folds: int = 5) -> np.ndarray:
    """Each answer's probability by a monotone function that was fitted on the answers to other problems.

    Args:
        scores: [N] float64, NaN = unknown.
        right: [N] float64, NaN = unknown.
        unit: [N] int64, the problem an answer belongs to: its answers are never on both sides.
        rng: deals problems to folds.
        folds: at least 2; with fewer problems, as many as there are.

    Returns:
        [N] float64 in [0, 1]; NaN where the score is unknown or there is only one problem.
    """
    found = np.full(len(scores), np.nan)
    known = np.isfinite(scores) & np.isfinite(right)
    names = np.unique(unit[known])
    dealt = rng.numpy().permutation(len(names)) % folds
    fold = np.full(len(scores), -1)
    fold[known] = dealt[np.searchsorted(names, unit[known])]
    for i in range(folds):
        fit, use = known & (fold != i), known & (fold == i)
        if fit.any() and use.any():
            x, y = isotonic(scores[fit], right[fit])
            found[use] = np.interp(scores[use], x, y)
    return found


def calibration(scores: np.ndarray, right: np.ndarray, unit: np.ndarray, rng: Rng, bins: int = 10) -> Calibration:
    """All that can be said of a score as a probability. Arguments as in `recalibrated`."""
    known = np.isfinite(scores) & np.isfinite(right)
    x, y = scores[known], right[known]
    probability = bool(len(x)) and float(x.min()) >= 0 and float(x.max()) <= 1
    told = reliability(scores, right, bins)
    fitted = recalibrated(scores, right, unit, rng)
    rate = float(y.mean()) if len(y) else math.nan
    return Calibration(
        probability=probability,
        brier=brier(scores, right) if probability else math.nan,
        error=debiased_error(told) if probability else math.nan,
        plain=plain_error(told) if probability else math.nan,
        recalibrated=brier(fitted, right),
        recalibrated_error=debiased_error(reliability(fitted, right, bins)),
        base=rate * (1 - rate),
        bins=tuple(told),
    )
