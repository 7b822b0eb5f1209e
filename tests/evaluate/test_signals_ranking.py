"""AUC within prompts and rank correlation: by hand, against scikit-learn and SciPy, and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from reckon.evaluate import auc, bootstrap, count_pairs, spearman
from reckon.evaluate._signals_ranking import correlations, rank, rank_products
from reckon.types import Rng

NAN = math.nan


def arrays(*rows):
    return tuple(np.array(row, dtype=float) for row in rows)


def test_pairs_by_hand():
    """Prompt 0: right 3 and 1, wrong 2 and 1. Pairs: 3>2, 3>1, 1<2, 1=1 (a tie). Prompt 1 has only right answers."""
    scores, right = arrays([3, 1, 2, 1, 9], [1, 1, 0, 0, 1])
    found = count_pairs(scores, right, np.array([0, 0, 0, 0, 1]), 2)
    assert found.pairs.tolist() == [4, 0]
    assert found.ties.tolist() == [1, 0]
    assert found.wins.tolist() == [2.5, 0]  # two won, and half of the tie
    assert found.auc == 2.5 / 4


def test_what_is_unknown_is_in_no_pair():
    scores, right = arrays([3, NAN, 2, 1, 5], [1, 1, 0, 0, NAN])
    found = count_pairs(scores, right, np.zeros(5, dtype=int), 1)
    assert found.pairs.tolist() == [2]  # 3 against 2 and 1
    assert found.auc == 1
    assert math.isnan(count_pairs(scores[:2], right[:2], np.zeros(2, dtype=int), 1).auc)


def test_only_pairs_of_like_length_count():
    """Right: length 100. Wrong: 110 (1.1 times, counts), 111 (does not), 91 (100 / 91 = 1.099, counts)."""
    scores, right, lengths = arrays([1, 0, 2, 3], [1, 0, 0, 0], [100, 110, 111, 91])
    found = count_pairs(scores, right, np.zeros(4, dtype=int), 1, lengths=lengths)
    assert found.pairs.tolist() == [2]
    assert found.auc == 0.5  # won against the one of 110, lost against the one of 91


def test_knowing_which_prompt_is_easy_earns_nothing_within_prompts():
    """Prompt 0 is easy (2 of 3 right), prompt 1 hard (1 of 3); the score is the prompt's ease."""
    scores, right = arrays([1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0])
    assert count_pairs(scores, right, np.array([0, 0, 0, 1, 1, 1]), 2).auc == 0.5
    # Pooled: right 1, 1, 0 and wrong 1, 0, 0. Each right 1: tie, won, won = 2.5; the right 0: lost, tie, tie = 1.
    assert auc(scores, right) == pytest.approx((2.5 + 2.5 + 1) / 9)


answers = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40)


@given(answers)
def test_pooled_auc_equals_scikit_learns(rows):
    scores, right = arrays([row[0] for row in rows], [row[1] for row in rows])
    if len(set(right)) == 2:
        assert auc(scores, right) == pytest.approx(roc_auc_score(right, scores))
    else:
        assert math.isnan(auc(scores, right))


@given(answers)
def test_auc_within_each_prompt_equals_scikit_learns(rows):
    rows = sorted(rows, key=lambda row: row[2])
    scores, right = arrays([row[0] for row in rows], [row[1] for row in rows])
    group = np.array([row[2] for row in rows])
    found = count_pairs(scores, right, group, 4)
    for g in range(4):
        mine = group == g
        if len(set(right[mine])) == 2:
            assert found.wins[g] / found.pairs[g] == pytest.approx(roc_auc_score(right[mine], scores[mine]))
        else:
            assert found.pairs[g] == 0


@given(answers, st.sampled_from([np.exp, np.arctan, lambda x: 3 * x - 7, lambda x: x**3]))
def test_a_monotone_transform_changes_no_ranking(rows, transform):
    rows = sorted(rows, key=lambda row: row[2])
    scores, right = arrays([row[0] for row in rows], [row[1] for row in rows])
    group = np.array([row[2] for row in rows])
    before, after = count_pairs(scores, right, group, 4), count_pairs(transform(scores), right, group, 4)
    assert before.wins.tolist() == after.wins.tolist()
    np.testing.assert_equal(auc(scores, right), auc(transform(scores), right))
    turned = count_pairs(-scores, right, group, 4)
    assert (before.wins + turned.wins).tolist() == before.pairs.tolist()


def test_ranks_share_the_mean_of_their_places():
    assert rank(np.array([10.0, 20.0, 10.0, 30.0])).tolist() == [1.5, 3, 1.5, 4]


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=30))
def test_rank_correlation_equals_scipys(rows):
    x, y = arrays([a for a, _ in rows], [b for _, b in rows])
    if len(set(x)) > 1 and len(set(y)) > 1:
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
        sums = rank_products(x, y, np.zeros(len(x), dtype=int), np.zeros(len(x), dtype=int), 1)
        assert correlations(sums[0]) == pytest.approx(spearmanr(x, y).statistic)  # one stratum: the same
    else:
        assert math.isnan(spearman(x, y))


def test_rank_correlation_leaves_out_what_is_unknown():
    x, y = arrays([1, 2, NAN, 3], [3, 2, 0, NAN])
    assert spearman(x, y) == -1


def test_strata_take_out_what_differs_between_them():
    """Within both strata y falls with x; over all it rises, since the second stratum is higher in both."""
    x, y = arrays([1, 2, 11, 12], [2, 1, 12, 11])
    stratum = np.array([0, 0, 1, 1])
    assert spearman(x, y) == pytest.approx(0.6)  # ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15)
    sums = rank_products(x, y, stratum, stratum, 2)
    assert sums.tolist() == [[-0.5, 0.5, 0.5]] * 2  # ranks centered: (-0.5, 0.5) against (0.5, -0.5)
    assert correlations(sums.sum(axis=0)) == -1
    left = rank_products(x, y, np.array([0, 0, -1, -1]), stratum, 2)
    assert left[1].tolist() == [0, 0, 0]


def test_intervals_come_from_whole_problems():
    """Groups 0 and 1 pose one problem: drawn together, so that only two problems speak, each wholly won or lost."""
    sums = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0]])
    found = bootstrap(sums, np.array([0, 0, 1]), Rng(("test",)))
    assert found.value == 0.5
    assert (found.low, found.high) == (0, 1)  # a quarter of the draws take one problem twice


def test_an_interval_needs_two_problems():
    found = bootstrap(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([0, 1]), Rng(("test",)))
    assert found.value == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_an_interval_covers_as_often_as_it_says():
    """40 problems of 5 answers that are right or wrong together; the true share is 0.5. Seen in 95% of 300 trials."""
    hits = 0
    for trial in range(300):
        wins = np.random.default_rng(trial).integers(0, 2, 40).astype(float)
        found = bootstrap(np.stack([5 * wins, np.full(40, 5.0)], 1), np.arange(40), Rng((trial,)), draws=400)
        hits += found.low <= 0.5 <= found.high
    assert 0.91 <= hits / 300 <= 0.98
