"""The amortized posterior: its draws have the frequencies they should, and the right weights learn."""

import math

import pytest
import torch
from set_functions import draws
from torch import nn

from reckon.errors import InputError
from reckon.subsets import AmortizedPosterior, EnergyModel, Guess, MeanField, SetEnergy, Sets, relaxed_samples

PSI = torch.tensor([[0.1, 0.5, 0.8, 0.0]])
MANY = 20000


def frequencies(guess, tau=1e-4, **settings):
    return relaxed_samples(guess, MANY, draws(), tau=tau, **settings).mean(dim=1)[0].tolist()


def errors(p):
    return 5 * math.sqrt(p * (1 - p) / MANY) + 1e-9


def test_an_independent_element_is_drawn_as_often_as_psi_says():
    for found, p in zip(frequencies(Guess(psi=PSI)), PSI[0].tolist(), strict=True):
        assert found == pytest.approx(p, abs=errors(p))


def test_a_copula_without_correlation_has_psi_as_its_frequencies():
    plain = Guess(psi=PSI, std=torch.ones(1, 4), factors=torch.zeros(1, 4, 2))
    for found, p in zip(frequencies(plain), PSI[0].tolist(), strict=True):
        assert found == pytest.approx(p, abs=errors(p))


def test_only_unit_variance_keeps_the_frequencies_of_a_copula():
    """u > 1 - psi where the normal number is above z, Phi(z) = 1 - psi: .9 has z = -1.2816; std 3 makes it z / 3."""
    p = torch.tensor([[0.9]])
    wide = Guess(psi=p, std=torch.full((1, 1), 3.0), factors=torch.zeros(1, 1, 1))
    (found,) = frequencies(wide)
    assert found == pytest.approx(0.5 * (1 + math.erf(1.281552 / 3 / math.sqrt(2))), abs=errors(0.66))  # .6654
    (found,) = frequencies(wide, unit_variance=True)
    assert found == pytest.approx(0.9, abs=errors(0.9))


def test_elements_with_like_factors_come_together():
    factors = torch.tensor([[[3.0], [3.0], [-3.0]]])
    guess = Guess(psi=torch.full((1, 3), 0.5), std=torch.full((1, 3), 0.1), factors=factors)
    rows = relaxed_samples(guess, 2000, draws(), tau=1e-4)[0].detach()
    together = torch.corrcoef(rows.T)
    assert float(together[0, 1]) > 0.9
    assert float(together[0, 2]) < -0.9


def test_draws_are_0_and_1_and_carry_the_relaxations_gradient():
    psi = torch.tensor([[0.3, 0.6]], requires_grad=True)
    rows = relaxed_samples(Guess(psi=psi), 50, draws(), tau=0.5)
    assert set(rows.unique().tolist()) == {0.0, 1.0}
    rows.sum().backward()
    assert (psi.grad > 0).all()  # a larger psi is a fuller subset


def model(rank):
    torch.manual_seed(0)
    energy = SetEnergy(nn.Linear(2, 4), 4, hidden=8)
    return EnergyModel(energy, MeanField(samples=2), AmortizedPosterior(nn.Linear(2, 4), 4, rank=rank, hidden=8))


def sets():
    generator = torch.Generator().manual_seed(1)
    chosen = torch.tensor([[True, False, False], [False, True, False]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    return Sets(features=torch.randn((2, 3, 2), generator=generator), mask=mask, chosen=chosen)


@pytest.mark.parametrize("rank", [0, 3])
def test_the_cross_entropy_never_reaches_the_posterior_nor_the_elbo_the_energy(rank):
    learner = model(rank)
    learner.psi(sets(), draws()).sum().backward()
    assert all(weight.grad is None for weight in learner.posterior.parameters())
    alone = EnergyModel(learner.energy, learner.inference)  # the same energy, started at a half
    for whole in (learner, alone):
        learner.zero_grad()
        # Draws that say the same to both: every element is drawn with the number 0.7, below no psi near a half.
        whole.loss(sets(), lambda shape: torch.full(shape, 0.7)).sum().backward()
        found = [weight.grad.clone() for weight in learner.energy.parameters() if weight.grad is not None]
        if whole is learner:
            first = found
            assert all(float(w.grad.abs().max()) > 0 for w in learner.posterior.psi.parameters())
    psi = learner.posterior(sets().features, sets().mask).psi
    assert psi.max().item() < 0.7, "the draws do not say the same to both"
    for ours, theirs in zip(first, found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_it_says_nothing_of_padding():
    guess = model(3).posterior(sets().features, sets().mask)
    assert guess.psi[1, 2] == 0
    assert guess.std.shape == (2, 3)
    assert guess.factors.shape == (2, 3, 3)
    assert relaxed_samples(guess, 20, draws())[1, :, 2].abs().sum() == 0


def test_padding_is_not_drawn_even_by_the_luckiest_number():
    """The logits of psi = 0 and of u = 1 end at 13.8, so together they are a coin's, and 0 is below its half."""
    numbers = iter([0.9999999, 0.0])
    rows = relaxed_samples(Guess(psi=torch.tensor([[0.5, 0.0]])), 3, lambda shape: torch.full(shape, next(numbers)))
    assert rows.tolist() == [[[1.0, 0.0]] * 3]


def test_settings_that_cannot_be():
    with pytest.raises(InputError, match="rank -1 at least 0"):
        AmortizedPosterior(nn.Identity(), 2, rank=-1)
