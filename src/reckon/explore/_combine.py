"""Bonuses together, and the scale they are paid on. The mathematics is `reckon.bonuses` and `reckon.combinations`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor

from reckon import bonuses
from reckon.combinations import merged_moments, updated_moments
from reckon.errors import InputError
from reckon.explore._rollout import Bonus, Rollout
from reckon.types import Metrics, Rng, State


class Combined:
    """Several bonuses as one: their product, or a weighted sum.

    A product pays what is new in every sense at once, as in the episode and in all of training (Henaff et al. 2023,
    arXiv:2306.03236, the best of those compared there), and does not care for its parts' scales. In a sum what fades
    over training leaves the rest alone.

    Args:
        parts: by name; the name stands before the numbers each part logs.
        how: "product" or "sum".
        weights: of a sum, by part; 1 where none is given.
    """

    def __init__(
        self,
        parts: Mapping[str, Bonus],
        *,
        how: Literal["product", "sum"] = "product",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if len(parts) < 2:
            raise InputError(f"combined: {len(parts)} parts are too few. Give two or more, or take the part itself.")
        if how not in ("product", "sum"):
            raise InputError(f"combined: `how` is {how!r}; it must be product or sum.")
        if weights and how == "product":
            raise InputError("combined: `weights` are those of a sum; the scale of a product is the agent's to choose.")
        for name, weight in (weights or {}).items():
            if name not in parts:
                raise InputError(f"combined: there is a weight of {name!r}, and the parts are {', '.join(parts)}.")
            if not 0 <= weight < math.inf:
                raise InputError(f"combined: the weight of {name!r} is {weight}; it must be 0 or more, and finite.")
        if len({id(part) for part in parts.values()}) < len(parts):
            raise InputError("combined: one object stands for two parts. Build each anew: a part is asked once.")
        self.parts, self.how, self.weights = dict(parts), how, dict(weights or {})
        self._means: Metrics = {}

    def start(self, obs: Tensor, keys: Mapping[str, Tensor]) -> None:
        """Starts all parts."""
        for part in self.parts.values():
            part.start(obs, keys)

    def score(self, rollout: Rollout) -> Tensor:
        """[T, N]."""
        found = torch.stack([part.score(rollout) for part in self.parts.values()])
        self._means = {f"{name}/mean": float(values.mean()) for name, values in zip(self.parts, found, strict=True)}
        if self.how == "product":
            return bonuses.product(found.flatten(1)).reshape(found.shape[1:])
        weights = torch.tensor([self.weights.get(name, 1.0) for name in self.parts], device=found.device)
        return bonuses.weighted_sum(found.flatten(1), weights).reshape(found.shape[1:])

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Lets all parts learn. PART/mean is what the part gave to the rollout, before it was combined."""
        told = dict(self._means)
        for name, part in self.parts.items():
            told |= {f"{name}/{number}": value for number, value in part.learn(rollout, rng.child(name)).items()}
        return told

    def state_dict(self) -> State:
        """Of all parts."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            InputError: other parts were saved.
        """
        if set(state) != set(self.parts):
            raise InputError(f"combined: {', '.join(state)} were saved, and the parts are {', '.join(self.parts)}.")
        for name, part in self.parts.items():
            part.load_state_dict(cast("State", state[name]))


class Normalized:
    """A bonus in its standard deviations so far, those of the rollout at hand included; not centered.

    Not centered, it stays at least 0, and what all states have in common is paid too: an agent may find that staying
    alive is enough. Watch the length of episodes.

    Args:
        bonus: what is normalized.
        norm: "std"; "none" leaves it as it is; "reference" divides by what the released code of Henaff et al. 2023
            divides by, which grows with the number of environments: see `reckon.bonuses.released_moments`.
        decay: what the rollouts before still count after each, in (0, 1]. Below 1 the large bonuses of the first ones
            are forgotten.
        terminal: pay the action that ended an episode, too. False pays nothing where a task was over, so that there is
            no bonus for dying; where only time was up it is paid in any case.
    """

    def __init__(
        self,
        bonus: Bonus,
        *,
        norm: Literal["std", "reference", "none"] = "std",
        decay: float = 1.0,
        terminal: bool = False,
    ) -> None:
        if norm not in ("std", "reference", "none"):
            raise InputError(f"normalized: `norm` is {norm!r}; it must be std, reference or none.")
        if not 0 < decay <= 1:
            raise InputError(f"normalized: `decay` is {decay}; it must be above 0 and at most 1.")
        if decay != 1 and norm == "none":
            raise InputError("normalized: norm='none' does not read `decay`. Leave it out.")
        self.bonus, self.norm, self.decay, self.terminal = bonus, norm, decay, terminal
        self._moments = (0.0, 0.0, 0.0)  # count, mean, summed squared distances
        self._mean = 0.0

    @property
    def deviation(self) -> float:
        """What is divided by; 0, and then nothing is divided, while nothing has varied."""
        count, _, squares = self._moments
        return math.sqrt(squares / count) if count else 0.0

    def start(self, obs: Tensor, keys: Mapping[str, Tensor]) -> None:
        """Starts the bonus."""
        self.bonus.start(obs, keys)

    def score(self, rollout: Rollout) -> Tensor:
        """[T, N]."""
        found = self.bonus.score(rollout)
        if not self.terminal:
            found = torch.where(rollout.terminated, 0.0, found)
        if self.norm == "std":
            self._moments = updated_moments(*self._moments, found, decay=self.decay)
        elif self.norm == "reference":
            self._moments = merged_moments(self._moments, bonuses.released_moments(found), decay=self.decay)
        self._mean = float(found.mean())
        return bonuses.in_deviations(found, self.deviation)

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Lets the bonus learn. `mean` is the rollout's before it was divided by `deviation`."""
        return {"mean": self._mean, "deviation": self.deviation, **self.bonus.learn(rollout, rng)}

    def state_dict(self) -> State:
        """The moments, and the bonus."""
        return {"moments": list(self._moments), "bonus": self.bonus.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        count, mean, squares = cast("list[float]", state["moments"])
        self._moments = (count, mean, squares)
        self.bonus.load_state_dict(cast("State", state["bonus"]))
