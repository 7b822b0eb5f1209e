"""What a step of a run takes, by part, so that runs can be held against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reckon.errors import InputError
from reckon.report._budget import budget
from reckon.report._read import read_folder


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a step of a run takes: means over its steps, each second and token in one part alone."""

    run: str  # the folder as it was named
    steps: int
    seconds: Mapping[str, float]  # by part: "sample", "reward/process", "update", ...
    tokens: Mapping[str, float]  # that models computed, padding included; parts that use no model are left out

    @property
    def all_seconds(self) -> float:
        """Of all parts; evaluation and saving are none."""
        return math.fsum(self.seconds.values())

    @property
    def all_tokens(self) -> float:
        """Of all parts."""
        return math.fsum(self.tokens.values())

    def against(self, base: Costs) -> tuple[float, float]:
        """How many times the seconds and the tokens of another run a step takes; NaN where that run has none."""
        seconds = self.all_seconds / base.all_seconds if base.all_seconds else math.nan
        return seconds, self.all_tokens / base.all_tokens if base.all_tokens else math.nan


def costs(run_folder: str | Path) -> Costs:
    """What a step of a run takes, finished or not.

    Raises:
        MissingError: there is no run.
        InputError: its log does not say what its parts took.
    """
    spent = budget(read_folder(Path(run_folder)))
    if not spent.parts:
        raise InputError(f"the log of {run_folder} does not say what the parts of a step took. Let it train a step.")
    return Costs(
        run=str(run_folder),
        steps=spent.steps,
        seconds={name: seconds / spent.steps for name, (seconds, _) in spent.parts.items()},
        tokens={name: tokens / spent.steps for name, (_, tokens) in spent.parts.items() if tokens},
    )
