"""First errors: by hand, and the threshold against trying all of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from reckon.errors import InputError
from reckon.evaluate import find_threshold, first_error, first_error_f1
from reckon.evaluate._first_error import harmonic_mean

NAN = math.nan


def test_first_errors_by_hand():
    scores = [[0.5, -0.2, -0.4], [0.9, 0.1, NAN], [-1.0, NAN, NAN], [NAN, NAN, NAN], [NAN, -0.1, 0.2]]
    assert first_error(scores, 0.0).tolist() == [1, -1, 0, -1, 1]
    # sums .5 .3 -.1; .9 1.0; -1; none behind a NaN
    assert first_error(scores, 0.0, accumulate=True).tolist() == [2, -1, 0, -1, -1]
    assert first_error(scores, 0.1).tolist() == [1, -1, 0, -1, 1]  # equal is not under
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


def test_the_harmonic_mean_by_hand():
    assert harmonic_mean(0.5, 1.0) == pytest.approx(2 / 3)  # 2 * 0.5 * 1 / 1.5
    assert harmonic_mean(0.0, 0.0) == 0
    assert math.isnan(harmonic_mean(math.nan, 1.0))


def test_f1_is_scikit_learns_where_precision_and_recall_are_the_two_accuracies():
    """Recall 3 of 4 and, with one false alarm among 4 calls, precision 3 of 4."""
    truth, said = [1, 1, 1, 1, 0], [1, 1, 1, 0, 1]
    assert harmonic_mean(0.75, 0.75) == pytest.approx(f1_score(truth, said))


rows = st.lists(
    st.tuples(
        st.lists(st.one_of(st.integers(-3, 3).map(float), st.sampled_from([NAN, -math.inf])), max_size=4),
        st.integers(-1, 4),
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=200)
@given(rows, st.booleans())
def test_the_threshold_is_the_best_of_all(responses, accumulate):
    scores = np.array([row + [NAN] * (5 - len(row)) for row, _ in responses])
    truth = np.array([wrong for _, wrong in responses])
    known = np.isfinite(scores.cumsum(axis=1) if accumulate else scores)
    if not (truth == -1).any() or (truth == -1).all() or not known.any():
        with pytest.raises(InputError, match="responses of both kinds"):
            find_threshold(scores, truth, accumulate)
        return
    values = np.concatenate([np.arange(-20, 20) + 0.5, np.arange(-20.0, 20)])
    best = max(first_error_f1(first_error(scores, t, accumulate), truth).f1 for t in values)
    threshold = find_threshold(scores, truth, accumulate)
    assert first_error_f1(first_error(scores, threshold, accumulate), truth).f1 == pytest.approx(best)


def test_a_step_without_a_score_does_not_move_those_behind_it():
    """The third step is wrong, at -2; the second has no score. From -2 to 0 it is named, and the other response not."""
    scores, truth = [[1.0, NAN, -2.0, -3.0], [0.0, 0.5, NAN, NAN]], [2, -1]
    threshold = find_threshold(scores, truth)
    assert threshold == -1.0  # midway between -2 and 0
    assert first_error(scores, threshold).tolist() == truth


def test_the_lowest_of_equally_good_thresholds_lies_between_two_scores():
    assert find_threshold([[1.0, 5.0], [4.0, 4.5]], [0, -1]) == 2.5
    with pytest.raises(InputError, match="one row for each response"):
        find_threshold([1.0], [0])
