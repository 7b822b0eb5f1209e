"""What each judge said over the run, and whether it says what the verifier says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reckon.report._read import column_names, floats, ragged, read_table

PREFIX, DENSE = "stream/", "/tokens"


@dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """One stream over all logged rollouts. A response of a dense stream counts with the mean over its tokens."""

    name: str
    dense: bool
    start: float  # mean over the first tenth of the logged steps
    end: float  # mean over the last tenth
    correlation: float  # Pearson's r with the outcome over responses where both are known; NaN where one never varies
    known: int  # responses behind the correlation
    missing: float  # share of responses about which the judge says nothing


def stream_facts(rollouts: Mapping[int, Path]) -> list[StreamFacts]:
    """A row for each stream, in the order in which the tables have them."""
    names: dict[str, None] = {}
    for path in rollouts.values():
        names.update(dict.fromkeys(name for name in column_names(path) if name.startswith(PREFIX)))
    outcomes: list[np.ndarray] = []
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for path in rollouts.values():
        table = read_table(path, ["outcome", *names])
        outcomes.append(floats(table, "outcome"))
        for name in names:
            lists = ragged(table, name) if name.endswith(DENSE) else None
            dense_but_absent = name.endswith(DENSE) and lists is None
            if lists is not None:
                values[name].append(lists.means())
            else:
                values[name].append(np.full(table.num_rows, np.nan) if dense_but_absent else floats(table, name))
    tenth = max(1, len(rollouts) // 10)
    return [_facts(name, parts, outcomes, tenth) for name, parts in values.items()]


def _facts(name: str, parts: list[np.ndarray], outcomes: list[np.ndarray], tenth: int) -> StreamFacts:
    values, outcome = np.concatenate(parts), np.concatenate(outcomes)
    both = ~np.isnan(values) & ~np.isnan(outcome)
    return StreamFacts(
        name=name.removeprefix(PREFIX).removesuffix(DENSE),
        dense=name.endswith(DENSE),
        start=_mean(parts[:tenth]),
        end=_mean(parts[-tenth:]),
        correlation=_pearson(values[both], outcome[both]),
        known=int(both.sum()),
        missing=float(np.isnan(values).mean()) if len(values) else float("nan"),
    )


def _mean(parts: Iterable[np.ndarray]) -> float:
    values = np.concatenate(list(parts))
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
