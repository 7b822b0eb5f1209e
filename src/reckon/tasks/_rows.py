"""Rows of somebody's data turned into problems, with errors that name file and row."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from reckon.errors import InputError, MissingError
from reckon.tasks._splits import SPLITS, split_of
from reckon.types import Chat, Json, Problem, Split

ALIASES: dict[str, Split] = {"validation": "dev", "valid": "dev", "val": "dev", "eval": "dev", "development": "dev"}
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Row:
    """One row and where it stands."""

    source: str  # the file's name, for messages
    number: int  # from 1; in JSONL the line
    values: Mapping[str, object]

    @property
    def place(self) -> str:
        """`problems.jsonl, row 312`."""
        return f"{self.source}, row {self.number}"


def read_rows(path: str) -> list[Row]:
    """The rows of a JSONL, Parquet or CSV file.

    Raises:
        MissingError: there is no such file.
        InputError: another kind of file, a line that is no JSON object, or no rows.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        near = get_close_matches(file.name, [p.name for p in file.parent.iterdir()], 1) if file.parent.is_dir() else []
        raise MissingError(f"{path}: no such file." + (f" Did you mean {near[0]}?" if near else ""))
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if file.suffix.lower() not in readers:
        raise InputError(f"{path}: files of kind '{file.suffix}' cannot be read. Use .jsonl, .parquet or .csv.")
    rows = list(readers[file.suffix.lower()](file))
    if not rows:
        raise InputError(f"{path}: there are no rows. Give it at least one problem.")
    return rows


def _jsonl(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", errors="strict") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield Row(file.name, number, _object(line, f"{file.name}, row {number}"))
        except UnicodeDecodeError as error:
            raise InputError(f"{file.name}: not UTF-8 text ({error.reason}). Save it as UTF-8.") from error


def _object(line: str, place: str) -> Mapping[str, object]:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({error}). Write one JSON object a line.") from error
    if not isinstance(value, dict):
        raise InputError(f"{place}: a JSON object was expected, not {type(value).__name__}. Write one object a line.")
    return value


def _csv(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        try:
            for number, values in enumerate(csv.DictReader(lines, strict=True), start=1):
                if None in values:
                    raise InputError(
                        f"{file.name}, row {number}: more cells than column names. Quote cells that hold commas."
                    )
                if None in values.values():
                    raise InputError(
                        f"{file.name}, row {number}: fewer cells than column names. Leave a cell empty where there is "
                        "nothing to say, but write its comma."
                    )
                yield Row(file.name, number, {k: v if v != "" else None for k, v in values.items()})
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{file.name}: cannot be read as UTF-8 CSV ({error}). Is a quote left open, or the file no text?"
            ) from error


def _parquet(file: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{file.name}: cannot be read as Parquet ({error}).") from error
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Row(file.name, number, values)


@dataclass(frozen=True, kw_only=True)
class Names:
    """Which columns hold what."""

    prompt: str = "prompt"
    answer: str = "answer"


def to_problem(row: Row, names: Names) -> Problem:
    """The row as a problem.

    Raises:
        InputError: the prompt is missing or no text or chat, or another cell has a type that cannot be used.
    """
    taken = {names.prompt, names.answer, "domain", "id", "split"}
    return Problem(
        id=id_of(row),
        prompt=_prompt(row, names.prompt),
        answer=_text(row, names.answer),
        domain=_text(row, "domain") or "default",
        columns={str(key): _json(value) for key, value in row.values.items() if key not in taken},
    )


def id_of(row: Row) -> str:
    """The row's own `id`, 0 too, or one made of its number.

    Raises:
        InputError: the `id` is neither text nor a number.
    """
    return _text(row, "id") or f"row-{row.number}"


def _prompt(row: Row, name: str) -> str | Chat:
    value = row.values.get(name)
    if value is None or value in ("", []):
        have = ", ".join(str(key) for key in row.values) or "none"
        raise InputError(
            f"{row.place}: `{name}` is missing (columns: {have}). Give every row a prompt, or name the column that "
            "holds it with the setting `prompt`."
        )
    return value if isinstance(value, str) else to_chat(row, name, value)


def to_chat(row: Row, name: str, value: object) -> Chat:
    """A list of messages, each with a known role and its text.

    Args:
        row: where it stands, for messages.
        name: and in which column.
        value: the cell, or a part of it.

    Raises:
        InputError: it is anything else.
    """
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{row.place}: `{name}` must be text or a list of messages, not {type(value).__name__}.")
    return tuple(_message(row, name, message) for message in value)


def _message(row: Row, name: str, message: object) -> Mapping[str, str]:
    if isinstance(message, Mapping):
        role, content = message.get("role"), message.get("content")
        if role in _ROLES and isinstance(content, str):
            return {"role": str(role), "content": content}
    raise InputError(
        f"{row.place}: each message of `{name}` must be an object with `role` ({', '.join(_ROLES)}) and `content` "
        "(text), nothing less."
    )


def _text(row: Row, name: str) -> str | None:
    value = row.values.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, (list, tuple)) and all(isinstance(part, (str, int, float)) for part in value):
        return ", ".join(map(str, value))
    raise InputError(f"{row.place}: `{name}` must be text, a number or a list of them, not {type(value).__name__}.")


def _json(value: object) -> Json:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(part) for part in value]
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return str(value)


def prompt_key(prompt: str | Chat) -> str:
    """The prompt's content as one string, the same wherever it turns up."""
    return prompt if isinstance(prompt, str) else json.dumps([[m["role"], m["content"]] for m in prompt])


def assign(
    rows: Iterable[Row], names: Names, shares: Sequence[float], fixed: Split | None = None
) -> dict[Split, list[Problem]]:
    """Every row's problem, in the split its `split` column names, or else `fixed`, or else its prompt's hash.

    Raises:
        InputError: rows disagree about a `split` column, name no split, have the same id or cannot be made problems.
    """
    rows = list(rows)
    has_column = fixed is None and any(row.values.get("split") is not None for row in rows)
    result: dict[Split, list[Problem]] = {split: [] for split in SPLITS}
    ids: dict[str, Row] = {}
    for row in rows:
        problem = to_problem(row, names)
        first = ids.setdefault(problem.id, row)
        if first is not row:
            raise InputError(f"{row.place}: `id` {problem.id!r} is that of row {first.number} too. Make ids unique.")
        if fixed is not None:
            split = fixed
        elif has_column:
            split = _named_split(row)
        else:
            split = split_of(f"prompt {prompt_key(problem.prompt)}", shares)
        result[split].append(problem)
    return result


def _named_split(row: Row) -> Split:
    value = row.values.get("split")
    if isinstance(value, str):
        name = value.strip().lower()
        for split in SPLITS:
            if name == split:
                return split
        if name in ALIASES:
            return ALIASES[name]
    raise InputError(
        f"{row.place}: `split` must be train, dev or test, not {value!r}. Name a split in every row or none."
    )


def check_disjoint(splits: Mapping[Split, Sequence[Problem]], source: str) -> None:
    """Raises InputError if a prompt stands in two splits."""
    seen: dict[str, tuple[Split, str]] = {}
    for split, problems in splits.items():
        for problem in problems:
            other, first = seen.setdefault(prompt_key(problem.prompt), (split, problem.id))
            if other != split:
                raise InputError(
                    f"{source}: the same prompt is in split '{other}' ({first}) and in '{split}' ({problem.id}), so "
                    "what is learned in one would be tested in the other. Remove one of them."
                )
