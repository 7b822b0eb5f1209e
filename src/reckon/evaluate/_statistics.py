"""How sure a score is: intervals, tests and trivial baselines. Pure functions on numbers; only NumPy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from reckon.errors import InputError


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean of paired differences and how sure it is."""

    mean: float
    error: float  # standard error of the mean; NaN for fewer than two pairs
    low: float
    high: float
    n: int  # pairs


class Constant(NamedTuple):
    """The best answer of a policy that never reads the problem."""

    answer: str | None  # None = there was no reference answer to choose
    accuracy: float  # NaN = there was no reference answer to be right about


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927, JASA 22:209-212).

    Unlike mean +- z * error it stays within [0, 1] and keeps its width at 0 and at n successes.

    Args:
        successes: in [0, n]. A fraction is allowed: with several answers to each of n problems, the sum of the
            problems' own shares of right answers; the interval is then wider than it had to be.
        n: trials, at least 0; with 0 nothing is known and the interval is [0, 1].
        confidence: in (0, 1).

    Raises:
        InputError: for anything outside these ranges.
    """
    if not 0 <= successes <= n:
        raise InputError(f"wilson: {successes} successes of {n} trials is impossible; give 0 <= successes <= n.")
    z = _z(confidence)
    if n == 0:
        return Interval(0.0, 1.0)
    share = successes / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the exact value is 0 or 1, which the subtraction misses by a rounding error.
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == n else center + half
    return Interval(low, high)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that one of k samples is right, estimated without bias (Chen et al. 2021, arXiv:2107.03374, eq. 1).

    One minus the share of the k-subsets of the n samples in which all are wrong. Plugging c / n into 1 - (1 - p)^k
    instead would be too low on average.

    Args:
        n: samples drawn.
        c: how many of them are right, in [0, n].
        k: in [1, n].

    Raises:
        InputError: for anything outside these ranges; k > n cannot be estimated without bias.
    """
    if not 0 <= c <= n:
        raise InputError(f"pass_at_k: {c} right of {n} samples is impossible; give 0 <= c <= n.")
    if not 1 <= k <= n:
        raise InputError(f"pass_at_k: k = {k} cannot be estimated from n = {n} samples; draw at least k of them.")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def weighted_mean(shares: Sequence[float], weights: Sequence[float]) -> float:
    """The score of a benchmark made of parts, as RewardBench adds its own up (Lambert et al. 2024, arXiv:2403.13787).

    There the weight of a subset in its section is its number of prompts (`math-prm` counts 984 by fiat, as many as code
    has), and in the whole a section weighs 1 and the prior sets 0.5. A pair whose scores tie is wrong, which the shares
    have to say already (`reckon.preferences.pair_accuracy` does).

    Args:
        shares: of each part, such as its accuracy.
        weights: of each part, at least 0, and not all 0.

    Raises:
        InputError: there is not one weight for each share, or no part weighs anything.
    """
    if len(shares) != len(weights) or not all(0 <= w < math.inf for w in weights) or not sum(weights) > 0:
        raise InputError(
            f"weighted_mean: {len(shares)} shares need as many weights, each at least 0 and one of them above, not "
            f"{list(weights)}."
        )
    return sum(share * weight for share, weight in zip(shares, weights, strict=True)) / sum(weights)


def mcnemar(b: int, c: int) -> float:
    """Two-sided exact p-value of McNemar's test: is a change as likely to be for the better as for the worse?

    Under the null hypothesis each of the b + c items whose verdict changed is a fair coin (McNemar 1947,
    Psychometrika 12:153-157, in its exact binomial form). Items that did not change say nothing.

    Args:
        b: items that were right only before; at least 0.
        c: items that are right only after; at least 0.

    Returns:
        In [0, 1]; 1 where b = c, 0 only where the true value is below the smallest float.

    Raises:
        InputError: for a negative count.
    """
    if b < 0 or c < 0:
        raise InputError(f"mcnemar: b = {b} and c = {c} are counts of items and cannot be negative.")
    n = b + c
    ways, tail = 1, 1  # binomial coefficients in integers: exact for any number of items
    for i in range(min(b, c)):
        ways = ways * (n - i) // (i + 1)
        tail += ways
    return min(1.0, tail / 2 ** (n - 1)) if n else 1.0


def paired_difference(before: Sequence[float], after: Sequence[float], confidence: float = 0.95) -> Difference:
    """Mean of after - before over pairs, with Student's t interval (Student 1908, Biometrika 6:1-25).

    Pairing takes out what the pairs share (an item's difficulty, a seed's luck) and so sees smaller effects than two
    separate intervals.

    Args:
        before: one number per pair, without NaN.
        after: the same pairs in the same order.
        confidence: in (0, 1).

    Raises:
        InputError: if there are no pairs, the lengths differ, or a number is NaN.
    """
    if len(before) != len(after) or not before:
        raise InputError(f"paired_difference: {len(before)} and {len(after)} numbers are not pairs; give equally many.")
    _z(confidence)
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if np.isnan(change).any():
        raise InputError("paired_difference: a number is NaN; leave such pairs out, and say how many there were.")
    n, mean = len(change), float(change.mean())
    if n == 1:
        return Difference(mean=mean, error=math.nan, low=-math.inf, high=math.inf, n=1)
    error = float(change.std(ddof=1)) / math.sqrt(n)
    half = t_quantile(0.5 + confidence / 2, n - 1) * error
    return Difference(mean=mean, error=error, low=mean - half, high=mean + half, n=n)


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution, by bisection on its distribution function.

    The latter is a finite sum for whole degrees of freedom (Abramowitz and Stegun 1964, eq. 26.7.3 and 26.7.4), which
    spares evaluation a dependency. Above 1000 degrees the normal quantile z stands in, too small by z^2 + 1 parts in
    4 * degrees: 0.1% for a 95% interval.

    Args:
        probability: in [0.5, 1).
        degrees: at least 1.
    """
    if degrees > 1000:
        return NormalDist().inv_cdf(probability)
    low, high = 0.0, 1.0
    while _t_within(high, degrees) < 2 * probability - 1:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if _t_within(middle, degrees) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def majority_vote(answers: Sequence[str | None]) -> str | None:
    """The answer given most often, ties to the one seen first (Wang et al. 2022, arXiv:2203.11171).

    Args:
        answers: normalized answers; None = no answer could be read, which votes for nothing.

    Returns:
        None if no answer could be read at all.
    """
    votes = Counter(answer for answer in answers if answer is not None)  # keeps the order of first sight
    return max(votes, key=votes.__getitem__) if votes else None


def best_constant(answers: Sequence[str | None], train: Sequence[str | None] | None = None) -> Constant:
    """How often the most frequent reference answer is right: what a policy reaches that never reads the problem.

    Args:
        answers: reference answers of the items; None = unknown, which leaves the count.
        train: reference answers to choose the constant from. Left out, it is chosen with hindsight from `answers`
            themselves, which makes the baseline as strong as a constant answer can be.
    """
    known = [answer for answer in answers if answer is not None]
    choice = majority_vote(known if train is None else train)
    if choice is None or not known:
        return Constant(choice, math.nan)
    return Constant(choice, known.count(choice) / len(known))


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, but must lie between 0 and 1; 0.95 is the usual choice.")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _t_within(t: float, degrees: int) -> float:
    """P(-t < T < t) for Student's T."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for i in range(3 if odd else 2, degrees - 1, 2):
        term *= (i - 1) / i * cosine**2
        total += term
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total
