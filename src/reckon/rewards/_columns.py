"""What a reward function outside reckon is handed, and what may come back."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from reckon.errors import RunError
from reckon.types import Batch, Json

if TYPE_CHECKING:
    from torch import Tensor

Cells: TypeAlias = "list[Json]"
LARGEST = torch.finfo(torch.float32).max


def columns(batch: Batch) -> dict[str, Cells]:
    """A list of N values for every name a reward function may ask for, TRL's conventions for names and shapes.

    `prompts` and `completions` are text, or lists of messages where the problem's prompt is a chat; `completion_ids`
    are the sampled tokens; then `answer`, `domain`, `id` and the data's other columns, None where a problem lacks one.
    """
    rollouts, seq = batch.rollouts, batch.seq
    problems = [rollouts.problem(row) for row in range(len(rollouts.text))]
    chats = [not isinstance(problem.prompt, str) for problem in problems]
    names = sorted({name for problem in rollouts.problems for name in problem.columns})
    table: dict[str, Cells] = {name: [problem.columns.get(name) for problem in problems] for name in names}
    return table | {
        "prompts": [
            problem.prompt if isinstance(problem.prompt, str) else [dict(message) for message in problem.prompt]
            for problem in problems
        ],
        "completions": [
            [{"role": "assistant", "content": text}] if chat else text
            for chat, text in zip(chats, rollouts.text, strict=True)
        ],
        "completion_ids": [tokens[mask].tolist() for tokens, mask in zip(seq.tokens, seq.mask, strict=True)],
        "answer": [problem.answer for problem in problems],
        "domain": [problem.domain for problem in problems],
        "id": [problem.id for problem in problems],
    }


def rewards_from(who: str, result: object, batch: Batch) -> Tensor:
    """[N] float32 out of whatever a reward function returned; None and NaN = does not apply.

    Args:
        who: begins the message of an error.
        result: a sequence, or a tensor or array of one dimension.
        batch: the responses that were to be judged.

    Raises:
        RunError: it is not a list, has the wrong length, or holds something that is not a finite number.
    """
    n = len(batch.rollouts.text)
    listed = result.tolist() if hasattr(result, "tolist") else result
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        raise RunError(f"{who} returned {_shown(listed)}. It must return a list with one number for each completion.")
    if len(listed) != n:
        raise RunError(f"{who} returned {len(listed)} values for {n} completions. It must return one for each.")
    values = [_number(who, row, value, batch) for row, value in enumerate(listed)]
    return torch.tensor(values, dtype=torch.float32, device=batch.outcome.device)


def _number(who: str, row: int, value: object, batch: Batch) -> float:
    if value is None:
        return math.nan
    plain = value.item() if isinstance(value, torch.Tensor | np.generic) and value.ndim == 0 else value
    try:
        number = float(plain) if isinstance(plain, numbers.Real) else math.inf
    except OverflowError:
        number = math.inf
    if abs(number) > LARGEST:
        problem = batch.rollouts.problem(row).id
        raise RunError(
            f"{who} returned {_shown(value)} for row {row} (problem {problem!r})."
            " It must be a finite number, or None where the reward does not apply."
        )
    return number


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"
