"""Rollouts of which hardly one is right in every step, the judges that learn from them, and what these are worth."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils import logging

from reckon.evaluate import auc, best_of_n, brier
from reckon.fit import Settings, fit_command
from reckon.rewards import load_judge
from reckon.studies._implicit_prm_texts import CANDIDATES, Size, World, make_world
from reckon.tasks import ChainArithmetic
from reckon.types import Batch, Json, Metrics, Problem, Rollouts

Network: TypeAlias = Literal["policy", "outcome", "graded"]
Head: TypeAlias = Literal["staged", "binary", "own"]
STAGES = ("early", "third", "two thirds", "right")  # how far a response is right from its beginning on
RIGHT = len(STAGES) - 1
DEV = 0.15  # share of prompts held back, by which a network's best step is kept
BATCH, LR, LOOK = 64, 1e-3, 10  # rows to a step, its rate, and steps between two looks at the rows held back


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """What the arms of a seed share."""

    world: World
    rows: tuple[Mapping[str, Json], ...]  # to learn from: prompt, completion, id, truncated
    stages: NDArray[np.int64]  # of these
    test: Batch
    right: NDArray[np.float64]  # [N] of the test responses, 1 = right in every step
    folder: tempfile.TemporaryDirectory[str]  # of the policy and all that is fitted; gone with the object


@lru_cache(maxsize=1)
def make_written(size: Size, seed: int) -> Written:
    """A small model learns to add, then to err, and answers."""
    world = make_world(size, seed)
    folder = tempfile.TemporaryDirectory(prefix="reckon-staged-")
    logging.disable_progress_bar()
    world.start.save_pretrained(Path(folder.name, "policy"))
    rollouts, test = world.train.rollouts, world.test.batch
    rows: list[Mapping[str, Json]] = [
        {
            "prompt": rollouts.problem(row).prompt_text,
            "completion": text,
            "id": rollouts.problem(row).id,
            "truncated": int(rollouts.end[row]) != 0,
        }
        for row, text in enumerate(rollouts.text)
    ]
    return Written(
        world=world,
        rows=tuple(rows),
        stages=stages_of(world.task, rollouts),
        test=test,
        right=(stages_of(world.task, test.rollouts) == RIGHT).astype(np.float64),
        folder=folder,
    )


def stage(task: ChainArithmetic, problem: Problem, text: str) -> int:
    """0 to 3: how far a response is right from its beginning on: a third of its steps, two thirds, all and no more."""
    steps = [bool(step.valid) for step in task.steps(problem, text)]
    lead = steps.index(False) if False in steps else len(steps)
    if lead == len(steps) == task.operations:
        return RIGHT
    return int(3 * lead >= task.operations) + int(3 * lead >= 2 * task.operations)


def stages_of(task: ChainArithmetic, rollouts: Rollouts) -> NDArray[np.int64]:
    """[N] of responses."""
    return np.array([stage(task, rollouts.problem(row), text) for row, text in enumerate(rollouts.text)], np.int64)


@lru_cache(maxsize=2)
def learned(written: Written, network: Network, epochs: int) -> Path:
    """A folder of `reckon fit`: an outcome model of right and wrong, or of the stage as a share of all."""
    out = Path(written.folder.name, network)
    labels = written.stages == RIGHT if network == "outcome" else written.stages / RIGHT
    how = Settings(epochs=epochs, batch=BATCH, lr=LR, dev=DEV, evaluate_every=LOOK, dtype="float32", device="cpu")
    rows = [{**row, "label": float(label)} for row, label in zip(written.rows, labels.tolist(), strict=True)]
    fit_command("outcome-bce", rows, str(Path(written.folder.name, "policy")), out, how, overwrite=True, show="nothing")
    return out


def judge(written: Written, network: Network, head: Head, epochs: int) -> Path:
    """The folder of an arm's judge."""
    if head == "own":
        return learned(written, network, epochs)
    base = Path(written.folder.name, "policy")
    if network != "policy":
        base = learned(written, network, epochs) / "model"
    names = STAGES if head == "staged" else ("wrong", "right")
    stages = written.stages if head == "staged" else (written.stages == RIGHT).astype(np.int64)
    rows = [{**row, "stage": int(reached)} for row, reached in zip(written.rows, stages.tolist(), strict=True)]
    out = Path(written.folder.name, f"{network}-{head}")
    how = Settings(stages=names, dev=DEV, dtype="float32", device="cpu")
    fit_command("staged", rows, str(base), out, how, overwrite=True, show="nothing")
    return out


def log_odds(folder: Path, batch: Batch) -> NDArray[np.float64]:
    """[N]: what a judge says of responses."""
    opened = load_judge(folder, device="cpu", dtype="float32", tokens_per_batch=2048)
    (stream,) = opened.score(batch).values()
    return stream.values.double().numpy()


def measured(scores: NDArray[np.float64], written: Written) -> Metrics:
    """How good log-odds [N] of the test responses are, by the truth about them."""
    right = written.right
    share = float((written.stages == RIGHT).mean())
    plain = brier(np.full(len(right), share), right)
    probability = torch.sigmoid(torch.from_numpy(scores)).numpy()
    kept = np.clip(np.where(right > 0, probability, 1 - probability), 1e-12, None)
    groups = _by_prompt(scores, right)
    return {
        "auc": auc(scores, right),
        "skill": 100 * (1 - brier(probability, right) / plain) if plain else math.nan,
        "log loss": float(-np.log(kept).mean()),
        "best/16": float(np.mean([best_of_n(own, truth, CANDIDATES) for own, truth in groups])),
        "right": 100 * float(right.mean()),
        "oracle": float(np.mean([truth.any() for _, truth in groups])),
        "learned": 100 * share,
    }


def by_chance(written: Written, error: float) -> float:
    """AUC of a judge that knows how hard a prompt is, and nothing of the response: `uneven_solution`'s chance."""
    problems = map(written.test.rollouts.problem, range(len(written.right)))
    digits = [[int(digit) for digit in re.findall(r"\d", problem.prompt_text)[1:]] for problem in problems]
    return auc(np.array([math.prod(1 - error * digit / 5 for digit in added) for added in digits]), written.right)


def _by_prompt(
    scores: NDArray[np.float64], right: NDArray[np.float64]
) -> Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    places = np.arange(len(scores)).reshape(-1, CANDIDATES)
    return [(scores[own], right[own]) for own in places]
