"""A task's problems as rows of another library's data set."""

from __future__ import annotations

from typing import Literal

from reckon.errors import InputError
from reckon.types import Json, Problem, Split, Task

Layout = Literal["trl", "verl", "openrlhf"]


def rows_of(task: Task, split: Split, n: int | None = None, *, layout: Layout = "trl") -> list[dict[str, Json]]:
    """Problems as JSON rows from which the adapters make the same problems again.

    trl: `prompt`, `answer`, `domain`, `id` and the problem's own columns, for `datasets.Dataset.from_list`. verl:
    `data_source`, `prompt` as messages, `reward_model` with `ground_truth`, and `extra_info` with `prompt`, `id` and
    the columns, for a Parquet file. openrlhf: `input` and `label`, for `--data.input_key input --data.label_key label`.

    Args:
        task: where the problems come from.
        split: train, dev or test.
        n: the first so many; None = all.
        layout: the library.

    Raises:
        InputError: an unknown layout; or for OpenRLHF a prompt that is a chat.
    """
    makers = {"trl": _trl, "verl": _verl, "openrlhf": _openrlhf}
    if layout not in makers:
        raise InputError(f"`layout` is {layout!r}; it must be one of {', '.join(makers)}.")
    problems = task.problems(split)
    return [makers[layout](problems[i]) for i in range(len(problems) if n is None else min(n, len(problems)))]


def _trl(problem: Problem) -> dict[str, Json]:
    prompt: Json = problem.prompt if isinstance(problem.prompt, str) else [dict(m) for m in problem.prompt]
    own: dict[str, Json] = {"prompt": prompt, "answer": problem.answer, "domain": problem.domain, "id": problem.id}
    return {**dict(problem.columns), **own}


def _verl(problem: Problem) -> dict[str, Json]:
    messages: list[Json] = (
        [{"role": "user", "content": problem.prompt}]
        if isinstance(problem.prompt, str)
        else [dict(message) for message in problem.prompt]
    )
    return {
        "data_source": problem.domain,
        "prompt": messages,
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {**dict(problem.columns), "prompt": problem.prompt_text, "id": problem.id},
    }


def _openrlhf(problem: Problem) -> dict[str, Json]:
    if not isinstance(problem.prompt, str):
        raise InputError(
            f"the prompt of problem {problem.id!r} is a chat; OpenRLHF applies the chat template to one text."
            " Write the prompts as text."
        )
    return {"input": problem.prompt, "label": problem.answer}
