"""What a network cannot do, said before it does it wrongly."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

from reckon.errors import InputError
from reckon.types import Problem

_ATTENTION = {"full_attention", "sliding_attention"}


def check_architecture(network: PreTrainedModel) -> None:
    """Raises InputError for a network that cannot be told which tokens a token attends to, and where it stands.

    Layers that do more than attend would let packed answers run into each other; without positions of their own,
    answers packed behind others would take theirs to be far from the prompt.
    """
    layers = set(getattr(network.config, "layer_types", None) or _ATTENTION)
    if getattr(network, "_is_stateful", False) or layers - _ATTENTION:
        kind = network.config.model_type
        raise InputError(
            f"a {kind!r} model keeps a recurrent state or has layers that do not attend, and reckon packs the answers "
            "to a prompt side by side, which only attention keeps apart. "
            "Choose a model in which every layer attends."
        )
    places = "position_ids" in inspect.signature(network.forward).parameters
    if not places or getattr(network.config, "alibi", False):
        raise InputError(
            f"a {network.config.model_type!r} model cannot be told the positions of its tokens, which answers packed "
            "side by side behind their prompt need. Choose a model with rotary or learned positions."
        )
    attention = network.config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise InputError(
            f"the model's attention is {attention!r}, which does not take the mask that keeps packed answers apart. "
            "Load it with attn_implementation='sdpa' or 'eager'."
        )


def window(network: PreTrainedModel) -> int | None:
    """How many tokens back a token sees in the layers that see least; None = all."""
    layers = getattr(network.config, "layer_types", None)
    if layers is not None and "sliding_attention" not in layers:
        return None
    size = getattr(network.config, "sliding_window", None)
    return size if isinstance(size, int) else None


def check_room(network: PreTrainedModel, problems: Sequence[Problem], prompts: Sequence[Tensor], limit: int) -> None:
    """Raises InputError for a prompt that, with `limit` more tokens, is longer than the context or the window."""
    context, seen = getattr(network.config, "max_position_embeddings", None), window(network)
    for problem, prompt in zip(problems, prompts, strict=True):
        whole = len(prompt) + limit
        if context is not None and whole > context:
            raise InputError(
                f"the prompt of problem {problem.id!r} has {len(prompt)} tokens; with `sampling.max_new_tokens` "
                f"{limit} that is more than the model's context of {context}. {_remedy(context - len(prompt))}"
            )
        if seen is not None and whole > seen:
            raise InputError(
                f"this model attends to the last {seen} tokens in some layers, and problem {problem.id!r} may take "
                f"{whole} tokens; the window is not applied to packed answers, so learning would not match it. "
                f"{_remedy(seen - len(prompt))}"
            )


def _remedy(room: int) -> str:
    """What to do about a prompt that leaves room for so many tokens."""
    lower = f", or set `sampling.max_new_tokens` to {room} or less" if room > 0 else ""
    return f"Shorten the prompt{',' if lower else ' or'} drop the row{lower}."


def check_given(
    network: PreTrainedModel, problems: Sequence[Problem], prompts: Sequence[Tensor], responses: Sequence[Sequence[int]]
) -> None:
    """Raises InputError for a response that, with its prompt, is longer than the context."""
    context = getattr(network.config, "max_position_embeddings", None)
    for problem, prompt, response in zip(problems, prompts, responses, strict=True):
        if context is not None and len(prompt) + len(response) > context:
            raise InputError(
                f"the prompt of problem {problem.id!r} and the response given to it have {len(prompt)} and "
                f"{len(response)} tokens, together more than the model's context of {context}. "
                "Shorten them, or drop the row."
            )
