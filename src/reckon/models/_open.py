"""Opening a language model by its name."""

from __future__ import annotations

from pathlib import Path

from reckon.models._heads import load_head
from reckon.models._load import open_network
from reckon.models._settings import Dtype, Lora, Optimization, Sampling
from reckon.models._store import BUILT_IN
from reckon.models.language import LanguageModel


def load_model(
    name: str,
    *,
    sampling: Sampling | None = None,
    optimizer: Optimization | None = None,
    lora: Lora | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    tokens_per_batch: int = 1024,
    rows_per_batch: int = 64,
    activation_checkpointing: bool = False,
    value_head: bool = False,
) -> LanguageModel:
    """Opens a language model by built-in name, folder or hub id.

    The arguments after `name` are those of `LanguageModel`. With `value_head`, a head that was saved in the folder is
    read back.

    Raises:
        MissingError: there is no such model, or no network to fetch it.
        InputError: the folder's weights are missing or pickled, or its value head does not fit.
    """
    network, tokenizer = open_network(name)
    model = LanguageModel(
        network,
        tokenizer,
        sampling=sampling,
        optimizer=optimizer,
        lora=lora,
        dtype=dtype,
        device=device,
        tokens_per_batch=tokens_per_batch,
        rows_per_batch=rows_per_batch,
        activation_checkpointing=activation_checkpointing,
        value_head=value_head,
    )
    if model.head is not None and name not in BUILT_IN:
        load_head(model.head, Path(name).expanduser())
    return model
