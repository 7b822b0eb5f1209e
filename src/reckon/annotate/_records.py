"""Labels of prefixes as records and as Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import torch
from torch import Tensor

from reckon.annotate._cost import Cost
from reckon.errors import InputError, MissingError, RunError
from reckon.files import write_table
from reckon.types import Chat, Json, Problem

if TYPE_CHECKING:
    import pyarrow

Source: TypeAlias = Literal["seed", "pit"]

PREFIXES: Mapping[str, str] = {
    "problem": "string",  # the problem's id
    "domain": "string",
    "prompt": "string",  # a conversation as "role: content" paragraphs
    "messages": "string",  # the conversation as JSON; null = the prompt is a text
    "answer": "string",  # the reference; null = nobody knows
    "source": "string",  # "seed": of a seed; "pit": of a wrong completion of a state of high value
    "trace": "int32",  # which response the prefix is of, among those of its source
    "step": "int32",  # steps in the prefix; 0 = the empty prefix
    "steps": "int32",  # steps of the whole response
    "ended": "bool",  # whether the whole response ended by itself, not at the limit
    "outcome": "int32",  # whether the whole response is right; null = unknown
    "prefix": "list<string>",  # the text of each step; joined they are the prefix
    "tokens": "list<int32>",  # the prefix, as it was sampled
    "q_hat": "float64",  # n_correct / n_mc; null = no verdict is known
    "n_mc": "int32",  # completions whose verdict is known
    "n_correct": "int32",
    "n_drawn": "int32",  # completions sampled for this label; 0 = the response has ended here, or the label is shared
    "generated": "int64",  # tokens sampled for this label
    "policy_id": "string",  # whose chance of success it is
}
_WHOLE = ("trace", "steps", "n_mc", "n_correct", "n_drawn", "generated")  # columns of whole numbers, none unknown
_META = b"reckon"


@dataclass(frozen=True, kw_only=True)
class PrefixLabel:
    """How often a policy succeeded when it went on from a prefix."""

    problem: Problem
    prefix: tuple[str, ...]  # the text of each step; () = the empty prefix
    tokens: tuple[int, ...]
    n_mc: int  # completions whose verdict is known; a checked whole response counts as n_mc equal ones
    n_correct: int
    policy_id: str
    trace: int  # which response the prefix is of
    steps: int  # of that whole response
    outcome: int | None  # whether that whole response is right
    ended: bool = True  # by itself, not at the limit
    source: Source = "seed"
    n_drawn: int = 0
    generated: int = 0

    @property
    def q_hat(self) -> float:
        """The share of right completions; NaN if no verdict is known."""
        return self.n_correct / self.n_mc if self.n_mc else float("nan")

    @property
    def step(self) -> int:
        """How many steps the prefix has."""
        return len(self.prefix)

    @property
    def text(self) -> str:
        """The prefix."""
        return "".join(self.prefix)


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """Counts of N traces by step: column 0 is the empty prefix, column h stands after step h."""

    problems: tuple[Problem, ...]  # N
    correct: Tensor  # [N, H + 1] int64, 0 where there is no label
    n: Tensor  # [N, H + 1] int64, completions whose verdict is known; 0 where there is no label
    outcome: Tensor  # [N] float32, whether the whole response is right; NaN = unknown

    @property
    def q(self) -> Tensor:
        """[N, H + 1] float32, NaN where there is no label."""
        return torch.where(self.n > 0, self.correct / self.n.clamp(min=1), torch.nan).float()


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels and what they cost, rollouts that gave no label included."""

    records: tuple[PrefixLabel, ...]
    cost: Cost
    left_out: int = 0  # traces that the budget did not reach

    def __iter__(self) -> Iterator[PrefixLabel]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        known = [record.q_hat for record in self.records if record.n_mc]
        low = sum(q < 0.5 for q in known)
        text = f"{len(self.records):,} labels for {self.cost}"
        if known:
            text += f"; mean value {sum(known) / len(known):.3f}, {100 * low / len(known):.0f}% below one half"
        if len(known) < len(self.records):
            text += f"; {len(self.records) - len(known):,} unknown"
        return text + (f"; {self.left_out:,} left out by the budget" if self.left_out else "")

    def values(self, source: Source = "seed") -> Values:
        """The counts of each trace by step, in order of the traces."""
        found = [record for record in self.records if record.source == source]
        traces = sorted({record.trace for record in found})
        row = {trace: place for place, trace in enumerate(traces)}
        width = max((record.step for record in found), default=-1) + 1
        correct = torch.zeros((len(traces), width), dtype=torch.int64)
        n = torch.zeros_like(correct)
        problems: dict[int, Problem] = {}
        outcome = torch.full((len(traces),), torch.nan)
        for record in found:
            place = row[record.trace]
            correct[place, record.step], n[place, record.step] = record.n_correct, record.n_mc
            problems[place] = record.problem
            outcome[place] = torch.nan if record.outcome is None else float(record.outcome)
        return Values(
            problems=tuple(problems[place] for place in range(len(traces))), correct=correct, n=n, outcome=outcome
        )


def prefix_table(records: Sequence[PrefixLabel]) -> pyarrow.Table:
    """Records as a table of the schema `PREFIXES`."""
    import pyarrow

    columns: dict[str, list[object]] = {name: [] for name in PREFIXES}
    for record in records:
        problem = record.problem
        chat = None if isinstance(problem.prompt, str) else json.dumps([dict(turn) for turn in problem.prompt])
        row: dict[str, object] = {
            "problem": problem.id,
            "domain": problem.domain,
            "prompt": problem.prompt_text,
            "messages": chat,
            "answer": problem.answer,
            "prefix": list(record.prefix),
            "tokens": list(record.tokens),
            "q_hat": record.q_hat if record.n_mc else None,
            "step": record.step,
        }
        for name, column in columns.items():
            column.append(row[name] if name in row else getattr(record, name))
    schema = _schema()
    arrays = [pyarrow.array([_writable(value) for value in columns[field.name]], field.type) for field in schema]
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def records_from(table: pyarrow.Table) -> list[PrefixLabel]:
    """The records of a table of the schema `PREFIXES`.

    Raises:
        InputError: a column is missing, or does not hold whole numbers where it must; names it.
    """
    import pyarrow

    missing = [name for name in PREFIXES if name not in table.column_names]
    if missing:
        raise InputError(f"the table of labels has no column `{missing[0]}`. Make it with `reckon.annotate`.")
    for name in _WHOLE:
        column = table.column(name)
        if column.null_count or not pyarrow.types.is_integer(column.type):
            raise InputError(
                f"the column `{name}` of the table of labels must be whole numbers, none empty. Make the labels anew."
            )
    return [_record(row) for row in table.to_pylist()]


def read_labels(path: str | Path) -> Labels:
    """Labels from a file, or from all the files of a folder that labels were written to.

    Raises:
        MissingError: there is no such file, or no labels in the folder.
        RunError: a file is damaged; names it.
    """
    path = Path(path)
    files = sorted(path.glob("labels-*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise MissingError(f"{path} holds no labels (labels-*.parquet). Make some with `reckon.annotate`.")
    records: list[PrefixLabel] = []
    cost, left_out = Cost(), 0
    for file in files:
        part = read_part(file)
        records += part.records
        cost, left_out = cost + part.cost, left_out + part.left_out
    return Labels(records=tuple(records), cost=cost, left_out=left_out)


def write_labels(path: str | Path, labels: Labels) -> None:
    """Writes labels and their cost as one Parquet file, whole or not at all.

    Raises:
        RunError: no room, no permission.
    """
    told = {"cost": vars(labels.cost), "left_out": labels.left_out}
    write_table(Path(path), prefix_table(labels.records).replace_schema_metadata({_META: json.dumps(told).encode()}))


def read_part(file: Path) -> Labels:
    """The labels of one file."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
        told = json.loads((table.schema.metadata or {}).get(_META, b"{}"))
        cost = Cost(**{name: int(told.get("cost", {}).get(name, 0)) for name in ("rollouts", "tokens", "checks")})
        left_out = int(told.get("left_out", 0))
    except (pyarrow.ArrowException, OSError, ValueError, AttributeError) as error:
        raise RunError(f"{file} cannot be read ({error}). Delete it, and its labels are made anew.") from error
    try:
        return Labels(records=tuple(records_from(table)), cost=cost, left_out=left_out)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _schema() -> pyarrow.Schema:
    import pyarrow

    def kind(name: str) -> pyarrow.DataType:
        inner = name.removeprefix("list<").removesuffix(">")
        return pyarrow.list_(kind(inner)) if inner != name else pyarrow.type_for_alias(name)

    return pyarrow.schema([pyarrow.field(name, kind(text)) for name, text in PREFIXES.items()])


def _writable(value: object) -> object:
    """Data may hold half a surrogate pair, which is no text in UTF-8; it becomes a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return [_writable(item) for item in value] if isinstance(value, list) else value


def _record(row: Mapping[str, Json]) -> PrefixLabel:
    prompt: str | Chat = str(row["prompt"])
    if row["messages"] is not None:
        prompt = tuple({str(k): str(v) for k, v in turn.items()} for turn in json.loads(str(row["messages"])))
    return PrefixLabel(
        problem=Problem(
            id=str(row["problem"]),
            prompt=prompt,
            answer=None if row["answer"] is None else str(row["answer"]),
            domain=str(row["domain"]),
        ),
        prefix=tuple(str(step) for step in _list(row["prefix"])),
        tokens=tuple(cast("int", token) for token in _list(row["tokens"])),
        n_mc=cast("int", row["n_mc"]),
        n_correct=cast("int", row["n_correct"]),
        policy_id=str(row["policy_id"]),
        trace=cast("int", row["trace"]),
        steps=cast("int", row["steps"]),
        outcome=None if row["outcome"] is None else cast("int", row["outcome"]),
        ended=bool(row["ended"]),
        source="pit" if row["source"] == "pit" else "seed",
        n_drawn=cast("int", row["n_drawn"]),
        generated=cast("int", row["generated"]),
    )


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
