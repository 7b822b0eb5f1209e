"""Packed attention against softmax attention written out sequence by sequence, in values and in gradients."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reckon.models import _attention
from reckon.models._attention import Rule, Span, packed_attention


@dataclass(frozen=True)
class Shape:
    """Sizes of the heads."""

    heads: int = 4
    kv_heads: int = 2
    width: int = 4
    value_width: int = 4


def plain(query: Tensor, key: Tensor, value: Tensor, spans: list[Span], rule: Rule) -> Tensor:
    """[L, H, Dv]: every sequence by itself, every query head by itself, every query by itself."""
    length, heads = query.shape[:2]
    share = heads // key.shape[1]
    out: list[list[Tensor | None]] = [[None] * heads for _ in range(length)]
    for span in spans:
        prefix = list(range(span.prefix_start, span.prefix_start + span.prefix))
        for row in range(span.rows):
            first = span.start + row * span.length
            places = prefix + list(range(first, first + span.length))
            for i in range(span.prefix, len(places)):
                back = 0 if rule.window is None else max(0, i + 1 - rule.window)
                seen = places[back : i + 1]
                for head in range(heads):
                    scores = key[seen, head // share] @ query[places[i], head] * rule.scale
                    if rule.softcap is not None:
                        scores = rule.softcap * torch.tanh(scores / rule.softcap)
                    out[places[i]][head] = scores.softmax(0) @ value[seen, head // share]
    return torch.stack([torch.stack(row) for row in out])  # a place in no span is None, and this an error


def drawn(length: int, shape: Shape, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Query, key, value and the gradient of the output. Scores have a spread of about 3: far from uniform weights."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [
        (shape.heads, shape.width, 2.0),
        (shape.kv_heads, shape.width, 2.0),
        (shape.kv_heads, shape.value_width, 1.0),
        (shape.heads, shape.value_width, 1.0),
    ]
    return [torch.randn(length, n, d, generator=generator, dtype=torch.float64).to(dtype) * by for n, d, by in sizes]


def with_gradients(function, query, key, value, grad) -> list[Tensor]:
    inputs = [x.clone().requires_grad_() for x in (query, key, value)]
    out = function(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def compare(spans: list[Span], rule: Rule, shape: Shape, *, seed: int = 0, tolerance: float = 2e-6) -> None:
    """In float64; the gradients of keys and values are added up in float32, so they are compared as such."""
    length = max(span.start + span.rows * span.length for span in spans)
    inputs = drawn(length, shape, seed)
    expected = with_gradients(lambda q, k, v: plain(q, k, v, spans, rule), *inputs)
    found = with_gradients(lambda q, k, v: packed_attention(q, k, v, spans, rule, torch.float64), *inputs)
    for ours, theirs, tight in zip(found, expected, (True, True, False, False), strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        limit = 1e-12 if tight else tolerance
        torch.testing.assert_close(ours, theirs, rtol=limit, atol=limit)


# Two prompts of 3 and 5 tokens, answers [2, 2] and [1, 4, 4] behind them, and a sequence of 6 that shares nothing.
GROUPS = [
    Span(start=0, rows=1, length=3),
    Span(start=3, rows=1, length=5),
    Span(start=8, rows=2, length=2, prefix_start=0, prefix=3),
    Span(start=12, rows=1, length=1, prefix_start=3, prefix=5),
    Span(start=13, rows=2, length=4, prefix_start=3, prefix=5),
    Span(start=21, rows=1, length=6),
]


def test_by_hand():
    """One head of width 1, scale 1, keys 0, ln 2 | ln 3 and values 6, 12 | 24: weights 1 : 2 : 3 of the third token.

    Prompt of two tokens, two answers of one token each. The second answer, key 0 and value 0, sees 1 : 2 : 1.
    """
    key = torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64).log()[:, None, None]
    value = torch.tensor([6.0, 12.0, 24.0, 0.0], dtype=torch.float64)[:, None, None]
    spans = [Span(start=0, rows=1, length=2), Span(start=2, rows=2, length=1, prefix_start=0, prefix=2)]
    out = packed_attention(torch.ones_like(key), key, value, spans, Rule(scale=1.0), torch.float64)
    # 6; (6 + 2 * 12) / 3; (6 + 24 + 72) / 6; (6 + 24 + 0) / 4
    assert out.flatten().tolist() == pytest.approx([6, 10, 17, 7.5])
    near = packed_attention(torch.ones_like(key), key, value, spans, Rule(scale=1.0, window=2), torch.float64)
    # 6; 10; (24 + 72) / 5; (24 + 0) / 3: the first token of the prompt is out of sight
    assert near.flatten().tolist() == pytest.approx([6, 10, 19.2, 8])


@pytest.mark.parametrize("window", [None, 1, 2, 4, 7, 9, 100])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(
    "shape",
    [
        Shape(),  # grouped: two queries a key
        Shape(heads=3, kv_heads=3),  # multi-head
        Shape(heads=4, kv_heads=1, value_width=6),  # one key for all, values wider than keys
        Shape(heads=4, kv_heads=2, width=5, value_width=3),
    ],
)
def test_groups_and_single_sequences(window, softcap, shape):
    compare(GROUPS, Rule(scale=0.4, window=window, softcap=softcap), shape)


@pytest.mark.parametrize(("queries", "scores"), [(1, 1), (2, 1), (2, 10**6), (3, 60), (4, 100), (128, 1), (128, 50)])
@pytest.mark.parametrize("window", [None, 3])
def test_any_cut_into_blocks(monkeypatch, queries, scores, window):
    monkeypatch.setattr(_attention, "_QUERIES", queries)
    monkeypatch.setattr(_attention, "_SCORES", scores)
    compare(GROUPS, Rule(scale=0.5, window=window, softcap=3.0), Shape())


@pytest.mark.parametrize("window", [None, 5, 131])
def test_sequences_longer_than_a_block_of_queries(window):
    """130 tokens behind 7, twice: the last two queries of each make a block of their own."""
    spans = [Span(start=0, rows=1, length=7), Span(start=7, rows=2, length=130, prefix_start=0, prefix=7)]
    compare(spans, Rule(scale=0.3, window=window), Shape(heads=2, kv_heads=1, width=3, value_width=2))


@settings(max_examples=60)
@given(data=st.data())
def test_any_layout(data):
    spans, start = [], 0
    for _ in range(data.draw(st.integers(1, 3), label="groups")):
        size = data.draw(st.integers(1, 5), label="prompt")
        prefix = Span(start=start, rows=1, length=size)
        spans.append(prefix)
        start += size
        for _ in range(data.draw(st.integers(0, 3), label="spans")):
            rows, length = data.draw(st.integers(1, 3), label="rows"), data.draw(st.integers(1, 5), label="length")
            spans.append(Span(start=start, rows=rows, length=length, prefix_start=prefix.start, prefix=size))
            start += rows * length
    kv_heads = data.draw(st.integers(1, 2), label="key heads")
    shape = Shape(
        heads=kv_heads * data.draw(st.integers(1, 3), label="queries a key"),
        kv_heads=kv_heads,
        width=data.draw(st.integers(1, 4), label="width"),
        value_width=data.draw(st.integers(1, 4), label="value width"),
    )
    rule = Rule(
        scale=0.5,
        window=data.draw(st.none() | st.integers(1, 11), label="window"),
        softcap=data.draw(st.none() | st.just(2.5), label="softcap"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_attention, "_QUERIES", data.draw(st.integers(1, 6), label="queries"))
        patch.setattr(_attention, "_SCORES", data.draw(st.integers(1, 300), label="scores"))
        compare(spans, rule, shape, seed=data.draw(st.integers(0, 9), label="seed"))


@pytest.mark.parametrize("rule", [Rule(scale=0.7), Rule(scale=0.7, window=3, softcap=1.5)])
def test_gradcheck(rule):
    """By differences of values: 1e-5 is what float32 sums of the keys' gradients leave, at inputs of about 1."""
    query, key, value, _ = drawn(27, Shape(heads=2, kv_heads=1, width=2, value_width=2))
    inputs = [x.requires_grad_() for x in (query, key, value)]
    assert torch.autograd.gradcheck(
        lambda q, k, v: packed_attention(q, k, v, GROUPS, rule, torch.float64), inputs, atol=1e-5, rtol=1e-5
    )


def test_float32_and_bfloat16_are_as_close_as_their_digits():
    inputs = drawn(27, Shape(width=8, value_width=8))
    rule = Rule(scale=8**-0.5)
    exact = with_gradients(lambda q, k, v: plain(q, k, v, GROUPS, rule), *inputs)
    for dtype, limit in ((torch.float32, 3e-6), (torch.bfloat16, 3e-2)):
        rounded = [x.float() for x in inputs]
        found = with_gradients(lambda q, k, v, dtype=dtype: packed_attention(q, k, v, GROUPS, rule, dtype), *rounded)
        assert found[0].dtype == dtype
        for ours, theirs in zip(found, exact, strict=True):
            # Of the whole, since a small entry may be the difference of large ones.
            assert (ours.double() - theirs).norm() / theirs.norm() < limit


def test_answers_do_not_see_one_another_nor_other_prompts():
    """A NaN in a sequence stays in it: 0 times NaN would be NaN, so others never even touch it."""
    query, key, value, _ = drawn(27, Shape())
    value[15] = torch.nan  # third token of the first answer of length 4 to the second prompt
    out = packed_attention(query, key, value, GROUPS, Rule(scale=0.5), torch.float64)
    # Also the two before it in its own block, whose weight of it is 0.
    assert set(out.isnan().any(dim=2).any(dim=1).nonzero().flatten().tolist()) <= {13, 14, 15, 16}
    assert out[15:17].isnan().all()


def test_no_score_of_every_token_with_every_other(monkeypatch):
    """Neither pass makes a tensor of more scores than a block of queries has."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    monkeypatch.setattr(_attention, "_SCORES", 1 << 14)
    spans = [Span(start=0, rows=1, length=40), Span(start=40, rows=64, length=20, prefix_start=0, prefix=40)]
    shape = Shape(heads=2, kv_heads=1, width=4, value_width=4)
    length = 40 + 64 * 20
    inputs = drawn(length, shape, dtype=torch.float32)
    with Largest():
        with_gradients(lambda q, k, v: packed_attention(q, k, v, spans, Rule(scale=0.5), torch.float32), *inputs)
    assert largest >= length * 2 * 4  # the queries themselves were seen
    assert largest <= 1 << 14  # length^2 would be 1.7 million, each with its own group's 20 x 60 x 64 x 2 153,600
