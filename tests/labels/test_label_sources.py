"""Prices, grids and the numbers of the specification label-budget, section 6."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reckon.errors import InputError
from reckon.labels import LabelSource, Purchase, budget_grid, pilot_grid, purchase_cost

WEAK, GOLD = LabelSource("weak", 0.1), LabelSource("gold", 1.0)


def test_what_a_purchase_costs():
    assert purchase_cost((2050, 819), WEAK, GOLD) == pytest.approx(205 + 819)
    # Two weak examples in front of every text are two more labels, and no cheaper.
    assert purchase_cost((2052, 819), WEAK, GOLD) == pytest.approx(1024.2)
    assert purchase_cost((0, 0), LabelSource("weak", 1.0, 5.0), GOLD) == 0.0
    assert purchase_cost((1, 2), LabelSource("weak", 1.0, 5.0), GOLD) == 1 + 5 + 2


@pytest.mark.parametrize(
    ("budget", "share", "bought"),
    [
        (16, 0.95, (160, 0)),  # .05 * 16 = .8 buys no gold label, so all goes to weak ones
        (64, 0.95, (610, 3)),  # 3.2 -> 3, and 61 / .1
        (1024, 0.2, (2050, 819)),  # 819.2 -> 819, and 205 / .1
        (16, 0.0, (0, 16)),
        (16, 1.0, (160, 0)),
        (0.3, 1.0, (3, 0)),  # .3 / .1 is 2.9999999999999996 in floats
    ],
)
def test_a_budget_divided(budget, share, bought):
    assert budget_grid([budget], [share], WEAK, GOLD) == [Purchase(*bought)]


def test_the_grid_has_each_purchase_once_and_no_empty_one():
    assert budget_grid([16], [0.95, 1.0], WEAK, GOLD) == [(160, 0)]
    assert budget_grid([0.05], [0.0, 1.0], WEAK, GOLD) == []


def test_pools_and_fixed_costs_bind():
    weak, gold = LabelSource("weak", 0.1, fixed_cost=4.0, pool=100), LabelSource("gold", 1.0, pool=5)
    # all weak: (16 - 4) / .1 = 120 > 100; half: 8 gold > 5, then (16 - 5 - 4) / .1 = 70
    assert budget_grid([16], [1.0, 0.5], weak, gold) == [(100, 0), (70, 5)]
    assert weak.affordable(3.9) == 0


@given(
    budget=st.floats(0.5, 1e4),
    share=st.floats(0, 1),
    price=st.floats(0.01, 2),
)
def test_no_division_costs_more_than_its_budget(budget, share, price):
    weak = LabelSource("weak", price)
    for bought in budget_grid([budget], [share], weak, GOLD):
        spent = purchase_cost(bought, weak, GOLD)
        assert spent <= budget * (1 + 1e-6) + 1e-6
        if share > 0:
            assert spent > budget - price - 1e-6  # what is left buys not one more weak label


def test_the_pilot_has_eleven_cells():
    grid = pilot_grid()
    assert len(set(grid)) == 11
    assert max(grid) == (1600, 128)


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
def test_a_price_is_above_0(price):
    with pytest.raises(InputError, match=r"the price of 'weak' is .* but must be above 0: if labels cost nothing"):
        LabelSource("weak", price)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LabelSource("", 1.0), "has no name"),
        (lambda: LabelSource("weak", 1.0, fixed_cost=-1.0), "fixed cost of 'weak' is -1"),
        (lambda: LabelSource("weak", 1.0, pool=-1), "pool of 'weak' is -1"),
        (lambda: budget_grid([0.0], [0.5], WEAK, GOLD), "the budget is 0, but must be"),
        (lambda: budget_grid([1.0], [1.5], WEAK, GOLD), "a weak share of 1.5"),
    ],
)
def test_bad_sources_and_grids(make, words):
    with pytest.raises(InputError, match=words):
        make()
