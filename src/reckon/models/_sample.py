"""Drawing responses: prompts are read once each, answers come and go in a batch that stays full."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reckon.models._cache import Cache, Decode, Prefill
from reckon.models._network import last_hidden
from reckon.models._output import Head, head_of
from reckon.models._pack import side_by_side
from reckon.models._pick import pick
from reckon.models._settings import Sampling
from reckon.types import End

# Waiting answers join when this share of the places is free: reading prompts one by one would make small products.
_REFILL_AT = 0.125


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """N responses as they were drawn."""

    tokens: Tensor  # [N, T] int64, padded on the right with 0
    mask: Tensor  # [N, T] bool
    logprobs: Tensor  # [N, T] float32, 0 where the mask is False
    end: Tensor  # [N] int64, an `End`
    computed: int  # tokens that went through the layers


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """What is to be drawn."""

    prompts: Sequence[Tensor]  # G tensors of int64
    group: Sequence[int]  # N: which prompt each response answers
    limits: Sequence[int]  # N: the most tokens of each response, at least 1
    # [N, limit] float64 in [0, 1) on the CPU, each row its own, so that what a row says does not depend on its
    # companions; None = greedy.
    uniforms: Tensor | None
    sampling: Sampling
    eos: frozenset[int]  # tokens that end a response
    tail: Callable[[list[int]], str]  # the text of a few tokens, for finding stop strings


class Record:
    """The responses as they grow."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._tokens: list[list[int]] = [[] for _ in order.group]
        self._logprobs: list[list[float]] = [[] for _ in order.group]
        self._end = [End.LENGTH] * len(order.group)
        # A token that adds text adds a byte or more, so as many tokens as the longest string has bytes hold it.
        self._window = max((len(text.encode()) for text in order.sampling.stop), default=0) + 1

    def choose(self, rows: Sequence[int], logits: Tensor) -> tuple[list[int], list[bool]]:
        """Draws the next token of some rows from logits [n, V] float32.

        Returns:
            The tokens, and whether each row ends with its own.
        """
        order = self._order
        uniforms = None
        if order.uniforms is not None:
            places = torch.tensor([len(self._tokens[row]) for row in rows])
            uniforms = order.uniforms[torch.tensor(rows), places]
        picked, scores = pick(logits, uniforms, order.sampling)
        tokens = picked.tolist()
        over = []
        for row, token, score in zip(rows, tokens, scores.tolist(), strict=True):
            self._tokens[row].append(token)
            self._logprobs[row].append(score)
            over.append(self._ends(row, token))
        return tokens, over

    def _ends(self, row: int, token: int) -> bool:
        order = self._order
        if token in order.eos and not order.sampling.ignore_eos:
            self._end[row] = End.EOS
        elif token in order.sampling.stop_token_ids or self._stopped(row):
            self._end[row] = End.STOP
        else:
            return len(self._tokens[row]) == order.limits[row]
        return True

    def _stopped(self, row: int) -> bool:
        if not self._order.sampling.stop:
            return False
        text = self._order.tail(self._tokens[row][-self._window :])
        return any(mark in text for mark in self._order.sampling.stop)

    def drawn(self, device: torch.device, computed: int) -> Drawn:
        """All responses, once every row has ended."""
        longest = max(len(row) for row in self._tokens)
        tokens = torch.zeros(len(self._tokens), longest, dtype=torch.int64)
        logprobs = torch.zeros(len(self._tokens), longest)
        mask = torch.zeros_like(tokens, dtype=torch.bool)
        for i, (row, scores) in enumerate(zip(self._tokens, self._logprobs, strict=True)):
            tokens[i, : len(row)] = torch.tensor(row)
            logprobs[i, : len(row)] = torch.tensor(scores)
            mask[i, : len(row)] = True
        return Drawn(
            tokens=tokens.to(device),
            mask=mask.to(device),
            logprobs=logprobs.to(device),
            end=torch.tensor([int(end) for end in self._end], device=device),
            computed=computed,
        )


@dataclass(kw_only=True, eq=False)
class _Flight:
    """The answers being drawn. Slot i of the cache is row `rows[i]`; prompt slot j is prompt `prompts[j]`."""

    network: PreTrainedModel
    head: Head
    order: Order
    cache: Cache
    tokens_per_batch: int
    rows: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)  # of each slot: the token drawn and not yet read
    length: list[int] = field(default_factory=list)  # of each slot: tokens of the answer that were read
    prompts: list[int] = field(default_factory=list)
    computed: int = 0
    read: dict[int, Tensor] = field(default_factory=dict)  # of each prompt held: the last hidden state, [D]

    def admit(self, rows: Sequence[int], record: Record) -> None:
        """Takes up rows, reading those of their prompts that are not held yet, and draws their first tokens."""
        wanted = [self.order.group[row] for row in rows]
        self._read([prompt for prompt in dict.fromkeys(wanted) if prompt not in self.read])
        distinct = list(dict.fromkeys(wanted))
        logits = self.head.logits(torch.stack([self.read[prompt] for prompt in distinct]), self.cache.dtype)
        places = torch.tensor([distinct.index(prompt) for prompt in wanted], device=logits.device)
        tokens, over = record.choose(rows, logits[places])
        for row, token, ended in zip(rows, tokens, over, strict=True):
            if not ended:
                self.rows.append(row)
                self.pending.append(token)
                self.length.append(0)
        self._forget()

    def _read(self, prompts: list[int]) -> None:
        texts = self.order.prompts
        while prompts:
            part = [prompts.pop(0)]
            while prompts and sum(len(texts[p]) for p in [*part, prompts[0]]) <= self.tokens_per_batch:
                part.append(prompts.pop(0))
            packed = side_by_side([texts[prompt] for prompt in part], self.cache.dtype)
            sizes = tuple(len(texts[prompt]) for prompt in part)
            slots = tuple(range(len(self.prompts), len(self.prompts) + len(part)))
            layout = Prefill(packed=packed, cache=self.cache, slots=slots, sizes=sizes)
            hidden = last_hidden(self.network, packed.tokens, packed.positions, layout)
            self.computed += sum(sizes)
            ends = torch.tensor(sizes).cumsum(0) - 1
            self.read |= dict(zip(part, hidden[ends.to(hidden.device)].unbind(), strict=True))
            self.prompts += part

    def step(self, record: Record) -> None:
        """Reads the pending token of every row, draws the next one, and lets go of the rows that end with it."""
        device = self.network.device
        groups = [self.order.group[row] for row in self.rows]
        slot = {prompt: place for place, prompt in enumerate(self.prompts)}
        prompt = torch.tensor([len(self.order.prompts[group]) for group in groups], device=device)
        length = torch.tensor(self.length, device=device)
        layout = Decode(self.cache, torch.tensor([slot[group] for group in groups], device=device), prompt, length)
        tokens = torch.tensor(self.pending, device=device)[None]
        hidden = last_hidden(self.network, tokens, (prompt + length)[None], layout)
        self.computed += len(self.rows)
        self.pending, over = record.choose(self.rows, self.head.logits(hidden, self.cache.dtype))
        self.length = [length + 1 for length in self.length]
        if any(over):
            for place in reversed([place for place, ended in enumerate(over) if ended]):
                self._leave(place)
            self._forget()

    def _leave(self, place: int) -> None:
        last = len(self.rows) - 1
        if place != last:
            self.cache.move(last, place, prompts=False)
        for column in (self.rows, self.pending, self.length):
            column[place] = column[last]
            column.pop()

    def _forget(self) -> None:
        """Lets go of prompts that no row in flight answers. A row still waiting will have its prompt read again."""
        alive = {self.order.group[row] for row in self.rows}
        for place in reversed(range(len(self.prompts))):
            if self.prompts[place] not in alive:
                last = len(self.prompts) - 1
                if place != last:
                    self.cache.move(last, place, prompts=True)
                del self.read[self.prompts[place]]
                self.prompts[place] = self.prompts[last]
                self.prompts.pop()


@torch.no_grad()
def draw(
    network: PreTrainedModel, order: Order, *, dtype: torch.dtype, rows_per_batch: int, tokens_per_batch: int
) -> Drawn:
    """Answers each prompt as often as `order.group` names it.

    Long prompts come first, so that prompts of like length are in flight together and memory is allocated once.

    Args:
        network: a decoder-only model in evaluation mode.
        order: what to draw.
        dtype: of matrix products and of the keys and values kept.
        rows_per_batch: the most answers in flight.
        tokens_per_batch: the most prompt tokens read at once, where a single prompt is not longer.

    Returns:
        The responses, their end tokens included.
    """
    n = len(order.group)
    waiting = deque(sorted(range(n), key=lambda row: (-len(order.prompts[order.group[row]]), order.group[row])))
    capacity = min(rows_per_batch, n)
    cache = Cache(
        rows=capacity,
        prompt=max(len(order.prompts[group]) for group in order.group),
        new=max(1, max(order.limits) - 1),  # the last token drawn is never read
        dtype=dtype,
    )
    flight = _Flight(
        network=network, head=head_of(network), order=order, cache=cache, tokens_per_batch=tokens_per_batch
    )
    record = Record(order)
    while flight.rows or waiting:
        free = capacity - len(flight.rows)
        if waiting and (not flight.rows or free >= capacity * _REFILL_AT):
            flight.admit([waiting.popleft() for _ in range(min(free, len(waiting)))], record)
        if flight.rows:
            flight.step(record)
    return record.drawn(network.device, flight.computed)
