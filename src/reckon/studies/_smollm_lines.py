"""Step advantages without a learned judge: what a rule that checks every line says each line of a running sum did."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from reckon.errors import InputError
from reckon.process import best_of_k, step_advantages, with_outcome
from reckon.steps import Pattern, split_rollouts, spread
from reckon.studies._smollm_exam import walk
from reckon.tasks import RunningSums
from reckon.types import Batch, Problem, Stream


@dataclass(frozen=True)
class ExactSteps:
    """What each line did to the chance of a prover that gets every further line right with probability `line`.

    Where nothing is wrong so far and m lines are needed yet the prover succeeds with line^m, and where something is
    wrong, never. A right line is worth line^(m - 1) (1 - line), a wrong one -line^m: for a policy that is as good as
    this prover the mean is 0. One that takes the best of `prover_k` attempts gains little by right lines and loses all
    by a wrong one: for that policy the mean is below 0. Behind the last line stands the verdict, which knows of errors
    that cancel out, and of sums that were left unfinished.
    """

    task: RunningSums
    line: float
    prover_k: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.line < 1:
            raise InputError(f"ExactSteps: `line` is {self.line}; it must lie between 0 and 1.")
        if self.prover_k < 1:
            raise InputError(f"ExactSteps: `prover_k` is {self.prover_k}; it must be 1 or more.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """The stream "step_advantage" [N, T], of kind "advantage". Pure."""
        rollouts = batch.rollouts
        steps = split_rollouts(rollouts, Pattern())
        values = torch.full((len(steps.ends), 1 + max((len(ends) for ends in steps.ends), default=0)), torch.nan)
        for row, ends in enumerate(steps.ends):
            pieces = rollouts.pieces[row]
            texts = ["", *("".join(pieces[: end + 1]) for end in ends)]
            values[row, : len(texts)] = torch.tensor([self.chance(rollouts.problem(row), text) for text in texts])
        advantages = step_advantages(with_outcome(best_of_k(values, self.prover_k), batch.outcome.cpu()))
        return {"step_advantage": Stream(values=spread(advantages, steps).to(batch.outcome.device), kind="advantage")}

    def chance(self, problem: Problem, text: str) -> float:
        """That one attempt of the prover ends rightly what begins so, in [0, 1]."""
        needed = len(re.findall(r"\d+", problem.prompt_text))
        so_far = walk(self.task.steps(problem, text), needed, right=False)
        return self.line ** max(needed - so_far.right, 0) if so_far.right == so_far.judged else 0.0
