"""How near a subset is to the optimal one, and which subset marginals stand for."""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from reckon.errors import InputError


def jaccard(found: Tensor, chosen: Tensor) -> Tensor:
    """|found and chosen| / |found or chosen| of each set: [B] float32, 1 where both are empty.

    Args:
        found: [B, n] bool, False in padding.
        chosen: [B, n] bool, False in padding.
    """
    both, either = (found & chosen).sum(dim=1), (found | chosen).sum(dim=1)
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def random_jaccard(n: int, k: int) -> float:
    """The mean Jaccard index of two subsets of k of n elements, one of them drawn at random.

    Raises:
        InputError: unless 0 <= k <= n and n >= 1.
    """
    if not 0 <= k <= n or n < 1:
        raise InputError(f"random_jaccard: {k} of {n} elements is impossible; give 0 <= k <= n and n >= 1.")
    if not k:
        return 1.0
    return sum(comb(k, i) * comb(n - k, k - i) / comb(n, k) * i / (2 * k - i) for i in range(k + 1))


def largest(psi: Tensor, sizes: Tensor, mask: Tensor) -> Tensor:
    """The elements with the largest psi, ties to the first: [B, n] bool, never in padding.

    Args:
        psi: [B, n] float.
        sizes: [B] int64, how many of each set, at most as many as it has.
        mask: [B, n] bool.
    """
    order = torch.where(mask, psi, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(dim=1) < sizes.unsqueeze(1)) & mask
