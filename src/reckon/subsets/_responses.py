"""Which k of the N responses to each problem to train on: worth something, and not all alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from reckon.errors import InputError
from reckon.subsets._metrics import largest
from reckon.subsets._oracles import top_then_centers
from reckon.subsets._selector import SubsetSelector
from reckon.subsets._sets import Sets

if TYPE_CHECKING:
    import pyarrow

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The responses of a rollout table, one set for each problem."""

    sets: Sets  # B problems; with the optimal subset of each where `worth` is known
    rows: NDArray[np.int64]  # [B, n], each candidate's place in the table; -1 in padding
    problems: tuple[str, ...]  # B ids, in the order they come in the table
    worth: Floats | None  # [B, n], 0 in padding; None = not told
    height: int  # rows of the table
    unknown: int  # rows left out, as nobody knows what they are worth


def candidates(
    table: pyarrow.Table, features: ArrayLike, *, worth: str | None = None, share: float = 1 / 3
) -> Candidates:
    """Groups a rollout table by its column `problem`, as sets a `SubsetSelector` can be fitted to or choose from.

    With `worth`, the optimal subset of a problem is that of `top_then_centers`: of the `share` of its responses that
    are worth most, one for each cluster of like ones. So worth decides what is informative, features what is alike.

    Args:
        table: N rows, as `reckon.runs.read_rollouts` gives them.
        features: [N, f] finite numbers, a row for each response: a model's hidden state, its scores, its length.
        worth: the column that says what a response is worth to the training set, the higher the better: a stream, the
            outcome, or one of your own, such as how unsure a judge is. Rows where it is null or NaN are left out.
        share: as of `top_then_centers`.

    Raises:
        InputError: the table has no such column or no row that can be used, or the features do not fit.
        MissingError: scikit-learn is not installed, and `worth` asks for clusters.
    """
    numbers = np.asarray(features, dtype=np.float64)
    if numbers.ndim != 2 or len(numbers) != table.num_rows:
        raise InputError(
            f"candidates: features are of shape {numbers.shape}; the table has {table.num_rows} rows, so give "
            f"[{table.num_rows}, f]."
        )
    value = None if worth is None else _column(table, worth)
    known = np.ones(len(numbers), dtype=bool) if value is None else ~np.isnan(value)
    groups: dict[str, list[int]] = {}
    for row, problem in enumerate(_cells(table, "problem")):
        if not known[row]:
            continue
        if problem is None:
            raise InputError(f"candidates: `problem` is null in row {row}. Say which problem it answers, or drop it.")
        groups.setdefault(str(problem), []).append(row)
    if not groups:
        why = "it is empty" if not len(numbers) else f"`{worth}` is known for none of {len(numbers)} rows"
        raise InputError(f"candidates: the table has no row that can be used: {why}.")
    places = [np.array(rows) for rows in groups.values()]
    most = max(map(len, places))
    padded = np.stack([np.pad(rows, (0, most - len(rows)), constant_values=-1) for rows in places])
    chosen = None
    if value is not None:
        chosen = [top_then_centers(numbers[rows], value[rows], share) for rows in places]
    return Candidates(
        sets=Sets.of([numbers[rows] for rows in places], chosen),
        rows=padded,
        problems=tuple(groups),
        worth=None if value is None else np.where(padded >= 0, value[padded], 0.0),
        height=len(numbers),
        unknown=int((~known).sum()),
    )


def choose_responses(
    pool: Candidates, k: int, by: SubsetSelector | ArrayLike | Literal["random"], *, seed: int = 0
) -> Bools:
    """Chooses k responses to each problem, or all of them where there are fewer.

    Args:
        pool: of N rows.
        k: at least 1.
        by: a fitted selector; numbers [N], of which the k largest are taken, ties to the first (NaN last); or "random".
            A selector of `Greedy` takes each response in view of those before it. Any other takes the k likeliest, and
            of responses that are alike all are as likely.
        seed: of "random".

    Returns:
        [N] bool, for `table.filter`.

    Raises:
        InputError: k is below 1, the numbers are not [N], or the selector was fitted to other features.
    """
    if k < 1:
        raise InputError(f"choose_responses: k is {k}; choose at least 1 of each problem's responses.")
    sets = pool.sets
    if isinstance(by, SubsetSelector):
        _, psi = by.predict(sets, size=0)
        order = torch.from_numpy(psi)
    elif isinstance(by, str):
        if by != "random":
            raise InputError(f"choose_responses: by is {by!r}; give a selector, a number for each row, or 'random'.")
        order = torch.from_numpy(np.random.default_rng(seed).random(sets.mask.shape))
    else:
        try:
            numbers = np.asarray(by, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"choose_responses: by is no array of numbers ({error}).") from error
        if numbers.shape != (pool.height,):
            raise InputError(f"choose_responses: by is of shape {numbers.shape}; the table has {pool.height} rows.")
        order = torch.from_numpy(np.where(np.isnan(numbers), -np.inf, numbers)[pool.rows])
    taken = largest(order, sets.sizes.clamp(max=k), sets.mask).numpy()
    found = np.zeros(pool.height, dtype=bool)
    found[pool.rows[taken]] = True
    return found


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one way to choose came to, over B problems: means and standard errors of the means (NaN for one problem)."""

    way: str
    responses: int  # chosen, of all problems
    worth: tuple[float, float]  # mean worth of a problem's chosen responses
    # How well they stand for the best: the mean over the optimal subset of exp(-d^2 / h^2), with d the distance to the
    # nearest chosen response and h^2 the problem's median squared distance. In [0, 1].
    coverage: tuple[float, float]
    coverage_gain: tuple[float, float]  # over that of the first way, problem by problem


def compare_choices(pool: Candidates, choices: Mapping[str, ArrayLike]) -> tuple[Choice, ...]:
    """Sets ways to choose against each other on problems where worth is known.

    Args:
        pool: of N rows, made with `worth`, and not the one a selector was fitted to.
        choices: by way [N] bool, with at least one response to each problem; the first is what others are compared to.

    Raises:
        InputError: worth is not known, there is no way, or a choice does not fit.
    """
    if pool.worth is None or not choices:
        raise InputError("compare_choices: give candidates made with `worth`, and at least one choice.")
    scores = {way: _measure(pool, way, np.asarray(chosen)) for way, chosen in choices.items()}
    base = next(iter(scores.values()))[:, 1]
    return tuple(
        Choice(
            way=way,
            responses=int(np.asarray(choices[way]).sum()),
            worth=_mean(found[:, 0]),
            coverage=_mean(found[:, 1]),
            coverage_gain=_mean(found[:, 1] - base),
        )
        for way, found in scores.items()
    )


def _measure(pool: Candidates, way: str, chosen: NDArray[np.generic]) -> Floats:
    """[B, 2], worth and coverage of each problem."""
    if chosen.shape != (pool.height,) or chosen.dtype != bool:
        raise InputError(f"compare_choices: `{way}` is {chosen.dtype} of {chosen.shape}; give [{pool.height}] bool.")
    assert pool.worth is not None
    mask, best = pool.sets.mask.numpy(), pool.sets.optimal().numpy()
    found = np.zeros((len(mask), 2))
    for b, problem in enumerate(pool.problems):
        there = mask[b]
        taken = chosen[pool.rows[b, there]].astype(bool)
        if not taken.any():
            raise InputError(f"compare_choices: `{way}` has chosen no response to problem {problem!r}.")
        points = pool.sets.features[b].numpy()[there].astype(np.float64)
        squares = np.square(points[:, None] - points[None]).sum(axis=-1)
        apart = squares[~np.eye(len(points), dtype=bool)]
        scale = float(np.median(apart)) if len(apart) else 1.0
        near = squares[best[b, there]][:, taken].min(axis=1)
        found[b] = pool.worth[b, there][taken].mean(), np.exp(-near / (scale or 1.0)).mean()
    return found


def _mean(values: Floats) -> tuple[float, float]:
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error


def _cells(table: pyarrow.Table, name: str) -> list[object]:
    if name not in table.column_names:
        raise InputError(f"candidates: the table has no column `{name}`. Columns: {', '.join(table.column_names)}.")
    return list(table[name].to_pylist())


def _column(table: pyarrow.Table, name: str) -> Floats:
    cells = _cells(table, name)
    if not all(cell is None or isinstance(cell, int | float) for cell in cells):
        raise InputError(f"candidates: `{name}` is no column of numbers, so it cannot say what a response is worth.")
    found = np.array([math.nan if cell is None else cell for cell in cells], dtype=np.float64)
    if np.isinf(found).any():
        raise InputError(f"candidates: `{name}` is infinite in row {int(np.isinf(found).argmax())}; leave it empty.")
    return found
