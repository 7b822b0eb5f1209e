"""The loss of marginals, and whom it counts (EquiVSet, Ou et al. 2022, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from reckon.subsets._mean_field import Uniform


def balanced_weights(chosen: Tensor, mask: Tensor, negatives: float | None, uniform: Uniform) -> Tensor:
    """1 for the optimal subset and for as many others drawn at random, 0 for the rest.

    Where the subset is small, all the others together would teach a network to say 0 everywhere.

    Args:
        chosen: [B, n] bool, the optimal subset.
        mask: [B, n] bool, True where there is an element.
        negatives: others for each chosen element, rounded to whole ones; None = all of them.
        uniform: where the draw comes from; draw anew in every epoch.

    Returns:
        [B, n] float32.
    """
    others = mask & ~chosen
    if negatives is None:
        return (chosen | others).float()
    wanted = (negatives * chosen.sum(dim=1, keepdim=True)).round()
    luck = torch.where(others, uniform(tuple(mask.shape)).to(mask.device), 2.0)  # 2: after all the others
    place = luck.argsort(dim=1).argsort(dim=1)
    return (chosen | (others & (place < wanted))).float()


def marginal_loss(psi: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Binary cross entropy of marginals against the optimal subset, in nats, summed over each set's elements.

    Args:
        psi: [B, n] in [0, 1]; carries the gradient.
        chosen: [B, n] bool.
        weights: [B, n] float32, 0 for what does not count.

    Returns:
        [B].
    """
    likely = torch.where(chosen, psi, 1 - psi)
    return -(weights * (likely + 1e-12).log()).sum(dim=1)
