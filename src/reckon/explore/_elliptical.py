"""The elliptical bonus of agents that walk (E3B). The mathematics is `reckon.bonuses`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor

from reckon.bonuses import elliptical_step
from reckon.errors import InputError, RunError
from reckon.explore._features import read, read_rollout
from reckon.explore._rollout import Features, Rollout, check_goes_on
from reckon.types import Metrics, Rng, State


class Elliptical:
    """phi' C^-1 phi of a state with features phi, where C = ridge I + the sum of phi_i phi_i' over those before (E3B).

    Henaff et al. 2022, arXiv:2210.05805. With one-hot features it is 1 / (visits before + ridge): the inverse of the
    ridge is the bonus of a direction that was never met. The first state of an episode enters C and pays nothing.

    Args:
        features: phi. They belong to this bonus, which lets them learn.
        ridge: above 0.
        memory: "episode" begins C anew with each episode, for each environment; by Sherman and Morrison, D^2 numbers
            for each and as many steps. "run" never does: one C for all environments, refactored in each step; states
            entered in the same step are compared with all before it and not with each other.
        on: "next" pays an action for the state it led to; "current" for the one it was chosen on, as released code
            does, where the last state of an episode is never paid for.
        dtype: of C. Float64 needs no renewal; float32 takes half the memory and is off by 1e-4 after 1,000 steps.
    """

    def __init__(
        self,
        features: Features,
        *,
        ridge: float = 0.1,
        memory: Literal["episode", "run"] = "episode",
        on: Literal["next", "current"] = "next",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if not 0 < ridge < math.inf:
            raise InputError(f"elliptical: `ridge` is {ridge}; it must be above 0, and finite.")
        for name, value, choices in (("memory", memory, ("episode", "run")), ("on", on, ("next", "current"))):
            if value not in choices:
                raise InputError(f"elliptical: `{name}` is {value!r}; it must be {choices[0]} or {choices[1]}.")
        self.features, self.ridge, self.memory, self.on, self.dtype = features, ridge, memory, on, dtype
        # "episode": C^-1 of each environment, [N, D, D]; "run": C, [D, D].
        self._matrix = torch.zeros(0)
        self._first = torch.zeros(0, dtype=torch.bool)  # [N]: does the environment stand at the start of an episode
        self._length = 0.0  # mean |phi| of the last rollout

    def start(self, obs: Tensor, keys: Mapping[str, Tensor]) -> None:
        """Begins episodes with the first states in memory."""
        found = read("elliptical", self.features, obs).to(self.dtype)
        if self.memory == "episode":
            self._matrix = self._begun(found, (len(obs),)) / self.ridge
        elif not len(self._matrix):
            self._matrix = self.ridge * self._begun(found, ())
        self._first = torch.ones(len(obs), dtype=torch.bool, device=obs.device)
        if self.on == "next":
            self._enter(found, self._first)

    def score(self, rollout: Rollout) -> Tensor:
        """[T, N]; 0 where the state is not at hand, and for on="current" where it is the first of its episode.

        Raises:
            RunError: a feature is not finite, or all are too large for the memory of a run.
        """
        check_goes_on("elliptical", len(self._first), rollout)
        found, final = read_rollout("elliptical", self.features, rollout)
        self._length = float(found.norm(dim=2).mean())
        found, done = found.to(self.dtype), rollout.done
        ended = done.any(dim=1).tolist()
        after = rollout.entered(found, None if final is None else final.to(self.dtype))
        known = rollout.known(final)
        paid = torch.zeros(done.shape, dtype=self.dtype, device=found.device)
        for t, some in enumerate(ended):
            if self.on == "next":
                paid[t] = self._enter(after[t], known[t])
            else:
                paid[t] = torch.where(self._first, 0.0, self._enter(found[t], torch.ones_like(self._first)))
            self._first = done[t]
            if some:
                self._forget(done[t])
                if self.on == "next":
                    self._enter(found[t + 1], done[t])
        return paid.float()

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Lets the features learn. `length` is the mean of |phi|; squared, over the ridge, it is a first bonus."""
        return {"length": self._length, **self.features.learn(rollout, rng)}

    def state_dict(self) -> State:
        """The memory, of open episodes too, and the features."""
        return {"matrix": self._matrix.clone(), "first": self._first.clone(), "features": self.features.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            InputError: the saved memory is of other features.
        """
        matrix = cast("Tensor", state["matrix"])
        if matrix.shape[-1] not in (0, self.features.size):
            raise InputError(
                f"elliptical: the saved memory is of {matrix.shape[-1]} features, and these are {self.features.size}. "
                "Build it with the settings that the run was begun with."
            )
        if matrix.ndim != (3 if self.memory == "episode" else 2) and len(matrix):
            raise InputError(f"elliptical: what was saved is not a memory of the {self.memory}. Keep `memory`.")
        self._matrix, self._first = matrix.clone(), cast("Tensor", state["first"]).clone()
        self.features.load_state_dict(cast("State", state["features"]))

    def _begun(self, found: Tensor, lead: tuple[int, ...]) -> Tensor:
        size = found.shape[1]
        return torch.eye(size, dtype=self.dtype, device=found.device).expand(*lead, size, size).clone()

    def _enter(self, found: Tensor, rows: Tensor) -> Tensor:
        """[N]: bonuses of states [N, D] before they enter; where `rows` is False it is 0 and nothing enters."""
        if self.memory == "run":
            factor, failed = torch.linalg.cholesky_ex(self._matrix)
            if bool(failed):
                raise RunError(
                    "elliptical: its features are so large that they cannot be compared any more. Put "
                    "a layer normalization at the encoder's end, or take a larger `ridge`."
                )
            bonus = torch.linalg.solve_triangular(factor, found.T, upper=False).square().sum(dim=0)
            self._matrix = self._matrix + found[rows].T @ found[rows]
        elif bool(rows.all()):
            bonus, self._matrix = elliptical_step(self._matrix, found)
        else:
            bonus = torch.zeros(len(found), dtype=self.dtype, device=found.device)
            bonus[rows], self._matrix[rows] = elliptical_step(self._matrix[rows], found[rows])
        return torch.where(rows, bonus, 0.0)

    def _forget(self, rows: Tensor) -> None:
        """Begins the memory of these environments anew, if it is one of episodes."""
        if self.memory == "episode":
            self._matrix[rows] = torch.eye(self.features.size, dtype=self.dtype, device=rows.device) / self.ridge
