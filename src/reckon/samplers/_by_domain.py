"""Samplers that give more of a batch to the domains that go badly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias, cast, get_args

import numpy as np

from reckon.errors import InputError
from reckon.samplers._domains import Domains
from reckon.samplers._weights import (
    Initial,
    Rounding,
    Value,
    capped_weights,
    check_rule,
    domain_weights,
    initial_weights,
    normalized_weights,
)
from reckon.types import Metrics, Problem, Rng, Seen, Split, State, Task

Decay: TypeAlias = Literal["harmonic", "geometric", "none"]
Start: TypeAlias = Literal["zero", "first"]
Control: TypeAlias = Literal["none", "shuffled", "inverted"]


@dataclass(eq=False)
class DomainSampler:
    """Poses more problems of the domains that go badly, by a running mean of accuracy (RuleReasoner's Algorithm 1).

    Liu, Li and Zheng 2026, arXiv:2506.08672: mean_d becomes alpha mean_d + (1 - alpha) times the step's accuracy in
    domain d; a domain without a known outcome in the step keeps its mean. Weights are `domain_weights` of the means.

    Raises:
        InputError: the split is empty, or a setting is out of its range.
    """

    task: Task  # whose problems have domains
    _: KW_ONLY
    alpha: float = 0.5  # weight of the past in the mean, in [0, 1); 0 = only the last step counts
    tau: float = 0.5  # temperature of the weights, above 0; the paper has 0.5 and, for its smaller model, 0.8
    eps: float = 0.1  # added to every exponential, 0 or more
    floor: float = 0.0  # least weight of a domain, at most 1 / number of domains
    # What a mean is before its domain's first outcome is averaged in: 0 (with `levels`, the level of chance), or that
    # outcome itself.
    start: Start = "zero"
    # Problems of a domain that must have shown a known outcome, over as many steps as it takes, before their accuracy
    # is averaged in. The answers to one problem are not independent: many of them are no substitute.
    least: int = 1
    every: int = 1  # steps between two changes of the weights; the means change at every step
    # The weights until the first change: those of equal means, or proportional to 1 / sqrt(problems in the domain), or
    # to exp(1 / sqrt(problems)), which is nearly equal for more than a hundred.
    initial: Initial = "average"
    # What a domain is worth, at accuracy p: 1 - p, or p (1 - p), which is little also where nothing is ever right. That
    # goes from 0 to 1/4, so it wants a `tau` of about a quarter.
    value: Value = "gap"
    # Domain to (chance, ceiling): p is then (mean - chance) / (ceiling - chance). A domain left out has (0, 1).
    levels: Mapping[str, tuple[float, float]] | None = None
    cap: float | None = None  # greatest weight of a domain, from 1 / number of domains to 1
    # The most times as often as a problem of the split on average that one of a domain is posed, 1 or more: the weight
    # of a domain is at most this times its share of the problems.
    repeats: float | None = None
    rounding: Rounding = "heaviest"  # the paper's rule for whole numbers, or "chance": see `domain_counts`
    # "shuffled" hands the weights to the domains by chance, anew at every draw; "inverted" favors what goes well. Both
    # show whether the direction matters.
    control: Control = "none"
    split: Split = "train"

    def __post_init__(self) -> None:
        self._domains = Domains(self.task, self.split)
        names = self._domains.names
        check_rule("domain_sampler", len(names), tau=self.tau, floor=self.floor, rounding=self.rounding)
        self._check()
        self._levels = [(self.levels or {}).get(name, (0.0, 1.0)) for name in names]
        self._caps = self._bounds()
        self._means = [chance for chance, _ in self._levels]
        self._met = [False] * len(names)  # whether a domain's mean has begun
        self._waiting = [(0.0, 0, 0)] * len(names)  # sum and number of outcomes not averaged in yet, and of problems
        self._steps = 0
        self._weights = self._rule()
        if self.initial != "average":
            self._weights = self._capped(
                initial_weights(list(self._domains.sizes.values()), self.initial, floor=self.floor)
            )
        self._drawn = self._weights  # the weights of the last draw

    @property
    def weights(self) -> dict[str, float]:
        """Each domain's weight as it stands, before any shuffling; they sum to 1."""
        return dict(zip(self._domains.names, self._weights, strict=True))

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems, each domain's share of them by its weight."""
        self._drawn = self._weights
        if self.control == "shuffled":
            order = rng.child("shuffled").numpy().permutation(len(self._weights))
            self._drawn = self._capped([self._weights[i] for i in order])
        return self._domains.draw(self._drawn, n, rng, self.rounding)

    def learn(self, seen: Seen) -> Metrics:
        """Averages a step's accuracies in, and when it is time changes the weights.

        Returns:
            For each domain `sampler/share`, of the step's rollouts, `sampler/weight`, that its last problems were drawn
            by, `sampler/accuracy`, the running mean, and `sampler/passes`.
        """
        sums, counts = self._domains.count(seen)
        for d, problems in enumerate(self._domains.shown(seen)):
            held = self._waiting[d]
            self._waiting[d] = (held[0] + sums[d], held[1] + counts[d], held[2] + problems)
            if self._waiting[d][2] >= self.least:
                self._average_in(d)
        self._steps += 1
        if self._steps % self.every == 0:
            self._weights = self._rule()
        return self._domains.metrics(seen, weight=self._drawn, accuracy=self._means)

    def state_dict(self) -> State:
        """Means and what waits for them, steps, weights, and where every domain is."""
        return {
            "means": list(self._means),
            "met": list(self._met),
            "waiting": [list(held) for held in self._waiting],
            "steps": self._steps,
            "weights": list(self._weights),
            **self._domains.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next batch.

        Raises:
            RunError: the split had other domains, or one of another size, when the state was saved.
        """
        self._domains.load_state_dict(state)
        self._means, self._weights = (list(cast("list[float]", state[name])) for name in ("means", "weights"))
        self._met = list(cast("list[bool]", state["met"]))
        waiting = cast("list[tuple[float, int, int]]", state["waiting"])
        self._waiting = [(total, count, problems) for total, count, problems in waiting]
        self._steps = cast("int", state["steps"])
        self._drawn = self._weights

    def _average_in(self, d: int) -> None:
        total, count, _ = self._waiting[d]
        alpha = 0.0 if self.start == "first" and not self._met[d] else self.alpha
        self._means[d] = alpha * self._means[d] + (1 - alpha) * total / count
        self._met[d] = True
        self._waiting[d] = (0.0, 0, 0)

    def _rule(self) -> list[float]:
        found = zip(self._means, self._levels, strict=True)
        accuracy = [(mean - chance) / (ceiling - chance) for mean, (chance, ceiling) in found]
        inverted = self.control == "inverted"
        return self._capped(
            domain_weights(accuracy, tau=self.tau, eps=self.eps, floor=self.floor, invert=inverted, value=self.value)
        )

    def _capped(self, weights: list[float]) -> list[float]:
        return weights if self._caps is None else capped_weights(weights, self._caps)

    def _bounds(self) -> list[float] | None:
        """The greatest weight of every domain, if there are any."""
        if self.cap is None and self.repeats is None:
            return None
        sizes = list(self._domains.sizes.values())
        most = [1.0 if self.repeats is None else self.repeats * size / sum(sizes) for size in sizes]
        caps = [min(1.0 if self.cap is None else self.cap, own) for own in most]
        if sum(caps) < 1 - 1e-9:
            raise InputError(
                f"domain_sampler: with `cap` {self.cap} and `repeats` {self.repeats} the domains could have no more "
                f"than {sum(caps):g} of a batch together. Raise one of them."
            )
        if min(caps) < self.floor:
            tight = self._domains.names[caps.index(min(caps))]
            raise InputError(
                f"domain_sampler: `floor` is {self.floor}, but with `cap` {self.cap} and `repeats` {self.repeats} the "
                f"domain {tight!r} can have no more than {min(caps):g}. Lower `floor`, or raise one of them."
            )
        return caps

    def _check(self) -> None:
        """Raises InputError for a setting of its own that is out of its range."""
        domains = len(self._domains.names)
        if not 0 <= self.alpha < 1:
            raise InputError(f"domain_sampler: `alpha` is {self.alpha}; it must be 0 or more and below 1.")
        if not 0 <= self.eps < math.inf:
            raise InputError(f"domain_sampler: `eps` is {self.eps}; it must be 0 or more.")
        for name, choices in (("start", Start), ("initial", Initial), ("value", Value), ("control", Control)):
            if getattr(self, name) not in get_args(choices):
                *others, last = get_args(choices)
                raise InputError(
                    f"domain_sampler: `{name}` is {getattr(self, name)!r}; it must be {', '.join(others)} or {last}."
                )
        if self.least < 1 or self.every < 1:
            raise InputError(
                f"domain_sampler: `least` is {self.least} and `every` {self.every}; both must be 1 or more."
            )
        if self.cap is not None and not 1 / domains - 1e-9 <= self.cap <= 1:
            raise InputError(
                f"domain_sampler: `cap` is {self.cap}; with {domains} domains it must be from {1 / domains:g} to 1."
            )
        if self.repeats is not None and not 1 <= self.repeats < math.inf:
            raise InputError(f"domain_sampler: `repeats` is {self.repeats}; it must be 1 or more.")
        for name, (chance, ceiling) in (self.levels or {}).items():
            if name not in self._domains.names:
                raise InputError(
                    f"domain_sampler: `levels` has {name!r}, which is no domain of the split. Domains: "
                    f"{', '.join(self._domains.names)}."
                )
            if not 0 <= chance < ceiling <= 1:
                raise InputError(
                    f"domain_sampler: `levels` of {name!r} are {chance} and {ceiling}; they must be the accuracy of "
                    "chance and the highest there can be, both in [0, 1] and the first the lower."
                )


class DomainBuffer:
    """As `domain_sampler`, by the decayed mean of the last few steps, and with new weights only every few steps.

    What the configuration of RuleReasoner's released run asks for. Over the b steps that are held, newest first with
    decays 1, 1/2, ..., mean_d = sum of decay_i times the outcomes of domain d / their number, and the weights are
    proportional to exp(max(0, target - mean_d) / tau), where target = mean of the decays. A domain that is in none of
    the steps keeps its mean, which is 0 at first. There is no eps: theirs is inside the exponential, where it cancels.
    """

    def __init__(
        self,
        task: Task,
        *,
        size: int = 4,
        decay: Decay = "harmonic",
        every: int = 8,
        tau: float = 0.3,
        floor: float = 0.0,
        rounding: Rounding = "heaviest",
        split: Split = "train",
    ) -> None:
        """Starts with equal weights.

        Args:
            task: whose problems have domains.
            size: steps held, at least 1.
            decay: of older steps: 1, 1/2, 1/3, ... or 1, 1/2, 1/4, ... or 1 throughout.
            every: steps between two changes of the weights, at least 1.
            tau: temperature of the weights, above 0.
            floor: least weight of a domain, at most 1 / number of domains.
            rounding: the paper's rule for whole numbers, "heaviest", or "chance": see `domain_counts`.
            split: which problems.

        Raises:
            InputError: the split is empty, or a setting is out of its range.
        """
        self.size, self.decay, self.every, self.tau = size, decay, every, tau
        self.floor, self.rounding, self.split = floor, rounding, split
        self._domains = Domains(task, split)
        domains = len(self._domains.names)
        check_rule("domain_buffer", domains, tau=tau, floor=floor, rounding=rounding)
        if size < 1 or every < 1:
            raise InputError(f"domain_buffer: `size` is {size} and `every` is {every}; both must be 1 or more.")
        if decay not in ("harmonic", "geometric", "none"):
            raise InputError(f"domain_buffer: `decay` is {decay!r}; it must be harmonic, geometric or none.")
        self._steps = 0
        self._recent: list[tuple[list[float], list[int]]] = []  # sums and counts of the steps held, newest first
        self._means = [0.0] * domains
        self._weights = [1 / domains] * domains

    @property
    def weights(self) -> dict[str, float]:
        """Each domain's weight as it stands; they sum to 1."""
        return dict(zip(self._domains.names, self._weights, strict=True))

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems, each domain's share of them by its weight."""
        return self._domains.draw(self._weights, n, rng, self.rounding)

    def learn(self, seen: Seen) -> Metrics:
        """Holds the step, and every so often changes the weights.

        Returns:
            As `DomainSampler.learn`; `sampler/accuracy` is the decayed mean of the last change.
        """
        drawn = self._weights
        self._steps += 1
        self._recent = [self._domains.count(seen), *self._recent][: self.size]
        if self._steps % self.every == 0:
            self._update()
        return self._domains.metrics(seen, weight=drawn, accuracy=self._means)

    def _update(self) -> None:
        decays = np.array([_DECAYS[self.decay](i) for i in range(len(self._recent))])
        sums, counts = (np.array(part, dtype=np.float64) for part in zip(*self._recent, strict=True))  # [b, D]
        number = counts.sum(axis=0)
        found = decays @ sums / np.maximum(number, 1)
        self._means = np.where(number > 0, found, self._means).tolist()
        value = np.maximum(0, decays.mean() - np.array(self._means))
        self._weights = normalized_weights(value, tau=self.tau, floor=self.floor)

    def state_dict(self) -> State:
        """Steps held, means, weights, and where every domain is."""
        return {
            "steps": self._steps,
            "recent": [[list(sums), list(counts)] for sums, counts in self._recent],
            "means": list(self._means),
            "weights": list(self._weights),
            **self._domains.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next batch.

        Raises:
            RunError: the split had other domains, or one of another size, when the state was saved.
        """
        self._domains.load_state_dict(state)
        self._steps = cast("int", state["steps"])
        recent = cast("list[tuple[list[float], list[int]]]", state["recent"])
        self._recent = [(list(sums), list(counts)) for sums, counts in recent]
        self._means, self._weights = (list(cast("list[float]", state[name])) for name in ("means", "weights"))


_DECAYS: Mapping[Decay, Callable[[int], float]] = {
    "harmonic": lambda i: 1 / (i + 1),
    "geometric": lambda i: 0.5**i,
    "none": lambda i: 1.0,
}
