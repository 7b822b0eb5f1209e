"""Responses, or beginnings of them, that somebody else wrote, as sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from reckon.models._sample import Drawn
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


def with_prefixes(drawn: Drawn, prefixes: Sequence[Tensor]) -> Drawn:
    """Puts given tokens before the drawn ones; the mask stays False on them."""
    longest = max(len(prefix) for prefix in prefixes)
    if longest == 0:
        return drawn
    n, limit = drawn.tokens.shape
    tokens = drawn.tokens.new_zeros(n, longest + limit)
    mask = drawn.mask.new_zeros(n, longest + limit)
    logprobs = drawn.logprobs.new_zeros(n, longest + limit)
    for row, prefix in enumerate(prefixes):
        given = len(prefix)
        tokens[row, :given] = prefix
        tokens[row, given : given + limit] = drawn.tokens[row]
        mask[row, given : given + limit] = drawn.mask[row]
        logprobs[row, given : given + limit] = drawn.logprobs[row]
    return replace(drawn, tokens=tokens, mask=mask, logprobs=logprobs)
