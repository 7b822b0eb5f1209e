"""Where every token of a micro-batch stands: groups side by side, each prompt once, its answers attending to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reckon.types import Sequences


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """n responses as one row of L tokens. Prompts come before their responses; nothing is padded."""

    tokens: Tensor  # [1, L] int64
    positions: Tensor  # [1, L] int64, as if each response followed its prompt alone
    attends: Tensor  # [1, 1, L, L] bool, query by key
    reads: Tensor  # [M] int64 into L: where each sampled token is predicted
    at: Tensor  # [M] int64 into L: where each sampled token stands
    rows: Tensor  # [M] int64 into n
    columns: Tensor  # [M] int64 into T


def lengths(seq: Sequences) -> Tensor:
    """[N] int64: tokens of each response up to its last sampled one, given prefixes included."""
    places = torch.arange(1, seq.mask.shape[1] + 1, device=seq.mask.device)
    return (seq.mask * places).amax(dim=1)


def pack(seq: Sequences) -> Packed:
    """Lays n responses out as one row in which the responses of a group share their prompt.

    A token attends to what came before it in its own response and to its own prompt, and to nothing else, which gives
    every response what it would have got by itself: causal attention never looks from a prompt at what follows it.
    """
    device = seq.tokens.device
    ends = lengths(seq).tolist()
    groups = seq.group.tolist()
    tokens, positions, owner, family = [], [], [], []  # owner: -1 for a prompt, else the row; family: the group
    starts: list[tuple[int, int]] = []  # of each row: where its last prompt token stands, where its first token stands
    place, current, prompt_end = 0, -1, 0
    for row, (group, length) in enumerate(zip(groups, ends, strict=True)):
        if group != current:
            current, prompt = group, seq.prompts[group]
            tokens.append(prompt)
            positions.append(torch.arange(len(prompt), device=device))
            owner += [-1] * len(prompt)
            family += [group] * len(prompt)
            place += len(prompt)
            prompt_end = place - 1
        starts.append((prompt_end, place))
        tokens.append(seq.tokens[row, :length])
        first = len(seq.prompts[group])
        positions.append(torch.arange(first, first + length, device=device))
        owner += [row] * length
        family += [group] * length
        place += length
    owners = torch.tensor(owner, device=device)
    families = torch.tensor(family, device=device)
    same = families[:, None] == families[None, :]
    visible = (owners[None, :] == -1) | (owners[:, None] == owners[None, :])
    attends = (same & visible).tril()
    rows, columns = seq.mask.nonzero(as_tuple=True)
    before = torch.tensor([start for start, _ in starts], device=device)[rows]
    at = torch.tensor([first for _, first in starts], device=device)[rows] + columns
    return Packed(
        tokens=torch.cat(tokens)[None],
        positions=torch.cat(positions)[None],
        attends=attends[None, None],
        reads=torch.where(columns == 0, before, at - 1),
        at=at,
        rows=rows,
        columns=columns,
    )


def micro_batches(seq: Sequences, budget: int) -> list[Tensor]:
    """Cuts N responses into runs of rows whose packed length stays within `budget` tokens where it can.

    A response that is longer than the budget together with its prompt stands alone: it cannot be cut.

    Returns:
        [n] int64 row indices of each micro-batch, in order; together they are 0 .. N - 1.
    """
    cuts: list[list[int]] = []
    used, current = 0, -1
    for row, (group, length) in enumerate(zip(seq.group.tolist(), lengths(seq).tolist(), strict=True)):
        prompt = len(seq.prompts[group])
        cost = length + (prompt if group != current else 0)
        if not cuts or used + cost > budget:
            cuts.append([])
            used, cost = 0, length + prompt
        cuts[-1].append(row)
        used, current = used + cost, group
    return [torch.tensor(cut, device=seq.tokens.device) for cut in cuts]
