"""The rollout table: one schema for what training writes and what scoring, fitting and reports read."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from reckon.errors import InputError, RunError
from reckon.types import Batch, Credit, End, Reason, Rollouts, Stream, Verdict

if TYPE_CHECKING:
    import pyarrow
    from torch import Tensor

Cells: TypeAlias = "Mapping[str, Sequence[object]]"  # a table as columns of equal length

ROLLOUTS: Mapping[str, str] = {
    "step": "int32",  # finished steps, counted from 1
    "row": "int32",  # the response's place in its step
    "group": "int32",  # which of the step's prompts it answers
    "problem": "string",  # the problem's id
    "domain": "string",
    "prompt": "string",  # a conversation as "role: content" paragraphs
    "answer": "string",  # the reference; null = nobody knows
    "text": "string",  # the response, end token left out
    "outcome": "float32",  # the verdict; null = unknown
    "parsed": "string",  # what was read out of the response; null = nothing
    "reason": "string",  # why the verdict is what it is; null = not told
    "end": "string",  # "eos", "stop" or "length"
    "train": "bool",
    "tokens": "list<int32>",
    "pieces": "list<string>",  # as many as tokens; joined they are `text`
    "logprobs": "list<float32>",
    "advantages": "list<float32>",  # what each token was credited with; null = nothing was credited
}
EVALUATIONS: Mapping[str, str] = {
    **{name: kind for name, kind in ROLLOUTS.items() if name not in ("train", "advantages")},
    "sample": "int32",  # which of the k responses to its problem
    "greedy": "bool",
}
_NULLABLE = {"answer", "outcome", "parsed", "reason", "advantages"}
_STREAM = re.compile(r"stream/[^/]+(/[^/]+)?(/tokens)?")


def rollout_table(
    step: int,
    batch: Batch,
    streams: Mapping[str, Stream],
    credit: Credit | None = None,
    verdicts: Sequence[Verdict] | None = None,
) -> pyarrow.Table:
    """The rollouts of one training step as a table of the schema `ROLLOUTS`, with a column for each stream.

    A stream [N] is the column "stream/NAME" (float32, null = does not apply), a stream [N, T] is
    "stream/NAME/tokens" (list of float32; null where no token of the row has one).

    Args:
        step: finished steps, this one included.
        batch: N responses.
        streams: what the judges said of them.
        credit: what their tokens were credited with.
        verdicts: N, for the columns parsed and reason; without them, reason says what the outcome tells by itself.

    Raises:
        ValueError: the number of rows or pieces does not fit.
    """
    lengths = _lengths(batch.rollouts)
    columns = _columns(step, batch.rollouts, batch.outcome, verdicts)
    columns["train"] = batch.train.tolist()
    columns["advantages"] = [None] * len(lengths) if credit is None else _ragged(credit.advantages, lengths)
    for name, stream in streams.items():
        if stream.values.shape[0] != len(lengths):
            raise ValueError(f"stream `{name}` has {stream.values.shape[0]} rows, and the batch {len(lengths)}")
        if stream.values.ndim == 1:
            columns[f"stream/{name}"] = [_known(value) for value in stream.values.tolist()]
        else:
            rows = _ragged(stream.values, lengths)
            columns[f"stream/{name}/tokens"] = [
                None if row and all(math.isnan(value) for value in row) else row for row in rows
            ]
    return make_table(columns, ROLLOUTS)


def make_table(columns: Cells, schema: Mapping[str, str]) -> pyarrow.Table:
    """A table of `schema`, stream columns added; a column that may be null may be missing.

    Raises:
        InputError: a column is missing or unknown, or a value does not fit; names the column.
    """
    import pyarrow

    extra = sorted(name for name in columns if name not in schema)
    for name in extra:
        if not _STREAM.fullmatch(name):
            raise InputError(f"`{name}` is not a column of this table. Columns: {', '.join(schema)}, stream/NAME.")
    kinds = {**schema, **{name: "list<float32>" if name.endswith("/tokens") else "float32" for name in extra}}
    height = len(next(iter(columns.values()), ()))
    arrays, fields = [], []
    for name, kind in kinds.items():
        if name not in columns and name not in _NULLABLE:
            raise InputError(f"The column `{name}` is missing. Give it {height} values.")
        values = columns.get(name, [None] * height)
        try:
            arrays.append(pyarrow.array(_writable(kind, values), _type(kind)))
        except (pyarrow.ArrowException, TypeError, OverflowError) as error:
            raise InputError(f"The column `{name}` must be {kind}: {error}") from error
        fields.append(pyarrow.field(name, _type(kind)))
        if len(arrays[-1]) != height:
            raise InputError(f"The column `{name}` has {len(arrays[-1])} rows, and the first column {height}.")
    return pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields))


def read_rollouts(
    folder: str | Path, *, columns: Sequence[str] | None = None, steps: Collection[int] | None = None
) -> pyarrow.Table:
    """The rollouts of a run's training steps, in order.

    Args:
        folder: the run's.
        columns: only these, in this order; a stream that some steps do not have is null there.
        steps: only these.

    Raises:
        InputError: no step has such a column.
        RunError: a file is damaged; names it.
    """
    return _read(Path(folder) / "rollouts", "step", ROLLOUTS, columns, steps)


def read_evaluations(
    folder: str | Path, split: str, *, columns: Sequence[str] | None = None, steps: Collection[int] | None = None
) -> pyarrow.Table:
    """The responses of a run's evaluations on one split, in order of their steps; arguments as in `read_rollouts`."""
    return _read(Path(folder) / "evals", f"{split}-step", EVALUATIONS, columns, steps)


def table_step(path: Path) -> int | None:
    """The step a table's file name tells; None if it is not a table's."""
    found = re.fullmatch(r"(?:.+-)?step-(\d{6,})\.parquet", path.name)
    return None if found is None or path.name.startswith(".") else int(found[1])


def _read(
    folder: Path,
    prefix: str,
    schema: Mapping[str, str],
    columns: Sequence[str] | None,
    steps: Collection[int] | None,
) -> pyarrow.Table:
    import pyarrow
    import pyarrow.parquet

    found = {}
    for path in folder.glob(f"{prefix}-*.parquet"):
        step = table_step(path)
        if step is not None and path.name.startswith(f"{prefix}-{step:06}.") and (steps is None or step in steps):
            found[step] = path
    tables = [make_table({name: [] for name in schema}, schema)]
    for _, path in sorted(found.items()):
        try:
            file = pyarrow.parquet.ParquetFile(path)
            wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
            tables.append(file.read(columns=wanted))
        except (pyarrow.ArrowException, OSError) as error:
            raise RunError(f"{path} cannot be read ({error}). Delete it to read the others.") from error
    table = pyarrow.concat_tables(tables, promote_options="default")
    if columns is None:
        return table
    for name in columns:
        if name not in table.column_names:
            raise InputError(f"{folder} has no column `{name}`. Columns: {', '.join(table.column_names)}.")
    return table.select(list(columns))


def _columns(
    step: int, rollouts: Rollouts, outcomes: Tensor | Sequence[float | None], verdicts: Sequence[Verdict] | None
) -> dict[str, Sequence[object]]:
    """The columns that training and evaluation share."""
    n, lengths = len(rollouts.text), _lengths(rollouts)
    if verdicts is not None and len(verdicts) != n:
        raise ValueError(f"{len(verdicts)} verdicts for {n} responses")
    known = [None if value is None else _known(float(value)) for value in outcomes]
    problems = [rollouts.problem(row) for row in range(n)]
    return {
        "step": [step] * n,
        "row": range(n),
        "group": rollouts.seq.group.tolist(),
        "problem": [problem.id for problem in problems],
        "domain": [problem.domain for problem in problems],
        "prompt": [problem.prompt_text for problem in problems],
        "answer": [problem.answer for problem in problems],
        "text": rollouts.text,
        "outcome": known,
        "parsed": [None] * n if verdicts is None else [verdict.answer for verdict in verdicts],
        "reason": [
            _reason(value, problem.answer) if verdicts is None else verdicts[row].reason
            for row, (value, problem) in enumerate(zip(known, problems, strict=True))
        ],
        "end": [End(value).name.lower() for value in rollouts.end.tolist()],
        "tokens": _ragged(rollouts.seq.tokens, lengths),
        "pieces": [_padded(pieces, length) for pieces, length in zip(rollouts.pieces, lengths, strict=True)],
        "logprobs": _ragged(rollouts.logprobs, lengths),
    }


def _reason(outcome: float | None, answer: str | None) -> Reason | None:
    if outcome is None:
        return "no reference" if answer is None else None
    return "right" if outcome == 1 else "wrong" if outcome == 0 else "partial"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _lengths(rollouts: Rollouts) -> list[int]:
    """Tokens up to the last one that was sampled: a hole in the mask stays, padding goes."""
    return [max((t + 1 for t, on in enumerate(row) if on), default=0) for row in rollouts.seq.mask.tolist()]


def _ragged(values: Tensor, lengths: Sequence[int]) -> list[list[float]]:
    return [row[:length] for row, length in zip(values.tolist(), lengths, strict=True)]


def _padded(pieces: Sequence[str], length: int) -> list[str]:
    """One piece a token: an end token adds no text, and may have been left out."""
    if len(pieces) > length:
        raise ValueError(f"a response of {length} tokens has {len(pieces)} pieces")
    return [*pieces, *[""] * (length - len(pieces))]


def _writable(kind: str, values: Sequence[object]) -> Sequence[object]:
    """Data may hold half a surrogate pair, which is no text in UTF-8; it becomes a question mark."""
    if kind == "string":
        return [_utf8(value) for value in values]
    if kind == "list<string>":
        return [[_utf8(item) for item in value] if isinstance(value, list | tuple) else value for value in values]
    return values


def _utf8(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _type(kind: str) -> pyarrow.DataType:
    import pyarrow

    inner = re.fullmatch(r"list<(\w+)>", kind)
    return pyarrow.list_(_type(inner[1])) if inner else pyarrow.type_for_alias(kind)
