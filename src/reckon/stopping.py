"""Asking a run to stop after the step it is at, saved and ready to be gone on with. Every room may import it.

    with stoppable() as stop:
        train(...)
    stop.reason  # "the reward rose while ...", of the part that asked

Whoever trains opens one and looks at `requested` between steps; what it calls may ask, however deep.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Stop:
    """Whether somebody asked the run to stop, and why."""

    requested: bool = False
    reason: str | None = None  # of a part that asked; None = nobody did, or somebody at the keyboard


_open: ContextVar[Stop | None] = ContextVar("stop", default=None)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """What is asked for inside shows here. One that is opened inside another is that other, so that both are told."""
    outer = _open.get()
    if outer is not None:
        yield outer
        return
    token = _open.set(stop := Stop())
    try:
        yield stop
    finally:
        _open.reset(token)


def stop_after_step(reason: str) -> bool:
    """Asks whoever trains to finish its step, save and stop; the first reason is kept.

    Returns:
        Whether anybody trains here.
    """
    stop = _open.get()
    if stop is None:
        return False
    stop.requested = True
    stop.reason = stop.reason or reason
    return True
