"""A split's problems by domain, each domain gone through in passes of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from reckon.errors import RunError
from reckon.samplers._passes import Passes, shuffled
from reckon.samplers._uniform import problems_of
from reckon.samplers._weights import Rounding, domain_counts
from reckon.types import Metrics, Problem, Rng, Seen, Split, State, Task


class Domains:
    """The problems of a split by domain. What every sampler by domain is made of."""

    def __init__(self, task: Task, split: Split) -> None:
        """Reads the domain of every problem.

        Raises:
            InputError: the split is empty.
        """
        self._problems = problems_of(task, split)
        self._places: dict[str, list[int]] = {}
        for place, problem in enumerate(self._problems):
            self._places.setdefault(problem.domain, []).append(place)
        self.names = tuple(self._places)  # in the order in which the split has them
        self._passes = {
            name: Passes(len(places), shuffled(len(places), "domain", name)) for name, places in self._places.items()
        }

    @property
    def sizes(self) -> dict[str, int]:
        """Problems in each domain."""
        return {name: len(places) for name, places in self._places.items()}

    def draw(self, weights: Sequence[float], n: int, rng: Rng, rounding: Rounding) -> list[Problem]:
        """N problems, from each domain its share, in an order of chance.

        No problem of a domain comes twice before all of it have come; a draw may cross from one pass into the next.
        """
        counts = domain_counts(weights, n, rng.child("counts") if rounding == "chance" else None)
        drawn = [
            self._problems[self._places[name][i]]
            for name, count in zip(self.names, counts, strict=True)
            for i in self._passes[name].take(count, rng)
        ]
        return [drawn[i] for i in rng.child("order").numpy().permutation(n)]

    def count(self, seen: Seen) -> tuple[list[float], list[int]]:
        """For each domain the sum of the known outcomes of a step and their number."""
        at = {name: d for d, name in enumerate(self.names)}
        sums, counts = [0.0] * len(at), [0] * len(at)
        for problem, outcome in zip(seen.problems, seen.outcome.tolist(), strict=True):
            if not math.isnan(outcome):
                sums[at[problem.domain]] += outcome
                counts[at[problem.domain]] += 1
        return sums, counts

    def shown(self, seen: Seen) -> list[int]:
        """For each domain the number of different problems of a step with a known outcome."""
        known = {
            (problem.domain, problem.id)
            for problem, outcome in zip(seen.problems, seen.outcome.tolist(), strict=True)
            if not math.isnan(outcome)
        }
        domains = [domain for domain, _ in known]
        return [domains.count(name) for name in self.names]

    def metrics(self, seen: Seen, **of_domains: Sequence[float]) -> Metrics:
        """Numbers for each domain: `sampler/share/DOMAIN`, of the step's rollouts; passes made; those given."""
        drawn = [problem.domain for problem in seen.problems]
        of_domains = {
            "share": [drawn.count(name) / len(drawn) for name in self.names],
            "passes": [self._passes[name].done for name in self.names],
            **of_domains,
        }
        return {
            f"sampler/{what}/{name}": float(value)
            for what, values in of_domains.items()
            for name, value in zip(self.names, values, strict=True)
        }

    def state_dict(self) -> State:
        """The domains in order, and where each one's passes are."""
        return {"domains": list(self.names), "passes": {str(d): p.state_dict() for d, p in enumerate(self._ordered())}}

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next problem of every domain.

        Raises:
            RunError: the split had other domains, or one of another size, when the state was saved.
        """
        saved = cast("list[str]", state["domains"])
        if saved != list(self.names):
            raise RunError(
                f"the split had the domains {', '.join(saved)} when the run was saved and has {', '.join(self.names)} "
                "now. Resume with the data the run was begun with."
            )
        for d, passes in enumerate(self._ordered()):
            passes.load_state_dict(cast("Mapping[str, State]", state["passes"])[str(d)])

    def _ordered(self) -> list[Passes]:
        return [self._passes[name] for name in self.names]
