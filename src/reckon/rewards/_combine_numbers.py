"""Several rewards as one number, each response by itself: sums, minima, ensembles, products, bounds, base samples.

The mathematics is `reckon.combinations`. What each part says is watched under its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from reckon import combinations
from reckon.errors import InputError, RunError
from reckon.rewards._combine_parts import (
    Asking,
    Missing,
    Node,
    Said,
    check_missing,
    check_parts,
    check_reward,
    check_weights,
    number,
    numbers,
    weight_vector,
    with_unknown,
)
from reckon.rewards._references import ReferenceStore, as_references, references_state, restore_references
from reckon.types import Reward, State, Stream


@dataclass(frozen=True)
class Linear(Node):
    """The weighted sum as one number: the baseline of every comparison, in which one reward can pay for another.

    `Sum` keeps its parts apart and lets the advantage add them; this one adds at once, to stand inside another node.
    """

    parts: Mapping[str, Reward]
    weights: Mapping[str, float] = field(default_factory=dict)  # by part; 1 where none is given
    missing: Missing = "unknown"  # or "left_out"

    def __post_init__(self) -> None:
        check_parts(self._kind, self.parts)
        check_weights(self._kind, self.parts, self.weights, least=-math.inf)
        check_missing(self._kind, self.missing)

    def _said(self, asking: Asking) -> Said:
        rewards, watched = numbers(self._kind, asking, self.parts)
        total = combinations.linear(rewards, weight_vector(self.parts, self.weights, rewards))
        return Said(with_unknown(total, rewards, asking, self.missing), watched)


@dataclass(frozen=True)
class Min(Node):
    """The worst part. `temperature` above 0 softens it: -t log mean exp(-z / t), which nears the mean for a large t.

    Parts must be on one scale: center them, or take log-probabilities.
    """

    parts: Mapping[str, Reward]
    temperature: float = 0.0  # in the units of the parts
    missing: Missing = "unknown"  # or "left_out"

    def __post_init__(self) -> None:
        check_parts(self._kind, self.parts)
        check_missing(self._kind, self.missing)
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"min: `temperature` is {self.temperature}; it must be 0 or larger, and finite.")

    def _said(self, asking: Asking) -> Said:
        z, watched = numbers(self._kind, asking, self.parts)
        worst = combinations.softmin(z, self.temperature) if self.temperature else combinations.min_(z)
        return Said(with_unknown(worst, z, asking, self.missing), watched)


@dataclass(frozen=True)
class Ensemble(Node):
    """Several models of one property, taken pessimistically (Coste et al. 2024, arXiv:2310.02743).

    "min" takes the lowest (worst-case optimization), "uwo" the mean less `coef` times the variance.
    """

    parts: Mapping[str, Reward]
    how: Literal["min", "uwo"] = "uwo"
    coef: float = 1.0  # of "uwo": what disagreement costs
    missing: Missing = "unknown"  # or "left_out"

    def __post_init__(self) -> None:
        check_parts(self._kind, self.parts)
        check_missing(self._kind, self.missing)
        if self.how not in ("min", "uwo"):
            raise InputError(f"ensemble: `how` is {self.how!r}; it must be min or uwo.")
        if not 0 <= self.coef < math.inf:
            raise InputError(f"ensemble: `coef` is {self.coef}; it must be 0 or larger, and finite.")

    def _said(self, asking: Asking) -> Said:
        rewards, watched = numbers(self._kind, asking, self.parts)
        least = self.how == "min"
        value = combinations.ensemble_min(rewards) if least else combinations.ensemble_uwo(rewards, self.coef)
        return Said(with_unknown(value, rewards, asking, self.missing), watched)


@dataclass(frozen=True)
class Product(Node):
    """The product of probabilities: `And` without the logarithm, so that it fades where one part is near 0.

    Every part gives numbers from 0 to 1; another is a RunError.
    """

    parts: Mapping[str, Reward]
    missing: Missing = "unknown"  # or "left_out"

    def __post_init__(self) -> None:
        check_parts(self._kind, self.parts)
        check_missing(self._kind, self.missing)

    def _said(self, asking: Asking) -> Said:
        probabilities, watched = numbers(self._kind, asking, self.parts)
        outside = ((probabilities < 0) | (probabilities > 1)).nonzero()
        if len(outside):
            part, row = outside[0].tolist()
            raise RunError(
                f"product: {list(self.parts)[part]!r} gave {float(probabilities[part, row]):g} for row {row}, and a"
                " probability lies between 0 and 1. Bound it with `Clip`, or compare it with `BaseSamples`."
            )
        value = combinations.product(probabilities)
        return Said(with_unknown(value, probabilities, asking, self.missing), watched)


@dataclass(frozen=True, kw_only=True)
class Clip(Node):
    """A reward held between two bounds."""

    reward: Reward
    low: float
    high: float

    def __post_init__(self) -> None:
        check_reward(self._kind, "reward", self.reward)
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"clip: `low` ({self.low}) must be below `high` ({self.high}), and both finite.")

    def _said(self, asking: Asking) -> Said:
        said = number(self._kind, asking, "reward", self.reward)
        return Said(combinations.clip(said.value, self.low, self.high), said.watched)


@dataclass(frozen=True, kw_only=True)
class BaseSamples(Node):
    """How a response does against the base model's samples for its prompt, from 0 to 1.

    "sigmoid" is the mean chance of beating one of them, sigmoid(r - r_ref) (PAR, arXiv:2502.18770): few samples will
    do, and it is flat far above and far below. "rank" is the share it is at least as good as (arXiv:2507.08068): blind
    to how much better. Saved and restored with the run, as the references of `Centered` are.
    """

    reward: Reward
    references: str | Path | ReferenceStore  # a store, or the file of one
    how: Literal["sigmoid", "rank"] = "sigmoid"
    key: str = ""  # which of the store's rewards this is; may be left out where it has only one

    def __post_init__(self) -> None:
        check_reward(self._kind, "reward", self.reward)
        if self.how not in ("sigmoid", "rank"):
            raise InputError(f"base_samples: `how` is {self.how!r}; it must be sigmoid or rank.")
        object.__setattr__(self, "references", as_references(self._kind, self.references, self.key))

    def state_dict(self) -> State:
        """The references, and the memory of the reward."""
        return references_state(self.reward, self.references)

    def load_state_dict(self, state: State) -> None:
        """Takes the run's references back, whatever the file holds by now."""
        restore_references(self._kind, self.reward, self.references, state)

    def _said(self, asking: Asking) -> Said:
        said = number(self._kind, asking, "reward", self.reward)
        assert isinstance(self.references, ReferenceStore)
        stored, known = self.references.samples(self.key, asking.batch.rollouts.problems)
        group = asking.batch.seq.group
        references, lacking = stored.to(said.value)[:, group], (~known).to(said.value)[group]
        compare = combinations.sigmoid_centered if self.how == "sigmoid" else combinations.quantile_reward
        watched = {"no_reference": Stream(values=lacking, train=False)}
        return Said(torch.as_tensor(compare(said.value, references)), said.watched | watched)
