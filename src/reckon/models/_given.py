"""Responses that somebody else wrote, as sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reckon.types import Sequences


def arranged(
    prompts: Sequence[Tensor], rows: Sequence[Sequence[int]], group: Sequence[int], device: torch.device
) -> Sequences:
    """N responses in tokens, none of them empty, to G prompts; every token counts as sampled."""
    tokens = torch.zeros(len(rows), max((len(row) for row in rows), default=0), dtype=torch.int64)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, : len(row)] = True
    return Sequences(
        prompts=tuple(prompt.to(device) for prompt in prompts),
        group=torch.tensor(list(group), dtype=torch.int64, device=device),
        tokens=tokens.to(device),
        mask=mask.to(device),
    )
