"""A language model as it was, to compare with."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch

from reckon.errors import InputError
from reckon.models._adapters import adapters_off
from reckon.models._settings import check_sync
from reckon.types import Outputs, Sequences, State, Want

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.models.language import LanguageModel


class Reference:
    """A language model frozen at the moment it is made, or following the model slowly. Only scores."""

    def __init__(self, model: LanguageModel, *, sync_every: int | None = None, sync_alpha: float = 0.6) -> None:
        """Remembers `model` as it is now.

        Args:
            model: what learns.
            sync_every: optimizer steps of the model after which each weight of the reference becomes `sync_alpha` times
                the model's plus 1 - `sync_alpha` times its own (TR-DPO; Gorbatovski et al. 2024, arXiv:2404.09656,
                which has 512 and 0.6). None = it stays as it is.
            sync_alpha: above 0 and at most 1, where the model takes the reference's place.

        Raises:
            InputError: a setting is out of its range.
        """
        check_sync(sync_every, sync_alpha)
        self.sync_every, self.sync_alpha = sync_every, sync_alpha
        self._live = model
        self._frozen: LanguageModel | None = None
        # Adapters switched off are what the model began as, but a mix of two models is no third set of adapters: one
        # that follows has weights of its own, as a model without adapters has.
        if model.lora is None or sync_every is not None:
            self._frozen = _frozen(model)

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """As `LanguageModel.outputs`, of the frozen model.

        Raises:
            InputError: with LoRA, for values or scores: their head goes on learning.
        """
        if self._frozen is not None:
            return self._frozen.outputs(seq, want)
        for name in (want := tuple(want)):
            if name in ("values", "scores"):
                raise InputError(
                    f"{name} were asked of a reference that shares its weights (LoRA): its head goes on learning."
                )
        with adapters_off(self._live.network):
            return self._live.outputs(seq, want)

    def follow(self, steps: int) -> None:
        """What the model calls when it has made its optimizer step number `steps`, counted from 1."""
        if self.sync_every is None or steps % self.sync_every:
            return
        theirs = _weights(self._live if self._live.lora is None else _frozen(self._live))
        with torch.no_grad():
            for name, own in self.weights().items():
                own.mul_(1.0 - self.sync_alpha).add_(theirs[name], alpha=self.sync_alpha)

    def weights(self) -> Mapping[str, Tensor]:
        """Its own weights by name; none where it shares the model's."""
        return {} if self._frozen is None else _weights(self._frozen)


def followers_state(followers: Sequence[Reference]) -> State:
    """The weights of references that follow a model, to be saved with it."""
    return {"references": {str(i): reference.weights() for i, reference in enumerate(followers)}} if followers else {}


def load_followers(followers: Sequence[Reference], state: State) -> None:
    """Takes their weights up from the state of the model that they follow.

    A model that nobody compares with, as one that is only examined, leaves them where they are.

    Raises:
        InputError: the state has no weights for one of them.
    """
    saved = cast("Mapping[str, Mapping[str, Tensor]]", state.get("references", {}))
    for i, reference in enumerate(followers):
        own = reference.weights()
        if set(saved.get(str(i), {})) != set(own):
            raise InputError(
                "the checkpoint does not hold the reference that follows the model. Use the run's own recipe."
            )
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(saved[str(i)][name])


def _frozen(model: LanguageModel) -> LanguageModel:
    """A copy that learns nothing and shares nothing; adapters are merged into its weights."""
    made = copy.copy(model)
    network = copy.deepcopy(model.network) if model.lora is None else model._merged()
    made.network, made.head = network.requires_grad_(False), copy.deepcopy(model.head)
    made.lora = made._adapters = None
    return made


def _weights(model: LanguageModel) -> dict[str, Tensor]:
    found = {name: parameter.detach() for name, parameter in model.network.named_parameters()}
    return found if model.head is None else found | {"value_head.weight": model.head.weight.detach()}
