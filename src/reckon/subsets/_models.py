"""What a selector may be made of: an energy with mean-field inference, or greedy choice by an energy."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from reckon.errors import InputError
from reckon.subsets._energy import Context, SetEnergy, mlp
from reckon.subsets._losses import balanced_weights, marginal_loss
from reckon.subsets._mean_field import MeanField, Uniform, entropy
from reckon.subsets._posterior import AmortizedPosterior, relaxed_samples
from reckon.subsets._sets import Sets

Encoder: TypeAlias = "Literal['linear', 'mlp'] | nn.Module"
ELBO_SAMPLES = 5  # where inference itself draws none


class SubsetModel(Protocol):
    """What `SubsetSelector` trains: an `nn.Module` with these two methods."""

    marginals: bool  # whether psi are probabilities; else only their order means something

    def loss(self, sets: Sets, uniform: Uniform) -> Tensor:
        """[B], to be minimized, for sets with known subsets that are neither empty nor all there is."""
        ...

    def psi(self, sets: Sets, uniform: Uniform) -> Tensor:
        """[B, n] in [0, 1], 0 in padding: the larger, the rather it is chosen."""
        ...


class Makes(Protocol):
    """What makes a model for elements of a shape; a selector makes a new one at every fit."""

    def __call__(self, shape: tuple[int, ...]) -> nn.Module:
        """A `SubsetModel` that is an `nn.Module`, for elements of this shape."""
        ...


def make_encoder(encoder: Encoder, shape: tuple[int, ...], hidden: int, width: int) -> nn.Module:
    """The encoder of that name for elements of a shape, or a copy of one's own with the weights it has now.

    Raises:
        InputError: there is none of that name.
    """
    if isinstance(encoder, nn.Module):
        return deepcopy(encoder)
    if encoder not in ("linear", "mlp"):
        raise InputError(f"the encoder is {encoder!r}; it must be 'linear', 'mlp' or a torch module.")
    layers = int(encoder == "mlp")
    return nn.Sequential(nn.Flatten(), mlp(int(torch.Size(shape).numel()), hidden, layers, width))


class EnergyModel(nn.Module):
    """An energy with mean-field inference, whose start may be guessed by a posterior (EquiVSet and INSET).

    Args:
        energy: F(S; V).
        inference: how psi is found.
        posterior: where inference starts; None = at 0.5 (DiffMF).
        negatives: as of `balanced_weights`.
        tau: temperature of the posterior's samples.
        samples: of the posterior's ELBO.
        unit_variance: as of `relaxed_samples`.
    """

    marginals = True

    def __init__(
        self,
        energy: SetEnergy,
        inference: MeanField,
        posterior: AmortizedPosterior | None = None,
        *,
        negatives: float | None = 1.0,
        tau: float = 0.1,
        samples: int = ELBO_SAMPLES,
        unit_variance: bool = False,
    ) -> None:
        super().__init__()
        self.energy, self.inference, self.posterior = energy, inference, posterior
        self.negatives, self.tau, self.samples, self.unit_variance = negatives, tau, samples, unit_variance

    def loss(self, sets: Sets, uniform: Uniform) -> Tensor:
        """[B]: the loss of marginals, which trains the energy alone, less the ELBO, which trains the posterior alone.

        The two have no weight in common, so the gradient of their sum is that of each. They meet where `train` clips:
        it bounds the norm of both together, and a large gradient of one lessens the other's. The released code does
        so too, but steps twice, the posterior first.
        """
        chosen = sets.optimal()
        weights = balanced_weights(chosen, sets.mask, self.negatives, uniform)
        loss = marginal_loss(self.psi(sets, uniform), chosen, weights)
        if self.posterior is None:
            return loss
        guess = self.posterior(sets.features, sets.mask)
        rows = relaxed_samples(guess, self.samples, uniform, tau=self.tau, unit_variance=self.unit_variance)
        frozen = {name: weight.detach() for name, weight in self.energy.named_parameters()}
        energies: Tensor = functional_call(self.energy, frozen, (sets.features, sets.mask, rows))
        return loss - (energies.mean(dim=1) + entropy(guess.psi))

    def psi(self, sets: Sets, uniform: Uniform) -> Tensor:
        """[B, n], the mean-field marginals; no gradient reaches the posterior."""
        start = None
        if self.posterior is not None:
            with torch.no_grad():
                start = self.posterior(sets.features, sets.mask).psi
        return self.inference(self.energy.on(sets.features, sets.mask), sets.mask, uniform, start)


class GreedyModel(nn.Module):
    """Probabilistic greedy choice (PGM): elements are added one by one, each by a softmax of the energies it leads to.

    Trained by the likelihood of the optimal subset in a random order (Tschiatschek, Sahin and Krause 2018,
    arXiv:1803.01785, section 3; as a baseline in Ou et al. 2022).

    Args:
        energy: F(S; V).
        gamma: the temperature of the softmax, above 0.
    """

    marginals = False

    def __init__(self, energy: SetEnergy, gamma: float = 1.0) -> None:
        super().__init__()
        self.energy, self.gamma = energy, gamma

    def loss(self, sets: Sets, uniform: Uniform) -> Tensor:
        """[B], minus the log-likelihood of one order of each subset."""
        chosen = sets.optimal()
        b, n = chosen.shape
        luck = torch.where(chosen, uniform((b, n)).to(chosen.device), 2.0)
        place = luck.argsort(dim=1).argsort(dim=1)
        steps = torch.arange(int(chosen.sum(dim=1).max()), device=chosen.device)[:, None]
        before = chosen.unsqueeze(1) & (place.unsqueeze(1) < steps)  # [B, J, n]
        now = chosen.unsqueeze(1) & (place.unsqueeze(1) == steps)
        chances = self._log_chances(sets, before)
        return -torch.where(now, chances, 0.0).sum(dim=(1, 2))

    def psi(self, sets: Sets, uniform: Uniform) -> Tensor:
        """[B, n]: 1 for the element that greedy choice takes first, falling by 1 / n with every further one."""
        del uniform
        b, n = sets.mask.shape
        psi = torch.zeros((b, n), device=sets.mask.device)
        taken = torch.zeros_like(sets.mask)
        for step in range(n):
            chances = self._log_chances(sets, taken.unsqueeze(1)).squeeze(1)
            best = nn.functional.one_hot(chances.argmax(dim=1), n).bool() & sets.mask & ~taken
            psi = torch.where(best, 1 - step / n, psi)
            taken = taken | best
        return psi

    def _log_chances(self, sets: Sets, before: Tensor) -> Tensor:
        """[B, J, n], of each element to come next after the subsets `before` [B, J, n]; very small if it is in."""
        b, steps, n = before.shape
        after = before.unsqueeze(2) | torch.eye(n, dtype=torch.bool, device=before.device)
        energies = self.energy.on(sets.features, sets.mask)(after.float().reshape(b, steps * n, n))
        # A finite number: a set in which all elements are taken has no next one, and -inf would make it nan.
        open_ = sets.mask.unsqueeze(1) & ~before
        return (energies.reshape(b, steps, n) / self.gamma).masked_fill(~open_, -1e9).log_softmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class EnergyBased:
    """Makes an `EnergyModel`. Sizes are small ones.

    The papers' are a copula, width 256, hidden 500, scale 1, rank and samples 5 (EquiVSet) or 8 (INSET), and a linear
    encoder for vectors.

    Raises:
        InputError: when called, if a setting is out of range.
    """

    context: Context = "complement"  # as of `SetEnergy`
    posterior: Literal["none", "independent", "copula"] = "none"  # DiffMF, EquiVSet_ind, EquiVSet_copula
    inference: MeanField = field(default_factory=MeanField)  # its `samples` are those of the posterior's ELBO as well
    encoder: Encoder = "mlp"  # 'linear' sees only sums of coordinates and |S|; a module is copied for each network
    width: int = 32  # numbers of an encoded element
    hidden: int = 64
    layers: int = 2  # hidden layers of the energy's head
    scale: float = 0.25  # of sums over elements; smaller for larger sets
    negatives: float | None = 1.0  # others that count, for each chosen element; None = all
    rank: int = 5  # of the copula
    tau: float = 0.1
    unit_variance: bool = False

    def __call__(self, shape: tuple[int, ...]) -> EnergyModel:
        """A model for elements of this shape, with new weights from torch's global generator."""
        if self.posterior not in ("none", "independent", "copula"):
            raise InputError(
                f"EnergyBased: posterior is {self.posterior!r}; it must be 'none', 'independent' or 'copula'."
            )
        if (self.negatives is not None and not self.negatives > 0) or not self.tau > 0 or self.rank < 1:
            raise InputError(
                f"EnergyBased: negatives {self.negatives}, tau {self.tau} and rank {self.rank} must be above 0."
            )
        guesses = None
        if self.posterior != "none":
            rank = self.rank if self.posterior == "copula" else 0
            encoder = make_encoder(self.encoder, shape, self.hidden, self.width)
            guesses = AmortizedPosterior(encoder, self.width, rank=rank, hidden=self.hidden)
        return EnergyModel(
            _energy(self, shape),
            self.inference,
            guesses,
            negatives=self.negatives,
            tau=self.tau,
            samples=self.inference.samples or ELBO_SAMPLES,  # one M for both, as in the released code
            unit_variance=self.unit_variance,
        )


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Makes a `GreedyModel`; settings as of `EnergyBased`."""

    context: Context = "none"
    encoder: Encoder = "mlp"
    width: int = 32
    hidden: int = 64
    layers: int = 2
    scale: float = 0.25
    gamma: float = 1.0

    def __call__(self, shape: tuple[int, ...]) -> GreedyModel:
        """A model for elements of this shape, with new weights from torch's global generator."""
        if not self.gamma > 0:
            raise InputError(f"Greedy: gamma is {self.gamma}; a temperature is above 0.")
        return GreedyModel(_energy(self, shape), self.gamma)


def _energy(plan: EnergyBased | Greedy, shape: tuple[int, ...]) -> SetEnergy:
    encoder = make_encoder(plan.encoder, shape, plan.hidden, plan.width)
    return SetEnergy(
        encoder, plan.width, context=plan.context, hidden=plan.hidden, layers=plan.layers, scale=plan.scale
    )
