"""Ctrl-C that lets a step finish."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from reckon.stopping import Stop, stoppable


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Lets the loop decide when to stop: the first Ctrl-C or SIGTERM sets `requested`, the second interrupts at once.

    So does a part that calls `reckon.stopping.stop_after_step`. The handlers that were there before come back at the
    end. Signals reach the main thread only: in another one, `requested` stays False unless the caller or a part sets
    it.

    Raises:
        KeyboardInterrupt: on the second signal, wherever the body is.
    """
    with stoppable() as stop:
        if threading.current_thread() is not threading.main_thread():
            yield stop
            return
        signaled = False  # not `requested`: a part may have asked before, and this is the first Ctrl-C still

        def handle(number: int, frame: FrameType | None) -> None:
            nonlocal signaled
            if signaled:
                raise KeyboardInterrupt
            signaled = stop.requested = True
            # Not print: a handler may run in the middle of one, and streams cannot be entered twice.
            os.write(2, b"\nStopping after this step; the run is saved then. Once more to stop at once.\n")

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
