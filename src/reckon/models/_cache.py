"""Keys and values of answers being drawn: each prompt's once for all its answers, each answer's in a slot of its own.

Slots are kept dense: what leaves is overwritten by the last, so that every product runs over rows that are alive.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from reckon.models._attention import Rule
from reckon.models._pack import Packed


@dataclass(eq=False)
class _Layer:
    """One layer's memory, allocated at its first use and never again."""

    prompt_keys: Tensor  # [Q, Hkv, P, D]
    prompt_values: Tensor  # [Q, Hkv, P, Dv]
    keys: Tensor  # [R, Hkv, T, D]
    values: Tensor  # [R, Hkv, T, Dv]
    reached: int = 0  # places of `values` that hold numbers; what was never written could be NaN, and 0 x NaN is NaN

    def write(self, rows: slice | Tensor, places: int | Tensor, key: Tensor, value: Tensor) -> None:
        """Puts one new key and value [n, Hkv, D] into each of n slots."""
        last = places if isinstance(places, int) else int(places.max())
        if last >= self.reached:
            self.values[:, :, self.reached : last + 1] = 0
            self.reached = last + 1
        self.keys[rows, :, places], self.values[rows, :, places] = key, value

    def tensors(self, prompts: bool) -> tuple[Tensor, Tensor]:
        return (self.prompt_keys, self.prompt_values) if prompts else (self.keys, self.values)


@dataclass(kw_only=True, eq=False)
class Cache:
    """Memory for `rows` answers of at most `new` tokens after as many prompts of at most `prompt` tokens."""

    rows: int
    prompt: int
    new: int
    dtype: torch.dtype
    layers: dict[int, _Layer] = field(default_factory=dict)

    def layer(self, index: int, key: Tensor, value: Tensor) -> _Layer:
        """The memory of a layer with keys [L, Hkv, D] and values [L, Hkv, Dv]."""
        if index not in self.layers:
            shapes = [
                (self.rows, x.shape[1], size, x.shape[2]) for size in (self.prompt, self.new) for x in (key, value)
            ]
            memory = [torch.empty(shape, dtype=self.dtype, device=key.device) for shape in shapes]
            self.layers[index] = _Layer(memory[0], memory[1], memory[2], memory[3])
        return self.layers[index]

    def move(self, source: int, target: int, *, prompts: bool) -> None:
        """Copies an answer's slot, or a prompt's, onto another."""
        for layer in self.layers.values():
            for memory in layer.tensors(prompts):
                memory[target] = memory[source]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefill:
    """The layout of the pass that reads prompts and keeps them."""

    packed: Packed
    cache: Cache
    slots: tuple[int, ...]  # where each prompt goes
    sizes: tuple[int, ...]  # its tokens

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """Each prompt attends to itself; its keys and values go into its slot."""
        memory = self.cache.layer(layer, key, value)
        start = 0
        for slot, size in zip(self.slots, self.sizes, strict=True):
            memory.prompt_keys[slot, :, :size] = key[start : start + size].transpose(0, 1)
            memory.prompt_values[slot, :, :size] = value[start : start + size].transpose(0, 1)
            memory.prompt_values[slot, :, size:] = 0  # a weight of 0 times what was never written could be NaN
            start += size
        return self.packed.attend(layer, query, key, value, rule)


class Decode:
    """The layout of a pass that reads one new token of each of n answers."""

    def __init__(self, cache: Cache, owner: Tensor, prompt: Tensor, length: Tensor) -> None:
        """Takes in who stands where.

        Args:
            cache: keys and values so far.
            owner: [n] int64: the slot of each answer's prompt; slots 0 .. Q - 1 all have answers.
            prompt: [n] int64: tokens of that prompt.
            length: [n] int64: tokens of each answer that are in the cache already.
        """
        self._cache, self._length, self._n = cache, length, len(owner)
        self._longest_prompt, self._longest = int(prompt.max()), int(length.max()) + 1
        level = int(length.min()) + 1 == self._longest  # slices are quicker than indices
        self._slots: tuple[slice | Tensor, int | Tensor] = (
            (slice(0, self._n), self._longest - 1) if level else (torch.arange(self._n, device=owner.device), length)
        )
        self._prompt = prompt
        # Answers to a prompt are multiplied with its keys together: [Q, m] of them, the missing ones any row at all.
        order = owner.argsort(stable=True)
        counts = owner.bincount()
        first = counts.cumsum(0) - counts
        self._prompts = len(counts)
        column = torch.arange(self._n, device=owner.device) - first[owner[order]]
        width = int(counts.max())
        self._members = torch.zeros(self._prompts, width, dtype=torch.int64, device=owner.device)
        self._members[owner[order], column] = order
        self._place = torch.empty_like(owner)
        self._place[order] = owner[order] * width + column
        # As long as no answer has ended, those to a prompt stand side by side, and nothing need be copied together.
        self._in_order = torch.equal(self._members.flatten(), torch.arange(self._n, device=owner.device))
        self._blocked: dict[int | None, Tensor | None] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """Each new token attends to its prompt, to the answer so far and to itself."""
        cache, n, t = self._cache, self._n, self._longest
        memory = cache.layer(layer, key, value)
        memory.write(*self._slots, key.to(cache.dtype), value.to(cache.dtype))
        heads = key.shape[1]
        q = (query * rule.scale).to(cache.dtype).unflatten(1, (heads, -1))  # [n, Hkv, rep, D]
        shared, own = slice(0, self._prompts), slice(0, n)
        keys = memory.keys[own].flatten(0, 1)[:, :t], memory.prompt_keys[shared].flatten(0, 1)
        values = memory.values[own].flatten(0, 1)[:, :t], memory.prompt_values[shared].flatten(0, 1)
        p = self._longest_prompt
        scores = torch.cat(
            [
                self._to_rows(torch.bmm(self._by_prompt(q), keys[1][:, :p].transpose(1, 2)), heads),
                torch.bmm(q.flatten(0, 1), keys[0].transpose(1, 2)).unflatten(0, (n, heads)),
            ],
            dim=3,
        ).float()  # [n, Hkv, rep, P + t]
        if rule.softcap is not None:
            scores = torch.tanh(scores / rule.softcap) * rule.softcap
        blocked = self._mask(rule.window)
        if blocked is not None:
            scores.masked_fill_(blocked, -torch.inf)
        weights = scores.softmax(dim=3).to(cache.dtype)
        out = torch.bmm(weights[..., p:].flatten(0, 1), values[0]).unflatten(0, (n, heads))
        out = out + self._to_rows(torch.bmm(self._by_prompt(weights[..., :p]), values[1][:, :p]), heads)
        together: Tensor = out.flatten(1, 2)
        return together

    def _by_prompt(self, rows: Tensor) -> Tensor:
        """[n, Hkv, rep, D] to [Q * Hkv, m * rep, D]."""
        by_prompt = rows.unflatten(0, self._members.shape) if self._in_order else rows[self._members]
        return by_prompt.transpose(1, 2).flatten(2, 3).flatten(0, 1)

    def _to_rows(self, products: Tensor, heads: int) -> Tensor:
        """[Q * Hkv, m * rep, P] to [n, Hkv, rep, P]."""
        width = self._members.shape[1]
        apart = products.unflatten(0, (self._prompts, heads)).unflatten(2, (width, -1))
        rows: Tensor = apart.transpose(1, 2).flatten(0, 1)
        return rows if self._in_order else rows[self._place]

    def _mask(self, window: int | None) -> Tensor | None:
        """[n, 1, 1, P + t] bool: what a row may not attend to; None if that is nothing."""
        if window is not None and window >= self._longest_prompt + self._longest:
            window = None
        if window not in self._blocked:
            p, t = self._longest_prompt, self._longest
            device = self._length.device
            size, length = self._prompt[:, None], self._length[:, None]
            in_prompt = torch.arange(p, device=device).expand(self._n, p)
            in_answer = torch.arange(t, device=device).expand(self._n, t)
            blocked = torch.cat([in_prompt >= size, in_answer > length], dim=1)
            if window is not None:
                position = torch.cat([in_prompt, in_answer + size], dim=1)
                blocked |= position <= size + length - window
            self._blocked[window] = blocked[:, None, None] if bool(blocked.any()) else None
        return self._blocked[window]
