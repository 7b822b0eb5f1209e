"""Whole runs from the command line, and what they leave behind, to be compared bit for bit."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

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


def broken_off(folder: Path, judge: type, recipe: str, *settings: str) -> Path:
    """The folder, with a run in it that was stopped as the judge came to its third batch, and then gone on with."""
    steps, real = [], judge.assess

    def stop_at_the_third(self, batch, rng):
        steps.append(batch.step)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, batch, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "assess", stop_at_the_third)
        assert train(recipe, *settings, "--out", str(folder)) == 130
    assert steps == [0, 1, 2]
    assert train("--resume", str(folder)) == 0
    return folder


def metrics(folder: Path, without: tuple[str, ...] = CLOCK) -> list[dict[str, str]]:
    """The metrics of each step to the last digit, but for those that begin so."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: repr(v) for k, v in line.items() if not k.startswith(without)} for line in lines]


def checkpoint(folder: Path, step: int = 6) -> dict[str, bytes]:
    """The files of a checkpoint: weights, moments, positions and baselines."""
    return {path.name: path.read_bytes() for path in (folder / "checkpoints" / f"step-{step:06}").iterdir()}
