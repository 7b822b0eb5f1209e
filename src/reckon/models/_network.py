"""What reckon computes with of a Hugging Face network: its body over packed tokens, and its output layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
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
def rounded(network: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Within it linear layers have copies of their weights in `dtype`, rounded once and not at every pass."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear) and module.weight.dtype != dtype]
    masters = [layer.weight for layer in layers]
    try:
        for layer, master in zip(layers, masters, strict=True):
            layer.weight = nn.Parameter(master.detach().to(dtype), requires_grad=False)
        yield
    finally:
        for layer, master in zip(layers, masters, strict=True):
            layer.weight = master


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
