"""What nodes that combine rewards have in common: asking their parts, naming what is watched, keeping memories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

import torch

from reckon.advantages import sum_known
from reckon.errors import InputError, RunError
from reckon.rewards._tree import assess, check_stream, reports, restore, states
from reckon.types import Batch, Metrics, Reward, Rng, State, Stream, snake_case

if TYPE_CHECKING:
    from torch import Tensor

# What a NaN means where siblings, responses to the same prompt, do have the value.
Missing: TypeAlias = Literal["unknown", "left_out"]


@dataclass(frozen=True)
class Asking:
    """A batch on its way down a tree of rewards, to be scored or, once a step, assessed."""

    batch: Batch
    rng: Rng | None = None  # None = score: nothing learns

    @property
    def assesses(self) -> bool:
        """Whether whoever learns does so now."""
        return self.rng is not None

    def streams(self, name: str, part: Reward) -> Mapping[str, Stream]:
        """What the part says, learning from numbers of its own where it learns."""
        return part.score(self.batch) if self.rng is None else assess(part, self.batch, self.rng.child(name))

    def below(self, name: str) -> Asking:
        """For the parts of the part of that name."""
        return self if self.rng is None else replace(self, rng=self.rng.child(name))


class Said(NamedTuple):
    """What a node makes of a batch."""

    value: Tensor  # [N] float32, its own stream; NaN = does not apply
    watched: dict[str, Stream]  # every component under its path, train=False


class Judged(NamedTuple):
    """What a property says: `Said`, and how sure it is that the response is good."""

    value: Tensor  # [N] float32, its own stream
    odds: Tensor  # [N] float32: log p - log(1 - p), p = probability of being good; NaN = does not apply
    watched: dict[str, Stream]


@runtime_checkable
class Property(Protocol):
    """A reward that knows how likely a response is good: what `And`, `Or` and `Not` are made of."""

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """As every reward's."""
        ...

    def judge(self, asking: Asking) -> Judged:
        """Log-odds of being good."""
        ...


class Node:
    """A reward made of the rewards among its fields, of which a node says only in `_said` what it makes of them.

    The one base class of the house: sixteen nodes differ in nothing but that, their settings and their checks.
    """

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N] under the node's kind; every part is watched under its name. Pure."""
        return self._streams(Asking(batch))

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step; parts that learn do so."""
        return self._streams(Asking(batch, rng))

    def state_dict(self) -> State:
        """The memory of the parts that have one, by name."""
        return states(dict(inner_rewards(self)))

    def load_state_dict(self, state: State) -> None:
        """Gives every part its memory back."""
        restore(dict(inner_rewards(self)), state)

    def metrics(self) -> Metrics:
        """What its parts have to report."""
        return reports(dict(inner_rewards(self)))

    @property
    def group_level(self) -> bool:
        """Whether it, or a part of it, compares responses to one prompt."""
        return any(is_group_level(part) for _, part in inner_rewards(self))

    @property
    def _kind(self) -> str:
        """What a recipe calls it: the name of its stream, and of the node in errors."""
        return snake_case(type(self).__name__)

    def _streams(self, asking: Asking) -> dict[str, Stream]:
        said = self._said(asking)
        return {self._kind: Stream(values=said.value), **said.watched}

    def _said(self, asking: Asking) -> Said:
        raise NotImplementedError


def path(name: str, key: str) -> str:
    """What a stream of a part is called: a run's tables have room for one slash, which the top of the tree takes."""
    return f"{name}.{key}".replace("/", ".")


def number(owner: str, asking: Asking, name: str, part: Reward) -> Said:
    """One value a response from a part: its trained rewards added up; everything it says is watched under its name.

    Raises:
        RunError: it gives no reward that trains, one for single tokens, or streams of another size than the batch.
    """
    trained, watched = {}, {}
    for key, stream in asking.streams(name, part).items():
        check_stream(name, stream, asking.batch)
        if stream.train and (stream.kind != "reward" or stream.values.ndim != 1):
            raise RunError(
                f"{owner}: the stream {key!r} of {name!r} is a {stream.kind} of {stream.values.ndim} dimension(s);"
                " rewards with one value for each response can be combined."
            )
        if stream.train:
            trained[key] = stream.values
        else:
            watched[path(name, key)] = stream
    if not trained:
        raise RunError(f"{owner}: {name!r} gives no stream that trains.")
    total = sum_known(torch.stack(list(trained.values())), asking.batch.seq.group)
    if len(trained) > 1:
        watched |= {path(name, key): Stream(values=values, train=False) for key, values in trained.items()}
    return Said(total, {name: Stream(values=total, train=False), **watched})


def numbers(owner: str, asking: Asking, parts: Mapping[str, Reward]) -> tuple[Tensor, dict[str, Stream]]:
    """[K, N] float32, one row a part in order, and all that is watched."""
    found = [number(owner, asking, name, part) for name, part in parts.items()]
    watched = {key: stream for said in found for key, stream in said.watched.items()}
    return torch.stack([said.value for said in found]), watched


def judgements(asking: Asking, parts: Mapping[str, Reward]) -> tuple[Tensor, dict[str, Stream]]:
    """[K, N] float32, the log-odds of the properties in order, and all that is watched."""
    odds, watched = [], dict[str, Stream]()
    for name, part in parts.items():
        judged = cast("Property", part).judge(asking.below(name))
        odds.append(judged.odds)
        watched[name] = Stream(values=judged.value, train=False)
        watched |= {path(name, key): stream for key, stream in judged.watched.items()}
    return torch.stack(odds), watched


def with_unknown(result: Tensor, inputs: Tensor, asking: Asking, missing: Missing) -> Tensor:
    """[N]: the result, NaN also where an input is missing that siblings have, unless those are left out.

    Args:
        result: [N], computed without the NaN.
        inputs: [K, N], what it was computed from.
        asking: whose batch tells the groups.
        missing: "unknown", the rule of every total in reckon (`reckon.advantages.sum_known`): left out, a response
            whose checker crashed would be better off than one found wrong. "left_out": it counts as inapplicable.
    """
    if missing == "left_out":
        return result
    return torch.where(sum_known(inputs, asking.batch.seq.group).isnan(), torch.nan, result)


def check_parts(owner: str, parts: Mapping[str, Reward], *, properties: bool = False) -> None:
    """Raises InputError unless these are rewards under names that can be watched, properties where asked for."""
    if not parts:
        raise InputError(f"{owner}: there is no reward in it. Name at least one.")
    for name, part in parts.items():
        if not name or {"/", "."} & set(name) or name == owner:
            raise InputError(
                f"{owner}: {name!r} cannot name a part: a name has a letter, no `/` or `.`, and is not {owner!r}."
            )
        check_reward(owner, name, part)
        if properties and not isinstance(part, Property):
            raise InputError(
                f"{owner}: {name!r} is a {type(part).__name__}, which does not say how likely a response is good."
                " Wrap it: Probability(...) if it gives numbers from 0 to 1, Centered(..., references=...) if it gives"
                " scores."
            )


def check_reward(owner: str, name: str, part: object) -> None:
    """Raises InputError unless the part has a `score`."""
    if not callable(getattr(part, "score", None)):
        raise InputError(f"{owner}: {name!r} is not a reward, for it has no `score`. Wrap a function in `Function`.")


def check_weights(owner: str, parts: Mapping[str, Reward], weights: Mapping[str, float], *, least: float) -> None:
    """Raises InputError unless every weight belongs to a part, is finite and not below `least`."""
    for name, weight in weights.items():
        if name not in parts:
            raise InputError(f"{owner}: `weights` names {name!r}, which is not a part. The parts are {sorted(parts)}.")
        if not least <= weight < float("inf"):
            bound = "" if least == -float("inf") else f" of at least {least}"
            raise InputError(f"{owner}: the weight of {name!r} is {weight}; it must be a finite number{bound}.")


def weight_vector(parts: Mapping[str, Reward], weights: Mapping[str, float], like: Tensor) -> Tensor | None:
    """[K] like the tensor, 1 where none is given; None if all are 1."""
    if all(weight == 1 for weight in weights.values()):
        return None
    return torch.tensor([weights.get(name, 1.0) for name in parts], dtype=like.dtype, device=like.device)


def check_missing(owner: str, missing: str) -> None:
    """Raises InputError unless it is one of `Missing`."""
    if missing not in ("unknown", "left_out"):
        raise InputError(f"{owner}: `missing` is {missing!r}; it must be unknown or left_out.")


def is_group_level(reward: object) -> bool:
    """Whether the reward, or a part of it, compares responses to one prompt, so that it cannot judge one alone."""
    stated = getattr(reward, "group_level", None)
    return any(is_group_level(part) for _, part in inner_rewards(reward)) if stated is None else bool(stated)


def inner_rewards(reward: object) -> Iterator[tuple[str, Reward]]:
    """The rewards that a reward is made of, found among its attributes, and what each is called there."""
    for key, value in getattr(reward, "__dict__", {}).items():
        entries = value.items() if isinstance(value, Mapping) else [(key, value)]
        if isinstance(value, list | tuple):
            entries = [(f"{key}/{i}", inner) for i, inner in enumerate(value)]
        for name, inner in entries:
            # A network may have a head called `score`.
            if callable(getattr(inner, "score", None)) and not isinstance(inner, torch.nn.Module):
                yield str(name), cast("Reward", inner)
