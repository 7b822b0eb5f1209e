"""A path of penalties, from where nothing penalized is left to where little is shrunk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logit

from reckon.ordinal._likelihood import Floats
from reckon.ordinal._newton import Solution, kkt_residual, minimize
from reckon.ordinal._rows import Rows

HELD = 1e100  # an L1 penalty that nothing pays; infinity times 0 would be NaN
ALL_AT_ONCE = 600  # coefficients up to which the whole Hessian costs less than choosing columns


@dataclass(frozen=True, kw_only=True, eq=False)
class Penalty:
    """What lambda multiplies, and how exactly to solve."""

    factors: Floats  # [K-1, q], 0 where a coefficient is free; the intercepts are
    l1_ratio: float  # 1 lasso, 0 ridge
    tol: float
    max_iter: int
    everywhere: bool  # gaps of all classes, not of the observed ones only


def null_model(rows: Rows, penalty: Penalty) -> Solution:
    """The fit with every penalized coefficient at 0: class shares, and what is free besides."""
    ends = rows.starts[1:-1]
    theta = np.zeros((rows.boundaries, rows.columns))
    theta[:, 0] = np.diff(logit(rows.weights.cumsum()[ends - 1]), prepend=0.0)
    held = np.where(penalty.factors > 0, HELD, 0.0)
    return _minimize(rows, held, np.zeros_like(held), theta, penalty)


def largest_lambda(rows: Rows, penalty: Penalty, null: Solution) -> float:
    """The least lambda at which the null model is the solution; for a ridge a hundred times its lasso's."""
    pull = np.abs(rows.gradient(*rows.ends(null.theta)))
    penalized = penalty.factors > 0
    most = np.max(pull[penalized] / penalty.factors[penalized], initial=0.0)
    return float(most) / max(penalty.l1_ratio, 0.01)


def solve_path(rows: Rows, penalty: Penalty, lambdas: Iterable[float], null: Solution) -> list[Solution]:
    """A solution for each lambda, in the order given, each begun where the last one ended."""
    found = [null]
    for lam in lambdas:
        found.append(_solve(rows, penalty, lam, found[-1].theta))
    return found[1:]


def _solve(rows: Rows, penalty: Penalty, lam: float, start: Floats) -> Solution:
    """One lambda. With many columns, those that do not move are left out, and asked again until none would."""
    l1 = lam * penalty.l1_ratio * penalty.factors
    l2 = lam * (1 - penalty.l1_ratio) * penalty.factors
    if rows.columns * rows.boundaries <= ALL_AT_ONCE:
        return _minimize(rows, l1, l2, start, penalty)
    chosen = (start != 0).any(axis=0) | (l1 == 0).any(axis=0)
    steps = 0
    while True:
        part = _minimize(rows.only(chosen), l1[:, chosen], l2[:, chosen], start[:, chosen], penalty)
        steps += part.steps
        theta = np.zeros_like(start)
        theta[:, chosen] = part.theta
        gradient = rows.gradient(*rows.ends(theta)) + l2 * theta
        wanted = ~chosen & ((np.abs(gradient) - l1).max(axis=0) > penalty.tol)
        if not wanted.any():
            return replace(part, theta=theta, steps=steps, kkt=kkt_residual(gradient, theta, l1))
        start, chosen = theta, chosen | wanted


def _minimize(rows: Rows, l1: Floats, l2: Floats, start: Floats, penalty: Penalty) -> Solution:
    return minimize(rows, l1, l2, start, tol=penalty.tol, max_iter=penalty.max_iter, everywhere=penalty.everywhere)
