"""Several tasks as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import ClassVar, overload

from reckon.errors import InputError
from reckon.types import Problem, Split, Step, Task, Verdict, Worked


class _Joined(Sequence[Problem]):
    """The problems of several tasks one after another, each under its task's name as domain."""

    def __init__(self, parts: Mapping[str, Sequence[Problem]]) -> None:
        self._parts = list(parts.items())
        self._ends = list(accumulate(len(part) for _, part in self._parts))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Problem, ...]: ...
    def __getitem__(self, index: int | slice) -> Problem | tuple[Problem, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"problem {index} of {len(self)}")
        at = bisect_right(self._ends, place)
        name, part = self._parts[at]
        problem = part[place - (self._ends[at] - len(part))]
        return replace(
            problem,
            id=f"{name}/{problem.id}",
            domain=name,
            columns={**problem.columns, "inner": [problem.id, problem.domain, problem.columns.get("inner")]},
        )


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Several tasks as one; each is a domain under its name here. Splits are the tasks' own, one after another.

    Args:
        tasks: {name: task}. A task's share is its size; choose another at sampling time, by domain.
    """

    name: ClassVar[str] = "mixture"
    tasks: Mapping[str, Task] = field(kw_only=False)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise InputError("Mixture: `tasks` must hold one task or more.")

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split of every task."""
        return _Joined({name: task.problems(split) for name, task in self.tasks.items()})

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response as the problem's own task does."""
        return self.tasks[problem.domain].check(_inner(problem), text)

    def solution(self, problem: Problem) -> str:
        """The worked response of the problem's own task."""
        return self._worked(problem).solution(_inner(problem))

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """The steps as the problem's own task sees them."""
        return self._worked(problem).steps(_inner(problem), text)

    def _worked(self, problem: Problem) -> Worked:
        task = self.tasks[problem.domain]
        if not isinstance(task, Worked):
            raise InputError(f"Mixture: the task {problem.domain!r} has no worked solutions.")
        return task


def _inner(problem: Problem) -> Problem:
    """The problem as its own task made it."""
    inner = problem.columns["inner"]
    assert isinstance(inner, list)
    columns = {key: value for key, value in problem.columns.items() if key != "inner"}
    if inner[2] is not None:  # a mixture in a mixture
        columns["inner"] = inner[2]
    return replace(problem, id=str(inner[0]), domain=str(inner[1]), columns=columns)
