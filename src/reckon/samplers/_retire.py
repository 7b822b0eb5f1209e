"""Problems that are solved are posed no more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from reckon.errors import InputError, RunError
from reckon.samplers._passes import Passes, shuffled
from reckon.samplers._uniform import problems_of
from reckon.stopping import stop_after_step
from reckon.types import Json, Metrics, Problem, Rng, Seen, Split, State, Task


class Retire:
    """As `uniform`, without the problems that went so well in one step that they are never posed again.

    As `no_resampling_pass_rate` of open-instruct.
    """

    def __init__(self, task: Task, *, pass_rate: float = 1.0, split: Split = "train") -> None:
        """Starts with every problem.

        Args:
            task: poses the problems; their ids tell them apart.
            pass_rate: a problem retires when the mean of its known outcomes in a step is this or more; in (0, 1].
            split: which problems.

        Raises:
            InputError: the split is empty, or the rate is out of its range.
        """
        self.pass_rate, self.split = pass_rate, split
        self._problems = problems_of(task, split)
        if not 0 < pass_rate <= 1:
            raise InputError(f"retire: `pass_rate` is {pass_rate}; it must be above 0 and at most 1.")
        self._passes = Passes(len(self._problems), shuffled(len(self._problems), "retire"))
        self._retired: set[str] = set()

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems that are not retired.

        Raises:
            RunError: there is none left.
        """
        if len(self._retired) == len(self._problems):
            raise RunError(
                f"{self._all_done()}. The run is done; for more, raise `pass_rate` or bring harder problems."
            )
        found: list[Problem] = []
        while len(found) < n:
            (place,) = self._passes.take(1, rng)
            if self._problems[place].id not in self._retired:
                found.append(self._problems[place])
        return found

    def learn(self, seen: Seen) -> Metrics:
        """Retires what is solved; when that is everything, asks the run to stop, so that what was learned is saved.

        Returns:
            `sampler/retired`, the share of the problems that are, and `sampler/passes`.
        """
        outcomes: dict[str, list[float]] = {}
        for problem, outcome in zip(seen.problems, seen.outcome.tolist(), strict=True):
            if not math.isnan(outcome):
                outcomes.setdefault(problem.id, []).append(outcome)
        # Outcomes are float32 and the rate is not: without some slack 0.8 would not be 0.8.
        self._retired |= {name for name, own in outcomes.items() if sum(own) / len(own) >= self.pass_rate - 1e-6}
        if len(self._retired) == len(self._problems):
            stop_after_step(f"retire: {self._all_done()}")
        return {"sampler/retired": len(self._retired) / len(self._problems), "sampler/passes": self._passes.done}

    def state_dict(self) -> State:
        """Who is retired, and where the passes are."""
        return {"retired": cast("Json", sorted(self._retired)), "passes": self._passes.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next problem.

        Raises:
            RunError: the split had another size when the state was saved.
        """
        self._passes.load_state_dict(cast("State", state["passes"]))
        self._retired = set(cast("list[str]", state["retired"]))

    def _all_done(self) -> str:
        return f"all {len(self._problems)} problems have reached the pass rate {self.pass_rate:g} and are retired"
