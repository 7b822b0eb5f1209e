"""What offline learning learns from: rows with a label for a response, a pair, steps, or a prefix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from reckon.errors import InputError
from reckon.types import Problem


@dataclass(frozen=True, kw_only=True)
class Unpaired:
    """One response and, except for imitation, how right it was."""

    problem: Problem
    text: str
    label: float | None = None  # in [0, 1]: 1 right, 0 wrong, between them a share or a belief; None = not known
    ended: bool = True  # False = cut off at the limit: it gets no end token, or cutting off would be taught as an end

    def __post_init__(self) -> None:
        _check_label(self.problem, self.label)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two responses to a problem, one better than the other."""

    problem: Problem
    chosen: str
    rejected: str
    margin: float | None = None  # by how much a reward model should tell them apart
    ended: tuple[bool, bool] = (True, True)  # of chosen and rejected; see `Unpaired`


@dataclass(frozen=True, kw_only=True)
class Stepwise:
    """A response in steps, which joined are its text, and a label for each."""

    problem: Problem
    steps: tuple[str, ...]
    labels: tuple[float | None, ...]  # each in [0, 1], hard or soft; None = nobody knows
    ended: bool = True  # see `Unpaired`

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.labels) or not self.steps:
            raise InputError(
                f"problem {self.problem.id!r} has {len(self.steps)} steps and {len(self.labels)} labels. "
                "Give each step one label, and at least one step."
            )
        for label in self.labels:
            _check_label(self.problem, label)


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The beginning of a response and how often a policy was right when it went on from there."""

    problem: Problem
    text: str  # "" = the empty prefix: the prompt alone
    q: float  # in [0, 1]
    tokens: tuple[int, ...] | None = None  # as they were sampled; used where they say `text` in the learner's tokens

    def __post_init__(self) -> None:
        _check_label(self.problem, self.q)


@dataclass(frozen=True, kw_only=True)
class Staged:
    """One response and how many stages it passed, in their order."""

    problem: Problem
    text: str
    stage: int | str | None = None  # from 0, or a stage's name; None = not known
    ended: bool = True  # see `Unpaired`


Example: TypeAlias = Unpaired | Paired | Stepwise | Prefix | Staged


def _check_label(problem: Problem, label: float | None) -> None:
    if label is not None and not (math.isfinite(label) and 0 <= label <= 1):
        raise InputError(
            f"problem {problem.id!r} has the label {label}, but a label is in [0, 1], 1 = right. Scale it, or leave "
            "it out where nobody knows."
        )
