"""What a person wants to see of a run: where the agents have been, and what single episodes were paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor

from reckon.explore._collect import Collected
from reckon.files import write_file
from reckon.types import Json, State

PERIODS = 5  # equal parts of a run, each with a map of its own
ALBUM_FILE = "explore/album.json"  # in a run's folder


class Drawn(Protocol):
    """What a path can be drawn over: a world, or games on a screen."""

    picture: tuple[int, int]  # columns and rows

    def drawing(self, context: int) -> list[str]:
        """See `World`; blanks where nothing is known beforehand."""
        ...


class Album:
    """Counts of where all agents stood, for each fifth of a run, and an episode now and then.

    Args:
        world: draws the maps. None = the environment has no drawing; then only what episodes were paid is kept.
    """

    def __init__(self, world: Drawn | None) -> None:
        self._world = world
        columns, rows = (0, 0) if world is None else world.picture
        self.visits = torch.zeros(PERIODS, rows, columns, dtype=torch.int64)
        self.episodes: list[dict[str, Json]] = []

    def see(self, collected: Collected, bonus: Tensor, step: int, total: int) -> None:
        """Looks at a rollout.

        Args:
            collected: the rollout.
            bonus: [T, N], what its actions were paid.
            step: updates made, this one included, from 1.
            total: updates of the whole run.
        """
        period = min(PERIODS * (step - 1) // total, PERIODS - 1)
        if self._world is not None and collected.place is not None:
            places = collected.rollout.entered(collected.place, collected.final_place).flatten(0, 1)
            columns = self.visits.shape[2]
            cells = (places[:, 1] * columns + places[:, 0])[(places >= 0).all(dim=1)]
            counted = torch.bincount(cells, minlength=self.visits[period].numel())
            self.visits[period] += counted.reshape(self.visits[period].shape)
        if step == 1 or PERIODS * step // total != PERIODS * (step - 1) // total:
            self.episodes.append({"step": step, **self._episode(collected, bonus)})

    def write(self, folder: Path) -> None:
        """Puts it into a run's folder.

        Raises:
            RunError: no room, no permission.
        """
        found: dict[str, Json] = {"visits": self.visits.tolist(), "episodes": cast("list[Json]", self.episodes)}
        write_file(folder / ALBUM_FILE, json.dumps(found, allow_nan=False).encode())

    def state_dict(self) -> State:
        """Counts and episodes."""
        return {"visits": self.visits, "episodes": cast("Json", self.episodes)}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        self.visits = cast("Tensor", state["visits"])
        self.episodes = cast("list[dict[str, Json]]", state["episodes"])

    def _episode(self, collected: Collected, bonus: Tensor) -> dict[str, Json]:
        """The first whole episode of the rollout, or what there is of one."""
        row, first, last, whole = _stretch(collected)
        here = slice(first, last + 1)
        found: dict[str, Json] = {
            "whole": whole,
            "bonus": bonus[here, row].tolist(),
            "rewards": collected.rewards[here, row].tolist(),
            "context": None if collected.context is None else int(collected.context[first, row]),
            "drawing": None,
            "path": None,
        }
        if self._world is not None and collected.place is not None:
            entered = collected.rollout.entered(collected.place, collected.final_place)
            found["path"] = [collected.place[first, row].tolist(), *entered[here, row].tolist()]
            found["drawing"] = cast("list[Json]", self._world.drawing(cast("int", found["context"] or 0)))
        return found


def _stretch(collected: Collected) -> tuple[int, int, int, bool]:
    """Row, first and last step of an episode that begins and ends in the rollout; else of what row 0 has of one."""
    start, done = collected.start[:-1], collected.rollout.done
    for row in range(start.shape[1]):
        begins = start[:, row].nonzero()[:, 0].tolist()
        for first in begins:
            ends = done[first:, row].nonzero()[:, 0].tolist()
            if ends:
                return row, first, first + ends[0], True
    first = max(start[:, 0].nonzero()[:, 0].tolist(), default=0)
    return 0, first, len(start) - 1, False
