"""Rows out of files, runs, datasets and lists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from reckon.errors import InputError, MissingError
from reckon.fit import _parse
from reckon.fit._checks import check_choice
from reckon.fit._rows import Example
from reckon.tasks import Row, read_rows

Shape: TypeAlias = Literal["imitation", "unpaired", "paired", "stepwise", "prefix", "staged"]
OnBad: TypeAlias = Literal["error", "drop"]
# A file (.jsonl, .csv, .parquet), a run's folder, one of `reckon label`, a dataset on the Hugging Face hub, such a
# dataset, or a list.
Source: TypeAlias = "str | Path | Iterable[Mapping[str, object]]"

LABELS = "labels.parquet"  # what `reckon label` writes into its folder at the end

_PARSERS: Mapping[Shape, Callable[[Row, str], list[Example]]] = {
    "imitation": _parse.imitation,
    "unpaired": _parse.unpaired,
    "paired": _parse.paired,
    "stepwise": _parse.stepwise,
    "prefix": _parse.prefix,
    "staged": _parse.staged,
}


@dataclass(frozen=True, kw_only=True)
class Read:
    """What was read."""

    rows: tuple[Example, ...]
    fingerprint: str  # SHA-256 of all rows as they were found, whatever became of them
    unknown: int = 0  # left out because nobody knows their label
    dropped: tuple[str, ...] = ()  # why rows were dropped, each in a sentence; only where that was asked for


def read_examples(source: Source, shape: Shape, *, separator: str = "\n", on_bad: OnBad = "error") -> Read:
    """Rows of one shape.

    The columns are TRL's: `prompt, completion, label` (unpaired), `prompt, chosen, rejected` and perhaps `margin`, or
    `chosen, rejected` as whole conversations (paired), `prompt, completions, labels` (stepwise). Also taken:
    transcripts of "Human: ... Assistant: ..." as HH-RLHF has them (paired: the answers in which they first differ),
    `prompt, completions, correctness` (unpaired, several responses a row), `messages` (imitation: the last turn),
    `prompt, prefix, q_hat` (prefix), `prompt, completion, stage` (staged), and this project's tables of rollouts,
    evaluations and labelled prefixes. Prompts are text or messages, and so are responses, of one assistant's turn.

    A response is cut off, and gets no end token, where `truncated` is true or `end` is there and not "eos".

    Args:
        source: where the rows are.
        shape: which rows are wanted.
        separator: put between steps that do not end with it already; it belongs to the step before.
        on_bad: what becomes of a row that cannot be used: the first is an error, or all are dropped and told.

    Raises:
        MissingError: there is no such file, or the package for it is not installed.
        InputError: a row cannot be used (names file, row and column), or none is left.
    """
    check_choice("shape", shape, Shape)
    check_choice("on_bad", on_bad, OnBad)
    digest = hashlib.sha256()
    rows: list[Example] = []
    unknown, dropped, seen = 0, list[str](), 0
    for row in open_rows(source):
        digest.update(json.dumps(row.values, default=str, sort_keys=True).encode() + b"\n")
        seen += 1
        try:
            found = _PARSERS[shape](row, separator)
        except InputError as error:
            if on_bad == "error":
                raise
            dropped.append(str(error))
            continue
        unknown += not found
        rows += found
    if not rows:
        why = f"of {unknown} nobody knows the label. " if unknown else f"{dropped[0]} " if dropped else ""
        raise InputError(
            f"{_name(source)}: none of {seen} rows can be learned from. {why}Give it rows that are labelled."
        )
    return Read(rows=tuple(rows), fingerprint=digest.hexdigest(), unknown=unknown, dropped=tuple(dropped))


def open_rows(source: Source) -> Iterable[Row]:
    """The rows of a source as they stand there.

    Raises:
        MissingError: there is no such file, run or dataset, or a package is missing.
        InputError: it cannot be read.
    """
    if not isinstance(source, str | Path):
        name = "the list" if isinstance(source, Sequence) else "the dataset"
        return [Row(name, number, _mapping(name, number, values)) for number, values in enumerate(source, start=1)]
    path = Path(source).expanduser()
    if (path / "recipe.yaml").is_file():
        return _run(path)
    if (path / LABELS).is_file():
        return read_rows(str(path / LABELS))
    if path.is_dir():
        begun = (path / "plan.json").is_file()
        why = "its labels are not finished: give the same `reckon label` again, which goes on"
        raise MissingError(
            f"{path} is a folder without rows: {why if begun else f'it has neither recipe.yaml nor {LABELS}'}."
        )
    text = str(source)
    if not path.exists() and not path.suffix and text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return _hub(text)
    return read_rows(text)


def _run(folder: Path) -> list[Row]:
    from reckon.runs import read_rollouts

    table = read_rollouts(folder, columns=["problem", "prompt", "answer", "text", "outcome", "end"])
    return [Row(f"{folder} (rollouts)", number, values) for number, values in enumerate(table.to_pylist(), start=1)]


def _hub(name: str) -> list[Row]:
    try:
        import datasets
    except ImportError as error:
        raise MissingError(
            f"There is no file {name}, and to look for a dataset of this name on the hub the package datasets is "
            "needed: pip install 'reckon-rl[datasets]'"
        ) from error
    try:
        loaded = datasets.load_dataset(name, split="train")
    except Exception as error:  # the package raises whatever its many readers do
        raise MissingError(
            f"There is no file {name}, and no dataset of this name could be loaded from the hub: "
            f"{(str(error).splitlines() or [type(error).__name__])[0][:200]}. Check the name and the network."
        ) from error
    return [Row(name, number, dict(values)) for number, values in enumerate(loaded, start=1)]


def _mapping(name: str, number: int, values: object) -> Mapping[str, object]:
    if not isinstance(values, Mapping):
        raise InputError(
            f"{name}, row {number}: a mapping from column names to values was expected, not {type(values).__name__}. "
            "Give a list of dictionaries."
        )
    return values


def _name(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "the data"
