"""The nouns of a study: arms, cells, and the rows of its table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from reckon.studies._claims import Claim
from reckon.types import Json

Settings: TypeAlias = Mapping[str, Json]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one cell found."""

    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)  # one of them is the study's axis


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: what one arm reached in the paper, in the pilot and here."""

    arm: str
    metric: str
    says: str  # "accuracy at step 15"
    paper: str = ""  # as printed; empty = the paper has no such number
    pilot: str = ""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Arms that are one method on several tasks: their runs become an interquartile mean with a 95% interval."""

    says: str  # "episodic, on all maps"
    arms: tuple[str, ...]
    metric: str  # in units that mean the same in every arm


@dataclass(frozen=True, kw_only=True)
class Study:
    """A paper's experiment: arms by seeds, and what must come out.

    A cell must depend on its settings and its seed alone: it is run once and its file is read ever after. It should
    draw the same random numbers in every arm, since arms are compared seed by seed.
    """

    name: str  # of its specification
    title: str
    source: str  # the paper
    arms: Mapping[str, Settings]
    seeds: tuple[int, ...]  # as many as the verdicts need
    fast: Settings  # what --fast changes in the settings of every arm
    cell: Callable[[Settings, int], Measured]
    claims: tuple[Claim, ...]
    rows: tuple[Row, ...]
    pools: tuple[Pool, ...] = ()
    axis: str = "step"  # the curve that the others are drawn over
    notes: tuple[str, ...] = ()  # what a reader of the verdicts must know

    def __post_init__(self) -> None:
        files = [slug(arm) for arm in self.arms]
        if len(set(files)) < len(files) or len(self.seeds) < 2:
            raise ValueError(
                f"study {self.name}: arms need names that differ in letters and digits, and seeds must be 2 or more"
            )
        for pool in self.pools:
            if not pool.arms or set(pool.arms) - set(self.arms):
                raise ValueError(f"study {self.name}: {pool.says!r} pools {list(pool.arms)}, which must be arms")
        for row in self.rows:
            if row.arm not in self.arms:
                raise ValueError(f"study {self.name}: the table has a row for {row.arm!r}, which is no arm")


def slug(arm: str) -> str:
    """The arm's name as part of a file's."""
    return re.sub(r"[^a-z0-9.]+", "-", arm.lower()).strip("-")
