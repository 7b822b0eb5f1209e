"""What labels produce: accuracy as a function of how many weak and how many gold labels are trained on.

The paper measures and gives no law; this one is ours (specification label-budget, 2.7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from reckon.errors import InputError
from reckon.labels._frontier import cells
from reckon.labels._measures import Floats
from reckon.labels._scipy import robust_least_squares
from reckon.labels._sources import LabelSource, Purchase, check_budget
from reckon.labels._trials import Trial

Law: TypeAlias = Literal["hill", "power"]
PARAMETERS = 5
_SCALE = 0.02  # of accuracy: residuals above it count less than squared
# log r, log s, A, log k, log h: where weak priors pull a parameter the pilot says nothing about, and the bounds.
_CENTER = np.array([math.log(0.5), math.log(500.0), 0.85, math.log(200.0), 0.0])
_SPREAD = np.array([1.0, 1.5, 0.1, 1.5, 0.5])
_LOW = np.array([math.log(1e-4), math.log(1.0), 0.501, math.log(0.5), math.log(0.2)])
_HIGH = np.array([0.0, math.log(1e7), 0.9999, math.log(1e6), math.log(5.0)])
_MOST_PURCHASES = 200_000  # looked through one by one; larger budgets are looked through in steps


@dataclass(frozen=True, kw_only=True)
class Production:
    """Gold-equivalent labels N = n_gold + r n_weak / (1 + n_weak / s), and accuracy as a curve of N.

    hill: 1/2 + (A - 1/2) u / (1 + u) with u = (N / k)^h. power: 1/2 + (A - 1/2) (1 - (1 + N / k)^-h).

    Raises:
        InputError: a parameter out of its range.
    """

    rate: float  # r: gold labels that the first weak label is worth, above 0
    saturation: float  # s: weak labels at which half of r * s, all they can ever be worth, is reached; above 0
    ceiling: float  # A: accuracy with endless gold, in (1/2, 1)
    half: float  # k, above 0; hill: gold labels to half of the way
    steepness: float  # h, above 0
    law: Law = "hill"

    def __post_init__(self) -> None:
        if min(self.rate, self.saturation, self.half, self.steepness) <= 0 or not 0.5 < self.ceiling < 1:
            raise InputError(f"{self}: all parameters must be above 0 and the ceiling between 1/2 and 1.")
        if self.law not in ("hill", "power"):
            raise InputError(f"the law is {self.law!r}, but must be 'hill' or 'power'.")

    def equivalents(self, n_weak: Floats | float, n_gold: Floats | float) -> Floats:
        """N, gold labels worth as much as both kinds together; arrays broadcast."""
        weak = np.asarray(n_weak, dtype=np.float64)
        return np.asarray(n_gold + self.rate * weak / (1 + weak / self.saturation), dtype=np.float64)

    def curve(self, equivalents: Floats | float) -> Floats:
        """Accuracy at N, elementwise; 1/2 at 0."""
        share = np.asarray(equivalents, dtype=np.float64) / self.half
        if self.law == "power":
            return np.asarray(0.5 + (self.ceiling - 0.5) * (1 - (1 + share) ** -self.steepness))
        u = share**self.steepness
        return np.asarray(0.5 + (self.ceiling - 0.5) * u / (1 + u))

    def accuracy(self, n_weak: Floats | float, n_gold: Floats | float) -> Floats:
        """Expected accuracy in [1/2, 1), elementwise."""
        return self.curve(self.equivalents(n_weak, n_gold))

    def exchange(self, n_weak: float) -> float:
        """Marginal rate of substitution: gold labels that one more weak label is worth, after `n_weak` of them."""
        return self.rate / (1 + n_weak / self.saturation) ** 2

    def weak_limit(self, weak: LabelSource, gold: LabelSource) -> float:
        """n_w*: weak labels beyond which a unit of money buys more in gold. 0 = gold is better from the first on."""
        worth = self.rate * gold.price / weak.price
        return self.saturation * (math.sqrt(worth) - 1) if worth > 1 else 0.0


def best_purchase(
    production: Production,
    budget: float,
    weak: LabelSource,
    gold: LabelSource,
    *,
    min_gold: int = 10,
    shares: tuple[float, float] = (0.0, 1.0),
) -> Purchase | None:
    """The purchase of whole labels that is worth most, by looking through all of them.

    For each number of gold labels, weak ones take what is left of the money and the pool. Beside weak labels there are
    at least `min_gold` gold ones or none: fewer wreck what the weak ones taught.

    Args:
        production: the law.
        budget: money, above 0.
        weak: price, fixed cost and pool.
        gold: price, fixed cost and pool.
        min_gold: 0 or more.
        shares: the least and the largest share of the money spent that may go to weak labels.

    Returns:
        The purchase; None where no purchase of at least one label has such a share.

    Raises:
        InputError: the budget is not above 0.
    """
    check_budget(budget)
    most = gold.affordable(budget)
    n_gold = np.unique(np.linspace(0, most, min(most, _MOST_PURCHASES) + 1).round())
    on_gold = gold.price * n_gold + gold.fixed_cost * (n_gold > 0)
    n_weak = np.maximum(0, np.floor((budget - on_gold - weak.fixed_cost) / weak.price + 1e-9))
    if weak.pool is not None:
        n_weak = np.minimum(n_weak, weak.pool)
    n_weak = np.where((n_gold > 0) & (n_gold < min_gold), 0, n_weak)
    on_weak = weak.price * n_weak + weak.fixed_cost * (n_weak > 0)
    share = on_weak / np.maximum(on_weak + on_gold, np.finfo(np.float64).tiny)
    allowed = (n_weak + n_gold > 0) & (share >= shares[0]) & (share <= shares[1])
    if not allowed.any():
        return None
    best = int(np.argmax(np.where(allowed, production.equivalents(n_weak, n_gold), -1.0)))
    return Purchase(int(n_weak[best]), int(n_gold[best]))


def indifference_curves(
    production: Production, levels: Sequence[float], n_weak: Sequence[float]
) -> dict[float, list[tuple[float, float]]]:
    """Purchases that are worth the same: for each level of N the points (n_weak, n_gold) with n_gold of 0 or more.

    Args:
        production: the law.
        levels: gold-equivalent labels, above 0.
        n_weak: where along the axis of weak labels.

    Raises:
        InputError: a level that is not above 0.
    """
    found = {}
    for level in levels:
        if level <= 0:
            raise InputError(f"a level of {level:g} gold-equivalent labels was asked for, but must be above 0.")
        gold = [(weak, level - float(production.equivalents(weak, 0.0))) for weak in n_weak]
        found[level] = [(weak, n) for weak, n in gold if n >= 0]
    return found


def fit_production(
    trials: Sequence[Trial],
    *,
    law: Law = "hill",
    max_rate: float = 1.0,
    prior: float = 0.002,
    start: Production | None = None,
) -> Production:
    """Fits the law to trials by nonlinear least squares under the soft L1 loss, from several starts.

    Every trial is a row, so a cell counts by its seeds. `max_rate` caps what a weak label can be worth: fitted freely,
    a few noisy rows may say that a weak label is worth more than a gold one, and a plan that believes it loses.

    Args:
        trials: `check_pilot` says which will do.
        law: the curve.
        max_rate: the largest exchange rate r, above 0.
        prior: how much accuracy a parameter's distance of one spread from its usual place is worth; 0 = no priors.
        start: begin here alone, as the draws of a bootstrap do.

    Raises:
        InputError: `max_rate` or `prior` out of range.
        MissingError: SciPy is not installed.
    """
    if not 0 < max_rate < math.inf or prior < 0:
        raise InputError(f"max_rate is {max_rate:g} and prior {prior:g}; the first is above 0, the second 0 or more.")
    n_weak = np.array([trial.n_weak for trial in trials], dtype=np.float64)
    n_gold = np.array([trial.n_gold for trial in trials], dtype=np.float64)
    reached = np.array([trial.accuracy for trial in trials])
    low, high = _LOW.copy(), _HIGH.copy()
    high[0] = math.log(max_rate)
    low[0] = min(low[0], high[0] - 1)

    def residuals(place: Floats) -> Floats:
        predicted = _production(place, law).accuracy(n_weak, n_gold)
        return np.concatenate([predicted - reached, prior * (place - _CENTER) / _SPREAD])

    starts = _starts(reached) if start is None else [_place(start)]
    found = [robust_least_squares(residuals, np.clip(one, low, high), low, high, _SCALE) for one in starts]
    return _production(min(found, key=lambda one: one[1])[0], law)


def rmse(production: Production, trials: Sequence[Trial]) -> float:
    """Root mean squared error of a fit, in accuracy."""
    squares = [(float(production.accuracy(one.n_weak, one.n_gold)) - one.accuracy) ** 2 for one in trials]
    return math.sqrt(sum(squares) / len(squares))


def check_pilot(trials: Sequence[Trial]) -> None:
    """Raises InputError for trials that no plan can be made of: the message says what is wrong or missing."""
    for row, trial in enumerate(trials, 1):
        where = f"the pilot's trial {row} ({trial.n_weak} weak, {trial.n_gold} gold)"
        if trial.n_weak < 0 or trial.n_gold < 0 or not trial.n_weak + trial.n_gold:
            raise InputError(f"{where} has no labels, or fewer than 0. Drop it.")
        if not 0 <= trial.accuracy <= 1:
            told = f"{where} has the accuracy {trial.accuracy:g}"
            raise InputError(f"{told}. Give a share between 0 and 1: 0.78, not 78.")
    bought = {cell.bought for cell in cells(trials)}
    for kind, place, what in (("gold", 1, "what a weak label is worth in gold"), ("weak", 0, "what weak labels add")):
        if not any(purchase[place] for purchase in bought):
            raise InputError(
                f"the pilot has no trial with {kind} labels, so it cannot tell {what}. Train on some: n_weak of 0, "
                "100, 400, 1600 by n_gold of 0, 32, 128 is a good pilot."
            )
    if len(bought) < PARAMETERS:
        raise InputError(
            f"the pilot has {len(bought)} different purchases, but the law has {PARAMETERS} parameters. Give at least "
            f"{PARAMETERS}, better the 11 of n_weak of 0, 100, 400, 1600 by n_gold of 0, 32, 128."
        )


def _production(place: Floats, law: Law) -> Production:
    rate, saturation, ceiling, half, steepness = place
    return Production(
        rate=math.exp(rate),
        saturation=math.exp(saturation),
        ceiling=float(ceiling),
        half=math.exp(half),
        steepness=math.exp(steepness),
        law=law,
    )


def _place(one: Production) -> Floats:
    return np.array(
        [math.log(one.rate), math.log(one.saturation), one.ceiling, math.log(one.half), math.log(one.steepness)]
    )


def _starts(reached: Floats) -> list[Floats]:
    """Weak labels worth much or little, saturating early or late, and a learner that is quick or slow."""
    ceiling = min(0.98, float(reached.max()) + 0.03)
    return [
        np.array([math.log(rate), math.log(saturation), max(0.52, ceiling), math.log(half), 0.0])
        for rate in (0.05, 0.6)
        for saturation in (100.0, 3000.0)
        for half in (40.0, 400.0)
    ]
