"""What a table of trials says: the frontier of cost and accuracy, the best within a budget, and the regime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from reckon.errors import InputError
from reckon.labels._measures import Floats
from reckon.labels._sources import Purchase, check_budget
from reckon.labels._trials import Trial

RegimeName: TypeAlias = Literal["quantity-dominant", "mixed", "quality-dominant"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A purchase and its mean over seeds."""

    bought: Purchase
    cost: float
    accuracy: float
    error: float  # standard error over seeds; NaN = one seed
    by_seed: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class Regime:
    """Which way of spending a budget is best, and by how much, over seeds."""

    name: RegimeName
    best: Purchase
    rival: Purchase  # of a mixture the better pure way, of a pure way the other one
    difference: float  # accuracy of the best less its rival's, mean over the seeds both have
    low: float  # 95% interval by Student's t; infinite with one seed
    high: float

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """A sentence."""
        told = f"{100 * self.difference:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"
        return f"{self.name if self.decided else f'undecided, perhaps {self.name}'}: {told}"


def cells(trials: Sequence[Trial]) -> list[Cell]:
    """Trials by purchase, cheapest first.

    Raises:
        InputError: no trial, or the same purchase and seed twice.
    """
    if not trials:
        raise InputError("there is no trial to look at. Run a grid, or read a pilot's table.")
    found: dict[Purchase, dict[int, Trial]] = {}
    for trial in trials:
        there = found.setdefault(Purchase(trial.n_weak, trial.n_gold), {})
        if trial.seed in there:
            raise InputError(
                f"{trial.n_weak} weak and {trial.n_gold} gold labels with seed {trial.seed} are there twice. Give "
                "every repetition a seed of its own."
            )
        there[trial.seed] = trial
    made = []
    for bought, by_seed in found.items():
        values = np.array([trial.accuracy for trial in by_seed.values()])
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
        cost = next(iter(by_seed.values())).cost
        made.append(
            Cell(
                bought=bought,
                cost=cost,
                accuracy=float(values.mean()),
                error=error,
                by_seed={seed: trial.accuracy for seed, trial in by_seed.items()},
            )
        )
    return sorted(made, key=lambda cell: (cell.cost, -cell.accuracy, cell.bought))


def pareto_frontier(
    points: Sequence[tuple[float, float]], *, cost_rtol: float = 0.05, atol: float = 0.002
) -> list[tuple[float, float]]:
    """The points that nothing as cheap beats (Mallen & Belrose 2024, figure 3), cheapest first, strictly rising.

    A point counts if its accuracy is more than `atol` above the last one's and no other point whose cost is within
    `cost_rtol` of its own is as accurate. Of equally accurate points the cheaper one stays; the released code lets them
    remove each other.

    Args:
        points: (cost, accuracy), without NaN.
        cost_rtol: relative difference of costs that is no difference, 0 or more.
        atol: gain of accuracy that is no gain, 0 or more.

    Raises:
        InputError: no point, or a number is NaN.
    """
    if not points or any(math.isnan(value) for point in points for value in point):
        raise InputError("pareto_frontier needs points of cost and accuracy, none of them NaN.")
    ordered = sorted(set(points), key=lambda point: (point[0], -point[1]))
    kept = [ordered[0]]
    for cost, reached in ordered[1:]:
        near = [other for other in ordered if abs(other[0] - cost) <= cost_rtol * cost]
        beaten = any(other[1] > reached or (other[1] == reached and other[0] < cost) for other in near)
        if reached > kept[-1][1] + atol and not beaten:
            kept.append((cost, reached))
    return kept


def best_within(trials: Sequence[Trial], budget: float) -> Cell:
    """The most accurate purchase that costs at most `budget`.

    The best of many cells on the data they are judged by looks better than it is: repeat it with other seeds.

    Raises:
        InputError: nothing is that cheap, or the trials carry no costs.
    """
    check_budget(budget)
    cheap = [cell for cell in cells(trials) if cell.cost <= budget * (1 + 1e-9)]
    if not cheap:
        raise InputError(f"no trial costs {budget:g} or less. Raise the budget, or give trials their costs.")
    return max(cheap, key=lambda cell: cell.accuracy)


def regime(trials: Sequence[Trial], budget: float, *, margin: float = 0.005, tolerance: float = 0.05) -> Regime:
    """Which of all weak, a mixture and all gold is best at a budget, by trials that spend it.

    A mixture must beat both pure ways by more than `margin`; the paper names the three regimes and gives no rule, so
    this one is ours. The best mixture is the best of several, which favors it: the interval does not know of that.

    Args:
        trials: with their costs; those of a seed are paired.
        budget: money.
        margin: of accuracy.
        tolerance: a trial spends the budget if it costs at most this share less.

    Raises:
        InputError: no trial, all weak or all gold, spends the budget; no seed has both ways.
    """
    check_budget(budget)
    at = [cell for cell in cells(trials) if (1 - tolerance) * budget <= cell.cost <= budget * (1 + 1e-9)]
    weak = [cell for cell in at if cell.bought.n_gold == 0]
    gold = [cell for cell in at if cell.bought.n_weak == 0]
    mixed = [cell for cell in at if cell.bought.n_weak and cell.bought.n_gold]
    if not weak or not gold:
        missing = "weak" if not weak else "gold"
        raise InputError(
            f"no trial spends {budget:g} on {missing} labels alone, so the regime cannot be told. Add that purchase."
        )

    def top(group: list[Cell]) -> Cell:
        return max(group, key=lambda cell: cell.accuracy)

    pure = sorted([top(gold), top(weak)], key=lambda cell: -cell.accuracy)
    name: RegimeName = "quality-dominant" if pure[0].bought.n_weak == 0 else "quantity-dominant"
    best, rival = pure
    if mixed and top(mixed).accuracy > pure[0].accuracy + margin:
        name, best, rival = "mixed", top(mixed), pure[0]
    shared = sorted(best.by_seed.keys() & rival.by_seed.keys())
    if not shared:
        raise InputError(f"{best.bought} and {rival.bought} have no seed in common, so they cannot be compared.")
    change = np.array([best.by_seed[seed] - rival.by_seed[seed] for seed in shared])
    mean, half = float(change.mean()), _half_width(change)
    return Regime(name=name, best=best.bought, rival=rival.bought, difference=mean, low=mean - half, high=mean + half)


def _half_width(change: Floats) -> float:
    if len(change) < 2:
        return math.inf
    from reckon.labels._scipy import t_quantile

    return t_quantile(0.975, len(change) - 1) * float(change.std(ddof=1)) / math.sqrt(len(change))
