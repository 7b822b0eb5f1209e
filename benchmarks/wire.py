"""A side of the benchmark as a process of its own that answers JSON lines, so that both sides are loaded at once.

Only the standard library: vLLM lives in an environment that has nothing of ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

Message = dict[str, Any]
HERE = Path(__file__).parent


class Worker:
    """A running side, as the orchestrator sees it."""

    def __init__(self, name: str, python: str, log: Path) -> None:
        """Starts `side_<name>.py`; what it prints goes to `log`."""
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [python, str(HERE / f"side_{name}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=environment,
        )

    def ask(self, **command: Any) -> Message:
        """Sends a command and waits for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"{tail}\nthe side {self.name!r} has ended; above is the end of {self.log}.")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process by closing what it listens to."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Orders:
    """The orchestrator, as a side sees it."""

    def __init__(self) -> None:
        """Keeps the pipe to itself: from here on whatever a library prints goes to the log."""
        self._answers: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def __iter__(self) -> Iterator[Message]:
        """Commands as they come, until the orchestrator closes the pipe."""
        for line in sys.stdin:
            yield json.loads(line)

    def answer(self, **message: Any) -> None:
        """Answers the last command."""
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()


def serve(open_job: Callable[[Message], tuple[Message, Callable[[int], Message]]]) -> None:
    """Answers "open" with what `open_job` says, and "step" with what the function it gave says of that step."""
    orders = Orders()
    step: Callable[[int], Message] | None = None
    for command in orders:
        if command["do"] == "open":
            step = None  # lets go of the last model before the next is loaded
            about, step = open_job(command)
            orders.answer(**about)
        else:
            assert step is not None
            orders.answer(**step(command["step"]))
