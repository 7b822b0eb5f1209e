"""Mean field against hand-worked numbers, a list of all subsets, and finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from set_functions import draws, modular, no_draws, random_table, table

from reckon.errors import InputError, RunError
from reckon.subsets import (
    MOST,
    MeanField,
    elbo,
    entropy,
    every_subset,
    exact_gradient,
    fixed_point,
    log_partition,
    marginals,
    multilinear,
    sampled_gradient,
)

# F(empty) = 0, F(1) = 1, F(2) = .5, F(12) = 2
TWO = torch.tensor([[0.0, 1.0, 0.5, 2.0]], dtype=torch.float64)
HALF = torch.full((1, 2), 0.5, dtype=torch.float64)
BOTH = torch.ones((1, 2), dtype=torch.bool)


def close(found, expected, atol=5e-7):
    torch.testing.assert_close(
        found, torch.as_tensor(expected, dtype=found.dtype).reshape(found.shape), rtol=0, atol=atol
    )


def test_two_elements_by_hand():
    # .5 (1 - 0) + .5 (2 - .5) = 1.25 and .5 (.5 - 0) + .5 (2 - 1) = .75
    close(exact_gradient(table(TWO), HALF), [1.25, 0.75], atol=1e-12)
    psi = MeanField(samples=None)(table(TWO), BOTH, no_draws, HALF)
    close(psi, [0.777300, 0.679179])
    close(elbo(table(TWO), psi), [2.538643])
    settled = MeanField(steps=None, samples=None)(table(TWO), BOTH, no_draws, HALF)
    close(settled, [0.794981, 0.710434])
    close(elbo(table(TWO), settled), [2.541633])
    # log(1 + e + e^.5 + e^2), and P(1) = (e + e^2) / Z, P(2) = (e^.5 + e^2) / Z
    z = 1 + math.e + math.exp(0.5) + math.exp(2)
    close(log_partition(table(TWO), BOTH), [math.log(z)])
    close(log_partition(table(TWO), BOTH), [2.546006])
    close(marginals(table(TWO), BOTH), [0.792356, 0.708509])


def test_a_modular_energy_needs_one_step_from_anywhere():
    weights = torch.tensor([[1.5, -2.0, 0.0, 3.0]], dtype=torch.float64)
    mask = torch.ones((1, 4), dtype=torch.bool)
    for start in (None, torch.tensor([[0.9, 0.1, 0.3, 0.0]], dtype=torch.float64)):
        psi = MeanField(samples=None)(modular(weights), mask, no_draws, start)
        close(psi, weights.sigmoid(), atol=1e-7)
        sampled = MeanField(samples=3)(modular(weights), mask, draws(), start)
        close(sampled, weights.sigmoid(), atol=1e-6)  # whatever is drawn, the difference is w_i
    close(marginals(modular(weights), mask), weights.sigmoid(), atol=1e-6)


def test_damping_keeps_its_share_of_the_old_psi():
    """A quarter of .5 and three quarters of sigmoid(1.25); in turn the second element sees what became of the first."""
    first = 0.125 + 0.75 / (1 + math.exp(-1.25))
    together = MeanField(samples=None, damping=0.25)(table(TWO), BOTH, no_draws, HALF)
    close(together, [first, 0.125 + 0.75 / (1 + math.exp(-0.75))])
    turned = MeanField(samples=None, damping=0.25, order="in turn")(table(TWO), BOTH, no_draws, HALF)
    gain = 0.5 * (1 - first) + 1.0 * first  # F(2) - F(empty), F(12) - F(1)
    close(turned, [first, 0.125 + 0.75 / (1 + math.exp(-gain))])


def naive(values, psi):
    """The multilinear extension and its gradient of one set, by a loop over subsets in NumPy."""
    n = len(psi)
    total, gradient = 0.0, np.zeros(n)
    for subset in itertools.product((0, 1), repeat=n):
        value = values[sum(2**i for i in range(n) if subset[i])]
        each = [p if s else 1 - p for p, s in zip(psi, subset, strict=True)]
        total += value * math.prod(each)
        for i in range(n):
            gradient[i] += value * (1 if subset[i] else -1) * math.prod(each[:i] + each[i + 1 :])
    return total, gradient


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_exact_is_a_loop_over_all_subsets(n):
    values, psi = random_table(2, n), torch.rand((2, n), generator=torch.Generator().manual_seed(n)).double()
    psi[0, 0] = 0.0  # a certain element must not divide by zero
    for b in range(2):
        total, gradient = naive(values[b].tolist(), psi[b].tolist())
        close(multilinear(table(values), psi)[b], total, atol=1e-9)
        close(exact_gradient(table(values), psi)[b], gradient, atol=1e-9)


@pytest.mark.parametrize("n", [3, 8])
def test_sampling_is_unbiased_and_its_error_falls_as_one_over_the_root_of_m(n):
    values, psi = random_table(1, n), torch.linspace(0.1, 0.9, n, dtype=torch.float64).unsqueeze(0)
    truth, errors = exact_gradient(table(values), psi), {}
    for m in (25, 400):
        found = torch.cat(
            [sampled_gradient(table(values), psi, draws(seed)((1, m, n, n))) - truth for seed in range(200)]
        )
        errors[m] = float(found.square().mean().sqrt())
        assert float(found.mean(dim=0).abs().max()) < 5 * float(found.std(dim=0).max()) / math.sqrt(200)
    assert errors[25] / errors[400] == pytest.approx(4, rel=0.15)


def test_every_element_has_draws_of_its_own_and_is_not_in_its_own_sample():
    """F counts only pairs with element 0; the difference of element 1 is then how often 0 was drawn beside it."""
    uniforms = torch.full((1, 4, 3, 3), 0.9)
    uniforms[0, :3, 1, 0] = 0.1
    found = sampled_gradient(lambda rows: rows[..., 0] * rows[..., 1], torch.full((1, 3), 0.5), uniforms)
    close(found, [0.0, 0.75, 0.0])


@given(seed=st.integers(0, 10**6), n=st.integers(1, 6), scale=st.floats(0, 4))
def test_the_elbo_never_exceeds_log_z(seed, n, scale):
    energy = table(random_table(3, n, seed, scale))
    psi = torch.rand((3, n), generator=torch.Generator().manual_seed(seed)).double()
    full = torch.ones((3, n), dtype=torch.bool)
    assert (elbo(energy, psi) <= log_partition(energy, full) + 1e-9).all()


@given(seed=st.integers(0, 10**6), n=st.integers(2, 5), scale=st.floats(0, 6))
def test_exact_ascent_in_turn_never_lowers_the_elbo(seed, n, scale):
    energy, full = table(random_table(2, n, seed, scale)), torch.ones((2, n), dtype=torch.bool)
    psi = torch.rand((2, n), generator=torch.Generator().manual_seed(seed)).double()
    for _ in range(3):
        after = MeanField(samples=None, order="in turn")(energy, full, no_draws, psi)
        assert (elbo(energy, after) >= elbo(energy, psi) - 1e-9).all()
        psi = after


def test_repelling_elements_oscillate_together_and_settle_in_turn_or_damped():
    # F = 3 (x1 + x2) - 12 x1 x2 from psi = .5: both are pushed out, then both in, for ever
    repel = table(torch.tensor([[0.0, 3.0, 3.0, -6.0]], dtype=torch.float64))
    seen = [MeanField(steps=s, samples=None)(repel, BOTH, no_draws, HALF)[0, 0].item() for s in (20, 21)]
    assert abs(seen[0] - seen[1]) > 0.5
    turned = MeanField(steps=20, samples=None, order="in turn")(repel, BOTH, no_draws, HALF)
    assert sorted(turned[0].round().tolist()) == [0, 1]
    close(MeanField(samples=None, order="in turn")(repel, BOTH, no_draws, turned), turned, atol=1e-6)
    damped = MeanField(steps=None, samples=None, damping=0.7)(repel, BOTH, no_draws, HALF)
    close(damped, exact_gradient(repel, damped.detach()).sigmoid(), atol=1e-5)
    with pytest.raises(RunError, match="Raise `damping`"):
        MeanField(steps=None, samples=None)(repel, BOTH, no_draws, HALF)


# The fixed point's gradient


def settled(values, damping=0.0, start=None):
    n = int(math.log2(values.shape[1]))
    begin = torch.full((len(values), n), 0.5, dtype=values.dtype) if start is None else start
    return fixed_point(
        lambda at: exact_gradient(table(values), at).sigmoid(), begin, damping=damping, tolerance=1e-13, limit=10000
    )


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_the_gradient_of_the_fixed_point_is_that_of_finite_differences(damping):
    values = random_table(2, 3, seed=4, scale=0.8)
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.0, 2.0]], dtype=torch.float64)
    leaf = values.clone().requires_grad_()
    (settled(leaf, damping) * weight).sum().backward()
    h = 1e-4
    for b, i in itertools.product(range(2), range(8)):
        step = torch.zeros_like(values)
        step[b, i] = h
        with torch.no_grad():
            up, down = (float((settled(values + s, damping) * weight).sum()) for s in (step, -step))
        assert float(leaf.grad[b, i]) == pytest.approx((up - down) / (2 * h), abs=1e-7)


def test_the_gradient_of_the_fixed_point_does_not_depend_on_the_start_and_many_steps_come_to_it():
    values = random_table(1, 3, seed=7, scale=0.5)
    found = []
    for start in (0.1, 0.9):
        leaf = values.clone().requires_grad_()
        settled(leaf, start=torch.full((1, 3), start, dtype=torch.float64)).sum().backward()
        found.append(leaf.grad)
    leaf, full = values.clone().requires_grad_(), torch.ones((1, 3), dtype=torch.bool)
    MeanField(steps=60, samples=None)(table(leaf), full, no_draws, torch.full((1, 3), 0.5).double()).sum().backward()
    close(found[0], found[1], atol=1e-10)
    close(found[0], leaf.grad, atol=1e-8)


def test_sampled_steps_carry_the_energys_gradient_and_not_that_of_the_start():
    """For a modular energy d psi_i / d w_i = psi (1 - psi), whatever was drawn."""
    weights = torch.tensor([[0.5, -1.0]], requires_grad=True)
    start = torch.full((1, 2), 0.4, requires_grad=True)
    psi = MeanField(steps=3, samples=2)(modular(weights), BOTH, draws(), start)
    psi.sum().backward()
    close(weights.grad, weights.detach().sigmoid() * (1 - weights.detach().sigmoid()))
    assert start.grad is None


# Padding, entropy, settings


def test_padding_is_never_in_a_subset_and_changes_nothing():
    values = random_table(1, 2)
    padded = torch.cat([values, values + 7], dim=1)  # a third element that would be welcome
    mask = torch.tensor([[True, True, False]])
    for field in (MeanField(samples=None), MeanField(steps=None, samples=None, damping=0.3)):
        alone = field(table(values), BOTH, no_draws)
        close(field(table(padded), mask, no_draws), torch.cat([alone, torch.zeros(1, 1)], dim=1), atol=1e-6)
    close(log_partition(table(padded), mask), log_partition(table(values), BOTH), atol=1e-12)
    close(
        marginals(table(padded), mask),
        torch.cat([marginals(table(values), BOTH), torch.zeros(1, 1)], dim=1),
    )
    sampled = MeanField(samples=5, steps=2)(table(padded.float()), mask, draws())
    assert sampled[0, 2] == 0


def test_entropy_by_hand():
    # ln 2 for a fair coin; .9 ln(1/.9) + .1 ln 10 = .325083; nothing for what is certain
    close(entropy(torch.tensor([[0.5, 0.9, 0.0, 1.0]])), [math.log(2) + 0.325083], atol=1e-6)


def test_the_entropys_gradient_is_a_number_where_a_sigmoid_has_come_to_0_or_1():
    """By a logit l it is -l psi (1 - psi): -1 * .196612 at 1, and nothing at 40 and -200, where float32 has 1 and 0."""
    logits = torch.tensor([[0.0, 1.0, 40.0, -200.0]], requires_grad=True)
    psi = logits.sigmoid()
    assert psi.detach()[0, 2:].tolist() == [1.0, 0.0]
    entropy(psi).sum().backward()
    close(logits.grad, [0.0, -0.196612, 0.0, 0.0], atol=1e-6)


def test_every_subset_comes_once():
    rows = every_subset(torch.zeros((1, 3)))
    assert rows.shape == (8, 3)
    assert len({tuple(row) for row in rows.tolist()}) == 8
    with pytest.raises(InputError, match="set `samples`"):
        every_subset(torch.zeros((1, MOST + 1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"samples": 0}, "at least 1"),
        ({"damping": 1.0}, "damping is 1.0"),
        ({"damping": math.nan}, "damping is nan"),
        ({"order": "backwards"}, "'together' or 'in turn'"),
        ({"steps": None}, "needs samples=None"),
        ({"steps": None, "samples": None, "order": "in turn"}, "order='together'"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        MeanField(**settings)
