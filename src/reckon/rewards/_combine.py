"""Good, not good, and all or any of several: rewards combined as log-probabilities (LSC).

Wang et al. 2024, "Transforming and Combining Rewards for Aligning Large Language Models", arXiv:2402.00742. The
mathematics is `reckon.combinations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from reckon import combinations
from reckon.errors import InputError, RunError
from reckon.rewards._combine_parts import (
    Asking,
    Judged,
    Missing,
    Node,
    Said,
    check_missing,
    check_parts,
    check_reward,
    check_weights,
    judgements,
    number,
    weight_vector,
    with_unknown,
)
from reckon.rewards._function import Function
from reckon.rewards._references import ReferenceStore, as_references, levels_of, references_state, restore_references
from reckon.types import Reward, State, snake_case


class _Property(Node):
    """A node that `And`, `Or` and `Not` are made of: it trains on what it judges."""

    def judge(self, asking: Asking) -> Judged:
        """How likely each response is good."""
        raise NotImplementedError

    def _said(self, asking: Asking) -> Said:
        judged = self.judge(asking)
        return Said(judged.value, judged.watched)


@dataclass(frozen=True, kw_only=True)
class Centered(_Property):
    """A score less its reference level, r - r_ref(x), which is the log-odds of beating the reference (Bradley-Terry).

    By itself it trains on that difference, which a KL-regularized objective cannot tell from r. Inside `And`, `Or` or
    `Not` it is a property: good is what beats the reference. A store's references are saved and restored with the run.
    """

    reward: Reward
    references: float | str | Path | ReferenceStore = 0.0  # one level for all prompts, a store, or the file of one
    key: str = ""  # which of the store's rewards this is; may be left out where it has only one

    def __post_init__(self) -> None:
        check_reward(self._kind, "reward", self.reward)
        object.__setattr__(self, "references", as_references(self._kind, self.references, self.key))

    def judge(self, asking: Asking) -> Judged:
        """Log-odds: the difference."""
        said = number(self._kind, asking, "reward", self.reward)
        level, watched = levels_of(self.references, self.key, asking.batch, said.value)
        return Judged(said.value - level, said.value - level, said.watched | watched)

    def state_dict(self) -> State:
        """The references, and the memory of the reward."""
        return references_state(self.reward, self.references)

    def load_state_dict(self, state: State) -> None:
        """Takes the run's references back, whatever the file holds by now."""
        restore_references(self._kind, self.reward, self.references, state)


@dataclass(frozen=True, kw_only=True)
class Probability(_Property):
    """A reward that already is the probability of being good, such as a rule's 0 or 1, as its logarithm.

    It is clipped to [eps, 1 - eps] first: log 0 would let one failure outweigh everything, so log(eps) is what a
    failure may cost. An unknown verdict stays unknown.
    """

    reward: Reward
    eps: float = 0.01

    def __post_init__(self) -> None:
        check_reward(self._kind, "reward", self.reward)
        if not 0 < self.eps < 0.5:
            raise InputError(f"probability: `eps` is {self.eps}; it must be above 0 and below 0.5.")

    def judge(self, asking: Asking) -> Judged:
        """Log-odds of the clipped probability.

        Raises:
            RunError: the reward gave a number outside [0, 1].
        """
        said = number(self._kind, asking, "reward", self.reward)
        outside = ((said.value < 0) | (said.value > 1)).nonzero()
        if len(outside):
            row = int(outside[0, 0])
            problem = asking.batch.rollouts.problem(row).id
            raise RunError(
                f"probability: the reward gave {float(said.value[row]):g} for row {row} (problem {problem!r}), and a"
                " probability lies between 0 and 1. Wrap a score in `Centered` instead."
            )
        odds = combinations.log_odds(said.value, self.eps)
        return Judged(combinations.and_(odds[None]), odds, said.watched)


@dataclass(frozen=True)
class And(_Property):
    """Log-probability that every part is good, if they are independent given the response: the LSC of the paper.

    Parts are properties: `Centered`, `Probability`, `And`, `Or`, `Not`. Excellence in one cannot pay for failure in
    another: each adds between -infinity and 0. A part that applies to no response of a group is left out there.
    """

    parts: Mapping[str, Reward]
    weights: Mapping[str, float] = field(default_factory=dict)  # by part; 1 where none is given, others temper it
    missing: Missing = "unknown"  # or "left_out"

    def __post_init__(self) -> None:
        check_parts(self._kind, self.parts, properties=True)
        check_weights(self._kind, self.parts, self.weights, least=1e-6)
        check_missing(self._kind, self.missing)

    def judge(self, asking: Asking) -> Judged:
        """The log-probability, and its odds for the node above."""
        odds, watched = judgements(asking, self.parts)
        weights = weight_vector(self.parts, self.weights, odds)
        value = with_unknown(combinations.and_(odds, weights), odds, asking, self.missing)
        return Judged(value, torch.where(value.isnan(), value, combinations.and_odds(odds, weights)), watched)


@dataclass(frozen=True)
class Or(_Property):
    """Log-probability that at least one part is good, if they are independent given the response: the dual of `And`.

    A part that does not apply to a group does not count as good there, or it would make everything true.
    """

    parts: Mapping[str, Reward]
    missing: Missing = "unknown"  # or "left_out"

    def __post_init__(self) -> None:
        check_parts(self._kind, self.parts, properties=True)
        check_missing(self._kind, self.missing)

    def judge(self, asking: Asking) -> Judged:
        """The log-probability, and its odds for the node above."""
        odds, watched = judgements(asking, self.parts)
        value = with_unknown(combinations.or_(odds), odds, asking, self.missing)
        return Judged(value, torch.where(value.isnan(), value, combinations.or_odds(odds)), watched)


@dataclass(frozen=True)
class Not(_Property):
    """Log-probability that a property is not good: of a toxic response, say, that it is not toxic."""

    reward: Reward

    def __post_init__(self) -> None:
        check_parts(self._kind, {"reward": self.reward}, properties=True)

    def judge(self, asking: Asking) -> Judged:
        """The log-probability, and its odds for the node above."""
        odds, watched = judgements(asking, {"reward": self.reward})
        return Judged(combinations.not_(odds[0]), -odds[0], watched)


def and_(*parts: Reward, **named: Reward) -> And:
    """`And` of properties: `and_(helpful, or_(cites, says_unknown), not_(toxic))`.

    Args:
        parts: named after themselves: a function after its name, what wraps one after what it wraps.
        named: under names of your own, which are those of the watched streams.
    """
    return And(_names(parts, named))


def or_(*parts: Reward, **named: Reward) -> Or:
    """`Or` of properties; arguments as of `and_`."""
    return Or(_names(parts, named))


def not_(part: Reward) -> Not:
    """`Not` of a property."""
    return Not(part)


def _names(parts: tuple[Reward, ...], named: Mapping[str, Reward]) -> dict[str, Reward]:
    chosen: dict[str, Reward] = dict(named)
    for part in parts:
        name = _name(part)
        tries = (name, *(f"{name}_{i}" for i in range(2, len(parts) + len(named) + 2)))
        chosen[next(free for free in tries if free not in chosen)] = part
    # In the order given: positional parts first.
    return {name: part for name, part in chosen.items() if name not in named} | dict(named)


def _name(part: Reward) -> str:
    """What to call a part that was given no name."""
    if isinstance(part, Function):
        return part.name
    if isinstance(part, Not):
        return f"not_{_name(part.reward)}"
    if isinstance(part, Centered | Probability):
        return _name(part.reward)
    kind = snake_case(type(part).__name__)
    return f"{kind}_of_{'_'.join(part.parts)}" if isinstance(part, And | Or) else kind
