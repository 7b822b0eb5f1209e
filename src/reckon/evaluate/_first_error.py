"""Where a response first goes wrong, from scores of its steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reckon.errors import InputError

CLEAN = -1  # no step is wrong


@dataclass(frozen=True, kw_only=True)
class FirstErrors:
    """How well first errors were found (ProcessBench; Zheng et al. 2024, arXiv:2412.06559)."""

    f1: float  # harmonic mean of the two; NaN if there are no responses of one kind
    erroneous: float  # share of the responses with an error whose first one was named exactly
    clean: float  # share of the responses without that were called clean
    n_erroneous: int
    n_clean: int


def first_error(step_scores: ArrayLike, threshold: float, accumulate: bool = False) -> NDArray[np.int64]:
    """The first step of each response whose score lies under a threshold.

    Args:
        step_scores: [N, H] float, NaN behind a response's last step.
        threshold: in the scores' own units.
        accumulate: compare the sum of the scores up to a step (a Q value, where scores are step rewards) instead of
            the step's own. The implicit PRM's released code does; both are in use.

    Returns:
        [N] int64, counted from 0; -1 = none.
    """
    scores = _steps(step_scores, accumulate)
    under = scores < threshold  # never for NaN
    return np.where(under.any(axis=1), under.argmax(axis=1) if scores.shape[1] else 0, CLEAN).astype(np.int64)


def first_error_f1(predicted: ArrayLike, truth: ArrayLike) -> FirstErrors:
    """Harmonic mean of the accuracies on responses with an error and on those without.

    Args:
        predicted: [N] int, the first wrong step counted from 0, -1 = none.
        truth: [N] int, the same.

    Raises:
        InputError: lengths differ.
    """
    said, true = np.asarray(predicted), np.asarray(truth)
    if said.shape != true.shape:
        raise InputError(f"first errors: {len(said)} predictions for {len(true)} responses; give one for each.")
    hit, wrong = said == true, true != CLEAN
    erroneous = float(hit[wrong].mean()) if wrong.any() else np.nan
    clean = float(hit[~wrong].mean()) if (~wrong).any() else np.nan
    return FirstErrors(
        f1=harmonic_mean(erroneous, clean),
        erroneous=erroneous,
        clean=clean,
        n_erroneous=int(wrong.sum()),
        n_clean=int((~wrong).sum()),
    )


def harmonic_mean(a: float, b: float) -> float:
    """Of two shares; 0 where both are 0, NaN where one is."""
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


def find_threshold(step_scores: ArrayLike, truth: ArrayLike, accumulate: bool = False) -> float:
    """The threshold with the highest F1, to be searched on held-out responses and then left alone.

    Args:
        step_scores: [N, H] float; NaN, behind a response's last step or before it, is under no threshold.
        truth: [N] int, the first wrong step counted from 0, -1 = none.
        accumulate: see `first_error`.

    Returns:
        Midway between two scores, so that equal scores elsewhere fall on a clear side; of equally good thresholds the
        lowest, which calls the fewest responses wrong.

    Raises:
        InputError: lengths differ, there are no scores, or not both kinds of responses, without which there is no F1.
    """
    scores, true = _steps(step_scores, accumulate), np.asarray(truth)
    values = np.unique(scores[np.isfinite(scores)])
    if len(scores) != len(true) or not len(values) or not (true == CLEAN).any() or (true == CLEAN).all():
        raise InputError(
            f"a threshold for first errors needs scored steps and responses of both kinds; here are {len(scores)} "
            f"responses with {len(values)} different scores, {int((true == CLEAN).sum())} of {len(true)} without error."
        )
    cuts = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2, [np.nextafter(values[-1], np.inf)]])
    # A response's verdict changes only where the threshold passes a running minimum: H changes at most, not one for
    # every score, so all thresholds together cost no more than a sort.
    hits = np.zeros((2, len(cuts) + 1), dtype=np.int64)
    for row, wrong in zip(scores, true.tolist(), strict=True):
        low, high = _right_between(row, wrong)
        if low < high:
            hits[int(wrong == CLEAN), np.searchsorted(cuts, [low, high], side="right")] += (1, -1)
    erroneous, clean = (hits.cumsum(axis=1)[:, :-1].T / [(true != CLEAN).sum(), (true == CLEAN).sum()]).T
    total = erroneous + clean
    f1 = np.divide(2 * erroneous * clean, total, out=np.zeros_like(total), where=total > 0)
    return float(cuts[f1.argmax()])


def _right_between(row: NDArray[np.float64], wrong: int) -> tuple[float, float]:
    """The thresholds (low, high] at which `first_error` is right about a response."""
    lowest = float(np.nanmin(row if wrong == CLEAN else row[:wrong], initial=np.inf))
    if wrong == CLEAN:
        return -np.inf, lowest
    if wrong >= len(row) or np.isnan(row[wrong]):
        return np.inf, np.inf  # a step that has no score is never named
    return float(row[wrong]), lowest


def _steps(step_scores: ArrayLike, accumulate: bool) -> NDArray[np.float64]:
    scores = np.asarray(step_scores, dtype=np.float64)
    if scores.ndim != 2:
        raise InputError(
            f"first errors: scores must be [N, H], one row for each response, not of shape {scores.shape}."
        )
    return scores.cumsum(axis=1) if accumulate else scores
