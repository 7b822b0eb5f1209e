"""Counts of states: in an episode, and over all training. Exact; the mathematics is `reckon.bonuses.count_bonus`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from reckon.bonuses import How, count_bonus
from reckon.errors import InputError
from reckon.explore._rollout import Rollout, check_goes_on, check_keys, keys_named
from reckon.types import Metrics, Rng, State


class GlobalCount:
    """1 / sqrt(N) for a state that was visited N times in all of training, in any environment, this time included.

    First states of episodes are counted, and pay nobody. Environments that enter a state in the same step count each
    other, so that no environment comes before another.

    Args:
        key: the name of the keys that are counted.
        how: what a count is worth; see `reckon.bonuses.count_bonus`.
    """

    def __init__(self, *, key: str = "pos", how: How = "sqrt") -> None:
        _check_how("global_count", how)
        self.key, self.how = key, how
        self._counts: dict[int, int] = {}
        self._started = 0

    def start(self, obs: Tensor, keys: Mapping[str, Tensor]) -> None:
        """Counts the first states."""
        first = _first("global_count", self.key, obs, keys)
        self._started = len(first)
        self._visit(first)

    def score(self, rollout: Rollout) -> Tensor:
        """[T, N] in [0, 1]; 0 where the state entered is not at hand."""
        check_goes_on("global_count", self._started, rollout)
        keys, final = _keys_of("global_count", self.key, rollout)
        entered, known, done = rollout.entered(keys, final).tolist(), rollout.known(final), rollout.done
        shown, ended, begun = known.tolist(), done.any(dim=1).tolist(), keys[1:].tolist()
        counts = []
        for t, row in enumerate(entered):
            self._visit([key for key, seen in zip(row, shown[t], strict=True) if seen])
            counts.append([self._counts[key] if seen else 1 for key, seen in zip(row, shown[t], strict=True)])
            if ended[t]:
                self._visit([key for key, over in zip(begun[t], done[t].tolist(), strict=True) if over])
        return torch.where(known, _worth(counts, self.how, rollout), 0.0)

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Has learned while it scored; tells how many states it knows."""
        return {"known": float(len(self._counts))}

    def state_dict(self) -> State:
        """Every count."""
        return {
            "keys": torch.tensor(list(self._counts), dtype=torch.int64),
            "counts": torch.tensor(list(self._counts.values()), dtype=torch.int64),
            "environments": self._started,
        }

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        keys, counts = (cast("Tensor", state[name]).tolist() for name in ("keys", "counts"))
        self._counts = dict(zip(keys, counts, strict=True))
        self._started = cast("int", state["environments"])

    def _visit(self, keys: list[int]) -> None:
        for key in keys:
            self._counts[key] = self._counts.get(key, 0) + 1


class EpisodicCount:
    """1 for a state that is new in its episode, 0 for one that is not; or another worth of the count in the episode.

    The first state of an episode is counted and pays nothing, so that coming back to it is not new.

    Args:
        key: the name of the keys that are counted.
        how: "first" is the indicator, "sqrt" 1 / sqrt(N_e), "inverse" 1 / N_e; the present visit counts.
    """

    def __init__(self, *, key: str = "pos", how: How = "first") -> None:
        _check_how("episodic_count", how)
        self.key, self.how = key, how
        self._counts: list[dict[int, int]] = []  # of each environment's open episode

    def start(self, obs: Tensor, keys: Mapping[str, Tensor]) -> None:
        """Begins episodes."""
        self._counts = [{key: 1} for key in _first("episodic_count", self.key, obs, keys)]

    def score(self, rollout: Rollout) -> Tensor:
        """[T, N] in [0, 1]; 0 where the state entered is not at hand.

        Raises:
            InputError: an environment stands where it has not been: a rollout was left out.
        """
        check_goes_on("episodic_count", len(self._counts), rollout)
        keys, final = _keys_of("episodic_count", self.key, rollout)
        for number, key in enumerate(keys[0].tolist()):
            if key not in self._counts[number]:
                raise InputError(
                    f"episodic_count: the rollout begins with environment {number} in a state that its episode has not "
                    "met. Score every rollout, in order, or call start(obs, keys) where episodes begin."
                )
        entered, begun, known = rollout.entered(keys, final).tolist(), keys[1:].tolist(), rollout.known(final)
        over: list[list[bool]] = rollout.done.tolist()
        counts: list[list[int]] = []
        for t, row in enumerate(entered):
            counts.append([])
            for number, key in enumerate(row):
                memory = self._counts[number]
                memory[key] = memory.get(key, 0) + 1
                counts[t].append(memory[key])
                if over[t][number]:
                    self._counts[number] = {begun[t][number]: 1}
        return torch.where(known, _worth(counts, self.how, rollout), 0.0)

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Has nothing to learn; tells how many states the open episodes have met, on average."""
        return {"known": sum(map(len, self._counts)) / max(len(self._counts), 1)}

    def state_dict(self) -> State:
        """The counts of open episodes."""
        rows = [(number, key, count) for number, counts in enumerate(self._counts) for key, count in counts.items()]
        return {
            "visits": torch.tensor(rows, dtype=torch.int64).reshape(-1, 3),  # environment, key, count
            "environments": len(self._counts),
        }

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        self._counts = [{} for _ in range(cast("int", state["environments"]))]
        for number, key, count in cast("Tensor", state["visits"]).tolist():
            self._counts[number][key] = count


def _check_how(owner: str, how: str) -> None:
    if how not in ("inverse", "sqrt", "first"):
        raise InputError(f"{owner}: `how` is {how!r}; it must be first, sqrt or inverse.")


def _first(owner: str, key: str, obs: Tensor, keys: Mapping[str, Tensor]) -> list[int]:
    """The keys of N first states."""
    found = keys_named(owner, key, keys)
    check_keys(owner, {key: found}, (len(obs),))
    first: list[int] = found.tolist()
    return first


def _keys_of(owner: str, key: str, rollout: Rollout) -> tuple[Tensor, Tensor | None]:
    """[T + 1, N], and [M] where the keys of final observations are at hand."""
    return keys_named(owner, key, rollout.keys), rollout.final_keys.get(key)


def _worth(counts: list[list[int]], how: How, rollout: Rollout) -> Tensor:
    return count_bonus(torch.tensor(counts), how).to(rollout.obs.device)
