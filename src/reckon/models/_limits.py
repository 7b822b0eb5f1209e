"""What a network cannot do, said before it does it wrongly."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

from reckon.errors import InputError
from reckon.types import Problem


def check_room(network: PreTrainedModel, problems: Sequence[Problem], prompts: Sequence[Tensor], limit: int) -> None:
    """Raises InputError for a prompt that, with `limit` more tokens, is longer than the context."""
    context = getattr(network.config, "max_position_embeddings", None)
    for problem, prompt in zip(problems, prompts, strict=True):
        whole = len(prompt) + limit
        if context is not None and whole > context:
            raise InputError(
                f"the prompt of problem {problem.id!r} has {len(prompt)} tokens; with `sampling.max_new_tokens` "
                f"{limit} that is more than the model's context of {context}. {_remedy(context - len(prompt))}"
            )


def row_limits(limits: Sequence[int] | None, rows: int, most: int) -> list[int]:
    """The most tokens of each row: `most`, or less where `limits` says so."""
    given = [most] * rows if limits is None else [int(limit) for limit in limits]
    if len(given) != rows:
        raise InputError(f"`limits` has {len(given)} entries for {rows} responses. Give one for each response.")
    if min(given, default=1) < 1:
        raise InputError(f"`limits` has {min(given)}, but every response may have at least 1 token.")
    return [min(limit, most) for limit in given]


def _remedy(room: int) -> str:
    """What to do about a prompt that leaves room for so many tokens."""
    lower = f", or set `sampling.max_new_tokens` to {room} or less" if room > 0 else ""
    return f"Shorten the prompt{',' if lower else ' or'} drop the row{lower}."


def check_given(
    network: PreTrainedModel, problems: Sequence[Problem], prompts: Sequence[Tensor], responses: Sequence[Sequence[int]]
) -> None:
    """Raises InputError for a response that, with its prompt, is longer than the context, or that has no token."""
    context = getattr(network.config, "max_position_embeddings", None)
    for problem, prompt, response in zip(problems, prompts, responses, strict=True):
        if not response:
            raise InputError(
                f"the response given to problem {problem.id!r} has no token: it is empty and was cut off. Drop the row."
            )
        if context is not None and len(prompt) + len(response) > context:
            raise InputError(
                f"the prompt of problem {problem.id!r} and the response given to it have {len(prompt)} and "
                f"{len(response)} tokens, together more than the model's context of {context}. "
                "Shorten them, or drop the row."
            )
