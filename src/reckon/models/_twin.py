"""A second model that begins as another one is, and learns by itself."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from reckon.models._settings import Optimization
    from reckon.models.language import LanguageModel


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
        learned, begun = model.state_dict()["weights"], other.state_dict()["weights"]
        assert isinstance(learned, dict)
        assert isinstance(begun, dict)
        adapters = [[x for name, x in weights.items() if name != "value_head.weight"] for weights in (begun, learned)]
        for there, here in zip(*adapters, strict=True):  # both in the order of the network's layers
            there.copy_(here)
    return other
