"""A second model that begins as another one is, and learns by itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.models._settings import Optimization
    from reckon.models.language import LanguageModel
    from reckon.types import Model


def twin(model: LanguageModel, optimizer: Optimization, *, value_head: bool = False) -> LanguageModel:
    """The model as it is now, without its value head, and with an optimizer of its own.

    Args:
        model: stays as it is. With LoRA both share its weights, and each has adapters of its own.
        optimizer: how the second one learns.
        value_head: gives it a head of its own, zero at first.
    """
    shared = model.lora is not None
    other = type(model)(
        model.network if shared else copy.deepcopy(model.network),
        model.tokenizer,
        sampling=model.sampling,
        optimizer=optimizer,
        lora=model.lora,
        dtype="bfloat16" if model.dtype == torch.bfloat16 else "float32",
        device=str(model.device),
        tokens_per_batch=model.tokens_per_batch,
        rows_per_batch=model.rows_per_batch,
        activation_checkpointing=model.activation_checkpointing,
        value_head=value_head,
    )
    if shared:
        copy_weights(other, model)
    return other


def copy_weights(model: Model, other: Model) -> None:
    """Makes the weights that `model` trains those that `other` has now; value heads stay as they are.

    Args:
        model: what changes.
        other: its twin, or what it is a twin of, or another twin of that one.
    """
    states = [cast("Mapping[str, Tensor]", each.state_dict()["weights"]) for each in (model, other)]
    # Adapters of two models on one network have names of their own; both are in the order of the network's layers.
    weights = [[x for name, x in state.items() if name != "value_head.weight"] for state in states]
    with torch.no_grad():
        for here, there in zip(*weights, strict=True):
            here.copy_(there)
