"""The album of a run of `reckon explore`, as its folder holds it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from reckon.errors import RunError
from reckon.types import Json

_FILE = "explore/album.json"


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode, or what was seen of it: L steps."""

    step: int  # the update it is of
    whole: bool
    context: int | None
    drawing: tuple[str, ...]  # rows of signs; none where the environment has no drawing
    path: tuple[tuple[int, int], ...]  # L + 1 places (column, row), the first before any step; none without a drawing
    bonus: tuple[float, ...]  # L
    rewards: tuple[float, ...]  # L


@dataclass(frozen=True, kw_only=True)
class Album:
    """Counts of visits, a map for each part of the run, and some episodes."""

    visits: tuple[tuple[tuple[int, ...], ...], ...]  # none without a drawing
    episodes: tuple[Episode, ...]


def read_album(folder: Path) -> Album | None:
    """The album of a run; None if none was saved yet.

    Raises:
        RunError: it is damaged.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        visits = tuple(tuple(tuple(map(int, row)) for row in rows) for rows in found["visits"])
        return Album(
            visits=visits if visits and visits[0] and visits[0][0] else (),
            episodes=tuple(_episode(one) for one in found["episodes"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error}). Delete it, and write the report again.") from error


def _episode(one: dict[str, Json]) -> Episode:
    def each(name: str) -> list[Json]:
        value = one[name]
        if value is None:
            return []
        if not isinstance(value, list):
            raise ValueError(f"`{name}` is no list")
        return value

    context = one["context"]
    path = [tuple(place) for place in each("path") if isinstance(place, list)]
    found = Episode(
        step=int(str(one["step"])),
        whole=bool(one["whole"]),
        context=None if context is None else int(str(context)),
        drawing=tuple(map(str, each("drawing"))),
        path=tuple((int(str(x)), int(str(y))) for x, y in path),
        bonus=tuple(float(str(value)) for value in each("bonus")),
        rewards=tuple(float(str(value)) for value in each("rewards")),
    )
    if len(found.rewards) != len(found.bonus) or (found.path and len(found.path) != len(found.bonus) + 1):
        raise ValueError("an episode has parts of different lengths")
    return found
