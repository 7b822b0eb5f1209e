"""Going through a list again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

from reckon.errors import RunError
from reckon.types import Json, Rng, State

Order: TypeAlias = Callable[[Rng, int], list[int]]  # (random numbers of all passes, number of a pass) -> its places


class Passes:
    """Gives the places of a list in an order, then in the order of the next pass, without end.

    An order belongs to the random numbers of the first call (hence to the run's seed) and the number of the pass, not
    to how many places are taken at a time.
    """

    def __init__(self, size: int, order: Order) -> None:
        """Starts the first pass.

        Args:
            size: places in a pass.
            order: gives those of one pass, `size` of them.
        """
        self._size, self._order = size, order
        self._rng: Rng | None = None
        self._position = 0  # places taken since the beginning, over all passes
        self._pass: tuple[int, list[int]] | None = None  # a pass and its places, made when first needed

    def take(self, n: int, rng: Rng) -> list[int]:
        """The next n places. Of the random numbers only those of the first call are used."""
        self._rng = self._rng or rng
        places = [self._place(self._position + i, self._rng) for i in range(n)]
        self._position += n
        return places

    @property
    def done(self) -> float:
        """Passes made, with the fraction of the present one."""
        return self._position / self._size

    def state_dict(self) -> State:
        """Pass, position in it, size of a pass, and the key of the order."""
        passes, position = divmod(self._position, self._size)
        key: Json = None if self._rng is None else list(self._rng.key)
        return {"pass": passes, "position": position, "size": self._size, "key": key}

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next place.

        Raises:
            RunError: a pass had another size when the state was saved.
        """
        size = cast("int", state["size"])
        if size != self._size:
            raise RunError(
                f"the split had {size} problems when the run was saved and has {self._size} now."
                " Resume with the data the run was begun with."
            )
        key = cast("list[int | str] | None", state["key"])
        self._rng = None if key is None else Rng(tuple(key))
        self._position = cast("int", state["pass"]) * size + cast("int", state["position"])
        self._pass = None

    def _place(self, position: int, rng: Rng) -> int:
        number, place = divmod(position, self._size)
        if self._pass is None or self._pass[0] != number:
            self._pass = number, self._order(rng, number)
        return self._pass[1][place]


def shuffled(size: int, *names: int | str) -> Order:
    """Every place once, in an order of chance; `names` tell its random numbers from those of other lists."""
    return lambda rng, number: rng.child(*names, number).numpy().permutation(size).tolist()
