"""Chains of sums as text, for studies of tiny transformers: where they start, and the exact truth about every step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from reckon.advantages import unit_returns
from reckon.studies._implicit_prm_texts import answered
from reckon.studies._language_model import Lesson, Start, exam, teach
from reckon.tasks import ChainArithmetic
from reckon.types import Batch, Json, Problem, Rng, Rollouts, Stream, Worked

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.models import LanguageModel

LEVEL = 0.75  # share of valid steps at which teaching ends
ASKED = 64  # dev problems, answered twice, that decide when it does


def make_task(seed: int, operations: int, posed: int) -> ChainArithmetic:
    """So many problems to learn from, a twentieth as many of dev and a tenth of test."""
    return ChainArithmetic(seed=seed, operations=operations, train=posed, dev=posed // 20, test=posed // 10)


def task_settings(task: ChainArithmetic) -> dict[str, Json]:
    """The task as a recipe has it."""
    return {"kind": task.name, **{name: getattr(task, name) for name in ("seed", "operations", "train", "dev", "test")}}


@lru_cache(maxsize=1)
def make_start(task: ChainArithmetic, worked: int, passes: int) -> Start:
    """Imitates right solutions until three steps of four that it samples are valid.

    Args:
        task: of the study's seed.
        worked: solutions it is shown.
        passes: over them, at most.
    """
    problems = task.problems("train")[:worked]

    def enough(model: LanguageModel) -> bool:
        return exam(model, task, task.seed, split="dev", n=min(ASKED, task.dev), k=2)["steps right"] >= LEVEL

    return teach(
        [Lesson(problems=problems, texts=[task.solution(problem) for problem in problems], passes=passes)],
        Rng((task.seed, "chains as text")),
        max_new_tokens=2 * task.operations + 2,  # digits, commas and the end, and one step to spare
        enough=enough,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What is true of those responses of a batch that are written in full: one digit an operation, commas between."""

    rows: Tensor  # [M] int64, which responses
    valid: NDArray[np.bool_]  # [M, L], whether a step follows from the one before it
    # [M, L + 1]: the chance to end right, before the first step and after each, of a prover that errs at every step
    # with the same probability, in any of nine ways.
    chance: NDArray[np.float64]

    @property
    def advantage(self) -> NDArray[np.float64]:
        """[M, L]: what each step did to that chance."""
        return np.diff(self.chance, axis=1)

    def at_digits(self, values: Tensor) -> NDArray[np.float64]:
        """[M, L] of values [N, T] of tokens: those of the digits, which are every second character and token."""
        found: NDArray[np.float64] = values[self.rows][:, : 2 * self.valid.shape[1] : 2].double().numpy()
        return found


def truth_of(batch: Batch, operations: int, error: float = 1 - LEVEL) -> Truth:
    """Steps and chances of a batch's responses, exactly.

    Args:
        batch: responses of a model that writes one token a character.
        operations: steps of a full one.
        error: the prover's, at every step, in [0, 1).
    """
    rollouts = batch.rollouts
    full = re.compile(rf"\d(,\d){{{operations - 1}}}")
    rows = [row for row, text in enumerate(rollouts.text) if full.fullmatch(text)]
    chance = np.empty((len(rows), operations + 1))
    valid = np.empty((len(rows), operations), dtype=np.bool_)
    for place, row in enumerate(rows):
        wanted, written = _digits(rollouts.problem(row).prompt_text), _digits(rollouts.text[row])
        before = np.array([wanted[0], *written[:-1]])
        valid[place] = (before + wanted[1:]) % 10 == written
        chance[place] = chances(rollouts.problem(row), written, error)
    return Truth(rows=torch.tensor(rows, dtype=torch.int64), valid=valid, chance=chance)


def chances(problem: Problem, written: list[int], error: float) -> NDArray[np.float64]:
    """[L + 1]: how likely that prover ends right, from the prompt and from each of the digits written.

    What is left to go wrong is a walk on the ten digits, of which a step keeps 1 - 10/9 error of what is known: with h
    steps to go, 0.1 + 0.9 (1 - 10/9 error)^h where the sum so far is right, and 0.1 - 0.1 (...)^h where it is not.
    """
    wanted = _digits(problem.prompt_text)
    right = np.array([True, *(np.cumsum(wanted)[1:] % 10 == written)])
    kept = (1 - 10 / 9 * error) ** np.arange(len(written), -1, -1)
    return np.where(right, 0.1 + 0.9 * kept, 0.1 - 0.1 * kept)


def answers_of(model: LanguageModel, task: ChainArithmetic, n: int, k: int, rng: Rng) -> Batch:
    """What a model writes to the first n dev problems, k times each, judged."""
    return answered(task, model, task.problems("dev")[:n], k, rng)


def judged_steps(task: Worked, rollouts: Rollouts) -> list[tuple[int, int, bool]]:
    """Every step that can be judged, of any response: its row, its first token, and whether it is valid."""
    found = []
    for row, (text, pieces) in enumerate(zip(rollouts.text, rollouts.pieces, strict=True)):
        begins = np.cumsum([0, *map(len, pieces)])  # characters before each token
        for step in task.steps(rollouts.problem(row), text):
            if step.valid is not None:
                found.append((row, int(np.searchsorted(begins, step.start, side="right")) - 1, step.valid))
    return found


@dataclass(frozen=True)
class StepErrors:
    """The truth as a process reward: -1 for every step that does not follow, the largest return then made 1."""

    task: Worked

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T], what a step costs on its first token."""
        mask = batch.seq.mask
        values = torch.zeros(mask.shape)
        for row, token, valid in judged_steps(self.task, batch.rollouts):
            if not valid:
                values[row, token] = -1.0
        return {"step_errors": Stream(values=unit_returns(values, mask))}


def _digits(text: str) -> list[int]:
    return [int(digit) for digit in re.findall(r"\d", text)]
