"""Causal attention over packed tokens, in which sequences side by side may share a prefix; forward and backward.

It takes the place of a network's own attention (transformers' attention interface) while reckon computes with it, and
asks of the machine nothing but matrix products: prefix and own keys are multiplied apart and normalized together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

_NAME = "reckon"

# Scores held at once: more falls out of a processor's cache, fewer make products too small. Measured on two cores.
_SCORES = 1 << 20
# Queries of one sequence taken at once: a causal block of them needs no keys behind its last.
_QUERIES = 128


class UnsupportedError(Exception):
    """A network's attention wants something that packed tokens cannot be given."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """`rows` sequences of `length` packed tokens each, side by side from `start`, all after the same prefix."""

    start: int
    rows: int
    length: int
    prefix_start: int = 0
    prefix: int = 0  # tokens of the shared prefix

    @property
    def reach(self) -> int:
        """Positions from the first token of the prefix to the last of a sequence."""
        return self.prefix + self.length


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a layer weighs keys."""

    scale: float
    window: int | None = None  # a token sees itself and the window - 1 before it
    softcap: float | None = None  # scores are squashed into (-softcap, softcap) by tanh


class Layout(Protocol):
    """Where the tokens of one pass stand, and so what they attend to."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """Query [L, H, D], key [L, Hkv, D] and value [L, Hkv, Dv] of L packed tokens to [L, H, Dv]."""
        ...


@contextmanager
def attending(network: PreTrainedModel, name: str = _NAME) -> Iterator[None]:
    """Within it the network's layers attend as the `layout` says that is passed to its forward.

    Or, under the name of another implementation that transformers knows, as that one does.
    """
    own = network.config._attn_implementation
    network.config._attn_implementation = name
    try:
        yield
    finally:
        network.config._attn_implementation = own


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: query [1, H, L, D], key and value [1, Hkv, L, D] to [1, L, H, D]."""
    if layout is None or s_aux is not None or attention_mask is not None:
        raise UnsupportedError("attention sinks, masks of the network's own, or no layout passed on")
    rule = Rule(scale=query.shape[-1] ** -0.5 if scaling is None else scaling, window=sliding_window, softcap=softcap)
    out = layout.attend(
        int(module.layer_idx),  # type: ignore[arg-type]
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        rule,
    )
    return out[None], None


AttentionInterface.register(_NAME, _attention)


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, spans: Sequence[Span], rule: Rule, dtype: torch.dtype
) -> Tensor:
    """Attends within spans and to their prefixes; every token must stand in one span.

    Args:
        query: [L, H, D]; carries a gradient, as key and value do.
        key: [L, Hkv, D], where H is a multiple of Hkv: grouped-query attention.
        value: [L, Hkv, Dv].
        spans: which tokens make a sequence.
        rule: scale, window and soft cap.
        dtype: of the matrix products.

    Returns:
        [L, H, Dv] of `dtype`.
    """
    out: Tensor = _Packed.apply(query, key, value, spans, rule, dtype)  # type: ignore[no-untyped-call]
    return out


def _blocks(span: Span, heads: int) -> Iterator[tuple[slice, slice]]:
    """The rows and queries of a span that are taken at once."""
    for first in range(0, span.length, _QUERIES):
        last = min(first + _QUERIES, span.length)
        each = heads * (last - first) * (span.prefix + last)
        step = max(1, _SCORES // each)
        for row in range(0, span.rows, step):
            yield slice(row, min(row + step, span.rows)), slice(first, last)


def _products(left: Tensor, prefix: Tensor, own: Tensor) -> Tensor:
    """[Hkv, n, m, P + t]: rows of `left` [Hkv, n, m, D] times those of prefix [Hkv, P, D] and own [Hkv, n, t, D]."""
    heads, n, m, d = left.shape
    p, t = prefix.shape[1], own.shape[2]
    out = left.new_empty(heads, n, m, p + t)
    if p:
        torch.bmm(left.view(heads, n * m, d), prefix.transpose(1, 2), out=out.view(heads, n * m, p + t)[:, :, :p])
    torch.bmm(
        left.view(heads * n, m, d),
        own.reshape(heads * n, t, d).transpose(1, 2),
        out=out.view(heads * n, m, p + t)[:, :, p:],
    )
    return out


def _mix(weights: Tensor, prefix: Tensor, own: Tensor) -> Tensor:
    """[Hkv, n, m, D]: weights [Hkv, n, m, P + t] times the rows of prefix [Hkv, P, D] and own [Hkv, n, t, D]."""
    heads, n, m, reach = weights.shape
    p, t = prefix.shape[1], own.shape[2]
    rows = own.reshape(heads * n, t, -1)
    out = torch.bmm(weights.view(heads * n, m, reach)[:, :, p:], rows).view(heads, n * m, -1)
    if p:
        out = torch.baddbmm(out, weights.view(heads, n * m, reach)[:, :, :p], prefix)
    return out.view(heads, n, m, -1)


def _collect(weights: Tensor, rows: Tensor, prefix: Tensor, own: Tensor) -> None:
    """Adds weights^T [Hkv, n, m, P + t] times rows [Hkv, n, m, D] to prefix [Hkv, P, D] and own [Hkv, n, t, D]."""
    heads, n, m, reach = weights.shape
    p, t = prefix.shape[1], own.shape[2]
    spread = weights.view(heads * n, m, reach)[:, :, p:].transpose(1, 2)
    own += torch.bmm(spread, rows.view(heads * n, m, -1)).view(heads, n, t, -1)
    if p:
        prefix += torch.bmm(weights.view(heads, n * m, reach)[:, :, :p].transpose(1, 2), rows.view(heads, n * m, -1))


def _weights(query: Tensor, prefix: Tensor, own: Tensor, length: int, rule: Rule) -> tuple[Tensor, Tensor | None]:
    """Attention weights [Hkv, n, rep * w, P + t] of queries [Hkv, n, rep * w, D], and with a soft cap its slope."""
    scores = _products(query, prefix, own)
    slope = None
    if rule.softcap is not None:
        squashed = torch.tanh(scores / rule.softcap)
        slope = 1 - squashed**2
        scores = squashed * rule.softcap
    reach = scores.shape[3]
    column = torch.arange(reach, device=query.device)
    place = column[reach - length :, None]  # prefix and sequence stand one after the other: a column is a position
    hidden = column > place
    within = scores.view(*scores.shape[:2], -1, length, reach)
    if rule.window is not None and rule.window < reach:
        within.masked_fill_(hidden | (column <= place - rule.window), -torch.inf)
    else:
        within[..., reach - length :].masked_fill_(hidden[:, reach - length :], -torch.inf)
    return scores.softmax(dim=3), slope


class _Packed(torch.autograd.Function):
    """`packed_attention`; weights are computed anew in the backward pass rather than kept."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        spans: Sequence[Span],
        rule: Rule,
        dtype: torch.dtype,
    ) -> Tensor:
        heads = key.shape[1]
        q = (query * rule.scale).to(dtype).unflatten(1, (heads, -1))  # [L, Hkv, rep, D]
        k, v = (x.transpose(0, 1).to(dtype, memory_format=torch.contiguous_format) for x in (key, value))
        out = q.new_empty(*q.shape[:3], v.shape[2])
        for span, rows, places in _every_block(spans, q.shape[1] * q.shape[2]):
            part = _cut(span, rows, places, q, k, v)
            weights, _ = _weights(part.query, part.key_prefix, part.key, places.stop - places.start, rule)
            _put(out, span, rows, places, _mix(weights, part.value_prefix, part.value))
        ctx.save_for_backward(q, k, v)
        ctx.spans, ctx.rule, ctx.dtypes = spans, rule, (query.dtype, key.dtype, value.dtype)
        together: Tensor = out.flatten(1, 2)
        return together

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        grad = grads[0].to(q.dtype).unflatten(1, q.shape[1:3])
        dq = torch.empty_like(q)
        dk, dv = torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
        for span, rows, places in _every_block(ctx.spans, q.shape[1] * q.shape[2]):
            part = _cut(span, rows, places, q, k, v)
            weights, slope = _weights(part.query, part.key_prefix, part.key, places.stop - places.start, ctx.rule)
            given = _block(grad, span, rows, places)
            dweights = _products(given, part.value_prefix, part.value)
            dscores = torch._softmax_backward_data(dweights, weights, 3, weights.dtype)
            if slope is not None:
                dscores = dscores * slope
            _put(dq, span, rows, places, _mix(dscores, part.key_prefix, part.key))
            _collect(dscores, part.query, *_keys(dk, span, rows, places))
            _collect(weights, given, *_keys(dv, span, rows, places))
        of_query, of_key, of_value = ctx.dtypes
        return (
            (dq.flatten(1, 2) * ctx.rule.scale).to(of_query),
            dk.transpose(0, 1).to(of_key),
            dv.transpose(0, 1).to(of_value),
            None,
            None,
            None,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """What one block computes with."""

    query: Tensor  # [Hkv, n, rep * w, D]
    key_prefix: Tensor  # [Hkv, P, D]
    key: Tensor  # [Hkv, n, t, D]
    value_prefix: Tensor  # [Hkv, P, Dv]
    value: Tensor  # [Hkv, n, t, Dv]


def _every_block(spans: Sequence[Span], heads: int) -> Iterator[tuple[Span, slice, slice]]:
    for span in spans:
        for rows, places in _blocks(span, heads):
            yield span, rows, places


def _cut(span: Span, rows: slice, places: slice, q: Tensor, k: Tensor, v: Tensor) -> _Part:
    key_prefix, key = _keys(k, span, rows, places)
    value_prefix, value = _keys(v, span, rows, places)
    return _Part(
        query=_block(q, span, rows, places),
        key_prefix=key_prefix,
        key=key,
        value_prefix=value_prefix,
        value=value,
    )


def _inside(x: Tensor, span: Span, rows: slice, places: slice) -> Tensor:
    """The view [Hkv, n, rep, w, D] of a block's queries in [L, Hkv, rep, D]."""
    whole = x[span.start : span.start + span.rows * span.length].unflatten(0, (span.rows, span.length))
    part: Tensor = whole[rows, places]
    return part.permute(2, 0, 3, 1, 4)


def _block(x: Tensor, span: Span, rows: slice, places: slice) -> Tensor:
    """The queries of a block, [Hkv, n, rep * w, D]: the heads that share a key stand in one row of queries."""
    return _inside(x, span, rows, places).flatten(2, 3).contiguous()


def _put(out: Tensor, span: Span, rows: slice, places: slice, block: Tensor) -> None:
    target = _inside(out, span, rows, places)
    target.copy_(block.view(target.shape))


def _keys(x: Tensor, span: Span, rows: slice, places: slice) -> tuple[Tensor, Tensor]:
    """The prefix [Hkv, P, D] and the keys [Hkv, n, t, D] that a block can see, as views of [Hkv, L, D]."""
    prefix = x[:, span.prefix_start : span.prefix_start + span.prefix]
    own = x[:, span.start : span.start + span.rows * span.length].unflatten(1, (span.rows, span.length))
    return prefix, own[:, rows, : places.stop]
