"""The worlds as Gymnasium sees them: one environment, or many that step at once. Needs gymnasium."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from reckon.errors import InputError
from reckon.explore._contexts import check_contexts
from reckon.explore._episodes import Episodes
from reckon.explore._worlds import WORLDS, World
from reckon.types import State

if TYPE_CHECKING:
    from torch import Tensor


class WorldEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One environment. `info` has the keys of the state it is in, its context and its place in a drawing.

    Args:
        world: one, or the name of one: "LavaTrail", "Star", "Rooms".
        settings: of the world that was named: contexts, maps_seed, ...

    Raises:
        InputError: no such world or setting, or a value that cannot be.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(self, world: World | str, **settings: object) -> None:
        self.world = _world(world, settings)
        self.observation_space, self.action_space = _spaces(self.world)
        self._episodes = Episodes(self.world, 1)
        self._seeded, self._over = False, True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins an episode; without a seed, the next one of the seed before. `options={"context": 3}` chooses."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            first = seed if seed is not None else int(self.np_random.integers(2**62))
            self._episodes.seed(np.array([first]))
            self._seeded = True
        self._episodes.begin(np.arange(1), _contexts(options, self.world, 1))
        self._over = False
        return self._episodes.observe()[0], self._info()

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One action.

        Raises:
            InputError: it is none of the actions, or the episode is over.
        """
        if self._over:
            raise InputError("the episode is over. Call reset() before the next step.")
        rewards, terminated, truncated = self._episodes.step(_checked(np.array([action]), self.world, 1))
        self._over = bool(terminated[0] or truncated[0])
        return self._episodes.observe()[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), self._info()

    def _info(self) -> dict[str, Any]:
        return {name: values[0] for name, values in self._episodes.infos().items()}


class WorldVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many environments that step at once. A row whose episode ends is begun anew in the same step.

    What it ended with is in `infos["final_obs"]` and `infos["final_info"]`, [N, ...] each, in the rows that
    `infos["_final_obs"]` marks. Row i of one seeded with s is `WorldEnv` seeded with s + i, step by step. Its state can
    be saved and restored.

    Args:
        num_envs: N.
        world: as of `WorldEnv`.
        settings: as of `WorldEnv`.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, world: World | str, **settings: object) -> None:
        if num_envs < 1:
            raise InputError(f"num_envs is {num_envs}; it must be at least 1.")
        self.world, self.num_envs = _world(world, settings), num_envs
        self.single_observation_space, self.single_action_space = _spaces(self.world)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._episodes = Episodes(self.world, num_envs)
        self._seeded = False

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins all rows. A seed s gives row i the seed s + i; `options={"context": [N]}` chooses contexts."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        rows = np.arange(self.num_envs)
        if seed is not None or not self._seeded:
            first = self.np_random.integers(2**62) if seed is None else seed
            seeds = rows + int(first) if isinstance(first, int | np.integer) else np.array(list(first))
            if seeds.shape != rows.shape:
                raise InputError(f"{len(seeds)} seeds were given for {self.num_envs} environments.")
            self._episodes.seed(seeds)
            self._seeded = True
        self._episodes.begin(rows, _contexts(options, self.world, self.num_envs))
        return self._episodes.observe(), self._told(self._episodes.infos())

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One action a row, [N].

        Raises:
            InputError: one is none of the actions, or no episode has begun.
        """
        if not self._seeded:
            raise InputError("no episode has begun. Call reset() before the first step.")
        episodes = self._episodes
        rewards, terminated, truncated = episodes.step(_checked(np.asarray(actions), self.world, self.num_envs))
        obs, infos, ended = episodes.observe(), self._told(episodes.infos()), terminated | truncated
        over = np.flatnonzero(ended)
        if len(over):
            final, obs = obs, obs.copy()
            episodes.begin(over)
            obs[over] = episodes.observe(over)
            infos = self._told(episodes.infos()) | {"final_obs": final, "final_info": infos}
            infos |= {"_final_obs": ended, "_final_info": ended.copy()}
        return obs, rewards, terminated, truncated, infos

    def state_dict(self) -> State:
        """Seeds, contexts, positions, times and memories of all rows."""
        return self._episodes.state()

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off; `reset` is not needed.

        Raises:
            InputError: it is of another number of environments, or of another world.
        """
        self._episodes.restore(cast("dict[str, Tensor]", state))
        self._seeded = True

    def _told(self, infos: dict[str, np.ndarray]) -> dict[str, Any]:
        """With Gymnasium's masks: every row knows all of it."""
        return infos | {f"_{name}": np.ones(self.num_envs, dtype=bool) for name in infos}


class FiniteContexts(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Any environment in a finite number of contexts: every episode begins from one of a few seeds.

    `info["context"]` says from which, by its place in the list. It is drawn by a generator that `reset(seed=)` seeds.

    Args:
        env: one whose level is fixed by its seed.
        seeds: of the contexts.

    Raises:
        InputError: there are none, two are the same, or a seed does not fix how the environment begins.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seeds: Sequence[int]) -> None:
        super().__init__(env)
        if not seeds or len(set(seeds)) < len(seeds):
            raise InputError("contexts: there must be at least one seed, and all must differ.")
        check_contexts(lambda seed: env.reset(seed=seed)[0], seeds[:3])
        self.seeds = tuple(seeds)
        self._drawn, self._context = np.random.default_rng(), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode in one of the contexts."""
        if seed is not None:
            self._drawn = np.random.default_rng(seed)
        self._context = int(self._drawn.integers(len(self.seeds)))
        obs, info = self.env.reset(seed=self.seeds[self._context], options=options)
        return obs, info | {"context": self._context}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated, info | {"context": self._context}


def _world(world: World | str, settings: dict[str, object]) -> World:
    if not isinstance(world, str):
        if settings:
            raise InputError(f"a world has its settings already, so {', '.join(settings)} cannot be given too.")
        return world
    if world not in WORLDS:
        raise InputError(f"{world!r} is no world. There are: {', '.join(WORLDS)}.")
    try:
        return WORLDS[world](**settings)
    except TypeError as error:
        raise InputError(f"{world}: {error}. Its settings are in docs/explore.md.") from error


def _spaces(world: World) -> tuple[Box, Discrete]:
    return Box(0.0, 1.0, (world.observation_size,), np.float32), Discrete(world.actions)


def _checked(actions: np.ndarray, world: World, count: int) -> np.ndarray:
    """[N] int64."""
    whole = actions.dtype.kind in "iu" and actions.shape == (count,)
    if not whole or actions.min() < 0 or actions.max() >= world.actions:
        raise InputError(
            f"actions are {actions.dtype} {list(actions.shape)} in [{actions.min()}, {actions.max()}]; they must be "
            f"{count} whole numbers in [0, {world.actions - 1}]."
        )
    return actions.astype(np.int64, copy=False)


def _contexts(options: dict[str, Any] | None, world: World, count: int) -> np.ndarray | None:
    """The contexts that options choose."""
    if not options:
        return None
    unknown = sorted(set(options) - {"context"})
    if unknown:
        raise InputError(f"reset: `{unknown[0]}` is no option of this environment. It has one: context.")
    contexts = np.asarray(options["context"])
    whole = contexts.dtype.kind in "iu" and contexts.shape in ((), (count,))
    if not whole or contexts.min() < 0 or contexts.max() >= world.contexts:
        raise InputError(f"reset: context must be a whole number in [0, {world.contexts - 1}], or {count} of them.")
    return np.broadcast_to(contexts.astype(np.int64), (count,))
