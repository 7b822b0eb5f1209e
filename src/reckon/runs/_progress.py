"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Literal

import rich.console
import rich.progress
from rich.markup import escape


class Progress:
    """Steps done, rate, time left and a short text, on stderr, so that stdout stays for results.

    `with Progress(steps, start) as bar: ... bar.update(step + 1, "reward 0.41")`. Also for cells of a study, and for
    downloads (`unit="MiB"`).
    """

    def __init__(
        self,
        total: float,
        start: float = 0,
        *,
        unit: str = "step",
        show: Literal["auto", "bar", "lines", "nothing"] = "auto",
        every: float = 30.0,
    ) -> None:
        """Nothing is shown before it is entered.

        Args:
            total: how much there is to do, in units.
            start: how much was done before, by an interrupted run; it does not count in the rate.
            unit: the name of one, for the text.
            show: auto = a bar on a terminal and lines elsewhere. Choose lines where stdout is for machines.
            every: seconds between two lines, at least.
        """
        self.total, self.start, self.unit, self.every = total, start, unit, every
        self._console = rich.console.Console(stderr=True)
        self.show = ("bar" if self._console.is_terminal else "lines") if show == "auto" else show
        self._began = self._told = time.monotonic()
        self._bar: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)

    def __enter__(self) -> Progress:
        self._began = self._told = time.monotonic()
        if self.show == "bar":
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.TextColumn("{task.fields[text]}", markup=True),
                console=self._console,
            )
            self._task = self._bar.add_task(self.unit, total=self.total, text="")
            self._bar.update(self._task, completed=self.start)
            self._bar.start()
        return self

    def update(self, done: float, text: str = "") -> None:
        """Shows that `done` units of the total are done, those of an interrupted run included."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=escape(self.line(done, text)), refresh=True)
        elif self.show == "lines" and (done >= self.total or time.monotonic() - self._told >= self.every):
            self._told = time.monotonic()
            print(self.line(done, text), file=sys.stderr, flush=True)  # noqa: T201  (a terminal program's progress)

    def line(self, done: float, text: str = "") -> str:
        """`step 12/40, 3.2 s/step, 1:29 left, TEXT`."""
        seconds, fresh = time.monotonic() - self._began, done - self.start
        parts = [f"{self.unit} {done:g}/{self.total:g}"]
        if fresh > 0 and seconds > 0:
            pace = seconds / fresh
            parts.append(f"{pace:.1f} s/{self.unit}" if pace >= 1 else f"{1 / pace:.1f} {self.unit}/s")
            minutes, rest = divmod(round(pace * max(self.total - done, 0)), 60)
            hours, minutes = divmod(minutes, 60)
            parts.append(f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left")
        return ", ".join([*parts, text] if text else parts)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
