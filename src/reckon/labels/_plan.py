"""A plan: what to buy, what it should bring, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reckon.labels._frontier import RegimeName
from reckon.labels._sources import LabelSource, Purchase, purchase_cost

PURE = 0.05  # a regime is mixed if each kind gets at least this share of the money


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number with its 95% bootstrap interval; without draws the bounds are NaN."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way of spending the budget."""

    name: str  # "plan", "all NAME" or "mixture"
    regime: RegimeName
    n_weak: int
    n_gold: int
    cost: float
    predicted: Interval  # accuracy of the model trained on it


@dataclass(frozen=True, kw_only=True)
class Margin:
    """What one more unit of money would buy."""

    source: str  # whose labels
    labels: float  # how many
    gain: float  # the accuracy they add


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to buy for a budget, and how sure that is."""

    budget: float
    weak: LabelSource
    gold: LabelSource
    n_weak: int
    n_gold: int
    cost: float
    predicted: Interval  # accuracy of the model trained on it
    regime: RegimeName
    support: float  # share of bootstrap draws in which this regime is the best; NaN without draws
    exchange: Interval  # gold labels that one more weak label is worth at this purchase
    weak_limit: Interval  # weak labels beyond which money buys more in gold
    options: tuple[Option, ...]  # this and the other ways, all of one kind included, the best first
    runner_up: Option | None  # the best that is of another regime; None = the budget allows none
    lead: Interval | None  # accuracy of the plan less the runner-up's
    margin: Margin | None  # None = there are no more labels to buy
    warnings: tuple[str, ...]

    @property
    def weak_share(self) -> float:
        """Share of the money spent that goes to weak labels."""
        return self.weak.cost(self.n_weak) / self.cost

    @property
    def clear(self) -> bool:
        """Whether the interval of the lead over the runner-up lies above 0."""
        return self.lead is None or self.lead.low > 0

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to buy, why, what it should bring, and what else the money could do, without the warnings."""
        bought = purchase_text((self.n_weak, self.n_gold), self.weak, self.gold)
        spent = f"{self.cost:g}, of which {100 * self.weak_share:.0f}% on {self.weak.name}"
        sure = "" if math.isnan(self.support) else f" {100 * self.support:.0f}% of bootstrap draws agree."
        told = [
            f"For {self.budget:g}, buy {bought} ({spent}).",
            f"Expected accuracy {span(self.predicted)}.",
            f"{_WHY[self.regime]}{sure}",
            _margin(self),
            _limit(self),
        ]
        if self.runner_up is not None and self.lead is not None:
            other = purchase_text((self.runner_up.n_weak, self.runner_up.n_gold), self.weak, self.gold)
            lead = self.lead
            range_ = "" if math.isnan(lead.low) else f" ({points(-lead.high)} to {points(-lead.low)})"
            told.append(f"Runner-up: {other}, {points(-lead.value)} points{range_}.")
        return tuple(told)

    def __str__(self) -> str:
        """The plan in words, a table of the ways to spend the money, and warnings."""
        width = max(len(option.name) for option in self.options)
        head = f"  {'':{width}}  {self.weak.name:>8}  {self.gold.name:>8}  {'cost':>9}  accuracy"
        rows = [
            f"  {one.name:{width}}  {one.n_weak:>8,}  {one.n_gold:>8,}  {one.cost:>9g}  {span(one.predicted)}"
            for one in self.options
        ]
        warnings = ["", *(f"Warning: {told}" for told in self.warnings)] if self.warnings else []
        return "\n".join([*self.sentences, "", head, *rows, *warnings])


def regime_of(bought: tuple[int, int], weak: LabelSource, gold: LabelSource) -> RegimeName:
    """The regime that a purchase belongs to, by where its money goes."""
    share = weak.cost(bought[0]) / purchase_cost(bought, weak, gold)
    return "quality-dominant" if share < PURE else "quantity-dominant" if share > 1 - PURE else "mixed"


def purchase_text(bought: tuple[int, int], weak: LabelSource, gold: LabelSource) -> str:
    """A purchase in words: "914 weak and 164 gold labels"."""
    n_weak, n_gold = Purchase(*bought)
    parts = [f"{n:,} {source.name}" for n, source in ((n_weak, weak), (n_gold, gold)) if n]
    return f"{' and '.join(parts)} label{'' if n_weak + n_gold == 1 else 's'}"


def points(value: float) -> str:
    """A difference of accuracies in points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def span(interval: Interval) -> str:
    """An accuracy in percent with its interval, where there is one."""
    told = f"{100 * interval.value:.1f}%"
    return told if math.isnan(interval.low) else f"{told} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


_WHY = {
    "quantity-dominant": "Quantity-dominant: the gold labels this money buys are too few to learn from.",
    "mixed": "Mixed: weak labels first, then gold ones, beat either alone.",
    "quality-dominant": "Quality-dominant: the gold labels this money buys are enough, and weak ones add nothing.",
}


def _margin(plan: Plan) -> str:
    more = plan.margin
    if more is None:
        return "There are no more labels to buy."
    gain = points(more.gain) if more.gain >= 5e-4 else f"+{100 * more.gain:.2g}"
    labels = f"{more.labels:.3g} {more.source} label{'' if more.labels == 1 else 's'}"
    return f"One more unit of money buys {labels} and {gain} points of accuracy."


def _limit(plan: Plan) -> str:
    limit, weak, gold = plan.weak_limit, plan.weak.name, plan.gold.name
    worth = f"one more {weak} label is worth {plan.exchange.value:.2g} {gold} labels."
    # The limit knows no pool, no fixed cost, no least number of gold labels and no rounding: where gold is sold out, or
    # the plan lies beyond it, one of these decided.
    most = math.ceil(limit.value)
    sold_out = plan.gold.pool is not None and plan.n_gold >= plan.gold.pool
    if sold_out or plan.n_weak > most:
        return f"Here {worth}"
    if not most:
        return f"At these prices no {weak} label is worth its money."
    told = f"{most:,}"
    if not math.isnan(limit.low):
        told += f" ({math.ceil(limit.low):,} to {math.ceil(limit.high):,})"
    return f"Beyond {told} {weak} labels money buys more in {gold} ones; here {worth}"
