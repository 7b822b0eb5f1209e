"""Baselines that score every element and know no set function: DeepSets and a Set Transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from reckon.errors import InputError
from reckon.subsets._energy import encode, mlp
from reckon.subsets._losses import balanced_weights, marginal_loss
from reckon.subsets._mean_field import Uniform
from reckon.subsets._models import Encoder, make_encoder
from reckon.subsets._sets import Sets


class ScorerModel(nn.Module):
    """A chance for every element, trained by the same loss of marginals as an energy.

    Args:
        encoder: from [E, ...] elements to [E, width].
        width: numbers of an encoded element.
        context: none = each element by itself; mean = beside the mean of the encoded set (DeepSets, Zaheer et al. 2017,
            arXiv:1703.06114); attention = two blocks of self-attention without positions (Set Transformer, Lee et al.
            2019, arXiv:1810.00825).
        hidden: units of a hidden layer.
        negatives: as of `balanced_weights`.
    """

    marginals = True

    def __init__(
        self,
        encoder: nn.Module,
        width: int,
        context: Literal["none", "mean", "attention"],
        hidden: int,
        negatives: float | None,
    ) -> None:
        super().__init__()
        self.encoder, self.width, self.context, self.negatives = encoder, width, context, negatives
        self.blocks = None
        if context == "attention":
            block = nn.TransformerEncoderLayer(width, nhead=4, dim_feedforward=hidden, dropout=0.0, batch_first=True)
            self.blocks = nn.TransformerEncoder(block, num_layers=2, enable_nested_tensor=False)
        self.head = mlp(2 * width if context == "mean" else width, hidden, 1, 1)

    def loss(self, sets: Sets, uniform: Uniform) -> Tensor:
        """[B], the loss of marginals."""
        chosen = sets.optimal()
        weights = balanced_weights(chosen, sets.mask, self.negatives, uniform)
        return marginal_loss(self.psi(sets, uniform), chosen, weights)

    def psi(self, sets: Sets, uniform: Uniform) -> Tensor:
        """[B, n] in (0, 1), 0 in padding."""
        del uniform
        seen = encode(self.encoder, sets.features, sets.mask, self.width)
        if self.context == "mean":
            mean = seen.sum(dim=1, keepdim=True) / sets.sizes[:, None, None]
            seen = torch.cat([seen, mean.expand_as(seen)], dim=-1)
        elif self.blocks is not None:
            seen = self.blocks(seen, src_key_padding_mask=~sets.mask)
        return torch.where(sets.mask, self.head(seen).squeeze(-1).sigmoid(), 0.0)


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Makes a `ScorerModel`; settings as there.

    Raises:
        InputError: when called, if a setting is out of range.
    """

    context: Literal["none", "mean", "attention"] = "mean"
    encoder: Encoder = "mlp"
    width: int = 32  # a multiple of 4, the heads, for attention
    hidden: int = 64
    negatives: float | None = 1.0

    def __call__(self, shape: tuple[int, ...]) -> ScorerModel:
        """A model for elements of this shape, with new weights from torch's global generator."""
        if self.context not in ("none", "mean", "attention"):
            raise InputError(f"Scorer: context is {self.context!r}; it must be 'none', 'mean' or 'attention'.")
        if self.context == "attention" and self.width % 4:
            raise InputError(f"Scorer: width is {self.width}; attention has 4 heads, so it must be a multiple of 4.")
        if self.negatives is not None and not self.negatives > 0:
            raise InputError(f"Scorer: negatives is {self.negatives}; it must be above 0, or None for all.")
        encoder = make_encoder(self.encoder, shape, self.hidden, self.width)
        return ScorerModel(encoder, self.width, self.context, self.hidden, self.negatives)
