"""Rewards that depend on more than the response: on its siblings, or on what came before.

The mathematics is `reckon.combinations`. What each part says is watched under its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

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
    path,
    weight_vector,
    with_unknown,
)
from reckon.types import Reward, State, Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NormalizeThenSum(Node):
    """Each part's z-score among the responses to a prompt, then the weighted sum, then whitened over the batch (GDPO).

    Liu et al. 2026, arXiv:2601.05242. Compares responses to one prompt, so it needs several: a lone response is
    unknown, and a step in which all are alone is an error. Take an advantage that does not divide by the group's
    deviation again, such as `GroupNormalized(std=False)` or `BatchMean`.
    """

    parts: Mapping[str, Reward]
    weights: Mapping[str, float] = field(default_factory=dict)  # by part; 1 where none is given
    whiten: bool = True
    eps: float = 1e-4  # added to every standard deviation
    missing: Missing = "unknown"  # or "left_out"

    def __post_init__(self) -> None:
        check_parts(self._kind, self.parts)
        check_weights(self._kind, self.parts, self.weights, least=-math.inf)
        check_missing(self._kind, self.missing)
        _check_eps(self._kind, self.eps)

    @property
    def group_level(self) -> bool:
        """It compares responses to one prompt."""
        return True

    def _said(self, asking: Asking) -> Said:
        compared = _compared(self._kind, asking)
        rewards, watched = numbers(self._kind, asking, self.parts)
        weights = weight_vector(self.parts, self.weights, rewards)
        total = combinations.normalize_then_sum(
            torch.where(compared, rewards, torch.nan), asking.batch.seq.group, weights, eps=self.eps, whiten=self.whiten
        )
        return Said(with_unknown(total, rewards, asking, self.missing), watched)


class _Learning(Node):
    """A node with numbers of its own, saved with its parts' memories; it moves them in `_said` when it assesses."""

    _statistics: dict[str, float]

    def state_dict(self) -> State:
        """The node's own numbers, and the memory of the parts that have one."""
        own: State = dict(self._statistics)
        return {"parts": super().state_dict(), "statistics": own}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            RunError: the state is that of another node.
        """
        saved, inner = state.get("statistics"), state.get("parts")
        if not isinstance(saved, Mapping) or not isinstance(inner, Mapping):
            raise RunError(
                f"{self._kind}: the checkpoint holds no statistics. Resume with the recipe the run was begun with."
            )
        super().load_state_dict(inner)
        self._statistics = dict(cast("Mapping[str, float]", saved))


@dataclass(kw_only=True)
class Standardized(_Learning):
    """A reward less a mean, in standard deviations: of its group ("group") or of all responses so far ("running").

    "group" is a z-score among the responses to a prompt: it takes away what tells an easy prompt from a hard one, and
    blows up small differences. "running" takes the batch at hand into account first, and only in `assess`.
    """

    reward: Reward
    over: Literal["group", "running"] = "running"
    eps: float = 1e-5  # added to the standard deviation

    def __post_init__(self) -> None:
        check_reward(self._kind, "reward", self.reward)
        _check_eps(self._kind, self.eps)
        if self.over not in ("group", "running"):
            raise InputError(f"standardized: `over` is {self.over!r}; it must be group or running.")
        self._statistics = {"count": 0.0, "mean": 0.0, "squares": 0.0}

    @property
    def group_level(self) -> bool:
        """Whether it, or the reward in it, compares responses to one prompt."""
        return self.over == "group" or super().group_level

    def _said(self, asking: Asking) -> Said:
        return self._in_group(asking) if self.over == "group" else self._so_far(asking)

    def _in_group(self, asking: Asking) -> Said:
        compared = _compared(self._kind, asking)
        said = number(self._kind, asking, "reward", self.reward)
        value = torch.where(compared, said.value, torch.nan)
        return Said(combinations.zscore(value, asking.batch.seq.group, self.eps), said.watched)

    def _so_far(self, asking: Asking) -> Said:
        said = number(self._kind, asking, "reward", self.reward)
        if asking.assesses:
            self._learn(said.value)
        count, mean, squares = (self._statistics[name] for name in ("count", "mean", "squares"))
        if count == 0:
            return Said(torch.full_like(said.value, torch.nan), said.watched)
        value = combinations.standardized(said.value, mean, math.sqrt(squares / count), self.eps)
        return Said(value, said.watched)

    def _learn(self, values: Tensor) -> None:
        count, mean, squares = (self._statistics[name] for name in ("count", "mean", "squares"))
        count, mean, squares = combinations.updated_moments(count, mean, squares, values)
        self._statistics = {"count": count, "mean": mean, "squares": squares}


@dataclass(kw_only=True)
class MinMax(_Learning):
    """A reward from 0 to 1 between the lowest and the highest so far, the batch at hand included."""

    reward: Reward

    def __post_init__(self) -> None:
        check_reward(self._kind, "reward", self.reward)
        self._statistics = {}  # not yet infinity, which JSON has not

    def _said(self, asking: Asking) -> Said:
        said = number(self._kind, asking, "reward", self.reward)
        known = said.value[~said.value.isnan()]
        low, high = self._statistics.get("low", math.inf), self._statistics.get("high", -math.inf)
        if asking.assesses and len(known):
            low, high = min(low, float(known.min())), max(high, float(known.max()))
            self._statistics = {"low": low, "high": high}
        if low > high:
            return Said(torch.full_like(said.value, torch.nan), said.watched)
        return Said(combinations.minmax(said.value, low, high), said.watched)


@dataclass(kw_only=True)
class Constrained(_Learning):
    """A reward less what exceeds its limits: each cost has a price that rises while its mean is above its limit.

    r - sum of lam_k (c_k - d_k), and after each step lam_k <- max(0, lam_k + lr (mean c_k - d_k)) (Dai et al. 2024,
    arXiv:2310.12773). A step is scored at the prices before it. The prices are watched as `NAME.price`.
    """

    reward: Reward
    costs: Mapping[str, Reward]
    limits: Mapping[str, float]  # what the mean of each cost may be, by name
    lr: float = 0.1
    start: float = 1.0  # every price at first

    def __post_init__(self) -> None:
        check_reward(self._kind, "reward", self.reward)
        check_parts(self._kind, self.costs)
        if "reward" in self.costs:
            raise InputError("constrained: a cost cannot be named 'reward'; that is the reward's own stream.")
        if set(self.limits) != set(self.costs) or not all(map(math.isfinite, self.limits.values())):
            raise InputError(
                f"constrained: `limits` is {dict(self.limits)}; it must give a finite number for each of"
                f" {', '.join(self.costs)}."
            )
        for name, least in (("lr", 1e-12), ("start", 0.0)):
            value = getattr(self, name)
            if not least <= value < math.inf:
                bound = "above 0" if least else "0 or larger"
                raise InputError(f"constrained: `{name}` is {value}; it must be {bound}, and finite.")
        self._statistics = dict.fromkeys(self.costs, float(self.start))  # the prices

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            RunError: the prices are of other costs.
        """
        super().load_state_dict(state)
        if set(self._statistics) != set(self.costs):
            raise RunError(
                f"constrained: the checkpoint has prices of {sorted(self._statistics)}, and the costs are"
                f" {sorted(self.costs)}. Resume with the recipe the run was begun with."
            )

    def _said(self, asking: Asking) -> Said:
        said = number(self._kind, asking, "reward", self.reward)
        costs, watched = numbers(self._kind, asking, self.costs)
        limits, prices = (
            torch.tensor([one[name] for name in self.costs], dtype=costs.dtype, device=costs.device)
            for one in (self.limits, self._statistics)
        )
        value = combinations.constrained(said.value, costs, limits, prices)
        told = {
            path(name, "price"): Stream(values=torch.full_like(value, self._statistics[name]), train=False)
            for name in self.costs
        }
        if asking.assesses:
            moved = combinations.updated_multipliers(prices, costs, limits, self.lr).tolist()
            self._statistics = dict(zip(self.costs, moved, strict=True))
        return Said(value, said.watched | watched | told)


def _compared(owner: str, asking: Asking) -> Tensor:
    """[N] bool: the responses that have siblings to be compared with.

    Raises:
        RunError: the batch is to be assessed, and no prompt has two responses.
    """
    _, place, count = torch.unique(asking.batch.seq.group, return_inverse=True, return_counts=True)
    compared: Tensor = count[place] > 1
    if asking.assesses and not bool(compared.any()):
        raise RunError(
            f"{owner}: it compares responses to one prompt, and no prompt has two. Raise `answers`, or choose a reward"
            " that judges each response by itself."
        )
    return compared


def _check_eps(owner: str, eps: float) -> None:
    if not 0 < eps < math.inf:
        raise InputError(f"{owner}: `eps` is {eps}; it must be above 0, and finite.")
