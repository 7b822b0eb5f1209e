"""Rewards made of rewards: sums and gates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, cast

import torch

from reckon.advantages import sum_known
from reckon.costs import spending
from reckon.errors import InputError, RunError
from reckon.rewards._function import Function, RewardFunction
from reckon.types import Batch, LearningReward, Metrics, Reporting, Reward, Rng, State, Stateful, Stream, snake_case

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sum:
    """Rewards side by side under names: the top of every reward.

    Nothing is added up here: every part keeps its own stream, named after it (`name`, or `name/key` where a part has
    several), so that each can be credited, logged and drawn by itself; the advantage adds them. A weight multiplies
    what its part says. A part of weight 0, or named in `watch`, is scored and logged as it is and trains nothing,
    exactly as if it were absent.
    """

    parts: Mapping[str, Reward]
    weights: Mapping[str, float] = field(default_factory=dict)  # by part; 1 where none is given
    watch: Sequence[str] = ()  # parts that are only looked at

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("sum: there is no reward in it. Name at least one.")
        for name, part in self.parts.items():
            if not name or "/" in name:
                raise InputError(f"sum: {name!r} cannot name a reward: a name has at least one letter and no `/`.")
            if not callable(getattr(part, "score", None)):
                raise InputError(
                    f"sum: {name!r} is not a reward, for it has no `score`. Wrap a function in `Function`."
                )
        if isinstance(self.watch, str):
            raise InputError(f"sum: `watch` is {self.watch!r}; it must be a list of names.")
        for key, names in (("weights", self.weights), ("watch", self.watch)):
            for name in names:
                if name not in self.parts:
                    raise InputError(f"sum: `{key}` names {name!r}, which is not a reward here.{_nearest(name, self)}")
        for name, weight in self.weights.items():
            if not math.isfinite(weight):
                raise InputError(f"sum: the weight of {name!r} is {weight}; it must be a finite number.")
            if name in self.watch and weight != 0:
                raise InputError(
                    f"sum: {name!r} is only watched, so its weight {weight} is never used. Drop one of them."
                )

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """Every part's streams. Pure."""
        return self._named(batch, {name: part.score(batch) for name, part in self.parts.items()})

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step: parts that learn do so here, each from numbers of its own."""
        scored = {}
        for name, part in self.parts.items():
            with spending(f"reward/{name}"):
                scored[name] = assess(part, batch, rng.child(name))
        return self._named(batch, scored)

    def metrics(self) -> Metrics:
        """What the parts that have something to report say, "loss" of the part `name` as "reward/name/loss"."""
        return {f"reward/{name}": value for name, value in reports(self.parts).items()}

    def state_dict(self) -> State:
        """The memory of the parts that have one, by name."""
        return states(self.parts)

    def load_state_dict(self, state: State) -> None:
        """Gives every part its memory back."""
        restore(self.parts, state)

    def _named(self, batch: Batch, scored: Mapping[str, Mapping[str, Stream]]) -> dict[str, Stream]:
        named: dict[str, Stream] = {}
        for name, streams in scored.items():
            for key, stream in streams.items():
                check_stream(name, stream, batch)
                named[name if len(streams) == 1 else f"{name}/{key}"] = self._weighted(name, stream)
        return named

    def _weighted(self, name: str, stream: Stream) -> Stream:
        weight = self.weights.get(name, 1.0)
        if weight == 0 or name in self.watch:
            return replace(stream, train=False)
        return stream if weight == 1 else replace(stream, values=weight * stream.values)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What `then` says where `condition` is above 0; elsewhere at most 0, or a constant. For each response by itself.

    "capped" takes min(0, r): a response that fails the condition can lose by the reward and not gain. With a `Format`
    as condition and the sum of it and a `Length` as `then` this is `FormatLength`. Of several streams in `then` the
    trained ones are added up. An unknown condition makes the reward unknown.
    """

    condition: Reward
    then: Reward
    otherwise: float | Literal["capped"] = "capped"

    def __post_init__(self) -> None:
        if self.otherwise != "capped" and (isinstance(self.otherwise, str) or not math.isfinite(self.otherwise)):
            raise InputError(f"gate: `otherwise` is {self.otherwise!r}; it must be a finite number or capped.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N]. Pure."""
        return self._gated(batch, self.condition.score(batch), self.then.score(batch))

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step; parts that learn do so."""
        condition = assess(self.condition, batch, rng.child("condition"))
        return self._gated(batch, condition, assess(self.then, batch, rng.child("then")))

    def state_dict(self) -> State:
        """The memory of both parts, where they have one."""
        return states({"condition": self.condition, "then": self.then})

    def load_state_dict(self, state: State) -> None:
        """Gives both parts their memory back."""
        restore({"condition": self.condition, "then": self.then}, state)

    def metrics(self) -> Metrics:
        """What its parts have to report."""
        return reports({"condition": self.condition, "then": self.then})

    def _gated(self, batch: Batch, conditions: Mapping[str, Stream], then: Mapping[str, Stream]) -> dict[str, Stream]:
        condition, value = _total("condition", conditions, batch), _total("then", then, batch)
        closed = value.clamp(max=0.0) if self.otherwise == "capped" else torch.full_like(value, self.otherwise)
        gated = torch.where(condition > 0, value, closed)
        return {"gate": Stream(values=torch.where(condition.isnan(), torch.nan, gated))}


def as_reward(
    reward: Reward | RewardFunction | Mapping[str, Reward | RewardFunction],
) -> Sum:
    """Makes a `Sum` of a reward, of a function of one's own, or of several of them by name.

    Args:
        reward: a `Sum` is returned as it is; any other reward is named after its kind, a function after itself.
    """
    if isinstance(reward, Sum):
        return reward
    if isinstance(reward, Mapping):
        return Sum({name: _part(name, part) for name, part in reward.items()})
    part = _part(None, reward)
    return Sum({part.name if isinstance(part, Function) else snake_case(type(part).__name__): part})


def assess(part: Reward, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
    """Lets a part that learns assess the batch, and any other score it."""
    return part.assess(batch, rng) if isinstance(part, LearningReward) else part.score(batch)


def states(parts: Mapping[str, Reward]) -> dict[str, State]:
    """The states of the parts with memory."""
    return {name: part.state_dict() for name, part in parts.items() if isinstance(part, Stateful)}


def reports(parts: Mapping[str, Reward]) -> Metrics:
    """What the parts that have something to report say, "loss" of the part `name` as "name/loss"."""
    return {
        f"{name}/{key}": value
        for name, part in parts.items()
        if isinstance(part, Reporting)
        for key, value in part.metrics().items()
    }


def restore(parts: Mapping[str, Reward], state: State) -> None:
    """Loads what `states` gave.

    Raises:
        RunError: a part's state is missing, or one is there that no part wants.
    """
    stateful = {name: part for name, part in parts.items() if isinstance(part, Stateful)}
    if stateful.keys() != state.keys():
        raise RunError(
            f"the checkpoint holds rewards {sorted(state)}, and this run has {sorted(stateful)}."
            " Resume with the recipe the run was begun with."
        )
    for name, part in stateful.items():
        part.load_state_dict(cast("State", state[name]))


def check_stream(name: str, stream: Stream, batch: Batch) -> None:
    """Raises RunError unless the stream has the batch's shape."""
    shape, full = tuple(stream.values.shape), tuple(batch.seq.mask.shape)
    if shape not in (full[:1], full):
        raise RunError(
            f"the reward {name!r} gave a stream of shape {list(shape)}; it must have one value for each response,"
            f" {list(full[:1])}, or one for each token, {list(full)}."
        )


def _total(role: str, streams: Mapping[str, Stream], batch: Batch) -> Tensor:
    """[N] float32: the trained streams added up; one that is NaN for a whole group is left out of its rows."""
    trained = {name: stream for name, stream in streams.items() if stream.train}
    if not trained:
        raise RunError(f"gate: its {role!r} gives no stream that trains.")
    for name, stream in trained.items():
        if stream.kind != "reward" or stream.values.ndim != 1:
            raise RunError(
                f"gate: the stream {name!r} of its {role!r} is a {stream.kind} of {stream.values.ndim} dimension(s);"
                " a gate takes rewards with one value for each response."
            )
        check_stream(name, stream, batch)
    return sum_known(torch.stack([stream.values for stream in trained.values()]), batch.seq.group)


def _part(name: str | None, part: Reward | RewardFunction) -> Reward:
    if callable(getattr(part, "score", None)):
        return cast("Reward", part)
    if callable(part):
        return Function(part)
    what = "a reward" if name is None else f"the reward {name!r}"
    raise InputError(f"{what} is of type {type(part).__name__}; it must be a reward with `score`, or a function.")


def _nearest(name: str, tree: Sum) -> str:
    near = get_close_matches(name, tree.parts, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" The rewards are {sorted(tree.parts)}."
