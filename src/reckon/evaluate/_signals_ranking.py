"""How well scores put right answers above wrong ones, and what else they go with: pure functions on arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Pairs of a right and a wrong answer to the same prompt, counted for each of G prompts."""

    wins: np.ndarray  # [G] float64, pairs in which the right answer scores higher; ties count half
    ties: np.ndarray  # [G] float64
    pairs: np.ndarray  # [G] float64

    @property
    def auc(self) -> float:
        """The share of all pairs that are won, ties half; NaN without pairs."""
        total = float(self.pairs.sum())
        return float(self.wins.sum()) / total if total else math.nan


def count_pairs(
    scores: np.ndarray,
    right: np.ndarray,
    group: np.ndarray,
    groups: int,
    *,
    lengths: np.ndarray | None = None,
    within: float = 1.1,
) -> Pairs:
    """Compares every right answer with every wrong answer to the same prompt.

    The share of pairs won is the area under the ROC curve (Hanley and McNeil 1982, Radiology 143:29-36), within
    prompts: it cannot gain from knowing which prompts are easy.

    Args:
        scores: [N] float64; a pair with a NaN is left out.
        right: [N] float64, 1 or 0; NaN = unknown, which is in no pair.
        group: [N] int64 in [0, groups), ascending.
        groups: G.
        lengths: [N], above 0; if given, only pairs count whose longer answer is at most `within` times the shorter.
        within: at least 1.
    """
    wins, ties, pairs = np.zeros(groups), np.zeros(groups), np.zeros(groups)
    for g, rows in _by_group(group, np.isfinite(scores) & np.isfinite(right)):
        good, bad = rows[right[rows] == 1], rows[right[rows] == 0]
        counted = np.ones((len(good), len(bad)), dtype=bool)
        if lengths is not None:
            apart = np.abs(np.log(lengths[good, None]) - np.log(lengths[None, bad]))
            counted = apart <= math.log(within) + 1e-12
        above = scores[good, None] > scores[None, bad]
        equal = scores[good, None] == scores[None, bad]
        wins[g] = (above & counted).sum() + 0.5 * (equal & counted).sum()
        ties[g] = (equal & counted).sum()
        pairs[g] = counted.sum()
    return Pairs(wins=wins, ties=ties, pairs=pairs)


def auc(scores: np.ndarray, right: np.ndarray) -> float:
    """Area under the ROC curve over all answers at once, by rank sums (Mann and Whitney 1947); ties count half.

    It mixes telling right from wrong with telling easy prompts from hard ones.

    Args:
        scores: [N] float64, NaN = left out.
        right: [N] float64, 1 or 0, NaN = left out.

    Returns:
        In [0, 1]; NaN unless both kinds are there.
    """
    known = np.isfinite(scores) & np.isfinite(right)
    ranks, good = rank(scores[known]), right[known] == 1
    n, m = int(good.sum()), int((~good).sum())
    return (float(ranks[good].sum()) - n * (n + 1) / 2) / (n * m) if n and m else math.nan


def rank(values: np.ndarray) -> np.ndarray:
    """[N] float64, ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2)[inverse]
    return ranks


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation (Spearman 1904) over rows where both are known; NaN where one of them never varies."""
    both = np.isfinite(x) & np.isfinite(y)
    return float(correlations(np.array(_products(rank(x[both]), rank(y[both])))))


def correlations(sums: np.ndarray) -> np.ndarray:
    """What [..., 3] sums of products xy, xx and yy amount to, xy / sqrt(xx * yy); NaN where one does not vary."""
    size = np.sqrt(np.maximum(sums[..., 1] * sums[..., 2], 0.0))
    return np.where(size > 0, np.clip(sums[..., 0] / np.where(size > 0, size, 1.0), -1.0, 1.0), np.nan)


def rank_products(x: np.ndarray, y: np.ndarray, stratum: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Sums of products of ranks within strata, for each group: [G, 3] of xy, xx and yy.

    Both are ranked within each stratum and centered there; `correlations` of the sum over all groups is the rank
    correlation with the strata held fixed. Of one stratum it is Spearman's.

    Args:
        x: [N] float64, NaN = left out.
        y: [N] float64, NaN = left out.
        stratum: [N] int64; -1 = left out.
        group: [N] int64 in [0, groups); a stratum lies in one group.
        groups: G.
    """
    sums = np.zeros((groups, 3))
    known = np.isfinite(x) & np.isfinite(y) & (stratum >= 0)
    order = np.argsort(stratum, kind="stable")
    for _, rows in _by_group(stratum[order], known[order]):
        picked = order[rows]
        if len(picked) > 1:
            sums[group[picked[0]]] += _products(rank(x[picked]), rank(y[picked]))
    return sums


def _products(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    if not len(x):
        return 0.0, 0.0, 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y), float(x @ x), float(y @ y)


def _by_group(group: np.ndarray, known: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The known rows of each group; `group` ascends."""
    rows = np.flatnonzero(known)
    if not len(rows):
        return []
    cuts = np.flatnonzero(np.diff(group[rows])) + 1
    return [(int(group[part[0]]), part) for part in np.split(rows, cuts)]
