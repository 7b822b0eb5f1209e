"""Choosing one of N: by hand, against every subset, and what must hold of any scores."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reckon.errors import InputError
from reckon.evaluate import majority_vote, pass_at_k
from reckon.search import best_of_n, expected_best_of_n, expected_vote, vote, vote_scale, vote_weights
from reckon.types import Rng

NAN = math.nan
RNG = Rng((0,))
ranks = st.integers(-3, 3).map(float)
scored = st.lists(st.tuples(st.one_of(ranks, st.just(NAN)), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=7)


def test_the_first_of_the_best():
    assert best_of_n([0.1, 0.7, 0.7]) == 1
    assert best_of_n([NAN, -5, NAN]) == 1
    assert best_of_n([NAN, NAN]) == 0
    assert best_of_n([NAN, -math.inf]) == 0  # both say: do not take me
    with pytest.raises(InputError, match="no response to choose from"):
        best_of_n([])


def test_expected_best_of_two_by_hand():
    # of the pairs of (3 right, 2 wrong, 1 right): 3 beats both others, 2 beats 1: right, right, wrong
    assert expected_best_of_n([3, 2, 1], [1, 0, 1], 2) == pytest.approx(2 / 3)
    # 3 is the best of two pairs; in the third, two equals, of which one is right, are as likely to come first
    assert expected_best_of_n([1, 3, 1], [1, 0, 0], 2) == pytest.approx((0 + 0 + 0.5) / 3)


@given(scored)
def test_expected_best_of_n_is_the_mean_over_every_subset(rows):
    scores, right = (np.array(column) for column in zip(*rows, strict=True))
    low = np.where(np.isnan(scores), -math.inf, scores)
    for n in range(1, len(rows) + 1):
        chosen = []
        for subset in itertools.combinations(range(len(rows)), n):
            best = [i for i in subset if low[i] == low[list(subset)].max()]
            chosen.append(np.mean(right[best]))
        assert expected_best_of_n(scores, right, n) == pytest.approx(np.mean(chosen))


@given(scored)
def test_one_is_pass_at_1_and_no_score_beats_the_oracle(rows):
    scores, right = zip(*rows, strict=True)
    assert expected_best_of_n(scores, right, 1) == pytest.approx(np.mean(right))
    for n in range(1, len(rows) + 1):
        assert expected_best_of_n(scores, right, n) <= expected_best_of_n(right, right, n) + 1e-12


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("c", [0, 2, 8])
def test_the_oracle_is_pass_at_k(c, n):
    right = [1.0] * c + [0.0] * (8 - c)
    assert expected_best_of_n(right, right, n) == pytest.approx(pass_at_k(8, c, n))


@given(scored, st.floats(0.1, 10), st.randoms())
def test_only_the_order_of_scores_counts_and_not_that_of_responses(rows, scale, random):
    mixed = rows[:]
    random.shuffle(mixed)
    scores, right = zip(*rows, strict=True)
    others, outcomes = zip(*mixed, strict=True)
    n = max(1, len(rows) // 2)
    wanted = expected_best_of_n(scores, right, n)
    assert expected_best_of_n([scale * score + 1 for score in others], outcomes, n) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("scores", "right", "n"), [([1.0], [1.0], 2), ([1.0], [1.0], 0), ([1.0, 2.0], [1.0], 1), ([], [], 1)]
)
def test_numbers_that_do_not_fit(scores, right, n):
    with pytest.raises(InputError, match="give 1 <= n"):
        expected_best_of_n(scores, right, n)


@pytest.mark.parametrize("wrong", [NAN, 2.0])
def test_outcomes_that_are_none(wrong):
    with pytest.raises(InputError, match="outside"):
        expected_best_of_n([1, 2], [1, wrong], 1)


# Votes


def test_the_weighted_vote_by_hand():
    """Sigmoids at 0.001: .495, .49975, .499625, .500125; at 1: 2e-9, .269, .182, .622."""
    answers, raw = ["A", "A", "B", "C"], [-20.0, -1.0, -1.5, 0.5]
    flat, sharp = vote_weights(raw, 0.001), vote_weights(raw, 1.0)
    assert flat[:2].sum() == pytest.approx(0.995, abs=5e-4)
    assert flat[3] == pytest.approx(0.500, abs=5e-4)
    assert [sharp[:2].sum(), sharp[2], sharp[3]] == pytest.approx([0.269, 0.182, 0.622], abs=5e-4)
    assert vote(answers, flat) == "A"
    assert vote(answers, sharp) == "C"


def test_weights_of_probabilities_unknowns_and_the_far_ends():
    assert vote_weights([0.2, NAN, 1.0], None).tolist() == [0.2, 0.0, 1.0]
    assert vote_weights([-1e6, 1e6, NAN, 0.0, math.inf], 1.0) == pytest.approx([0, 1, 0, 0.5, 1])
    with pytest.raises(InputError, match="Give a scale"):
        vote_weights([1.5], None)
    for scale in (0.0, -1.0, math.inf):
        with pytest.raises(InputError, match="it must be above 0"):
            vote_weights([0.5], scale)


def test_what_lies_between_0_and_1_votes_as_it_is():
    """A, A, B by chances .3, .3, .7: .6 against .7 elects B; their sigmoids, .574, .574 and .668, would elect A."""
    answers, chances = ["A", "A", "B"], [0.3, 0.3, 0.7]
    assert vote(answers, vote_weights(chances, vote_scale(chances))) == "B"
    assert vote(answers, vote_weights(chances, 1.0)) == "A"
    for shares in ([0.0, 1.0], [0.5, NAN], [NAN], []):
        assert vote_scale(shares) is None
    for raw in ([0.5, 1.01], [-0.01, 0.5], [math.inf, 0.5]):
        assert vote_scale(raw) == 1


def test_weights_that_are_all_0_are_equal():
    assert vote(["b", "a", "a", None], [0, 0, 0, 1]) == "a"
    # Of the pairs ab, ab, aa of a, a, b, all of no weight, the first two tie and a (right) has the third.
    assert expected_vote(["a", "a", "b"], [1, 1, 0], 2, RNG, [0, 0, 0]) == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


def test_votes_and_their_ties():
    assert vote(["b", "a", "a", "b"]) == "b"  # the first seen
    assert vote([None, None, "a"]) == "a"
    assert vote([None, None]) is None
    assert vote([]) is None
    with pytest.raises(InputError, match="as many weights"):
        vote(["a"], [1, 2])
    with pytest.raises(InputError, match="at least 0"):
        vote(["a"], [-1])


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=9), st.floats(0.001, 10))
def test_equal_weights_are_the_majority(answers, weight):
    assert vote(answers, [weight] * len(answers)) == vote(answers) == majority_vote(answers)


def test_the_expected_vote_over_every_subset():
    """Three of a (wrong), b, b (right), None: pairs ab ab a- bb b- b-, where a tie is half right."""
    assert expected_vote(["a", "b", "b", None], [0, 1, 1, 0], 2, RNG) == pytest.approx((1 / 2 + 1 / 2 + 0 + 3) / 6)
    assert expected_vote([None, None], [0, 0], 1, RNG) == 0
    assert expected_vote(["a", "b", "b", None], [0, 1, 1, 0], 2, RNG, [0.1, 1, 1, 1]) == pytest.approx(5 / 6)


def test_drawn_subsets_agree_with_all_of_them():
    answers = [*"aabbbcdeaab", None]
    right = [float(answer == "a") for answer in answers]
    everything = expected_vote(answers, right, 6, RNG, draws=10**6)  # 924 subsets
    drawn = [expected_vote(answers, right, 6, Rng((seed,)), draws=200) for seed in range(30)]
    error = np.std(drawn, ddof=1) / math.sqrt(30)
    assert abs(np.mean(drawn) - everything) < 3 * error
    assert expected_vote(answers, right, 6, Rng((0,)), draws=200) == drawn[0]


def test_a_vote_of_one_is_right_as_often_as_a_response():
    answers, right = ["a", "b", None, "a"], [1, 0, 0, 1]
    assert expected_vote(answers, right, 1, RNG) == pytest.approx(0.5)
    with pytest.raises(InputError, match="give 1 <= n"):
        expected_vote(answers, right, 5, RNG)
