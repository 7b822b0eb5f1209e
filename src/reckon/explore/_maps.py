"""Maps of grid worlds, drawn at random: a trail through lava, and rooms in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from reckon.errors import InputError

FLOOR, GOAL, WALL, LAVA = 0, 1, 2, 3
MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # (x, y) of up, right, down, left: the four actions
_SPACING = 6  # cells of a trail from one message to the next
_TOGETHER = 1024  # trails that are begun at a time: fixed, so that the first maps of a seed are the same in any number


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """C maps of one size, a context each. A wall keeps out; lava and goal end the episode. The border is no floor."""

    cells: np.ndarray  # [C, H, W] int8: FLOOR, GOAL, WALL or LAVA; one goal each
    messages: np.ndarray  # [C, H, W] int64: what is said there, the same everywhere; 0 = nothing
    start: np.ndarray  # [C] int64, a cell as y * W + x


def draw_trails(
    count: int, rng: np.random.Generator, *, size: int = 13, length: int = 24, straight: float = 0.6
) -> np.ndarray:
    """Random trails that never touch themselves: a cell's only neighbors on the trail are those before and after it.

    The first cell is uniform, and so is each next one among those that are free; with probability `straight` the trail
    goes on as it went, where it can. Trails that run into a dead end are thrown away.

    Args:
        count: how many, C.
        rng: where they come from. Of one generator the first trails are the same, however many are drawn.
        size: cells along a side of the grid, a border included that is never entered.
        length: cells of a trail, at least 2.
        straight: in [0, 1].

    Returns:
        [C, length] int64, cells as y * size + x.

    Raises:
        InputError: a size that cannot be; or no such trail was found.
    """
    if length < 2 or size < 3 or count < 1 or not 0 <= straight <= 1:
        raise InputError(
            f"trails: size={size}, length={length}, count={count}, straight={straight} cannot be. Take a size of at "
            "least 3, a length of at least 2, a count of at least 1 and a share `straight` in [0, 1]."
        )
    found: list[np.ndarray] = []
    missing, fruitless = count, 0
    while missing > 0:
        trails = _grow(_TOGETHER, rng, size, length, straight)
        fruitless = 0 if len(trails) else fruitless + 1
        if fruitless == 20:
            raise InputError(
                f"trails: none of {20 * _TOGETHER} trails of {length} cells fitted into {size} x {size} cells. Take "
                "shorter ones, or a larger grid."
            )
        found.append(trails[:missing])
        missing -= len(found[-1])
    return np.concatenate(found)


def trail_maps(trails: np.ndarray, size: int) -> Maps:
    """Lava everywhere but on the trail, whose last cell is the goal. Every sixth cell says how far one has come.

    Args:
        trails: [C, length] int64, cells as y * size + x.
        size: of the grid.

    Returns:
        Maps of [C, size, size], with message k at cell 6 k of the trail and one more than the last of them at the goal.
    """
    row = np.arange(len(trails))
    cells = np.full((len(trails), size * size), LAVA, dtype=np.int8)
    cells[row[:, None], trails] = FLOOR
    cells[row, trails[:, -1]] = GOAL
    messages = np.zeros(cells.shape, dtype=np.int64)
    spoken = range(_SPACING, trails.shape[1] - 1, _SPACING)
    for k, at in enumerate(spoken, 1):
        messages[row, trails[:, at]] = k
    messages[row, trails[:, -1]] = len(spoken) + 1
    shape = (len(trails), size, size)
    return Maps(cells=cells.reshape(shape), messages=messages.reshape(shape), start=trails[:, 0].copy())


def draw_rooms(
    count: int, rng: np.random.Generator, *, rooms: int = 4, size: int = 5, walls: Literal["wall", "lava"] = "wall"
) -> Maps:
    """Rooms in a row, from left to right, with a door at a random height between each two.

    One begins anywhere in the first room; the goal is anywhere in the last. A door says how many have been passed.

    Args:
        count: how many maps, C.
        rng: where they come from.
        rooms: at least 2.
        size: cells along a side of a room, at least 1; of 1 it is a corridor.
        walls: what is between and around the rooms: it keeps out, or it kills.

    Returns:
        Maps of [C, size + 2, rooms * (size + 1) + 1], with message k at the k-th door and `rooms` at the goal.

    Raises:
        InputError: a size that cannot be.
    """
    if rooms < 2 or size < 1 or count < 1 or walls not in ("wall", "lava"):
        raise InputError(
            f"rooms: rooms={rooms}, size={size}, count={count}, walls={walls!r} cannot be. Take at least 2 rooms of "
            "size 1 or more, a count of at least 1, and walls of 'wall' or 'lava'."
        )
    width = rooms * (size + 1) + 1
    cells = np.full((count, size + 2, width), WALL if walls == "wall" else LAVA, dtype=np.int8)
    for room in range(rooms):
        left = room * (size + 1) + 1
        cells[:, 1 : size + 1, left : left + size] = FLOOR
    row = np.arange(count)
    messages = np.zeros(cells.shape, dtype=np.int64)
    for door in range(1, rooms):
        y = rng.integers(1, size + 1, count)
        cells[row, y, door * (size + 1)] = FLOOR
        messages[row, y, door * (size + 1)] = door
    first_y, first_x, goal_y, goal_x = rng.integers(1, size + 1, (4, count))
    goal_x = (rooms - 1) * (size + 1) + goal_x
    cells[row, goal_y, goal_x] = GOAL
    messages[row, goal_y, goal_x] = rooms
    return Maps(cells=cells, messages=messages, start=first_y * width + first_x)


def map_values(maps: Maps, gamma: float) -> np.ndarray:
    """What reaching each cell is worth to whoever knows the way: gamma^(moves from there to the goal), 1 at the goal.

    Value iteration over all maps at once, to the end; without a limit of time.

    Args:
        maps: C of them.
        gamma: discount, in (0, 1].

    Returns:
        [C, H * W] float64; 0 where one cannot stand, or from where the goal cannot be reached.
    """
    goal, open_ = maps.cells == GOAL, (maps.cells == FLOOR) | (maps.cells == GOAL)
    values = goal.astype(np.float64)
    while True:
        around = np.pad(values, ((0, 0), (1, 1), (1, 1)))
        height, width = values.shape[1:]
        best = np.max([around[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for x, y in MOVES], axis=0)
        after = np.where(goal, 1.0, np.where(open_, gamma * best, 0.0))
        if np.array_equal(after, values):
            flat: np.ndarray = values.reshape(len(values), -1)
            return flat
        values = after


def reachable(maps: Maps) -> np.ndarray:
    """[C, H * W] bool: can one come to stand here. The goal is among them; lava, which is entered once, is not."""
    open_ = (maps.cells == FLOOR) | (maps.cells == GOAL)
    count, height, width = open_.shape
    there = np.zeros((count, height * width), dtype=bool)
    there[np.arange(count), maps.start] = True
    there = there.reshape(open_.shape)
    while True:
        # Nobody walks on from the goal.
        around = np.pad(there & (maps.cells != GOAL), ((0, 0), (1, 1), (1, 1)))
        near = np.any([around[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for x, y in MOVES], axis=0)
        after = there | (near & open_)
        if np.array_equal(after, there):
            return there.reshape(count, -1)
        there = after


def _grow(count: int, rng: np.random.Generator, size: int, length: int, straight: float) -> np.ndarray:
    """Begins `count` trails; [at most count, length], those that came to an end."""
    square = np.zeros((size, size), dtype=bool)
    square[1:-1, 1:-1] = True
    inside = square.reshape(-1)
    steps = np.array([x + size * y for x, y in MOVES])
    row = np.arange(count)
    # A margin of a row above and below, so that the neighbors of a border's cell can be looked up too.
    taken = np.zeros((count, size * size + 2 * size), dtype=bool)
    trails = np.empty((count, length), dtype=np.int64)
    trails[:, 0] = rng.choice(np.flatnonzero(inside), count)
    heading, alive = rng.integers(4, size=count), np.ones(count, dtype=bool)
    for at in range(1, length):
        cell = trails[:, at - 1]
        taken[row, size + cell] = True
        ahead = cell[:, None] + steps
        touching = taken[row[:, None, None], size + ahead[:, :, None] + steps].sum(axis=2)
        free = inside[ahead] & ~taken[row[:, None], size + ahead] & (touching == 1)
        drawn = np.where(free, rng.random((count, 4)), -1.0).argmax(axis=1)
        heading = np.where((rng.random(count) < straight) & free[row, heading], heading, drawn)
        alive &= free.any(axis=1)
        trails[:, at] = np.where(alive, ahead[row, heading], cell)
    return trails[alive]
