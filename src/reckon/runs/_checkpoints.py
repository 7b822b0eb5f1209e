"""Checkpoints: folders that are whole or not there, the last few and the best."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from reckon.errors import InputError, MissingError, RunError
from reckon.files import write_file, writing
from reckon.runs._folders import remove, write_folder
from reckon.runs._states import read_state, write_state
from reckon.types import Stateful

_FACTS = "checkpoint"  # the file that says which step and parts; a folder without it is no checkpoint


class Checkpoints:
    """The folder checkpoints/ of a run."""

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self._folder, self._keep_last = folder, keep_last

    def steps(self) -> list[int]:
        """The steps that can be restored, ascending."""
        if not self._folder.is_dir():
            return []
        found = [re.fullmatch(r"step-(\d{6,})", path.name) for path in self._folder.iterdir()]
        names = [match[1] for match in found if match and (self._folder / match[0] / f"{_FACTS}.json").is_file()]
        return sorted(int(name) for name in names)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self._folder / f"step-{step:06}"

    def best(self) -> tuple[int, float] | None:
        """The step with the highest score, the first of equals, and its score; None if none has one."""
        scored = [(step, score) for step in self.steps() if (score := self._facts(step)[0]) is not None]
        return max(scored, key=lambda pair: (pair[1], -pair[0]), default=None)

    def save(self, step: int, parts: Mapping[str, object], score: float | None) -> None:
        """Writes a checkpoint, then points to the best, then deletes what is neither best nor among the last."""
        states = {name: part.state_dict() for name, part in with_memory(parts).items()}
        facts = {
            "step": step,
            "score": None if score is None or math.isnan(score) else float(score),
            "parts": sorted(states),
        }

        def fill(folder: Path) -> None:
            for name, state in states.items():
                write_state(folder, name, state)
            (folder / f"{_FACTS}.json").write_text(json.dumps(facts) + "\n")

        write_folder(self.path(step), fill)
        self.rotate()

    def rotate(self) -> None:
        """Mends the pointer to the best and deletes old checkpoints."""
        best = self.best()
        pointer = self._folder / "best"
        if best is not None:
            name = self.path(best[0]).name + "\n"
            if not pointer.exists() or pointer.read_text() != name:
                write_file(pointer, name.encode())
        steps = self.steps()
        with writing(self._folder):
            for step in steps[: -self._keep_last]:
                if best is None or step != best[0]:
                    remove(self.path(step))

    def clean(self) -> None:
        """Deletes folders that look like checkpoints and are not whole."""
        if not self._folder.is_dir():
            return
        whole = {self.path(step).name for step in self.steps()}
        with writing(self._folder):
            for path in self._folder.iterdir():
                if path.is_dir() and path.name.startswith("step-") and path.name not in whole:
                    remove(path)

    def load(self, step: int, parts: Mapping[str, object], *, every: bool) -> None:
        """Gives the parts their states. `every`: the checkpoint may hold no part that is not asked for.

        Raises:
            MissingError: no such checkpoint.
            RunError: names do not agree, or a file is damaged.
        """
        if step not in self.steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise MissingError(f"{self.path(step)} is not there. Checkpoints of this run: {known}.")
        stateful, saved = with_memory(parts), set(self._facts(step)[1])
        wrong = set(stateful) ^ saved if every else set(stateful) - saved
        if wrong:
            raise RunError(
                f"{self.path(step)} holds the parts {_list(saved)}, and the run has {_list(stateful)}: "
                f"they differ in {_list(wrong)}. Resume with the recipe and version of reckon that made it."
            )
        states = {name: read_state(self.path(step), name) for name in stateful}
        for name, part in stateful.items():
            part.load_state_dict(states[name])

    def _facts(self, step: int) -> tuple[float | None, list[str]]:
        path = self.path(step) / f"{_FACTS}.json"
        try:
            facts = json.loads(path.read_text())
            return facts["score"], list(facts["parts"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RunError(f"{path} is damaged ({error}). Delete the folder {path.parent}.") from error


def with_memory(parts: Mapping[str, object]) -> dict[str, Stateful]:
    """The parts that remember something; the others need no saving.

    Raises:
        InputError: a name that cannot be a file's, or a part with one of the two methods.
    """
    chosen: dict[str, Stateful] = {}
    for name, part in parts.items():
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or name == _FACTS:
            raise InputError(f"`{name}` cannot be the name of a saved part. Use letters, digits, `_`, `-` and `.`.")
        if isinstance(part, Stateful):
            chosen[name] = part
        elif hasattr(part, "state_dict") or hasattr(part, "load_state_dict"):
            raise InputError(f"`{name}` ({type(part).__name__}) needs both state_dict and load_state_dict to be saved.")
    return chosen


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
