"""What steps are worth: the numbers worked out in the specifications, enumeration as oracle, and properties."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.evaluate import pass_at_k
from reckon.process import (
    aggregate,
    alignment,
    best_of_k,
    distinguishability,
    effective_reward,
    label_variance,
    q_values,
    step_advantages,
    unbiased_best_of_k,
    with_outcome,
)

NAN = math.nan
slow_start = settings(deadline=None)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def same(found, wanted, tolerance=1e-12):
    wanted = torch.as_tensor(wanted, dtype=found.dtype)
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


# Implicit rewards


def enumerated_q(policy, reference, beta):
    """q_t of every sequence as beta log E_ref exp(r / beta), over all ways to go on: no prefix sum is taken.

    policy, reference: for each t a [V] * t + [V] table of probabilities. Returns {sequence: [q_1, .., q_T]}.
    """
    length, words = len(policy), range(policy[0].shape[-1])
    everything = list(itertools.product(words, repeat=length))

    def ratio(y):
        return sum(math.log(policy[t][y[: t + 1]] / reference[t][y[: t + 1]]) for t in range(length))

    def value(prefix):
        total = 0.0
        for y in everything:
            if y[: len(prefix)] == prefix:
                weight = math.prod(float(reference[t][y[: t + 1]]) for t in range(len(prefix), length))
                total += weight * math.exp(beta * ratio(y) / beta)
        return beta * math.log(total)

    assert value(()) == pytest.approx(0, abs=1e-12)  # E_ref exp(r / beta) = 1: for any two models
    return {y: [value(y[: t + 1]) for t in range(length)] for y in everything}


def log_ratios(y, policy, reference):
    return [math.log(policy[t][y[: t + 1]] / reference[t][y[: t + 1]]) for t in range(len(y))]


def test_q_values_of_two_tokens_by_hand():
    """pi(a) = 0.8, pi(a|a) = 0.9, pi(a|b) = 0.3, uniform reference, beta 0.1."""
    policy = [double([0.8, 0.2]), double([[0.9, 0.1], [0.3, 0.7]])]
    reference = [double([0.5, 0.5]), double([[0.5, 0.5], [0.5, 0.5]])]
    ratios = double([log_ratios(y, policy, reference) for y in itertools.product((0, 1), repeat=2)])
    q = q_values(ratios, torch.ones(4, 2, dtype=torch.bool), 0.1)
    # 0.1 ln 1.6 and 0.1 ln 0.4; then + 0.1 ln 1.8, ln 0.2, ln 0.6, ln 1.4
    same(q[:, 0], [0.04700, 0.04700, -0.09163, -0.09163], 1e-5)
    same(q[:, 1], [0.10578, -0.11394, -0.14271, -0.05798], 1e-5)
    same((q[:, 1] / 0.1).exp().mean(), 1.0)
    # between the mean and the best of what the reference does next: -0.00408 <= 0.04700 <= 0.10578
    assert float(q[:2, 1].mean()) == pytest.approx(-0.00408, abs=1e-5)
    assert q[:2, 1].mean() <= q[0, 0] <= q[:2, 1].max()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_q_values_are_the_exponential_mean_over_the_references_ways_to_go_on(seed, beta):
    random = torch.Generator().manual_seed(seed)
    tables = [
        [torch.rand([3] * (t + 1), generator=random, dtype=torch.float64).add(0.1) for t in range(4)] for _ in range(2)
    ]
    policy, reference = ([table / table.sum(dim=-1, keepdim=True) for table in model] for model in tables)
    wanted = enumerated_q(policy, reference, beta)
    ratios = double([log_ratios(y, policy, reference) for y in wanted])
    same(q_values(ratios, torch.ones(81, 4, dtype=torch.bool), beta), double(list(wanted.values())), 1e-6)


@pytest.mark.parametrize(("beta", "wanted"), [(0.01, 0.9861), (0.1, 0.8614), (1, 0.3574), (100, 0.2509)])
def test_beta_moves_q_from_the_best_that_may_come_to_the_mean(beta, wanted):
    """1 with probability 1/4, else 0: before it q is beta ln(e^(1 / beta) / 4 + 3 / 4), after it the reward.

    The policy that these rewards make of the reference is the reference times e^(reward / beta), normalized; it begins
    at q = 0, so what it says of the right answer is 1 less the q before.
    """
    reference = double([0.25, 0.75])
    tilted = reference * double([1 / beta, 0]).exp()
    q = q_values((tilted / tilted.sum() / reference).log()[:, None], torch.ones(2, 1, dtype=torch.bool), beta)
    assert 1 - q[0].item() == pytest.approx(wanted, abs=5e-5)
    assert 0 - q[1].item() == pytest.approx(wanted, abs=5e-5)


def test_q_values_leave_prefix_and_padding_out():
    ratios = double([[NAN, 2, 3, -torch.inf], [1, -4, torch.inf, NAN]])
    mask = torch.tensor([[False, True, True, False], [True, True, False, False]])
    same(q_values(ratios, mask, 0.5), [[0, 1, 2.5, 0], [0.5, -1.5, 0, 0]])
    same(q_values(torch.zeros(1, 3), mask[:1, :3], 0.5), [[0, 0, 0]])  # a model beside itself
    same(q_values(-ratios, mask, 0.5), -q_values(ratios, mask, 0.5))  # policy and reference swapped


# Aggregation


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("min", [-2, 1]),
        ("sum", [1.5, 1]),  # 3 - 2 + 0.5
        ("mean", [0.5, 1]),
        ("last", [0.5, 1]),
        ("accumulative_min", [1, 1]),  # sums 3, 1, 1.5
        # 1 / (1 + e^-3) = 0.952574, 1 / (1 + e^2) = 0.119203, 1 / (1 + e^-0.5) = 0.622459; product 0.070680
        ("product", [0.070680, 0.731059]),
    ],
)
def test_aggregation_by_hand(how, wanted):
    scores = double([[3, -2, 0.5], [1, NAN, NAN]])
    same(aggregate(scores, how), wanted, 1e-5)


@pytest.mark.parametrize("how", ["min", "sum", "mean", "last", "product", "accumulative_min"])
def test_no_steps_no_score_and_a_step_that_is_unknown_is_not_left_out(how):
    assert aggregate(double([[NAN, NAN], [1, NAN]]), how).isnan().tolist() == [True, False]
    assert aggregate(torch.zeros(2, 0), how).isnan().tolist() == [True, True]
    assert aggregate(double([[NAN, 1.0], [1, 2]]), how).isnan().tolist() == [True, False]
    assert aggregate(torch.zeros(0, 3), how).shape == (0,)
    padded = double([[1, 2, NAN, NAN]])
    same(aggregate(padded, how), aggregate(padded[:, :2], how))


def test_an_unknown_way_to_aggregate():
    with pytest.raises(ValueError, match="it must be one of min, sum"):
        aggregate(torch.zeros(1, 1), "max")


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.floats(0.01, 100))
def test_rank_by_min_sum_and_mean_does_not_depend_on_beta(scores, beta):
    for how in ("min", "sum", "mean", "last", "accumulative_min"):
        row = double([scores])
        same(aggregate(beta * row, how), beta * aggregate(row, how), 1e-9)


# Best-of-K


def test_best_of_k_by_hand():
    # 1 - 0.9^4 = 0.3439, 1 - 0.8^4 = 0.5904, 1 - 0.5^4 = 0.9375
    same(best_of_k(double([0.1, 0.2, 0.5]), 4), [0.3439, 0.5904, 0.9375])
    same(best_of_k(torch.tensor([0.0, 1.0, NAN]), 4), [0.0, 1.0, NAN], 1e-6)
    q = torch.tensor([0.0, 0.3, 1.0])
    assert best_of_k(q, 1) is q
    same(best_of_k(double([1e-12]), 1000) / 1e-12, [1000.0], 1e-9)  # 1 - (1 - q)^K would have no digit left


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 64))
def test_best_of_k_rises_with_q_and_k(a, b, k):
    low, high = sorted((a, b))
    q = double([low, high])
    values = best_of_k(q, k)
    assert 0 <= values[0] <= values[1] <= 1
    assert (best_of_k(q, k + 1) >= values - 1.1e-7).all()


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match="a logit goes through a sigmoid"):
        best_of_k(double([0.5, wrong]), 2)
    with pytest.raises(ValueError, match="k is 0"):
        best_of_k(double([0.5]), 0)


def test_unbiased_best_of_k_by_hand():
    # 1 - C(18, 4) / C(20, 4) = 1 - 3060 / 4845
    same(unbiased_best_of_k(torch.tensor([2, 0, 20, 17]), 20, 4), [1 - 3060 / 4845, 0, 1, 1.0])
    assert float(unbiased_best_of_k(torch.tensor([2]), 20, 4)) == pytest.approx(0.36842, abs=1e-5)
    assert float(best_of_k(double([0.1]), 4)) == pytest.approx(0.3439)  # the plug-in is too low


def test_unbiased_best_of_k_is_pass_at_k():
    for n in (1, 5, 20):
        for k in range(1, n + 1):
            wanted = [pass_at_k(n, c, k) for c in range(n + 1)]
            same(unbiased_best_of_k(torch.arange(n + 1), torch.full((n + 1,), n), k), wanted)


@pytest.mark.parametrize("q", [0.05, 0.5])
def test_from_counts_there_is_no_bias_and_plugging_in_is_too_low(q):
    """All n + 1 outcomes of n coins, weighted by their chance."""
    n, k = 8, 4
    c = torch.arange(n + 1)
    weight = double([math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(n + 1)])
    same((weight * unbiased_best_of_k(c, n, k)).sum(), 1 - (1 - q) ** k)
    assert (weight * best_of_k(c / n, k)).sum() < 1 - (1 - q) ** k - 0.02


def test_counts_that_cannot_be():
    with pytest.raises(ValueError, match="correct must lie"):
        unbiased_best_of_k(torch.tensor([3]), 2, 1)
    with pytest.raises(ValueError, match="at most n"):
        unbiased_best_of_k(torch.tensor([1, 1]), torch.tensor([4, 2]), 3)


def test_variance_of_labels_is_estimated_without_bias():
    n, p = 5, 0.3
    c = torch.arange(n + 1)
    weight = double([math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)])
    same((weight * label_variance(c, n)).sum(), p * (1 - p) / n)
    same((weight * (c.double() / n - p) ** 2).sum(), p * (1 - p) / n)  # which is what it estimates
    assert label_variance(torch.tensor([1]), 1).isnan().all()


# Advantages


def test_advantages_telescope_to_the_outcome():
    """Two steps, no step, three steps with an unknown outcome."""
    values = double([[0.5, 0.75, 0.5, NAN], [0.25, NAN, NAN, NAN], [0.5, 0.25, 0.0, 0.125]])
    outcome = double([1.0, 1.0, NAN])
    closed = with_outcome(values, outcome)
    same(closed, [[0.5, 0.75, 1.0, NAN], [0.25, NAN, NAN, NAN], [0.5, 0.25, 0.0, 0.125]])
    same(step_advantages(closed), [[0.25, 0.25, NAN], [NAN, NAN, NAN], [-0.25, -0.25, 0.125]])


@slow_start
@given(st.lists(st.lists(st.integers(0, 64).map(lambda i: i / 64), min_size=1, max_size=6), min_size=1, max_size=4))
def test_advantages_sum_to_outcome_less_the_prompts_value(rows):
    most = max(len(row) for row in rows)
    values = double([row + [NAN] * (most - len(row)) for row in rows])
    outcome = torch.arange(len(rows)).double() % 2
    total = step_advantages(with_outcome(values, outcome)).nansum(dim=1)
    same(total, torch.where(torch.tensor([len(row) > 1 for row in rows]), outcome - values[:, 0], 0.0))


def test_values_without_the_empty_prefix_are_refused():
    with pytest.raises(ValueError, match="with the empty prefix first"):
        step_advantages(torch.zeros(2, 0))


@pytest.mark.parametrize(("alpha", "best"), [(0.1, "s1"), (0.3, "s2")])
def test_which_of_two_states_is_gone_on_from(alpha, best):
    """s1: V = 0.65, Q = 0.60; s2: V = 0.35, Q = 0.55. E: 0.60 - 0.05 alpha and 0.55 + 0.20 alpha, equal at 0.2."""
    advantage = step_advantages(double([[0.65, 0.60], [0.35, 0.55]]))
    e = effective_reward(double([[0.60], [0.55]]), advantage, alpha)
    same(e[:, 0], [0.60 - 0.05 * alpha, 0.55 + 0.20 * alpha])
    assert ["s1", "s2"][int(e[:, 0].argmax())] == best


# Provers


def laws(seed, states=4, actions=5):
    random = torch.Generator().manual_seed(seed)
    pi = torch.rand(states, actions, generator=random, dtype=torch.float64)
    q, mu = torch.rand(2, states, actions, generator=random, dtype=torch.float64)
    return pi / pi.sum(dim=1, keepdim=True), q, mu


@pytest.mark.parametrize("k", [2, 4, 32])
@pytest.mark.parametrize("seed", range(3))
def test_best_of_k_advantages_have_a_mean_of_at_most_0_under_the_policy(k, seed):
    """Jensen: best_of_k of the mean is above the mean of best_of_k, and equal if Q is flat."""
    pi, q, _ = laws(seed)
    q = q / 5  # nearer to 1 all best of 32 are the same double
    v = (pi * q).sum(dim=1)
    same((pi * (q - v[:, None])).sum(dim=1), torch.zeros(4))
    assert ((pi * (best_of_k(q, k) - best_of_k(v, k)[:, None])).sum(dim=1) < 0).all()
    flat = torch.full((2,), 0.3, dtype=torch.float64)
    same(best_of_k(flat, k) - best_of_k(flat.mean(), k), [0.0, 0.0])


def test_diagnostics_by_hand():
    # means 2/8 and 4/8; deviations (-1, 1, 0)/8 and (-2, 2, 0)/8: covariance (2 + 2)/64/2, variance (1 + 1)/64/2
    mu, pi = double([[1, 3, 2]]) / 8, double([[2, 6, 4]]) / 8
    same(alignment(mu, pi), [4 / 128])
    same(distinguishability(mu), [2 / 128])
    same(distinguishability(mu, double([[1, 2, 3]]) / 256), [2 / 128 - 1 / 128])
    same(alignment(mu + 0.5, pi), alignment(mu, pi))  # A^mu need not have mean 0 under the policy


def test_diagnostics_are_unbiased_in_actions_and_labels():
    """Every pair of actions and every outcome of 2 + 2 rollouts each, weighted by their chance."""
    pi, q, mu = (x[0] for x in laws(0, actions=3))
    v, v_mu = (pi * q).sum(), (pi * mu).sum()
    found = torch.zeros(2, dtype=torch.float64)
    labels = list(itertools.product(range(3), repeat=2))
    binomial = [1, 2, 1]
    for a in itertools.product(range(3), repeat=2):
        for c_mu, c_q in itertools.product(labels, labels):
            weight = math.prod(float(pi[i]) for i in a)
            for i, c, d in zip(a, c_mu, c_q, strict=True):
                weight *= binomial[c] * float(mu[i] ** c * (1 - mu[i]) ** (2 - c))
                weight *= binomial[d] * float(q[i] ** d * (1 - q[i]) ** (2 - d))
            one, other = double([c_mu]) / 2, double([c_q]) / 2
            spread = distinguishability(one, label_variance(torch.tensor([c_mu]), 2))
            found += weight * torch.cat([spread, alignment(one, other)])
    same(found, torch.stack([(pi * (mu - v_mu) ** 2).sum(), (pi * (mu - v_mu) * (q - v)).sum()]))


def test_diagnostics_need_two_actions():
    with pytest.raises(ValueError, match="m of 2 or more"):
        distinguishability(torch.zeros(3, 1))
