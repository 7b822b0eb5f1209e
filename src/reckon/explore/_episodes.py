"""N episodes of one world side by side, in NumPy: what both of Gymnasium's faces are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from reckon.errors import InputError
from reckon.explore._worlds import World

if TYPE_CHECKING:
    from torch import Tensor

_GOLDEN = np.array([0x9E3779B97F4A7C15], dtype=np.uint64)


class Episodes:
    """N rows, each with a seed of its own: the context of its k-th episode depends on that seed and on k alone.

    So a row of many is a row alone, and no generator has to be saved.
    """

    def __init__(self, world: World, count: int) -> None:
        self.world, self.count = world, count
        self.seeds = np.zeros(count, dtype=np.uint64)
        self.number = np.zeros(count, dtype=np.uint64)  # episodes that were begun
        self.context = np.zeros(count, dtype=np.int64)
        self.position = np.zeros(count, dtype=np.int64)
        self.time = np.zeros(count, dtype=np.int64)
        self.visited = np.zeros((count, world.slots), dtype=bool)
        self._rows = np.arange(count)

    def seed(self, seeds: np.ndarray) -> None:
        """From [N] integers of at least 0; every row counts its episodes from the first again."""
        self.seeds, self.number = seeds.astype(np.uint64), np.zeros(self.count, dtype=np.uint64)

    def begin(self, rows: np.ndarray, contexts: np.ndarray | None = None) -> None:
        """The next episode of some rows, [n] int64; in contexts of their own, or in these."""
        if contexts is None:
            drawn = _mixed(_mixed(self.seeds[rows] * _GOLDEN) + self.number[rows] * _GOLDEN)
            contexts = (drawn % np.uint64(self.world.contexts)).astype(np.int64)
        self.number[rows] += np.uint64(1)
        self.context[rows], self.time[rows] = contexts, 0
        self.position[rows] = self.world.start[contexts]
        self.visited[rows] = False
        self.visited[rows, self.world.slot[self.position[rows]]] = True

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One action a row, [N] int64. Gives rewards [N] float64, terminated and truncated [N] bool; begins nothing."""
        self.position, rewards, terminated = self.world.move(self.context, self.position, actions)
        self.visited[self._rows, self.world.slot[self.position]] = True
        self.time += 1
        return rewards, terminated, ~terminated & (self.time >= self.world.horizon)

    def observe(self, rows: np.ndarray | None = None) -> np.ndarray:
        """[n, observation_size] float32, of some rows or of all."""
        if rows is None:
            return self.world.observe(self.context, self.position, self.visited)
        return self.world.observe(self.context[rows], self.position[rows], self.visited[rows])

    def infos(self) -> dict[str, np.ndarray]:
        """Keys, context and place of every row, each [N] int64, the place [N, 2]."""
        context, position = self.context, self.position
        keys = self.world.keys(context, position)
        return keys | {"context": context.copy(), "place": self.world.places(position)}

    def state(self) -> dict[str, Tensor]:
        """All that is needed to go on exactly."""
        import torch

        return {name: torch.from_numpy(_signed(getattr(self, name)).copy()) for name in _STATE}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes up where `state` left off.

        Raises:
            InputError: it is of another number of rows, or of another world.
        """
        for name in _STATE:
            mine, given = getattr(self, name), state[name].numpy()
            if given.shape != mine.shape:
                raise InputError(
                    f"environments: the saved `{name}` is {list(given.shape)} and ours is {list(mine.shape)}. Resume "
                    "with the environment, its settings and the number of environments that were saved."
                )
            setattr(self, name, given.view(np.uint64).copy() if mine.dtype == np.uint64 else given.copy())


_STATE = ("seeds", "number", "context", "position", "time", "visited")


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea and Flood 2014, OOPSLA): [n] uint64 that look random, from any [n]."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def _signed(values: np.ndarray) -> np.ndarray:
    """The same bits as a dtype that tensors have."""
    return values.view(np.int64) if values.dtype == np.uint64 else values
