"""What contexts share: how much the value of a state varies over them, which says what kind of bonus can work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reckon.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """The values of Z states in C contexts, and how they vary.

    `mean` near 0: a state is worth the same everywhere, so what was used up in one context is used up in all, and
    global bonuses work. Far above 0: they send agents away from states that are worth it in this context, and episodic
    bonuses are the safe choice, as long as one episode can cover what matters. The product is near the better of both
    (Henaff et al. 2023, arXiv:2306.03236).
    """

    mean: float  # of `variance`; NaN = it cannot be told
    keys: Integers  # [Z], ascending
    contexts: Integers  # [C], ascending
    values: Floats  # [Z, C]
    variance: Floats  # [Z], over contexts, divided by C; NaN where it cannot be told


def shared_structure(values: Floats, keys: Integers, contexts: Integers) -> Structure:
    """The variance over contexts of a state's value, from values that are known.

    V_c(z) is the least value in context c of all states with key z (Henaff et al. 2023), and 0 if it has none. The
    answer depends on what is taken for a state: positions may vary where messages do not.

    Args:
        values: [M] float, V*(s) of a state in a context, in any order.
        keys: [M] int64, the state's key.
        contexts: [M] int64, the context.

    Raises:
        InputError: shapes differ, there are none, a value is not finite, or keys or contexts are no integers.
    """
    values, keys, contexts = _checked(values, keys, contexts)
    all_keys, rows = np.unique(keys, return_inverse=True)
    all_contexts, columns = np.unique(contexts, return_inverse=True)
    table = np.full((len(all_keys), len(all_contexts)), np.inf)
    np.minimum.at(table, (rows, columns), values)
    table[np.isinf(table)] = 0.0
    variance = table.var(axis=1)
    return Structure(mean=float(variance.mean()), keys=all_keys, contexts=all_contexts, values=table, variance=variance)


def estimate_structure(
    rewards: Floats,
    done: NDArray[np.bool_],
    keys: Integers,
    contexts: Integers,
    *,
    gamma: float = 0.99,
    unvisited: Literal["zero", "skip"] = "zero",
) -> Structure:
    """The variance over contexts of a state's value, from what an agent lived through.

    A value is the mean discounted return from the first visit of a state in an episode, over episodes that came to
    their end: that of the agent's policy, and not of the best. First visits of different episodes are independent,
    which later visits of one episode, that share what follows, are not. Means of few episodes vary for that alone; what
    they vary by chance is taken off, (1 - 1/C) times the mean of s^2 / n over contexts, which leaves an unbiased
    estimate that may fall below 0. s^2 is the variance of returns in one context and state, pooled over all where there
    is one episode alone; where there is no more than one in any, chance cannot be told and nothing is taken off.

    Args:
        rewards: [T, N] float, the task's own, without bonuses.
        done: [T, N] bool, an episode ended with this step.
        keys: [T, N] int64, of the state each action was chosen in.
        contexts: [T, N] int64.
        gamma: in [0, 1].
        unvisited: a state that was never met in a context is worth nothing there ("zero"), as one that cannot be
            reached, or is left out of its variance ("skip"), which needs states that were met in two contexts.

    Returns:
        `mean` is NaN where no reward was ever seen, for then nothing is known of values, and where no state can be
        compared. `values` is NaN where a state was not visited, with "skip".

    Raises:
        InputError: shapes differ, no episode came to its end, or a reward is not finite.
    """
    if not 0 <= gamma <= 1:
        raise InputError(f"structure: `gamma` is {gamma}; it must be in [0, 1].")
    if unvisited not in ("zero", "skip"):
        raise InputError(f"structure: `unvisited` is {unvisited!r}; it must be zero or skip.")
    rewards = np.asarray(rewards, dtype=np.float64)
    returns, whole = _returns(rewards, np.asarray(done, dtype=bool), gamma)
    if np.shape(keys) != returns.shape or np.shape(contexts) != returns.shape:
        raise InputError(f"structure: keys and contexts must be of shape {returns.shape}, as rewards are.")
    if not whole.any():
        raise InputError("structure: no episode came to its end. Give longer rollouts.")
    first = whole & _first_visits(np.asarray(done, dtype=bool), np.asarray(keys))
    given, keys, contexts = _checked(returns[first], np.asarray(keys)[first], np.asarray(contexts)[first])
    all_keys, rows = np.unique(keys, return_inverse=True)
    all_contexts, columns = np.unique(contexts, return_inverse=True)
    means, noise, visited = _cells(given, rows, columns, (len(all_keys), len(all_contexts)))
    if unvisited == "zero":
        means, counted = np.where(visited, means, 0.0), np.ones_like(visited)
    else:
        means, counted = np.where(visited, means, np.nan), visited
    c = counted.sum(axis=1)
    enough = c > 1 if unvisited == "skip" else c > 0
    center = np.where(counted, means, 0.0).sum(axis=1) / c
    spread = np.where(counted, (means - center[:, None]) ** 2, 0.0).sum(axis=1) / c
    variance = np.where(enough, spread - (1 - 1 / c) * noise.sum(axis=1) / c, np.nan)
    known = enough.any() and bool((rewards != 0).any())
    return Structure(
        mean=float(np.nanmean(variance)) if known else float("nan"),
        keys=all_keys,
        contexts=all_contexts,
        values=means,
        variance=variance,
    )


def _returns(rewards: Floats, done: NDArray[np.bool_], gamma: float) -> tuple[Floats, NDArray[np.bool_]]:
    """[T, N]: discounted rewards to the episode's end, and whether that was seen."""
    if rewards.ndim != 2 or done.shape != rewards.shape:
        raise InputError(f"structure: rewards {rewards.shape} and done {done.shape} must both be [T, N].")
    returns, whole = np.zeros_like(rewards), np.zeros(rewards.shape, dtype=bool)
    ahead, seen = np.zeros(rewards.shape[1]), np.zeros(rewards.shape[1], dtype=bool)
    for t in reversed(range(len(rewards))):
        ahead = rewards[t] + gamma * np.where(done[t], 0.0, ahead)
        seen = seen | done[t]
        returns[t], whole[t] = ahead, seen
    return returns, whole


def _first_visits(done: NDArray[np.bool_], keys: Integers) -> NDArray[np.bool_]:
    """[T, N]: whether a key is met for the first time in its episode."""
    before: Integers = np.cumsum(done, axis=0) - done  # episodes of the same column that ended earlier
    episode = before * done.shape[1] + np.arange(done.shape[1])
    pairs = np.stack([episode.ravel(), keys.ravel()])  # in order of time, of which `unique` finds the first
    first = np.zeros(done.size, dtype=bool)
    first[np.unique(pairs, axis=1, return_index=True)[1]] = True
    return first.reshape(done.shape)


def _cells(
    values: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, int]
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """[Z, C]: the mean in each cell, what it varies by chance (0 where there is no value), and whether there is one."""
    count, total, squares = (np.zeros(shape) for _ in range(3))
    np.add.at(count, (rows, columns), 1.0)
    np.add.at(total, (rows, columns), values)
    visited = count > 0
    means = total / np.maximum(count, 1)
    np.add.at(squares, (rows, columns), (values - means[rows, columns]) ** 2)
    freedom = np.maximum(count - 1, 0)
    pooled = squares.sum() / max(freedom.sum(), 1.0)
    within = np.where(count > 1, squares / np.maximum(freedom, 1), pooled)
    return means, np.where(visited, within / np.maximum(count, 1), 0.0), visited


def _checked(values: Floats, keys: Integers, contexts: Integers) -> tuple[Floats, Integers, Integers]:
    values = np.asarray(values, dtype=np.float64)
    found = []
    for name, numbers in (("keys", np.asarray(keys)), ("contexts", np.asarray(contexts))):
        if numbers.dtype.kind not in "iu":
            raise InputError(f"structure: {name} are {numbers.dtype}; they must be integers. See explore.key_of.")
        if numbers.shape != values.shape or values.ndim != 1:
            raise InputError(f"structure: {name} {numbers.shape} and values {values.shape} must be of one shape [M].")
        found.append(numbers.astype(np.int64))
    if not len(values):
        raise InputError("structure: there are no values.")
    if not np.isfinite(values).all():
        place = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"structure: value {place} is {values[place]}; all must be finite.")
    return values, found[0], found[1]
