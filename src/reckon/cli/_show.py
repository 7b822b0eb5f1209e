"""What commands print: one JSON object for machines, plain lines for people."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from reckon.types import Json, Problem, Worked

if TYPE_CHECKING:
    from reckon.evaluate import Evaluation
    from reckon.report import Costs
    from reckon.types import Rollouts, Task


def print_json(**values: object) -> None:
    """Prints one JSON object on stdout; numbers that are not finite are null."""
    typer.echo(json.dumps(plain(values), ensure_ascii=False, allow_nan=False))


def print_table(rows: Mapping[str, str]) -> None:
    """Prints names and what they mean, in two columns."""
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        typer.echo(f"  {name:{width}}  {text}")


def print_grid(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of equally many cells in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        typer.echo("  ".join([f"  {first:{widths[0]}}", *cells]).rstrip())


def cost_rows(found: Sequence[Costs]) -> list[list[str]]:
    """What a step takes, by part: seconds and tokens of each run."""
    parts = list(dict.fromkeys(name for run in found for name in run.seconds))
    names = [Path(run.run).resolve().name for run in found]
    if len(set(names)) < len(names):
        names = [run.run for run in found]
    rows = [["part", *(f"{name}, {what}" for name in names for what in ("s", "tokens"))]]
    for name in parts:
        cells = []
        for run in found:
            cells.append(f"{run.seconds[name]:.3f}" if name in run.seconds else "–")
            cells.append(f"{run.tokens[name]:,.0f}" if name in run.tokens else "–")
        rows.append([name, *cells])
    totals = [cell for run in found for cell in (f"{run.all_seconds:.3f}", f"{run.all_tokens:,.0f}")]
    return [*rows, ["all parts", *totals]]


def print_evaluation(found: Evaluation) -> None:
    """Prints the headline, then every metric."""
    typer.echo(found)
    print_table({name: "unknown" if math.isnan(value) else f"{value:.4g}" for name, value in found.metrics.items()})


def plain(value: object) -> Json:
    """A value as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def sentence(target: object) -> str:
    """The first sentence of something's description."""
    return " ".join((inspect.getdoc(target) or "").split("\n\n")[0].split())


def problem_rows(task: Task, problems: Sequence[Problem]) -> list[dict[str, Json]]:
    """Problems with their answers, worked where the task knows how."""
    return [
        {
            "id": problem.id,
            "prompt": problem.prompt_text,
            "answer": problem.answer,
            "domain": problem.domain,
            "solution": task.solution(problem) if isinstance(task, Worked) else None,
        }
        for problem in problems
    ]


def answer_rows(rollouts: Rollouts, task: Task | None) -> list[dict[str, Json]]:
    """Answers, with verdicts where a task can give them."""
    from reckon.tasks import verdict_on

    rows: list[dict[str, Json]] = []
    for row, text in enumerate(rollouts.text):
        problem = rollouts.problem(row)
        verdict = None if task is None else verdict_on(task, problem, text)
        rows.append(
            {
                "id": problem.id,
                "prompt": problem.prompt_text,
                "answer": problem.answer,
                "text": text,
                "outcome": None if verdict is None else verdict.outcome,
                "reason": None if verdict is None else verdict.reason,
            }
        )
    return rows


def print_answers(rows: Sequence[Mapping[str, Json]]) -> None:
    """Prints answers below their problems."""
    last = None
    for row in rows:
        if row["id"] != last:
            typer.echo(f"\n> {row['prompt']}" + ("" if row["answer"] is None else f"\n  (answer: {row['answer']})"))
            last = row["id"]
        typer.echo(f"{row['text']}" + ("" if row["reason"] is None else f"   [{row['reason']}]"))
