r"""The world of the study surrogate-transformer: sums of three digits, worked and boxed, and five ways to write them.

`3+4+5=` is answered by `3+4=7;7+5=12;\boxed{12}`. A model that has seen the five ways in their shares can do more than
its answers show: some go on after the box, lack one, guess, or never end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, cast

import numpy as np

from reckon.errors import InputError
from reckon.tasks import extract_answer
from reckon.types import Problem, Rng, Split, Verdict

Way: TypeAlias = Literal["clean", "second", "bare", "guess", "endless"]

LIMIT = 64  # tokens of a response, one a character
SUMS = 1000  # of three digits, in their order
LARGEST = 27
SHARES: Mapping[Way, float] = {"clean": 0.45, "second": 0.2, "bare": 0.15, "guess": 0.1, "endless": 0.1}
GUESSED_WRONG = 0.6  # share of the guesses
_WORKING = re.compile(r"(\d{1,2})\+(\d)=(\d{1,2});(\d{1,2})\+(\d)=(\d{1,2})(?!\d)")


@dataclass(frozen=True, kw_only=True)
class BoxedSums:
    """Sums of three digits, judged by the last box.

    Args:
        seed: decides which of the 1000 sums are in which split.
        dev: size of the split.
        test: size of the split; all others are in train.
    """

    name: ClassVar[str] = "boxed_sums"
    seed: int = 0
    dev: int = 100
    test: int = 200

    def __post_init__(self) -> None:
        if min(self.dev, self.test) < 0 or self.dev + self.test >= SUMS:
            raise InputError(
                f"BoxedSums: `dev` and `test` are {self.dev} and {self.test}; they must be 0 or more, and leave some "
                f"of the {SUMS} sums to train on."
            )

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split."""
        order = Rng((self.seed, self.name, "splits")).numpy().permutation(SUMS).tolist()
        begins = {"test": 0, "dev": self.test, "train": self.test + self.dev}
        ends = {"test": self.test, "dev": self.test + self.dev, "train": SUMS}
        return [_problem(number) for number in order[begins[split] : ends[split]]]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right if the last box holds the sum."""
        answer = extract_answer(text)
        if not answer:
            return Verdict(outcome=0.0, answer=None, reason="no answer")
        right = answer == problem.answer
        return Verdict(outcome=float(right), answer=answer, reason="right" if right else "wrong")


def _problem(number: int) -> Problem:
    digits = f"{number:03}"
    return Problem(id=digits, prompt="+".join(digits) + "=", answer=str(sum(map(int, digits))), domain=BoxedSums.name)


def written(problem: Problem, way: Way, generator: np.random.Generator, *, able: bool = True) -> tuple[str, bool]:
    """A response in one of the five ways, and whether it comes to an end.

    Args:
        problem: what is answered.
        way: "clean"; "second": another sum follows before the end; "bare": no box; "guess": a box alone, wrong with
            chance `GUESSED_WRONG`; "endless": the first step again and again up to the limit.
        generator: decides all that is left to chance.
        able: False: every result is a number of chance, so that the ways can be learned and adding cannot.
    """
    first = _worked(problem, generator, able)
    if way == "clean":
        return first + _boxed(first), True
    if way == "second":
        other = _problem(int(generator.integers(SUMS)))
        second = _worked(other, generator, able)
        return f"{first}{_boxed(first)}\n{other.prompt_text}{second}{_boxed(second)}", True
    if way == "bare":
        return first.removesuffix(";"), True
    if way == "endless":
        step = first[: first.index(";") + 1]
        return (step * LIMIT)[:LIMIT], False
    guess = int(generator.integers(LARGEST))  # any but the right one
    guess += guess >= int(problem.answer or 0)
    luck = generator.random() >= GUESSED_WRONG
    return f"\\boxed{{{problem.answer if luck and able else guess}}}", True


def _worked(problem: Problem, generator: np.random.Generator, able: bool) -> str:
    """Two steps, each with its semicolon."""
    a, b, c = (int(digit) for digit in re.findall(r"\d", problem.prompt_text))
    two = a + b if able else int(generator.integers(19))
    three = two + c if able else int(generator.integers(LARGEST + 1))
    return f"{a}+{b}={two};{two}+{c}={three};"


def _boxed(worked: str) -> str:
    return f"\\boxed{{{worked.removesuffix(';').rpartition('=')[2]}}}"


def shown(
    problems: Sequence[Problem], count: int, ways: Mapping[Way, float], rng: Rng, *, able: bool = True
) -> tuple[list[Problem], list[str], list[bool]]:
    """What a model is shown: problems, a response to each, and whether it comes to an end.

    Args:
        problems: are gone through again and again, each time in another order.
        count: how many responses.
        ways: their shares of the responses, which sum to 1.
        rng: names the random numbers.
        able: as in `written`.
    """
    chosen: list[Problem] = []
    texts: list[str] = []
    ended: list[bool] = []
    names = cast("list[Way]", list(ways))
    for number in range(count):
        turn, place = divmod(number, len(problems))
        if place == 0:
            order = rng.child("order", turn).numpy().permutation(len(problems))
        generator = rng.child("written", number).numpy()
        way = names[int(generator.choice(len(names), p=list(ways.values())))]
        text, over = written(problems[order[place]], way, generator, able=able)
        chosen.append(problems[order[place]])
        texts.append(text)
        ended.append(over)
    return chosen, texts, ended


def working(problem: Problem, text: str) -> bool | None:
    """Whether the two steps that a response begins with are those of its problem, and right.

    None: it shows no two steps, or repeats the first.
    """
    found = _WORKING.match(text)
    if found is None:
        return None
    a, b, c = (int(digit) for digit in re.findall(r"\d", problem.prompt_text))
    shown = [int(number) for number in found.groups()]
    if shown == [a, b, a + b, a + b, c, a + b + c]:
        return True
    return None if shown[:3] == shown[3:] else False
