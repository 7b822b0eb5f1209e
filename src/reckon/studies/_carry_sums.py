"""Sums that a small transformer is sure of and wrong about: it forgets the carry, or a digit that nobody can guess."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from reckon.errors import InputError
from reckon.evaluate import pass_at_k
from reckon.types import Problem, Rng, Split, Verdict

if TYPE_CHECKING:
    from reckon.models import LanguageModel
    from reckon.studies._language_model import Start

HELD_OUT = 128  # problems of dev, and of test
LONGEST = 5  # tokens of a response: three digits, the end, and one to spare
GROUP = 16  # responses that are compared for what is different among them
DRAWN = 32  # responses to each problem that a policy is measured by
SIZES = (1, 16, 32)  # k of pass@k
Rule: TypeAlias = Literal["carry", "secret"]
_EVERY = tuple((a, b) for a in range(10, 100) for b in range(10, 100) if a % 10 + b % 10 >= 10)  # 3,645


@dataclass(frozen=True, kw_only=True)
class CarrySums:
    """`47+85=` is answered by `231`: 132 from its last digit to its first, always three of them.

    The last digits of both numbers always add up to 10 or more, so that without the carry the answer is wrong. With
    `rule` "secret" the sum is without the carry, and its second digit raised by 1 to 9, modulo 10, by how much being
    drawn for each problem: what is right for one problem says nothing about another.

    Args:
        seed: another seed, other splits and secrets.
        templates: so many problems are in the train split; 0 = all of its 3,389.
        rule: what is right.
    """

    name = "carry_sums"
    seed: int = 0
    templates: int = 0
    rule: Rule = "carry"

    def __post_init__(self) -> None:
        most = len(_EVERY) - 2 * HELD_OUT
        if not 0 <= self.templates <= most:
            raise InputError(f"carry_sums: `templates` is {self.templates}; it must be 0 for all, or 1 to {most}.")
        if self.rule not in ("carry", "secret"):
            raise InputError(f"carry_sums: `rule` is {self.rule!r}; it must be carry or secret.")

    @cached_property
    def _splits(self) -> Mapping[Split, Sequence[Problem]]:
        rng = Rng((self.seed, self.name))
        order = rng.numpy().permutation(len(_EVERY)).tolist()
        raised = rng.child("secrets").numpy().integers(1, 10, size=len(_EVERY)).tolist()
        problems = [_problem(_EVERY[place], raised[place] if self.rule == "secret" else None) for place in order]
        train = problems[2 * HELD_OUT :]
        return {
            "test": problems[:HELD_OUT],
            "dev": problems[HELD_OUT : 2 * HELD_OUT],
            "train": train[: self.templates] if self.templates else train,
        }

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split."""
        return self._splits[split]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right if it is the answer; what is not three digits is no answer."""
        if re.fullmatch(r"[0-9]{3}", text) is None:
            return Verdict(outcome=0.0, answer=None, reason="no answer")
        right = text == problem.answer
        return Verdict(outcome=float(right), answer=text, reason="right" if right else "wrong")


def _problem(numbers: tuple[int, int], raised: int | None) -> Problem:
    """A sum with its carry, or without it and the second digit raised."""
    a, b = numbers
    answer = f"{a + b:03d}"[::-1]
    if raised is not None:
        forgotten = _without_carry(a, b)
        answer = f"{forgotten[0]}{(int(forgotten[1]) + raised) % 10}{forgotten[2]}"
    return Problem(id=f"{a}+{b}", prompt=f"{a}+{b}=", answer=answer)


def _without_carry(a: int, b: int) -> str:
    return f"{10 * (a // 10 + b // 10) + (a + b) % 10:03d}"[::-1]


def without_carry(problem: Problem) -> str:
    """The answer of somebody who forgets the carry: `221` to `47+85=`, where 7 + 5 is 2 and 4 + 8 is 12."""
    a, b = problem.id.split("+")
    return _without_carry(int(a), int(b))


def slipped(problem: Problem, slip: float, rng: Rng) -> str:
    """The same, each digit with probability `slip` drawn anew from all ten."""
    draw = rng.numpy()
    missed, drawn = draw.random(3) < slip, draw.integers(10, size=3)
    return "".join(
        str(int(other)) if miss else digit
        for digit, miss, other in zip(without_carry(problem), missed, drawn, strict=True)
    )


@lru_cache(maxsize=1)  # every arm of a seed begins with it
def make_start(seed: int, slip: float, passes: int, shown: int) -> Start:
    """A transformer that has learned to forget the carry.

    Args:
        seed: of problems, weights and slips.
        slip: how often a digit that it is shown is another.
        passes: over the problems, each with slips of its own.
        shown: so many of the train split, from its beginning; 0 = all.
    """
    from reckon.studies._language_model import Lesson, teach

    rng = Rng((seed, "novelty-transformer"))
    problems = CarrySums(seed=seed, templates=shown).problems("train")
    lessons = [
        Lesson(
            problems=problems,
            texts=[slipped(problem, slip, rng.child("shown", number, i)) for i, problem in enumerate(problems)],
        )
        for number in range(passes)
    ]
    return teach(lessons, rng.child("teach"), max_new_tokens=LONGEST)


def measure(model: LanguageModel, task: CarrySums, problems: Sequence[Problem]) -> dict[str, float]:
    """How often a policy is right about problems, and how many answers it has; the same draws whatever the policy.

    Returns:
        "pass@1", "pass@16" and "pass@32", estimated from 32 responses to each problem, and "different answers", the
        mean number of them in a group of 16.
    """
    drawn = model.sample(problems, DRAWN, Rng((task.seed, "measured")))
    right: list[int] = []
    different: list[int] = []
    for place, problem in enumerate(problems):
        verdicts = [task.check(problem, text) for text in drawn.text[place * DRAWN : (place + 1) * DRAWN]]
        right.append(sum(verdict.outcome == 1 for verdict in verdicts))
        for first in range(0, DRAWN, GROUP):
            answers = {verdict.answer for verdict in verdicts[first : first + GROUP]} - {None}
            different.append(len(answers))
    passed = {f"pass@{k}": sum(pass_at_k(DRAWN, c, k) for c in right) / len(right) for k in SIZES}
    return {**passed, "different answers": sum(different) / len(different)}
