"""Every problem as often as any other."""

from __future__ import annotations

from collections.abc import Sequence

from reckon.errors import InputError
from reckon.samplers._passes import Passes, shuffled
from reckon.types import Metrics, Problem, Rng, Seen, Split, State, Task


def problems_of(task: Task, split: Split) -> Sequence[Problem]:
    """The problems of a split.

    Raises:
        InputError: there are none.
    """
    problems = task.problems(split)
    if not problems:
        raise InputError(f"the task {task.name!r} has no problem in its split {split!r}, so none can be posed.")
    return problems


class Uniform:
    """Poses every problem of a split once, in an order of chance, then all of them again in another.

    The order belongs to the random numbers of the first draw (hence to the run's seed) and the number of the pass, not
    to how many problems are drawn at a time. A draw may cross from one pass into the next.
    """

    def __init__(self, task: Task, *, split: Split = "train") -> None:
        self.split = split
        self._problems = problems_of(task, split)
        self._passes = Passes(len(self._problems), shuffled(len(self._problems), "uniform"))

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems. Of the random numbers only those of the first draw are used."""
        return [self._problems[place] for place in self._passes.take(n, rng)]

    def learn(self, seen: Seen) -> Metrics:
        """`sampler/passes`: how often the split has been gone through, with its fraction."""
        del seen  # every problem is as good as any other, however it went
        return {"sampler/passes": self._passes.done}

    def state_dict(self) -> State:
        """Pass, position in it, the split's size, and the key of the order."""
        return self._passes.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next problem.

        Raises:
            RunError: the split had another size when the state was saved.
        """
        self._passes.load_state_dict(state)
