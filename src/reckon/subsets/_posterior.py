"""An amortized posterior: a network that guesses where mean-field inference should start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reckon.errors import InputError
from reckon.subsets._energy import encode
from reckon.subsets._mean_field import Uniform

EDGE = 1e-6  # how near to 0 and 1 a probability may come before its logit is taken


@dataclass(frozen=True, kw_only=True, eq=False)
class Guess:
    """What the posterior says of B sets."""

    psi: Tensor  # [B, n] in (0, 1), 0 in padding
    std: Tensor | None = None  # [B, n] above 0; None = elements are independent
    factors: Tensor | None = None  # [B, n, rank] in (-1, 1); elements with like factors come and go together


class AmortizedPosterior(nn.Module):
    """Each element's chance to be in the optimal subset, element by element (EquiVSet's RecNet).

    As in the released code it sees no element but the one it speaks of.

    Args:
        encoder: any module from [E, ...] elements to [E, width]; not shared with the energy.
        width: numbers of an encoded element.
        rank: of the correlations in the Gaussian copula (EquiVSet_copula); 0 = independent (EquiVSet_ind).
        hidden: units of the hidden layer.

    Raises:
        InputError: a size is out of range.
    """

    def __init__(self, encoder: nn.Module, width: int, *, rank: int = 0, hidden: int = 64) -> None:
        super().__init__()
        if min(width, hidden) < 1 or rank < 0:
            raise InputError(
                f"AmortizedPosterior: width {width} and hidden {hidden} must be at least 1, rank {rank} at least 0."
            )
        self.encoder, self.width, self.rank = encoder, width, rank
        self.trunk = nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
        self.psi = nn.Linear(hidden, 1)
        self.copula = nn.Linear(hidden, 1 + rank) if rank else None

    def forward(self, features: Tensor, mask: Tensor) -> Guess:
        """Guesses for [B, n, ...] features with [B, n] bool mask."""
        seen = self.trunk(encode(self.encoder, features, mask, self.width))
        psi = torch.where(mask, self.psi(seen).squeeze(-1).sigmoid(), 0.0)
        if self.copula is None:
            return Guess(psi=psi)
        found = self.copula(seen)
        return Guess(psi=psi, std=nn.functional.softplus(found[..., 0]), factors=found[..., 1:].tanh())


def relaxed_samples(
    guess: Guess, samples: int, uniform: Uniform, *, tau: float = 0.1, unit_variance: bool = False
) -> Tensor:
    """Subsets drawn from a guess: 0 and 1, with the gradient of a relaxation (straight through).

    An element is in the subset if its uniform number u lies above 1 - psi, softened by the temperature:
    r ~ Bernoulli(sigmoid((logit psi + logit u) / tau)). In a copula u = Phi(std e + factors e'), with e of each element
    and e' of the subset.

    Args:
        guess: of B sets.
        samples: M, subsets to draw from each.
        uniform: where the draws come from.
        tau: the temperature, above 0; towards 0 an element's frequency is psi.
        unit_variance: divide by the standard deviation of std e + factors e', so that u is uniform and frequencies are
            psi. The released code does not, so there they are nearer to a half or further from it.

    Returns:
        [B, M, n] float32, 0 in padding.
    """
    b, n = guess.psi.shape
    if guess.std is None or guess.factors is None:
        u = uniform((b, samples, n)).to(guess.psi)
    else:
        own = torch.special.ndtri(uniform((b, samples, n)).clamp(EDGE, 1 - EDGE)).to(guess.psi)
        common = uniform((b, samples, guess.factors.shape[-1])).clamp(EDGE, 1 - EDGE)
        normal = guess.std.unsqueeze(1) * own + torch.special.ndtri(common).to(own) @ guess.factors.mT
        if unit_variance:
            normal = normal / (guess.std.square() + guess.factors.square().sum(dim=-1)).sqrt().unsqueeze(1)
        u = torch.special.ndtr(normal)
    soft = ((guess.psi.logit(EDGE).unsqueeze(1) + u.logit(EDGE)) / tau).sigmoid()
    hard = (uniform((b, samples, n)).to(soft) < soft).to(soft.dtype)
    # In brackets, or rounding would make it something near 0 and 1.
    return torch.where(guess.psi.unsqueeze(1) > 0, hard + (soft - soft.detach()), 0.0)
