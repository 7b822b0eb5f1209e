"""What training bought: the first and the last evaluation on the same held-out problems."""

from __future__ import annotations

from dataclasses import dataclass

from reckon.errors import InputError
from reckon.evaluate import Comparison, Constant, Difference, Evaluation, best_constant, compare, compare_shares
from reckon.report._read import Folder
from reckon.runs import read_evaluations


@dataclass(frozen=True, kw_only=True)
class Score:
    """pass@1 of one evaluation."""

    step: int
    rate: float  # NaN where no verdict is known
    low: float  # Wilson 95%
    high: float
    items: int  # problems
    unknown: int  # problems without a verdict, which leave the rate


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The first and the last evaluation of one split."""

    split: str
    greedy: bool  # the likeliest answer to each problem; else sampled ones
    before: Score
    after: Score | None  # None = there was only one evaluation
    change: Comparison | Difference | str  # of several samples a problem the second; or why there is no comparison
    constant: Constant


def held_out(folder: Folder) -> HeldOut | None:
    """The comparison to put at the top, or None where nothing was evaluated.

    The split is `test` if it was evaluated twice, else any that was, else whichever was evaluated at all.

    Raises:
        RunError: a table is damaged.
    """
    evals = folder.evals
    if not evals:
        return None
    split = min(evals, key=lambda name: (len(evals[name]) < 2, name != "test", name != "dev", name))
    steps = sorted({min(evals[split]), max(evals[split])})
    found = [Evaluation.from_columns(read_evaluations(folder.path, split, steps=[step]).to_pydict()) for step in steps]
    last = found[-1].responses
    references = {response.problem: response.answer for response in last}
    return HeldOut(
        split=split,
        greedy=any(response.greedy for response in last),
        before=_score(steps[0], found[0]),
        after=_score(steps[1], found[1]) if len(found) == 2 else None,
        change=_change(found),
        constant=best_constant(list(references.values())),
    )


def _score(step: int, evaluation: Evaluation) -> Score:
    metrics = evaluation.metrics
    return Score(
        step=step,
        rate=metrics["pass@1"],
        low=metrics["low"],
        high=metrics["high"],
        items=int(metrics["items"]),
        unknown=int(metrics["items/unknown"]),
    )


def _change(found: list[Evaluation]) -> Comparison | Difference | str:
    if len(found) < 2:
        return "there is only one evaluation"
    try:
        return compare_shares(*found) if any(map(_is_sampled, found)) else compare(*found)
    except InputError as error:  # other problems: a fact to report, not a reason to stop
        return str(error)


def _is_sampled(evaluation: Evaluation) -> bool:
    """Whether several samples of a problem count, and no likeliest answer."""
    return not any(one.greedy for one in evaluation.responses) and any(one.sample for one in evaluation.responses)
