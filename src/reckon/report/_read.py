"""What lies in a run's folder, read for the report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reckon.errors import RunError
from reckon.runs import Run
from reckon.types import Json, Metrics

if TYPE_CHECKING:
    import pyarrow as pa

_TABLE = re.compile(r"(?:(?P<split>[^.].*)-)?step-(?P<step>\d+)\.parquet")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A run on the disk. Tables are named here and opened one at a time, so that a long run need not fit in memory."""

    path: Path
    recipe: Mapping[str, Json]
    recipe_text: str  # as it was written
    environment: Mapping[str, Json]
    metrics: tuple[Metrics, ...]  # one for each step, ascending; "step" and "seconds" are among the keys
    rollouts: Mapping[int, Path]  # step to table, ascending
    evals: Mapping[str, Mapping[int, Path]]  # split to step to table, ascending


def read_folder(path: Path) -> Folder:
    """What a run's folder holds, finished or not.

    Raises:
        MissingError: there is no run.
        RunError: a file in it cannot be read.
    """
    run = Run.open(path)
    evals: dict[str, dict[int, Path]] = {}
    for (split, step), file in _tables(path / "evals").items():
        evals.setdefault(split, {})[step] = file
    return Folder(
        path=path,
        recipe=run.recipe,
        recipe_text=(path / "recipe.yaml").read_text(encoding="utf-8", errors="replace"),
        environment=run.environment,
        metrics=_by_step(run.metrics()),
        rollouts={step: file for (_, step), file in _tables(path / "rollouts").items()},
        evals=evals,
    )


def _by_step(lines: Sequence[Metrics]) -> tuple[Metrics, ...]:
    rows: dict[int, Metrics] = {}
    for line in lines:
        rows.setdefault(int(line["step"]), {}).update(line)
    return tuple(rows[step] for step in sorted(rows))


def _tables(folder: Path) -> dict[tuple[str, int], Path]:
    found = ((_TABLE.fullmatch(file.name), file) for file in folder.glob("*.parquet"))
    named = {(match["split"] or "", int(match["step"])): file for match, file in found if match}
    return dict(sorted(named.items()))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path} cannot be read ({error}). Delete it, and write the report again.") from error


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A table of rollouts, with those of the `columns` that it has, or all.

    Raises:
        RunError: the file is damaged.
    """
    import pyarrow.parquet as pq

    with _readable(path), pq.ParquetFile(path) as file:
        there = file.schema_arrow.names
        return file.read(columns=None if columns is None else [name for name in columns if name in there])


def column_names(path: Path) -> list[str]:
    """The columns of a table of rollouts.

    Raises:
        RunError: the file is damaged.
    """
    import pyarrow.parquet as pq

    with _readable(path):
        return list(pq.read_schema(path).names)


def floats(table: pa.Table, name: str) -> np.ndarray:
    """[N] float64, NaN where the table has null or no such column."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.asarray(table[name].to_numpy(), dtype=float)


def texts(table: pa.Table, name: str) -> list[str | None]:
    """N texts, None where the table has null or no such column."""
    return table[name].to_pylist() if name in table.column_names else [None] * table.num_rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Ragged:
    """A column of lists: row i is values[start[i]:stop[i]], or None where `null[i]`."""

    start: np.ndarray  # [N] int64
    stop: np.ndarray  # [N] int64
    null: np.ndarray  # [N] bool
    values: pa.Array

    def lengths(self) -> np.ndarray:
        """[N] int64, 0 for a null."""
        return np.where(self.null, 0, self.stop - self.start)

    def numbers(self) -> np.ndarray:
        """All values as float64, NaN for null."""
        return np.asarray(self.values.to_numpy(zero_copy_only=False), dtype=np.float64)

    def means(self) -> np.ndarray:
        """[N] float64, the mean of each row's known values; NaN where it has none."""
        numbers = self.numbers()
        known = np.isfinite(numbers)
        sums = np.concatenate([[0.0], np.cumsum(np.where(known, numbers, 0.0))])
        counts = np.concatenate([[0], np.cumsum(known)])
        n = np.where(self.null, 0, counts[self.stop] - counts[self.start])
        return np.where(n > 0, (sums[self.stop] - sums[self.start]) / np.maximum(n, 1), np.nan)

    def constant(self) -> np.ndarray:
        """[N] bool, True where all values of a row are the same, or it has none."""
        numbers = self.numbers()
        if not len(numbers):
            return np.ones(len(self.start), dtype=bool)
        changes = np.concatenate([[0, 0], np.cumsum(numbers[1:] != numbers[:-1])])
        alike: np.ndarray = changes[self.stop] == changes[np.minimum(self.start + 1, self.stop)]
        return alike


def ragged(table: pa.Table, name: str) -> Ragged | None:
    """A column of lists, or None where the table has none of this name."""
    if name not in table.column_names:
        return None
    column = table[name].combine_chunks()
    offsets = column.offsets.to_numpy()
    return Ragged(
        start=offsets[:-1],
        stop=offsets[1:],
        null=column.is_null().to_numpy(zero_copy_only=False),
        values=column.values,
    )
