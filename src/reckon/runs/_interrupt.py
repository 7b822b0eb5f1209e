"""Ctrl-C that lets a step finish."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Interrupt:
    """Whether somebody asked the run to stop."""

    requested: bool = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Lets the loop decide when to stop: the first Ctrl-C or SIGTERM sets `requested`, the second interrupts at once.

    The handlers that were there before come back at the end. Signals reach the main thread only: in another one,
    `requested` stays False unless the caller sets it.

    Raises:
        KeyboardInterrupt: on the second signal, wherever the body is.
    """
    stop = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        # Not print: a handler may run in the middle of one, and streams cannot be entered twice.
        os.write(2, b"\nStopping after this step; the run is saved then. Once more to stop at once.\n")

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
