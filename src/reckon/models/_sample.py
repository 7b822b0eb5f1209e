"""Drawing responses from a causal language model: one prefill a prompt, its cache shared by the group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from reckon.models._settings import Sampling
from reckon.types import End

# Rows that have ended are carried along until this share of the batch has: dropping them copies the cache.
_DROP_AT = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """N responses as they were drawn."""

    tokens: Tensor  # [N, T] int64, padded on the right with 0
    mask: Tensor  # [N, T] bool
    logprobs: Tensor  # [N, T] float32, 0 where the mask is False
    end: Tensor  # [N] int64, an `End`


def truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    """Sets the logits of tokens that may not be drawn to -inf: top-k, then top-p, then min-p ([n, V] float32)."""
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = logits.sort(dim=1, descending=True)
        probs = ordered.softmax(dim=1)
        beyond = probs.cumsum(dim=1) - probs >= sampling.top_p  # the likeliest token always stays
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
    if sampling.min_p:
        floor = logits.amax(dim=1, keepdim=True) + torch.log(torch.tensor(sampling.min_p, device=logits.device))
        logits = logits.masked_fill(logits < floor, -torch.inf)
    return logits


def pick(logits: Tensor, uniforms: Tensor | None, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draws one token a row by inverting the cumulative distribution at `uniforms`; without them, takes the likeliest.

    Args:
        logits: [n, V] float32.
        uniforms: [n] float64 in [0, 1) on the CPU, or None for greedy decoding.
        sampling: temperature and truncation.

    Returns:
        tokens [n] int64 and their log-probs [n] float32 at the temperature, before truncation.
    """
    logits = logits / sampling.temperature
    logprobs = logits.log_softmax(dim=1)
    if uniforms is None:
        tokens = logits.argmax(dim=1)
    else:
        kept = truncate(logits, sampling) if sampling.truncated else logprobs
        # In float64: over a vocabulary of 50,000 a float32 sum drifts by more than a rare token's whole probability.
        wide = kept.cpu() if kept.device.type == "mps" else kept  # Metal has no float64
        heights = wide.double().softmax(dim=1).cumsum(dim=1)
        target = uniforms.to(wide.device)[:, None] * heights[:, -1:]
        tokens = torch.searchsorted(heights, target, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)
        tokens = tokens.to(logits.device)
    return tokens, logprobs.gather(1, tokens[:, None]).squeeze(1)


def left_padded(prompts: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as tokens [G, P] int64 and mask [G, P] int64, padded on the left so that all end together."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64, device=device)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return tokens, mask


@torch.no_grad()
def draw(
    network: PreTrainedModel,
    prompts: Sequence[Tensor],
    group: Tensor,
    uniforms: Tensor | None,
    sampling: Sampling,
    eos: frozenset[int],
    tail: Callable[[list[int]], str],
) -> Drawn:
    """Answers each prompt as often as `group` names it.

    Args:
        network: a decoder-only model in evaluation mode.
        prompts: G tensors of int64.
        group: [N] int64 ascending.
        uniforms: [N, max_new_tokens] float64 in [0, 1) on the CPU, each row its own, so that what a row says does not
            depend on its companions; None = greedy.
        sampling: how to draw, and when to stop.
        eos: tokens that end a response.
        tail: the text of a few tokens, for finding stop strings.

    Returns:
        The responses, their end tokens included.
    """
    device = group.device
    n, limit = len(group), sampling.max_new_tokens
    tokens = torch.zeros(n, limit, dtype=torch.int64, device=device)
    logprobs = torch.zeros(n, limit, dtype=torch.float32, device=device)
    length = torch.full((n,), limit, device=device)
    end = torch.full((n,), int(End.LENGTH), device=device)
    stops = torch.tensor(sorted(eos), device=device)

    inputs, mask = left_padded(prompts, device)
    cache = DynamicCache(config=network.config)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    out = network(
        input_ids=inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
    )
    logits = out.logits[:, -1].float()[group]
    cache.batch_select_indices(group)
    mask, position = mask[group], positions[group, -1]
    rows = torch.arange(n, device=device)  # which response each row of the shrinking batch is
    running = torch.ones(n, dtype=torch.bool, device=device)
    for t in range(limit):
        drawn, scores = pick(logits, None if uniforms is None else uniforms[rows.cpu(), t], sampling)
        live = rows[running]
        tokens[live, t], logprobs[live, t] = drawn[running], scores[running]
        over = torch.isin(drawn, stops) & running
        reasons = [(over, End.EOS)]
        if sampling.stop:
            reasons.append((_stopped(tokens[rows, : t + 1], running & ~over, sampling.stop, tail), End.STOP))
        for hit, reason in reasons:
            length[rows[hit]], end[rows[hit]] = t + 1, int(reason)
            running = running & ~hit
        if not running.any() or t + 1 == limit:
            break
        if running.float().mean() <= 1 - _DROP_AT:
            alive = running.nonzero().squeeze(1)
            cache.batch_select_indices(alive)
            rows, drawn, mask, position = rows[alive], drawn[alive], mask[alive], position[alive]
            running = running[alive]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        position = position + 1
        out = network(
            input_ids=drawn[:, None], attention_mask=mask, position_ids=position[:, None], past_key_values=cache
        )
        logits = out.logits[:, -1].float()
    longest = int(length.max())
    seen = torch.arange(longest, device=device) < length[:, None]
    return Drawn(tokens=tokens[:, :longest], mask=seen, logprobs=logprobs[:, :longest], end=end)


def _stopped(tokens: Tensor, running: Tensor, stop: tuple[str, ...], tail: Callable[[list[int]], str]) -> Tensor:
    """[n] bool: which running rows have just completed a stop string."""
    # A token that adds text adds a byte or more, so as many tokens as the longest string has bytes hold it.
    window = max(len(text.encode()) for text in stop) + 1
    hit = torch.zeros_like(running)
    for row in running.nonzero().squeeze(1).tolist():
        text = tail(tokens[row, -window:].tolist())
        hit[row] = any(mark in text for mark in stop)
    return hit
