"""Triples from a file, and labels and pairs as rows that `fit` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reckon.annotate._hybrid import AnnotationPolicy, AnnotationReport, Triple, Verifier, annotate
from reckon.annotate._pairs import Pair
from reckon.errors import InputError
from reckon.files import write_file, write_table
from reckon.tasks import Checker, Row, id_of, read_rows, to_chat
from reckon.types import Chat, Json, Problem

QUESTION, REFERENCE = ("prompt", "question"), ("answer", "reference_answer", "reference", "solution")
COMPLETION, GOLD = ("completion", "response", "text"), ("gold", "label")


@dataclass(frozen=True)
class CheckerVerifier:
    """A checker, such as `reckon.tasks.Math()`, as a verifier: abstains where the verdict is unknown."""

    checker: Checker

    def __call__(self, triple: Triple) -> bool | None:
        """The verdict."""
        outcome = self.checker(triple.completion, triple.problem.answer).outcome
        return None if outcome is None else outcome == 1


def read_triples(path: str | Path) -> list[Triple]:
    """Triples from a JSONL, Parquet or CSV file.

    Of these columns the first that is there is taken: `prompt` or `question`; `answer`, `reference_answer`, `reference`
    or `solution`; `completion`, `response` or `text`; and, where the truth is known, `gold` or `label` (true or 1,
    false or 0). Prompts are texts or lists of messages.

    Raises:
        MissingError: there is no such file.
        InputError: a column is missing, or a cell cannot be used; names the row.
    """
    return [_triple(row) for row in read_rows(str(path))]


def annotate_file(
    source: str | Path,
    out: str | Path,
    verifiers: Mapping[str, Verifier],
    policy: AnnotationPolicy = "unanimous",
    *,
    workers: int = 1,
    seconds: float | None = None,
) -> AnnotationReport:
    """Labels the triples of a file, and writes those that got a label.

    Args:
        source: as `read_triples` takes it.
        out: a .jsonl or .parquet file with the columns id, prompt, completion, label (1 or 0) and answer.
        verifiers: by name.
        policy: as in `annotate`.
        workers: as in `annotate`.
        seconds: as in `annotate`.

    Raises:
        MissingError, InputError: as `read_triples` and `annotate`; InputError too for another kind of `out`, and with
            the report where no triple got a label.
        RunError: the file could not be written.
    """
    check_kind(out)
    kept, labels, report = annotate(read_triples(source), verifiers, policy, workers=workers, seconds=seconds)
    if not kept:
        raise InputError(f"no triple got a label, so there is nothing to write. Take other verifiers.\n{report}")
    write_rows(out, labeled_rows(kept, labels))
    return report


def labeled_rows(kept: Sequence[Triple], labels: Sequence[bool]) -> list[dict[str, Json]]:
    """Rows of unpaired data, in TRL's columns: prompt, completion, label; and id and answer."""
    return [
        {
            "id": triple.problem.id,
            "prompt": _prompt(triple.problem),
            "completion": triple.completion,
            "label": int(label),
            "answer": triple.problem.answer,
        }
        for triple, label in zip(kept, labels, strict=True)
    ]


def paired_rows(pairs: Sequence[Pair]) -> list[dict[str, Json]]:
    """Rows of paired data, in TRL's columns: prompt, chosen, rejected; and id and answer."""
    return [
        {
            "id": pair.problem.id,
            "prompt": _prompt(pair.problem),
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "answer": pair.problem.answer,
        }
        for pair in pairs
    ]


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Json]]) -> None:
    """Writes rows as .jsonl or .parquet, whole or not at all.

    Raises:
        InputError: the file is to be of another kind, or there is no row to write as Parquet.
        RunError: no room, no permission.
    """
    path = Path(path)
    check_kind(path)
    if path.suffix == ".jsonl":
        write_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        return
    if not rows:
        raise InputError(f"there is no row to write to {path}, and Parquet needs one to know the columns' kinds.")
    import pyarrow

    write_table(path, pyarrow.Table.from_pylist([dict(row) for row in rows]))


def check_kind(path: str | Path) -> None:
    """Raises InputError for a file that is neither .jsonl nor .parquet."""
    if Path(path).suffix not in (".jsonl", ".parquet"):
        raise InputError(f"{path}: rows are written as .jsonl or .parquet; name a file of one of these kinds.")


def _prompt(problem: Problem) -> Json:
    return problem.prompt if isinstance(problem.prompt, str) else [dict(turn) for turn in problem.prompt]


def _triple(row: Row) -> Triple:
    answer = _cell(row, REFERENCE)
    completion = _cell(row, COMPLETION, needed=True)
    if not isinstance(completion, str):
        raise InputError(f"{row.place}: the completion must be text, not {type(completion).__name__}.")
    return Triple(
        problem=Problem(
            id=id_of(row),
            prompt=_question(row),
            answer=None if answer is None else str(answer),
        ),
        completion=completion,
        gold=_gold(row),
    )


def _question(row: Row) -> str | Chat:
    prompt = _cell(row, QUESTION, needed=True)
    name = next(name for name in QUESTION if row.values.get(name) is not None)
    chat = prompt if isinstance(prompt, str) else to_chat(row, name, prompt)
    if not chat:
        raise InputError(f"{row.place}: `{name}` is empty. Write a prompt, or drop the row.")
    return chat


def _gold(row: Row) -> bool | None:
    value = _cell(row, GOLD)
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    if value is not None and str(value).lower() not in known:
        raise InputError(f"{row.place}: the truth is {value!r}; it must be true or 1, or false or 0, or left out.")
    return None if value is None else known[str(value).lower()]


def _cell(row: Row, names: Sequence[str], *, needed: bool = False) -> object:
    """The first of some columns that the row has."""
    value = next((row.values[name] for name in names if row.values.get(name) is not None), None)
    if value is None and needed:
        have = ", ".join(str(key) for key in row.values) or "none"
        raise InputError(f"{row.place}: none of the columns {', '.join(names)} is there (columns: {have}). Add one.")
    return value
