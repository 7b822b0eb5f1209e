"""What an agent reads of NetHack: a row of numbers, and the encoder that knows which of them are names of things."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from reckon.errors import InputError
from reckon.explore._presets import Encoder

GLYPHS = 5977  # NLE's MAX_GLYPH + 1: names of things that may stand in a cell
STATS = 27  # numbers of the status line
WORDS = 512  # rows of the table of messages; two messages may share one


@dataclass(frozen=True, kw_only=True)
class GlyphLayout:
    """Which numbers of an observation [D] are what: first the cells' glyphs, then the status line, then the message."""

    rows: int = 9  # of the square around the hero
    columns: int = 9

    @property
    def cells(self) -> int:
        """Glyphs of an observation."""
        return self.rows * self.columns

    @property
    def size(self) -> int:
        """D."""
        return self.cells + STATS + 1

    def row(self, glyphs: np.ndarray, stats: np.ndarray, message: int) -> np.ndarray:
        """An observation.

        Args:
            glyphs: [rows, columns] integers below `GLYPHS`.
            stats: [27] integers, NLE's blstats.
            message: the key of its text.

        Returns:
            [D] float32. Names of things are whole numbers, exact in float32; numbers of the status line, some of
            which are in the thousands, are sign(x) log(1 + |x|).
        """
        out = np.empty(self.size, dtype=np.float32)
        out[: self.cells] = glyphs.reshape(-1)
        out[self.cells : -1] = np.sign(stats[:STATS]) * np.log1p(np.abs(stats[:STATS].astype(np.float64)))
        out[-1] = message % WORDS
        return out


class GlyphEncoder(nn.Module):
    """From observations of a layout to features: tables for glyphs and messages, a layer over all that was found.

    Small, for a CPU: where the released networks convolve the map and the message's letters, here every cell of the
    square has weights of its own, and a message is one of `WORDS` rows.

    Args:
        layout: of the observations.
        size: features that come out.
        seed: of the first weights.
        width: of the layer.
    """

    def __init__(self, layout: GlyphLayout, size: int, *, seed: int, width: int = 128) -> None:
        super().__init__()
        if size < 1 or width < 1:
            raise InputError(f"glyph encoder: size={size} and width={width} cannot be: both must be at least 1.")
        self.layout, self.size = layout, size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.glyphs, self.words = nn.Embedding(GLYPHS, 8), nn.Embedding(WORDS, 16)
            self.first = nn.Linear(8 * layout.cells + STATS + 16, width)
            self.last = nn.Linear(width, size)

    def forward(self, obs: Tensor) -> Tensor:
        """[..., size] of [..., D] float32."""
        cells = self.layout.cells
        if obs.shape[-1] != self.layout.size:
            raise InputError(
                f"glyph encoder: the observations have {obs.shape[-1]} numbers, and the layout {self.layout.size}. "
                "Take the layout of the environments."
            )
        seen = self.glyphs(obs[..., :cells].long()).flatten(-2)
        said = self.words(obs[..., -1].long())
        hidden = self.first(torch.cat([seen, obs[..., cells:-1], said], dim=-1)).relu()
        return cast("Tensor", self.last(hidden))


class Encoded(nn.Module):
    """An encoder that actor and critic share, a tanh over it, and two heads. Without a memory.

    Args:
        encoder: from [..., D] to [..., size].
        size: features of the encoder.
        actions: A.
        seed: of the heads' first weights.
    """

    memory = 0

    def __init__(self, encoder: nn.Module, size: int, actions: int, *, seed: int = 0) -> None:
        super().__init__()
        self.encoder, self.actions = encoder, actions
        generator = torch.Generator().manual_seed(seed)
        self.policy, self.value = nn.Linear(size, actions), nn.Linear(size, 1)
        with torch.no_grad():
            for head, gain in ((self.policy, 0.01), (self.value, 1.0)):
                drawn = torch.randn(head.weight.shape, generator=generator)
                head.weight.copy_(gain / math.sqrt(size) * drawn)
                head.bias.zero_()

    def act(self, obs: Tensor, memory: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """See `Network`."""
        return cast("Tensor", self.policy(self.encoder(obs).tanh())), memory

    def sequence(self, obs: Tensor, memory: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """See `Network`."""
        found = self.encoder(obs).tanh()
        return self.policy(found), self.value(found)[..., 0]


def glyph_encoder(layout: GlyphLayout) -> Encoder:
    """What makes the networks of bonuses that read observations of a layout."""
    return lambda size, seed: GlyphEncoder(layout, size, seed=seed)
