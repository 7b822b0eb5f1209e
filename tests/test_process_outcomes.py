"""The best of k for rewards of 0 and 1, and token weights out of outcomes: OREAL's numbers and enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.process import (
    best_of_k,
    best_of_k_kl,
    best_of_k_law,
    best_of_k_temperature,
    outcome_weights,
)

# The best of k: section 6, checks 5 and 6


@pytest.mark.parametrize(
    ("p", "k", "q", "divergence", "alpha"),
    [
        (0.5, 4, 0.9375, 0.459356, 0.369269),
        (0.25, 4, 0.683594, 0.414556, 0.535060),
        (0.25, 8, 0.899887, 0.950978, 0.303529),
    ],
)
def test_chance_divergence_and_temperature(p, k, q, divergence, alpha):
    p = torch.tensor(p, dtype=torch.float64)
    assert float(best_of_k(p, k)) == pytest.approx(q, abs=5e-7)
    assert float(best_of_k_kl(p, k)) == pytest.approx(divergence, abs=5e-7)
    assert float(best_of_k_temperature(p, k)) == pytest.approx(alpha, abs=5e-7)


def test_the_divergence_is_bounded_whatever_k():
    """log 2 and log 4, not the unbounded log k - (k - 1) / k of rewards that never tie."""
    for p, limit in ((0.5, 0.693147), (0.25, 1.386294)):
        found = [float(best_of_k_kl(torch.tensor(p, dtype=torch.float64), k)) for k in (1, 4, 32, 1000)]
        assert found[0] == pytest.approx(0, abs=1e-12)
        assert found == sorted(found)
        assert found[-1] == pytest.approx(limit, abs=1e-6)
        assert math.log(1000) - 0.999 > 4 * limit


def drawn(seed, outcomes=4):
    numbers = np.random.default_rng(seed)
    law = torch.from_numpy(numbers.dirichlet(np.ones(outcomes)))
    return law, torch.tensor([True, False, True, False])


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_law_is_that_of_all_ways_to_draw(k):
    law, right = drawn(k)
    wanted = torch.zeros(4, dtype=torch.float64)
    for ways in itertools.product(range(4), repeat=k):
        good = [y for y in ways if right[y]]
        wanted[(good or ways)[0]] += law[list(ways)].prod()
    torch.testing.assert_close(best_of_k_law(law, right, k), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [2, 5, 16])
def test_it_is_the_optimum_under_its_own_temperature_and_has_its_own_divergence(k):
    law, right = drawn(9)
    p, best = law[right].sum(), best_of_k_law(law, right, k)
    alpha = best_of_k_temperature(p, k)
    tilted = law * (right / alpha).exp()
    torch.testing.assert_close(best, tilted / tilted.sum(), rtol=0, atol=1e-12)
    assert float((best * (best / law).log()).sum()) == pytest.approx(float(best_of_k_kl(p, k)), abs=1e-12)


def test_one_draw_changes_nothing_and_many_give_the_right_ones_alone():
    law, right = drawn(2)
    torch.testing.assert_close(best_of_k_law(law, right, 1), law)
    limit = torch.where(right, law, 0.0) / law[right].sum()
    torch.testing.assert_close(best_of_k_law(law, right, 10_000), limit, rtol=0, atol=1e-6)
    assert float(best_of_k_temperature(law[right].sum(), 10_000)) < 0.01


@pytest.mark.parametrize("k", [1, 3, 8])
def test_gradients_by_finite_differences(k):
    """grad E[R] of the best is k (1 - p)^(k - 1) grad p; what is right and what is wrong pull equally hard."""
    logits = torch.tensor([0.3, -0.5, 0.1, 0.8], dtype=torch.float64)
    right = torch.tensor([True, False, True, False])

    def chance(at, of=1):
        law = at.softmax(0)
        return float((best_of_k_law(law, right, of) * right).sum())

    step = 1e-6 * torch.eye(4, dtype=torch.float64)
    slope = torch.tensor([(chance(logits + e) - chance(logits - e)) / 2e-6 for e in step], dtype=torch.float64)
    best = torch.tensor([(chance(logits + e, k) - chance(logits - e, k)) / 2e-6 for e in step], dtype=torch.float64)
    p = chance(logits)
    torch.testing.assert_close(best, k * (1 - p) ** (k - 1) * slope, rtol=1e-5, atol=1e-8)
    law = logits.softmax(0)
    scores = torch.eye(4, dtype=torch.float64) - law
    of_right, of_wrong = ((law * side) @ scores for side in (right, ~right))
    torch.testing.assert_close(of_right, -of_wrong, rtol=0, atol=1e-12)
    torch.testing.assert_close(of_right, slope, rtol=0, atol=1e-8)


# Token weights: section 6, checks 2 and 3

W = torch.tensor([[0.0, 2.0, -1.0, 3.0]])
ALL = torch.ones(1, 4, dtype=torch.bool)
YES, NO = torch.tensor([True]), torch.tensor([False])


def weights(logits, right, mask=None, **how):
    logits = torch.tensor([logits]) if isinstance(logits, list) else logits
    mask = torch.ones(logits.shape, dtype=torch.bool) if mask is None else mask
    return outcome_weights(logits, mask, right, **how)[0].tolist()


def test_weights_of_the_specification():
    """Means 0, 1, 1/3, 1; P .5, .73106, .58257, .73106; and by single tokens."""
    assert weights(W, YES) == pytest.approx([0, 0.46212, 0.16514, 0.46212], abs=5e-6)
    assert weights(W, NO) == [0, 0, 0, 0]
    assert weights(W, YES, how="token") == pytest.approx([0, 0.76159, 0, 0.90515], abs=5e-6)
    assert weights(W, NO, how="token") == pytest.approx([0, 0, 0.46212, 0], abs=5e-6)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=6),
    st.sampled_from(["mean", "token"]),
)
def test_one_side_at_a_time_a_tangent_and_a_mirror(logits, how):
    """2 sigmoid(m) - 1 = tanh(m / 2), one of both weights is 0, and turning the signs around swaps them."""
    up, down = weights(logits, YES, how=how), weights(logits, NO, how=how)
    means = [sum(logits[: t + 1]) / (t + 1) for t in range(len(logits))] if how == "mean" else logits
    assert up == pytest.approx([max(0.0, math.tanh(m / 2)) for m in means], abs=2e-6)
    assert all(a * b == 0 for a, b in zip(up, down, strict=True))
    assert weights([-x for x in logits], NO, how=how) == up
    assert weights([-x for x in logits], YES, how=how) == down


def test_a_threshold_above_one_half_asks_for_more():
    """(.73106 - .6) / .4 = .32765; .58257 is below."""
    assert weights(W, YES, threshold=0.6) == pytest.approx([0, 0.32765, 0, 0.32765], abs=5e-6)
    assert weights(W, YES, threshold=0.0) == pytest.approx([0.5, 0.73106, 0.58257, 0.73106], abs=5e-6)


def test_the_top_is_weighed_from_its_smallest_to_its_largest():
    """Means 0, 1, 1/3, 1: the top half are the two 1s, three quarters also 1/3, of a wrong response 0 and -1/3."""
    assert weights(W, YES, how="top") == [0, 1, 0, 1]
    assert weights(W, YES, how="top", top=0.75) == [0, 1, 0, 1]
    low, middle, high = (1 / (1 + math.exp(m)) for m in (1, 1 / 3, 0))
    assert weights(W, NO, how="top") == pytest.approx([1, 0, 0, 0])
    assert weights(W, NO, how="top", top=1.0) == pytest.approx([1, 0, (middle - low) / (high - low), 0])


def test_the_top_of_a_short_response_is_one_token_and_ties_go_to_the_first():
    assert weights([2.0], YES, how="top") == [1]
    assert weights([1.0, 1.0, 1.0], YES, how="top") == [1, 0, 0]
    assert weights([0.0] * 4, YES, how="top", top=0.75) == [1, 1, 1, 0]
    assert sum(weights([0.0] * 100, YES, how="top", top=0.29)) == 29


@pytest.mark.parametrize("how", ["mean", "token", "top"])
@pytest.mark.parametrize("right", [YES, NO])
def test_padding_and_a_given_prefix_are_not_there(how, right):
    """What stands around the response, NaN and infinities included, changes no weight."""
    alone = weights(W, right, how=how)
    around = torch.tensor([[math.nan, 9.0, *W[0].tolist(), math.inf]])
    mask = torch.tensor([[False, False, True, True, True, True, False]])
    assert weights(around, right, mask, how=how) == [0, 0, *alone, 0]
    nothing = torch.zeros(1, 7, dtype=torch.bool)
    assert weights(around, right, nothing, how=how) == [0] * 7


def test_rows_do_not_touch_each_other():
    rows = torch.cat([W, -W, 2 * W])
    sides = torch.tensor([True, False, False])
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])
    for how in ("mean", "token", "top"):
        found = outcome_weights(rows, mask, sides, how=how)
        for i in range(3):
            assert found[i].tolist() == weights(rows[i : i + 1], sides[i : i + 1], mask[i : i + 1], how=how)


def test_another_way_is_refused():
    with pytest.raises(ValueError, match="how is 'cumulative'; it must be one of mean, token, top"):
        outcome_weights(W, ALL, YES, how="cumulative")
    with pytest.raises(ValueError, match="logits must be of shape"):
        outcome_weights(W[0], ALL, YES)
