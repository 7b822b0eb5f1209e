import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.advantages import (
    batch_mean,
    explained_variance,
    gae,
    group_normalized,
    leave_one_out,
    returns_to_go,
    running_mean,
    sum_known,
    sum_tokens,
    whiten,
)

slow_start = settings(deadline=None)  # torch's first call takes longer than hypothesis allows an example
NAN = math.nan
eighths = st.integers(-80, 80).map(lambda i: i / 8)
rewards_or_nan = st.one_of(eighths, st.just(NAN))
rows = st.lists(st.tuples(st.integers(0, 3), rewards_or_nan), min_size=1, max_size=16)


def tensors(rows):
    return torch.tensor([r for _, r in rows], dtype=torch.float64), torch.tensor([g for g, _ in rows])


def same(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(
        found, torch.as_tensor(wanted, dtype=found.dtype), rtol=tolerance, atol=tolerance, equal_nan=True
    )


# Group-normalized


@pytest.mark.parametrize(
    ("rewards", "wanted"),
    [
        # mean 1/4; squares 9/16 + 3/16 = 3/4, over 3: std 1/2
        ([1, 0, 0, 0], [1.5, -0.5, -0.5, -0.5]),
        # mean -1/2; squares 9/4 + 3/4 = 3, over 3: std 1. The scale of rewards is no matter.
        ([1, -1, -1, -1], [1.5, -0.5, -0.5, -0.5]),
        # mean 1; squares 1 + 0 + 1 = 2, over 2: std 1
        ([0, 1, 2], [-1, 0, 1]),
        # mean 1; squares 4 + 4 + 4 + 4 = 16, over 4: std 2
        ([3, -1, 3, -1, 1], [1, -1, 1, -1, 0]),
        # mean 1/8; squares 49/64 + 7/64 = 7/8, over 7: std 1 / sqrt(8): 2.4749 and seven times -0.3536
        ([1, 0, 0, 0, 0, 0, 0, 0], [7 / 8**0.5, *[-1 / 8**0.5] * 7]),
    ],
)
def test_group_normalized_by_hand(rewards, wanted):
    group = torch.zeros(len(rewards), dtype=torch.int64)
    same(group_normalized(torch.tensor(rewards, dtype=torch.float64), group, eps=0.0), wanted)


def test_eps_is_added_to_the_standard_deviation_and_is_small_by_default():
    rewards, group = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    # std 1/2: 3/4 / (1/2 + 1/4) = 1
    same(group_normalized(rewards, group, eps=0.25), [1, -1 / 3, -1 / 3, -1 / 3])
    same(group_normalized(rewards, group), [0.75 / 0.500001, -0.25 / 0.500001, -0.25 / 0.500001, -0.25 / 0.500001])


def test_group_normalized_without_std_is_the_distance_from_the_mean():
    rewards, group = torch.tensor([1.0, 0, 0, 0, 5, 3]), torch.tensor([0, 0, 0, 0, 1, 1])
    same(group_normalized(rewards, group, std=False), [0.75, -0.25, -0.25, -0.25, 1, -1])


def test_groups_need_be_neither_adjacent_nor_numbered_from_zero():
    rewards, group = torch.tensor([1.0, 10, 0, 0, 30, 0]), torch.tensor([7, 40, 7, 7, 40, 7])
    same(group_normalized(rewards, group, std=False), [0.75, -10, -0.25, -0.25, 10, -0.25])
    same(leave_one_out(rewards, group), [1, -20, -1 / 3, -1 / 3, 20, -1 / 3], 1e-6)


@pytest.mark.parametrize("reward", [0.1, 1 / 3, 1e6 + 0.1, -0.7])
@pytest.mark.parametrize("n", [2, 3, 7, 10])
def test_equal_rewards_are_worth_exactly_nothing(reward, n):
    rewards, group = torch.full((n,), reward), torch.zeros(n, dtype=torch.int64)
    for found in (
        group_normalized(rewards, group),
        group_normalized(rewards, group, eps=0.0),
        group_normalized(rewards, group, std=False),
        leave_one_out(rewards, group),
        batch_mean(rewards),
    ):
        assert torch.equal(found, torch.zeros(n))


def test_unknown_rewards_leave_count_and_mean():
    rewards = torch.tensor([1, NAN, 0, 0, 3, NAN, NAN, NAN])
    group = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    # group 0 knows (1, 0, 0): mean 1/3; group 1 knows one; group 2 none
    same(group_normalized(rewards, group, std=False), [2 / 3, NAN, -1 / 3, -1 / 3, 0, NAN, NAN, NAN], 1e-6)
    # squares 4/9 + 1/9 + 1/9 = 2/3, over 2: std sqrt(1/3)
    root = math.sqrt(3)
    same(group_normalized(rewards, group, eps=0.0), [2 / 3 * root, NAN, -root / 3, -root / 3, 0, NAN, NAN, NAN], 1e-6)
    same(leave_one_out(rewards, group), [1, NAN, -0.5, -0.5, 0, NAN, NAN, NAN])
    # known: 1, 0, 0, 3; mean 1
    same(batch_mean(rewards), [0, NAN, -1, -1, 2, NAN, NAN, NAN])


@slow_start
@given(rows)
def test_group_normalized_equals_the_textbook_formula(rows):
    rewards, group = tensors(rows)
    wanted = []
    for g, r in rows:
        siblings = [x for h, x in rows if h == g and not math.isnan(x)]
        spread = statistics.stdev(siblings) if len(siblings) > 1 else 0.0
        wanted.append(
            NAN if math.isnan(r) else 0.0 if spread == 0 else (r - statistics.mean(siblings)) / (spread + 1e-3)
        )
    same(group_normalized(rewards, group, eps=1e-3), wanted)


@slow_start
@given(rows, st.sampled_from([0.001, 0.5, 3.0, 1000.0]))
def test_a_positive_scale_of_the_rewards_does_not_matter(rows, scale):
    rewards, group = tensors(rows)
    same(group_normalized(scale * rewards, group, eps=0.0), group_normalized(rewards, group, eps=0.0), 1e-9)


# Leave-one-out


@pytest.mark.parametrize(
    ("k", "c", "right", "wrong"),
    [  # rewards +1 and -1: right 2 (K - c) / (K - 1), wrong -2 c / (K - 1)
        (4, 1, 2, -2 / 3),
        (4, 2, 4 / 3, -4 / 3),
        (4, 3, 2 / 3, -2),
        (16, 4, 1.6, -8 / 15),
        (16, 1, 2, -2 / 15),
    ],
)
def test_leave_one_out_with_c_right_of_k(k, c, right, wrong):
    rewards = torch.tensor([1.0] * c + [-1.0] * (k - c), dtype=torch.float64)
    found = leave_one_out(rewards, torch.zeros(k, dtype=torch.int64))
    same(found, [right] * c + [wrong] * (k - c))
    assert abs(found.sum()) < 1e-12


@slow_start
@given(rows)
def test_leave_one_out_equals_the_double_loop(rows):
    rewards, group = tensors(rows)
    wanted = []
    for i, (g, r) in enumerate(rows):
        others = [x for j, (h, x) in enumerate(rows) if h == g and j != i and not math.isnan(x)]
        wanted.append(NAN if math.isnan(r) else r - statistics.mean(others) if others else 0.0)
    same(leave_one_out(rewards, group), wanted)


# Batch and running mean


def test_batch_mean_by_hand():
    same(batch_mean(torch.tensor([1.0, 0, 0, 3])), [0, -1, -1, 2])
    same(batch_mean(torch.tensor([5.0])), [0])  # nothing to compare with


def test_batch_mean_looks_at_no_group_and_at_float_rewards_only():
    rewards = torch.tensor([0.25, 0.5, 0.9, 0.35], dtype=torch.float64)  # mean 1/2
    same(batch_mean(rewards), [-0.25, 0, 0.4, -0.15])


def test_running_mean_by_hand():
    # decay 3/4. After 8: total 2, weight 1/4, mean 8. After 4 more: total 3/4 * 2 + 1 = 5/2, weight 7/16, mean 40/7.
    first = running_mean(0.0, 0.0, 8.0, decay=0.75)
    assert first == (2.0, 0.25)
    second = running_mean(*first, 4.0, decay=0.75)
    assert second == (2.5, 0.4375)
    assert running_mean(*second, 6.0, decay=0.0) == (6.0, 1.0)


@slow_start
@given(st.lists(eighths, min_size=1, max_size=6), st.sampled_from([0.0, 0.5, 0.9]))
def test_running_mean_is_the_weighted_mean(values, decay):
    total = weight = 0.0
    for value in values:
        total, weight = running_mean(total, weight, value, decay=decay)
    weights = [decay ** (len(values) - 1 - i) for i in range(len(values))]
    wanted = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert total / weight == pytest.approx(wanted, rel=1e-9, abs=1e-9)


# Returns


def test_returns_to_go_by_hand():
    rewards = torch.tensor([[1.0, 2, 3, NAN], [0, 0, 5, 7]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    same(returns_to_go(rewards, mask), [[6, 5, 3, 0], [12, 12, 12, 7]])
    # 3 = 3; 2 + 3/2 = 7/2; 1 + 7/4 = 11/4. 7; 5 + 7/2 = 17/2; 17/4; 17/8.
    same(returns_to_go(rewards, mask, gamma=0.5), [[2.75, 3.5, 3, 0], [2.125, 4.25, 8.5, 7]])
    same(returns_to_go(rewards, mask, 0.0), [[1, 2, 3, 0], [0, 0, 5, 7]])


def test_a_hole_in_the_mask_earns_nothing_and_counts_as_a_step():
    rewards, mask = torch.tensor([[9.0, 1, 9, 4]]), torch.tensor([[False, True, False, True]])
    same(returns_to_go(rewards, mask, gamma=0.5), [[1.0, 2, 2, 4]])  # 4; 0 + 2; 1 + 1; 0 + 1


@pytest.mark.parametrize("length", [0, 1, 2])
def test_returns_to_go_of_short_rows(length):
    rewards, mask = torch.ones(2, length), torch.ones(2, length, dtype=torch.bool)
    same(returns_to_go(rewards, mask), [list(range(length, 0, -1))] * 2)


def test_padding_changes_no_return_by_a_bit():
    rewards = torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(5, 7, dtype=torch.bool)
    padded = torch.cat([rewards, torch.full((5, 9), torch.inf)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(5, 9, dtype=torch.bool)], dim=1)
    assert torch.equal(returns_to_go(padded, padded_mask, 0.9)[:, :7], returns_to_go(rewards, mask, 0.9))


@pytest.mark.parametrize("estimate", [group_normalized, leave_one_out])
def test_returns_are_credited_above_the_baseline_of_the_rewards(estimate):
    """Group (1, 0): means 1/2 or the other's reward; std sqrt(1/2)."""
    rewards, group = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    returns = torch.tensor([[1.0, 0.25], [0.0, 3.0]], dtype=torch.float64)
    if estimate is leave_one_out:
        same(leave_one_out(rewards, group, returns=returns), [[1, 0.25], [-1, 2]])
    else:
        root = math.sqrt(2)
        wanted = [[0.5 * root, -0.25 * root], [-0.5 * root, 2.5 * root]]
        same(group_normalized(rewards, group, eps=0.0, returns=returns), wanted)
        same(group_normalized(rewards, group, std=False, returns=returns), [[0.5, -0.25], [-0.5, 2.5]])


def test_batch_mean_credits_returns():
    returns = torch.tensor([[1.0, 0.25], [0.0, 3.0]])
    same(batch_mean(torch.tensor([1.0, 0.0]), returns=returns), [[0.5, -0.25], [-0.5, 2.5]])


def test_returns_of_the_incomparable_are_nothing_and_of_the_unknown_unknown():
    rewards, group = torch.tensor([1.0, NAN, 2.0, 2.0]), torch.tensor([0, 0, 1, 1])
    returns = torch.tensor([[1.0, 8.0], [5.0, 5.0], [2.0, 0.0], [2.0, 1.0]])
    same(leave_one_out(rewards, group, returns=returns), [[0, 0], [NAN, NAN], [0, -2], [0, -1]])
    same(group_normalized(rewards, group, returns=returns), [[0, 0], [NAN, NAN], [0, 0], [0, 0]])
    same(group_normalized(rewards, group, std=False, returns=returns), [[0, 0], [NAN, NAN], [0, -2], [0, -1]])


# Totals


def test_sum_tokens_by_hand():
    rewards = torch.tensor([[1.0, NAN, 2], [NAN, NAN, 5], [4, 4, 4], [1, 2, 3]])
    mask = torch.tensor([[True, True, True], [True, True, False], [False, False, False], [True, True, False]])
    same(sum_tokens(rewards, mask), [3, NAN, NAN, 3])


def test_sum_known_by_hand():
    """Reward B does not apply to group 1 and is unknown for the last of group 0. Nothing applies to group 2."""
    group = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    a = [1.0, 2, 3, 4, 5, NAN, NAN]
    b = [0.5, 0.5, NAN, NAN, NAN, NAN, NAN]
    same(sum_known(torch.tensor([a, b]), group), [1.5, 2.5, NAN, 4, 5, NAN, NAN])
    same(sum_known(torch.tensor([b, a]), group), [1.5, 2.5, NAN, 4, 5, NAN, NAN])
    same(sum_known(torch.tensor([a]), group), a)
    # without the response that is known, what remains of group 0 knows nothing of B
    same(sum_known(torch.tensor([a, b])[:, 2:], group[2:]), [3, 4, 5, NAN, NAN])


def test_rewards_that_cancel_are_known():
    same(sum_known(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.tensor([0, 0])), [0, 0])
    same(sum_known(torch.tensor([[0.0, 0.0]]), torch.tensor([0, 0])), [0, 0])


# Invariances and bad input


@slow_start
@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    rewards, group = tensors(rows)
    whole_batch = [lambda r, _: batch_mean(r), lambda r, g: sum_known(r[None], g)]
    for estimate in [group_normalized, leave_one_out, *whole_batch]:
        same(estimate(rewards[order], group[order]), estimate(rewards, group)[order])


@slow_start
@given(rows, st.permutations(range(4)))
def test_the_names_of_groups_do_not_matter(rows, names):
    rewards, group = tensors(rows)
    renamed = torch.tensor(names)[group]
    same(group_normalized(rewards, renamed), group_normalized(rewards, group))
    same(leave_one_out(rewards, renamed), leave_one_out(rewards, group))


@slow_start
@given(rows)
def test_known_advantages_of_a_group_sum_to_nothing(rows):
    rewards, group = tensors(rows)
    for found in (group_normalized(rewards, group, std=False), leave_one_out(rewards, group)):
        for g in range(4):
            assert found[group == g].nansum().abs() < 1e-9


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"rewards must be of shape \(3,\), not \(1,\)"):
        group_normalized(torch.ones(1), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"rewards must be of shape \(3,\), not \(1,\)"):
        leave_one_out(torch.ones(1), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"rewards must be of shape \(3, 2\), not \(3, 1\)"):
        returns_to_go(torch.ones(3, 1), torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"rewards must be of shape \(3, 2\), not \(2,\)"):
        sum_tokens(torch.ones(2), torch.ones(3, 2, dtype=torch.bool))


# Generalized advantage estimation


def naive_gae(rewards, values, mask, gamma, lam):
    """A_t as the sum over later states of (gamma lam)^l d_{t+l}, every d from its definition; lists of one row."""
    places = [t for t, counts in enumerate(mask) if counts]
    advantages = [0.0] * len(mask)
    for i, t in enumerate(places):
        for distance, s in enumerate(places[i:]):
            after = i + distance + 1
            following = values[places[after]] if after < len(places) else 0.0
            advantages[t] += (gamma * lam) ** distance * (rewards[s] + gamma * following - values[s])
    return advantages


def test_gae_by_hand():
    """KL (0.2, -0.1, 0.4) charged at 0.05, a score of 2 at the end, V = (0.5, 0.8, 1.0), lambda 0.95.

    d = (-0.01 + 0.8 - 0.5, 0.005 + 1 - 0.8, 1.98 - 1) = (0.29, 0.205, 0.98); A_2 = 0.205 + 0.95 * 0.98 = 1.136,
    A_1 = 0.29 + 0.95 * 1.136 = 1.3692.
    """
    rewards = torch.tensor([[-0.01, 0.005, 1.98]], dtype=torch.float64)
    values, mask = torch.tensor([[0.5, 0.8, 1.0]], dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=0.95)
    same(advantages, [[1.3692, 1.1360, 0.98]])
    same(returns, [[1.8692, 1.9360, 1.98]])
    same(whiten(advantages, mask), [[1.05918, -0.13138, -0.92781]], 1e-5)
    to_go, _ = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    same(to_go, [[1.475, 1.185, 0.98]])
    same(to_go, returns_to_go(rewards, mask) - values)
    same(gae(rewards, values, mask, gamma=1.0, lam=0.0)[0], [[0.29, 0.205, 0.98]])
    # gamma 1/2, lambda 0: d = (-0.01 + 0.4 - 0.5, 0.005 + 0.5 - 0.8, 0.98)
    same(gae(rewards, values, mask, gamma=0.5, lam=0.0)[0], [[-0.11, -0.295, 0.98]])


sizes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 10_000))
shares = st.sampled_from([0.0, 0.5, 0.95, 1.0])


def drawn(n, width, seed):
    """Rewards and values, and a mask with given prefixes, padding, a hole and rows without any token."""
    rng = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, n, width, generator=rng, dtype=torch.float64).unbind()
    return rewards, values, torch.rand(n, width, generator=rng) < 0.7


@slow_start
@given(sizes, shares, shares)
def test_gae_equals_the_double_loop(size, gamma, lam):
    rewards, values, mask = drawn(*size)
    wanted = [
        naive_gae(r, v, m, gamma, lam) for r, v, m in zip(rewards.tolist(), values.tolist(), mask.tolist(), strict=True)
    ]
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
    same(advantages, wanted)
    same(returns, torch.where(mask, torch.tensor(wanted, dtype=torch.float64) + values, 0.0))


@slow_start
@given(sizes, st.integers(0, 3), st.integers(0, 3), st.sampled_from([NAN, math.inf, 7.0]))
def test_padding_on_either_side_changes_neither_gae_nor_whitening(size, left, right, rubbish):
    rewards, values, mask = drawn(*size)
    plain = gae(rewards, values, mask)
    padded = [torch.nn.functional.pad(x, (left, right), value=fill) for x, fill in ((rewards, 7.0), (values, 7.0))]
    wide = torch.nn.functional.pad(mask, (left, right), value=False)
    dirty = [torch.where(wide, x, rubbish) for x in padded]
    width = mask.shape[1]
    for found, wanted in zip(gae(*dirty, wide), plain, strict=True):
        assert torch.equal(found[:, left : left + width], wanted)
    scaled = whiten(torch.where(wide, torch.nn.functional.pad(plain[0], (left, right)), rubbish), wide)
    same(scaled[:, left : left + width], whiten(plain[0], mask))
    assert not scaled[~wide].any()


@slow_start
@given(sizes, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_neither_gae_nor_whitening(size, random):
    rewards, values, mask = drawn(*size)
    order = torch.tensor(random.sample(range(len(mask)), len(mask)))
    advantages, returns = gae(rewards, values, mask)
    moved = gae(rewards[order], values[order], mask[order])
    assert torch.equal(moved[0], advantages[order])
    assert torch.equal(moved[1], returns[order])
    same(whiten(advantages, mask)[order], whiten(advantages[order], mask[order]))


@slow_start
@given(sizes, st.sampled_from([0.01, 2.0, 300.0]))
def test_the_scale_of_rewards_and_values_does_not_matter_once_whitened(size, gain):
    """The gain of the score, with the KL coefficient scaled likewise, as long as the values are scaled too."""
    rewards, values, mask = drawn(*size)
    plain, scaled = gae(rewards, values, mask)[0], gae(gain * rewards, gain * values, mask)[0]
    same(whiten(scaled, mask, eps=0.0), whiten(plain, mask, eps=0.0), 1e-9)


@slow_start
@given(sizes)
def test_whitened_values_have_mean_0_and_variance_1(size):
    values, _, mask = drawn(*size)
    found = whiten(values, mask, eps=0.0)[mask].tolist()
    if len(found) > 1:
        assert statistics.mean(found) == pytest.approx(0, abs=1e-12)
        assert statistics.stdev(found) == pytest.approx(1)
    kept = whiten(values, mask, eps=0.0, shift=False)[mask]
    same(kept - torch.tensor(found, dtype=torch.float64), values[mask].mean().expand(len(found)))


@pytest.mark.parametrize("value", [0.1, 1 / 3, -1e6])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_equal_values_whiten_to_exactly_nothing(value, eps):
    values, mask = torch.full((2, 3), value), torch.tensor([[True, True, True], [True, True, False]])
    assert torch.equal(whiten(values, mask, eps=eps), torch.zeros(2, 3))
    assert torch.equal(whiten(values, mask, eps=eps, shift=False), torch.where(mask, value, 0.0))
    nothing = torch.zeros_like(mask)
    for shift in (True, False):
        assert torch.equal(whiten(values, nothing, eps=eps, shift=shift), torch.zeros(2, 3))


def test_explained_variance_by_hand():
    """Returns 0, 2, 4 (variance 8/3). Off by 1, 1, 1: all explained. Predicted 2: none. Predicted 4, 2, 0: 1 - 4."""
    mask = torch.tensor([[True, True, True, False]])
    returns = torch.tensor([[0.0, 2, 4, NAN]])
    for predicted, wanted in (([1.0, 3, 5, NAN], 1.0), ([2.0, 2, 2, NAN], 0.0), ([4.0, 2, 0, NAN], -3.0)):
        assert float(explained_variance(torch.tensor([predicted]), returns, mask)) == pytest.approx(wanted)
    assert explained_variance(returns, torch.ones(1, 4), mask).isnan()
    assert explained_variance(returns, returns, torch.zeros_like(mask)).isnan()


@pytest.mark.parametrize("shape", [(2,), (2, 2), (1, 3)])
def test_gae_and_whitening_do_not_broadcast(shape):
    good, odd, mask = torch.zeros(2, 3), torch.zeros(shape), torch.ones(2, 3, dtype=torch.bool)
    for wrong in (
        lambda: gae(odd, good, mask),
        lambda: gae(good, odd, mask),
        lambda: whiten(odd, mask),
        lambda: explained_variance(good, odd, mask),
    ):
        with pytest.raises(ValueError, match="must be of shape"):
            wrong()
