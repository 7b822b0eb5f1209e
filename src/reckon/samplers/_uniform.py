"""Every problem as often as any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from reckon.errors import InputError, RunError
from reckon.types import Json, Metrics, Problem, Rng, Seen, Split, State, Task


class Uniform:
    """Poses every problem of a split once, in an order of chance, then all of them again in another.

    The order belongs to the random numbers of the first draw (hence to the run's seed) and the number of the pass, not
    to how many problems are drawn at a time. A draw may cross from one pass into the next.
    """

    def __init__(self, task: Task, *, split: Split = "train") -> None:
        self.split = split
        self._problems = task.problems(split)
        if not self._problems:
            raise InputError(f"the task {task.name!r} has no problem in its split {split!r}, so none can be posed.")
        self._rng: Rng | None = None
        self._position = 0  # problems drawn since the beginning, over all passes
        self._order: tuple[int, list[int]] | None = None  # a pass and its order, made when first needed

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems. Of the random numbers only those of the first draw are used."""
        self._rng = self._rng or rng
        indices = [self._index(self._position + i, self._rng) for i in range(n)]
        self._position += n
        return [self._problems[i] for i in indices]

    def learn(self, seen: Seen) -> Metrics:
        """`sampler/passes`: how often the split has been gone through, with its fraction."""
        del seen  # every problem is as good as any other, however it went
        return {"sampler/passes": self._position / len(self._problems)}

    def state_dict(self) -> State:
        """Pass, position in it, the split's size, and the key of the order."""
        passes, position = divmod(self._position, len(self._problems))
        key: Json = None if self._rng is None else list(self._rng.key)
        return {"pass": passes, "position": position, "size": len(self._problems), "key": key}

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next problem.

        Raises:
            RunError: the split had another size when the state was saved.
        """
        size = cast("int", state["size"])
        if size != len(self._problems):
            raise RunError(
                f"the split had {size} problems when the run was saved and has {len(self._problems)} now."
                " Resume with the data the run was begun with."
            )
        key = cast("list[int | str] | None", state["key"])
        self._rng = None if key is None else Rng(tuple(key))
        self._position = cast("int", state["pass"]) * size + cast("int", state["position"])
        self._order = None

    def _index(self, position: int, rng: Rng) -> int:
        number, place = divmod(position, len(self._problems))
        if self._order is None or self._order[0] != number:
            order = rng.child("uniform", number).numpy().permutation(len(self._problems))
            self._order = number, order.tolist()
        return self._order[1][place]
