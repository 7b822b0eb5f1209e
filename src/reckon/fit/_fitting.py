"""Rows that are too long, and rows that are held back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from reckon.errors import InputError
from reckon.fit._checks import check_choice
from reckon.fit._rows import Example, Paired, Prefix, Stepwise, Unpaired
from reckon.tasks import prompt_key, split_of
from reckon.types import Problem

if TYPE_CHECKING:
    from reckon.models import LanguageModel

OnLong: TypeAlias = Literal["error", "drop"]


def fitting(
    model: LanguageModel,
    rows: Sequence[Example],
    on_long: OnLong = "error",
    read: Callable[[Problem, str], str] | None = None,
) -> tuple[list[Example], int]:
    """The rows that the model's context holds whole, and how many were dropped. Nothing is ever cut.

    A response without its end is another response, and a label belongs to what was labelled. With `read`, that of
    `OutcomeBCE` or `BradleyTerry`, the length is that of a text it makes of an `Unpaired` or a `Paired` row.

    Raises:
        InputError: a row is too long and `on_long` is "error", or none is left.
    """
    check_choice("on_long", on_long, OnLong)
    kept: list[Example] = []
    for row in rows:
        if read is not None and isinstance(row, Unpaired | Paired):
            texts = (row.text,) if isinstance(row, Unpaired) else (row.chosen, row.rejected)
            if all(_holds(model, read(row.problem, text), row.problem, on_long) for text in texts):
                kept.append(row)
            continue
        room = model.room(row.problem)
        if room is None or _longest(model, row) <= room:
            kept.append(row)
        elif on_long == "error":
            raise InputError(
                f"the response to problem {row.problem.id!r} has {_longest(model, row)} tokens, and beside its prompt "
                f"the model's context has room for {max(room, 0)}. Shorten it, or have rows that are too long dropped "
                "(on_long: drop)."
            )
    if not kept:
        raise InputError(f"all of {len(rows)} rows are longer than the model's context. Shorten them.")
    return kept, len(rows) - len(kept)


def held_back(rows: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Rows to learn from and about this `share` of them held back, by a hash of the prompt.

    No prompt is in both, and a prompt is on the same side whatever else the data holds.

    Raises:
        InputError: `share` is not in [0, 1), or nothing would be left to learn from.
    """
    if not 0 <= share < 1:
        raise InputError(f"the share of rows held back is {share}, but must be at least 0 and below 1.")
    if share == 0:
        return list(rows), []
    kept: list[Example] = []
    back: list[Example] = []
    for row in rows:
        split = split_of(f"fit {prompt_key(row.problem.prompt)}", (1 - share, share, 0.0))
        (kept if split == "train" else back).append(row)
    if not kept:
        raise InputError(
            f"holding back {share:g} of the rows leaves none to learn from. Give more prompts, or hold back 0."
        )
    return kept, back


def _holds(model: LanguageModel, text: str, problem: Problem, on_long: OnLong) -> bool:
    context = getattr(model.network.config, "max_position_embeddings", None)
    length = len(model.tokenizer(text)["input_ids"])
    if context is not None and length > context and on_long == "error":
        raise InputError(
            f"problem {problem.id!r}, its answer and the response make a text of {length} tokens, and the model's "
            f"context holds {context}. Shorten it, or have rows that are too long dropped (on_long: drop)."
        )
    return context is None or length <= context


def _longest(model: LanguageModel, row: Example) -> int:
    if isinstance(row, Paired):
        sides = zip((row.chosen, row.rejected), row.ended, strict=True)
        return max(len(model.response_tokens(text, ended=ended)) for text, ended in sides)
    if isinstance(row, Prefix):
        return max(len(model.response_tokens(row.text)), len(row.tokens or ()) + 1)
    text = "".join(row.steps) if isinstance(row, Stepwise) else row.text
    return len(model.response_tokens(text, ended=row.ended))
