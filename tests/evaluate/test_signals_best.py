"""Best-of-N and the majority vote over subsets, against counting all of them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reckon.errors import InputError
from reckon.evaluate import best_of_n, pass_at_k, vote_of_n, vote_of_subsets
from reckon.evaluate._signals_best import sizes
from reckon.types import Rng

RNG = Rng(("test",))


def chosen_by_hand(scores, right, k):
    """Over all subsets: the mean verdict of the answers that share the highest score."""
    found = []
    for subset in itertools.combinations(range(len(scores)), k):
        top = max(scores[i] for i in subset)
        found.append(np.mean([right[i] for i in subset if scores[i] == top]))
    return np.mean(found)


def test_best_of_two_by_hand():
    """Scores 3 (wrong), 2 (right), 1 (right). Pairs: {3,2} wrong, {3,1} wrong, {2,1} right: 1 of 3."""
    assert best_of_n(np.array([3.0, 2.0, 1.0]), np.array([0.0, 1.0, 1.0]), 2) == pytest.approx(1 / 3)


samples = st.lists(st.tuples(st.integers(-2, 2), st.booleans()), min_size=1, max_size=7)


@given(samples, st.data())
def test_best_of_k_equals_counting_all_subsets(rows, data):
    k = data.draw(st.integers(1, len(rows)))
    scores, right = (np.array([row[i] for row in rows], dtype=float) for i in (0, 1))
    assert best_of_n(scores, right, k) == pytest.approx(chosen_by_hand(scores, right, k))


@given(samples, st.data())
def test_a_perfect_score_gives_pass_at_k(rows, data):
    k = data.draw(st.integers(1, len(rows)))
    right = np.array([row[1] for row in rows], dtype=float)
    assert best_of_n(right, right, k) == pytest.approx(pass_at_k(len(right), int(right.sum()), k))
    assert best_of_n(right, right, 1) == pytest.approx(right.mean())


@given(samples, st.data())
def test_a_score_that_knows_nothing_gives_pass_at_1(rows, data):
    k = data.draw(st.integers(1, len(rows)))
    right = np.array([row[1] for row in rows], dtype=float)
    assert best_of_n(np.zeros(len(right)), right, k) == pytest.approx(right.mean())


def test_a_score_that_is_unknown_loses_to_every_other():
    assert best_of_n(np.array([math.nan, -5.0]), np.array([0.0, 1.0]), 2) == 1
    assert best_of_n(np.array([math.nan, math.nan]), np.array([0.0, 1.0]), 2) == 0.5


@pytest.mark.parametrize("k", [0, 3])
def test_more_samples_than_there_are_cannot_be_had(k):
    with pytest.raises(InputError, match=f"k = {k} cannot be estimated from n = 2"):
        best_of_n(np.zeros(2), np.zeros(2), k)
    with pytest.raises(InputError, match=f"k = {k} cannot be estimated from n = 2"):
        vote_of_n(["a", "b"], np.zeros(2), k, RNG)


def test_an_unknown_verdict_is_refused():
    with pytest.raises(InputError, match="a verdict is unknown"):
        best_of_n(np.zeros(2), np.array([1.0, math.nan]), 1)


def voted_by_hand(answers, right, k):
    found = []
    for subset in itertools.combinations(range(len(answers)), k):
        votes = {a: sum(answers[i] == a for i in subset) for a in {answers[i] for i in subset} - {None}}
        winners = [a for a in votes if votes[a] == max(votes.values())]
        share = {a: np.mean([r for b, r in zip(answers, right, strict=True) if b == a]) for a in winners}
        found.append(np.mean(list(share.values())) if winners else 0.0)
    return np.mean(found)


def test_majority_of_three_by_hand():
    """Answers 7 7 8 with 7 right: all three vote 7. Of two: {7,7} right, {7,8} twice a tie, half right: 2 of 3."""
    answers, right = ["7", "7", "8"], np.array([1.0, 1.0, 0.0])
    assert vote_of_n(answers, right, 3, RNG) == 1
    assert vote_of_n(answers, right, 2, RNG) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert vote_of_n(answers, right, 1, RNG) == pytest.approx(2 / 3)
    assert vote_of_n([None, None], np.array([0.0, 0.0]), 2, RNG) == 0


def test_given_subsets_and_weights_by_hand():
    """Of {a, b} and {b, c}: weights 1, 2, 2 let b win, then tie b and c, of which c is right: (0 + 1/2) / 2."""
    answers, right, subsets = ["a", "b", "c"], np.array([1.0, 0.0, 1.0]), np.array([[0, 1], [1, 2]])
    assert vote_of_subsets(answers, right, subsets, np.array([1.0, 2.0, 2.0])) == 0.25
    # Alone with a weight of 0, a still wins: b and c, which nobody here gave, do not tie with it.
    assert vote_of_subsets(answers, right, np.array([[0]]), np.zeros(3)) == 1
    assert vote_of_n(answers, right, 2, RNG, np.array([1.0, 2.0, 2.0])) == pytest.approx((0 + 1 + 0.5) / 3)


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=7), st.data())
def test_majority_equals_counting_all_subsets(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    right = np.array([float(answer == "a") for answer in answers])
    assert vote_of_n(answers, right, k, RNG) == pytest.approx(voted_by_hand(answers, right, k))


def test_drawn_subsets_come_close_to_all_of_them():
    """C(16, 8) = 12,870 subsets are too many to count each time; 256 of them are off by 0.5 / sqrt(256) at most."""
    answers = ["a"] * 6 + ["b"] * 5 + ["c"] * 3 + [None] * 2
    right = np.array([float(answer == "a") for answer in answers])
    assert vote_of_n(answers, right, 8, RNG) == pytest.approx(voted_by_hand(answers, right, 8), abs=0.08)
    assert vote_of_n(answers, right, 8, RNG) == vote_of_n(answers, right, 8, RNG)


@pytest.mark.parametrize(
    ("counts", "ks"),
    [
        ([16] * 10, [1, 2, 4, 8, 16]),
        ([12] * 8 + [3, 3], [1, 2, 4, 8, 12]),  # 8 of 10 prompts have 12 samples: enough
        ([12] * 7 + [3, 3, 3], [1, 2, 3]),
        ([1, 1, 0], [1]),
        ([], []),
    ],
)
def test_curves_go_as_far_as_four_fifths_of_the_prompts_do(counts, ks):
    assert sizes(counts) == ks
