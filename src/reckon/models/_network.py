"""What reckon computes with of a Hugging Face network: its body over packed tokens, and its output layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from reckon.errors import InputError
from reckon.models._attention import Layout, attending
from reckon.models._output import head_of
from reckon.models._pack import pack
from reckon.types import Sequences

# How far float32 log-probs of packed and of plain tokens may lie apart: rounding, and far below any mistake of layout.
_CLOSE = 1e-3


def last_hidden(network: PreTrainedModel, tokens: Tensor, positions: Tensor, layout: Layout) -> Tensor:
    """The last hidden states [L, D] of packed tokens [1, L] at positions [1, L], which attend as `layout` says."""
    with attending(network):
        out = network.base_model(input_ids=tokens, position_ids=positions, use_cache=False, layout=layout)
    hidden: Tensor = out[0][0]
    return hidden


@contextmanager
def ready(network: PreTrainedModel, dtype: torch.dtype, rows: int) -> Iterator[None]:
    """Within it linear layers multiply with copies of their weights in `dtype`, made once and not at every pass.

    On a CPU the copies are laid out as oneDNN's kernels read them, where PyTorch has those: with few rows a product is
    then up to twice as fast. Nothing carries a gradient.

    Args:
        network: its weights must not change within.
        dtype: of the products; layers of another dtype get a rounded copy.
        rows: how many rows a product has most of the time.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    copies = {}  # by the memory of the weight: tied layers share a copy
    try:
        for layer in layers:
            key = layer.weight.data_ptr()
            if key not in copies:
                weight = layer.weight.detach().to(dtype)
                copies[key] = weight, _laid_out(weight, rows)
            bias = None if layer.bias is None else layer.bias.detach().to(dtype)
            layer.forward = partial(_product, *copies[key], bias)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _product(weight: Tensor, laid_out: Tensor | None, bias: Tensor | None, x: Tensor) -> Tensor:
    x = x.to(weight.dtype)
    if laid_out is None:
        return functional.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, "none", [], "")
    return product


def _laid_out(weight: Tensor, rows: int) -> Tensor | None:
    """The weight as oneDNN reads it; None where PyTorch or the machine cannot."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    try:
        laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        # Not part of PyTorch's public interface (its compiler's is made of them), so tried before it is relied on.
        _product(weight, laid_out, None, weight.new_zeros(1, weight.shape[1]))
    except (RuntimeError, AttributeError):
        return None
    return laid_out


@torch.no_grad()
def why_not_packed(network: PreTrainedModel) -> str | None:
    """Why answers of this network cannot share their prompt, or None if they can: found out by trying.

    A few tokens are computed packed and plain, in float32. Recurrent layers, positions that cannot be told, attention
    sinks or an output layer with arithmetic of its own all show in the log-probs.
    """
    device, vocabulary = network.device, network.config.get_text_config().vocab_size
    ids = [token % vocabulary for token in (5, 11, 2, 7, 3, 13, 8, 1, 17, 4, 6)]
    prompt, *answers = (torch.tensor(part, device=device) for part in (ids[:5], ids[5:8], ids[8:11]))
    seq = Sequences(
        prompts=(prompt,),
        group=torch.tensor([0, 0], device=device),
        tokens=torch.stack(answers),
        mask=torch.ones(2, 3, dtype=torch.bool, device=device),
    )
    try:
        packed = pack(seq, torch.float32, last=False)
        hidden = last_hidden(network, packed.tokens, packed.positions, packed)
        found = head_of(network).logits(hidden[packed.reads], torch.float32)
        with attending(network, "eager"):  # the network's own may want another dtype or package
            plain = torch.cat(
                [network(input_ids=torch.cat([prompt, a])[None], use_cache=False).logits[0, 4:7] for a in answers]
            )
    except Exception as error:  # whatever a network of somebody else's may do when asked for something unusual
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    gap = (found.log_softmax(dim=1) - plain.float().log_softmax(dim=1)).abs().max()
    return None if gap < _CLOSE else f"log-probs of packed and of plain tokens differ by {float(gap):.1g}"


def recompute_layers(network: PreTrainedModel) -> None:
    """Has every layer keep its input alone for the backward pass and compute the rest anew (activation checkpointing).

    Raises:
        InputError: the network's layers cannot.
    """
    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"`model.activation_checkpointing` is on, but a {network.config.model_type!r} model cannot do it. "
            "Leave it off."
        )
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        layer.training = True  # what such a layer asks before it recomputes; its parts, dropout among them, stay as is
