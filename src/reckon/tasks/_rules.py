"""Rule reasoning over several domains: made-up theories whose every consequence is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reckon.errors import InputError
from reckon.tasks import _theories
from reckon.tasks._checkers import Choice
from reckon.tasks._splits import Draft, Generated, check_pair, check_sizes, made_once
from reckon.types import Problem, Rng, Split, Step, Verdict

_MAKERS: dict[str, Callable[[np.random.Generator, int], _theories.Theory | None]] = {
    "forward_chaining": _theories.forward_chaining,
    "kinship": _theories.kinship,
    "ordering": _theories.ordering,
    "logic": _theories.logic,
}
DOMAINS = tuple(_MAKERS)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Questions answered by applying rules, in four domains: a toy of those of RuleReasoner (Liu, Li and Zheng 2026).

    forward_chaining: is something true, false or unknown under rules over made-up predicates. kinship: what two people
    are to each other. ordering: who is tallest or shortest of hops + 2. logic: the value of an expression of two bits.
    Rules and clues are shuffled.

    Args:
        seed: another seed, other problems, from the same partition into splits.
        domains: some of forward_chaining, kinship, ordering, logic; equally frequent.
        hops: fewest and most inference steps, from 1 to 3; one more than in training makes a harder test.
        train: size of the split.
        dev: size of the split.
        test: size of the split.
    """

    name: ClassVar[str] = "rules"
    seed: int = 0
    domains: tuple[str, ...] = DOMAINS
    hops: tuple[int, int] = (1, 3)
    train: int = 10_000
    dev: int = 500
    test: int = 500

    def __post_init__(self) -> None:
        check_sizes(self)
        check_pair(self, "hops", least=1)
        if self.hops[1] > 3:
            raise InputError(f"Rules: `hops` must not go beyond 3, not {list(self.hops)!r}.")
        unknown = [domain for domain in self.domains if domain not in _MAKERS]
        if unknown or not self.domains or len(set(self.domains)) < len(self.domains):
            raise InputError(
                f"Rules: `domains` must be one or more different ones of {', '.join(DOMAINS)}, "
                f"not {list(self.domains)!r}."
            )

    @made_once
    def problems(self, split: Split) -> Generated[tuple[str, int]]:
        """The problems of a split; each carries `hops` and `options` in its columns."""
        return Generated(
            split=split,
            size=getattr(self, split, 0),
            rng=Rng((self.seed, self.name, split)),
            targets=[(domain, hops) for domain in self.domains for hops in range(self.hops[0], self.hops[1] + 1)],
            build=self._build,
            space=2_500,
            remedy="Add `domains`, widen `hops`, or ask for fewer problems.",
        )

    def _build(self, generator: np.random.Generator, target: tuple[str, int]) -> Draft | None:
        domain, hops = target
        theory = _MAKERS[domain](generator, hops)
        if theory is None:
            return None
        clues = [theory.clues[i] for i in generator.permutation(len(theory.clues))]
        options = ", ".join(theory.options)
        return Draft(
            key=f"{domain} {sorted(theory.clues)} {theory.question}",
            prompt=f"{' '.join(clues)} {theory.question} Answer with one of: {options}.",
            answer=theory.answer,
            domain=domain,
            columns={
                "hops": hops,
                "options": list(theory.options),
                "worked": list(theory.worked),
                "true": list(theory.true),
                "false": list(theory.false),
            },
        )

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response: the last option it names."""
        return Choice(options=_strings(problem, "options"))(text, problem.answer)

    def solution(self, problem: Problem) -> str:
        """The derivation, one conclusion a line, then `Answer: ...`."""
        return "\n".join([*_strings(problem, "worked"), f"Answer: {problem.answer}"])

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """One step a line that states something about the theory: valid if it follows, not valid if it does not.

        A line in other words cannot be judged.
        """
        true, false = set(_strings(problem, "true")), set(_strings(problem, "false"))
        steps: list[Step] = []
        start = 0
        for line in text.splitlines(keepends=True):
            bare = line.strip()
            if bare.startswith("Answer:"):
                valid: bool | None = self.check(problem, bare).outcome == 1.0
            else:
                valid = True if bare in true else False if bare in false else None
            if bare:
                steps.append(Step(start=start, end=start + len(line), valid=valid))
            start += len(line)
        return steps


def _strings(problem: Problem, column: str) -> tuple[str, ...]:
    values = problem.columns[column]
    assert isinstance(values, list)
    return tuple(str(value) for value in values)
