"""What labels cost, and which purchases a budget allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from reckon.errors import InputError

if TYPE_CHECKING:
    from reckon.labels._few_shot import FewShot  # which needs Purchase

_ROUNDING = 1e-9  # of a label: 0.2 * 5 and the like must not lose one


@dataclass(frozen=True)
class LabelSource:
    """Where labels of one kind come from, and what they cost.

    Raises:
        InputError: no name; a price that is not above 0; a fixed cost or a pool below 0.
    """

    name: str
    price: float  # of one label, in any unit of money; all sources in the same
    fixed_cost: float = 0.0  # paid once, with the first label: rules that must be written, gold to train a labeler on
    pool: int | None = None  # labels there are; None = as many as one likes

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("a source of labels has no name. Give it one: LabelSource('weak', price=0.1).")
        if not 0 < self.price < math.inf:
            raise InputError(
                f"the price of {self.name!r} is {self.price:g}, but must be above 0: if labels cost nothing, take all "
                "of them, and plan with the price of whatever is scarce."
            )
        if not 0 <= self.fixed_cost < math.inf:
            raise InputError(f"the fixed cost of {self.name!r} is {self.fixed_cost:g}, but must be 0 or more.")
        if self.pool is not None and self.pool < 0:
            raise InputError(f"the pool of {self.name!r} is {self.pool}, but must be 0 or more.")

    def cost(self, labels: int) -> float:
        """What that many labels cost, the fixed cost included; none cost nothing."""
        return self.price * labels + self.fixed_cost if labels else 0.0

    def affordable(self, money: float) -> int:
        """How many labels the money buys, at most the pool."""
        most = max(0, whole((money - self.fixed_cost) / self.price))
        return most if self.pool is None else min(most, self.pool)


class Purchase(NamedTuple):
    """How many labels of each kind."""

    n_weak: int
    n_gold: int


def purchase_cost(bought: tuple[int, int], weak: LabelSource, gold: LabelSource) -> float:
    """What (n_weak, n_gold) cost: every label counts, also those that early stopping or a prompt takes."""
    return weak.cost(bought[0]) + gold.cost(bought[1])


def budget_grid(
    budgets: Sequence[float],
    fractions: Sequence[float],
    weak: LabelSource,
    gold: LabelSource,
    *,
    prefix: FewShot | None = None,
) -> list[Purchase]:
    """The purchases to compare: each budget, divided in each way (Mallen & Belrose 2024, arXiv:2410.13215).

    Gold takes the whole labels of its share, and weak labels take what is left, so rounding never costs more than one
    weak label. A share too small for one gold label gives a purchase of weak labels only.

    Args:
        budgets: money, above 0.
        fractions: the share of it that is meant for weak labels, in [0, 1].
        weak: the cheap source.
        gold: the trusted one.
        prefix: what `run_grid` is to put in front of every text. Its examples are paid first, and the rest is divided,
            so that `run_grid` charges no more than the budget.

    Returns:
        The distinct purchases of at least one label, in the order of budgets and fractions.

    Raises:
        InputError: a budget or fraction out of its range.
    """
    found: dict[Purchase, None] = {}
    shown = Purchase(0, 0) if prefix is None else prefix.beside((0, 0))
    for budget in budgets:
        check_budget(budget)
        rest = budget - purchase_cost(shown, weak, gold)
        for fraction in fractions:
            if not 0 <= fraction <= 1:
                raise InputError(f"a weak share of {fraction:g} was asked for, but a share lies between 0 and 1.")
            # The examples count in what can be afforded: a fixed cost is paid once, and a pool holds them too.
            n_gold = max(0, gold.affordable((1 - fraction) * rest + gold.cost(shown.n_gold)) - shown.n_gold)
            for_weak = budget - gold.cost(n_gold + shown.n_gold)
            n_weak = max(0, weak.affordable(for_weak) - shown.n_weak) if fraction > 0 else 0
            if n_weak or n_gold:
                found[Purchase(n_weak, n_gold)] = None
    return list(found)


def check_budget(budget: float) -> None:
    """Raises InputError unless the budget is a sum of money above 0."""
    if not 0 < budget < math.inf:
        raise InputError(f"the budget is {budget:g}, but must be a sum of money above 0.")


def whole(amount: float) -> int:
    """The whole labels in an amount, forgiving what floats lose."""
    return math.floor(amount + _ROUNDING)
