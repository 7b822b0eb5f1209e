"""What is taken from SciPy, imported when it is used: the rest of the room does without."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from reckon.errors import MissingError
from reckon.labels._measures import Floats

_EVALUATIONS = 100  # steps of a fit: a pilot of noise has valleys that one can walk along for ever
_MISSING = "planning label budgets needs SciPy: pip install 'reckon-rl[labels]'"


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution.

    Raises:
        MissingError: SciPy is not installed.
    """
    try:
        from scipy.special import stdtrit
    except ModuleNotFoundError as error:
        raise MissingError(_MISSING) from error
    return float(stdtrit(degrees, probability))


def robust_least_squares(
    residuals: Callable[[Floats], Floats], start: Floats, low: Floats, high: Floats, scale: float
) -> tuple[Floats, float]:
    """Least squares within bounds under the soft L1 loss: residuals far above `scale` count less than squared.

    Returns:
        The parameters and half the loss there.

    Raises:
        MissingError: SciPy is not installed.
    """
    try:
        from scipy.optimize import least_squares
    except ModuleNotFoundError as error:
        raise MissingError(_MISSING) from error
    inside = np.clip(start, low + 1e-9, high - 1e-9)  # SciPy wants to begin strictly within
    found = least_squares(
        residuals, inside, bounds=(low, high), loss="soft_l1", f_scale=scale, x_scale="jac", max_nfev=_EVALUATIONS
    )
    return np.asarray(cast("Floats", found.x)), float(found.cost)
