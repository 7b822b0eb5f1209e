"""Problems as often as their pass rates before training say."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

from reckon.errors import InputError, MissingError, RunError
from reckon.samplers._passes import Passes, shuffled
from reckon.samplers._uniform import problems_of
from reckon.types import Metrics, Problem, Rng, Seen, Split, State, Task

_MADE = "reckon eval MODEL --split train --sample --k 16 --out"  # so a table of pass rates is made


class ByPassRate:
    """As `uniform`, with each problem so many times in a pass as its pass rate before training says.

    Buckets and repeats are those of OREAL's released prompts (Lyu et al. 2025, arXiv:2502.06781): what went right in
    less than a fifth of the tries comes six times, what went right in four fifths or more never. With `edges`
    [0.2, 0.8] and `repeats` [0, 1, 0] this is the filter that keeps a band. Rates are never measured again.
    """

    def __init__(
        self,
        task: Task,
        *,
        edges: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
        repeats: Sequence[int] = (6, 4, 4, 2, 0),
        column: str = "pass_rate",
        rates: str | Path | None = None,
        split: Split = "train",
    ) -> None:
        """Reads the pass rate of every problem.

        Args:
            task: poses the problems.
            edges: where one bucket ends and the next begins, rising, in (0, 1]; a rate on an edge is in the upper one.
            repeats: how often a problem of each bucket is in a pass, one more than there are edges; 0 drops it.
            column: of the problems, with their pass rates: shares of right answers, in [0, 1].
            rates: a table of answers to take the rates from instead: what `reckon eval --split train --sample --k 16
                --out rates.parquet` writes, or a run's own in evals/. An answer is right where its outcome is 1;
                unknown ones count for nothing, nor does the likeliest answer where there are samples.
            split: which problems.

        Raises:
            MissingError: there is no such table.
            InputError: the split is empty, a problem has no pass rate, none is left, or a setting cannot be.
        """
        self.edges, self.repeats, self.column, self.rates, self.split = edges, repeats, column, rates, split
        self._problems = problems_of(task, split)
        if not all(0 < edge <= 1 for edge in edges) or any(low >= high for low, high in pairwise(edges)):
            raise InputError(f"by_pass_rate: `edges` are {list(edges)}; they must rise, each above 0 and at most 1.")
        if len(repeats) != len(edges) + 1 or min(repeats) < 0:
            raise InputError(
                f"by_pass_rate: `repeats` are {list(repeats)}; {len(edges)} edges make {len(edges) + 1} buckets, and "
                "each needs a number of 0 or more."
            )
        if rates is not None and column != "pass_rate":
            raise InputError("by_pass_rate: `rates` and `column` both say where the rates are. Leave one of them out.")
        found = _of_column(self._problems, column) if rates is None else _of_table(self._problems, Path(rates))
        buckets = [bisect_right(edges, rate) for rate in found]
        self._sizes = [buckets.count(bucket) for bucket in range(len(repeats))]
        self._places = [place for place, bucket in enumerate(buckets) for _ in range(repeats[bucket])]
        if not self._places:
            raise InputError(
                f"by_pass_rate: no problem is left. The buckets have {_listed(self._sizes)} problems, and `repeats` "
                f"are {list(repeats)}. Repeat a bucket that has some."
            )
        self._passes = Passes(len(self._places), shuffled(len(self._places), "by_pass_rate"))

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems. Of the random numbers only those of the first draw are used."""
        return [self._problems[self._places[i]] for i in self._passes.take(n, rng)]

    def learn(self, seen: Seen) -> Metrics:
        """`sampler/passes`, with the fraction of the present one, and `sampler/kept`, the share of problems in one."""
        del seen  # the rates are those before training
        kept = sum(size for size, times in zip(self._sizes, self.repeats, strict=True) if times)
        return {"sampler/passes": self._passes.done, "sampler/kept": kept / len(self._problems)}

    def state_dict(self) -> State:
        """Where the pass is, and how many problems the buckets have."""
        return {"buckets": list(self._sizes), "passes": self._passes.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next problem.

        Raises:
            RunError: the buckets had other numbers of problems when the state was saved.
        """
        saved = cast("list[int]", state["buckets"])
        if saved != self._sizes:
            raise RunError(
                f"the buckets of pass rates had {_listed(saved)} problems when the run was saved and have "
                f"{_listed(self._sizes)} now. Resume with the problems and the rates that the run was begun with."
            )
        self._passes.load_state_dict(cast("State", state["passes"]))


def _of_column(problems: Sequence[Problem], column: str) -> list[float]:
    found = []
    for problem in problems:
        value = problem.columns.get(column)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            have = ", ".join(problem.columns) or "none"
            raise InputError(
                f"by_pass_rate: problem {problem.id!r} has no number from 0 to 1 in the column {column!r} (columns: "
                f"{have}). Name its column with `column`, or measure the rates ({_MADE} rates.parquet) and give the "
                "table as `rates`."
            )
        found.append(float(value))
    return found


def _of_table(problems: Sequence[Problem], path: Path) -> list[float]:
    answers = _read(path)
    found = []
    for problem in problems:
        asked, sampled, likeliest = answers.get(problem.id, (None, [], []))
        if asked is not None and asked != problem.prompt_text:
            raise InputError(
                f"by_pass_rate: {path} asks another question under the id {problem.id!r}: {asked[:60]!r}. Measure the "
                "rates on the task that is trained on, with the same settings."
            )
        known = sampled or likeliest
        if not known:
            raise InputError(
                f"by_pass_rate: {path} has no verdict on the problem {problem.id!r}, so its pass rate is unknown. "
                f"Examine the whole split ({_MADE} {path}), and leave out problems without an answer."
            )
        found.append(sum(known) / len(known))
    return found


def _read(path: Path) -> Mapping[str, tuple[str | None, list[bool], list[bool]]]:
    """By a problem's id: its prompt, and the known verdicts on its samples and on its likeliest answers."""
    import pyarrow
    import pyarrow.parquet

    path = path.expanduser()
    if not path.is_file():
        raise MissingError(f"by_pass_rate: there is no table {path}. Make it: {_MADE} {path}")
    wanted = ["problem", "prompt", "outcome", "greedy"]  # tokens and texts, which are most of it, are not read
    try:
        columns = pyarrow.parquet.read_table(path, columns=wanted).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"by_pass_rate: {path} cannot be read as a table of answers ({str(error).splitlines()[0]}). "
            f"Make it: {_MADE} {path}"
        ) from error
    if missing := [name for name in wanted if name not in columns]:
        raise InputError(f"by_pass_rate: {path} has no column {missing[0]!r}. Make the table: {_MADE} {path}")
    found: dict[str, tuple[str | None, list[bool], list[bool]]] = {}
    for name, prompt, outcome, greedy in zip(*(columns[column] for column in wanted), strict=True):
        _, sampled, likeliest = found.setdefault(name, (prompt, [], []))
        if outcome is not None and not math.isnan(outcome):
            (likeliest if greedy else sampled).append(outcome >= 1)
    return found


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
