"""Low-rank adapters on a network: put there, switched off, merged away."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from reckon.errors import InputError, MissingError
from reckon.models._settings import Lora

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer


def add_adapters(network: PreTrainedModel, lora: Lora) -> str:
    """Puts adapters on a network and freezes its own weights; beside those that are there already, on the same layers.

    By peft itself and not by `network.add_adapter`, which refuses all but the latest peft for things not used here.

    Returns:
        What the adapters are called. They are the ones in use now.

    Raises:
        MissingError: peft is not installed.
        InputError: no layer has a name that `lora.targets` gives.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingError("`lora` needs the package peft: pip install 'reckon-rl[lora]'") from error
    there = _adapted(network)
    names = {adapter for layer in there.values() for adapter in cast("Iterable[str]", layer.lora_A)}
    name = f"adapter{len(names)}" if names else "default"
    targets = list(there) or (lora.targets if isinstance(lora.targets, str) else list(lora.targets))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several adapters are meant
        torch.manual_seed(0)  # the adapters' first weights are the same in every run and at every resume
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM"
        )
        try:
            inject_adapter_in_model(config, network, adapter_name=name)
        except ValueError as error:  # no such layer, or not one that can be adapted
            layers = network.named_modules()
            linear = sorted({name.rpartition(".")[2] for name, layer in layers if isinstance(layer, nn.Linear)})
            raise InputError(
                f"`lora.targets` is {lora.targets!r}, and no adapters can be put there: {' '.join(str(error).split())} "
                f"(linear layers of this model: {', '.join(linear)}; or all-linear)"
            ) from error
    network.eval()
    for layer in _adapted(network).values():
        layer.set_adapter(name)  # which also takes the gradient from those that were there
    return name


def use_adapters(network: PreTrainedModel, name: str) -> None:
    """From now on the network computes with the adapters of this name, and they alone carry a gradient."""
    for layer in _adapted(network).values():
        if layer.active_adapters != [name]:
            layer.set_adapter(name)


@contextmanager
def adapters_off(network: PreTrainedModel) -> Iterator[None]:
    """Within it the network computes as if it had no adapters."""
    layers = list(_adapted(network).values())
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)


def merged(network: PreTrainedModel) -> PreTrainedModel:
    """A copy of the network with its adapters added into the weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            network.set_submodule(name, module.get_base_layer())
    return network


def _adapted(network: PreTrainedModel) -> dict[str, BaseTunerLayer]:
    """The layers that have adapters, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)}
