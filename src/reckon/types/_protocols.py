"""What a part can do: the protocols that parts of a method, models and tasks keep, and `Parts`, which holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from reckon.errors import InputError
from reckon.types._nouns import (
    Batch,
    Columns,
    Credit,
    Loss,
    Metrics,
    Outputs,
    Problem,
    Rng,
    Rollouts,
    Seen,
    Sequences,
    Split,
    State,
    Step,
    Stream,
    Verdict,
    Want,
)

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Stateful(Protocol):
    """A part with memory. Every part of a run that is Stateful is saved and restored with it."""

    def state_dict(self) -> State:
        """All that is needed to go on exactly."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """A part with numbers of its own to log: the loss of a judge that learned, a controller's coefficient."""

    def metrics(self) -> Metrics:
        """Of the step just made, under full names: "critic/loss"."""
        ...


class Task(Protocol):
    """Problems and the checker that knows their answers."""

    @property
    def name(self) -> str:
        """What to call it in reports."""
        ...

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split; no two splits share one."""
        ...

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response. Never raises for anything the text may hold."""
        ...


@runtime_checkable
class Worked(Protocol):
    """A task that knows how its problems are solved: for supervised warm-up, and for judging steps."""

    def solution(self, problem: Problem) -> str:
        """A worked response that earns the full reward."""
        ...

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """The steps of a response, in order, each with its truth."""
        ...


class Model(Stateful, Protocol):
    """Anything that scores responses and learns from a loss on them."""

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """What the model says about `seq`, without gradients."""
        ...

    def step(self, seq: Sequences, columns: Columns, loss: Loss, want: Iterable[Want] = ("logprobs",)) -> Metrics:
        """One optimizer step on the sum of `loss` over all rows, in as many micro-batches as memory asks for."""
        ...


class Policy(Model, Protocol):
    """A model that answers."""

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Draws k responses to each problem, continuing the G token `prefixes` where given."""
        ...

    def update(self, objective: Objective, batch: Batch, credit: Credit, rng: Rng) -> Metrics:
        """Learns from a batch: one or more optimizer steps."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Which problems to pose next."""

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """Gives n problems."""
        ...

    def learn(self, seen: Seen) -> Metrics:
        """Takes note of how every rollout of a step went."""
        ...


class Keep(Protocol):
    """Which of the rollouts are worth training on."""

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64, a `Use` for each response."""
        ...


class Reward(Protocol):
    """Rollouts in, streams out."""

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """What each response or token is worth. Pure: for evaluation, comparison and best-of-N."""
        ...


@runtime_checkable
class LearningReward(Reward, Stateful, Protocol):
    """A judge that learns while the policy does."""

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step; learns from the batch, before or after scoring as its method says."""
        ...


class Judges(Protocol):
    """All the rewards of a run together: what stands at the top of every tree of rewards."""

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """The streams of all parts. Pure."""
        ...

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """The streams of all parts, once a step; parts that learn do so here."""
        ...


class Advantage(Protocol):
    """How much of what its response earned each token is credited with."""

    def __call__(self, batch: Batch, streams: Mapping[str, Stream]) -> Credit:
        """Credit for every token of the batch."""
        ...


class Objective(Protocol):
    """What the policy's optimizer minimizes."""

    @property
    def want(self) -> tuple[Want, ...]:
        """The outputs `__call__` reads. A plain attribute will do."""
        ...

    def prepare(self, batch: Batch, credit: Credit) -> Columns:
        """What the loss needs beside the outputs, made once for a mini-batch: denominators, reference log-probs."""
        ...

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T] or [n]: the loss of a micro-batch's rows, already divided."""
        ...


@runtime_checkable
class Sparse(Protocol):
    """An objective that knows which rows it gets no gradient from, so that they need not be computed.

    A column of its that is named "share", or "part/share", is rescaled to the rows that remain: it makes the means that
    are reported.
    """

    def silent(self, batch: Batch, credit: Credit) -> Tensor:
        """[n] bool, of a mini-batch that it is about to prepare: rows whose loss will not depend on the outputs."""
        ...


@dataclass(frozen=True, kw_only=True)
class Refill:
    """What to do when a keep rule leaves fewer groups than asked for."""

    rounds: int = 1  # how often problems may be drawn for one batch, the first time included
    on_short: Literal["short", "fill", "repeat", "error"] = "short"  # and if they still are too few

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"refill: `rounds` is {self.rounds}; it must be 1 or more.")
        if self.on_short not in ("short", "fill", "repeat", "error"):
            raise InputError(f"refill: `on_short` is {self.on_short!r}; it must be short, fill, repeat or error.")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A method of online learning: nothing but the choice of its parts."""

    sampler: Sampler
    keep: Keep
    reward: Judges
    advantage: Advantage
    objective: Objective
    refill: Refill = field(default_factory=Refill)

    def __post_init__(self) -> None:
        if not callable(getattr(self.reward, "assess", None)):
            name = getattr(self.reward, "__name__", type(self.reward).__name__)
            raise InputError(
                f"the reward of `Parts` is {name!r}, which has no `assess`. Wrap a function or a single reward: "
                "reckon.rewards.as_reward(...)."
            )
