"""Worlds whose every number is known: what moves, what is seen, what it is worth. NumPy alone, many rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from reckon.errors import InputError
from reckon.explore._maps import (
    FLOOR,
    GOAL,
    LAVA,
    MOVES,
    WALL,
    Maps,
    draw_rooms,
    draw_trails,
    map_values,
    reachable,
    trail_maps,
)

ENDLESS = 3000  # maps that stand for infinitely many contexts


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """The value of every state of a world that an episode can come to, one row each."""

    values: np.ndarray  # [M] float64: what being there is worth under the best policy
    contexts: np.ndarray  # [M] int64
    keys: Mapping[str, np.ndarray]  # by name, each [M] int64


class World(Protocol):
    """A finite contextual MDP: n rows, each in a context (an int below `contexts`) and at a position."""

    contexts: int
    actions: int
    horizon: int  # steps of an episode; then it is truncated
    observation_size: int
    slots: int  # of the memory of where an episode has been
    slot: np.ndarray  # [positions] int64: the place of a position in that memory
    start: np.ndarray  # [C] int64: where episodes begin
    picture: tuple[int, int]  # columns and rows of a drawing of it

    def move(
        self, context: np.ndarray, position: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[n] int64 each, to the positions after it [n], the rewards [n] float64, and whether it is over [n] bool."""
        ...

    def observe(self, context: np.ndarray, position: np.ndarray, visited: np.ndarray) -> np.ndarray:
        """[n, observation_size] float32; `visited` is [n, slots] bool, the position's own slot included."""
        ...

    def keys(self, context: np.ndarray, position: np.ndarray) -> dict[str, np.ndarray]:
        """What may count as a state, by name, each [n] int64."""
        ...

    def places(self, position: np.ndarray) -> np.ndarray:
        """[n, 2] int64, column and row in the drawing; -1 for what is not in it."""
        ...

    def drawing(self, context: int) -> list[str]:
        """A row of the drawing is a text: `.` floor, `#` wall, `~` lava, `G` goal, a blank for nothing."""
        ...

    def table(self, gamma: float) -> Values:
        """The exact values of all states that can be come to, by the best policy that has time enough."""
        ...


class GridWorld:
    """A walker on maps, with four moves. Reaching the goal earns 1 and ends the episode; so does lava, for nothing.

    It sees a square around itself in three planes (what is no floor, where this episode has been, the goal), then its
    column and its row as one-hot numbers. The second plane stands for a memory, for every agent alike. Keys: `pos`, the
    cell, and `msg`, what is said there.

    Args:
        maps: a context each.
        horizon: steps of an episode.
        sight: cells that are seen in each direction.
    """

    actions = len(MOVES)

    def __init__(self, maps: Maps, *, horizon: int, sight: int = 2) -> None:
        if horizon < 1 or sight < 1:
            raise InputError(f"horizon={horizon} and sight={sight} cannot be: both must be at least 1.")
        self.maps, self.horizon, self.start = maps, horizon, maps.start
        self.contexts, height, self._width = maps.cells.shape
        self._cells = maps.cells.reshape(-1)
        self._messages = maps.messages.reshape(-1)
        self._positions = height * self._width
        self._steps = np.array([x + self._width * y for x, y in MOVES])
        self._y, self._x = np.divmod(np.arange(self._positions), self._width)
        # What is seen reaches over the border, so memory and sight are of a larger grid, and `slot` leads there.
        wide = self._width + 2 * sight
        self.slots = wide * (height + 2 * sight)
        self.slot = (self._y + sight) * wide + self._x + sight
        around = np.arange(-sight, sight + 1)
        self._window = (around[:, None] * wide + around).reshape(-1)
        padded = np.pad(maps.cells, ((0, 0), (sight, sight), (sight, sight)), constant_values=WALL)
        self._blocked = ((padded == WALL) | (padded == LAVA)).reshape(-1)
        self._goal = self.slot[(maps.cells == GOAL).reshape(self.contexts, -1).argmax(axis=1)]
        self.observation_size = 3 * len(self._window) + self._width + height
        self.picture = (self._width, height)

    def move(
        self, context: np.ndarray, position: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `World`. A wall keeps the walker where it is; in lava it is where it died."""
        ahead = position + self._steps[action]
        cell = self._cells[context * self._positions + ahead]
        reached = cell == GOAL
        return np.where(cell == WALL, position, ahead), reached.astype(np.float64), reached | (cell == LAVA)

    def observe(self, context: np.ndarray, position: np.ndarray, visited: np.ndarray) -> np.ndarray:
        """See `World`."""
        seen = len(self._window)
        row = np.arange(len(position))
        window = self.slot[position][:, None] + self._window
        out = np.zeros((len(position), self.observation_size), dtype=np.float32)
        # `take` of flat places is several times as fast as indexing by them.
        out[:, :seen] = self._blocked.take(window + (context * self.slots)[:, None])
        out[:, seen : 2 * seen] = visited.reshape(-1).take(window + (row * self.slots)[:, None])
        out[:, 2 * seen : 3 * seen] = window == self._goal[context][:, None]
        out[row, 3 * seen + self._x[position]] = 1.0
        out[row, 3 * seen + self._width + self._y[position]] = 1.0
        return out

    def keys(self, context: np.ndarray, position: np.ndarray) -> dict[str, np.ndarray]:
        """`pos`: the cell, as row * width + column; `msg`: what is said there, 0 where nothing is."""
        return {"pos": position.copy(), "msg": self._messages[context * self._positions + position]}

    def places(self, position: np.ndarray) -> np.ndarray:
        """[n, 2] int64: column and row of the grid."""
        return np.stack([self._x[position], self._y[position]], axis=1)

    def drawing(self, context: int) -> list[str]:
        """See `World`."""
        signs = {FLOOR: ".", GOAL: "G", WALL: "#", LAVA: "~"}
        return ["".join(signs[int(cell)] for cell in row) for row in self.maps.cells[context]]

    def table(self, gamma: float) -> Values:
        """gamma^(moves to the goal) for every cell that can be come to, 1 at the goal."""
        values = map_values(self.maps, gamma)
        contexts, position = np.nonzero(reachable(self.maps))
        return Values(values=values[contexts, position], contexts=contexts, keys=self.keys(contexts, position))


class StarWorld:
    """A hub and M corridors, of which one leads to a reward: dead ends, of which an episode sees one.

    From the hub, action m leads into corridor m. In every other cell one action, drawn at random once and for all,
    goes on; any other ends the episode. Coming to the last cell ends it too, and earns 1 in one of the corridors. (The
    thought experiment of Henaff et al. 2023, arXiv:2306.03236.) What is seen is the cell, as a one-hot number; the key
    `pos` is the cell too, 0 at the hub.

    Args:
        contexts: C stars, each with its own way and reward.
        arms: M, also the number of actions.
        length: cells of a corridor.
        rng: where the stars come from.
    """

    def __init__(self, contexts: int, rng: np.random.Generator, *, arms: int = 8, length: int = 8) -> None:
        if contexts < 1 or arms < 2 or length < 1:
            raise InputError(
                f"star: contexts={contexts}, arms={arms}, length={length} cannot be. Take at least 1 context, 2 arms "
                "and a length of 1."
            )
        self.contexts, self.actions, self.length = contexts, arms, length
        self.horizon = length + 1
        self.observation_size = 1 + arms * length
        self.gone = self.observation_size  # the position of whoever took a wrong turn: no cell
        self.slots, self.slot = self.gone + 1, np.arange(self.gone + 1)
        self.start = np.zeros(contexts, dtype=np.int64)
        self.onward = rng.integers(arms, size=(contexts, self.gone + 1))  # which action goes on
        self.rich = rng.integers(arms, size=contexts)  # the corridor with the reward
        self.picture = (arms, length + 1)

    def move(
        self, context: np.ndarray, position: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `World`."""
        hub, right = position == 0, self.onward[context, position] == action
        after = np.where(hub, 1 + action * self.length, np.where(right, position + 1, self.gone))
        arm, cell = np.divmod(after - 1, self.length)
        fell = after == self.gone
        ended = ~fell & (cell == self.length - 1)
        return after, (ended & (arm == self.rich[context])).astype(np.float64), fell | ended

    def observe(self, context: np.ndarray, position: np.ndarray, visited: np.ndarray) -> np.ndarray:
        """See `World`; all 0 after a wrong turn."""
        out = np.zeros((len(position), self.observation_size + 1), dtype=np.float32)
        out[np.arange(len(position)), position] = 1.0
        return out[:, :-1]

    def keys(self, context: np.ndarray, position: np.ndarray) -> dict[str, np.ndarray]:
        """`pos`: the cell."""
        return {"pos": position.copy()}

    def places(self, position: np.ndarray) -> np.ndarray:
        """[n, 2] int64: corridors are columns, and the hub is above the middle one."""
        arm, cell = np.divmod(position - 1, self.length)
        column = np.where(position == 0, self.actions // 2, arm)
        places = np.stack([column, np.where(position == 0, 0, cell + 1)], axis=1)
        return np.where((position == self.gone)[:, None], -1, places)

    def drawing(self, context: int) -> list[str]:
        """See `World`."""
        rows = ["".join("." if arm == self.actions // 2 else " " for arm in range(self.actions))]
        rows += ["." * self.actions] * (self.length - 1)
        return [*rows, "".join("G" if arm == self.rich[context] else "." for arm in range(self.actions))]

    def table(self, gamma: float) -> Values:
        """gamma^(moves to the reward) at the hub and in the corridor that has it, 0 in the others."""
        context, position = (x.reshape(-1) for x in np.indices((self.contexts, self.gone)))
        arm, cell = np.divmod(position - 1, self.length)
        hub = position == 0
        moves = np.where(hub, self.length, self.length - 1 - cell)
        values = np.where(hub | (arm == self.rich[context]), gamma ** moves.astype(np.float64), 0.0)
        return Values(values=values, contexts=context, keys=self.keys(context, position))


def lava_trail(
    contexts: int | None = None,
    *,
    maps_seed: int = 0,
    size: int = 13,
    length: int = 24,
    straight: float = 0.6,
    horizon: int = 36,
) -> GridWorld:
    """A trail through lava, of which every context has another one. Walking at random never comes to its end.

    Args:
        contexts: how many trails; None = 3,000, which are as good as infinitely many.
        maps_seed: of the trails. The first of a seed are the same in any number of them.
        size: cells along a side, with a border of lava.
        length: cells of a trail.
        straight: how often it goes on as it went.
        horizon: steps of an episode.

    Raises:
        InputError: a number that cannot be.
    """
    rng = _generator(maps_seed)
    trails = draw_trails(_count(contexts), rng, size=size, length=length, straight=straight)
    return GridWorld(trail_maps(trails, size), horizon=horizon)


def rooms(
    contexts: int | None = None,
    *,
    maps_seed: int = 0,
    rooms: int = 4,
    size: int = 5,
    walls: Literal["wall", "lava"] = "wall",
    horizon: int = 60,
) -> GridWorld:
    """Rooms in a row; doors, start and goal differ from context to context. With lava for walls, or as one corridor.

    Args:
        contexts: how many; None = 3,000.
        maps_seed: of the rooms.
        rooms: how many in a row, at least 2.
        size: cells along a side of a room; 1 makes it a corridor.
        walls: "wall" keeps out, "lava" kills.
        horizon: steps of an episode.

    Raises:
        InputError: a number that cannot be.
    """
    rng = _generator(maps_seed)
    return GridWorld(draw_rooms(_count(contexts), rng, rooms=rooms, size=size, walls=walls), horizon=horizon)


def star(contexts: int | None = 1, *, maps_seed: int = 0, arms: int = 8, length: int = 8) -> StarWorld:
    """A hub and corridors that are dead ends, but for one.

    Args:
        contexts: how many stars; None = 3,000.
        maps_seed: of the ways and rewards.
        arms: corridors, and actions.
        length: cells of a corridor.

    Raises:
        InputError: a number that cannot be.
    """
    return StarWorld(_count(contexts), _generator(maps_seed), arms=arms, length=length)


def _generator(maps_seed: int) -> np.random.Generator:
    if maps_seed < 0:
        raise InputError(f"maps_seed is {maps_seed}; it must be 0 or more.")
    return np.random.default_rng(maps_seed)


def _count(contexts: int | None) -> int:
    if contexts is not None and contexts < 1:
        raise InputError(f"contexts is {contexts}; it must be at least 1, or null for infinitely many.")
    return ENDLESS if contexts is None else contexts


WORLDS: Mapping[str, Callable[..., World]] = {"LavaTrail": lava_trail, "Star": star, "Rooms": rooms}
