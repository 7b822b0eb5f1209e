import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.objectives import (
    clip_active,
    clipped_ratio,
    clipped_sequence_ratio,
    kl,
    policy_gradient,
    sequence_ratio,
    token_ratio,
    token_scale,
    value_clip_active,
    value_error,
)

slow_start = settings(deadline=None)  # torch's first call takes longer than hypothesis allows an example
NAN, INF = math.nan, math.inf


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def same(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=tolerance, atol=tolerance)


def drawn(n=5, width=6, seed=0):
    """Log-probs, old log-probs, advantages (both signs, one row of 0) and a ragged mask with one empty row."""
    rng = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(n, width, generator=rng, dtype=torch.float64)
    logprobs = old + 0.4 * torch.randn(n, width, generator=rng, dtype=torch.float64)
    advantages = torch.randn(n, width, generator=rng, dtype=torch.float64)
    advantages[1] = 0
    lengths = torch.randint(1, width + 1, (n,), generator=rng)
    lengths[-1] = 0
    return logprobs, old, advantages, torch.arange(width) < lengths[:, None]


OBJECTIVES = {
    "clipped": clipped_ratio,
    "asymmetric": lambda *a: clipped_ratio(*a, low=0.1, high=0.3),
    "dual": lambda *a: clipped_ratio(*a, dual=1.4),
    "sequence": lambda *a: clipped_sequence_ratio(*a, low=0.1, high=0.15),
    "sequence dual": lambda *a: clipped_sequence_ratio(*a, low=0.1, high=0.15, dual=1.2),
    "gradient": lambda logprobs, _, advantages, mask: policy_gradient(logprobs, advantages, mask),
    "k1": lambda logprobs, old, _, mask: kl(logprobs, old, mask, "k1"),
    "k2": lambda logprobs, old, _, mask: kl(logprobs, old, mask, "k2"),
    "k3": lambda logprobs, old, _, mask: kl(logprobs, old, mask, "k3"),
    # The same three tensors as values, old values and returns.
    "value": lambda values, _, returns, mask: value_error(values, returns, mask),
    "clipped value": lambda values, old, returns, mask: value_error(values, returns, mask, old_values=old, clip=0.2),
}
every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())

# The clipped ratio


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),  # gradient with respect to the log-prob: the ratio's times the ratio
    [
        (1.5, 2.0, -2.4, 0.0),  # min(1.5 * 2, 1.2 * 2): a good token already raised enough is left alone
        (1.5, -2.0, 3.0, 3.0),  # min(1.5 * -2, 1.2 * -2): a bad token is never let off
        (0.5, 2.0, -1.0, -1.0),  # min(0.5 * 2, 0.8 * 2)
        (0.5, -2.0, 1.6, 0.0),  # min(0.5 * -2, 0.8 * -2)
        (1.1, 2.0, -2.2, -2.2),  # inside
        (0.9, -2.0, 1.8, 1.8),  # inside
        (1.0, 2.0, -2.0, -2.0),  # on policy: REINFORCE's gradient
    ],
)
def test_clipped_ratio_at_its_four_corners(ratio, advantage, loss, gradient):
    logprobs = double([[math.log(ratio) - 1]]).requires_grad_()
    found = clipped_ratio(logprobs, double([[-1.0]]), double([[advantage]]), torch.tensor([[True]]))
    found.sum().backward()
    same(found.detach(), [[loss]])
    same(logprobs.grad, [[gradient]])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [  # low 0.1, high 0.5
        (1.4, 2.0, -2.8, -2.8),
        (1.6, 2.0, -3.0, 0.0),  # 1.5 * 2
        (0.85, -2.0, 1.8, 0.0),  # 0.9 * -2
        (0.95, -2.0, 1.9, 1.9),
    ],
)
def test_clipped_ratio_is_asymmetric(ratio, advantage, loss, gradient):
    logprobs = double([[math.log(ratio)]]).requires_grad_()
    found = clipped_ratio(logprobs, double([[0.0]]), double([[advantage]]), torch.tensor([[True]]), low=0.1, high=0.5)
    found.sum().backward()
    same(found.detach(), [[loss]])
    same(logprobs.grad, [[gradient]])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [  # dual 3
        (2.9, -2.0, 5.8, 5.8),  # max(2.9 * -2, 3 * -2) = -5.8: below the bound nothing changes
        (4.0, -2.0, 6.0, 0.0),  # max(4 * -2, 3 * -2) = -6
        (0.5, -2.0, 1.6, 0.0),  # the ordinary clip still holds
        (4.0, 2.0, -2.4, 0.0),  # good tokens are the ordinary clip's alone
        (4.0, 0.0, 0.0, 0.0),
    ],
)
def test_dual_clip_bounds_the_loss_of_bad_tokens(ratio, advantage, loss, gradient):
    logprobs = double([[math.log(ratio)]]).requires_grad_()
    found = clipped_ratio(logprobs, double([[0.0]]), double([[advantage]]), torch.tensor([[True]]), dual=3.0)
    found.sum().backward()
    same(found.detach(), [[loss]])
    same(logprobs.grad, [[gradient]])


def test_the_ranges_are_a_fifth_by_default():
    one, mask = double([[1.0]]), torch.tensor([[True]])
    for loss in (clipped_ratio, clipped_sequence_ratio):
        same(loss(double([[math.log(2)]]), 0 * one, one, mask), [[-1.2]])
        same(loss(double([[-math.log(2)]]), 0 * one, -one, mask), [[0.8]])
        same(loss(double([[math.log(9)]]), 0 * one, -one, mask), [[9]])  # no dual clip
    assert clip_active(double([1.19, 1.21, 0.81, 0.79, 9.0]), double([1.0, 1, -1, -1, -1])).tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]


# The ratio of a sequence


def test_sequence_ratio_by_hand():
    """Log-ratios (0.3, -0.1, *) and (0.6, 0.2, 0.1): means 0.1 and 0.3."""
    logprobs = double([[-0.7, -1.1, 99], [-0.4, -0.8, -0.9]])
    old = double([[-1.0, -1, -1], [-1, -1, -1]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    a, b = math.exp(0.1), math.exp(0.3)
    same(sequence_ratio(logprobs, old, mask), [[a, a, 1], [b, b, b]])
    same(token_ratio(logprobs, old, mask), [[math.exp(0.3), math.exp(-0.1), 1], [math.exp(x) for x in (0.6, 0.2, 0.1)]])


def test_clipped_sequence_ratio_by_hand():
    """Ratio e^0.1 in both rows; high 0.05. The good row is clipped at 1.05, the bad one pays in full."""
    logprobs = double([[-0.7, -1.1, 99], [-0.7, -1.1, 99]]).requires_grad_()
    old = torch.full((2, 3), -1.0, dtype=torch.float64)
    advantages = double([[2.0, 2, 2], [-1, -3, 5]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    loss = clipped_sequence_ratio(logprobs, old, advantages, mask, low=0.05, high=0.05)
    ratio = math.exp(0.1)
    same(loss.detach(), [[-2.1, -2.1, 0], [ratio, 3 * ratio, 0]])
    loss.sum().backward()
    # (1 + 3) times the ratio, and each token is half of the mean
    same(logprobs.grad, [[0, 0, 0], [2 * ratio, 2 * ratio, 0]])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"), [(1.1, 2.0, -2.08), (0.9, -2.0, 1.94), (2.5, -2.0, 4.0), (1.02, 2.0, -2.04)]
)  # low 0.03, high 0.04, dual 2
def test_clipped_sequence_ratio_has_its_own_bounds(ratio, advantage, loss):
    found = clipped_sequence_ratio(
        double([[math.log(ratio)]]),
        double([[0.0]]),
        double([[advantage]]),
        torch.tensor([[True]]),
        low=0.03,
        high=0.04,
        dual=2.0,
    )
    same(found, [[loss]])


def test_one_token_is_a_sequence():
    logprobs, old, advantages, _ = drawn(width=1)
    mask = torch.ones(5, 1, dtype=torch.bool)
    same(clipped_sequence_ratio(logprobs, old, advantages, mask), clipped_ratio(logprobs, old, advantages, mask))


# What was clipped


@pytest.mark.parametrize("dual", [None, 1.4])
def test_clip_active_says_where_the_gradient_is_gone(dual):
    logprobs, old, advantages, _ = drawn(20, 20)
    mask = torch.ones(20, 20, dtype=torch.bool)
    leaf = logprobs.clone().requires_grad_()
    clipped_ratio(leaf, old, advantages, mask, low=0.1, high=0.3, dual=dual).sum().backward()
    active = clip_active((logprobs - old).exp(), advantages, low=0.1, high=0.3, dual=dual)
    assert torch.equal(active, (leaf.grad == 0) & (advantages != 0))
    assert 0 < active.sum() < active.numel()


def test_a_ratio_on_the_bound_is_not_clipped():
    ratio, advantages = double([1.5, 0.5, 3.0, 0.5, 1.5, 9.0]), double([1.0, -1.0, -1.0, 1.0, -1.0, 0.0])
    assert not clip_active(ratio, advantages, low=0.5, high=0.5, dual=3.0).any()


# Policy gradient and KL


def test_policy_gradient_by_hand():
    logprobs = double([[-1.0, -2.0, -3.0]]).requires_grad_()
    loss = policy_gradient(logprobs, double([[2.0, -0.5, 7.0]]), torch.tensor([[True, True, False]]))
    same(loss.detach(), [[2, -1, 0]])
    loss.sum().backward()
    same(logprobs.grad, [[-2, 0.5, 0]])


def test_on_policy_the_clipped_ratio_is_the_policy_gradient():
    logprobs, _, advantages, mask = drawn()
    gradients = []
    for objective in (clipped_ratio, lambda lp, _, a, m: policy_gradient(lp, a, m)):
        leaf = logprobs.clone().requires_grad_()
        objective(leaf, logprobs, advantages, mask).sum().backward()
        gradients.append(leaf.grad)
    same(*gradients)


def test_kl_by_hand():
    """log pi = -1, log pi_ref = -1 + log 2: d = log 2."""
    d = math.log(2)
    arguments = double([[-1.0]]), double([[-1.0 + d]]), torch.tensor([[True]])
    same(kl(*arguments, "k1"), [[-d]])
    same(kl(*arguments, "k2"), [[d * d / 2]])
    same(kl(*arguments, "k3"), [[2 - 1 - d]])
    same(kl(*arguments), [[2 - 1 - d]])


@pytest.mark.parametrize(
    ("estimator", "value", "gradient"),
    [
        # Of KL(policy || reference), exactly:
        ("k1", 0.223805, (0.0, 0.0, 0.0)),
        ("k2", 0.265479, (0.346243, -0.220389, -0.125854)),  # the gradient of KL(policy || reference)
        ("k3", 0.223805, (0.3, -0.2, -0.1)),  # policy - reference: the gradient of KL(reference || policy)
    ],
)
def test_what_each_kl_estimator_is_worth_in_expectation(estimator, value, gradient):
    """Over three outcomes, policy (.5, .3, .2), reference (.2, .5, .3); gradients with respect to the logits.

    k2's value, with d = log(.4), log(5/3), log(1.5): half of .5 * .839589 + .3 * .260943 + .2 * .164402.
    """
    policy, reference = double([0.5, 0.3, 0.2]), double([0.2, 0.5, 0.3])
    logits = policy.log().requires_grad_()
    logprobs = logits.log_softmax(0)[:, None]
    sampled = kl(logprobs, reference.log()[:, None], torch.ones(3, 1, dtype=torch.bool), estimator).squeeze(1)
    expected = (policy * sampled).sum()
    expected.backward()
    same(expected.detach(), value, 1e-6)
    same(logits.grad, gradient, 1e-6)


def test_k3_keeps_its_precision_near_zero():
    """About d^2 / 2, of which float32 leaves little when exp(d) is made first."""
    ref = torch.tensor([[1e-3, -1e-3]])
    found = kl(torch.zeros(1, 2), ref, torch.ones(1, 2, dtype=torch.bool), "k3")
    same(found, [[5.0016671e-07, 4.9983338e-07]], 1e-9)


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="estimator must be 'k1', 'k2' or 'k3', not 'k4'"):
        kl(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), "k4")


# The critic


@pytest.mark.parametrize(
    ("value", "target", "loss", "gradient"),  # V_old = 1, clip 0.2
    [
        (1.5, 1.1, 0.08, 0.4),  # the squares are 0.16 and, of 1.2, 0.01: the larger counts
        (1.5, 2.0, 0.32, 0.0),  # 0.25 and 0.64: it has moved far enough towards the target, and waits
        (0.5, 0.0, 0.32, 0.0),  # 0.25 and, of 0.8, 0.64
        (0.5, 2.0, 1.125, -1.5),  # 2.25 and 1.44: it has moved away, and is never let off
        (1.1, 2.0, 0.405, -0.9),  # inside
    ],
)
def test_the_value_clip_by_hand(value, target, loss, gradient):
    values, returns, mask = double([[value]]).requires_grad_(), double([[target]]), torch.tensor([[True]])
    old = double([[1.0]])
    found = value_error(values, returns, mask, old_values=old, clip=0.2)
    same(found.detach(), [[loss]])
    found.sum().backward()
    same(values.grad, [[gradient]])
    assert value_clip_active(values.detach(), returns, mask, old, 0.2).item() == (gradient == 0)


def test_without_a_clip_it_is_half_the_square():
    values = double([[1.5, 3.0]]).requires_grad_()
    loss = value_error(values, double([[1.1, 0.0]]), torch.tensor([[True, False]]))
    same(loss.detach(), [[0.08, 0]])
    loss.sum().backward()
    same(values.grad, [[0.4, 0]])


def test_a_value_clip_is_measured_from_something():
    with pytest.raises(ValueError, match="a value clip needs old_values"):
        value_error(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), clip=0.2)


# What all objectives share


@every_objective
def test_gradients_equal_finite_differences(objective):
    logprobs, old, advantages, mask = drawn()
    logprobs.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: objective(x, old, advantages, mask), (logprobs,))


@every_objective
def test_only_the_policy_carries_a_gradient(objective):
    logprobs, old, advantages, mask = drawn()
    leaves = [x.clone().requires_grad_() for x in (logprobs, old, advantages)]
    objective(*leaves, mask).sum().backward()
    assert leaves[0].grad is not None
    assert leaves[1].grad is None
    assert leaves[2].grad is None


@every_objective
@pytest.mark.parametrize("rubbish", [NAN, INF, -INF, 1e30])
def test_what_stands_in_the_padding_does_not_leak(objective, rubbish):
    logprobs, old, advantages, mask = drawn()
    results = []
    for fill in (0.0, rubbish):
        tensors = [torch.where(mask, x, fill) for x in (logprobs, old, advantages)]
        leaf = tensors[0].requires_grad_()
        loss = objective(leaf, *tensors[1:], mask)
        loss.sum().backward()
        results.append((loss.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert (results[0][0][~mask] == 0).all()
    assert (results[0][1][~mask] == 0).all()


@every_objective
def test_rubbish_in_one_tensor_alone_does_not_leak(objective):
    logprobs, old, advantages, mask = drawn()
    for place in range(3):
        tensors = [logprobs, old, advantages]
        tensors[place] = torch.where(mask, tensors[place], -INF)
        leaf = tensors[0].clone().requires_grad_()
        objective(leaf, tensors[1], tensors[2], mask).sum().backward()
        assert leaf.grad.isfinite().all()


@every_objective
@slow_start
@given(st.integers(0, 100), st.permutations(range(5)))
def test_rows_do_not_see_each_other(objective, seed, order):
    tensors = drawn(seed=seed)
    same(objective(*(x[order] for x in tensors)), objective(*tensors)[order])


@every_objective
@slow_start
@given(st.integers(0, 100), st.integers(1, 5))
def test_padding_changes_nothing(objective, seed, extra):
    tensors = drawn(seed=seed)
    padded = [
        torch.cat([x, torch.full((5, extra), fill)], dim=1)
        for x, fill in zip(tensors, (INF, NAN, 3.0, False), strict=True)
    ]
    same(objective(*padded)[:, :6], objective(*tensors))


@pytest.mark.parametrize(
    ("name", "place", "blamed"),
    [
        ("clipped", 0, "logprobs"),
        ("clipped", 1, "old_logprobs"),
        ("clipped", 2, "advantages"),
        ("sequence", 0, "logprobs"),
        ("sequence", 1, "old_logprobs"),
        ("sequence", 2, "advantages"),
        ("gradient", 0, "logprobs"),
        ("gradient", 2, "advantages"),
        ("k3", 0, "logprobs"),
        ("k3", 1, "ref_logprobs"),
        ("value", 0, "values"),
        ("value", 2, "returns"),
        ("clipped value", 1, "old_values"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(name, place, blamed):
    *tensors, mask = drawn()
    tensors[place] = tensors[place][:1]
    with pytest.raises(ValueError, match=rf"^{blamed} must be of shape \(5, 6\), not \(1, 6\)"):
        OBJECTIVES[name](*tensors, mask)


# Averages


MASK = torch.tensor([[True, True, True, True], [True, False, False, False], [False] * 4, [False, True, False, True]])


@pytest.mark.parametrize(
    ("average", "length", "wanted"),
    [
        ("tokens", None, (1 / 7, 1 / 7, 1 / 7)),  # 4 + 1 + 2 tokens
        ("sequences", None, (1 / 12, 1 / 3, 1 / 6)),  # a third for each row that has tokens
        ("constant", 10, (1 / 30, 1 / 30, 1 / 30)),  # three rows of 10
    ],
)
def test_token_scale_by_hand(average, length, wanted):
    found = token_scale(MASK, average, length)
    assert found.dtype == torch.float32
    rows = torch.tensor([wanted[0], wanted[1], 0.0, wanted[2]])[:, None]
    same(found, torch.where(MASK, rows, 0.0), 1e-7)


@pytest.mark.parametrize(("average", "length"), [("tokens", None), ("sequences", None), ("constant", 3)])
def test_without_any_token_nothing_is_divided_by_zero(average, length):
    assert torch.equal(token_scale(torch.zeros(2, 3, dtype=torch.bool), average, length), torch.zeros(2, 3))


@slow_start
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_the_scaled_sum_is_the_mean(rows):
    mask = torch.tensor(rows)
    losses = torch.arange(mask.numel(), dtype=torch.float64).reshape(mask.shape)
    if not mask.any():
        return
    same((losses * token_scale(mask, "tokens")).sum(), losses[mask].mean(), 1e-6)
    means = [losses[i][mask[i]].mean() for i in range(len(rows)) if mask[i].any()]
    same((losses * token_scale(mask, "sequences")).sum(), torch.stack(means).mean(), 1e-6)
    same((losses * token_scale(mask, "constant", 5)).sum(), losses[mask].sum() / 5 / len(means), 1e-6)


@pytest.mark.parametrize(("average", "length"), [("constant", None), ("tokens", 4), ("sequences", 4), ("mean", 4)])
def test_a_length_belongs_to_constant(average, length):
    with pytest.raises(
        ValueError, match=f"length belongs to average='constant', not to average='{average}' with length={length}"
    ):
        token_scale(MASK, average, length)


def test_another_average_is_refused():
    with pytest.raises(ValueError, match="average must be 'tokens', 'sequences' or 'constant', not 'mean'"):
        token_scale(MASK, "mean")
