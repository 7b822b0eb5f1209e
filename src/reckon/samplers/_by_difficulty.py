"""Samplers that read how difficult a problem is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from reckon.errors import InputError
from reckon.samplers._passes import Passes
from reckon.samplers._uniform import problems_of
from reckon.types import Metrics, Problem, Rng, Seen, Split, State, Task


def difficulties(owner: str, problems: Sequence[Problem], column: str) -> np.ndarray:
    """[size] float64: a column of the problems.

    Raises:
        InputError: a problem has no number there.
    """
    found = []
    for problem in problems:
        value = problem.columns.get(column)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            have = ", ".join(problem.columns) or "none"
            raise InputError(
                f"{owner}: problem {problem.id!r} has no number in the column {column!r} (columns: {have}). Give every "
                "problem its difficulty there, or name another column with `difficulty`."
            )
        found.append(float(value))
    return np.array(found)


class EasyToHard:
    """Poses the easy problems first: the split in parts of rising difficulty, one part after another.

    Within a part the order is one of chance. After the last part it begins again with the first.
    """

    def __init__(
        self,
        task: Task,
        *,
        difficulty: str = "difficulty",
        parts: int | None = None,
        passes: int = 1,
        split: Split = "train",
    ) -> None:
        """Reads the difficulty of every problem.

        Args:
            task: whose problems have a number for their difficulty among their columns.
            difficulty: that column; the larger the number, the harder.
            parts: how many parts of equal size; None = one for every number there is.
            passes: how often a part is gone through before the next.
            split: which problems.

        Raises:
            InputError: the split is empty, a problem has no difficulty, or there are more parts than problems.
        """
        self.difficulty, self.parts, self.passes, self.split = difficulty, parts, passes, split
        self._problems = problems_of(task, split)
        self._difficulty = difficulties("easy_to_hard", self._problems, difficulty)
        size = len(self._problems)
        if passes < 1 or (parts is not None and not 1 <= parts <= size):
            raise InputError(
                f"easy_to_hard: `parts` is {parts} and `passes` is {passes}; there must be 1 to {size} parts, for the "
                "split has no more problems, and 1 pass or more."
            )
        self._passes = Passes(size * passes, self._order)

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems. Of the random numbers only those of the first draw are used."""
        return [self._problems[place] for place in self._passes.take(n, rng)]

    def learn(self, seen: Seen) -> Metrics:
        """`sampler/difficulty`, the mean of the step's rollouts, and `sampler/passes`, from the first part to the last.

        A pass counts as one however often it goes through each part.
        """
        return {"sampler/difficulty": _mean(seen, self.difficulty), "sampler/passes": self._passes.done}

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
        generator = rng.child("easy_to_hard", number).numpy()
        ties = generator.permutation(len(self._problems))
        rising = ties[np.argsort(self._difficulty[ties], kind="stable")]
        if self.parts is None:
            _, starts = np.unique(self._difficulty[rising], return_index=True)
            parts = np.split(rising, starts[1:])
        else:
            parts = np.array_split(rising, self.parts)
        return [int(place) for part in parts for _ in range(self.passes) for place in generator.permutation(part)]


class AdaptiveDifficulty:
    """Poses the problems whose difficulty is nearest to a target that follows the accuracy (AdaRFT, arXiv:2504.05520).

    After a step with mean accuracy R the target T becomes T + eta tanh(kappa (R - beta)), held within [0, 100].
    Problems that are equally near come in an order of chance. Within a step no problem comes twice before all have
    come; the next step may pose the same ones again.
    """

    def __init__(
        self,
        task: Task,
        *,
        difficulty: str = "difficulty",
        start: float = 0.0,
        eta: float = 50.0,
        kappa: float = 2.0,
        beta: float = 0.5,
        split: Split = "train",
    ) -> None:
        """Reads the difficulty of every problem.

        Args:
            task: whose problems have a number from 0 to 100 for their difficulty among their columns.
            difficulty: that column; the larger the number, the harder.
            start: the first target, from 0 to 100.
            eta: the largest move of the target, above 0.
            kappa: how sharply the move answers to the accuracy, above 0.
            beta: the accuracy that is wanted, in [0, 1].
            split: which problems.

        Raises:
            InputError: the split is empty, a problem has no difficulty from 0 to 100, or a setting is out of its range.
        """
        self.difficulty, self.start, self.eta, self.kappa, self.beta = difficulty, start, eta, kappa, beta
        self.split = split
        self._problems = problems_of(task, split)
        self._difficulty = difficulties("adaptive_difficulty", self._problems, difficulty)
        outside = np.flatnonzero((self._difficulty < 0) | (self._difficulty > 100))
        if len(outside):
            first = outside[0]
            raise InputError(
                f"adaptive_difficulty: problem {self._problems[first].id!r} has {self._difficulty[first]:g} in the "
                f"column {difficulty!r}. Bring the difficulties to the scale from 0 to 100."
            )
        if not (0 <= start <= 100 and 0 < eta < math.inf and 0 < kappa < math.inf and 0 <= beta <= 1):
            raise InputError(
                f"adaptive_difficulty: `start` is {start}, `eta` {eta}, `kappa` {kappa} and `beta` {beta}; `start` "
                "must lie between 0 and 100, `eta` and `kappa` above 0, and `beta` between 0 and 1."
            )
        self._target = start
        self._posed: set[int] = set()  # in this step

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The n nearest problems that this step has not posed yet."""
        chosen: list[int] = []
        while len(chosen) < n:
            if len(self._posed) == len(self._problems):
                self._posed.clear()
            ties = rng.child("ties", len(chosen)).numpy().permutation(len(self._problems))
            distance = np.abs(self._difficulty[ties] - self._target)
            nearest = (int(place) for place in ties[np.argsort(distance, kind="stable")])
            left = [place for place in nearest if place not in self._posed][: n - len(chosen)]
            self._posed.update(left)
            chosen += left
        return [self._problems[place] for place in chosen]

    def learn(self, seen: Seen) -> Metrics:
        """Moves the target, unless no outcome is known.

        Returns:
            `sampler/target`, of the next step, and `sampler/difficulty`, the mean of this step's rollouts.
        """
        self._posed.clear()
        known = seen.outcome[~seen.outcome.isnan()]
        if len(known):
            move = self.eta * math.tanh(self.kappa * (float(known.double().mean()) - self.beta))
            self._target = min(100.0, max(0.0, self._target + move))
        return {"sampler/target": self._target, "sampler/difficulty": _mean(seen, self.difficulty)}

    def state_dict(self) -> State:
        """The target."""
        return {"target": self._target}

    def load_state_dict(self, state: State) -> None:
        """Goes on with the target."""
        self._target = cast("float", state["target"])


def _mean(seen: Seen, column: str) -> float:
    return float(np.mean([cast("float", problem.columns[column]) for problem in seen.problems]))
