"""The likelihood of ordered classes with separate slopes, its derivatives, and probabilities, without cancellation.

A row of class y lies between two boundary scores: `lo` = eta_{y-1} and `hi` = eta_y, with lo = -inf for the first class
and hi = +inf for the last. So written the three kinds of class share one formula: what is infinite adds 0.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

Floats: TypeAlias = NDArray[np.float64]
Monotone: TypeAlias = Literal["keep_last", "cummax", "none"]


def log_probabilities(lo: Floats, hi: Floats) -> Floats:
    """Log of s(hi) - s(lo), s the logistic function, as log s(hi) + log s(-lo) + log(1 - exp(lo - hi)).

    Args:
        lo: [n] float64, the boundary scores below, -inf for the first class.
        hi: [n] float64, those above, +inf for the last.

    Returns:
        [n] float64, -inf where hi <= lo.
    """
    gap = hi - lo
    open_ = gap > 0
    closing = np.full(len(gap), -np.inf)
    np.log(-np.expm1(-gap, where=open_, out=np.zeros(len(gap))), where=open_, out=closing)
    total: Floats = log_expit(hi) + log_expit(-lo) + closing
    return total


def slopes(lo: Floats, hi: Floats) -> tuple[Floats, Floats]:
    """The derivatives of `log_probabilities` with respect to lo and to hi, [n] each; every gap must be open."""
    h = _pressure(hi - lo)
    return -expit(lo) - h, expit(-hi) + h


def curvatures(lo: Floats, hi: Floats) -> tuple[Floats, Floats, Floats]:
    """The negative second derivatives with respect to (lo, lo), (hi, hi) and, of the other sign, (lo, hi); [n] each.

    This is the observed information. It is positive semidefinite wherever the gaps of the observed classes are open;
    the expected information is not, as soon as a class that was not observed has a probability of 0 or less.
    """
    h = _pressure(hi - lo)
    cross = h * (1 + h)
    return expit(lo) * expit(-lo) + cross, expit(hi) * expit(-hi) + cross, cross


def _pressure(gap: Floats) -> Floats:
    # 1 / expm1(gap), so that a gap of 800 or of infinity does not overflow.
    return np.exp(-gap) / -np.expm1(-gap)


def class_probabilities(scores: Floats, monotone: Monotone) -> Floats:
    """Probabilities of the K classes from the scores of K-1 boundaries.

    Args:
        scores: [..., K-1] float64, logit P(Y <= k).
        monotone: what to do where the scores of a row fall. "keep_last" lowers earlier ones from the right, so that
            P(Y = K) stays as it is; "cummax" raises later ones from the left; "none" leaves negative probabilities.

    Returns:
        [..., K] float64; a row sums to 1.
    """
    if monotone == "keep_last":
        scores = np.minimum.accumulate(scores[..., ::-1], axis=-1)[..., ::-1]
    elif monotone == "cummax":
        scores = np.maximum.accumulate(scores, axis=-1)
    lo, hi = scores[..., :-1], scores[..., 1:]
    below, above = np.minimum(lo, hi), np.maximum(lo, hi)
    middle = np.sign(hi - lo) * expit(above) * expit(-below) * -np.expm1(below - above)
    return np.concatenate([expit(scores[..., :1]), middle, expit(-scores[..., -1:])], axis=-1)
