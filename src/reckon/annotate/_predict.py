"""How early a score tells the outcome."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Predictability:
    """How well the score at one step predicts whether its response will be right."""

    step: int  # counted from 1
    threshold: float  # a score of at least this much predicts a right answer; fitted on the fitting rows
    error: float  # share of false predictions on the other rows; NaN = there are none
    constant_error: float  # of always predicting what is more frequent among the fitting rows
    n: int  # rows the error is measured on


def predictability(scores: Tensor, outcome: Tensor, fitting: Tensor) -> list[Predictability]:
    """A threshold for each step, fitted on some responses, and its error on the others.

    Setlur et al. 2024, arXiv:2410.08146, section 4: effective rewards predict the outcome better than Q alone, most at
    early steps. Compare two scores on the same rows; only a response that is long enough counts at a step.

    Args:
        scores: [N, H] float, NaN behind a response's last step.
        outcome: [N] float, 1 right and 0 wrong; NaN = unknown, which counts nowhere.
        fitting: [N] bool, True = for the threshold, False = for the error. Keep a problem's responses together.

    Returns:
        One entry for each step that has a fitting row.
    """
    if scores.shape[0] != outcome.shape[0] or outcome.shape != fitting.shape:
        raise ValueError("scores, outcome and fitting must have the same number of rows")
    result = []
    for column in range(scores.shape[1]):
        known = ~(scores[:, column].isnan() | outcome.isnan())
        fit, test = known & fitting, known & ~fitting
        if not bool(fit.any()):
            continue
        right = outcome > 0.5
        threshold = best_threshold(scores[fit, column], right[fit])
        usual = bool(right[fit].double().mean() >= 0.5)
        result.append(
            Predictability(
                step=column + 1,
                threshold=threshold,
                error=_share((scores[test, column] >= threshold) != right[test]),
                constant_error=_share(right[test] != usual),
                n=int(test.sum()),
            )
        )
    return result


def best_threshold(scores: Tensor, right: Tensor) -> float:
    """The threshold with the fewest errors when a score of at least this much predicts a right answer.

    Args:
        scores: [n] float.
        right: [n] bool.

    Returns:
        Halfway between two scores, or an infinity where one answer for all is best; the lowest of equally good ones.
    """
    order = torch.argsort(scores)
    ascending, truth = scores[order].double(), right[order]
    # errors[i]: the first i scores are predicted wrong answers, the others right ones
    below = torch.cat([torch.zeros(1, dtype=torch.int64), truth.long().cumsum(0)])
    above = (~truth).long().sum() - torch.cat([torch.zeros(1, dtype=torch.int64), (~truth).long().cumsum(0)])
    errors = below + above
    between = torch.ones(len(errors), dtype=torch.bool)
    between[1:-1] = ascending[1:] > ascending[:-1]  # equal scores cannot be parted
    best = int(torch.where(between, errors, errors.max() + 1).argmin())
    if best == 0:
        return -math.inf
    if best == len(scores):
        return math.inf
    return float((ascending[best - 1] + ascending[best]) / 2)


def _share(wrong: Tensor) -> float:
    return float(wrong.double().mean()) if len(wrong) else math.nan
