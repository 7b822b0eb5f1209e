"""What a user hands over, checked, and rows made of it that the solver can read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from reckon.errors import InputError
from reckon.ordinal._likelihood import Floats
from reckon.ordinal._rows import Matrix, Rows

Codes: TypeAlias = NDArray[np.intp]  # [n], the place of each row's class in the order, from 0
TINY = 1e-12  # of all weight: a class with less has its boundary at infinity, in floats
HUGE = 1e100  # of a column on the solver's scale; squared and summed it must stay a number
# Of a column's mean: what spreads less is a constant and its rounding, 1e-16 for a number, 1e-13 for a long sum. That
# float32 rounds to 6e-8 is no measure: seconds since 1970, within minutes of each other, spread as little and mean it.
ALIKE = 1e-12


def read_features(estimator: BaseEstimator, x: ArrayLike | Matrix) -> Matrix:
    """[n, p] float64, dense or CSR, of a fitted estimator's width.

    Raises:
        InputError: another number of columns, or NaN or infinity in it.
    """
    try:
        found = validate_data(estimator, x, reset=False, accept_sparse="csr", dtype=np.float64, ensure_all_finite=False)
    except ValueError as error:
        raise InputError(str(error)) from error
    _check_finite(found)
    return found


def read_rows(estimator: BaseEstimator, x: ArrayLike | Matrix, y: ArrayLike) -> tuple[Matrix, NDArray[Any]]:
    """Features [n, p] and labels [n]; remembers the width and the names of the columns.

    Raises:
        InputError: shapes that do not fit, NaN or infinity, or labels that are measurements.
    """
    try:
        found, labels = validate_data(estimator, x, y, accept_sparse="csr", dtype=np.float64, ensure_all_finite=False)
    except ValueError as error:
        raise InputError(str(error)) from error
    try:
        check_classification_targets(labels)
    except ValueError as error:
        raise InputError(str(error)) from error
    except TypeError as error:  # they have no order
        raise InputError(
            f"y holds labels of different types ({error}). Drop rows without one, and write all alike."
        ) from error
    _check_finite(found)
    return found, labels


def order_of(y: ArrayLike, categories: Sequence[Any] | None) -> Sequence[Any] | None:
    """The categories, or where none are given those of `y` itself, if it is an ordered categorical of pandas."""
    dtype: Any = getattr(y, "dtype", None)
    if categories is None and getattr(dtype, "ordered", False):
        return list(dtype.categories)
    return categories


def encode(labels: NDArray[Any], categories: Sequence[Any] | None) -> tuple[NDArray[Any], Codes]:
    """The classes in their order [K], and each label's place in it.

    Args:
        labels: [n].
        categories: the order, lowest first; None: as numbers ascend. Words are then sorted by letter, with a warning.

    Raises:
        InputError: a label that is no category, a category twice, or labels of one class only.
    """
    present = np.unique(labels)
    if categories is None:
        classes = present
        if labels.dtype.kind in "OUS" and len(present) > 1:
            warnings.warn(
                f"labels are ordered by letter: {' < '.join(map(str, classes))}. Give the order as categories=[...], "
                "lowest first.",
                stacklevel=3,
            )
    else:
        classes = np.asarray(list(categories))
        if len(set(classes.tolist())) < len(classes):
            raise InputError(f"categories are {classes.tolist()}; each must be there once.")
        unknown = np.flatnonzero(~np.isin(labels, classes))
        if len(unknown):
            raise InputError(
                f"y, row {unknown[0]}: {labels[unknown].tolist()[0]!r} is not among the categories {classes.tolist()}. "
                "Add it in its place, or drop the row."
            )
    order = np.argsort(classes, kind="stable")
    codes = order[np.searchsorted(classes, labels, sorter=order)]
    return classes, codes


def read_numbers(name: str, values: ArrayLike) -> Floats:
    """Float64 of any shape.

    Raises:
        InputError: they are no numbers.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers, and is not ({error}).") from error


def read_weights(weights: ArrayLike | None, count: int) -> Floats:
    """[n] float64, 0 or more and not all 0; ones if None.

    Raises:
        InputError: another shape, a negative weight, NaN, or nothing but zeros.
    """
    if weights is None:
        return np.ones(count)
    read = read_numbers("sample_weight", weights)
    if read.shape != (count,):
        raise InputError(f"sample_weight has shape {read.shape}, but X has {count} rows: give one number a row.")
    bad = np.flatnonzero(~(read >= 0) | np.isinf(read))
    if len(bad):
        raise InputError(f"sample_weight, row {bad[0]}: {read[bad[0]]} is not a weight. Give 0 or more.")
    if not read.any():
        raise InputError("sample_weight is zero in every row, so there is nothing to learn from.")
    return read


def check_classes(classes: NDArray[Any], codes: Codes, weights: Floats, where: str) -> None:
    """Every class must be there, or the boundary before it lies at infinity.

    Raises:
        InputError: one class only, or a class without rows of a weight above 0.
    """
    mass = np.bincount(codes, weights=weights, minlength=len(classes))
    if np.count_nonzero(mass) < 2:
        only = classes.tolist()[int(mass.argmax())]
        raise InputError(f"{where} hold one class only ({only!r}); an order needs two, and three to share anything.")
    few = np.flatnonzero(mass <= TINY * mass.sum())
    if len(few):
        missing = classes.tolist()[int(few[0])]
        weight = f" with more than {TINY:g} of all weight" if mass[few[0]] else ""
        raise InputError(
            f"{where} hold no row of class {missing!r}{weight}. Leave it out of the order or merge it with its "
            "neighbor; in folds, ask for fewer."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Rows for the solver, and how to come back from their scale."""

    rows: Rows
    means: Floats  # [p] subtracted from each column; 0 where they are not standardized
    scale: Floats  # [p] divided by


def prepare(x: Matrix, codes: Codes, weights: Floats, classes: int, standardize: bool) -> Prepared:
    """Sorts rows by class, drops those of weight 0, and standardizes columns to weighted mean 0 and population sd 1.

    Raises:
        InputError: numbers so large that their squares overflow.
    """
    order = np.argsort(codes, kind="stable")
    order = order[weights[order] > 0]
    x, weights = x[order], weights[order] / weights[order].sum()  # x is a copy from here on
    if sparse.issparse(x):
        x = sparse.csr_array(x)
        x.sum_duplicates()
    starts = np.searchsorted(codes[order], np.arange(classes + 1))
    size = np.asarray(abs(x).max(axis=0).todense()).ravel() if sparse.issparse(x) else np.abs(x).max(axis=0)
    base: Floats = np.zeros(x.shape[1])
    rest: Floats = base
    scale = np.ones_like(base)
    if standardize:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is told below
            # In two steps: far from 0 a mean is off by its rounding, and that of what is left is not.
            base = _base(x, weights)
            if sparse.issparse(x):
                x.data -= base[x.indices]
            else:
                x = x - base
            rest = weights @ x
            scale = _spread(x, weights, rest, base)
    bad = np.flatnonzero(~(np.isfinite(scale) & (size / scale < HUGE)))
    if len(bad):
        raise InputError(f"X, column {bad[0]}: numbers as large as {size[bad[0]]:.2g} cannot be squared. Scale it.")
    ones = np.ones((x.shape[0], 1))
    shift = np.zeros(x.shape[1] + 1)
    if sparse.issparse(x):
        design = sparse.csr_array(sparse.hstack([sparse.csr_array(ones), x @ sparse.diags_array(1 / scale)]))
        shift[1:] = rest / scale
    else:
        design = np.ascontiguousarray(np.hstack([ones, (x - rest) / scale]))
    return Prepared(rows=Rows(design, weights, starts, shift), means=base + rest, scale=scale)


def _base(x: Matrix, weights: Floats) -> Floats:
    """[p]: about the mean of each column, or 0 where a sparse one has zeros, which are to stay zeros.

    A column with zeros spreads as far as its mean is from them, so it needs no base; one without them has nothing to
    lose, and far from 0 its squares would hide its spread.
    """
    means = np.asarray(weights @ x)
    if not sparse.issparse(x):
        return means
    full = np.bincount(x.indices, minlength=x.shape[1]) == x.shape[0]
    return np.where(full, means, 0.0)


def _spread(x: Matrix, weights: Floats, means: Floats, base: Floats) -> Floats:
    """[p]: weighted population standard deviations of columns less their base, 1 for a constant column."""
    if sparse.issparse(x):
        there, squares = x.copy(), x.copy()
        there.data = np.ones_like(x.data)
        squares.data = (x.data - means[x.indices]) ** 2
        variance = weights @ squares + np.maximum(1 - weights @ there, 0.0) * means**2  # what is not there is 0
    else:
        variance = weights @ (x - means) ** 2
    spread = np.sqrt(variance)
    return np.where(spread <= ALIKE * np.abs(base + means), 1.0, spread)


def restore(prepared: Prepared, theta: Floats, released_faults: bool) -> tuple[Floats, Floats]:
    """Intercepts [..., K-1] and psi [..., K-1, p] on the scale of the features as given, from theta [..., K-1, p+1].

    Coefficients are psi summed up over boundaries. So must be what the means take from the intercepts; the released
    code takes the means times psi (its fault 1), which is right only where the means are 0.
    """
    psi = theta[..., 1:] / prepared.scale
    coef = psi.cumsum(axis=-2)
    taken = psi if released_faults else coef
    return theta[..., 0].cumsum(axis=-1) - taken @ prepared.means, psi


def _check_finite(x: Matrix) -> None:
    if sparse.issparse(x):
        table = x.tocoo()
        bad = ~np.isfinite(table.data)
        rows, columns = table.row[bad], table.col[bad]
    else:
        rows, columns = np.nonzero(~np.isfinite(x))
    if len(rows):
        raise InputError(f"X holds NaN or inf in row {rows[0]}, column {columns[0]}. Impute it or drop the row.")
