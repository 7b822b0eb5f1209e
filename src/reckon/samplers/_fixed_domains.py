"""Samplers that share a batch out among the domains alike, however they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reckon.errors import InputError
from reckon.samplers._domains import Domains
from reckon.samplers._passes import Passes
from reckon.samplers._uniform import problems_of
from reckon.samplers._weights import Rounding, check_rounding
from reckon.types import Metrics, Problem, Rng, Seen, Split, State, Task


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
