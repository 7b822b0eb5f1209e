"""The output layer: from hidden states to log-probs, never holding the logits of a whole vocabulary for many tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

# Logits held at once: more falls out of a processor's cache, fewer make products too small. Measured on two cores.
_LOGITS = 1 << 21


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """A network's output layer and what it does to its logits."""

    weight: Tensor  # [V, D]
    bias: Tensor | None  # [V]
    scale: float = 1.0  # logits are multiplied by it,
    softcap: float | None = None  # then squashed into (-softcap, softcap) by tanh
    layer: nn.Linear | None = None  # the layer itself, which may have a quicker product for the moment

    def logits(self, hidden: Tensor, dtype: torch.dtype) -> Tensor:
        """[n, V] float32 of hidden states [n, D], the product computed in `dtype`."""
        if self.layer is None:
            logits = self._product(hidden.to(dtype), 0, len(self.weight))
        else:
            logits = self.layer(hidden.to(dtype)).float()
        return _squash(logits, self.scale, self.softcap)

    def _product(self, hidden: Tensor, first: int, last: int) -> Tensor:
        """[n, last - first] float32: the logits of a part of the vocabulary, before they are scaled."""
        out = functional.linear(hidden, self.weight[first:last].to(hidden.dtype)).float()
        return out if self.bias is None else out + self.bias[first:last].float()


def head_of(network: PreTrainedModel) -> Head:
    """The output layer of a network.

    Raises:
        TypeError: it is not a plain linear layer.
    """
    layer, config = network.get_output_embeddings(), network.config
    if type(layer) is not nn.Linear:
        raise TypeError(f"the output layer is a {type(layer).__name__}, not a linear layer")
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    return Head(
        weight=layer.weight,
        bias=layer.bias,
        scale=float(scale),
        softcap=getattr(config, "final_logit_softcapping", None),
        layer=layer,
    )


def token_laws(
    hidden: Tensor, targets: Tensor, head: Head, *, temperature: float, entropy: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Log-probs of given tokens and the entropies of the distributions they were drawn from.

    Logits exist for a slice of the vocabulary at a time, in the backward pass again, so that memory does not grow with
    vocabulary times tokens (Wijmans et al. 2024, arXiv:2411.09009, hold back the same product).

    Args:
        hidden: [M, D] float; carries a gradient, as the head's weight and bias do.
        targets: [M] int64.
        head: the output layer.
        temperature: logits are divided by it.
        entropy: whether the second result is wanted; if not it is zeros.
        dtype: of the matrix products; everything else is float32.

    Returns:
        [M] float32 log-probs and [M] float32 entropies in nats.
    """
    logprobs, entropies = _TokenLaws.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, targets, head.scale, head.softcap, temperature, entropy, dtype
    )
    return logprobs, entropies


def _squash(logits: Tensor, scale: float, softcap: float | None) -> Tensor:
    """Scales and caps logits in place."""
    if scale != 1:
        logits.mul_(scale)
    if softcap is not None:
        logits.div_(softcap).tanh_().mul_(softcap)
    return logits


class _TokenLaws(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scale: float,
        softcap: float | None,
        temperature: float,
        entropy: bool,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        head = Head(weight=weight, bias=bias, scale=scale, softcap=softcap)
        h = hidden.to(dtype)
        top = torch.full((len(h), 1), -torch.inf, device=h.device)
        total, moment, chosen = torch.zeros_like(top), torch.zeros_like(top), torch.zeros_like(top)
        for first, last in _slices(len(h), len(weight)):
            z = _squash(head._product(h, first, last), scale, softcap).div_(temperature)
            here = (targets >= first) & (targets < last)
            chosen += torch.where(here, z.gather(1, (targets - first).clamp(0, last - first - 1)[:, None])[:, 0], 0)[
                :, None
            ]
            higher = torch.maximum(top, z.amax(dim=1, keepdim=True))
            shrink = (top - higher).exp_()
            p = (z - higher).exp_()
            total = total * shrink + p.sum(dim=1, keepdim=True)
            if entropy:
                moment = moment * shrink + (p * z).sum(dim=1, keepdim=True)
            top = higher
        norm = top + total.log()
        h_entropy = norm - moment / total if entropy else torch.zeros_like(norm)
        ctx.save_for_backward(h, weight, bias, targets, norm, h_entropy)
        ctx.settings = scale, softcap, temperature, entropy, hidden.dtype
        return (chosen - norm)[:, 0], h_entropy[:, 0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, bias, targets, norm, h_entropy = ctx.saved_tensors
        scale, softcap, temperature, entropy, hidden_dtype = ctx.settings
        head = Head(weight=weight, bias=bias, scale=scale, softcap=softcap)
        of_token, of_entropy = grads[0][:, None].float(), grads[1][:, None].float()
        needs_weight = ctx.needs_input_grad[1]
        dh = torch.zeros(h.shape, device=h.device)
        dweight = torch.empty_like(weight) if needs_weight else None
        dbias = torch.empty_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for first, last in _slices(len(h), len(weight)):
            z = _squash(head._product(h, first, last), scale, softcap)
            slope = None if softcap is None else 1 - (z / softcap) ** 2
            z.div_(temperature).sub_(norm)  # log-probs
            d = z.exp()
            if entropy:  # of H = -sum p log p: -p (log p + H)
                d *= (z.add_(h_entropy).mul_(of_entropy)).add_(of_token)
                d.neg_()
            else:
                d *= -of_token
            here = ((targets >= first) & (targets < last)).nonzero()[:, 0]
            d[here, targets[here] - first] += of_token[here, 0]
            d.mul_(scale / temperature)
            if slope is not None:
                d *= slope
            if dbias is not None:
                dbias[first:last] = d.sum(dim=0)
            rounded = d.to(h.dtype)
            if dweight is not None:
                dweight[first:last] = rounded.T @ h
            dh += rounded @ weight[first:last].to(h.dtype)
        return dh.to(hidden_dtype), dweight, dbias, None, None, None, None, None, None


def _slices(tokens: int, vocabulary: int) -> list[tuple[int, int]]:
    """The slices of a vocabulary that are computed at once for so many tokens."""
    size = max(64, _LOGITS // max(tokens, 1))
    return [(first, min(first + size, vocabulary)) for first in range(0, vocabulary, size)]
