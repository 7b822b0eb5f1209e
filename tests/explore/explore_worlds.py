"""Small worlds that can be walked by hand, and collecting from them."""

import numpy as np

from reckon.explore import GridWorld, StarWorld
from reckon.explore._maps import FLOOR, GOAL, LAVA, WALL, Maps

SIGNS = {".": FLOOR, "S": FLOOR, "G": GOAL, "#": WALL, "~": LAVA}
UP, RIGHT, DOWN, LEFT = range(4)


def maps_of(*drawings):
    """Maps from texts; S is where episodes begin."""
    rows = [drawing.split() for drawing in drawings]
    cells = np.array([[[SIGNS[sign] for sign in row] for row in one] for one in rows], dtype=np.int8)
    starts = np.array(["".join(one).index("S") for one in rows])
    return Maps(cells=cells, messages=np.zeros(cells.shape, dtype=np.int64), start=starts)


def corner(horizon=4, sight=1):
    """Two steps to the right is the goal; one down is a dead end in lava, and there is a wall above."""
    return GridWorld(maps_of("~###~ ~S.G~ ~.~~~ ~~~~~"), horizon=horizon, sight=sight)


def small_star():
    """Three corridors of two cells; the reward is in the middle one, and action 2 goes on everywhere."""
    world = StarWorld(1, np.random.default_rng(0), arms=3, length=2)
    world.onward[:], world.rich[:] = 2, 1
    return world


def walk(world, actions, context=0):
    """Positions, rewards and ends of one row that makes these moves, by `move` alone."""
    position, told = world.start[[context]], []
    for action in actions:
        position, reward, over = world.move(np.array([context]), position, np.array([action]))
        told.append((int(position[0]), float(reward[0]), bool(over[0])))
    return told
