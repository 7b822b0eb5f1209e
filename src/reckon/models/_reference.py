"""A language model as it was, to compare with."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING

from reckon.errors import InputError
from reckon.models._adapters import adapters_off
from reckon.types import Outputs, Sequences, Want

if TYPE_CHECKING:
    from reckon.models.language import LanguageModel


class Reference:
    """A language model frozen at the moment it is made. Only scores."""

    def __init__(self, model: LanguageModel) -> None:
        """Remembers `model` as it is now."""
        self._live = model
        self._frozen: LanguageModel | None = None
        if model.lora is None:
            self._frozen = copy.copy(model)
            self._frozen.network = copy.deepcopy(model.network).requires_grad_(False)
            self._frozen.head = copy.deepcopy(model.head)

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
