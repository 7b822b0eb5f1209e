"""Choosing the next token of many rows at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reckon.models._settings import Sampling

_BLOCK = 256  # tokens whose probabilities are added up before their cumulative sum is taken
_CANDIDATES = 1024  # tokens that top-p looks at before it sorts a whole vocabulary


def truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    """Sets the logits of tokens that may not be drawn to -inf: top-k, then top-p, then min-p ([n, V] float32)."""
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        logits = _nucleus(logits, sampling.top_p)
    if sampling.min_p:
        floor = logits.amax(dim=1, keepdim=True) + torch.log(torch.tensor(sampling.min_p, device=logits.device))
        logits = logits.masked_fill(logits < floor, -torch.inf)
    return logits


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Keeps the fewest tokens of each row that together hold `top_p` of its probability."""
    norm = logits.logsumexp(dim=1, keepdim=True)
    ordered, order = logits.topk(min(_CANDIDATES, logits.shape[1]), dim=1)
    probs = (ordered - norm).exp()
    if bool((probs.sum(dim=1) < top_p).any()):  # a nucleus is larger than the candidates: sort them all
        ordered, order = logits.sort(dim=1, descending=True)
        probs = (ordered - norm).exp()
    within = probs.cumsum(dim=1) - probs < top_p  # the likeliest token always stays
    kept = torch.full_like(logits, -torch.inf)
    return kept.scatter_(1, order, ordered.masked_fill(~within, -torch.inf))


def pick(logits: Tensor, uniforms: Tensor | None, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draws one token a row by inverting the cumulative distribution at `uniforms`; without them, takes the likeliest.

    Args:
        logits: [n, V] float32.
        uniforms: [n] float64 in [0, 1) on the CPU, or None for greedy decoding.
        sampling: temperature and truncation.

    Returns:
        tokens [n] int64 and their log-probs [n] float32 at the temperature, before truncation.
    """
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    top = logits.amax(dim=1, keepdim=True)
    weights = (logits - top).exp_()  # serves both the draw and the log-prob: the exponentials cost as much as products
    if uniforms is None:
        tokens = logits.argmax(dim=1)
    else:
        kept = weights if not sampling.truncated else (truncate(logits, sampling) - top).exp_()
        tokens = _invert(kept, uniforms)
    chosen = logits.gather(1, tokens[:, None])
    return tokens, (chosen - top - weights.sum(dim=1, keepdim=True).log()).squeeze(1)


def _invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The tokens [n] at which the cumulative sums of weights [n, V] pass their total's `uniforms` [n]-th part.

    Sums run over blocks first and then within one: a vocabulary of 50,000 added up one by one costs more than the
    output layer. They are float64, since in float32 such a sum drifts by more than a rare token's whole probability.
    """
    device = weights.device
    if device.type == "mps":  # Metal has no float64
        weights = weights.cpu()
    vocabulary = weights.shape[1]
    if vocabulary % _BLOCK:
        weights = functional.pad(weights, (0, -vocabulary % _BLOCK))
    blocks = weights.unflatten(1, (-1, _BLOCK))
    heights = blocks.sum(dim=2).double().cumsum(dim=1)
    target = uniforms.to(weights.device)[:, None] * heights[:, -1:]
    block = _first_above(heights, target)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, _BLOCK)).squeeze(1).double().cumsum(dim=1)
    below = torch.where(block > 0, heights.gather(1, (block - 1).clamp(min=0)), 0.0)
    token = block * _BLOCK + _first_above(inside, target - below)
    return token.squeeze(1).to(device)


def _first_above(heights: Tensor, target: Tensor) -> Tensor:
    """[n, 1]: where ascending heights [n, m] first exceed the target [n, 1], at the latest where they stop to rise.

    An entry of probability 0 does not rise above the one before it, so it is never the first: it is never drawn.
    """
    last = torch.searchsorted(heights, heights[:, -1:].contiguous())
    return torch.minimum(torch.searchsorted(heights, target, right=True), last)
