"""An agent in its environments: T steps of all of them, with all that a bonus and the agent read of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from reckon.errors import InputError
from reckon.explore._keys import key_of
from reckon.explore._policies import Network
from reckon.explore._rollout import Rollout
from reckon.types import Rng, State, Stateful

KeyFunction: TypeAlias = Callable[[np.ndarray], "Sequence[object] | np.ndarray"]  # observations [n, *O] to n keys
Vectors: TypeAlias = "VectorEnv[Any, Any, Any]"

_GIVEN = ("pos", "msg", "glyphs", "obs")  # keys that environments give by themselves, in their infos


@dataclass(frozen=True, kw_only=True, eq=False)
class Collected:
    """A rollout of T steps and N environments, and what only the agent and the report need of it. M episodes ended."""

    rollout: Rollout
    rewards: Tensor  # [T, N] float32, the task's own
    start: Tensor  # [T + 1, N] bool: an episode begins with this observation
    memory: Tensor  # [N, memory] float32: what the network remembered before the first step
    final_memory: Tensor  # [M, memory] float32: and when it saw the last observation of an episode
    returns: np.ndarray  # [M] float64, sums of rewards of whole episodes, undiscounted
    lengths: np.ndarray  # [M] int64, steps
    context: Tensor | None  # [T + 1, N] int64, where the environment tells
    place: Tensor | None  # [T + 1, N, 2] int64, column and row in a drawing, where the environment tells
    final_place: Tensor | None  # [M, 2] int64


class Collector:
    """Steps environments by a network's choices and keeps where they are, so that rollouts go on from each other.

    Keys are those that the environment gives in its infos, with every reset and step, as `pos`, `msg` and `glyphs`, and
    those of `keys`; one with whole numbers for observations has `obs` too.

    Args:
        envs: with discrete actions, and autoreset in the same step.
        keys: by name, from observations to what counts as a state.

    Raises:
        InputError: the environments cannot be used; says why.
    """

    def __init__(self, envs: Vectors, keys: Mapping[str, KeyFunction] | None = None) -> None:
        self.envs, self.count = envs, envs.num_envs
        space = envs.single_action_space
        if not isinstance(space, Discrete):
            raise InputError(
                f"the environment's actions are {space}, and only discrete ones can be chosen from. Take another "
                "environment, or wrap this one in one that offers a few actions."
            )
        if envs.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise InputError(
                "the environments do not begin anew in the step in which an episode ends, so its last observation "
                "would be taken for an action's. Make them with gymnasium.make_vec(..., vectorization_mode='sync', "
                "vector_kwargs={'autoreset_mode': AutoresetMode.SAME_STEP})."
            )
        self.actions, self._offset = int(space.n), int(space.start)
        self.size, self._encode = encoder(envs.single_observation_space)
        self._functions = dict(keys or {})
        if envs.single_observation_space.dtype is not None and envs.single_observation_space.dtype.kind in "biu":
            self._functions.setdefault("obs", lambda seen: seen)
        self._now: _Now | None = None

    def begin(self, rng: Rng) -> bool:
        """Begins episodes everywhere, unless a state was restored; says whether it did."""
        if self._now is not None:
            return False
        seen, infos = self.envs.reset(seed=rng.integer() % 2**31)
        first = self._encode(np.asarray(seen))
        if not np.isfinite(first).all():
            row, place = np.argwhere(~np.isfinite(first))[0].tolist()
            raise InputError(
                f"environment {row} begins with an observation whose number {place} is {first[row, place]}. Mend the "
                "environment, or cut the observation down to what is finite."
            )
        self._now = _Now(
            obs=torch.from_numpy(first).clone(),
            start=torch.ones(self.count, dtype=torch.bool),
            told=_picked(infos, [name for name in (*_GIVEN, "context", "place") if name in infos]),
            made=self._made(np.asarray(seen)),
            memory=None,
            returns=np.zeros(self.count),
            lengths=np.zeros(self.count, dtype=np.int64),
        )
        return True

    @property
    def obs(self) -> Tensor:
        """[N, D] float32: where the environments stand."""
        return self._standing().obs

    @property
    def keys(self) -> dict[str, Tensor]:
        """By name, [N] int64: the keys of where they stand."""
        now = self._standing()
        return {name: _whole(name, now.told[name]) for name in _GIVEN if name in now.told} | now.made

    def collect(self, network: Network, steps: int, rng: Rng) -> Collected:
        """Steps all environments `steps` times.

        Args:
            network: chooses; each action is drawn from its logits.
            steps: T, at least 1.
            rng: of the draws.

        Raises:
            InputError: an observation or a reward is not finite, keys are missing or not whole, or the network is for
                other actions.
        """
        now = self._standing()
        if network.actions != self.actions:
            raise InputError(
                f"the network chooses among {network.actions} actions, and the environments have {self.actions}. Build "
                "it with actions=collector.actions."
            )
        first = torch.zeros(self.count, network.memory) if now.memory is None else now.memory
        log = _Log(self, now, first, steps, network.actions)
        noise = _gumbel((steps, self.count, network.actions), rng)
        memory = first
        with torch.no_grad():
            for t in range(steps):
                log.logits[t], memory = network.act(log.obs[t], memory, log.start[t])
                torch.argmax(log.logits[t] + noise[t], dim=1, out=log.action[t])
                log.add(t, self.envs.step(log.action[t].numpy() + self._offset), memory)
        collected = log.collected(first)
        self._now = log.now(memory)
        return collected

    def state_dict(self) -> State:
        """Where the environments stand; nothing if they cannot be saved, and begin anew when resumed."""
        now = self._now
        if now is None or not isinstance(self.envs, Stateful):
            return {}
        told = {name: torch.from_numpy(np.array(values)) for name, values in now.told.items()}
        return {
            "envs": self.envs.state_dict(),
            "obs": now.obs,
            "start": now.start,
            "told": told,
            "made": now.made,
            "memory": now.memory,
            "returns": torch.from_numpy(now.returns.copy()),
            "lengths": torch.from_numpy(now.lengths.copy()),
        }

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        if not state or not isinstance(self.envs, Stateful):
            self._now = None
            return
        self.envs.load_state_dict(cast("State", state["envs"]))
        told, made = (cast("Mapping[str, Tensor]", state[name]) for name in ("told", "made"))
        self._now = _Now(
            obs=cast("Tensor", state["obs"]),
            start=cast("Tensor", state["start"]),
            told={name: values.numpy() for name, values in told.items()},
            made=dict(made),
            memory=cast("Tensor | None", state["memory"]),
            returns=cast("Tensor", state["returns"]).numpy().copy(),
            lengths=cast("Tensor", state["lengths"]).numpy().copy(),
        )

    def _standing(self) -> _Now:
        if self._now is None:
            raise InputError("no episode has begun. Call begin(rng) first.")
        return self._now

    def _made(self, seen: np.ndarray) -> dict[str, Tensor]:
        """Keys that are computed from observations."""
        return {name: key_of(function(seen), name) for name, function in self._functions.items()}


@dataclass
class _Now:
    """Where the environments stand between two rollouts."""

    obs: Tensor  # [N, D]
    start: Tensor  # [N] bool
    told: dict[str, np.ndarray]  # what infos say, [N, ...] each
    made: dict[str, Tensor]  # keys that were computed, [N] each
    memory: Tensor | None  # [N, memory]
    returns: np.ndarray  # [N], so far
    lengths: np.ndarray  # [N], so far


class _Log:
    """A rollout while it is being made."""

    def __init__(self, owner: Collector, now: _Now, memory: Tensor, steps: int, actions: int) -> None:
        count = owner.count
        self._owner, self._returns, self._lengths = owner, now.returns.copy(), now.lengths.copy()
        self.obs = torch.empty(steps + 1, count, owner.size)
        self.start = torch.empty(steps + 1, count, dtype=torch.bool)
        self.logits = torch.empty(steps, count, actions)
        self.action = torch.empty(steps, count, dtype=torch.int64)
        self.obs[0], self.start[0] = now.obs, now.start
        self._rewards = np.empty((steps, count), dtype=np.float32)
        self._terminated = np.empty((steps, count), dtype=bool)
        self._truncated = np.empty((steps, count), dtype=bool)
        self._told, self._made = [now.told], [now.made]
        self._final_obs = [np.empty((0, owner.size), dtype=np.float32)]
        self._final_memory = [torch.empty(0, memory.shape[1])]
        self._final_told: list[dict[str, np.ndarray]] = []
        self._final_made: list[dict[str, Tensor]] = []
        self._ended: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, t: int, stepped: tuple[Any, Any, Any, Any, dict[str, Any]], memory: Tensor) -> None:
        """Notes what step t brought."""
        seen, self._rewards[t], self._terminated[t], self._truncated[t], infos = stepped
        done = self._terminated[t] | self._truncated[t]
        self.obs[t + 1] = torch.from_numpy(self._owner._encode(np.asarray(seen)))
        self.start[t + 1] = torch.from_numpy(done)
        self._returns += self._rewards[t]
        self._lengths += 1
        rows = np.flatnonzero(done)
        if len(rows):
            final = np.stack([np.asarray(one) for one in infos["final_obs"][rows]])
            self._final_obs.append(self._owner._encode(final))
            self._final_memory.append(memory[torch.from_numpy(rows)])
            self._final_told.append(_picked(infos.get("final_info", {}), self._told[0], rows))
            self._final_made.append(self._owner._made(final))
            self._ended.append((self._returns[rows], self._lengths[rows]))
            self._returns[rows], self._lengths[rows] = 0.0, 0
        self._told.append(_picked(infos, self._told[0]))
        self._made.append(self._owner._made(np.asarray(seen)))

    def collected(self, memory: Tensor) -> Collected:
        """The whole of it."""
        told = {name: np.stack([one[name] for one in self._told]) for name in self._told[0]}
        final = {}
        for name, values in told.items():
            none = np.empty((0, *values.shape[2:]), values.dtype)
            final[name] = np.concatenate([none, *(one[name] for one in self._final_told)])
        keys = {name: _whole(name, told[name]) for name in _GIVEN if name in told}
        final_keys = {name: _whole(name, final[name]) for name in keys}
        for name in self._made[0]:
            keys[name] = torch.stack([one[name] for one in self._made])
            ended = [torch.empty(0, dtype=torch.int64), *(one[name] for one in self._final_made)]
            final_keys[name] = torch.cat(ended)
        rollout = Rollout(
            obs=self.obs,
            action=self.action,
            terminated=torch.from_numpy(self._terminated),
            truncated=torch.from_numpy(self._truncated),
            keys=keys,
            final_obs=torch.from_numpy(np.concatenate(self._final_obs)),
            final_keys=final_keys,
            logits=self.logits,
        )
        _check_rewards(self._rewards)
        return Collected(
            rollout=rollout,
            rewards=torch.from_numpy(self._rewards),
            start=self.start,
            memory=memory,
            final_memory=torch.cat(self._final_memory),
            returns=np.concatenate([np.empty(0), *(returns for returns, _ in self._ended)]),
            lengths=np.concatenate([np.empty(0, dtype=np.int64), *(lengths for _, lengths in self._ended)]),
            context=_whole("context", told["context"]) if "context" in told else None,
            place=_whole("place", told["place"]) if "place" in told else None,
            final_place=_whole("place", final["place"]) if "place" in told else None,
        )

    def now(self, memory: Tensor) -> _Now:
        """Where the environments stand after it."""
        return _Now(
            obs=self.obs[-1].clone(),
            start=self.start[-1].clone(),
            told=self._told[-1],
            made=self._made[-1],
            memory=memory,
            returns=self._returns,
            lengths=self._lengths,
        )


def encoder(space: gymnasium.Space[Any]) -> tuple[int, Callable[[np.ndarray], np.ndarray]]:
    """How observations become numbers for a network.

    Boxes are flattened, and bytes divided by 255; one of n becomes a one-hot row.

    Returns:
        D, and a function from [n, *O] to [n, D] float32.

    Raises:
        InputError: it is another kind of space.
    """
    if isinstance(space, Discrete):
        one_hot = np.eye(int(space.n), dtype=np.float32)
        return int(space.n), lambda seen: one_hot[seen - int(space.start)]
    if isinstance(space, Box | MultiBinary):
        size = int(np.prod(space.shape))
        scale = np.float32(1 / 255 if space.dtype == np.uint8 else 1)

        def flat(seen: np.ndarray) -> np.ndarray:
            numbers = seen.reshape(len(seen), size).astype(np.float32, copy=False)
            return numbers if scale == 1 else numbers * scale

        return size, flat
    raise InputError(
        f"the environment's observations are {space}, of which no network is made here. Wrap it with "
        "gymnasium.wrappers.FlattenObservation, or with a wrapper that gives one array."
    )


def _picked(
    infos: Mapping[str, Any], names: Iterable[str], rows: np.ndarray | slice = slice(None)
) -> dict[str, np.ndarray]:
    """What infos say by these names, of all environments or of some: [n, ...] each.

    Raises:
        InputError: an environment has left one out, for which Gymnasium would stand a 0.
    """
    found = {}
    for name in names:
        given = infos.get(f"_{name}")
        if name not in infos or (given is not None and not given[rows].all()):
            raise InputError(
                f"info[{name!r}] is there at one time and missing at another. Give it with every reset and step of "
                "every environment, or never."
            )
        found[name] = np.array(infos[name][rows])
    return found


def _whole(name: str, values: np.ndarray) -> Tensor:
    """As int64.

    Raises:
        InputError: they are not whole.
    """
    if values.dtype.kind not in "biu":
        raise InputError(
            f"info[{name!r}] is {values.dtype}, and must be whole numbers. Give the cell a state lies in, or of a text "
            "int(reckon.explore.key_of([text])[0])."
        )
    return torch.from_numpy(values.astype(np.int64))


def _check_rewards(rewards: np.ndarray) -> None:
    if not np.isfinite(rewards).all():
        t, row = np.argwhere(~np.isfinite(rewards))[0].tolist()
        raise InputError(
            f"the reward of environment {row} is {rewards[t, row]} (step {t} of the rollout). Mend the environment: "
            "nothing can be learned from what is not a number."
        )


def _gumbel(shape: tuple[int, ...], rng: Rng) -> Tensor:
    """Noise that makes the largest of logits plus noise a draw from their softmax (Gumbel 1954)."""
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(rng.integer()))
    return -torch.log(-torch.log(uniform.clamp(min=1e-20)))
