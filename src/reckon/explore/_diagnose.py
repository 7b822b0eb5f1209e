"""Which bonus the structure of an environment favors, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reckon.errors import InputError
from reckon.explore._collect import Collected, Collector
from reckon.explore._command import make_environments, world_of
from reckon.explore._structure import Structure, estimate_structure, shared_structure
from reckon.types import Json, Rng

Favors = Literal["global", "episodic", "product", "unknown"]

# In units of the largest value: how far a state's value varies from context to context. Ours, by what LavaTrail and
# Rooms show (docs/explore.md); the paper draws no line.
SHARED, APART = 0.1, 0.25
WALKED = 200_000  # steps of a walk at random, unless told otherwise
_CHUNK = 128  # steps between two looks at an environment that is walked at random


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What one kind of key shares between contexts."""

    key: str
    states: int
    contexts: int
    exact: bool  # from known values; else from what a walk at random earned
    variance: float  # of a state's value over contexts, the mean over states; NaN = no reward was ever seen
    spread: float  # its root, in units of the largest value
    favors: Favors
    why: str


def diagnose(
    name: str,
    *,
    contexts: int | None = None,
    env: dict[str, Json] | None = None,
    frames: int = WALKED,
    gamma: float = 0.99,
    seed: int = 0,
) -> list[Diagnosis]:
    """How much of what a state is worth its contexts share, by each kind of key.

    The measure is that of Henaff et al. 2023, arXiv:2306.03236: the variance over contexts of the value of a state.
    Where a world's values are known it is exact; elsewhere it is estimated from a walk at random.

    Args:
        name: of an environment that Gymnasium knows.
        contexts: as of `make_environments`; what is estimated needs them.
        env: arguments of the environment.
        frames: steps of the walk at random.
        gamma: discount.
        seed: of levels and of the walk.

    Raises:
        InputError, MissingError: as `make_environments`; an environment that tells no context or has no keys.
    """
    envs = make_environments(name, 64, contexts=contexts, seed=seed, env=env)
    world = world_of(envs)
    if world is not None:
        table = world.table(gamma)
        return [
            _read(key, shared_structure(table.values, keys, table.contexts), exact=True)
            for key, keys in table.keys.items()
        ]
    collector = Collector(envs)
    lived = _walk(collector, frames, Rng((seed, "diagnose")))
    first = next(lived)
    if first.context is None:
        raise InputError(f"{name} does not tell its contexts. Say how many there shall be: contexts=10.")
    if not first.rollout.keys:
        raise InputError(
            f"{name} has no keys: its observations are not whole numbers, and it gives none as info['pos'] or "
            "info['msg']. Wrap it in an environment that does."
        )
    rollouts = [first, *lived]
    rewards = _joined([one.rewards for one in rollouts])
    done = _joined([one.rollout.done for one in rollouts])
    context = _joined([one.context[:-1] for one in rollouts if one.context is not None])
    found = []
    for key in first.rollout.keys:
        keys = _joined([one.rollout.keys[key][:-1] for one in rollouts])
        found.append(_read(key, estimate_structure(rewards, done, keys, context, gamma=gamma), exact=False))
    return found


class Uniform:
    """A network that likes all actions the same."""

    memory = 0

    def __init__(self, actions: int) -> None:
        self.actions = actions

    def act(self, obs: Tensor, memory: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """See `Network`."""
        return torch.zeros(len(obs), self.actions), memory

    def sequence(self, obs: Tensor, memory: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """See `Network`."""
        return torch.zeros(*obs.shape[:2], self.actions), torch.zeros(obs.shape[:2])


def _walk(collector: Collector, frames: int, rng: Rng) -> Iterator[Collected]:
    """A step of all environments, and then so many more that it comes to `frames` in all."""
    if frames < 1:
        raise InputError(f"frames is {frames}; it must be at least 1.")
    collector.begin(rng.child("begin"))
    network, steps = Uniform(collector.actions), math.ceil(frames / collector.count)
    yield collector.collect(network, 1, rng.child(0))
    for done in range(1, steps, _CHUNK):
        yield collector.collect(network, min(_CHUNK, steps - done), rng.child(done))


def _joined(parts: list[Tensor]) -> np.ndarray:
    return torch.cat(parts).numpy()


def _read(key: str, structure: Structure, *, exact: bool) -> Diagnosis:
    largest = float(np.nanmax(np.abs(structure.values), initial=0.0))
    variance = structure.mean
    spread = math.sqrt(max(variance, 0.0)) / largest if largest > 0 and math.isfinite(variance) else math.nan
    favors, why = _advice(spread, len(structure.contexts))
    return Diagnosis(
        key=key,
        states=len(structure.keys),
        contexts=len(structure.contexts),
        exact=exact,
        variance=variance,
        spread=spread,
        favors=favors,
        why=why,
    )


def _advice(spread: float, contexts: int) -> tuple[Favors, str]:
    if math.isnan(spread):
        return "unknown", (
            "No reward was ever seen, so nothing is known of what states are worth. Take the product, which is hardly "
            "ever far from the better one, or diagnose with more frames."
        )
    if contexts == 1:
        return "global", (
            "There is one context, so what was seen once need not be seen again: a global bonus moves on from what is "
            "used up, where an episodic one is paid for the same dead end in every episode."
        )
    if spread < SHARED:
        return "global", (
            f"A state is worth nearly the same in all {contexts} contexts, so novelty over all of training points the "
            "same way in each, and a global bonus works; so may an episodic one."
        )
    if spread < APART:
        return "product", (
            f"What a state is worth varies somewhat over {contexts} contexts. The product of an episodic and a global "
            "bonus does not have to know how much."
        )
    return "episodic", (
        f"A state that is worth much in one of {contexts} contexts is worth little in another: a global bonus uses "
        "it up in the one and shuns it in the other. Take an episodic bonus, or the product."
    )
