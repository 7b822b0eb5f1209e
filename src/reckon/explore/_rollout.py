"""What agents live through, as a bonus reads it, and what a bonus and features are.

Sizes in shape comments: T steps, N environments side by side, M episodes that ended, O the shape of an observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from reckon.errors import InputError
from reckon.types import Metrics, Rng, State


@dataclass(frozen=True, kw_only=True, eq=False)  # eq=False: == on tensors is elementwise
class Rollout:
    """T steps of N environments. One with T = 1 is a single step.

    An environment that ends is begun again at once: where an episode ended at step t, `obs[t + 1]` is the first
    observation of the next one, and the last of the old one is in `final_obs`. With Gymnasium's vector environments
    that is `AutoresetMode.SAME_STEP`.

    Raises:
        InputError: a shape or dtype is another one, an observation is not finite, or a key is no integer.
    """

    obs: Tensor  # [T + 1, N, *O], float or integers: what each action was chosen on, and what came after the last
    action: Tensor  # [T, N] int64
    terminated: Tensor  # [T, N] bool: the task itself was over
    truncated: Tensor  # [T, N] bool: time was up
    keys: Mapping[str, Tensor] = field(default_factory=dict)  # by name, each [T + 1, N] int64: what counts as a state
    # [M, *O]: the observations that episodes ended with, by step and then by environment, as `done.nonzero()` finds
    # them. None = not at hand: an action that ended an episode is then paid nothing.
    final_obs: Tensor | None = None
    final_keys: Mapping[str, Tensor] = field(default_factory=dict)  # each [M] int64, in the same order
    logits: Tensor | None = None  # [T, N, A] float, of the policy that acted

    def __post_init__(self) -> None:
        if self.action.ndim != 2 or self.action.dtype != torch.int64:
            raise InputError(
                f"rollout: `action` is {_told(self.action)}; it must be int64 [T, N]. Bonuses are for discrete actions."
            )
        steps, count = self.action.shape
        for name in ("terminated", "truncated"):
            flags = getattr(self, name)
            if flags.shape != (steps, count) or flags.dtype != torch.bool:
                raise InputError(f"rollout: `{name}` is {_told(flags)}; it must be bool [{steps}, {count}].")
        if self.obs.shape[:2] != (steps + 1, count):
            raise InputError(
                f"rollout: `obs` is {_told(self.obs)}; it must begin with [{steps + 1}, {count}]: one more than the "
                "steps, for the state that the last action led to is paid for too."
            )
        ended = int(self.done.sum())
        if self.final_obs is not None and self.final_obs.shape != (ended, *self.obs.shape[2:]):
            raise InputError(
                f"rollout: `final_obs` is {_told(self.final_obs)}; {ended} episodes ended, so it must be "
                f"{[ended, *self.obs.shape[2:]]}. Leave it out if it is not at hand."
            )
        if self.logits is not None and (self.logits.ndim != 3 or self.logits.shape[:2] != (steps, count)):
            raise InputError(f"rollout: `logits` is {_told(self.logits)}; it must be [{steps}, {count}, A].")
        for keys, shape in ((self.keys, (steps + 1, count)), (self.final_keys, (ended,))):
            check_keys("rollout", keys, shape)
        for name in ("obs", "final_obs", "logits"):
            _check_finite(name, getattr(self, name))

    @cached_property
    def done(self) -> Tensor:
        """[T, N] bool: an episode ended here, for whatever reason. Episodic memories end with it."""
        return self.terminated | self.truncated

    def entered(self, values: Tensor, final: Tensor | None) -> Tensor:
        """What each action led to: [T, N, ...] of `values` [T + 1, N, ...] and `final` [M, ...].

        Where an episode ended and `final` is None, the next episode's first state stands; see `known`.
        """
        after = values[1:]
        if final is None:
            return after
        after = after.clone()
        after[self.done] = final
        return after

    def known(self, final: Tensor | None) -> Tensor:
        """[T, N] bool: is the state that the action led to at hand."""
        return ~self.done if final is None else torch.ones_like(self.done)


class Bonus(Protocol):
    """What an action is paid for leading to something new.

    The order is `start` once, then for each rollout `score` and `learn`. A part may be made of others.
    """

    def start(self, obs: Tensor, keys: Mapping[str, Tensor]) -> None:
        """N environments stand at the first states of new episodes: `obs` [N, *O], `keys` [N] int64 by name."""
        ...

    def score(self, rollout: Rollout) -> Tensor:
        """[T, N] float32 of at least 0, without gradient: what each action is paid. Remembers what was visited.

        `rollout` goes on where `start` or the rollout before left off, and its first state is not counted again: two
        rollouts of T steps are paid as one of 2 T. Networks do not change here.
        """
        ...

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Lets networks learn from a rollout that has been paid. Gives the numbers worth logging, of both."""
        ...

    def state_dict(self) -> State:
        """All that is needed to go on exactly, in the middle of episodes too."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        ...


class Features(Protocol):
    """Numbers that stand for a state."""

    @property
    def size(self) -> int:
        """D, how many. A plain attribute will do."""
        ...

    def __call__(self, obs: Tensor) -> Tensor:
        """[n, D] float of observations [n, *O], without gradient."""
        ...

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Learns from a rollout; gives the numbers worth logging."""
        ...

    def state_dict(self) -> State:
        """All that is needed to go on exactly."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        ...


def check_keys(owner: str, keys: Mapping[str, Tensor], shape: tuple[int, ...]) -> None:
    """Raises InputError for keys that are no int64 of this shape."""
    for name, values in keys.items():
        if values.dtype != torch.int64:
            raise InputError(
                f"{owner}: the keys {name!r} are {values.dtype}; a key is an int64, for equal states must have equal "
                "keys. Make them with reckon.explore.key_of, and round what is not whole to cells first."
            )
        if values.shape != shape:
            raise InputError(f"{owner}: the keys {name!r} are {_told(values)}; they must be {list(shape)}.")


def keys_named(owner: str, name: str, keys: Mapping[str, Tensor]) -> Tensor:
    """The keys a part counts by.

    Raises:
        InputError: there are none of this name.
    """
    if name not in keys:
        there = ", ".join(sorted(keys)) or "none"
        raise InputError(
            f"{owner}: there are no keys {name!r} (there are: {there}). Count by what there is, or take a "
            "bonus that needs none, such as rnd or e3b_random_features."
        )
    return keys[name]


def check_goes_on(owner: str, started: int, rollout: Rollout) -> None:
    """Raises InputError where a rollout has another number of environments than were started (0 = none were)."""
    count = rollout.action.shape[1]
    if started == 0:
        raise InputError(f"{owner}: no episode has begun. Call start(obs, keys) with the first states.")
    if count != started:
        raise InputError(
            f"{owner}: the rollout has {count} environments, and {started} were started. Call start(obs, keys) again."
        )


def _check_finite(name: str, values: Tensor | None) -> None:
    """Raises InputError that names the first place where a float is NaN or infinite."""
    if values is None or not values.is_floating_point() or bool(values.isfinite().all()):
        return
    place = (~values.isfinite()).nonzero()[0].tolist()
    raise InputError(
        f"rollout: `{name}`{place} is {float(values[tuple(place)])}. Novelty of what is not a number cannot be told; "
        "mend the environment, or cut the observation down to what is finite."
    )


def _told(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
