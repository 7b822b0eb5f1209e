"""Measures against SciPy and scikit-learn; losses and choices against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import log_loss, roc_auc_score

from reckon.errors import InputError
from reckon.labels import (
    LogConfidence,
    accuracy,
    auroc,
    auroc_interval,
    calibrated_accuracy,
    choose_by_entropy,
    cross_entropy,
    entropy_bits,
    few_shot_text,
    soft_cross_entropy,
    wilson_interval,
)

P1 = np.array([0.1, 0.8, 0.4, 0.6])  # of class 1; p0 = .9, .2, .6, .4
Q = np.array([0.0, 1.0, 1.0, 0.0])


def test_log_confidence_by_hand():
    """Prior .5; threshold of p0 .5; coefficient .5 * 100 / 200 = .25; the model's own verdicts 0, 1, 0, 1."""
    targets = LogConfidence()(Q, P1, 100)
    assert targets == pytest.approx([0.0, 1.0, 0.75, 0.25])
    losses = cross_entropy(targets, P1)
    assert losses == pytest.approx([0.105361, 0.223144, 0.814925, 0.814925], abs=1e-6)
    assert losses.mean() == pytest.approx(0.489588, abs=1e-6)


def test_log_confidence_begins_as_cross_entropy_and_stops_at_its_coefficient():
    assert LogConfidence()(Q, P1, 0).tolist() == soft_cross_entropy(Q, P1, 0).tolist()
    assert LogConfidence()(Q, P1, 200) == pytest.approx([0.0, 1.0, 0.5, 0.5])
    assert LogConfidence()(Q, P1, 10_000) == pytest.approx([0.0, 1.0, 0.5, 0.5])


def test_log_confidence_keeps_the_share_of_each_class():
    """A quarter are 1: the threshold is p0's quantile .25, .4 + .75 * .3 = .625, so one of four is called a 1."""
    labels, p1 = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3, 0.6])
    assert LogConfidence()(labels, p1, 200) == pytest.approx([0.0, 0.0, 0.0, 1.0])


def test_log_confidence_ranks_within_microbatches():
    """Two rows at a time: p0 = .9, .8 and .7, .6 with priors .5 have the thresholds .85 and .65, verdicts 0, 1, 0, 1.

    Of the whole batch the prior is .5 and the threshold .75, verdicts 0, 0, 1, 1. Losses at the coefficient .5: by
    microbatches -ln .9, -ln .2, -ln .7, -ln .4, mean .746941; of the whole -ln .9, -(ln .2 + ln .8) / 2,
    -(ln .3 + ln .7) / 2, -ln .4, mean .679566.
    """
    labels, p1 = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3, 0.4])
    cut, whole = LogConfidence(microbatch=2)(labels, p1, 200), LogConfidence(microbatch=4)(labels, p1, 200)
    assert cut == pytest.approx([0.0, 1.0, 0.0, 1.0])
    assert whole == pytest.approx([0.0, 0.5, 0.5, 1.0])
    assert cross_entropy(cut, p1).mean() == pytest.approx(0.746941, abs=1e-6)
    assert cross_entropy(whole, p1).mean() == pytest.approx(0.679566, abs=1e-6)


def test_a_batch_of_32_is_four_microbatches_of_8():
    rng = np.random.default_rng(0)
    labels, p1 = rng.random(32), rng.random(32)
    parts = [LogConfidence(microbatch=8)(labels[i : i + 8], p1[i : i + 8], 200) for i in (0, 8, 16, 24)]
    assert LogConfidence()(labels, p1, 200).tolist() == np.concatenate(parts).tolist()
    assert LogConfidence()(labels, p1, 200).tolist() != LogConfidence(microbatch=32)(labels, p1, 200).tolist()


def test_a_last_row_that_would_be_alone_joins_the_microbatch_before_it():
    """Alone it would be called a 0, whatever it is. Here p0 = .7, .6, .1, prior 2/3, threshold .6333: 0, 1, 1."""
    labels, p1 = np.array([0.0, 1.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.2, 0.3, 0.4, 0.9])
    assert LogConfidence(microbatch=2)(labels, p1, 200) == pytest.approx(labels)


def test_log_confidence_does_not_rank_one_row():
    with pytest.raises(InputError, match="a batch of one row"):
        LogConfidence()(Q[:1], P1[:1], 100)
    with pytest.raises(InputError, match=r"coefficient is 1\.5"):
        LogConfidence(coefficient=1.5)
    with pytest.raises(InputError, match=r"microbatch 1; .* the third 2 or more"):
        LogConfidence(microbatch=1)


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=40))
def test_auroc_is_scikit_learns_with_ties(rows):
    labels = np.array([float(label) for label, _ in rows])
    scores = np.array([float(score) for _, score in rows])
    if len(set(labels.tolist())) < 2:
        assert math.isnan(auroc(labels, scores))
    else:
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_cross_entropy_is_scikit_learns():
    assert cross_entropy(Q, P1).mean() == pytest.approx(log_loss(Q, P1))


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (702, 1000)])
def test_wilson_is_scipys(right, n):
    interval = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right, n) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_wilson_wants_a_share():
    with pytest.raises(InputError, match="3 right of 2"):
        wilson_interval(3, 2)


def test_accuracy_at_0_and_at_the_calibrated_threshold():
    labels, shifted = np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert accuracy(labels, shifted) == 0.5  # all are predicted to be 1
    assert accuracy(np.array([1.0]), np.array([0.0])) == 1.0  # so is 0
    assert calibrated_accuracy(labels, shifted) == 1.0
    # A quarter are 1: the threshold is the quantile .75, not .25, which would make three of four a 1.
    assert calibrated_accuracy(np.array([0.0, 0.0, 0.0, 1.0]), shifted) == 1.0


def test_auroc_interval_holds_the_value_and_narrows():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 800).astype(float)
    scores = labels + rng.normal(size=800)
    low, high = auroc_interval(labels, scores)
    few = auroc_interval(labels[:80], scores[:80])
    assert low < auroc(labels, scores) < high
    assert few[1] - few[0] > 2 * (high - low)  # by sqrt(10)
    assert all(map(math.isnan, auroc_interval(np.ones(5), np.arange(5.0))))


def test_entropy_by_hand():
    assert entropy_bits(np.array([0.5, 0.9, 0.99])) == pytest.approx([1, 0.468996, 0.080793], abs=1e-6)
    assert entropy_bits(np.array([0.0, 1.0])).tolist() == [0.0, 0.0]


def test_at_temperature_0_the_most_uncertain_are_chosen():
    rng = np.random.default_rng(0)
    assert set(choose_by_entropy(np.array([0.5, 0.9, 0.99]), 2, rng, temperature=0.0).tolist()) == {0, 1}
    sure = choose_by_entropy(np.array([0.5, 0.9, 0.99]), 2, rng, temperature=0.0, confident=True)
    assert set(sure.tolist()) == {1, 2}
    first = {int(choose_by_entropy(np.array([0.5, 0.9, 0.99]), 2, rng, temperature=0.0)[0]) for _ in range(30)}
    assert first == {0, 1}  # in random order, for a stage validates on the first of them


def test_at_temperature_a_quarter_weights_are_the_fourth_power():
    """Weights 1, .048381, .0000426: the first is drawn with probability 1 / 1.048424 = .953813."""
    rng, draws = np.random.default_rng(0), 4000
    first = [choose_by_entropy(np.array([0.5, 0.9, 0.99]), 1, rng)[0] for _ in range(draws)]
    error = math.sqrt(0.953813 * 0.046187 / draws)
    assert np.mean(np.array(first) == 0) == pytest.approx(0.953813, abs=4 * error)


def test_ties_do_not_fall_by_place():
    rng = np.random.default_rng(0)
    chosen = [choose_by_entropy(np.full(10, 0.5), 1, rng, temperature=0.0)[0] for _ in range(200)]
    assert len(set(chosen)) == 10


def test_choosing_too_many():
    with pytest.raises(InputError, match="4 examples are to be chosen, but there are 3"):
        choose_by_entropy(np.full(3, 0.5), 4, np.random.default_rng(0))
    with pytest.raises(InputError, match="temperature is -1"):
        choose_by_entropy(np.full(3, 0.5), 1, np.random.default_rng(0), temperature=-1.0)
    with pytest.raises(InputError, match="temperature is nan"):
        choose_by_entropy(np.full(3, 0.5), 1, np.random.default_rng(0), temperature=math.nan)


def test_examples_in_front_of_a_text():
    rng = np.random.default_rng(0)
    made = {few_shot_text("Is it?", [("A", 0), ("B", 1)], rng) for _ in range(50)}
    assert made == {"A\n0\n\nB\n1\n\nIs it?\n", "B\n1\n\nA\n0\n\nIs it?\n"}
    assert few_shot_text("Is it?", [("A", 1)], rng, words=("no", "yes")) == "A\nyes\n\nIs it?\n"
    assert few_shot_text("Is it?", [], rng) == "Is it?\n"
    with pytest.raises(InputError, match=r"label 0\.7"):
        few_shot_text("Is it?", [("A", 0.7)], rng)
