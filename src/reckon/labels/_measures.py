"""How good a two-class predictor is, from its log-odds."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from reckon.errors import InputError

Floats: TypeAlias = NDArray[np.float64]


def accuracy(labels: Floats, log_odds: Floats) -> float:
    """Share of labels (0 or 1, [n]) on the right side of log-odds 0; exactly 0 predicts class 1."""
    return float(np.mean((log_odds >= 0) == (labels >= 0.5)))


def calibrated_accuracy(labels: Floats, log_odds: Floats) -> float:
    """Accuracy at the threshold by which as many are predicted to be 1 as there are.

    It takes out an offset of the log-odds, as a tiny last stage leaves. The threshold is the quantile 1 - mean(label).
    """
    threshold = np.quantile(log_odds, 1 - labels.mean())
    return float(np.mean((log_odds >= threshold) == (labels >= 0.5)))


def auroc(labels: Floats, scores: Floats) -> float:
    """Chance that a 1 scores above a 0, ties half (Mann & Whitney 1947); NaN with one class only.

    Args:
        labels: [n], 0 or 1.
        scores: [n], finite.
    """
    positive = labels >= 0.5
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return math.nan
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle_rank = ends - (counts - 1) / 2  # of each distinct score, from 1
    return float((middle_rank[place][positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def auroc_interval(
    labels: Floats, scores: Floats, *, draws: int = 500, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap over examples (Efron 1979); draws with one class only are left out. NaN if all are."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        rows = rng.integers(len(labels), size=len(labels))
        found.append(auroc(labels[rows], scores[rows]))
    known = [value for value in found if not math.isnan(value)]
    if not known:
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def wilson_interval(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for a share of `right` out of `n` (Wilson 1927).

    Raises:
        InputError: n is 0, or `right` is not between 0 and n.
    """
    if n < 1 or not 0 <= right <= n:
        raise InputError(f"wilson_interval: {right} right of {n} is not a share.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def entropy_bits(probabilities: Floats) -> Floats:
    """Entropy of a coin in bits, [n]; 0 at 0 and 1."""
    p = np.asarray(probabilities, dtype=np.float64)
    inside = (p > 0) & (p < 1)
    q = np.where(inside, p, 0.5)  # log(0) is never taken
    return np.where(inside, -(q * np.log2(q) + (1 - q) * np.log2(1 - q)), 0.0)


def sigmoid(log_odds: Floats) -> Floats:
    """Probability of class 1, [n], without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * log_odds)), dtype=np.float64)
