"""What the parts of a step spend: seconds, and tokens that models computed. Every room may use it.

    with Ledger() as ledger:
        with spending("sample"):
            rollouts = policy.sample(problems, 8, rng)
    ledger.metrics()  # {"time/sample": 2.1, "computed/sample": 4231.0}

Who opens a ledger is told what everybody inside it spends, however deep; where none is open nothing is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token


class Ledger:
    """Seconds and tokens by name, each counted once: a name is not charged for what a name within it spends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.tokens: dict[str, int] = {}
        self._names: list[str] = []
        self._since = 0.0
        self._before: Token[Ledger | None] | None = None

    def __enter__(self) -> Ledger:
        self._before = _open.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._before is not None
        _open.reset(self._before)

    def metrics(self) -> dict[str, float]:
        """Seconds as "time/NAME" and, where a model was used, tokens as "computed/NAME", padding included."""
        spent = {f"time/{name}": seconds for name, seconds in self.seconds.items()}
        return spent | {f"computed/{name}": float(tokens) for name, tokens in self.tokens.items()}

    def enter(self, name: str) -> None:
        """From now on `name` spends."""
        self._charge()
        self._names.append(name)

    def leave(self) -> None:
        """Who spent before `enter` does so again."""
        self._charge()
        self._names.pop()

    def count(self, tokens: int) -> None:
        """Tokens that a model computed for whoever spends now."""
        if self._names:
            name = self._names[-1]
            self.tokens[name] = self.tokens.get(name, 0) + tokens

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._names:
            name = self._names[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


_open: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


@contextmanager
def spending(name: str) -> Iterator[None]:
    """Charges what happens inside to `name`, such as "sample" or "reward/correct", if a ledger is open."""
    ledger = _open.get()
    if ledger is None:
        yield
        return
    ledger.enter(name)
    try:
        yield
    finally:
        ledger.leave()


def computed(tokens: int) -> None:
    """Says that a model computed so many tokens."""
    ledger = _open.get()
    if ledger is not None:
        ledger.count(tokens)
