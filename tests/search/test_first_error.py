"""First errors: by hand, and the threshold against trying all of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.errors import InputError
from reckon.search import find_threshold, first_error, first_error_f1

NAN = math.nan


def test_first_errors_by_hand():
    scores = [[0.5, -0.2, -0.4], [0.9, 0.1, NAN], [-1.0, NAN, NAN], [NAN, NAN, NAN]]
    assert first_error(scores, 0.0).tolist() == [1, -1, 0, -1]
    # sums .5 .3 -.1; .9 1.0; -1
    assert first_error(scores, 0.0, accumulate=True).tolist() == [2, -1, 0, -1]
    assert first_error(scores, 0.1).tolist() == [1, -1, 0, -1]  # equal is not under
    assert first_error(np.zeros((2, 0)), 0.0).tolist() == [-1, -1]


def test_f1_by_hand():
    # with an error: 1 of 3 exact; without: 1 of 2; 2 (1/3)(1/2) / (5/6) = 0.4
    found = first_error_f1([2, 0, -1, -1, 1], [2, 1, 0, -1, -1])
    assert (found.erroneous, found.clean, found.n_erroneous, found.n_clean) == (pytest.approx(1 / 3), 0.5, 3, 2)
    assert found.f1 == pytest.approx(0.4)
    assert first_error_f1([0, 0], [1, -1]).f1 == 0
    assert math.isnan(first_error_f1([0], [0]).f1)
    with pytest.raises(InputError, match="one for each"):
        first_error_f1([0], [0, 1])


rows = st.lists(
    st.tuples(st.lists(st.integers(-3, 3).map(float), max_size=4), st.integers(-1, 4)), min_size=2, max_size=8
)


@settings(max_examples=200)
@given(rows, st.booleans())
def test_the_threshold_is_the_best_of_all(responses, accumulate):
    scores = np.array([row + [NAN] * (5 - len(row)) for row, _ in responses])
    truth = np.array([wrong for _, wrong in responses])
    if not (truth == -1).any() or (truth == -1).all() or np.isnan(scores).all():
        with pytest.raises(InputError, match="responses of both kinds"):
            find_threshold(scores, truth, accumulate)
        return
    values = np.concatenate([np.arange(-20, 20) + 0.5, np.arange(-20.0, 20)])
    best = max(first_error_f1(first_error(scores, t, accumulate), truth).f1 for t in values)
    threshold = find_threshold(scores, truth, accumulate)
    assert first_error_f1(first_error(scores, threshold, accumulate), truth).f1 == pytest.approx(best)


def test_the_lowest_of_equally_good_thresholds_lies_between_two_scores():
    assert find_threshold([[1.0, 5.0], [4.0, 4.5]], [0, -1]) == 2.5
    with pytest.raises(InputError, match="one row for each response"):
        find_threshold([1.0], [0])
