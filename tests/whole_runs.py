"""Whole runs from the command line, and what they leave behind, to be compared bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path

from reckon.cli import main

CLOCK = ("seconds", "time/", "memory/")  # no two runs agree on these


def train(*arguments: str) -> int:
    """The exit code of `reckon train`."""
    return main(["train", *arguments, "--quiet"])


def made_once(home: Path, recipe: str) -> Callable[..., Path]:
    """trained(*settings) -> the folder of a whole run of the recipe with these settings, made once."""
    made: dict[tuple[str, ...], Path] = {}

    def trained(*settings: str) -> Path:
        if settings not in made:
            made[settings] = home / f"whole-{len(made)}"
            assert train(recipe, *settings, "--out", str(made[settings])) == 0
        return made[settings]

    return trained


def metrics(folder: Path, without: tuple[str, ...] = CLOCK) -> list[dict[str, str]]:
    """The metrics of each step to the last digit, but for those that begin so."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: repr(v) for k, v in line.items() if not k.startswith(without)} for line in lines]


def checkpoint(folder: Path, step: int = 6) -> dict[str, bytes]:
    """The files of a checkpoint: weights, moments, positions and baselines."""
    return {path.name: path.read_bytes() for path in (folder / "checkpoints" / f"step-{step:06}").iterdir()}
