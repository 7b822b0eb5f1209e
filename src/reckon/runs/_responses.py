"""Responses and what judges said of them, in memory: from a run's folder, or from a file of one's own."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from reckon.errors import InputError, MissingError
from reckon.runs._responses_rows import Answered, TextRow, parse_rows
from reckon.runs._tables import read_evaluations, read_rollouts
from reckon.types import Json, Kind, Problem, Split, Step, Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Signal:
    """What one judge says of N responses."""

    values: np.ndarray  # [N] float64, what each response is worth; NaN = does not apply
    tokens: tuple[np.ndarray | None, ...] | None = None  # N rows of float64, one number a token; NaN = none
    steps: tuple[np.ndarray | None, ...] | None = None  # N rows of float64, one number a step
    kind: Kind = "reward"
    seconds: float = math.nan  # it took to judge all N; NaN = not measured
    read: float = math.nan  # tokens of responses it was shown; NaN = not measured

    @classmethod
    def of_tokens(cls, tokens: Sequence[np.ndarray | None], kind: Kind = "reward") -> Signal:
        """A judge of tokens. A response is worth the sum of its known tokens, or of another kind their mean."""
        total = np.nansum if kind == "reward" else np.nanmean
        values = [math.nan if row is None or np.isnan(row).all() else float(total(row)) for row in tokens]
        return cls(values=np.array(values, dtype=np.float64), tokens=tuple(tokens), kind=kind)

    @classmethod
    def of_steps(cls, steps: Sequence[np.ndarray | None]) -> Signal:
        """A judge of steps. A response is worth its worst step (implicit PRM, arXiv:2412.01981, section 4.1)."""
        values = [math.nan if row is None or np.isnan(row).all() else float(np.nanmin(row)) for row in steps]
        return cls(values=np.array(values, dtype=np.float64), steps=tuple(steps))

    def take(self, rows: np.ndarray) -> Signal:
        """The part at `rows`; its cost is not known apart."""
        return Signal(
            values=self.values[rows],
            tokens=None if self.tokens is None else tuple(self.tokens[i] for i in rows.tolist()),
            steps=None if self.steps is None else tuple(self.steps[i] for i in rows.tolist()),
            kind=self.kind,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """N responses to G prompts, their verdicts, and what judges say of them. The responses to a prompt stand together.

    Two groups may pose the same problem at different steps of a run: only responses of one group compete.
    """

    source: str  # what was read, for titles and messages
    problems: tuple[Problem, ...]  # G
    group: np.ndarray  # [N] int64 in [0, G), ascending
    text: tuple[str, ...]  # N
    outcome: np.ndarray  # [N] float64 in [0, 1]; NaN = unknown
    parsed: tuple[str | None, ...]  # N, the answer read out of each text; None = none could be read
    end: tuple[str | None, ...]  # N, "eos", "stop" or "length"; None = not told
    row: np.ndarray  # [N] int64, where each stood in what was read, from 0
    tokens: tuple[tuple[int, ...], ...] | None = None  # N
    pieces: tuple[tuple[str, ...], ...] | None = None  # N; joined they are the text
    logprobs: tuple[tuple[float, ...], ...] | None = None  # N
    steps: tuple[tuple[Step, ...] | None, ...] | None = None  # N, the steps and whether each is right; None = unknown
    streams: Mapping[str, Signal] = field(default_factory=dict)
    columns: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)  # N each, all else that was in the rows read

    def __post_init__(self) -> None:
        n = len(self.text)
        sizes = [len(self.group), len(self.outcome), len(self.parsed), len(self.end), len(self.row)]
        sizes += [len(part) for part in (self.tokens, self.pieces, self.logprobs, self.steps) if part is not None]
        sizes += [len(signal.values) for signal in self.streams.values()]
        sizes += [len(column) for column in self.columns.values()]
        if any(size != n for size in sizes):
            raise ValueError(f"Responses: every field must have {n} rows, as text has")
        if n and (np.any(np.diff(self.group) < 0) or self.group[0] < 0 or self.group[-1] >= len(self.problems)):
            raise ValueError("Responses.group must ascend within [0, G): the responses to a prompt stand together")

    @property
    def right(self) -> np.ndarray:
        """[N] float64: 1 where the verdict is right, 0 where it is wrong or only partly right, NaN where unknown."""
        return np.where(np.isnan(self.outcome), np.nan, (self.outcome >= 1.0).astype(np.float64))

    @property
    def lengths(self) -> np.ndarray:
        """[N] int64, tokens; characters where the tokens are not known."""
        rows: Sequence[Sequence[object]] = self.text if self.tokens is None else self.tokens
        return np.array([len(row) for row in rows], dtype=np.int64)

    @property
    def unit(self) -> str:
        """What `lengths` counts."""
        return "characters" if self.tokens is None else "tokens"

    @property
    def units(self) -> np.ndarray:
        """[G] int64, one number a problem: groups that pose the same problem are not independent."""
        names: dict[str, int] = {}
        return np.array([names.setdefault(problem.id, len(names)) for problem in self.problems], dtype=np.int64)

    def problem(self, row: int) -> Problem:
        """The problem that response `row` answers."""
        return self.problems[int(self.group[row])]

    def take(self, rows: np.ndarray) -> Responses:
        """The responses at `rows` ([n] int64, ascending) and their problems."""
        picked = rows.tolist()
        kept, group = np.unique(self.group[rows], return_inverse=True)
        return Responses(
            source=self.source,
            problems=tuple(self.problems[g] for g in kept.tolist()),
            group=group.astype(np.int64),
            text=tuple(self.text[i] for i in picked),
            outcome=self.outcome[rows],
            parsed=tuple(self.parsed[i] for i in picked),
            end=tuple(self.end[i] for i in picked),
            row=self.row[rows],
            tokens=None if self.tokens is None else tuple(self.tokens[i] for i in picked),
            pieces=None if self.pieces is None else tuple(self.pieces[i] for i in picked),
            logprobs=None if self.logprobs is None else tuple(self.logprobs[i] for i in picked),
            steps=None if self.steps is None else tuple(self.steps[i] for i in picked),
            streams={name: signal.take(rows) for name, signal in self.streams.items()},
            columns={name: tuple(column[i] for i in picked) for name, column in self.columns.items()},
        )

    def with_streams(self, streams: Mapping[str, Signal]) -> Responses:
        """The same responses with more streams; one of the same name is replaced."""
        return replace(self, streams={**self.streams, **streams})


def read_responses(path: str | Path, *, split: str | None = None, steps: Collection[int] | None = None) -> Responses:
    """Reads responses from a run's folder, one of its tables, or a JSONL, CSV or Parquet file in TRL's conventions.

    A file's columns: `prompt` (text or messages); the response as `text`, `completion` or `response`, or TRL's pairs
    `chosen` and `rejected`, or TRL's steps `completions` with `labels`; the verdict as `outcome`, `correct` or `label`
    (true, false, or a number in [0, 1]; empty = unknown); `answer`, the reference; `parsed`, the answer read out of the
    text (looked for in the text where there is no such column); `problem` or `id`; `domain`; `end`; `tokens`, `pieces`
    and `logprobs` as in a run's tables; `steps`, a list of {start, end, valid}. `stream/NAME` and any other column of
    numbers is a signal, `stream/NAME/tokens` and `stream/NAME/steps` are lists of them; `stream/NAME/kind` says whether
    those of tokens are a "reward", which is added up, an "advantage" or a "weight". Whatever else a row has is kept as
    it is. Rows with one `problem`, or without it with one prompt, answer the same question.

    Args:
        path: what to read.
        split: of a run, its evaluations on this split instead of the rollouts of training.
        steps: of a run, only these steps.

    Raises:
        MissingError: there is no such file or run, or the run has no such rows.
        InputError: a cell cannot be used; names file, row, column and remedy.
        RunError: a table of a run is damaged.
    """
    from reckon.tasks import Row, read_rows

    path = Path(path).expanduser()
    if path.is_dir():
        if not (path / "recipe.yaml").is_file():
            raise MissingError(f"{path} is a folder and no run: it has no recipe.yaml. Name a run, or a file in it.")
        table = read_rollouts(path, steps=steps) if split is None else read_evaluations(path, split, steps=steps)
        if not table.num_rows:
            what = "rollouts of training" if split is None else f"evaluations on the split {split!r}"
            raise MissingError(f"{path} has no {what}. Choose another split or other steps, or let it run on.")
        rows = [Row(path.name, number, values) for number, values in enumerate(table.to_pylist(), start=1)]
    elif split is not None or steps is not None:
        raise InputError(f"{path} is a file, which has no splits or steps of a run. Leave them out, or name the run.")
    else:
        rows = read_rows(str(path))
    return _responses(path.name, parse_rows([TextRow(row.place, row.values) for row in rows]))


def label_responses(responses: Responses, task: Task) -> Responses:
    """What a task knows: its own problems, verdicts where the outcome is unknown, and each step's truth.

    A run's tables hold prompts as text; the task's problem of the same id and text also has its messages and columns.

    Args:
        responses: to label.
        task: checks the answers; if it also has `steps` (`reckon.types.Worked`), it judges steps.
    """
    from reckon.tasks import verdict_on
    from reckon.types import Worked

    splits: tuple[Split, ...] = ("train", "dev", "test")
    known = {(problem.id, problem.prompt_text): problem for split in splits for problem in task.problems(split)}
    problems = tuple(known.get((problem.id, problem.prompt_text), problem) for problem in responses.problems)
    responses = replace(responses, problems=problems)
    outcome, parsed = responses.outcome.copy(), list(responses.parsed)
    for i in np.flatnonzero(np.isnan(responses.outcome)).tolist():
        verdict = verdict_on(task, responses.problem(i), responses.text[i])
        outcome[i] = math.nan if verdict.outcome is None else verdict.outcome
        parsed[i] = verdict.answer
    steps = responses.steps
    if steps is None and isinstance(task, Worked):
        found = [tuple(task.steps(responses.problem(i), text)) for i, text in enumerate(responses.text)]
        steps = tuple(row if any(step.valid is not None for step in row) else None for row in found)
    return replace(responses, outcome=outcome, parsed=tuple(parsed), steps=steps)


def _responses(source: str, rows: Sequence[Answered]) -> Responses:
    """Rows sorted by group, groups in the order of first sight."""
    numbers: dict[object, int] = {}
    group = np.array([numbers.setdefault(row.key, len(numbers)) for row in rows], dtype=np.int64)
    order = np.argsort(group, kind="stable")
    sorted_rows = [rows[i] for i in order.tolist()]
    first = {int(g): row for g, row in reversed(list(zip(group[order].tolist(), sorted_rows, strict=True)))}
    members: dict[int, list[Answered]] = {g: [] for g in range(len(numbers))}
    for g, row in zip(group.tolist(), rows, strict=True):
        members[g].append(row)
    return Responses(
        source=source,
        problems=tuple(_problem(first[g], members[g]) for g in range(len(numbers))),
        group=group[order],
        text=tuple(row.text for row in sorted_rows),
        outcome=np.array([row.outcome for row in sorted_rows], dtype=np.float64),
        parsed=tuple(row.parsed for row in sorted_rows),
        end=tuple(row.end for row in sorted_rows),
        row=order.astype(np.int64),
        tokens=_whole([row.tokens for row in sorted_rows]),
        pieces=_whole([row.pieces for row in sorted_rows]),
        logprobs=_whole([row.logprobs for row in sorted_rows]),
        steps=tuple(row.steps for row in sorted_rows) if any(row.steps for row in sorted_rows) else None,
        streams=_streams(sorted_rows),
        columns=_others(sorted_rows),
    )


def _problem(first: Answered, members: Sequence[Answered]) -> Problem:
    """The problem of a group; of its other columns those that are the same in all its rows."""
    ids = {row.id for row in members}
    shared = {
        name: value
        for name, value in first.columns.items()
        if all(row.columns.get(name) == value for row in members[1:])
    }
    name = first.id if len(ids) == 1 and first.id is not None else f"row-{first.number}"
    return Problem(id=name, prompt=first.prompt, answer=first.answer, domain=first.domain, columns=shared)


def _whole(rows: list[tuple[object, ...] | None]) -> tuple[tuple, ...] | None:  # type: ignore[type-arg]  # of any kind
    """A column that every row has; with a row missing, nothing can be told from it."""
    present = [row for row in rows if row is not None]
    return tuple(present) if len(present) == len(rows) else None


def _others(rows: Sequence[Answered]) -> dict[str, tuple[Json, ...]]:
    """What no field of the responses holds; so tokens that only some rows have."""
    found = {name: tuple(row.others[name] for row in rows) for name in rows[0].others}
    for name in ("tokens", "pieces", "logprobs"):
        cells: list[tuple[Json, ...] | None] = [getattr(row, name) for row in rows]
        if None in cells and any(cells):
            found[name] = tuple(None if cell is None else list(cell) for cell in cells)
    return found


def _streams(rows: Sequence[Answered]) -> dict[str, Signal]:
    names = dict.fromkeys(name for row in rows for name in (*row.values, *row.dense, *row.by_step))
    found: dict[str, Signal] = {}
    for name in names:
        costs = {what: [row.costs.get(f"{name}/{what}", math.nan) for row in rows] for what in ("seconds", "tokens")}
        if any(name in row.dense for row in rows):
            kind: Kind = next((row.kinds[name] for row in rows if name in row.kinds), "reward")
            signal = Signal.of_tokens([row.dense.get(name) for row in rows], kind)
        elif any(name in row.by_step for row in rows):
            signal = Signal.of_steps([row.by_step.get(name) for row in rows])
        else:
            values = np.array([row.values.get(name, math.nan) for row in rows], dtype=np.float64)
            signal = Signal(values=values)
        if any(name in row.values for row in rows):  # a judge of tokens whose own value for the response was kept
            signal = replace(signal, values=np.array([row.values.get(name, math.nan) for row in rows]))
        found[name] = replace(signal, seconds=float(np.sum(costs["seconds"])), read=float(np.sum(costs["tokens"])))
    return found
