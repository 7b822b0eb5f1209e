"""A value head on disk: beside the model for us, or as a sequence classifier that any library opens."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from reckon.errors import InputError

HEAD_FILE = "value_head.safetensors"
# In a classifier's config: True = its logit was learned at the end token behind prompt and response, False = at the end
# of whole texts, which only who makes such texts may ask it about.
END_TOKEN_KEY = "reckon_end_token"
SYSTEM_KEY = "reckon_system"  # in a classifier's config; the system message that stood before every prompt, None = none


def save_head(head: nn.Linear, folder: Path) -> None:
    """Writes the head's weight [1, D] into a model's folder."""
    save_file({"weight": head.weight.detach().float().cpu().contiguous()}, folder / HEAD_FILE)


def load_head(head: nn.Linear, folder: Path) -> bool:
    """Reads the head's weight out of a model's folder, if the folder has one; returns whether it has.

    Raises:
        InputError: the file is damaged, or the head of a model of another width.
    """
    path = folder / HEAD_FILE
    if not path.is_file():
        return False
    try:
        weight = load_file(path)["weight"]
    except (SafetensorError, OSError, KeyError) as error:
        raise InputError(f"the value head {path} cannot be read ({error}). Save the model again.") from error
    if weight.shape != head.weight.shape:
        raise InputError(
            f"the value head {path} is of shape {tuple(weight.shape)}, but this model needs "
            f"{tuple(head.weight.shape)}. Was it copied from another model's folder?"
        )
    with torch.no_grad():
        head.weight.copy_(weight)
    return True


def save_classifier(
    network: PreTrainedModel,
    head: nn.Linear,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    system: str | None,
    end_token: bool,
) -> None:
    """Writes network and head as a sequence classifier with one logit, its own class and plain config.

    Two keys of the config are ours: they tell `SequenceClassifier` where the head learned to be read, and behind which
    system message.

    Raises:
        InputError: transformers has no sequence classifier for this kind of model.
    """
    config = type(network.config).from_dict(network.config.to_dict())
    config.num_labels = 1
    setattr(config, END_TOKEN_KEY, end_token)
    setattr(config, SYSTEM_KEY, system)
    # The classifier reads its logit at the last token that is not padding; without a padding token it refuses batches.
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    kind = network.config.model_type
    try:
        with torch.random.fork_rng(devices=[]):
            classifier = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise InputError(
            f"transformers has no sequence classifier for a {kind!r} model, so it cannot be exported as one. "
            "Save it with save_pretrained, which keeps the value head beside the model."
        ) from error
    classifier.float()
    classifier.base_model.load_state_dict(network.base_model.state_dict())
    layers = [layer for layer in classifier.children() if isinstance(layer, nn.Linear) and layer.out_features == 1]
    if len(layers) != 1 or layers[0].in_features != head.in_features:
        raise InputError(
            f"the sequence classifier of a {kind!r} model is not a linear layer on the last hidden state, so it "
            "cannot be exported as one. Save it with save_pretrained, which keeps the value head beside the model."
        )
    with torch.no_grad():
        layers[0].weight.copy_(head.weight)
        if layers[0].bias is not None:
            layers[0].bias.zero_()
    classifier.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
