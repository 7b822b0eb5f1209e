"""Samplers that share a batch out among the domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, cast

import numpy as np

from reckon.errors import InputError
from reckon.samplers._domains import Domains
from reckon.samplers._passes import Passes
from reckon.samplers._uniform import problems_of
from reckon.samplers._weights import Rounding, check_rounding, check_rule, domain_weights, normalized_weights
from reckon.types import Metrics, Problem, Rng, Seen, Split, State, Task

Decay: TypeAlias = Literal["harmonic", "geometric", "none"]


class DomainSampler:
    """Poses more problems of the domains that go badly, by a running mean of accuracy (RuleReasoner's Algorithm 1).

    Liu, Li and Zheng 2026, arXiv:2506.08672: mean_d becomes alpha mean_d + (1 - alpha) times the step's accuracy in
    domain d; a domain without a known outcome in the step keeps its mean. Weights are `domain_weights` of the means.
    """

    def __init__(
        self,
        task: Task,
        *,
        alpha: float = 0.5,
        tau: float = 0.5,
        eps: float = 0.1,
        floor: float = 0.0,
        start: Literal["zero", "first"] = "zero",
        rounding: Rounding = "heaviest",
        control: Literal["none", "shuffled", "inverted"] = "none",
        split: Split = "train",
    ) -> None:
        """Starts with equal weights.

        Args:
            task: whose problems have domains.
            alpha: weight of the past in the mean, in [0, 1); 0 = only the last step counts.
            tau: temperature of the weights, above 0; the paper has 0.5 and, for its smaller model, 0.8.
            eps: added to every exponential, 0 or more.
            floor: least weight of a domain, at most 1 / number of domains.
            start: what a mean is before its domain's first outcome is averaged in: 0, or that outcome itself.
            rounding: the paper's rule for whole numbers, "heaviest", or "chance": see `domain_counts`.
            control: "shuffled" hands the weights to the domains by chance, anew at every draw; "inverted" favors what
                goes well. Both show whether the direction matters.
            split: which problems.

        Raises:
            InputError: the split is empty, or a setting is out of its range.
        """
        self.alpha, self.tau, self.eps, self.floor = alpha, tau, eps, floor
        self.start, self.rounding, self.control, self.split = start, rounding, control, split
        self._domains = Domains(task, split)
        check_rule("domain_sampler", len(self._domains.names), tau=tau, floor=floor, rounding=rounding)
        if not 0 <= alpha < 1:
            raise InputError(f"domain_sampler: `alpha` is {alpha}; it must be 0 or more and below 1.")
        if not 0 <= eps < np.inf:
            raise InputError(f"domain_sampler: `eps` is {eps}; it must be 0 or more.")
        if start not in ("zero", "first"):
            raise InputError(f"domain_sampler: `start` is {start!r}; it must be zero or first.")
        if control not in ("none", "shuffled", "inverted"):
            raise InputError(f"domain_sampler: `control` is {control!r}; it must be none, shuffled or inverted.")
        self._means = [0.0] * len(self._domains.names)
        self._met = [False] * len(self._domains.names)  # whether a domain has had a known outcome
        self._drawn = self._weights()  # the weights of the last draw

    @property
    def weights(self) -> dict[str, float]:
        """Each domain's weight as it stands, before any shuffling; they sum to 1."""
        return dict(zip(self._domains.names, self._weights(), strict=True))

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems, each domain's share of them by its weight."""
        self._drawn = self._weights()
        if self.control == "shuffled":
            self._drawn = [self._drawn[i] for i in rng.child("shuffled").numpy().permutation(len(self._drawn))]
        return self._domains.draw(self._drawn, n, rng, self.rounding)

    def learn(self, seen: Seen) -> Metrics:
        """Averages a step's accuracies in.

        Returns:
            For each domain `sampler/share`, of the step's rollouts, `sampler/weight`, that its last problems were drawn
            by, `sampler/accuracy`, the running mean, and `sampler/passes`.
        """
        for d, (total, count) in enumerate(zip(*self._domains.count(seen), strict=True)):
            if count:
                alpha = 0.0 if self.start == "first" and not self._met[d] else self.alpha
                self._means[d] = alpha * self._means[d] + (1 - alpha) * total / count
                self._met[d] = True
        return self._domains.metrics(seen, weight=self._drawn, accuracy=self._means)

    def state_dict(self) -> State:
        """Means, which of them have begun, and where every domain is."""
        return {"means": list(self._means), "met": list(self._met), **self._domains.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next batch.

        Raises:
            RunError: the split had other domains, or one of another size, when the state was saved.
        """
        self._domains.load_state_dict(state)
        self._means, self._met = list(cast("list[float]", state["means"])), list(cast("list[bool]", state["met"]))
        self._drawn = self._weights()

    def _weights(self) -> list[float]:
        inverted = self.control == "inverted"
        return domain_weights(self._means, tau=self.tau, eps=self.eps, floor=self.floor, invert=inverted)


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


class FixedDomains:
    """Shares every batch out among the domains by weights that do not change; equal ones if none are given."""

    def __init__(
        self,
        task: Task,
        *,
        weights: Mapping[str, float] | None = None,
        rounding: Rounding = "heaviest",
        split: Split = "train",
    ) -> None:
        """Checks the weights.

        Args:
            task: whose problems have domains.
            weights: one for every domain, 0 or more, in proportion; None = equal.
            rounding: as in `DomainSampler`.
            split: which problems.

        Raises:
            InputError: the split is empty, or the weights are not one for each of its domains.
        """
        self.weights, self.rounding, self.split = weights, rounding, split
        self._domains = Domains(task, split)
        names = self._domains.names
        check_rounding("fixed_domains", rounding)
        given = dict.fromkeys(names, 1.0) if weights is None else weights
        if set(given) != set(names):
            odd = ", ".join(sorted(set(given) ^ set(names)))
            raise InputError(
                f"fixed_domains: `weights` must have an entry for each of the domains {', '.join(names)} and no other; "
                f"look at {odd}. A weight of 0 leaves a domain out."
            )
        if not all(0 <= weight < np.inf for weight in given.values()) or not sum(given.values()) > 0:
            raise InputError(f"fixed_domains: `weights` are {dict(given)}; each must be 0 or more, and one above 0.")
        self._shares = [given[name] / sum(given.values()) for name in names]

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems, each domain's share of them by its weight."""
        return self._domains.draw(self._shares, n, rng, self.rounding)

    def learn(self, seen: Seen) -> Metrics:
        """For each domain `sampler/share`, of the step's rollouts, `sampler/weight` and `sampler/passes`."""
        return self._domains.metrics(seen, weight=self._shares)

    def state_dict(self) -> State:
        """Where every domain is."""
        return self._domains.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next batch.

        Raises:
            RunError: the split had other domains, or one of another size, when the state was saved.
        """
        self._domains.load_state_dict(state)


class Balanced:
    """Brings every domain to the mean size of all once and for all, then goes through the result as `uniform` does.

    A larger domain keeps that many of its problems, drawn by chance; a smaller one has each of its problems equally
    often, and as many more as are lacking, drawn by chance, once more. In expectation a batch is that of
    `fixed_domains` with equal weights; what a large domain loses here, it never gets back.
    """

    def __init__(self, task: Task, *, split: Split = "train") -> None:
        self.split = split
        self._problems = problems_of(task, split)
        self._places: dict[str, list[int]] = {}
        for place, problem in enumerate(self._problems):
            self._places.setdefault(problem.domain, []).append(place)
        self._each = max(1, round(len(self._problems) / len(self._places)))
        self._passes = Passes(self._each * len(self._places), self._order)

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems. Of the random numbers only those of the first draw are used."""
        return [self._problems[place] for place in self._passes.take(n, rng)]

    def learn(self, seen: Seen) -> Metrics:
        """`sampler/passes`: how often the balanced problems have been gone through, with its fraction."""
        del seen
        return {"sampler/passes": self._passes.done}

    def state_dict(self) -> State:
        """Pass, position in it, the size of a pass, and the key of the order."""
        return self._passes.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next problem.

        Raises:
            RunError: a pass had another size when the state was saved.
        """
        self._passes.load_state_dict(state)

    def _order(self, rng: Rng, number: int) -> list[int]:
        chosen = []
        for name, places in self._places.items():
            whole, lacking = divmod(self._each, len(places))
            extra = rng.child("balanced", name).numpy().permutation(len(places))[:lacking]  # the same in every pass
            chosen += places * whole + [places[i] for i in extra]
        return [chosen[i] for i in rng.child("balanced", number).numpy().permutation(len(chosen))]
