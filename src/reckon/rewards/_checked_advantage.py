"""How much each step changed a prover's chance of being right, where the task itself can check steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from reckon.errors import InputError
from reckon.process import best_of_k, step_advantages, with_outcome
from reckon.rewards._judges_reading import check_splitter
from reckon.steps import Pattern, Splitter, Steps, split_rollouts, spread, step_ends
from reckon.types import Batch, Problem, Rollouts, Stream, Task, Worked


@dataclass(frozen=True)
class CheckedAdvantage:
    """How much each step changed a prover's chance of being right, by the task's own rule (after arXiv:2410.08146).

    The prover gets every further step right with probability `skill` and never makes good what went wrong. Where
    nothing is wrong so far and m steps are needed yet, as many as the worked solution has more, it succeeds with chance
    skill^m; behind a wrong step, never. So a right step is worth skill^(m - 1) (1 - skill) and the first wrong one
    -skill^m: 0 in the mean for a policy of the prover's own skill. With `prover_k` the prover is the best of so many
    attempts, which gains little by a right step and loses all by a wrong one. A response's last value is its verdict,
    which knows of errors that cancel out, and of what was left unfinished.

    What the rule cannot judge, and problems whose worked solution has no steps, are credited with nothing. Every token
    of a step gets the step's advantage, in a stream of kind "advantage": it is added to its own tokens. Summed into a
    return it would telescope to outcome - constant, and the method would do nothing.
    """

    task: Task  # knows worked solutions and the truth of steps
    _: KW_ONLY
    skill: float = 0.75  # in (0, 1); near the policy's own share of right steps
    prover_k: int = 1
    splitter: Pattern | Splitter = field(default_factory=Pattern)

    def __post_init__(self) -> None:
        if not isinstance(self.task, Worked):
            raise InputError(
                f"checked_advantage: the task {type(self.task).__name__} cannot check steps. Take one that can, such "
                "as running_sums or rules, or give it `solution` and `steps`."
            )
        if not 0 < self.skill < 1:
            raise InputError(f"checked_advantage: `skill` is {self.skill}; it must lie between 0 and 1.")
        if self.prover_k < 1:
            raise InputError(f"checked_advantage: `prover_k` is {self.prover_k}; it must be 1 or more.")
        check_splitter("checked_advantage", self.splitter)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T] of kind "advantage". Pure.

        Raises:
            InputError: no problem of the batch has a worked solution with steps, or the splitter does not find them.
        """
        rollouts = batch.rollouts
        needed = [self._needed(problem) for problem in rollouts.problems]
        if not any(needed):
            raise InputError(
                f"checked_advantage: the worked solution of problem {rollouts.problems[0].id!r} has no steps that can "
                "be checked, nor has any other of this batch. Take a task whose solutions have, or another judge."
            )
        steps = split_rollouts(rollouts, self.splitter)
        values = best_of_k(self._chances(rollouts, steps, needed), self.prover_k)
        advantages = step_advantages(with_outcome(values, batch.outcome.cpu()))
        known = torch.tensor([needed[group] > 0 for group in rollouts.seq.group.tolist()])
        advantages = torch.where(known[:, None], advantages, 0.0).to(steps.index.device)
        return {"checked_advantage": Stream(values=spread(advantages, steps), kind="advantage")}

    def _chances(self, rollouts: Rollouts, steps: Steps, needed: list[int]) -> Tensor:
        """[N, H + 1], the single attempt's: before the first step, then after each; NaN behind a response's last."""
        chances = torch.full((len(steps.ends), 1 + max((len(ends) for ends in steps.ends), default=0)), torch.nan)
        first = rollouts.seq.mask.long().argmax(dim=1).tolist()  # behind a given prefix
        for row, ends in enumerate(steps.ends):
            problem, pieces = rollouts.problem(row), rollouts.pieces[row]
            for place, end in enumerate((first[row], *(end + 1 for end in ends))):
                so_far = "".join(pieces[:end])
                chances[row, place] = self._chance(problem, so_far, needed[int(rollouts.seq.group[row])])
        return chances

    def _chance(self, problem: Problem, so_far: str, needed: int) -> float:
        valid = self._valid(problem, so_far)
        return self.skill ** max(needed - len(valid), 0) if all(valid) else 0.0

    def _needed(self, problem: Problem) -> int:
        """Steps of the worked solution that can be checked."""
        assert isinstance(self.task, Worked)
        solution = self.task.solution(problem)
        needed, found = len(self._valid(problem, solution)), len(step_ends(solution, self.splitter))
        if found < needed:  # a step would be told from another by nothing but the verdict
            raise InputError(
                f"checked_advantage: `splitter` finds {found} of the {needed} steps in the worked solution of problem "
                f"{problem.id!r}, {solution[:60]!r}. Give the one that ends steps, such as {{regex: ','}}."
            )
        return needed

    def _valid(self, problem: Problem, text: str) -> list[bool]:
        """The truth of the steps that can be judged."""
        assert isinstance(self.task, Worked)
        return [step.valid for step in self.task.steps(problem, text) if step.valid is not None]
