"""Interquartile means by hand and by SciPy; the stratified bootstrap by all draws there are."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from reckon.errors import InputError
from reckon.evaluate import interquartile_mean, pooled
from reckon.types import Rng


@pytest.mark.parametrize(
    ("scores", "mean"),
    [
        ([0.0, 1.0, 2.0, 99.0], 1.5),  # without 0 and 99
        ([5.0, 0.0, 1.0], 2.0),  # a quarter of three is none
        ([8.0, 1.0, 2.0, 3.0, 4.0], 3.0),  # one on either side: 2, 3, 4
        ([7.0], 7.0),
    ],
)
def test_interquartile_means_by_hand(scores, mean):
    assert interquartile_mean(np.array(scores)) == mean


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_it_is_scipys_trimmed_mean(scores):
    """What rliable computes: scipy.stats.trim_mean with a quarter cut on either side."""
    expected = trim_mean(np.array(scores), 0.25)
    assert interquartile_mean(np.array(scores)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_every_row_by_itself():
    scores = np.arange(24.0).reshape(2, 3, 4)
    assert interquartile_mean(scores).tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]


def test_the_interval_is_that_of_all_draws():
    """Two tasks, of two runs and of three: 4 x 27 equally likely draws, whose quantiles are counted."""
    tasks = [[0.0, 1.0], [2.0, 4.0, 9.0]]
    ways = [
        float(interquartile_mean(np.array([*one, *other])))
        for one in itertools.product(tasks[0], repeat=2)
        for other in itertools.product(tasks[1], repeat=3)
    ]
    found = pooled(tasks, Rng((0,)), draws=20_000)
    assert found.value == float(interquartile_mean(np.array([0.0, 1, 2, 4, 9])))
    # The draws' values are few, so the share of all ways beyond each bound says whether it is the right one.
    assert np.mean(np.array(ways) < found.low - 1e-9) <= 0.025 <= np.mean(np.array(ways) <= found.low + 1e-9)
    assert np.mean(np.array(ways) <= found.high + 1e-9) >= 0.975 >= np.mean(np.array(ways) < found.high - 1e-9)


def test_runs_do_not_cross_tasks():
    """Tasks whose runs agree have no spread, however far apart the tasks are."""
    found = pooled([[0.0] * 5, [1.0] * 5], Rng((0,)))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_draws_are_made_in_chunks_that_add_up(monkeypatch):
    sizes = []

    def counting(scores):
        if scores.ndim == 2:
            sizes.append(len(scores))
        return interquartile_mean(scores)

    monkeypatch.setattr("reckon.evaluate._aggregate._AT_ONCE", 35)
    pooled([[0.0, 1.0, 2.0], [1.0, 3.0]], Rng((0,)), statistic=counting, draws=24)
    assert sizes == [7, 7, 7, 3]


def test_a_single_run_of_each_task_has_no_interval():
    found = pooled([[0.25], [0.75]], Rng((0,)))
    assert found.value == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("tasks", [[], [[]], [[1.0], []], [[1.0, math.nan]]])
def test_what_cannot_be_pooled(tasks):
    with pytest.raises(InputError, match="every task needs one finite score or more"):
        pooled(tasks, Rng((0,)))
