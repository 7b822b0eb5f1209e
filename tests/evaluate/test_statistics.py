"""Numbers by hand, SciPy as oracle, and enumeration."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reckon.errors import InputError
from reckon.evaluate import (
    best_constant,
    majority_vote,
    mcnemar,
    paired_difference,
    pass_at_k,
    t_quantile,
    weighted_mean,
    wilson,
)


def test_scores_of_benchmarks_are_weighted_means():
    """RewardBench, Chat: (95 + 85.5 + 85.5 + 22.4 + 28) / 358 = 316.4 / 358. With prior sets: (4 * 0.8 + 0.3) / 4.5."""
    assert weighted_mean((0.95, 0.90, 0.90, 0.80, 0.70), (100, 95, 95, 28, 40)) == pytest.approx(0.883799, abs=5e-7)
    assert weighted_mean((0.8, 0.8, 0.8, 0.8, 0.6), (1, 1, 1, 1, 0.5)) == pytest.approx(3.5 / 4.5)
    assert weighted_mean((55.4, 47.8, 45.1, 56.6, 91.8, 44.2), (1,) * 6) == pytest.approx(56.8, abs=0.05)
    for shares, weights in (((1.0,), (1, 2)), ((1.0, 0.0), (0, 0)), ((1.0, 0.0), (2, -1)), ((), ())):
        with pytest.raises(InputError, match="need as many weights"):
            weighted_mean(shares, weights)


def test_wilson_of_397_in_500():
    # p = .794, z = 1.96: center (.794 + 3.8416/1000) / (1 + 3.8416/500) = .7979/1.00768 = .79176,
    # half 1.96/1.00768 * sqrt(.794*.206/500 + 3.8416/(4*250000)) = 1.94506 * .018195 = .03539
    low, high = wilson(397, 500)
    assert low == pytest.approx(0.75637, abs=1e-5)
    assert high == pytest.approx(0.82714, abs=1e-5)


@given(st.integers(0, 400), st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_wilson_is_scipys(successes, n, confidence):
    successes = min(successes, n)
    oracle = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_wilson_at_the_ends():
    assert wilson(0, 10)[0] == 0.0
    # With no success the upper end is z^2 / (n + z^2) = 3.841459 / 13.841459.
    assert wilson(0, 10)[1] == pytest.approx(0.277533, abs=1e-6)
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (1, 0), (math.nan, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(InputError, match="is impossible; give 0 <= successes <= n"):
        wilson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_confidence_is_a_share(confidence):
    with pytest.raises(InputError, match=r"confidence is .* must lie between 0 and 1"):
        wilson(1, 2, confidence)


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (5, 2, 1, 0.4),  # 2/5
        (5, 2, 2, 0.7),  # 1 - C(3,2)/C(5,2) = 1 - 3/10
        (5, 2, 4, 1.0),  # any four of five hold one of the two
        (4, 1, 2, 0.5),  # 1 - C(3,2)/C(4,2) = 1 - 3/6
        (7, 0, 3, 0.0),
        (3, 3, 1, 1.0),
    ],
)
def test_pass_at_k_by_hand(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.83])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 2), (6, 6), (7, 3)])
def test_pass_at_k_is_unbiased(p, n, k):
    """The mean over all 2^n ways the samples can turn out is the true chance, 1 - (1 - p)^k."""
    mean = 0.0
    for verdicts in itertools.product((0, 1), repeat=n):
        c = sum(verdicts)
        mean += p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k)
    assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_pass_at_k_by_monte_carlo():
    """Drawing k of the n samples without replacement finds a right one as often as said: 1 - C(7,3)/C(10,3) = .7083."""
    draw = random.Random(0)
    samples = [1] * 3 + [0] * 7
    hits = sum(any(draw.sample(samples, 3)) for _ in range(20_000)) / 20_000
    assert pass_at_k(10, 3, 3) == pytest.approx(1 - 35 / 120, abs=1e-12)
    assert hits == pytest.approx(pass_at_k(10, 3, 3), abs=4 * math.sqrt(0.7083 * 0.2917 / 20_000))


def test_pass_at_k_refuses_what_it_cannot_know():
    with pytest.raises(InputError, match="k = 4 cannot be estimated from n = 3 samples"):
        pass_at_k(3, 1, 4)
    with pytest.raises(InputError, match="k = 0"):
        pass_at_k(3, 1, 0)
    with pytest.raises(InputError, match="4 right of 3 samples is impossible"):
        pass_at_k(3, 4, 1)


def test_mcnemar_by_hand():
    # 2 (C(12,0) + C(12,1) + C(12,2)) / 2^12 = 2 * 79 / 4096
    assert mcnemar(10, 2) == pytest.approx(158 / 4096, abs=1e-15)
    assert round(mcnemar(10, 2), 4) == 0.0386
    assert mcnemar(0, 1) == 1.0  # 2 * 1/2
    assert mcnemar(0, 6) == 2 / 64
    assert mcnemar(0, 0) == mcnemar(1, 1) == mcnemar(40, 40) == 1.0
    assert mcnemar(0, 5000) == 0.0  # 2^-4999


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_test(b, c):
    oracle = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(oracle, rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(InputError, match="b = -1 and c = 2"):
        mcnemar(-1, 2)


@given(st.floats(0.5, 0.9999), st.integers(1, 1000))
def test_t_quantile_is_scipys(probability, degrees):
    assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9, abs=1e-9)


def test_t_quantile_far_out_is_nearly_normal():
    assert t_quantile(0.975, 1001) == pytest.approx(stats.t.ppf(0.975, 1001), rel=0.0013)


def test_paired_difference_by_hand():
    # changes 1, 2, 3: mean 2, sd 1, error 1/sqrt(3); t(.975, 2) = 4.302653
    found = paired_difference([1.0, 1.0, 1.0], [2.0, 3.0, 4.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert found.error == pytest.approx(3**-0.5, abs=1e-15)
    assert found.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)
    assert found.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-6)


def test_paired_difference_is_scipys():
    before, after = [0.1, 0.4, 0.35, 0.8, 0.2], [0.3, 0.5, 0.3, 0.95, 0.6]
    oracle = stats.ttest_rel(after, before).confidence_interval(0.9)
    found = paired_difference(before, after, 0.9)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_one_pair_says_nothing_about_the_spread():
    found = paired_difference([1.0], [3.0])
    assert found.mean == 2.0
    assert math.isnan(found.error)
    assert (found.low, found.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([1.0], [1.0, 2.0], "1 and 2 numbers are not pairs"),
        ([], [], "0 and 0 numbers are not pairs"),
        ([math.nan], [1.0], "a number is NaN"),
    ],
)
def test_paired_difference_refuses(before, after, message):
    with pytest.raises(InputError, match=message):
        paired_difference(before, after)


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["a", "b", "b"], "b"),
        (["b", "a", "a", "b"], "b"),  # a tie: the first seen
        ([None, None, None, "a"], "a"),  # what cannot be read does not vote
        ([None, None], None),
        ([], None),
    ],
)
def test_majority_vote(answers, winner):
    assert majority_vote(answers) == winner


@given(st.lists(st.sampled_from(["a", "b", "c", None])))
def test_no_answer_has_more_votes_than_the_winner(answers):
    winner = majority_vote(answers)
    if winner is None:
        assert all(answer is None for answer in answers)
    else:
        others = [answers.count(a) for a in set(answers) - {None, winner}]
        assert all(answers.count(winner) >= votes for votes in others)


def test_best_constant():
    assert best_constant(["3", "4", "3", "5"]) == ("3", 0.5)
    assert best_constant(["3", None, "4", None]) == ("3", 0.5)  # unknown references leave the count
    # Chosen on train, where 4 leads, and judged on the items, one in four of which is 4.
    assert best_constant(["3", "4", "3", "5"], train=["4", "4", "3"]) == ("4", 0.25)


def test_best_constant_of_nothing_is_not_a_number():
    assert math.isnan(best_constant([None, None]).accuracy)
    assert best_constant([None]).answer is None
