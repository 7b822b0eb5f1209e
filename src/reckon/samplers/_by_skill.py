"""More problems that need a skill the policy keeps failing at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from reckon.errors import InputError, RunError
from reckon.samplers._passes import Passes, shuffled
from reckon.samplers._uniform import problems_of
from reckon.types import Json, Metrics, Problem, Rng, Seen, Split, State, Task


class BySkill:
    """As `uniform`, but a part of each draw needs a skill that the policy keeps failing at (OREAL, arXiv:2502.06781).

    A problem has failed a step when the mean of its known outcomes there is `pass_rate` or less, and fails until it
    does better. For each place of that part one of the failing problems is chosen by chance, and the next problem with
    its skill posed, itself among them. The paper has no more than the idea: it adds such problems to a second round of
    fine-tuning, where here they are posed.
    """

    def __init__(
        self,
        task: Task,
        *,
        skill: str = "skill",
        share: float = 0.5,
        after: int = 2,
        pass_rate: float = 0.0,
        split: Split = "train",
    ) -> None:
        """Reads the skill of every problem.

        Args:
            task: whose problems have a text or a whole number for the skill they need among their columns.
            skill: that column.
            share: the part of each draw, in [0, 1], rounded down to whole problems; while none fails it is 0.
            after: steps in a row that a problem must have failed, of those it was posed in; 1 or more.
            pass_rate: the highest mean outcome that is a failure, in [0, 1).
            split: which problems.

        Raises:
            InputError: the split is empty, a problem has no skill, or a setting is out of its range.
        """
        self.skill, self.share, self.after, self.pass_rate, self.split = skill, share, after, pass_rate, split
        self._problems = problems_of(task, split)
        if not (0 <= share <= 1 and after >= 1 and 0 <= pass_rate < 1):
            raise InputError(
                f"by_skill: `share` is {share}, `after` {after} and `pass_rate` {pass_rate}; `share` must lie between "
                "0 and 1, `after` be 1 or more, and `pass_rate` be at least 0 and below 1."
            )
        self._places: dict[str | int, list[int]] = {}
        for place, problem in enumerate(self._problems):
            self._places.setdefault(self._skill_of(problem), []).append(place)
        size = len(self._problems)
        self._all = Passes(size, shuffled(size, "by_skill"))
        self._passes = {
            name: Passes(len(places), shuffled(len(places), "by_skill", name)) for name, places in self._places.items()
        }
        self._failed: dict[str, int] = {}  # by a problem's id: steps in a row, those that are 0 left out

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next problems of the failing ones' skills, then the next of all."""
        failing = self._failing()
        places = math.floor(self.share * n + 1e-9) if failing else 0
        chosen = rng.child("failing").numpy().integers(max(len(failing), 1), size=places).tolist()
        skills = [self._skill_of(failing[i]) for i in chosen]
        found = [self._places[name][self._passes[name].take(1, rng)[0]] for name in skills]
        return [self._problems[place] for place in [*found, *self._all.take(n - places, rng)]]

    def learn(self, seen: Seen) -> Metrics:
        """Counts failures.

        Returns:
            `sampler/failing`, the share of the problems that keep failing; `sampler/skills`, the number of skills they
            need; `sampler/passes`, of the part that is as `uniform`.
        """
        outcomes: dict[str, list[float]] = {}
        for problem, outcome in zip(seen.problems, seen.outcome.tolist(), strict=True):
            if not math.isnan(outcome):
                outcomes.setdefault(problem.id, []).append(outcome)
        for name, own in outcomes.items():
            # Outcomes are float32 and the rate is not: without some slack 0.2 would not be 0.2.
            if sum(own) / len(own) <= self.pass_rate + 1e-6:
                self._failed[name] = self._failed.get(name, 0) + 1
            else:
                self._failed.pop(name, None)
        failing = self._failing()
        return {
            "sampler/failing": len(failing) / len(self._problems),
            "sampler/skills": float(len({self._skill_of(problem) for problem in failing})),
            "sampler/passes": self._all.done,
        }

    def state_dict(self) -> State:
        """Failures by problem, and where the passes are."""
        return {
            "failed": cast("Json", [[name, count] for name, count in sorted(self._failed.items())]),
            "skills": cast("Json", list(self._passes)),
            "all": self._all.state_dict(),
            "passes": {str(i): passes.state_dict() for i, passes in enumerate(self._passes.values())},
        }

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next problem of every skill.

        Raises:
            RunError: the split had other skills or another size when the state was saved.
        """
        saved = cast("list[str | int]", state["skills"])
        if saved != list(self._passes):
            raise RunError(
                f"the split had the skills {', '.join(map(str, saved))} when the run was saved and has "
                f"{', '.join(map(str, self._passes))} now. Resume with the data the run was begun with."
            )
        self._all.load_state_dict(cast("State", state["all"]))
        for i, passes in enumerate(self._passes.values()):
            passes.load_state_dict(cast("Mapping[str, State]", state["passes"])[str(i)])
        self._failed = dict(cast("list[tuple[str, int]]", state["failed"]))

    def _failing(self) -> list[Problem]:
        """In the order of the split, so that a resumed run chooses alike."""
        return [problem for problem in self._problems if self._failed.get(problem.id, 0) >= self.after]

    def _skill_of(self, problem: Problem) -> str | int:
        value = problem.columns.get(self.skill)
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            have = ", ".join(problem.columns) or "none"
            raise InputError(
                f"by_skill: problem {problem.id!r} has no text or whole number in the column {self.skill!r} (columns: "
                f"{have}). Give every problem its skill there, or name another column with `skill`."
            )
        return value
