"""Proximal Newton: a quadratic model of the loss, its lasso solved exactly, and a line search that keeps gaps open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reckon.ordinal._likelihood import Floats
from reckon.ordinal._quadratic import minimize_quadratic
from reckon.ordinal._rows import Rows

SLACK = 1e-14  # of an objective of about 1: what rounding may add to a step that is as good as none
INSIDE = 0.99  # how far towards a closed gap a step may go
HALVINGS = 40
HALVINGS_EVERYWHERE = 10  # the released code's: where gaps of classes not observed must stay open, steps end at them


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Where the solver stopped."""

    theta: Floats  # [K-1, q] increments of the coefficients, the intercepts first
    kkt: float  # by how much the optimality conditions are missed at worst; 0 at the optimum
    steps: int  # Newton steps


def minimize(
    rows: Rows, l1: Floats, l2: Floats, start: Floats, *, tol: float, max_iter: int, everywhere: bool
) -> Solution:
    """Minimizes loss + sum l1 |theta| + sum l2 theta^2 / 2.

    Args:
        rows: the data.
        l1: [K-1, q] float64, 0 or more; the intercepts' are 0.
        l2: the same.
        start: [K-1, q] float64, with open gaps.
        tol: stop where the optimality conditions hold to this.
        max_iter: Newton steps at most.
        everywhere: keep the gaps of all classes open in every row, not those of the observed classes only.
    """
    theta, (lo, hi) = start, rows.ends(start)
    value = rows.loss(lo, hi) + _penalty(theta, l1, l2)
    steps, bound = 0, np.inf
    while True:
        gradient = rows.gradient(lo, hi) + l2 * theta
        kkt = kkt_residual(gradient, theta, l1)
        if kkt <= tol or steps == max_iter or kkt > bound:
            break
        hessian = rows.hessian(lo, hi)
        hessian[np.diag_indices_from(hessian)] += l2.ravel()
        linear = gradient.ravel() - hessian @ theta.ravel()
        aim = minimize_quadratic(hessian, linear, l1.ravel(), theta.ravel()).reshape(theta.shape)
        step = aim - theta
        promised = float((gradient * step).sum() + (l1 * (np.abs(aim) - np.abs(theta))).sum())
        # Scores are linear in the step, so trying shorter steps needs no further pass over the design.
        by_lo, by_hi = rows.ends(step)
        size = _longest(rows, theta, step, hi - lo, by_hi - by_lo, everywhere)
        least = 2.0 ** -(HALVINGS_EVERYWHERE if everywhere else HALVINGS)
        while size > least:
            moved = theta + size * step
            reached = rows.loss(lo + size * by_lo, hi + size * by_hi) + _penalty(moved, l1, l2)
            if reached <= value + 1e-4 * size * promised + SLACK * (1 + abs(value)):
                break
            size /= 2
        else:
            break
        theta, lo, hi, value = moved, lo + size * by_lo, hi + size * by_hi, reached
        steps += 1
        if -promised < SLACK * (1 + abs(value)):  # what it gained is below rounding, so the conditions must gain
            bound = kkt / 2
    return Solution(theta=theta, kkt=kkt, steps=steps)


def kkt_residual(gradient: Floats, theta: Floats, l1: Floats) -> float:
    """By how much 0 lies outside the subdifferential, at worst.

    Where theta is 0 the gradient may be as large as l1 in size; elsewhere it must be -l1 sign(theta).
    """
    missed = np.where(theta == 0, np.abs(gradient) - l1, np.abs(gradient + l1 * np.sign(theta)))
    return max(0.0, float(missed.max()))


def _penalty(theta: Floats, l1: Floats, l2: Floats) -> float:
    return float((l1 * np.abs(theta)).sum() + (l2 * theta**2).sum() / 2)


def _longest(rows: Rows, theta: Floats, step: Floats, gap: Floats, by_gap: Floats, everywhere: bool) -> float:
    """The step's length, 1 or less: short of where the first gap closes."""
    reach = _closes(gap, by_gap)
    if everywhere:
        reach = min(reach, _closes(rows.gaps(theta).ravel(), rows.gaps(step).ravel()))
    return min(1.0, INSIDE * reach)


def _closes(gap: Floats, by_gap: Floats) -> float:
    shrinking = by_gap < 0
    return float(np.min(gap[shrinking] / -by_gap[shrinking], initial=np.inf))
