"""One of N responses: by the highest score, by votes; and how often that is right. Only NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reckon import evaluate
from reckon.errors import InputError
from reckon.types import Rng

Floats: TypeAlias = NDArray[np.float64]


def best_of_n(scores: ArrayLike) -> int:
    """The place of the highest score, ties to the first; a score that is NaN (unknown) comes last.

    Args:
        scores: [N] float, N >= 1.

    Raises:
        InputError: there is no response.
    """
    values = _ranked(scores)
    if not len(values):
        raise InputError("best of N: there is no response to choose from.")
    return int(values.argmax())


def expected_best_of_n(scores: ArrayLike, right: ArrayLike, n: int) -> float:
    """How often the best-scored of n responses is right, over all n-subsets of the M that were drawn.

    The unbiased estimate for n independent responses, exact and without drawing subsets (`reckon.evaluate.best_of_n`).
    With `right` as the score it is pass@n (Chen et al. 2021, arXiv:2107.03374, eq. 1), and with n = 1 the mean of
    `right`, whatever the scores.

    Which of several equal scores comes first is chance: they share alike. NaN (unknown) is the lowest score.

    Args:
        scores: [M] float.
        right: [M] float in [0, 1], known.
        n: in [1, M].

    Returns:
        In [0, 1].

    Raises:
        InputError: for an n out of range, lengths that differ, or an outcome outside [0, 1].
    """
    values, truth = _ranked(scores), _outcomes(right)
    m = len(values)
    if len(truth) != m or not 1 <= n <= m:
        raise InputError(f"best of N: n = {n} of {m} scores and {len(truth)} outcomes; give 1 <= n <= as many of both.")
    return evaluate.best_of_n(values, truth, n)


def vote_scale(scores: ArrayLike) -> float | None:
    """The scale a weighted vote takes where nobody has chosen one.

    None for scores that all lie in [0, 1]: a probability, a share or a verdict is a weight as it is, as explicit
    process reward models vote in Yuan et al. 2024, arXiv:2412.01981; a sigmoid around it would leave every vote between
    0.5 and 0.73. Else 1, for which a logit weighs its probability. The scale that suits a log-ratio is not known
    beforehand: choose one on held-out responses.

    Args:
        scores: [N] float; NaN (unknown) says nothing.
    """
    known = np.asarray(scores, dtype=np.float64)
    known = known[~np.isnan(known)]
    return None if bool(((known >= 0) & (known <= 1)).all()) else 1.0


def vote_weights(scores: ArrayLike, scale: float | None) -> Floats:
    """What each response's vote weighs: sigmoid(scale * score), or its score itself where that is a probability.

    For votes alone: the best of N ranks by the score as it is. With a small scale all weights are nearly a half, and
    the vote a majority's with a slight tilt; say the scale beside every number (Yuan et al. 2024, arXiv:2412.01981;
    their code takes 0.001 on raw log-ratios).

    Args:
        scores: [N] float; NaN (unknown) weighs nothing.
        scale: above 0; None = the scores are probabilities already.

    Raises:
        InputError: scale is not above 0; without one, a score lies outside [0, 1].
    """
    values = np.asarray(scores, dtype=np.float64)
    unknown = np.isnan(values)
    if scale is None:
        if bool(((values < 0) | (values > 1)).any()):
            raise InputError("weighted vote: a score lies outside [0, 1], so it is no probability. Give a scale.")
        return np.where(unknown, 0.0, values)
    if not 0 < scale < math.inf:
        raise InputError(f"weighted vote: the scale is {scale}; it must be above 0 and finite.")
    # tanh does not overflow where exp would; infinite scores vote 0 and 1
    return np.where(unknown, 0.0, 0.5 * (1 + np.tanh(0.5 * scale * values)))


def vote(answers: Sequence[str | None], weights: ArrayLike | None = None) -> str | None:
    """The answer with the largest sum of weights, ties to the one seen first; with equal weights the majority's.

    Weights that are all 0 are equal too.

    Args:
        answers: [N], normalized; None = no answer could be read, which votes for nothing.
        weights: [N] float, at least 0; None = all 1.

    Returns:
        None if no answer could be read at all.

    Raises:
        InputError: lengths differ, or a weight is negative or NaN.
    """
    heavy = np.ones(len(answers)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(heavy) != len(answers) or not bool((heavy >= 0).all()):
        raise InputError(f"vote: {len(answers)} answers need as many weights, each at least 0, not {len(heavy)}.")
    given = [(answer, weight) for answer, weight in zip(answers, heavy.tolist(), strict=True) if answer is not None]
    silent = not any(weight for _, weight in given)
    totals: dict[str, float] = {}
    for answer, weight in given:
        totals[answer] = totals.get(answer, 0.0) + (1.0 if silent else weight)
    return max(totals, key=totals.__getitem__) if totals else None


def expected_vote(
    answers: Sequence[str | None],
    right: ArrayLike,
    n: int,
    rng: Rng,
    weights: ArrayLike | None = None,
    draws: int = 256,
) -> float:
    """How often a vote of n responses is right, over n-subsets of the M that were drawn.

    All subsets if they are `draws` or fewer, else so many drawn at random: unbiased either way
    (`reckon.evaluate.vote_of_n`, so that the signal bench says the same).

    Args:
        answers: [M]; see `vote`.
        right: [M] float in [0, 1], known. The vote's winner is as right as the responses that gave it are on average,
            no answer at all is wrong, and answers that tie share alike, since the order of a file says nothing.
        n: in [1, M].
        rng: names the random numbers of the subsets.
        weights: [M]; see `vote`.
        draws: subsets at most.

    Raises:
        InputError: for an n out of range, lengths that differ, or an outcome outside [0, 1].
    """
    truth = _outcomes(right)
    m = len(answers)
    if len(truth) != m or not 1 <= n <= m:
        raise InputError(f"vote: n = {n} of {m} answers and {len(truth)} outcomes; give 1 <= n <= as many of both.")
    heavy = None if weights is None else np.asarray(weights, dtype=np.float64)
    return evaluate.vote_of_n(answers, truth, n, rng, heavy, draws)


def _ranked(scores: ArrayLike) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    return np.where(np.isnan(values), -math.inf, values)


def _outcomes(right: ArrayLike) -> Floats:
    truth = np.asarray(right, dtype=np.float64)
    if not bool(((truth >= 0) & (truth <= 1)).all()):
        raise InputError(
            "an outcome lies outside [0, 1] or is unknown (NaN); leave such responses out, and count them."
        )
    return truth
