"""The law of production, its optimum, its fit, and the plans made of it."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from reckon.errors import InputError
from reckon.labels import (
    BudgetPlanner,
    Interval,
    LabelSource,
    Production,
    Trial,
    best_purchase,
    fit_production,
    fit_surface,
    indifference_curves,
    pilot_grid,
)

GOLD = LabelSource("gold", 1.0)
LAW = Production(rate=0.8, saturation=500.0, ceiling=0.9, half=150.0, steepness=1.1)


def weak(price, **more):
    return LabelSource("weak", price, **more)


def trials_of(law, grid=None, seeds=(0, 1), noise=0.0):
    """A pilot that the law made, with Gaussian noise."""
    rng = np.random.default_rng(0)
    return [
        Trial(
            n_weak=n_weak,
            n_gold=n_gold,
            seed=seed,
            accuracy=float(np.clip(law.accuracy(n_weak, n_gold) + noise * rng.standard_normal(), 0, 1)),
        )
        for seed, (n_weak, n_gold) in itertools.product(seeds, grid or pilot_grid())
    ]


@pytest.mark.parametrize(
    ("price", "limit"),
    [(0.1, 914.21), (0.01, 3972.14), (0.5, 132.46), (0.8, 0.0)],  # s (sqrt(r / p) - 1) with r = .8, s = 500
)
def test_where_weak_labels_stop_being_worth_their_money(price, limit):
    assert LAW.weak_limit(weak(price), GOLD) == pytest.approx(limit, abs=0.005)


def test_equivalents_curve_and_exchange_by_hand():
    assert float(LAW.equivalents(640, 0)) == pytest.approx(224.56, abs=0.005)  # .8 * 640 / 2.28
    assert float(LAW.equivalents(914.2136, 164.5786)) == pytest.approx(423.16, abs=0.005)
    assert float(LAW.equivalents(914.2136, 932.5786)) == pytest.approx(1191.16, abs=0.005)
    assert LAW.exchange(500) == pytest.approx(0.2)  # .8 / 2^2
    assert float(LAW.curve(150.0)) == pytest.approx(0.7)  # u = 1: half of the way to .9
    assert float(LAW.curve(0.0)) == 0.5
    power = dataclasses.replace(LAW, law="power", steepness=1.0)
    assert float(power.curve(150.0)) == pytest.approx(0.7)  # 1 - 1 / 2
    assert float(power.curve(450.0)) == pytest.approx(0.8)  # 1 - 1 / 4


@pytest.mark.parametrize(
    ("budget", "bought"),
    [
        (64, (640, 0)),
        # The optimum of real numbers is (914.2, 164.6). Of whole labels: 165 + .8 * 910 / 2.82 = 423.1560 beats
        # 164 + .8 * 920 / 2.84 = 423.1549.
        (256, (910, 165)),
        (1024, (910, 933)),
    ],
)
def test_the_best_purchase_of_the_specification(budget, bought):
    assert best_purchase(LAW, budget, weak(0.1), GOLD) == bought


laws = st.builds(
    Production,
    rate=st.floats(0.02, 1.0),
    saturation=st.floats(20, 5000),
    ceiling=st.floats(0.6, 0.99),
    half=st.floats(5, 2000),
    steepness=st.floats(0.4, 2.0),
)


@given(law=laws, budget=st.integers(3, 25), price=st.sampled_from([0.1, 0.25, 0.5, 1.0, 2.0]))
def test_no_whole_purchase_is_worth_more(law, budget, price):
    """All pairs of numbers, one by one, under the same rule for tiny gold stages."""
    most = max(
        g + law.rate * w / (1 + w / law.saturation)
        for g in range(budget + 1)
        for w in range(int((budget - g) / price + 1e-9) + 1)
        if w + g and not (w and 0 < g < 10)
    )
    found = best_purchase(law, budget, weak(price), GOLD)
    assert float(law.equivalents(*found)) == pytest.approx(most, rel=1e-12)
    assert found.n_weak * price + found.n_gold <= budget + 1e-6


@settings(max_examples=30)
@given(law=laws, budget=st.floats(50, 5000), price=st.floats(0.02, 0.9))
def test_the_optimum_is_that_of_a_solver(law, budget, price):
    """SLSQP on real numbers may be ahead by the roundings alone: a gold label and a weak one."""

    def worth(place):
        n_weak = place[0] * budget / price
        return -float(law.equivalents(n_weak, budget - price * n_weak))

    tried = [minimize(worth, [x], bounds=[(0, 1)], method="SLSQP") for x in (0.02, 0.3, 0.9)]
    best = max(-one.fun for one in tried)
    found = best_purchase(law, budget, weak(price), GOLD, min_gold=0)
    mine = float(law.equivalents(*found))
    assert mine <= best * (1 + 1e-5) + 1e-6
    assert mine >= best - 1 - law.rate


@given(law=laws, budget=st.floats(1, 3000), more=st.floats(0, 500), price=st.floats(0.05, 3))
def test_more_money_never_buys_less(law, budget, more, price):
    less, greater = (best_purchase(law, money, weak(price), GOLD) for money in (budget, budget + more))
    assert greater is not None
    if less is not None:
        assert float(law.accuracy(*greater)) >= float(law.accuracy(*less)) - 1e-12


@given(law=laws, budget=st.integers(2, 2000), price=st.sampled_from([0.125, 0.25, 0.5]))
def test_another_currency_changes_nothing(law, budget, price):
    same = best_purchase(law, 4 * budget, weak(4 * price), LabelSource("gold", 4.0))
    assert best_purchase(law, budget, weak(price), GOLD) == same


def test_extreme_prices():
    assert best_purchase(LAW, 100, weak(1e9), GOLD) == (0, 100)
    twin = dataclasses.replace(LAW, rate=1.0, saturation=1e7)
    assert best_purchase(twin, 100, weak(0.5), GOLD) == (200, 0)  # as good as gold, and cheaper


def test_fixed_costs_and_pools():
    assert best_purchase(LAW, 64, weak(0.1, fixed_cost=60.0), GOLD) == (0, 64)  # 40 weak ones are not worth 60
    assert best_purchase(LAW, 64, weak(0.1, pool=300), GOLD) == (300, 34)
    assert best_purchase(LAW, 256, weak(0.1), LabelSource("gold", 1.0, pool=20)) == (2360, 20)
    assert best_purchase(LAW, 0.05, weak(0.1), GOLD) is None


def test_there_is_no_gold_stage_of_a_few_labels():
    """n_w* is 182.8, so of 24 about 6 would go to gold. Of what is allowed, (140, 10) is worth 10 + 112 / 2.4 = 56.67,
    (240, 0) 192 / 3.4 = 56.47."""
    flat = dataclasses.replace(LAW, saturation=100.0)
    assert best_purchase(flat, 24, weak(0.1), GOLD) == (140, 10)
    assert best_purchase(flat, 24, weak(0.1), GOLD, min_gold=0).n_gold in (5, 6)
    assert best_purchase(flat, 12, weak(0.1), GOLD) == (120, 0)


def test_indifference_curves_keep_their_level():
    curves = indifference_curves(LAW, [100.0, 300.0], range(0, 2000, 100))
    assert set(curves) == {100.0, 300.0}
    for level, points in curves.items():
        assert points[0] == (0, level)
        assert all(float(LAW.equivalents(w, g)) == pytest.approx(level) for w, g in points)
        assert all(g >= 0 for _, g in points)
    # 100 = .8 w / (1 + w / 500) at w = 166.7: the curve has left the quadrant at 200.
    assert [w for w, _ in curves[100.0]] == [0, 100]
    with pytest.raises(InputError, match="a level of 0"):
        indifference_curves(LAW, [0.0], [1])


@pytest.mark.parametrize("law", ["hill", "power"])
def test_the_fit_finds_what_made_the_pilot(law):
    true = dataclasses.replace(LAW, law=law)
    grid = list(itertools.product((0, 30, 100, 400, 1600, 6400), (0, 16, 64, 256, 1024)))[1:]
    found = fit_production(trials_of(true, grid, seeds=(0,)), law=law, prior=0.0)
    for name in ("rate", "saturation", "ceiling", "half", "steepness"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=0.01), name


def test_a_weak_label_is_worth_at_most_the_cap():
    trials = trials_of(dataclasses.replace(LAW, rate=1.4), noise=0.002)
    assert fit_production(trials).rate <= 1 + 1e-9
    assert fit_production(trials, max_rate=5.0).rate == pytest.approx(1.4, rel=0.25)
    told = BudgetPlanner(weak(0.1), GOLD, draws=0).fit(trials).plan(64).warnings
    assert any("the pilot hardly tells what it is worth" in one for one in told)


def test_the_surface_is_scikit_learns():
    trials = trials_of(LAW, noise=0.01)
    mine = fit_surface(trials)
    y = np.array([one.accuracy for one in trials])
    x = np.log1p([[one.n_weak, one.n_gold] for one in trials]) / mine.scale
    kernel = ConstantKernel(mine.signal**2) * RBF(mine.lengths)
    theirs = GaussianProcessRegressor(kernel, alpha=mine.noise**2, optimizer=None).fit(x, y - y.mean())
    assert mine.evidence == pytest.approx(theirs.log_marginal_likelihood_value_, abs=1e-6)
    for place in [(250, 60), (1600, 0), (0, 10)]:
        mean, spread = theirs.predict(np.log1p([place]) / mine.scale, return_std=True)
        assert mine.predict(*place) == pytest.approx((mean[0] + y.mean(), spread[0]), abs=1e-6)


@pytest.fixture(scope="module")
def planner():
    return BudgetPlanner(weak(0.1), GOLD, draws=60).fit(trials_of(LAW, noise=0.004))


def test_a_plan_of_a_good_pilot(planner):
    plan = planner.plan(256)
    assert plan.regime == "mixed"
    assert plan.n_weak == pytest.approx(914, rel=0.5)
    assert plan.cost <= 256
    assert plan.cost == pytest.approx(0.1 * plan.n_weak + plan.n_gold)
    # What the true law gives for the true optimum is (423.16 / 150)^1.1 -> .8031; the plan loses next to nothing.
    assert float(LAW.accuracy(plan.n_weak, plan.n_gold)) == pytest.approx(0.8031, abs=0.003)
    assert plan.predicted.low <= plan.predicted.value <= plan.predicted.high
    assert plan.predicted.low < 0.8031 < plan.predicted.high
    assert plan.weak_limit.low < 914 < plan.weak_limit.high
    assert {one.name for one in plan.options} == {"plan", "all gold", "all weak"}
    assert plan.options[0].name == "plan"
    assert plan.runner_up is not None
    assert plan.runner_up.name == plan.options[1].name
    assert plan.lead.value == pytest.approx(plan.options[0].predicted.value - plan.options[1].predicted.value)
    assert plan.clear
    assert 0 < plan.margin.gain < 0.002


def test_what_one_more_unit_of_money_buys(planner):
    """The same as a plan for one unit more, up to whole labels."""
    plan, more = planner.plan(256), planner.plan(257)
    assert plan.margin.gain == pytest.approx(more.predicted.value - plan.predicted.value, rel=0.05)
    assert plan.margin.labels == (10 if plan.margin.source == "weak" else 1)


def test_labels_that_are_sold_out_are_not_what_more_money_buys(planner):
    trials = planner.trials
    few = BudgetPlanner(weak(0.1, pool=100), GOLD, draws=0).fit(trials).plan(64)
    assert (few.n_weak, few.margin.source) == (100, "gold")  # a weak label is worth more, but there is none
    none = BudgetPlanner(weak(0.1, pool=100), LabelSource("gold", 1.0, pool=20), draws=0).fit(trials).plan(64)
    assert ((none.n_weak, none.n_gold), none.margin) == ((100, 20), None)
    assert "There are no more labels to buy." in str(none)


def test_the_limit_of_weak_labels_is_told_where_it_binds(planner):
    """914.2 is rounded up: 915 of them are within it, 916 are not, so that something else decided."""
    limit = Interval(value=914.2, low=650.5, high=1203.0)
    within, beyond = (dataclasses.replace(planner.plan(256), n_weak=n, weak_limit=limit) for n in (915, 916))
    assert "Beyond 915 (651 to 1,203) weak labels money buys more in gold ones; here one more weak label" in str(within)
    assert "money buys more" not in str(beyond)
    assert "Here one more weak label is worth " in str(beyond)
    # (1400, 0) is worth 1120 / 3.8 = 294.7 gold labels, (400, 100) only 100 + 320 / 1.8 = 277.8.
    wary = BudgetPlanner(weak(0.1), GOLD, min_gold=100, draws=0).fit(trials_of(LAW)).plan(140)
    assert (wary.n_weak, wary.n_gold) == (1400, 0)
    assert "money buys more" not in str(wary)


def test_no_limit_of_weak_labels_where_gold_is_sold_out():
    """All 20 gold labels are bought and weak ones take the rest, 2,360: the limit of 914.2 is for gold to be had."""
    few = LabelSource("gold", 1.0, pool=20)
    plan = BudgetPlanner(weak(0.1), few, draws=0).fit(trials_of(LAW)).plan(256)
    assert (plan.n_weak, plan.n_gold) == (2360, 20)
    assert "money buys more" not in str(plan)
    useless = dataclasses.replace(LAW, rate=0.03, saturation=5000.0)
    plan = BudgetPlanner(weak(0.1), few, draws=0).fit(trials_of(useless)).plan(64)
    assert (plan.n_weak, plan.n_gold) == (440, 20)
    assert "no weak label is worth its money" not in str(plan)


def test_little_money_goes_to_weak_labels_and_much_to_gold(planner):
    assert planner.plan(40).regime == "quantity-dominant"
    rich = BudgetPlanner(weak(0.1), GOLD, draws=0).fit(trials_of(LAW, [*pilot_grid(), (0, 1024), (1600, 1024)]))
    plan = rich.plan(4096)
    assert (plan.regime, plan.weak_share < 0.05) == ("quality-dominant", True)


def test_worthless_weak_labels_are_not_bought():
    useless = dataclasses.replace(LAW, rate=0.03, saturation=5000.0)  # a tenth of the price, a thirtieth of the worth
    plan = BudgetPlanner(weak(0.1), GOLD, draws=60).fit(trials_of(useless, noise=0.004)).plan(128)
    assert (plan.n_weak, plan.n_gold, plan.regime) == (0, 128, "quality-dominant")
    assert plan.clear
    assert "no weak label is worth its money" in str(plan)


def test_a_pilot_of_noise_cannot_tell_and_says_so():
    plan = BudgetPlanner(weak(0.1), GOLD, draws=60).fit(trials_of(LAW, noise=0.12)).plan(128)
    assert not plan.clear
    assert any("the pilot cannot tell the plan from the runner-up" in told for told in plan.warnings)
    assert "Warning: " in str(plan)


def test_one_seed_is_warned_of():
    plan = BudgetPlanner(weak(0.1), GOLD, draws=0).fit(trials_of(LAW, seeds=(0,))).plan(128)
    assert any("the pilot has one seed" in told for told in plan.warnings)
    assert math.isnan(plan.predicted.low)
    assert "to nan" not in str(plan)


def test_plans_far_outside_of_the_pilot_have_to_be_asked_for(planner):
    with pytest.raises(InputError, match="more than 4 times as far is a guess"):
        planner.plan(100_000)
    plan = planner.plan(100_000, allow_extrapolation=True)
    assert any("times as far as the pilot's largest purchase" in told for told in plan.warnings)


def test_the_order_of_the_pilot_does_not_matter(planner):
    trials = trials_of(LAW, noise=0.004)
    again = BudgetPlanner(weak(0.1), GOLD, draws=60).fit(trials[::-1])
    assert again.plan(256) == planner.plan(256)


def test_money_that_is_gone_is_not_planned(planner):
    assert planner.plan(300, spent=44).n_gold == planner.plan(256).n_gold
    with pytest.raises(InputError, match="nothing to plan"):
        planner.plan(40, spent=40)


def test_words(planner):
    told = str(planner.plan(256))
    assert told.startswith("For 256, buy ")
    assert "Mixed: weak labels first" in told
    assert "Runner-up: " in told
    assert "One more unit of money buys " in told


def pilot_without(kind):
    return [one for one in trials_of(LAW) if not (one.n_gold if kind == "gold" else one.n_weak)]


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        (pilot_without("gold"), "no trial with gold labels, so it cannot tell what a weak label is worth in gold"),
        (pilot_without("weak"), "no trial with weak labels"),
        (trials_of(LAW, [(0, 10), (10, 0), (10, 10)]), "3 different purchases, but the law has 5 parameters"),
        ([Trial(n_weak=0, n_gold=10, seed=0, accuracy=78.0)], "accuracy 78. Give a share between 0 and 1"),
        ([Trial(n_weak=0, n_gold=10, seed=0, accuracy=math.nan)], "accuracy nan"),
        ([Trial(n_weak=0, n_gold=0, seed=0, accuracy=0.5)], "has no labels"),
        ([Trial(n_weak=-1, n_gold=5, seed=0, accuracy=0.5)], "fewer than 0"),
        ([], "no trial to look at"),
        ([*trials_of(LAW), *trials_of(LAW)], "with seed 0 are there twice"),
    ],
)
def test_pilots_that_no_plan_can_be_made_of(trials, words):
    with pytest.raises(InputError, match=words):
        BudgetPlanner(weak(0.1), GOLD).fit(trials)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BudgetPlanner(weak(0.1), weak(1.0)), "both sources are called 'weak'"),
        (lambda: BudgetPlanner(weak(0.1), GOLD, draws=-1), "draws is -1"),
        (lambda: BudgetPlanner(weak(0.1), GOLD).plan(10), "seen no pilot yet"),
        (lambda: BudgetPlanner(weak(0.1), GOLD, max_rate=0.0).fit(trials_of(LAW)), "max_rate is 0"),
        (lambda: BudgetPlanner(weak(0.1), GOLD).plan(-1), "the budget is -1"),
        (lambda: dataclasses.replace(LAW, rate=0.0), "must be above 0"),
        (lambda: dataclasses.replace(LAW, law="line"), "must be 'hill' or 'power'"),
    ],
)
def test_bad_settings(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_the_room_needs_no_torch_and_planning_says_what_it_needs(monkeypatch):
    import sys

    from reckon.errors import MissingError

    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingError, match=r"pip install 'reckon-rl\[labels\]'"):
        fit_production(trials_of(LAW))


def test_a_second_opinion_speaks_up_where_the_law_does_not_fit():
    """A pilot in which gold beside weak labels is poison, which no law of this form can say."""
    grid = [*pilot_grid(), (0, 64)]
    poisoned = [
        dataclasses.replace(one, accuracy=0.55) if one.n_weak and one.n_gold else one for one in trials_of(LAW, grid)
    ]
    warnings = BudgetPlanner(weak(0.1), GOLD, draws=0).fit(poisoned).plan(128).warnings
    assert any("the law misses the pilot by" in told for told in warnings)
    (words,) = [told for told in warnings if "a Gaussian process over the pilot" in told]
    assert "expects more of 1,280 weak labels: 77" in words  # the true law has 76.9% there


def test_a_lead_of_next_to_nothing_is_told():
    """At 102 the optimum has 914 weak labels and 10 gold ones, worth 269.2; 1,020 weak ones are worth 268.4."""
    planner = BudgetPlanner(weak(0.1), GOLD, draws=0).fit(trials_of(LAW))
    plan = planner.plan(102)
    assert (plan.regime, plan.runner_up.name) == ("mixed", "all weak")
    assert 0 < plan.lead.value < 0.005
    assert any("ahead of all weak by 0.0" in told and "next to nothing" in told for told in plan.warnings)
    large, pure = planner.plan(256), planner.plan(64)
    assert large.lead.value > 0.005
    assert (pure.n_gold, pure.regime) == (0, "quantity-dominant")  # nothing is simpler, however near a mixture comes
    for other in (large, pure):
        assert not any("next to nothing" in told for told in other.warnings)


def test_draws_that_disagree_on_the_regime_are_told():
    """Where the optimum turns from weak labels alone to a mixture, noise decides."""
    trials = trials_of(LAW, noise=0.03)
    plan = BudgetPlanner(weak(0.1), GOLD, draws=60).fit(trials).plan(110)
    assert plan.support < 0.8
    assert f"only {100 * plan.support:.0f}% of bootstrap draws agree on the regime." in plan.warnings
