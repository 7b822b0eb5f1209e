"""Calibration: by hand, against scikit-learn, and that chance alone is no error."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

from reckon.errors import InputError
from reckon.evaluate import Bin, brier, calibration, debiased_error, isotonic, plain_error, recalibrated, reliability
from reckon.types import Rng

RNG = Rng(("test",))
NAN = math.nan


def test_brier_by_hand():
    """(0.9 - 1)^2 + (0.4 - 0)^2 = 0.01 + 0.16, over two."""
    assert brier(np.array([0.9, 0.4, NAN, 0.5]), np.array([1.0, 0.0, 1.0, NAN])) == pytest.approx(0.085)


def test_brier_refuses_what_is_no_probability():
    with pytest.raises(InputError, match=r"scores from -1 to 0.5 are no probabilities; recalibrate"):
        brier(np.array([-1.0, 0.5]), np.array([1.0, 0.0]))


judged = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


@given(judged)
def test_brier_equals_scikit_learns(rows):
    p, y = np.array([row[0] / 8 for row in rows]), np.array([row[1] for row in rows], dtype=float)
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p, labels=[0, 1], pos_label=1))


def test_bins_hold_equal_numbers_by_hand():
    scores, right = np.array([0.1, 0.2, 0.3, 0.4, 0.8, 0.9]), np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    found = reliability(scores, right, 3)
    assert [b.n for b in found] == [2, 2, 2]
    assert [b.score for b in found] == pytest.approx([0.15, 0.35, 0.85])
    assert [b.rate for b in found] == [0, 0.5, 1]


def test_equal_scores_stay_in_one_bin():
    found = reliability(np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]), 2)
    assert [(b.score, b.n) for b in found] == [(0.0, 1), (1.0, 3)]  # the middle lies in the run of 1s; 1 is nearer
    (one,) = reliability(np.ones(5), np.ones(5), 10)
    assert (one.score, one.rate, one.n) == (1, 1, 5)
    assert reliability(np.array([NAN]), np.array([1.0])) == []
    with pytest.raises(InputError, match="0 bins; give at least 1"):
        reliability(np.ones(2), np.ones(2), 0)


@given(judged, st.integers(1, 12))
def test_bins_hold_every_answer_once_and_ascend(rows, bins):
    x, y = np.array([float(row[0]) for row in rows]), np.array([row[1] for row in rows], dtype=float)
    found = reliability(x, y, bins)
    assert sum(b.n for b in found) == len(rows)
    assert [b.score for b in found] == sorted(b.score for b in found)
    assert sum(b.rate * b.n for b in found) == pytest.approx(y.sum())
    assert len(found) <= bins


def test_errors_by_hand():
    """Two bins of 4: score 0.2 and rate 0.5, score 0.9 and rate 0.75.

    Plain: (0.3 + 0.15) / 2 = 0.225. Debiased: each squared distance less rate (1 - rate) / 3:
    0.09 - 0.25 / 3 = 0.00667 and 0.0225 - 0.1875 / 3 = -0.04; their mean is below 0, so there is no sign of an error.
    """
    bins = [Bin(score=0.2, rate=0.5, low=0, high=1, n=4), Bin(score=0.9, rate=0.75, low=0, high=1, n=4)]
    assert plain_error(bins) == pytest.approx(0.225)
    assert debiased_error(bins) == 0
    # Of 40 answers each the variances are 0.25 / 39 and 0.1875 / 39: (0.08359 + 0.01769) / 2 = 0.05064, root 0.22503.
    many = [Bin(score=b.score, rate=b.rate, low=0, high=1, n=40) for b in bins]
    assert debiased_error(many) == pytest.approx(0.22503, abs=1e-5)
    assert math.isnan(debiased_error([Bin(score=0, rate=1, low=0, high=1, n=1)]))
    assert math.isnan(plain_error([]))


def test_the_debiased_error_is_not_fooled_by_few_answers_and_the_plain_one_is():
    """Scores are the true probabilities; 200 answers in 10 bins, 200 times. The truth is 0."""
    rng = np.random.default_rng(0)
    plain, squared = [], []
    for _ in range(200):
        p = rng.random(200)
        bins = reliability(p, (rng.random(200) < p).astype(float))
        plain.append(plain_error(bins))
        squared.append(sum(b.n * ((b.score - b.rate) ** 2 - b.rate * (1 - b.rate) / (b.n - 1)) for b in bins) / 200)
    assert np.mean(plain) > 0.05
    assert abs(np.mean(squared)) < 3 * np.std(squared) / math.sqrt(200) + 1e-3
    assert np.mean([math.sqrt(max(0.0, s)) for s in squared]) < np.mean(plain)


def test_isotonic_by_hand():
    """Verdicts 0 1 0 1 by rising score: 1 and 0 in the middle break the order and become 0.5 each."""
    x, y = isotonic(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert x.tolist() == [1, 2, 3, 4]
    assert y.tolist() == [0, 0.5, 0.5, 1]


@given(judged, st.integers(-2, 10))
def test_isotonic_equals_scikit_learns(rows, at):
    x, y = np.array([float(row[0]) for row in rows]), np.array([row[1] for row in rows], dtype=float)
    knots, values = isotonic(x, y)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(x, y)
    assert np.interp(at, knots, values) == pytest.approx(float(oracle.predict([at])[0]))


def test_recalibration_never_sees_the_problem_it_is_used_on():
    """Problem 0 is right and scored 1, problem 1 wrong and scored 0: each is told what was seen on the other."""
    scores, right, unit = np.array([1.0, 1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1])
    assert recalibrated(scores, right, unit, RNG).tolist() == [0, 0, 1, 1]
    alone = recalibrated(np.array([0.3, NAN]), np.array([1.0, 1.0]), np.array([0, 0]), RNG)
    assert np.isnan(alone).all()  # a single problem has nothing else to be fitted on


def test_recalibration_makes_a_probability_of_a_margin():
    rng = np.random.default_rng(1)
    p = rng.random(4000)
    right = (rng.random(4000) < p).astype(float)
    margin = 0.05 * np.log(p / (1 - p)) - 0.02  # ranks like p and is no probability
    found = calibration(margin, right, np.arange(4000), RNG)
    assert not found.probability
    assert math.isnan(found.brier)
    assert math.isnan(found.error)
    assert found.recalibrated == pytest.approx(1 / 6, abs=0.01)  # E p(1 - p) over p uniform
    assert found.recalibrated_error < 0.03
    assert found.base == pytest.approx(0.25, abs=0.005)
    assert found.skill == pytest.approx(1 - (1 / 6) / 0.25, abs=0.05)


def test_scores_that_overstate_themselves_are_seen():
    rng = np.random.default_rng(2)
    right = (rng.random(2000) < 0.5).astype(float)
    found = calibration(np.full(2000, 0.9) + 0.01 * rng.random(2000), right, np.arange(2000), RNG)
    assert found.probability
    assert found.error == pytest.approx(0.4, abs=0.03)  # says about 0.9, is 0.5
    assert found.plain == pytest.approx(0.4, abs=0.03)
    assert found.recalibrated_error < 0.05
