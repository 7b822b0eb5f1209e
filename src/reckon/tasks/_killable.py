"""A function that may hang, eat memory or die, called where it can do no harm.

Signal-based time-outs need the main thread, and a thread cannot be stopped, so the function lives in a process of its
own that is killed when its time is up. The process is a fresh interpreter: nothing is forked from a threaded parent,
and the user's script is not imported again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import IO

from reckon.errors import RunError
from reckon.types import Json

START_SECONDS = 120.0  # importing the function's module may be slow on a busy machine; it is not the call's fault
_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from reckon.tasks._worker import serve; "
_BOOT += "serve(sys.argv[2], float(sys.argv[3]), sys.argv[4:])"


class TimedOutError(Exception):
    """The call took longer than its limit, and its process was killed."""


class CrashedError(Exception):
    """The call raised, or its process died."""


class _Worker:
    """One child process, used by one caller at a time."""

    def __init__(self, target: str, seconds: float, ahead: Sequence[str]) -> None:
        path = [entry or os.getcwd() for entry in sys.path]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(path), target, str(seconds), *ahead],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C in the terminal reaches the parent only
        )
        try:
            self._exchange(None, START_SECONDS)
        except (TimedOutError, CrashedError) as error:  # not the answer's fault: every verdict would be unknown
            raise RunError(
                f"the checker's process for {target} did not start: {error}. "
                f"See why with: {sys.executable} -c 'import {', '.join([target.partition(':')[0], *ahead])}'"
            ) from error

    def call(self, arguments: tuple[Json, ...], seconds: float) -> Json:
        reply = self._exchange(json.dumps(arguments) + "\n", seconds)
        if "error" in reply:
            raise CrashedError(str(reply["error"]))
        return reply["value"]

    def _exchange(self, request: str | None, seconds: float) -> dict[str, Json]:
        """Sends a line and reads one. The timer kills the process, which ends the read: portable, and no signals."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        line = ""
        try:
            if request is not None:
                _pipe(self.process.stdin).write(request)
                _pipe(self.process.stdin).flush()
            line = _pipe(self.process.stdout).readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            reply: dict[str, Json] = json.loads(line)
            return reply
        self.close()
        if late.is_set():
            raise TimedOutError(f"no result within {seconds:g} s")
        raise CrashedError(f"the process ended with code {self.process.returncode}")

    def usable(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """Kills the process and waits for it, so that no zombie stays."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # unsent bytes for a process that is gone
                _pipe(pipe).close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # both were asked for
    return pipe


def _close_all(workers: list[_Worker], owner: int) -> None:
    if os.getpid() == owner:  # a forked child must leave its parent's workers alone
        for worker in workers:
            worker.close()
        workers.clear()


class Killable:
    """Calls `module:function` in child processes with a time limit; safe from any thread.

    Processes start with the first call, are used again and again, and are replaced after a time-out or a crash.
    Arguments and results must be JSON.

    Args:
        target: `module:function`, importable from a fresh interpreter.
        seconds: limit for one call, > 0.
        ahead: modules that the function imports by itself. The process imports them before the first call, so that
            a slow disk is not taken for a slow answer.
        workers: how many processes at most; further callers wait.
    """

    def __init__(self, target: str, *, seconds: float = 5.0, ahead: Sequence[str] = (), workers: int = 1) -> None:
        self.target = target
        self.seconds = seconds
        self.ahead = tuple(ahead)
        self.workers = workers
        self._reset()

    def _reset(self) -> None:
        self._owner = os.getpid()
        self._slots = threading.BoundedSemaphore(self.workers)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: list[_Worker] = []
        weakref.finalize(self, _close_all, self._all, self._owner)  # when forgotten, and at exit

    def __call__(self, *arguments: Json) -> Json:
        """The function's result.

        Raises:
            TimedOutError: it took longer than `seconds`.
            CrashedError: it raised, ran out of memory, or its process died.
            RunError: the process did not even start, which no argument can bring about.
        """
        if os.getpid() != self._owner:
            self._reset()
        with self._slots:
            worker = self._take()
            try:
                return worker.call(arguments, self.seconds)
            finally:
                self._give_back(worker)

    def _take(self) -> _Worker:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is not None and worker.usable():
            return worker
        if worker is not None:
            self._forget(worker)
        worker = _Worker(self.target, self.seconds, self.ahead)
        with self._lock:
            self._all.append(worker)
        return worker

    def _give_back(self, worker: _Worker) -> None:
        if worker.usable():
            with self._lock:
                self._idle.append(worker)
        else:
            self._forget(worker)

    def _forget(self, worker: _Worker) -> None:
        worker.close()
        with self._lock:
            if worker in self._all:
                self._all.remove(worker)

    def close(self) -> None:
        """Kills all processes; the next call starts anew."""
        with self._lock:
            _close_all(self._all, self._owner)
            self._idle.clear()
