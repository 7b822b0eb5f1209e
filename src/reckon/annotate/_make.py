"""From a policy and a task to a folder of labels, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reckon.annotate._cost import Budget
from reckon.annotate._draw import Continues, Drawing
from reckon.annotate._pits import FirstPit, label_first_pits
from reckon.annotate._prefixes import Tell, check_count, label_prefixes
from reckon.annotate._records import Labels, write_labels
from reckon.errors import InputError
from reckon.steps import Pattern, Splitter
from reckon.types import Problem, Rng, Task


def make_labels(
    policy: Continues,
    task: Task,
    problems: Sequence[Problem],
    folder: str | Path,
    *,
    n_cov: int = 4,
    n_mc: int = 8,
    splitter: Splitter | None = None,
    hunt: FirstPit | None = None,
    drawing: Drawing | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    tell: Tell | None = None,
) -> Labels:
    """Draws seeds for problems of a task, and labels their prefixes.

    Called again after an interruption it goes on: seeds are drawn again, which are one rollout in 1 + (H + 1) n_mc,
    and labels are not.

    Args:
        policy: whose chance of success is estimated.
        task: checks answers.
        problems: the task's, such as `task.problems("train")[:100]`.
        folder: where the labels go: a file for each chunk as it is done, and at the end all in labels.parquet, which
            `fit` reads as prefixes.
        n_cov: seeds of each problem.
        n_mc: completions of each prefix.
        splitter: says where steps end; None = at line ends.
        hunt: follow wrong completions to their first pits in place of labeling all prefixes of the seeds.
        drawing: how completions are drawn and judged.
        budget: the most that may be spent, seeds included.
        seed: of the random numbers.
        tell: is told how far it is.

    Raises:
        InputError: there is no problem, a number cannot be, or the budget does not even pay for the seeds.
    """
    check_count("n_cov", n_cov)
    if not problems:
        raise InputError("there is no problem to label responses to; give at least one.")
    if budget is not None and budget.rollouts is not None and budget.rollouts < len(problems) * n_cov:
        raise InputError(
            f"{len(problems)} problems with {n_cov} seeds each are more than the budget of {budget.rollouts} rollouts. "
            "Take fewer of either, or raise it."
        )
    rng = Rng((seed, "labels"))
    seeds = policy.sample(list(problems), n_cov, rng.child("seeds"))
    cut = splitter or Pattern()
    if hunt is None:
        labels = label_prefixes(
            policy, task, seeds, cut, n_mc, rng, drawing=drawing, budget=budget, folder=folder, tell=tell
        )
    else:
        labels = label_first_pits(
            policy, task, seeds, cut, n_mc, rng, hunt=hunt, drawing=drawing, budget=budget, folder=folder, tell=tell
        )
    write_labels(Path(folder) / "labels.parquet", labels)
    return labels
