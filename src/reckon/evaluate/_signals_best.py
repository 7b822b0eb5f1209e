"""Choosing the best of N: exact over all subsets of the samples, so that N samples say something of every k up to N."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence

import numpy as np

from reckon.errors import InputError
from reckon.types import Rng

SUBSETS = 256  # of each prompt for a vote; where there are no more than that, all of them


def best_of_n(scores: np.ndarray, right: np.ndarray, k: int) -> float:
    """Chance that the highest score among k samples is a right answer's, averaged over all k-subsets of the n samples.

    The samples are sorted; the best of a subset is at place i with chance [C(n-i, k) - C(n-i-1, k)] / C(n, k). It is
    the weighting of pass@k (Chen et al. 2021, arXiv:2107.03374, eq. 1), which is the case that scores are verdicts.
    Ties are broken by lot; a NaN loses to every number.

    Args:
        scores: [n] float64.
        right: [n] float64, 1 or 0, all known.
        k: in [1, n].

    Raises:
        InputError: k is outside its range, or a verdict is unknown.
    """
    n = len(scores)
    if not 1 <= k <= n:
        raise InputError(f"best_of_n: k = {k} cannot be estimated from n = {n} samples; draw at least k of them.")
    if np.isnan(right).any():
        raise InputError("best_of_n: a verdict is unknown; leave such samples out, and say how many there were.")
    filled = np.where(np.isnan(scores), -np.inf, scores)
    _, place, counts = np.unique(-filled, return_inverse=True, return_counts=True)  # the best first
    share = np.bincount(place, weights=right) / counts
    before = np.concatenate([[0], np.cumsum(counts)]).tolist()
    ways = [math.comb(n - i, k) for i in before]
    # Whole numbers are divided first: a binomial coefficient of 2,048 samples is larger than any float.
    return float(sum(s * ((a - b) / ways[0]) for s, a, b in zip(share.tolist(), ways, ways[1:], strict=False)))


def vote_of_n(
    answers: Sequence[Hashable | None],
    right: np.ndarray,
    k: int,
    rng: Rng,
    weights: np.ndarray | None = None,
    draws: int = SUBSETS,
) -> float:
    """Chance that the vote of k samples is right, averaged over k-subsets of the n samples.

    Over all of them where they are at most `draws`, else over so many drawn at random, which leaves the estimate
    without bias. Ties are broken by lot (Wang et al. 2022, arXiv:2203.11171, leave them open).

    Args:
        answers: n answers; None votes for nothing. Where nobody votes, the vote is wrong.
        right: [n] float64, 1 or 0, all known; an answer is as right as the subset's samples of it are on average.
        k: in [1, n].
        rng: for the subsets. Votes of one rng are of the same subsets, whatever their weights.
        weights: [n] float64, at least 0, what a sample's vote counts; None = all 1, the majority vote.
        draws: subsets at most, 1 or more.

    Raises:
        InputError: k is outside its range.
    """
    n = len(answers)
    if not 1 <= k <= n:
        raise InputError(f"vote_of_n: k = {k} cannot be estimated from n = {n} samples; draw at least k of them.")
    if math.comb(n, k) <= draws:
        subsets = np.array(list(itertools.combinations(range(n), k)))
    else:
        random = rng.numpy()
        subsets = np.stack([random.permutation(n)[:k] for _ in range(draws)])
    return vote_of_subsets(answers, right, subsets, weights)


def vote_of_subsets(
    answers: Sequence[Hashable | None], right: np.ndarray, subsets: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """How right the vote's winner is, averaged over given subsets of the n samples; answers that tie share alike.

    Args:
        answers: n answers; None votes for nothing. Where nobody votes, the vote is wrong.
        right: [n] float64, all known; an answer is as right as the subset's samples of it are on average.
        subsets: [S, k] int64, places of samples.
        weights: [n] float64, at least 0, what a sample's vote counts; None = all 1. Where no vote of a subset counts
            anything, they count alike.
    """
    names = list(dict.fromkeys(answer for answer in answers if answer is not None))
    if not names:
        return 0.0
    given = np.array([[answer == name for name in names] for answer in answers], dtype=np.float64)  # [n, A]
    chosen = np.zeros((len(subsets), len(answers)))  # [S, n]
    np.put_along_axis(chosen, subsets, 1.0, axis=1)
    count = chosen @ given  # [S, A]
    total = count if weights is None else chosen @ (weights[:, None] * given)
    total = np.where(total.max(axis=1, keepdims=True) > 0, total, count)
    winners = (count > 0) & np.isclose(total, total.max(axis=1, keepdims=True), rtol=1e-9, atol=0)
    share = chosen @ (right[:, None] * given) / np.maximum(count, 1)
    return float(((winners * share).sum(axis=1) / np.maximum(winners.sum(axis=1), 1)).mean())


def sizes(counts: Sequence[int], enough: float = 0.8) -> list[int]:
    """The k to draw a curve at: 1, 2, 4, ... and the largest that at least this share of the prompts has samples for.

    Args:
        counts: how many samples with a verdict each prompt has; prompts without any are left out.
        enough: in (0, 1].
    """
    known = sorted((count for count in counts if count > 0), reverse=True)
    if not known:
        return []
    most = known[math.ceil(enough * len(known)) - 1]
    return sorted({min(2**i, most) for i in range(most.bit_length() + 1)})
