"""From a pilot to a plan: how many labels of each kind to buy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from reckon.errors import InputError
from reckon.labels._plan import PURE, Interval, Margin, Option, Plan, purchase_text, regime_of
from reckon.labels._production import Law, Production, best_purchase, check_pilot, fit_production, rmse
from reckon.labels._sources import LabelSource, Purchase, budget_grid, check_budget, purchase_cost
from reckon.labels._surface import Surface, fit_surface
from reckon.labels._trials import Trial

REACH = 4.0  # times the pilot's largest N: beyond it a plan is a guess and has to be asked for
_POOR_FIT = 0.03  # of accuracy
_SURE = 0.8  # share of bootstrap draws that must agree on the regime
_AT_CAP = 0.98  # of the largest exchange rate
_MARGIN = 0.005  # of accuracy: what is ahead by less is as good as even
_FARTHER = 1.1  # times the pilot's largest N: a plan beyond it says so
_NEAR = 2.0  # times the pilot's counts: farther out a Gaussian process knows nothing


class BudgetPlanner:
    """Plans purchases of weak and gold labels by a law of production, fitted to a pilot.

    Args:
        weak: the cheap source, whose labels may be wrong.
        gold: the trusted one.
        law: the curve of accuracy over gold-equivalent labels.
        max_rate: the most gold labels a weak one may be worth.
        min_gold: beside weak labels at least so many gold ones, or none.
        draws: of the bootstrap; 0 = no intervals.
        seed: of its random numbers.

    Raises:
        InputError: a number out of its range.
    """

    def __init__(
        self,
        weak: LabelSource,
        gold: LabelSource,
        *,
        law: Law = "hill",
        max_rate: float = 1.0,
        min_gold: int = 10,
        draws: int = 200,
        seed: int = 0,
    ) -> None:
        if weak.name == gold.name:
            raise InputError(f"both sources are called {weak.name!r}. Give them different names.")
        if draws < 0 or min_gold < 0:
            raise InputError(f"draws is {draws} and min_gold {min_gold}; both must be 0 or more.")
        self.weak, self.gold = weak, gold
        self._law, self._cap, self._min_gold = law, max_rate, min_gold
        self._draws, self._seed = draws, seed
        self._fitted: tuple[Production, list[Production], Surface] | None = None
        self.trials: tuple[Trial, ...] = ()

    def fit(self, trials: Sequence[Trial]) -> BudgetPlanner:
        """Learns from a pilot, and returns itself.

        The bootstrap draws trials, not test examples: repeat the pilot with two or three seeds.

        Raises:
            InputError: a pilot that no plan can be made of.
            MissingError: SciPy is not installed.
        """
        check_pilot(trials)
        # In an order of their own: a plan must not depend on how the file is sorted.
        rows = sorted(trials, key=lambda one: (one.n_weak, one.n_gold, one.seed, one.accuracy))
        best = fit_production(rows, law=self._law, max_rate=self._cap)
        rng = np.random.default_rng(self._seed)
        drawn = []
        for _ in range(self._draws):
            some = [rows[i] for i in rng.integers(len(rows), size=len(rows))]
            drawn.append(fit_production(some, law=self._law, max_rate=self._cap, start=best))
        self.trials, self._fitted = tuple(rows), (best, drawn, fit_surface(rows))
        return self

    @property
    def production(self) -> Production:
        """The fitted law."""
        return self._ready()[0]

    def plan(self, budget: float, *, spent: float = 0.0, allow_extrapolation: bool = False) -> Plan:
        """The purchase worth most, compared with all gold and all weak.

        Args:
            budget: money, above 0.
            spent: of it, on labels that cannot be trained on: the test set, or a pilot that is thrown away.
            allow_extrapolation: also where it is worth more than 4 times the pilot's largest purchase.

        Raises:
            InputError: nothing left to spend, or a plan far outside of the pilot.
        """
        check_budget(budget)
        if not 0 <= spent < budget:
            raise InputError(f"{spent:g} of the budget of {budget:g} are spent already, so there is nothing to plan.")
        money = budget - spent
        best, drawn, surface = self._ready()
        bought = self._best(best, money)
        if bought is None:
            raise InputError(f"{money:g} buys not one label of either kind. Raise the budget.")
        self._check_reach(best, bought, allow_extrapolation)
        options = self._options(best, drawn, money, bought)
        regime = regime_of(bought, self.weak, self.gold)
        rivals = [one for one in options if one.regime != regime]
        runner_up = rivals[0] if rivals else None
        lead = None if runner_up is None else self._lead(best, drawn, bought, runner_up)
        votes = [self._best(one, money) for one in drawn]
        agreeing = [vote is not None and regime_of(vote, self.weak, self.gold) == regime for vote in votes]
        support = sum(agreeing) / len(votes) if votes else math.nan
        return Plan(
            budget=budget,
            weak=self.weak,
            gold=self.gold,
            n_weak=bought.n_weak,
            n_gold=bought.n_gold,
            cost=purchase_cost(bought, self.weak, self.gold),
            predicted=self._predicted(best, drawn, bought),
            regime=regime,
            support=support,
            exchange=_interval(best.exchange(bought.n_weak), [one.exchange(bought.n_weak) for one in drawn]),
            weak_limit=_interval(self._limit(best), [self._limit(one) for one in drawn]),
            options=tuple(options),
            runner_up=runner_up,
            lead=lead,
            margin=self._margin(best, bought),
            warnings=(
                *self._doubts(best, bought),
                *_unclear(support, lead, runner_up, options),
                *self._second_opinion(surface, bought, rivals),
            ),
        )

    def along(self, money: float, shares: Sequence[float]) -> list[Option]:
        """What is expected if these shares of the money go to weak labels, for a picture; `min_gold` is not heeded.

        Args:
            money: to spend, above 0.
            shares: in [0, 1].

        Raises:
            InputError: a share or the money out of its range.
        """
        best, drawn, _ = self._ready()
        grid = [(share, budget_grid([money], [share], self.weak, self.gold)) for share in shares]
        return [self._option(f"{share:.0%}", best, drawn, bought[0]) for share, bought in grid if bought]

    def _ready(self) -> tuple[Production, list[Production], Surface]:
        if self._fitted is None:
            raise InputError("the planner has seen no pilot yet. Call fit(trials) first.")
        return self._fitted

    def _best(self, production: Production, money: float, shares: tuple[float, float] = (0.0, 1.0)) -> Purchase | None:
        return best_purchase(production, money, self.weak, self.gold, min_gold=self._min_gold, shares=shares)

    def _limit(self, production: Production) -> float:
        return production.weak_limit(self.weak, self.gold)

    def _options(self, best: Production, drawn: Sequence[Production], money: float, bought: Purchase) -> list[Option]:
        """The plan, all of each kind, and the best mixture, those that differ; the best first."""
        ways = {
            "plan": bought,
            f"all {self.gold.name}": Purchase(0, self.gold.affordable(money)),
            f"all {self.weak.name}": Purchase(self.weak.affordable(money), 0),
            "mixture": self._best(best, money, (PURE, 1 - PURE)),
        }
        found: dict[Purchase, Option] = {}
        for name, way in ways.items():
            if way is not None and way.n_weak + way.n_gold and way not in found:
                found[way] = self._option(name, best, drawn, way)
        return sorted(found.values(), key=lambda one: -one.predicted.value)

    def _option(self, name: str, best: Production, drawn: Sequence[Production], way: Purchase) -> Option:
        return Option(
            name=name,
            regime=regime_of(way, self.weak, self.gold),
            n_weak=way.n_weak,
            n_gold=way.n_gold,
            cost=purchase_cost(way, self.weak, self.gold),
            predicted=self._predicted(best, drawn, way),
        )

    def _predicted(self, best: Production, drawn: Sequence[Production], way: Purchase) -> Interval:
        return _interval(float(best.accuracy(*way)), [float(one.accuracy(*way)) for one in drawn])

    def _lead(self, best: Production, drawn: Sequence[Production], bought: Purchase, other: Option) -> Interval:
        def ahead(one: Production) -> float:
            return float(one.accuracy(*bought) - one.accuracy(other.n_weak, other.n_gold))

        return _interval(ahead(best), [ahead(one) for one in drawn])

    def _margin(self, best: Production, bought: Purchase) -> Margin | None:
        """What one more unit of money goes to: of the kinds that are bought and not sold out, to the one worth more."""
        kinds = [(self.weak, bought.n_weak, best.exchange(bought.n_weak)), (self.gold, bought.n_gold, 1.0)]
        left = [kind for kind in kinds if kind[0].pool is None or kind[1] < kind[0].pool]
        if not left:
            return None
        source, _, rate = max(left, key=lambda kind: (kind[1] > 0, kind[2] / kind[0].price))
        worth = float(best.equivalents(*bought))
        gain = float(best.curve(worth + rate / source.price) - best.curve(worth))
        return Margin(source=source.name, labels=1 / source.price, gain=gain)

    def _check_reach(self, best: Production, bought: Purchase, allowed: bool) -> None:
        worth, seen = float(best.equivalents(*bought)), self._seen(best)
        if worth > REACH * seen and not allowed:
            raise InputError(
                f"{purchase_text(bought, self.weak, self.gold)} are worth {worth:,.0f} gold labels, and the pilot's "
                f"largest purchase {seen:,.0f}: more than {REACH:g} times as far is a guess. Plan a smaller budget, "
                "enlarge the pilot, or allow extrapolation."
            )

    def _seen(self, best: Production) -> float:
        return max(float(best.equivalents(one.n_weak, one.n_gold)) for one in self.trials)

    def _doubts(self, best: Production, bought: Purchase) -> list[str]:
        """What is wrong with the pilot or the fit."""
        told = []
        if len({one.seed for one in self.trials}) < 2:
            told.append("the pilot has one seed, so the intervals are too narrow. Repeat it with two more.")
        error = rmse(best, self.trials)
        if error > _POOR_FIT:
            told.append(
                f"the law misses the pilot by {100 * error:.1f} points (root mean square): it may not hold here."
            )
        if best.rate > _AT_CAP * self._cap:
            told.append(
                f"the fit stands where one {self.weak.name} label is worth {self._cap:g} of {self.gold.name}, the most "
                "that is allowed: the pilot hardly tells what it is worth."
            )
        worth, seen = float(best.equivalents(*bought)), self._seen(best)
        if worth > _FARTHER * seen:
            told.append(f"the plan reaches {worth / seen:.1f} times as far as the pilot's largest purchase.")
        return told

    def _second_opinion(self, surface: Surface, bought: Purchase, rivals: Sequence[Option]) -> list[str]:
        """Where a Gaussian process over the pilot prefers another way; not asked far outside of the pilot."""
        most_weak = _NEAR * max(one.n_weak for one in self.trials)
        most_gold = _NEAR * max(one.n_gold for one in self.trials)
        near = [one for one in rivals if one.n_weak <= most_weak and one.n_gold <= most_gold]
        if bought.n_weak > most_weak or bought.n_gold > most_gold or not near:
            return []
        mine = surface.predict(*bought)[0]
        other, its = max(((one, surface.predict(one.n_weak, one.n_gold)[0]) for one in near), key=lambda pair: pair[1])
        if its <= mine + _MARGIN:
            return []
        way = purchase_text((other.n_weak, other.n_gold), self.weak, self.gold)
        return [
            f"a Gaussian process over the pilot, which knows no law, expects more of {way}: {100 * its:.1f}% against "
            f"{100 * mine:.1f}%."
        ]


def _unclear(support: float, lead: Interval | None, runner_up: Option | None, options: Sequence[Option]) -> list[str]:
    """What the pilot cannot tell apart, or what makes no difference."""
    told = []
    if lead is not None and runner_up is not None and lead.low <= 0:
        told.append(
            f"the pilot cannot tell the plan from the runner-up ({runner_up.name}): the interval of their difference "
            "covers 0. Take the simpler one, or add trials near both."
        )
    else:
        told += _simpler(options)
    if support < _SURE:
        told.append(f"only {100 * support:.0f}% of bootstrap draws agree on the regime.")
    return told


def _simpler(options: Sequence[Option]) -> list[str]:
    """A pure way that is as good as a plan of both kinds, of ways with the best first."""
    plan = next(one for one in options if one.name == "plan")
    pure = [one for one in options if not (one.n_weak and one.n_gold)]
    if plan in pure or not pure:
        return []
    ahead = plan.predicted.value - pure[0].predicted.value
    if ahead > _MARGIN:
        return []
    return [
        f"the plan should be ahead of {pure[0].name} by {100 * ahead:.2g} points, which is next to nothing. Take "
        f"{pure[0].name}, which is simpler."
    ]


def _interval(value: float, drawn: Sequence[float]) -> Interval:
    if not drawn:
        return Interval(value=value, low=math.nan, high=math.nan)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value=value, low=float(low), high=float(high))
