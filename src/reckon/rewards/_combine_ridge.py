"""A small regression of reference levels on prompts, for prompts that have no samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from reckon.types import Problem


def prompt_features(problem: Problem) -> list[float]:
    """Length, words, share of digits and lines of the prompt, the counts as logarithms."""
    text = problem.prompt_text
    letters = max(len(text), 1)
    digits = sum(character.isdigit() for character in text) / letters
    return [math.log(letters), math.log1p(len(text.split())), digits, math.log1p(text.count("\n"))]


def ridge(table: tuple[np.ndarray, np.ndarray]) -> tuple[Callable[[list[float]], float], float]:
    """A ridge regression with penalty 1 on standardized features, and how much of the variance it explains.

    Args:
        table: features [n, F] and targets [n], float64.

    Returns:
        The prediction of a row of features; and 1 less the squared error on rows left out over that of the others'
        mean, 0 for fewer than 3 rows. The errors of leaving a row out come from the hat matrix: e_i / (1 - H_ii).
    """
    features, targets = table
    middle, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    design = np.hstack([np.ones((len(features), 1)), (features - middle) / spread])
    penalty = np.diag([0.0] + [1.0] * features.shape[1])
    solve = np.linalg.solve(design.T @ design + penalty, design.T)
    weights = solve @ targets
    leverage = np.einsum("ij,ji->i", design, solve)
    count = len(targets)
    if count < 3:
        return lambda row: float(targets.mean()), 0.0
    left_out = ((targets - design @ weights) / (1 - leverage)) ** 2
    by_mean = ((targets - targets.mean()) * count / (count - 1)) ** 2
    explained = 1 - float(left_out.sum() / by_mean.sum()) if by_mean.sum() > 0 else 0.0
    return lambda row: float(np.concatenate([[1.0], (np.array(row) - middle) / spread]) @ weights), explained
