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
    Said,
    check_missing,
    check_parts,
    check_reward,
    check_weights,
    is_group_level,
    number,
    numbers,
    path,
    weight_vector,
    with_unknown,
)
from reckon.rewards._tree import restore, states
from reckon.types import Batch, Reward, Rng, State, Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NormalizeThenSum:
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
        check_parts("normalize_then_sum", self.parts)
        check_weights("normalize_then_sum", self.parts, self.weights, least=-math.inf)
        check_missing("normalize_then_sum", self.missing)
        _check_eps("normalize_then_sum", self.eps)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], NaN where a response is alone; every part is watched. Pure."""
        return self._said(Asking(batch)).streams("normalize_then_sum")

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step; parts that learn do so.

        Raises:
            RunError: no prompt has two responses.
        """
        _check_groups("normalize_then_sum", batch)
        return self._said(Asking(batch, rng)).streams("normalize_then_sum")

    def state_dict(self) -> State:
        """The memory of the parts that have one, by name."""
        return states(self.parts)

    def load_state_dict(self, state: State) -> None:
        """Gives every part its memory back."""
        restore(self.parts, state)

    @property
    def group_level(self) -> bool:
        """It compares responses to one prompt."""
        return True

    def _said(self, asking: Asking) -> Said:
        rewards, watched = numbers("normalize_then_sum", asking, self.parts)
        group = asking.batch.seq.group
        weights = weight_vector(self.parts, self.weights, rewards)
        compared = torch.where(_alone(group), torch.nan, rewards)
        total = combinations.normalize_then_sum(compared, group, weights, eps=self.eps, whiten=self.whiten)
        return Said(with_unknown(total, rewards, asking, self.missing), watched)


@dataclass(kw_only=True)
class Standardized:
    """A reward less a mean, in standard deviations: of its group ("group") or of all responses so far ("running").

    "group" is a z-score among the responses to a prompt: it takes away what tells an easy prompt from a hard one, and
    blows up small differences. "running" takes the batch at hand into account first, and only in `assess`.
    """

    reward: Reward
    over: Literal["group", "running"] = "running"
    eps: float = 1e-5  # added to the standard deviation

    def __post_init__(self) -> None:
        check_reward("standardized", "reward", self.reward)
        _check_eps("standardized", self.eps)
        if self.over not in ("group", "running"):
            raise InputError(f"standardized: `over` is {self.over!r}; it must be group or running.")
        self._count, self._mean, self._squares = 0.0, 0.0, 0.0

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], NaN where there is nothing to compare with; the reward is watched. Pure."""
        return self._said(number("standardized", Asking(batch), "reward", self.reward), batch)

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step; takes the batch into its running statistics, and the reward learns where it does.

        Raises:
            RunError: over="group", and no prompt has two responses.
        """
        if self.over == "group":
            _check_groups("standardized", batch)
        said = number("standardized", Asking(batch, rng), "reward", self.reward)
        if self.over == "running":
            self._learn(said.value)
        return self._said(said, batch)

    def state_dict(self) -> State:
        """The running statistics, and the memory of the reward."""
        own: State = {"count": self._count, "mean": self._mean, "squares": self._squares}
        return {"parts": states({"reward": self.reward}), "statistics": own}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        saved = _own_state("standardized", {"reward": self.reward}, state)
        self._count, self._mean, self._squares = saved["count"], saved["mean"], saved["squares"]

    @property
    def group_level(self) -> bool:
        """Whether it, or the reward in it, compares responses to one prompt."""
        return self.over == "group" or is_group_level(self.reward)

    def _learn(self, values: Tensor) -> None:
        """Chan et al. 1979: mean and sum of squared distances of two samples together."""
        known = values[~values.isnan()].double()
        if not len(known):
            return
        count, mean = self._count + len(known), float(known.mean())
        off = mean - self._mean
        self._squares += float((known - mean).square().sum()) + off**2 * self._count * len(known) / count
        self._mean += off * len(known) / count
        self._count = count

    def _said(self, said: Said, batch: Batch) -> dict[str, Stream]:
        if self.over == "group":
            group = batch.seq.group
            compared = torch.where(_alone(group), torch.nan, said.value)
            value = combinations.zscore(compared, group, self.eps)
        elif self._count == 0:
            value = torch.full_like(said.value, torch.nan)
        else:
            std = math.sqrt(self._squares / self._count)
            value = combinations.standardized(said.value, self._mean, std, self.eps)
        return Said(value, said.watched).streams("standardized")


@dataclass(kw_only=True)
class MinMax:
    """A reward from 0 to 1 between the lowest and the highest so far, the batch at hand included."""

    reward: Reward

    def __post_init__(self) -> None:
        check_reward("min_max", "reward", self.reward)
        self._low, self._high = math.inf, -math.inf

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], NaN before anything was assessed; the reward is watched. Pure."""
        return self._said(number("min_max", Asking(batch), "reward", self.reward))

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step; takes note of the batch's bounds, and the reward learns where it does."""
        said = number("min_max", Asking(batch, rng), "reward", self.reward)
        known = said.value[~said.value.isnan()]
        if len(known):
            self._low, self._high = min(self._low, float(known.min())), max(self._high, float(known.max()))
        return self._said(said)

    def state_dict(self) -> State:
        """The lowest and highest so far, and the memory of the reward."""
        seen = self._low <= self._high
        own: State = {"low": self._low, "high": self._high} if seen else {}  # JSON has no infinity
        return {"parts": states({"reward": self.reward}), "statistics": own}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        saved = _own_state("min_max", {"reward": self.reward}, state)
        self._low, self._high = saved.get("low", math.inf), saved.get("high", -math.inf)

    @property
    def group_level(self) -> bool:
        """Whether the reward compares responses to one prompt."""
        return is_group_level(self.reward)

    def _said(self, said: Said) -> dict[str, Stream]:
        if self._low > self._high:
            return Said(torch.full_like(said.value, torch.nan), said.watched).streams("min_max")
        return Said(combinations.minmax(said.value, self._low, self._high), said.watched).streams("min_max")


@dataclass(kw_only=True)
class Constrained:
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
        check_reward("constrained", "reward", self.reward)
        check_parts("constrained", self.costs)
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
        self._prices = [float(self.start)] * len(self.costs)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N] at the present prices; reward, costs and prices are watched. Pure."""
        said, _ = self._said(Asking(batch))
        return said.streams("constrained")

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step; then the prices move, and parts that learn do so."""
        said, costs = self._said(Asking(batch, rng))
        limits, prices = self._vectors(costs)
        self._prices = combinations.updated_multipliers(prices, costs, limits, self.lr).tolist()
        return said.streams("constrained")

    def state_dict(self) -> State:
        """The prices, and the memory of the parts that have one."""
        prices: State = dict(zip(self.costs, self._prices, strict=True))
        return {"parts": states({"reward": self.reward, **self.costs}), "statistics": prices}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            RunError: the prices are of other costs.
        """
        saved = _own_state("constrained", {"reward": self.reward, **self.costs}, state)
        if set(saved) != set(self.costs):
            raise RunError(
                f"constrained: the checkpoint has prices of {sorted(saved)}, and the costs are {sorted(self.costs)}."
                " Resume with the recipe the run was begun with."
            )
        self._prices = [saved[name] for name in self.costs]

    @property
    def group_level(self) -> bool:
        """Whether a part compares responses to one prompt."""
        return any(is_group_level(part) for part in (self.reward, *self.costs.values()))

    def _said(self, asking: Asking) -> tuple[Said, Tensor]:
        said = number("constrained", asking, "reward", self.reward)
        costs, watched = numbers("constrained", asking, self.costs)
        limits, prices = self._vectors(costs)
        value = combinations.constrained(said.value, costs, limits, prices)
        told = {
            path(name, "price"): Stream(values=torch.full_like(value, price), train=False)
            for name, price in zip(self.costs, self._prices, strict=True)
        }
        return Said(value, said.watched | watched | told), costs

    def _vectors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        limits = torch.tensor([self.limits[name] for name in self.costs], dtype=like.dtype, device=like.device)
        return limits, torch.tensor(self._prices, dtype=like.dtype, device=like.device)


def _check_groups(owner: str, batch: Batch) -> None:
    if bool(_alone(batch.seq.group).all()):
        raise RunError(
            f"{owner}: it compares responses to one prompt, and no prompt has two. Raise `answers`, or choose a reward"
            " that judges each response by itself."
        )


def _alone(group: Tensor) -> Tensor:
    """[N] bool: the responses without a sibling."""
    _, place, count = torch.unique(group, return_inverse=True, return_counts=True)
    lone: Tensor = count[place] == 1
    return lone


def _check_eps(owner: str, eps: float) -> None:
    if not 0 < eps < math.inf:
        raise InputError(f"{owner}: `eps` is {eps}; it must be above 0, and finite.")


def _own_state(owner: str, parts: Mapping[str, Reward], state: State) -> dict[str, float]:
    """Restores the parts and gives what is the node's own."""
    saved, inner = state.get("statistics"), state.get("parts")
    if not isinstance(saved, Mapping) or not isinstance(inner, Mapping):
        raise RunError(f"{owner}: the checkpoint holds no statistics. Resume with the recipe the run was begun with.")
    restore(parts, inner)
    return dict(cast("Mapping[str, float]", saved))
