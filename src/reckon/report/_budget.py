"""What the run cost, and what was run."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from reckon.report._read import Folder
from reckon.types import Json


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Sums over all logged steps; NaN = not logged."""

    steps: int
    seconds: float  # wall time at the last line of the log
    parts: Mapping[str, tuple[float, float]]  # by part: seconds, and tokens its models computed (0 = none)
    generated: float  # tokens
    trained: float  # tokens
    peak_mib: float

    @property
    def other(self) -> float:
        """Seconds of none of the parts: evaluation, saving, loading; NaN where nothing is known."""
        spent = math.fsum(seconds for seconds, _ in self.parts.values())
        return max(0.0, self.seconds - spent) if self.parts else math.nan


def budget(folder: Folder) -> Budget:
    """The run's costs, from its metrics."""

    def column(key: str) -> list[float]:
        return [row[key] for row in folder.metrics if key in row and math.isfinite(row[key])]

    def total(key: str) -> float:
        return math.fsum(column(key)) if column(key) else math.nan

    parts = dict.fromkeys(key.removeprefix("time/") for row in folder.metrics for key in row if key.startswith("time/"))
    return Budget(
        steps=max((int(row["step"]) for row in folder.metrics), default=0),
        seconds=max(column("seconds"), default=math.nan),
        parts={part: (total(f"time/{part}"), math.fsum(column(f"computed/{part}"))) for part in parts},
        generated=total("tokens/generated"),
        trained=total("tokens/trained"),
        peak_mib=max(column("memory/peak_mib"), default=math.nan),
    )


def in_words(value: Json) -> str | None:
    """A part of a recipe in a few words: its kind, name or path."""
    if isinstance(value, dict):
        words = [str(value[key]) for key in ("kind", "name", "path", "id") if isinstance(value.get(key), str)]
        return " ".join(words) or None
    return None if value is None or isinstance(value, list) else str(value)


def command(environment: Mapping[str, Json]) -> str | None:
    """The command line that made the run, as one would type it."""
    words = environment.get("command")
    if isinstance(words, str):
        return words
    if not isinstance(words, list) or not words:
        return None
    folder, _, program = str(words[0]).replace("\\", "/").rpartition("/")  # where it lies is this machine's affair
    if program == "__main__.py":
        program = f"python -m {folder.rpartition('/')[2]}"
        return f"{program} {shlex.join(map(str, words[1:]))}".rstrip()
    return shlex.join([program, *map(str, words[1:])])
