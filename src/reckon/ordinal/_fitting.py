"""From a model's settings and checked rows to a path of solutions on the scale of the features as given."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from reckon.errors import InputError
from reckon.ordinal._inputs import Codes, check_classes, prepare, read_numbers, restore
from reckon.ordinal._likelihood import Floats, Monotone
from reckon.ordinal._path import Penalty, largest_lambda, null_model, solve_path
from reckon.ordinal._rows import Matrix

if TYPE_CHECKING:
    from reckon.ordinal._presto import PrestoClassifier

Domain: TypeAlias = Literal["observed", "all"]
FLAT = 1e-10  # the largest lambda of a path where no column tells anything


@dataclass(frozen=True, kw_only=True, eq=False)
class Path:
    """L solutions."""

    lambdas: Floats  # [L]
    intercepts: Floats  # [L, K-1]
    psi: Floats  # [L, K-1, p]
    kkt: Floats  # [L] by how much the optimality conditions are missed
    steps: NDArray[np.intp]  # [L] Newton steps
    lambda_max: float


def fit_path(
    model: PrestoClassifier,
    classes: NDArray[Any],
    data: tuple[Matrix, Codes, Floats],
    lambdas: Sequence[float] | Floats | None,
    *,
    count: int = 20,
    ratio: float = 0.01,
    where: str = "the rows",
) -> Path:
    """Solves for each lambda with a model's settings.

    Args:
        model: its settings.
        classes: [K] in their order.
        data: features [n, p], places in the order [n] and weights [n].
        lambdas: falling; None: `count` of them in equal ratios from the largest to `ratio` of it.
        count: see lambdas.
        ratio: see lambdas.
        where: what an error calls the rows.

    Raises:
        InputError: settings or data that cannot be used.
    """
    x, codes, weights = data
    _check_settings(model)
    check_classes(classes, codes, weights, where)
    prepared = prepare(x, codes, weights, len(classes), model.standardize)
    penalty = Penalty(
        factors=_factors(model, len(classes), x.shape[1]),
        l1_ratio=model.l1_ratio,
        tol=model.tol,
        max_iter=model.max_iter,
        everywhere=model.domain == "all",
    )
    null = null_model(prepared.rows, penalty)
    largest = largest_lambda(prepared.rows, penalty, null)
    if lambdas is None:
        top = max(largest, FLAT)
        lambdas = np.geomspace(top, top * ratio, count)
    solutions = solve_path(prepared.rows, penalty, lambdas, null)
    kkt = np.array([solution.kkt for solution in solutions])
    _warn_of_short_ones(model, kkt)
    intercepts, psi = restore(prepared, np.stack([solution.theta for solution in solutions]), model.released_faults)
    return Path(
        lambdas=np.asarray(lambdas, dtype=np.float64),
        intercepts=intercepts,
        psi=psi,
        kkt=kkt,
        steps=np.array([solution.steps for solution in solutions]),
        lambda_max=largest,
    )


def check_number(name: str, value: Any) -> float:
    """The value, if it is a finite number of 0 or more; InputError otherwise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or not 0 <= float(value) < np.inf:
        raise InputError(f"{name} is {value!r}; it must be a finite number of 0 or more.")
    return float(value)


def _check_settings(model: PrestoClassifier) -> None:
    check_number("base_penalty", model.base_penalty)
    check_number("tol", model.tol)
    if check_number("l1_ratio", model.l1_ratio) > 1:
        raise InputError(f"l1_ratio is {model.l1_ratio}; it must lie between 0 (ridge) and 1 (lasso).")
    if check_number("max_iter", model.max_iter) < 1 or not isinstance(model.max_iter, Integral):
        raise InputError(f"max_iter is {model.max_iter}; give a whole number, at least one Newton step.")
    for name, choices in (("domain", get_args(Domain)), ("monotone", get_args(Monotone))):
        if getattr(model, name) not in choices:
            raise InputError(f"{name} is {getattr(model, name)!r}; choose one of {', '.join(choices)}.")


def _factors(model: PrestoClassifier, classes: int, columns: int) -> Floats:
    """[K-1, p+1]: what lambda is multiplied by, 0 for intercepts."""
    each = np.ones(columns)
    if model.feature_penalties is not None:
        each = read_numbers("feature_penalties", model.feature_penalties)
        if each.shape != (columns,) or not (each >= 0).all() or np.isinf(each).any():
            raise InputError(f"feature_penalties must be {columns} numbers of 0 or more, one for each column of X.")
    factors = np.zeros((classes - 1, columns + 1))
    factors[:, 1:] = each
    factors[0] *= model.base_penalty
    return factors


def _warn_of_short_ones(model: PrestoClassifier, kkt: Floats) -> None:
    short = int((~(kkt <= model.tol)).sum())
    if short:
        remedy = "boundaries met: domain='observed' goes on" if model.domain == "all" else "raise max_iter or lam"
        warnings.warn(
            f"{short} of {len(kkt)} PRESTO fits stopped short of the optimum, whose conditions they miss by up to "
            f"{kkt.max():.2g}; tol is {model.tol:g} ({remedy}).",
            ConvergenceWarning,
            stacklevel=4,
        )
