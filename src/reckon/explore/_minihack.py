"""MiniHack as `Collector` wants it: levels fixed by seeds, the work-arounds it needs, and a thin loop over games.

Needs the extra minihack, in an environment of its own: nle pins gymnasium 1.2.0.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from reckon.errors import InputError, MissingError
from reckon.explore._contexts import check_contexts
from reckon.explore._glyphs import STATS, GlyphLayout
from reckon.explore._keys import key_of
from reckon.types import Rng

PREFIX = "MiniHack-"
# The tasks of Henaff et al. 2023, arXiv:2306.03236, section 5: seven skills, nine navigation tasks.
MINIHACK_TASKS = (
    *(
        f"{PREFIX}{name}-Restricted-v0"
        for name in (
            "Levitate-Potion",
            "Levitate-Boots",
            "Freeze-Horn",
            "Freeze-Wand",
            "Freeze-Random",
            "LavaCross",
            "WoD-Hard",
        )
    ),
    *(
        f"{PREFIX}{name}-v0"
        for name in (
            "MultiRoom-N4-Locked",
            "MultiRoom-N6-Lava",
            "MultiRoom-N6-Lava-OpenDoor",
            "MultiRoom-N6-LavaMonsters",
            "MultiRoom-N10-OpenDoor",
            "MultiRoom-N10-Lava-OpenDoor",
            "LavaCrossingS19N13",
            "LavaCrossingS19N17",
            "Labyrinth-Big",
        )
    ),
)
KEY_ROOM = f"{PREFIX}KeyRoom-S10-v0"  # of the paper's controlled tasks; MiniHack does not register it
ROWS, COLUMNS = 21, 79  # of the game's map
_SEEDS = 100_000  # seeds of a finite number of levels are below this, as in the paper's code
_CACHED = 128  # compiled levels that are kept, about a mebibyte each
_READ = ("glyphs", "glyphs_crop", "blstats", "message")


class MiniHackVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Games side by side in this process, stepped one after the other. Autoreset in the same step, as `WorldVector`.

    An observation is a row of numbers as `GlyphLayout` says: what stands in the square around the hero, the status
    line, the message. Infos have the keys `pos` (the cell, row * 79 + column), `msg` (the message's text), `glyphs`
    (the whole map) and `obs` (map, status line and message; as the turn stands there, hardly any comes twice in an
    episode), `context` where contexts are finite, and `place` (column and row; -1 when the game is over). Every level
    is fixed by a seed, which depends on the seed of `reset`, the row and the number of the episode alone. Games cannot
    be saved: a run that was interrupted goes on with new episodes.

    Args:
        num_envs: N.
        task: an id that MiniHack registers, such as those of `MINIHACK_TASKS`, or `KEY_ROOM`.
        contexts: how many levels there are; None = a new one in every episode.
        seed: which levels those are.
        settings: of the task, such as max_episode_steps; obs_crop_h and obs_crop_w are the square's sides, odd.

    Raises:
        MissingError: MiniHack is not installed.
        InputError: no such task or setting, or a level that its seed does not fix.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    picture = (COLUMNS, ROWS)

    def __init__(
        self, num_envs: int, task: str, *, contexts: int | None = None, seed: int = 0, **settings: Any
    ) -> None:
        self._games: list[Any] = []  # Gymnasium closes what was never made, too
        if num_envs < 1:
            raise InputError(f"num_envs is {num_envs}; it must be at least 1.")
        if contexts is not None and not 0 < contexts <= _SEEDS:
            raise InputError(f"contexts is {contexts}; it must be in [1, {_SEEDS}], or null.")
        self.num_envs, self._contexts = num_envs, contexts
        self._games = [make_game(task, **settings) for _ in range(num_envs)]
        # NLE quits a game whose time is up, and what was last seen is gone: time is kept here.
        self._limit = self._games[0]._max_episode_steps
        for game in self._games:
            game._max_episode_steps = sys.maxsize
        sides = self._games[0].obs_crop_h, self._games[0].obs_crop_w
        self.layout = GlyphLayout(rows=sides[0], columns=sides[1])
        self.single_observation_space = Box(-np.inf, np.inf, (self.layout.size,), np.float32)
        self._actions = int(self._games[0].action_space.n)
        self.single_action_space = Discrete(self._actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._levels: list[int] = []
        if contexts is not None:
            self._levels = Rng((seed, "contexts")).numpy().choice(_SEEDS, contexts, replace=False).tolist()
            share_levels(self._games)
            check_contexts(lambda level: begin(self._games[0], level)["glyphs"], self._levels[:3])
        self._rng = Rng((0, "minihack"))
        self._begun, self._context, self._time = np.zeros((3, num_envs), dtype=np.int64)
        self._words: dict[bytes, int] = {}
        self._maps = np.zeros((num_envs, ROWS, COLUMNS), dtype=np.int16)
        self._stats = np.zeros((num_envs, STATS), dtype=np.int64)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins all games. A seed says which levels come in which row, from the first again."""
        if options or isinstance(seed, Sequence):
            raise InputError("reset: MiniHack takes one seed for all games, and no options.")
        super().reset(seed=seed)
        if seed is not None:
            self._rng, self._begun = Rng((int(seed), "minihack")), np.zeros(self.num_envs, dtype=np.int64)
        seen = [self._begin(row) for row in range(self.num_envs)]
        infos = self._empty()
        obs = np.stack([self._read(one, row, infos) for row, one in enumerate(seen)])
        self._name_maps(infos, np.arange(self.num_envs))
        return obs, self._told(infos)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One action a game, [N].

        Raises:
            InputError: one is none of the actions.
        """
        actions = np.asarray(actions)
        whole = actions.dtype.kind in "iu" and actions.shape == (self.num_envs,)
        if not whole or actions.min() < 0 or actions.max() >= self._actions:
            raise InputError(f"actions must be {self.num_envs} whole numbers in [0, {self._actions - 1}].")
        obs = np.empty((self.num_envs, self.layout.size), dtype=np.float32)
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=bool)
        infos = self._empty()
        for row, (game, action) in enumerate(zip(self._games, actions.tolist(), strict=True)):
            seen, rewards[row], terminated[row], _, _ = game.step(action)
            obs[row] = self._read(seen, row, infos)
        self._time += 1
        truncated = ~terminated & (self._time >= self._limit)
        self._name_maps(infos, np.arange(self.num_envs))
        ended = terminated | truncated
        if not ended.any():
            return obs, rewards, terminated, truncated, self._told(infos)
        final, final_infos = obs, infos
        obs, infos = obs.copy(), {name: values.copy() for name, values in infos.items()}
        over = np.flatnonzero(ended)
        for row in over.tolist():
            obs[row] = self._read(self._begin(row), row, infos)
        self._name_maps(infos, over)
        told = {"final_obs": final, "final_info": self._told(final_infos)}
        told |= {"_final_obs": ended, "_final_info": ended.copy()}
        return obs, rewards, terminated, truncated, self._told(infos) | told

    def drawing(self, context: int) -> list[str]:
        """Blanks: what a game looks like is seen by walking in it."""
        return [" " * COLUMNS] * ROWS

    def close_extras(self, **kwargs: Any) -> None:
        """Ends all games."""
        for game in self._games:
            game.close()

    def _begin(self, row: int) -> Mapping[str, np.ndarray]:
        """The next game of a row."""
        drawn = self._rng.child(row, int(self._begun[row])).integer()
        self._begun[row] += 1
        self._time[row] = 0
        if self._contexts is None:
            return begin(self._games[row], drawn % 2**31)
        self._context[row] = drawn % self._contexts
        return begin(self._games[row], self._levels[self._context[row]])

    def _empty(self) -> dict[str, np.ndarray]:
        names = ["pos", "msg", "glyphs", "obs"] + (["context"] if self._contexts is not None else [])
        infos = {name: np.zeros(self.num_envs, dtype=np.int64) for name in names}
        return infos | {"place": np.zeros((self.num_envs, 2), dtype=np.int64)}

    def _read(self, seen: Mapping[str, np.ndarray], row: int, infos: dict[str, np.ndarray]) -> np.ndarray:
        """A game's observation as a row of numbers; its keys go to `infos`."""
        text = bytes(seen["message"]).rstrip(b"\0")
        if text not in self._words:
            self._words[text] = int(key_of([text], "msg")[0])
        x, y = int(seen["blstats"][0]), int(seen["blstats"][1])
        infos["pos"][row], infos["msg"][row] = y * COLUMNS + x, self._words[text]
        # NetHack's column 0 is never stood in: a game that is over tells it, for it no longer knows.
        infos["place"][row] = (x, y) if x > 0 else (-1, -1)
        self._maps[row], self._stats[row] = seen["glyphs"], seen["blstats"][:STATS]
        if self._contexts is not None:
            infos["context"][row] = self._context[row]
        return self.layout.row(seen["glyphs_crop"], seen["blstats"], self._words[text])

    def _name_maps(self, infos: dict[str, np.ndarray], rows: np.ndarray) -> None:
        """The keys of whole maps, and of all that is seen, of all these rows in one go."""
        infos["glyphs"][rows] = key_of(self._maps[rows], "glyphs").numpy()
        whole = np.column_stack([infos["glyphs"][rows], infos["msg"][rows], self._stats[rows]])
        infos["obs"][rows] = key_of(whole, "obs").numpy()

    def _told(self, infos: dict[str, np.ndarray]) -> dict[str, Any]:
        """With Gymnasium's masks: every row knows all of it."""
        return infos | {f"_{name}": np.ones(self.num_envs, dtype=bool) for name in infos}


def make_game(task: str, **settings: Any) -> Any:
    """One game, without Gymnasium's wrappers.

    Raises:
        MissingError: MiniHack is not installed.
        InputError: no such task or setting.
    """
    missing = [package for package in ("nle", "minihack", "minigrid") if find_spec(package) is None]
    if missing:
        raise MissingError(
            f"{task} needs {', '.join(missing)}, which is not installed. Make an environment of its own, since nle "
            "pins gymnasium 1.2.0, and run there: pip install 'reckon-rl[minihack]'"
        )
    importlib.import_module("minihack")
    _mend_crossings()
    _register_key_room()
    try:
        spec = gymnasium.spec(task)
        # Not by gymnasium.make, which would keep max_episode_steps for a wrapper of its own.
        make = gymnasium.envs.registration.load_env_creator(cast("str", spec.entry_point))
        return make(**{**spec.kwargs, "observation_keys": _READ, **settings})
    except gymnasium.error.Error as error:
        raise InputError(f"{task}: {error} The tasks of the paper are {', '.join(MINIHACK_TASKS)}.") from error
    except (TypeError, AssertionError) as error:
        given = ", ".join(settings) or "none"
        raise InputError(f"{task} does not take these arguments ({given}): {error}") from error


def begin(game: Any, level: int) -> Mapping[str, np.ndarray]:
    """Begins a game in the level of a seed; gives its first observation.

    Gymnasium's seed never reaches the game, and NLE's own has to be set before each reset. The tasks that MiniGrid
    draws the maps of have a `seed` that calls what MiniGrid no longer has, so theirs is NLE's, and MiniGrid's apart.
    """
    if hasattr(game, "minigrid_env"):
        from minihack.envs.minigrid import MiniGridHack

        game.minigrid_env.reset(seed=level)
        super(MiniGridHack, game).seed(level, level, reseed=False)
    else:
        game.seed(level, level, reseed=False)
    seen: Mapping[str, np.ndarray] = game.reset()[0]
    return seen


def share_levels(games: Sequence[Any], most: int = _CACHED) -> None:
    """Lets games share the levels they compile, each of which takes a subprocess tens of milliseconds.

    A level is known by its description. What is kept is the data file that the compiler left in a game's own folder;
    the last `most` levels that were asked for.
    """
    kept: OrderedDict[str, bytes] = OrderedDict()
    for game in games:
        game._patch_nhdat = functools.partial(_patched, game, game._patch_nhdat, kept, most)


def _patched(game: Any, compile_: Any, kept: OrderedDict[str, bytes], most: int, description: str) -> None:
    path = Path(game.nethack._vardir) / "nhdat"
    if description not in kept:
        compile_(description)
        kept[description] = path.read_bytes()
    else:
        # Never through the name: it may be a link to the file that all games of this machine share.
        fresh = path.with_name("nhdat.next")
        fresh.write_bytes(kept[description])
        os.replace(fresh, path)
    kept.move_to_end(description)
    while len(kept) > most:
        kept.popitem(last=False)


def _mend_crossings() -> None:
    """MiniHack gives MiniGrid's crossings, which have a size, the screen's width and height too; they take no two."""
    from minigrid.envs import CrossingEnv

    plain = CrossingEnv.__init__
    if hasattr(plain, "__wrapped__"):
        return

    @functools.wraps(plain)
    def init(self: Any, *args: Any, width: int | None = None, height: int | None = None, **others: Any) -> None:
        plain(self, *args, **others)

    CrossingEnv.__init__ = init


def _register_key_room() -> None:
    if KEY_ROOM not in gymnasium.registry:
        gymnasium.register(
            KEY_ROOM,
            entry_point="minihack.envs.keyroom:MiniHackKeyRoom",
            kwargs={"room_size": 10, "subroom_size": 2, "lit": True},
        )
