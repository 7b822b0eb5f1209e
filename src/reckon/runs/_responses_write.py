"""Responses back into a file, in the columns that `read_responses` reads."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np

from reckon.errors import InputError
from reckon.files import write_file, write_table
from reckon.runs._responses import Responses, Signal
from reckon.types import Chat, Json

ENDINGS = (".jsonl", ".parquet", ".csv")


def write_responses(responses: Responses, path: str | Path) -> None:
    """Writes responses and their signals, whole or not at all, in the order in which they were read.

    `read_responses` gives them back, and whatever else stood in the rows that it read is written as it was. Costs are
    spread evenly over the rows ("cost/NAME/seconds", "cost/NAME/tokens").

    Args:
        responses: what to write.
        path: a file that ends in .jsonl, .parquet or .csv; the latter has no room for lists (tokens, steps).

    Raises:
        InputError: another ending, or lists in a .csv.
        RunError: no room, no permission.
    """
    path = Path(path).expanduser()
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path}: responses are written as {', '.join(ENDINGS)}. Choose one of these endings.")
    columns = _columns(responses)
    if ending == ".csv":
        write_file(path, _csv(path, columns))
    elif ending == ".jsonl":
        rows = zip(*columns.values(), strict=True)
        text = "".join(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=True) + "\n" for row in rows)
        write_file(path, text.encode())
    else:
        _write_parquet(path, columns)


def _write_parquet(path: Path, columns: dict[str, list[Json]]) -> None:
    import pyarrow

    chats = columns["prompt"]
    if not all(isinstance(chat, str) for chat in chats):  # a column of Parquet is of one type
        columns = columns | {"prompt": [[{"role": "user", "content": c}] if isinstance(c, str) else c for c in chats]}
    safe = {name: [_utf8(value) for value in values] for name, values in columns.items()}
    try:
        write_table(path, pyarrow.table(safe))
    except (pyarrow.ArrowException, TypeError) as error:
        raise InputError(f"These responses do not fit into Parquet ({error}). Write them as .jsonl.") from error


def _utf8(value: Json) -> Json:
    """Half a surrogate pair is no text in UTF-8; it becomes a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_utf8(part) for part in value]
    return {key: _utf8(part) for key, part in value.items()} if isinstance(value, dict) else value


def _csv(path: Path, columns: dict[str, list[Json]]) -> bytes:
    for name, values in columns.items():
        if any(isinstance(value, list | dict) for value in values):
            raise InputError(f"{path}: `{name}` holds lists, which do not fit into .csv. Write .jsonl or .parquet.")
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows(["" if cell is None else cell for cell in row] for row in zip(*columns.values(), strict=True))
    return out.getvalue().encode("utf-8", "replace")


def _columns(responses: Responses) -> dict[str, list[Json]]:
    order = np.argsort(responses.row, kind="stable").tolist()
    n = len(order)
    problems = [responses.problem(i) for i in range(n)]
    columns: dict[str, list[Json]] = {
        # Two steps of a run may pose the same problem; only responses of one group compete.
        "problem": [problem.id for problem in problems],
        "domain": [problem.domain for problem in problems],
        "prompt": [_prompt(problem.prompt) for problem in problems],
        "answer": [problem.answer for problem in problems],
        "text": list(responses.text),
        "outcome": _floats(responses.outcome),
        "parsed": list(responses.parsed),
        "end": list(responses.end),
    }
    own = {"step", "row", "group"} <= set(responses.columns)  # of the run that they were read from
    if len({problem.id for problem in responses.problems}) < len(responses.problems) and not own:
        columns |= {"step": responses.group.tolist(), "row": responses.row.tolist(), "group": responses.group.tolist()}
    columns |= {name: list(values) for name, values in responses.columns.items() if name not in columns}
    for name in dict.fromkeys(name for problem in responses.problems for name in problem.columns):
        if name not in columns:
            columns[name] = [problem.columns.get(name) for problem in problems]
    for name, rows in (("tokens", responses.tokens), ("pieces", responses.pieces), ("logprobs", responses.logprobs)):
        if rows is not None:
            columns[name] = [list(row) for row in rows]
    if responses.steps is not None:
        columns["steps"] = [
            None if row is None else [{"start": s.start, "end": s.end, "valid": s.valid} for s in row]
            for row in responses.steps
        ]
    for name, signal in responses.streams.items():
        columns |= _stream(name, signal, n)
    return {name: [values[i] for i in order] for name, values in columns.items()}


def _stream(name: str, signal: Signal, n: int) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {f"stream/{name}": _floats(signal.values)}
    for what, rows in (("tokens", signal.tokens), ("steps", signal.steps)):
        if rows is not None:
            found[f"stream/{name}/{what}"] = [None if row is None else list(_floats(row)) for row in rows]
    if signal.tokens is not None and signal.kind != "reward":
        found[f"stream/{name}/kind"] = [signal.kind] * n
    for what, spent in (("seconds", signal.seconds), ("tokens", signal.read)):
        if not math.isnan(spent):
            found[f"cost/{name}/{what}"] = [spent / n] * n
    return found


def _prompt(prompt: str | Chat) -> Json:
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


def _floats(values: np.ndarray) -> list[Json]:
    return [None if math.isnan(value) else value for value in values.tolist()]
