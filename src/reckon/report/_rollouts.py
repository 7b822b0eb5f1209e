"""Rollouts as compact JSON for the page, all of them or a stated sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reckon.errors import RunError
from reckon.report._read import Ragged, column_names, floats, ragged, read_table, texts
from reckon.report._streams import DENSE, PREFIX
from reckon.types import Json, Rng

if TYPE_CHECKING:
    import pyarrow as pa

BUDGET = 15_000_000  # bytes of JSON: a page of this size opens in about a second

# What one rollout costs in JSON, roughly: fixed fields, a token's length, a number with sign and comma.
_ROW, _CUT, _NUMBER = 150, 2.3, 7.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """Tables that hold one kind of rollouts."""

    name: str  # as the reader sees it: "training", "test, step 0"
    tables: Mapping[int, Path]  # step to table


@dataclass
class _Packed:
    """The page's data as it grows. Problems are stored once, rows refer to them."""

    flat: list[str]
    dense: list[str]
    problems: list[list[Json]] = field(default_factory=list)
    rows: list[Json] = field(default_factory=list)
    index: dict[tuple[str | None, ...], int] = field(default_factory=dict)

    def problem(self, key: tuple[str | None, ...]) -> int:
        if key not in self.index:
            self.index[key] = len(self.problems)
            self.problems.append(list(key))
        return self.index[key]


@dataclass(frozen=True, kw_only=True)
class Share:
    """How much of a source is in the page."""

    name: str
    shown: int
    total: int


def pack_rollouts(
    sources: Sequence[Source], budget: float = BUDGET, seed: int = 0
) -> tuple[list[Share], dict[str, Json]]:
    """Rollouts for the page, with the numbers of every token.

    Where all of them would take more than `budget` bytes it is a random sample of whole groups, so that the answers to
    one prompt stay together; the same seed gives the same sample.

    Returns:
        What is shown of each source, and the page's data. sources: names; flat, dense: the streams' names; problems:
        [id, domain, prompt, answer] each; rows: [source, step, group, problem, outcome, parsed, reason, end, trained,
        text, cuts, logprobs, credit, flat values, dense values] each. `cuts` are the tokens' lengths in UTF-16 units,
        as JavaScript counts. `credit` is one number where all tokens have the same. Unknown is null.

    Raises:
        RunError: a table is damaged, or the lists of a row differ in length.
    """
    files = [(at, step, path) for at, source in enumerate(sources) for step, path in source.tables.items()]
    costs = [_costs(path) for _, _, path in files]
    chosen = _choose(costs, budget, seed)
    names = dict.fromkeys(name for _, _, path in files for name in column_names(path) if name.startswith(PREFIX))
    packed = _Packed(
        flat=[name for name in names if not name.endswith(DENSE)],
        dense=[name for name in names if name.endswith(DENSE)],
    )
    shown = [0] * len(sources)
    for (at, step, path), rows in zip(files, chosen, strict=True):
        if len(rows):
            shown[at] += len(rows)
            packed.rows.extend(_rows(packed, path, at, step, rows))
    totals = [0] * len(sources)
    for (at, _, _), (_, cost) in zip(files, costs, strict=True):
        totals[at] += len(cost)
    shares = [Share(name=s.name, shown=n, total=total) for s, n, total in zip(sources, shown, totals, strict=True)]
    return shares, {
        "sources": [source.name for source in sources],
        "flat": [name.removeprefix(PREFIX) for name in packed.flat],
        "dense": [name.removeprefix(PREFIX).removesuffix(DENSE) for name in packed.dense],
        "problems": list(packed.problems),
        "rows": packed.rows,
    }


def _costs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Which group each row belongs to, and about how many bytes it will take."""
    import pyarrow.compute as pc

    dense = [name for name in column_names(path) if name.endswith(DENSE)]
    table = read_table(path, ["group", "problem", "text", "pieces", "logprobs", "advantages", *dense])
    key = table["group"] if "group" in table.column_names else table["problem"]
    _, group = np.unique(np.asarray(key.to_numpy()), return_inverse=True)
    cost = np.full(table.num_rows, float(_ROW))
    if "text" in table.column_names:
        cost += np.nan_to_num(pc.binary_length(table["text"]).to_numpy().astype(np.float64))
    for name, each in (
        ("pieces", _CUT),
        ("logprobs", _NUMBER),
        ("advantages", _NUMBER),
        *((d, _NUMBER) for d in dense),
    ):
        lists = ragged(table, name)
        if lists is not None:
            alike = lists.constant() if name == "advantages" else np.zeros(table.num_rows, bool)
            cost += each * np.where(alike, 1, lists.lengths())
    return group, cost


def _choose(costs: Sequence[tuple[np.ndarray, np.ndarray]], budget: float, seed: int) -> list[np.ndarray]:
    """For each file, the rows to show, ascending: whole groups in random order until the budget is spent."""
    if sum(float(cost.sum()) for _, cost in costs) <= budget:
        return [np.arange(len(cost)) for _, cost in costs]
    sums = [np.bincount(group, weights=cost) for group, cost in costs]
    units = [(file, group) for file, cost in enumerate(sums) for group in range(len(cost))]
    taken: list[set[int]] = [set() for _ in costs]
    spent = 0.0
    for unit in Rng((seed, "report")).numpy().permutation(len(units)).tolist():
        file, group = units[unit]
        if spent + sums[file][group] > budget:
            break
        spent += sums[file][group]
        taken[file].add(group)
    return [np.flatnonzero(np.isin(group, list(groups))) for (group, _), groups in zip(costs, taken, strict=True)]


def _rows(packed: _Packed, path: Path, source: int, step: int, chosen: np.ndarray) -> Iterator[Json]:
    table = read_table(path).take(chosen)
    text = {
        name: texts(table, name)
        for name in ("problem", "domain", "prompt", "answer", "text", "parsed", "reason", "end")
    }
    outcome, group = _numbers(floats(table, "outcome")), _numbers(floats(table, "group"))
    train = table["train"].to_pylist() if "train" in table.column_names else [None] * table.num_rows
    pieces = ragged(table, "pieces")
    lists = {name: _Lists.of(table, name) for name in ("logprobs", "advantages", *packed.dense)}
    flat = [_numbers(floats(table, name)) for name in packed.flat]
    for i in range(table.num_rows):
        tokens = _pieces(pieces, i)
        numbers = {name: column.row(i) for name, column in lists.items()}
        for name, values in numbers.items():
            if values is not None and len(values) != len(tokens):
                raise RunError(
                    f"{path}, row {i}: `{name}` has {len(values)} numbers for {len(tokens)} tokens. "
                    "Delete the file, and write the report again."
                )
        credit = numbers["advantages"]
        yield [
            source,
            step,
            group[i],
            packed.problem((text["problem"][i], text["domain"][i], text["prompt"][i], text["answer"][i])),
            outcome[i],
            text["parsed"][i],
            text["reason"][i],
            text["end"][i],
            train[i],
            "".join(tokens) or text["text"][i] or "",
            [_utf16(piece) for piece in tokens],
            numbers["logprobs"],
            credit[0] if credit and credit.count(credit[0]) == len(credit) else credit,
            [column[i] for column in flat],
            [numbers[name] for name in packed.dense],
        ]


@dataclass(frozen=True, eq=False)
class _Lists:
    """A column of lists of numbers, rounded once for all rows."""

    lists: Ragged | None
    numbers: list[Json]

    @classmethod
    def of(cls, table: pa.Table, name: str) -> _Lists:
        lists = ragged(table, name)
        return cls(lists, [] if lists is None else _numbers(lists.numbers()))

    def row(self, i: int) -> list[Json] | None:
        if self.lists is None or self.lists.null[i]:
            return None
        return self.numbers[self.lists.start[i] : self.lists.stop[i]]


def _pieces(lists: Ragged | None, i: int) -> list[str]:
    if lists is None or lists.null[i]:
        return []
    return [
        "" if piece is None else piece for piece in lists.values[int(lists.start[i]) : int(lists.stop[i])].to_pylist()
    ]


def _utf16(piece: str) -> int:
    return len(piece) if piece.isascii() else len(piece) + sum(character > "\uffff" for character in piece)


def _numbers(values: np.ndarray) -> list[Json]:
    """Four significant digits each, whole numbers exact and without a point; None for what is not finite."""
    known = np.isfinite(values)
    finite = np.where(known, values, 0.0)
    digits = 3 - np.floor(np.log10(np.maximum(np.abs(finite), 1e-30)))
    scale = 10.0 ** np.abs(digits)
    # Dividing by a power of ten rounds once, so that the shortest decimal comes out; multiplying by 0.1 would not.
    short = np.where(digits >= 0, np.round(finite * scale) / scale, np.round(finite / scale) * scale)
    whole = finite == np.floor(finite)
    out: list[Json] = np.where(whole, finite, short).tolist()
    for i in np.flatnonzero(whole & (np.abs(finite) < 2**53)).tolist():
        out[i] = int(finite[i])
    for i in np.flatnonzero(~known).tolist():
        out[i] = None
    return out
