"""What holds for the losses of `reckon.preferences` whatever the numbers are, and what they mean."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from reckon.preferences import bradley_terry, dpo, ipo, kto, nca, outcome_ce, response_logratio, simpo, step_ce

slow_start = settings(deadline=None)  # torch's first call takes longer than hypothesis allows an example
nats = st.floats(-50, 50)
betas = st.floats(0.01, 5)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def same(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=tolerance, atol=tolerance)


def gradients(loss, *inputs):
    """The loss's gradient with respect to each input."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    loss(*leaves).sum().backward()
    return [leaf.grad for leaf in leaves]


PAIRED = {
    "dpo": dpo,
    "cdpo": lambda w, v, beta: dpo(w, v, beta, 0.1),
    "simpo": lambda w, v, beta: simpo(w, v, torch.ones_like(w), torch.ones_like(v), beta, 0.5),
    "ipo": ipo,
    "nca": nca,
    "bradley_terry": lambda w, v, beta: bradley_terry(beta * w, beta * v, center=0.01),
}
LABELED = {
    "outcome_ce": lambda ratio, labels, beta: outcome_ce(beta * ratio, labels),
    "kto": lambda ratio, labels, beta: kto(ratio, labels, 0.5, beta),
}

# Invariants


@slow_start
@given(nats, nats, nats, betas)
def test_shifting_both_ratios_changes_no_difference(w, v, shift, beta):
    """What depends on the difference alone does not see a constant; NCA and centering do."""
    for name in ("dpo", "cdpo", "simpo", "ipo"):
        moved = PAIRED[name](double(w + shift), double(v + shift), beta)
        same(moved, PAIRED[name](double(w), double(v), beta), 1e-6)
    same(bradley_terry(double(w + shift), double(v + shift)), bradley_terry(double(w), double(v)), 1e-9)


@slow_start
@given(nats, nats, betas)
def test_swapping_a_pair_maps_the_difference_to_its_negative(w, v, beta):
    """-ln s(-d) = d - ln s(d), so loss(l, w) - loss(w, l) = beta (w - l), and gradients of both sides sum to 0."""
    for loss in (lambda w, v: dpo(w, v, beta), lambda w, v: bradley_terry(beta * w, beta * v)):
        same(loss(double(v), double(w)) - loss(double(w), double(v)), [beta * (w - v)], 1e-9)
        up, down = gradients(loss, double(w), double(v))
        same(up + down, [0.0], 1e-9)
    there = gradients(lambda d: functional.logsigmoid(-d) - functional.logsigmoid(d), double(beta * (w - v)))
    same(there[0], [-1.0], 1e-9)


@slow_start
@given(nats, nats, betas, st.floats(0.1, 10))
def test_beta_and_ratios_only_appear_as_a_product(w, v, beta, scale):
    for name in ("dpo", "cdpo", "nca"):
        same(
            PAIRED[name](double(w), double(v), beta * scale),
            PAIRED[name](double(w * scale), double(v * scale), beta),
            1e-6,
        )
    same(ipo(double(w * scale), double(v * scale), beta / scale), scale**2 * ipo(double(w), double(v), beta), 1e-6)
    same(kto(double(w), double(1), v, beta * scale), kto(double(w * scale), double(1), v * scale, beta), 1e-9)


@slow_start
@given(nats, st.floats(0, 1))
def test_cross_entropy_is_torchs_and_symmetric(z, label):
    reference = functional.binary_cross_entropy_with_logits(double(z), double(label), reduction="none")
    same(outcome_ce(double(z), double(label)), reference)
    same(outcome_ce(double(-z), double(1 - label)), reference, 1e-9)
    same(step_ce(double([z]), double([label]), torch.ones(1, 1, dtype=torch.bool)), reference[None])


@slow_start
@given(st.floats(-10, 10), st.floats(0.01, 0.49))
def test_smoothing_is_least_where_the_pair_is_as_sure_as_its_label(start, smoothing):
    """The derivative s(x) - (1 - e) is 0 at s(x) = 1 - e."""
    best = double(math.log((1 - smoothing) / smoothing))
    (gradient,) = gradients(lambda x: dpo(x, torch.zeros_like(x), 1.0, smoothing), best)
    same(gradient, [0.0], 1e-9)
    assert dpo(double(start), double(0), 1.0, smoothing) >= dpo(best, double(0), 1.0, smoothing) - 1e-12


@slow_start
@given(st.lists(nats, min_size=4, max_size=4), st.permutations(range(4)))
def test_rows_do_not_see_each_other(values, order):
    a, b, order = double(*values), double(*reversed(values)), torch.tensor(order)
    for loss in PAIRED.values():
        same(loss(a[order], b[order], 0.3), loss(a, b, 0.3)[order])
    labels = double(1, 0, 1, 0)
    for loss in LABELED.values():
        same(loss(a[order], labels[order], 0.3), loss(a, labels, 0.3)[order])


@slow_start
@given(st.integers(0, 5), st.integers(0, 2**31))
def test_padding_on_either_side_changes_no_log_ratio(width, seed):
    rng = torch.Generator().manual_seed(seed)
    logprobs, ref = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    pad = torch.full((3, width), math.nan, dtype=torch.float64)
    none = torch.zeros(3, width, dtype=torch.bool)
    wanted = response_logratio(logprobs, ref, mask)
    same(response_logratio(torch.cat([logprobs, pad], 1), torch.cat([ref, pad], 1), torch.cat([mask, none], 1)), wanted)
    same(response_logratio(torch.cat([pad, logprobs], 1), torch.cat([pad, ref], 1), torch.cat([none, mask], 1)), wanted)
    same(response_logratio(ref, logprobs, mask), -wanted)  # exchanged, every sign is


# What the losses mean


def table(seed, V=3, T=4):
    """All V^T sequences with their log-probs under two random tables that condition on everything before."""
    rng = torch.Generator().manual_seed(seed)
    law = {}
    for t in range(T):
        for prefix in itertools.product(range(V), repeat=t):
            law[prefix] = torch.randn(2, V, generator=rng, dtype=torch.float64).log_softmax(-1)
    sequences = list(itertools.product(range(V), repeat=T))
    logprobs = torch.stack([torch.stack([law[s[:t]][:, s[t]] for t in range(T)], -1) for s in sequences], 1)
    return sequences, *logprobs


@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_the_reward_of_a_right_response_cannot_be_high_on_average(beta):
    """E_ref exp(r / beta) = 1, so E_ref[r | right] <= beta ln(1 / p): why s(r) is no probability of being right."""
    for seed in range(3):
        sequences, logprobs, ref = table(seed)
        mask = torch.ones_like(ref, dtype=torch.bool)
        reward, law = beta * response_logratio(logprobs, ref, mask), ref.sum(-1).exp()
        same((law * (reward / beta).exp()).sum(), 1.0)
        right = torch.tensor([sum(s) % 2 == 0 for s in sequences])
        p = law[right].sum()
        assert (law[right] * reward[right]).sum() / p <= beta * (1 / p).log()
    assert 0.05 * math.log(2) == pytest.approx(0.035, abs=4e-4)  # half of them right, beta .05
    assert torch.sigmoid(torch.tensor(0.05 * math.log(2))).item() == pytest.approx(0.509, abs=4e-4)


def test_dpo_and_regularized_reward_have_the_same_optimum():
    """pi_ref (.5, .3, .2), r (1, 0, -1), beta .5: pi* ~ pi_ref e^(2 r) = .5 e^2, .3, .2 e^-2 = 3.694528, .3, .027067.

    They sum to 4.021595: pi* = (.918672, .074597, .006730), and the best value is beta ln 4.021595 = .695839. DPO on
    all pairs drawn from pi_ref, labeled as Bradley and Terry would by r, must end there too.
    """
    ref, reward, beta = double(0.5, 0.3, 0.2), double(1, 0, -1), 0.5
    best = double(0.918672, 0.074597, 0.006730)
    i, j = torch.tensor(list(itertools.permutations(range(3), 2))).T
    weight = ref[i] * ref[j] * torch.sigmoid(reward[i] - reward[j])

    def regularized(law):
        return -(law.exp() * (reward - beta * (law - ref.log()))).sum()

    def population(law):
        ratio = law - ref.log()
        return (weight * dpo(ratio[i], ratio[j], beta)).sum()

    for objective in (regularized, population):
        logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([logits], lr=0.05)
        for _ in range(1500):
            adam.zero_grad()
            objective(logits.log_softmax(0)).backward()
            adam.step()
        same(logits.detach().softmax(0), best, 1e-3)
        same(-regularized(logits.detach().log_softmax(0)), 0.695839, 1e-3)
