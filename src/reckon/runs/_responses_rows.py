"""Cells of a table of responses, read one by one, with errors that name row, column and remedy."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np

from reckon.errors import InputError
from reckon.types import Chat, End, Json, Kind, Step

TEXTS = ("text", "completion", "response")
OUTCOMES = ("outcome", "correct", "label")
ENDS = tuple(end.name.lower() for end in End)
LONGEST = 200  # characters; a longer parsed answer votes with nobody
_RESERVED = {
    *TEXTS, *OUTCOMES, "prompt", "completions", "labels", "chosen", "rejected", "answer", "parsed", "problem", "id",
    "domain", "split", "reason", "end", "step", "row", "group", "sample", "greedy", "train", "tokens", "pieces",
    "logprobs", "advantages", "steps", "index", "seed",
}  # fmt: skip
# Cells that a field of `Answered` holds, whatever else the row has.
_HELD = ("prompt", "answer", "parsed", "problem", "domain", "end", "tokens", "pieces", "logprobs", "steps")
_STREAM = re.compile(r"stream/([^/]+(?:/(?!tokens$|steps$|kind$)[^/]+)?)(/tokens|/steps|/kind)?")
_TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


@dataclass(frozen=True)
class TextRow:
    """One row as it was read, and how to name it."""

    place: str  # "answers.jsonl, row 3"
    cells: Mapping[str, object]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """One response, understood."""

    number: int  # from 1
    key: object  # rows with the same key answer the same question
    id: str | None
    prompt: str | Chat
    answer: str | None
    domain: str
    text: str
    outcome: float
    parsed: str | None
    end: str | None
    tokens: tuple[int, ...] | None
    pieces: tuple[str, ...] | None
    logprobs: tuple[float, ...] | None
    steps: tuple[Step, ...] | None
    values: Mapping[str, float]
    dense: Mapping[str, np.ndarray]
    by_step: Mapping[str, np.ndarray]
    kinds: Mapping[str, Kind]
    costs: Mapping[str, float]
    columns: Mapping[str, Json]  # of the data, which a problem may share
    others: Mapping[str, Json]  # every cell that is in none of the fields above, `columns` among them


def parse_rows(rows: Sequence[TextRow]) -> list[Answered]:
    """Understands every row; pairs (`chosen`, `rejected`) become two, and greedy answers beside samples are left out.

    Raises:
        InputError: a cell cannot be used.
    """
    rows = [part for row in rows for part in _unpaired(row)]
    sampled = [row for row in rows if row.cells.get("greedy") is not True]
    rows = sampled or rows  # subsets of samples stand for samples; the likeliest answer is not one of them
    names = list(dict.fromkeys(name for row in rows for name in row.cells))
    text, outcome = _only(rows, names, TEXTS), _only(rows, names, OUTCOMES)
    if text is None and "completions" not in names:
        have = ", ".join(names)
        raise InputError(
            f"{rows[0].place}: there is no response (columns: {have}). Call its column {', '.join(TEXTS)}, "
            "or give chosen and rejected."
        )
    if not {"prompt", "problem", "id"} & set(names):
        raise InputError(
            f"{rows[0].place}: nothing says which question is answered (columns: {', '.join(names)}). "
            "Add a column prompt, problem or id."
        )
    numeric = [name for name in names if name not in _RESERVED and not name.startswith(("stream/", "cost/"))]
    signals = [name for name in numeric if _is_signal(rows, name)]
    kept = [name for name in numeric if name not in signals]
    ours = {"step", "row", "group", "problem"} <= set(names)
    held = {*_HELD, *signals, text, outcome} | ({"completions", "labels"} if text is None else set())
    others = [name for name in names if name not in held and not name.startswith(("stream/", "cost/"))]
    return [
        _answered(row, number, text, outcome, signals, kept, others, ours=ours, look="parsed" not in names)
        for number, row in enumerate(rows, start=1)
    ]


def _answered(
    row: TextRow, number: int, text: str | None, outcome: str | None, signals: list[str], kept: list[str],
    others: list[str], *, ours: bool, look: bool,
) -> Answered:  # fmt: skip
    said, steps = _said(row, text)
    prompt, answer = _prompt(row), _text(row, "answer")
    problem = _text(row, "problem")
    pieces, tokens = _texts(row, "pieces"), _integers(row, "tokens")
    if pieces is not None and "".join(pieces) != said:
        raise InputError(f"{row.place}: `pieces` joined are not the response. Mend them, or leave the column out.")
    count = len(pieces) if pieces is not None else None if tokens is None else len(tokens)
    if steps is None:
        steps = _steps(row, len(said))
    values, dense, by_step, kinds = _streams(row, count, None if steps is None else len(steps))
    values |= {name: value for name in signals if not math.isnan(value := _number(row, name, row.cells.get(name)))}
    question: object = (problem or _text(row, "id") if not prompt else problem) or (_flat(prompt), answer)
    return Answered(
        number=number,
        key=(row.cells.get("step") if ours else None, question),
        id=problem or _text(row, "id"),
        prompt=prompt,
        answer=answer,
        domain=_text(row, "domain") or "default",
        text=said,
        outcome=math.nan if outcome is None else _outcome(row, outcome),
        parsed=_looked_for(said) if look else _text(row, "parsed"),
        end=_end(row),
        tokens=tokens,
        pieces=pieces,
        logprobs=_floats(row, "logprobs", count),
        steps=steps,
        values=values,
        dense=dense,
        by_step=by_step,
        kinds=kinds,
        costs={
            name.removeprefix("cost/"): _number(row, name, row.cells[name])
            for name in row.cells
            if name.startswith("cost/")
        },
        columns={name: _json(row.cells.get(name)) for name in kept},
        others={name: _json(row.cells.get(name)) for name in others},
    )


def _unpaired(row: TextRow) -> Iterable[TextRow]:
    """TRL's preference row as two responses; what ends in _chosen or _rejected goes with its side."""
    if "chosen" not in row.cells or "rejected" not in row.cells or any(name in row.cells for name in TEXTS):
        return [row]
    sides = []
    for side, other, outcome in (("chosen", "rejected", 1.0), ("rejected", "chosen", 0.0)):
        cells: dict[str, object] = {"outcome": outcome}
        for name, value in row.cells.items():
            if name not in ("chosen", "rejected") and not name.endswith((f"_{side}", f"_{other}")):
                cells[name] = value
        cells |= {n.removesuffix(f"_{side}"): value for n, value in row.cells.items() if n.endswith(f"_{side}")}
        said = row.cells[side]
        if cells.get("prompt") is None and isinstance(said, list | tuple) and len(said) > 1:
            cells["prompt"], said = list(said[:-1]), [said[-1]]  # TRL's implicit prompt: all but the last message
        cells["completion"] = said
        sides.append(TextRow(row.place, cells))
    return sides


def _only(rows: Sequence[TextRow], names: Sequence[str], choices: Sequence[str]) -> str | None:
    found = [name for name in choices if name in names]
    if len(found) > 1:
        raise InputError(
            f"{rows[0].place}: `{found[0]}` and `{found[1]}` mean the same. Keep one, and rename or drop the other."
        )
    return found[0] if found else None


def _said(row: TextRow, name: str | None) -> tuple[str, tuple[Step, ...] | None]:
    """The response, and its steps where they are given as TRL's `completions` with `labels`."""
    if name is None:
        return _stepwise(row)
    value = row.cells.get(name)
    if isinstance(value, list | tuple):
        parts = [part.get("content") if isinstance(part, Mapping) else None for part in value]
        if parts and all(isinstance(part, str) for part in parts):
            return "\n\n".join(cast("list[str]", parts)), None
        raise InputError(f"{row.place}: each message of `{name}` must be an object with `role` and `content` (text).")
    if value is None:
        return "", None
    if isinstance(value, int | float | str):
        return str(value), None
    raise InputError(f"{row.place}: `{name}` must be text or a list of messages, not {type(value).__name__}.")


def _stepwise(row: TextRow) -> tuple[str, tuple[Step, ...] | None]:
    parts, labels = row.cells.get("completions"), row.cells.get("labels")
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise InputError(f"{row.place}: `completions` must be a list of texts, the steps of one response.")
    if labels is not None and not (isinstance(labels, list | tuple) and len(labels) == len(parts)):
        raise InputError(f"{row.place}: `labels` must have one true or false for each of {len(parts)} completions.")
    text, steps = "", []
    for i, part in enumerate(parts):
        piece = part if i == len(parts) - 1 else part + "\n"  # TRL's step separator; it belongs to the step it closes
        valid = None if labels is None else _truth(row, "labels", labels[i])
        steps.append(Step(start=len(text), end=len(text) + len(piece), valid=valid))
        text += piece
    return text, None if labels is None else tuple(steps)


def _steps(row: TextRow, length: int) -> tuple[Step, ...] | None:
    value = row.cells.get("steps")
    if value is None:
        return None
    if isinstance(value, list | tuple):
        found, last = [], 0
        for part in value:
            start, end = (part.get("start"), part.get("end")) if isinstance(part, Mapping) else (None, None)
            if not (isinstance(start, int) and isinstance(end, int) and last <= start <= end <= length):
                break
            found.append(Step(start=start, end=end, valid=_truth(row, "steps", part.get("valid"))))
            last = end
        else:
            return tuple(found)
    raise InputError(
        f"{row.place}: `steps` must be a list of objects with `start`, `end` (characters, ascending, at most {length}) "
        "and `valid` (true, false or null)."
    )


def _truth(row: TextRow, name: str, value: object) -> bool | None:
    if value is None:
        return None
    if value in (0, 1):  # booleans are these too
        return bool(value)
    raise InputError(f"{row.place}: `{name}` holds {value!r}; it must be true, false or null for each step.")


def _prompt(row: TextRow) -> str | Chat:
    value = row.cells.get("prompt")
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list | tuple) else [None]
    chat = []
    for part in parts:
        role, content = (part.get("role"), part.get("content")) if isinstance(part, Mapping) else (None, None)
        if not (isinstance(role, str) and isinstance(content, str)):
            raise InputError(f"{row.place}: `prompt` must be text or a list of messages with `role` and `content`.")
        chat.append({"role": role, "content": content})
    return tuple(chat)


def _flat(prompt: str | Chat) -> str:
    return prompt if isinstance(prompt, str) else json.dumps([dict(message) for message in prompt], sort_keys=True)


def _text(row: TextRow, name: str) -> str | None:
    value = row.cells.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float):
        return str(value)
    raise InputError(f"{row.place}: `{name}` must be text or a number, not {type(value).__name__}.")


def _end(row: TextRow) -> str | None:
    value = _text(row, "end")
    if value is None:
        return None
    if value.lower() not in ENDS:
        raise InputError(
            f"{row.place}: `end` is {value!r}; it must be {', '.join(ENDS[:-1])} or {ENDS[-1]}, or empty where nobody "
            "knows why the response ended."
        )
    return value.lower()


def _outcome(row: TextRow, name: str) -> float:
    value = _number(row, name, row.cells.get(name))
    if not math.isnan(value) and not 0 <= value <= 1:
        raise InputError(
            f"{row.place}: `{name}` is {value:g}; a verdict is true, false or a number from 0 to 1. "
            "Leave it empty where nobody knows."
        )
    return value


def _maybe(value: object) -> float | None:
    """A cell as a number, NaN where it is empty; None = it is no number."""
    if value is None:
        return math.nan
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("", *_TRUTH):
            return _TRUTH.get(word, math.nan)
        try:
            return float(word)
        except ValueError:
            return None
    return float(value) if isinstance(value, bool | int | float) else None


def _number(row: TextRow, name: str, value: object) -> float:
    found = _maybe(value)
    if found is None or math.isinf(found):
        shown = repr(value)
        raise InputError(
            f"{row.place}: `{name}` is {shown if len(shown) <= 60 else shown[:57] + '...'}; it must be a finite "
            "number. Leave the cell empty where there is none."
        )
    return found


def _is_signal(rows: Sequence[TextRow], name: str) -> bool:
    """Whether a column is one of numbers. A few words among many numbers are not passed over: they are an error."""
    cells = [row.cells.get(name) for row in rows]
    filled = [cell for cell in cells if cell not in (None, "")]
    numbers = sum(_maybe(cell) is not None for cell in filled)
    if 2 * numbers <= len(filled):
        return False
    for row, cell in zip(rows, cells, strict=True):
        _number(row, name, cell)
    return True


def _streams(
    row: TextRow, tokens: int | None, steps: int | None
) -> tuple[dict[str, float], dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Kind]]:
    values: dict[str, float] = {}
    dense: dict[str, np.ndarray] = {}
    by_step: dict[str, np.ndarray] = {}
    kinds: dict[str, Kind] = {}
    for name, cell in row.cells.items():
        if not name.startswith("stream/"):
            continue
        found = _STREAM.fullmatch(name)
        if found is None:
            raise InputError(f"{row.place}: `{name}` is not the name of a stream. Call it stream/NAME.")
        if found[2] is None:
            value = _number(row, name, cell)
            if not math.isnan(value):
                values[found[1]] = value
        elif found[2] == "/kind":
            kinds[found[1]] = _kind(row, name, cell)
        elif cell is not None:
            size = tokens if found[2] == "/tokens" else steps
            (dense if found[2] == "/tokens" else by_step)[found[1]] = _list(row, name, cell, size)
    return values, dense, by_step, kinds


def _kind(row: TextRow, name: str, cell: object) -> Kind:
    if cell not in get_args(Kind):
        raise InputError(f"{row.place}: `{name}` is {cell!r}; it must be one of {', '.join(get_args(Kind))}.")
    return cast("Kind", cell)


def _list(row: TextRow, name: str, cell: object, size: int | None) -> np.ndarray:
    if not isinstance(cell, list | tuple):
        raise InputError(f"{row.place}: `{name}` must be a list of numbers, not {type(cell).__name__}.")
    if size is not None and len(cell) != size:
        what = "steps" if name.endswith("/steps") else "tokens"
        raise InputError(f"{row.place}: `{name}` has {len(cell)} numbers, and the response {size} {what}.")
    return np.array([_number(row, name, value) for value in cell], dtype=np.float64)


def _floats(row: TextRow, name: str, size: int | None) -> tuple[float, ...] | None:
    cell = row.cells.get(name)
    return None if cell is None else tuple(_list(row, name, cell, size).tolist())


def _integers(row: TextRow, name: str) -> tuple[int, ...] | None:
    cell = row.cells.get(name)
    if cell is None:
        return None
    if isinstance(cell, list | tuple) and all(isinstance(value, int) for value in cell):
        return tuple(cell)
    raise InputError(f"{row.place}: `{name}` must be a list of whole numbers.")


def _texts(row: TextRow, name: str) -> tuple[str, ...] | None:
    cell = row.cells.get(name)
    if cell is None:
        return None
    if isinstance(cell, list | tuple) and all(isinstance(value, str) for value in cell):
        return tuple(cell)
    raise InputError(f"{row.place}: `{name}` must be a list of texts.")


def _looked_for(text: str) -> str | None:
    from reckon.tasks import answer_block

    found = answer_block(text).strip()
    return found if 0 < len(found) <= LONGEST else None


def _json(value: object) -> Json:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_json(part) for part in value]
    return str(value)
