"""Where every token of a micro-batch stands: prompts once, their answers behind them, nothing padded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reckon.models._attention import Rule, Span, packed_attention
from reckon.types import Sequences


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """n responses as one row of L tokens: the layout of a pass that scores or learns."""

    tokens: Tensor  # [1, L] int64
    positions: Tensor  # [1, L] int64, as if each response followed its prompt alone
    spans: tuple[Span, ...]  # every token is in one
    reads: Tensor  # [M] int64 into L: where each sampled token is predicted
    at: Tensor  # [M] int64 into L: where each sampled token stands; that of a last token only if it was packed
    dtype: torch.dtype  # of the matrix products

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """A token attends to what came before it in its own response and to its own prompt, and to nothing else."""
        return packed_attention(query, key, value, self.spans, rule, self.dtype)


def lengths(seq: Sequences) -> Tensor:
    """[N] int64: tokens of each response up to its last sampled one, given prefixes included."""
    places = torch.arange(1, seq.mask.shape[1] + 1, device=seq.mask.device)
    return (seq.mask * places).amax(dim=1)


def side_by_side(prompts: list[Tensor], dtype: torch.dtype) -> Packed:
    """Whole sequences, none of which shares anything."""
    device = prompts[0].device
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return Packed(
        tokens=torch.cat(prompts)[None],
        positions=torch.cat([torch.arange(len(prompt), device=device) for prompt in prompts])[None],
        spans=tuple(_merged(_laid(0, [len(prompt) for prompt in prompts]))),
        reads=none,
        at=none,
        dtype=dtype,
    )


def pack(seq: Sequences, dtype: torch.dtype, *, last: bool) -> Packed:
    """Lays n responses out as one row in which the responses of a group share their prompt.

    Nothing is predicted from the last token of a response, so with `last` False it is left out.

    First come the prompts that several responses share, then their responses, group by group and short before long, so
    that equal lengths stand together; then every prompt with a single response, as one sequence.
    """
    device = seq.tokens.device
    ends = (lengths(seq) - (0 if last else 1)).clamp(min=0).tolist()
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(seq.group.tolist()):
        groups.setdefault(group, []).append(row)
    shared = {group: sorted(rows, key=lambda row: ends[row]) for group, rows in groups.items() if len(rows) > 1}
    prompts = {group: len(seq.prompts[group]) for group in groups}
    order = sorted(shared, key=lambda group: prompts[group])
    spans = _laid(0, [prompts[group] for group in order])
    head_start = dict(zip(order, [span.start for span in spans], strict=True))
    tokens = [seq.prompts[group] for group in order]
    positions = [torch.arange(prompts[group], device=device) for group in order]
    place = sum(prompts[group] for group in order)
    first, before = [0] * len(ends), [0] * len(ends)  # of each row: where its first token and the one before it stand
    for group in order:
        for row in shared[group]:
            if ends[row]:
                spans.append(
                    Span(start=place, rows=1, length=ends[row], prefix_start=head_start[group], prefix=prompts[group])
                )
            first[row], before[row] = place, head_start[group] + prompts[group] - 1
            tokens.append(seq.tokens[row, : ends[row]])
            positions.append(torch.arange(prompts[group], prompts[group] + ends[row], device=device))
            place += ends[row]
    for group, rows in groups.items():
        if len(rows) == 1:
            row, whole = rows[0], prompts[group] + ends[rows[0]]
            spans.append(Span(start=place, rows=1, length=whole))
            first[row], before[row] = place + prompts[group], place + prompts[group] - 1
            tokens += [seq.prompts[group], seq.tokens[row, : ends[row]]]
            positions.append(torch.arange(whole, device=device))
            place += whole
    rows_at, columns = seq.mask.nonzero(as_tuple=True)
    at = torch.tensor(first, device=device)[rows_at] + columns
    return Packed(
        tokens=torch.cat(tokens)[None],
        positions=torch.cat(positions)[None],
        spans=tuple(_merged(spans)),
        reads=torch.where(columns == 0, torch.tensor(before, device=device)[rows_at], at - 1),
        at=at,
        dtype=dtype,
    )


def _laid(start: int, sizes: list[int]) -> list[Span]:
    """Sequences of these lengths one after the other from `start`, each without a prefix."""
    spans = []
    for size in sizes:
        spans.append(Span(start=start, rows=1, length=size))
        start += size
    return spans


def _merged(spans: list[Span]) -> list[Span]:
    """The same spans, those that follow one another with equal length and prefix made one: larger products."""
    out: list[Span] = []
    for span in spans:
        last = out[-1] if out else None
        if last is not None and (last.length, last.prefix_start, last.prefix) == (
            span.length,
            span.prefix_start,
            span.prefix,
        ):
            out[-1] = Span(
                start=last.start,
                rows=last.rows + 1,
                length=last.length,
                prefix_start=last.prefix_start,
                prefix=last.prefix,
            )
        else:
            out.append(span)
    return out


def micro_batches(seq: Sequences, budget: int, *, whole: bool = False) -> list[Tensor]:
    """Cuts N responses into runs of rows whose packed length stays within `budget` tokens where it can.

    A group is cut only if it is longer than the budget by itself, since each part computes the prompt again. A response
    that is longer than the budget together with its prompt stands alone: it cannot be cut.

    Args:
        seq: N responses.
        budget: tokens.
        whole: never cut a group, for losses that compare the responses to a prompt.

    Returns:
        [n] int64 row indices of each micro-batch, in order; together they are 0 .. N - 1.
    """
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(seq.group.tolist()):
        groups.setdefault(group, []).append(row)
    length = lengths(seq).tolist()
    cuts: list[list[int]] = []
    used, held = 0, -1  # tokens of the last cut, and the group whose prompt it has at its end
    for group, rows in groups.items():
        prompt = len(seq.prompts[group])
        together = whole or prompt + sum(length[row] for row in rows) <= budget
        for part in [rows] if together else [[row] for row in rows]:
            size = sum(length[row] for row in part)
            cost = size if held == group else prompt + size
            if not cuts or used + cost > budget:
                cuts.append([])
                used, cost = 0, prompt + size
            cuts[-1] += part
            used, held = used + cost, group
    return [torch.tensor(cut, device=seq.tokens.device) for cut in cuts]
