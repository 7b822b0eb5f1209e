"""The Pareto frontier, the best within a budget, and the regimes."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reckon.errors import InputError
from reckon.labels import Trial, best_within, cells, pareto_frontier, regime


def trial(n_weak, n_gold, reached, seed=0):
    return Trial(n_weak=n_weak, n_gold=n_gold, seed=seed, accuracy=reached, cost=n_weak / 10 + n_gold)


def test_the_frontier_of_the_specification():
    points = list(zip([1, 2, 4, 4.1, 8], [0.5, 0.55, 0.6, 0.62, 0.6], strict=True))
    assert pareto_frontier(points) == [(1, 0.5), (2, 0.55), (4.1, 0.62)]


def test_equal_points_do_not_remove_each_other():
    assert pareto_frontier([(1, 0.5), (2, 0.6), (2.01, 0.6)], cost_rtol=0.01) == [(1, 0.5), (2, 0.6)]


def test_a_gain_that_is_none():
    assert pareto_frontier([(1, 0.5), (2, 0.5015), (4, 0.503)]) == [(1, 0.5), (4, 0.503)]
    assert pareto_frontier([(1, 0.5), (2, 0.5015)], atol=0.0) == [(1, 0.5), (2, 0.5015)]


points = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20).map(lambda n: n / 20)), min_size=1, max_size=25)


@given(points, st.randoms(use_true_random=False))
def test_the_frontier_rises_and_does_not_know_the_order(given_points, random):
    frontier = pareto_frontier(given_points)
    for (cost, reached), (other_cost, other) in pairwise(frontier):
        assert cost < other_cost
        assert reached < other
    shuffled = list(given_points)
    random.shuffle(shuffled)
    assert pareto_frontier(shuffled) == frontier


@given(points)
def test_without_tolerances_it_is_the_set_that_nothing_dominates(given_points):
    """By the definition, point by point."""
    dominated = {a for a in given_points for b in given_points if b != a and b[0] <= a[0] and b[1] >= a[1]}
    expected = sorted(set(given_points) - dominated)
    assert pareto_frontier(given_points, cost_rtol=0.0, atol=0.0) == expected


def test_a_frontier_of_nothing():
    for bad in ([], [(1.0, math.nan)]):
        with pytest.raises(InputError, match="pareto_frontier needs points"):
            pareto_frontier(bad)


def test_cells_are_means_over_seeds():
    (cell,) = cells([trial(10, 1, 0.6, seed=0), trial(10, 1, 0.7, seed=1)])
    assert (cell.bought, cell.cost) == ((10, 1), 2.0)
    assert cell.accuracy == pytest.approx(0.65)
    assert cell.error == pytest.approx(0.05)  # .0707 / sqrt(2)
    with pytest.raises(InputError, match="with seed 0 are there twice"):
        cells([trial(10, 1, 0.6), trial(10, 1, 0.7)])
    with pytest.raises(InputError, match="no trial"):
        cells([])


def test_the_best_within_a_budget():
    trials = [trial(100, 0, 0.6), trial(0, 10, 0.7), trial(0, 100, 0.9)]
    assert best_within(trials, 10).bought == (0, 10)
    assert best_within(trials, 1000).bought == (0, 100)
    with pytest.raises(InputError, match="no trial costs 5 or less"):
        best_within(trials, 5)


def at_100(gold, mixed, weak):
    """Three seeds of every way to spend 100."""
    made = []
    for seed in range(3):
        luck = 0.01 * seed  # that all ways share
        made += [
            trial(0, 100, gold + luck, seed),
            trial(500, 50, mixed + luck, seed),
            trial(1000, 0, weak + luck + 0.001 * seed, seed),
        ]
    return made


@pytest.mark.parametrize(
    ("reached", "name", "best"),
    [
        ((0.6, 0.7, 0.65), "mixed", (500, 50)),
        ((0.8, 0.7, 0.65), "quality-dominant", (0, 100)),
        ((0.6, 0.7, 0.75), "quantity-dominant", (1000, 0)),
        ((0.7, 0.704, 0.65), "quality-dominant", (0, 100)),  # ahead by less than the margin of .005
    ],
)
def test_regimes(reached, name, best):
    found = regime(at_100(*reached), 100)
    assert (found.name, found.best, found.decided) == (name, best, True)
    assert name in str(found)


def test_a_regime_compares_seed_by_seed():
    """Quality: .8 - .65 - .001 seed = .15, .149, .148: mean .149, t(.975, 2) = 4.3027, error .001 / sqrt(3)."""
    found = regime(at_100(0.8, 0.7, 0.65), 100)
    assert found.difference == pytest.approx(0.149)
    assert found.high - found.difference == pytest.approx(4.3027 * 0.001 / math.sqrt(3), rel=1e-4)


def test_undecided():
    alone = regime([one for one in at_100(0.8, 0.7, 0.65) if one.seed == 0], 100)
    assert not alone.decided  # one seed
    assert str(alone).startswith("undecided, perhaps quality-dominant")
    close = [trial(0, 100, 0.7, 0), trial(0, 100, 0.6, 1), trial(1000, 0, 0.6, 0), trial(1000, 0, 0.69, 1)]
    assert not regime(close, 100).decided


def test_a_regime_needs_both_pure_ways():
    with pytest.raises(InputError, match="no trial spends 100 on weak labels alone"):
        regime([trial(0, 100, 0.7)], 100)
    with pytest.raises(InputError, match="no seed in common"):
        regime([trial(0, 100, 0.7, 0), trial(1000, 0, 0.6, 1)], 100)
