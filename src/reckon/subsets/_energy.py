"""Energies of subsets: sums of encoded elements, read by a network that may also see the whole set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from reckon.errors import InputError

Context: TypeAlias = Literal["none", "concat", "complement", "add"]
SetFunction: TypeAlias = Callable[[Tensor], Tensor]  # rows [B, R, n] float in [0, 1], 1 = in the subset, to [B, R]


def mlp(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """A network with `layers` hidden layers of `hidden` ReLU units; with 0 of them it is linear."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(inputs, hidden), nn.ReLU()]
        inputs = hidden
    return nn.Sequential(*parts, nn.Linear(inputs, outputs))


def encode(encoder: nn.Module, features: Tensor, mask: Tensor, width: int) -> Tensor:
    """Encodes the elements that are there, one by one.

    Args:
        encoder: from [E, ...] elements to [E, width].
        features: [B, n, ...] float32.
        mask: [B, n] bool. The encoder is never shown padding.
        width: numbers of an encoded element.

    Returns:
        [B, n, width], 0 in padding.

    Raises:
        InputError: the encoder gives something of another shape.
    """
    found: Tensor = encoder(features[mask])
    if found.shape != (int(mask.sum()), width):
        raise InputError(
            f"the encoder turned {int(mask.sum())} elements into numbers of shape {tuple(found.shape)}; it must give "
            f"[elements, width] with the width that was set, {width}."
        )
    return found.new_zeros((*mask.shape, width)).masked_scatter(mask.unsqueeze(-1), found)


class SetEnergy(nn.Module):
    """F(S; V), the larger the likelier: p(S | V) is proportional to exp F (EquiVSet, Ou et al. 2022, eq. 2 ff.).

    With z_S the sum over S of phi(element), times `scale`, and z_V that over the whole set, `context` is one of

    - none: f(z_S), which is EquiVSet's;
    - concat: f([z_S, z_V]);
    - complement: f1(z_S) + f2(z_V - z_S), which is INSET's released code (Xie et al. 2024, flag `--symmetry`);
    - add: f(relu(theta1(z_S) + theta2(z_V))), which is INSET's paper. theta1 and theta2 have a hidden layer each: were
      they linear, this would be concat.

    A term of V alone, added at the end, is left out on purpose: inference sees differences of F only, and it cancels.

    Args:
        encoder: phi, any module from [E, ...] elements to [E, width].
        width: numbers of an encoded element.
        context: as above.
        hidden: units of a hidden layer.
        layers: hidden layers of f.
        scale: of the sums, above 0. A constant, since dividing by |S| would hide how large S is; take it smaller for
            larger sets.

    Raises:
        InputError: no such context, or a size below 1.
    """

    def __init__(
        self,
        encoder: nn.Module,
        width: int,
        *,
        context: Context = "complement",
        hidden: int = 64,
        layers: int = 2,
        scale: float = 0.25,
    ) -> None:
        super().__init__()
        if context not in get_args(Context):
            raise InputError(f"SetEnergy: context is {context!r}; it must be one of {', '.join(get_args(Context))}.")
        if min(width, hidden) < 1 or layers < 0 or not 0 < scale < float("inf"):
            raise InputError(
                f"SetEnergy: width {width}, hidden {hidden}, layers {layers}, scale {scale}; the first two must be at "
                "least 1, layers at least 0, and the scale above 0."
            )
        self.encoder, self.width, self.context, self.scale = encoder, width, context, scale
        self.head = mlp(2 * width if context == "concat" else width, hidden, layers, 1)
        self.others = mlp(width, hidden, layers, 1) if context == "complement" else None
        self.theta = nn.ModuleList(mlp(width, hidden, 1, width) for _ in range(2 if context == "add" else 0))

    def on(self, features: Tensor, mask: Tensor) -> Pool:
        """Reads B ground sets once; what is returned can be asked about any subsets of them.

        Args:
            features: [B, n, ...] float32.
            mask: [B, n] bool, True where there is an element. Padding adds nothing to any subset.
        """
        return Pool(self, encode(self.encoder, features, mask, self.width) * self.scale)

    def forward(self, features: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """[B, R] float32, the energies of subsets given as rows [B, R, n]."""
        return self.on(features, mask)(rows)

    def read(self, subset: Tensor, whole: Tensor) -> Tensor:
        """[B, R] energies, from the sums over the subset [B, R, d] and over the whole set [B, 1, d]."""
        seen = subset
        if self.context == "concat":
            seen = torch.cat([subset, whole.expand_as(subset)], dim=-1)
        elif self.context == "add":
            seen = (self.theta[0](subset) + self.theta[1](whole)).relu()
        # squeeze(-1), not squeeze(): a batch of one set would lose its axis, as in INSET's released code.
        energy: Tensor = self.head(seen).squeeze(-1)
        return energy if self.others is None else energy + self.others(whole - subset).squeeze(-1)


@dataclass(frozen=True, eq=False)
class Pool:
    """An energy that has read its ground sets: a `SetFunction`."""

    energy: SetEnergy
    elements: Tensor  # [B, n, d], encoded and scaled, 0 in padding

    def __call__(self, rows: Tensor) -> Tensor:
        """[B, R], the energies of rows [B, R, n] float in [0, 1]."""
        return self.energy.read(rows @ self.elements, self.elements.sum(dim=1, keepdim=True))
