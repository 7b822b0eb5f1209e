"""Copy, sort or reverse five digits and end with a full stop: prompts, four aspects of a response, and who errs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reckon.errors import InputError
from reckon.types import Problem, Reason, Rng, Split, Verdict

DIGITS = 5
ORDERS = ("c", "s", "r")  # copy, sort, reverse: the first letter of a prompt
ASPECTS = ("order", "content", "format", "brevity")
LONGEST = DIGITS + 5  # tokens of a response: the digits, the full stop, the end, and three to spare
_SPACE = len(ORDERS) * 10**DIGITS


@dataclass(frozen=True, kw_only=True)
class DigitTexts:
    """`s31724=` is answered by `12347.`; the outcome of a response is the mean of its four aspects.

    Args:
        seed: another seed, other splits.
        train: size of the split.
        dev: size of the split.
        test: size of the split.
        skip: so many problems are left out of the train split, from its beginning, because they were shown before.
    """

    name = "digit_texts"
    seed: int = 0
    train: int = 7000
    dev: int = 200
    test: int = 200
    skip: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.dev, self.test) < 1 or not 0 <= self.skip < self.train:
            raise InputError(
                f"digit_texts: sizes are {self.train}, {self.dev} and {self.test} and `skip` is {self.skip}; each "
                "split needs a problem, and `skip` must leave one."
            )
        if self.train + self.dev + self.test > _SPACE:
            raise InputError(f"digit_texts: there are {_SPACE} problems, fewer than the three splits ask for.")

    @cached_property
    def _numbers(self) -> Sequence[int]:
        size = self.test + self.dev + self.train
        chosen = Rng((self.seed, self.name)).numpy().choice(_SPACE, size, replace=False)
        return [int(number) for number in chosen]

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split."""
        begin = {"test": 0, "dev": self.test, "train": self.test + self.dev + self.skip}[split]
        end = {"test": self.test, "dev": self.test + self.dev, "train": len(self._numbers)}[split]
        return [_problem(number) for number in self._numbers[begin:end]]

    def check(self, problem: Problem, text: str) -> Verdict:
        """The gold score."""
        score = gold(problem, text)
        reason: Reason = "right" if score == 1 else "partial" if score else "wrong"
        return Verdict(outcome=score, answer=text, reason=reason)


def _problem(number: int) -> Problem:
    order, digits = ORDERS[number // 10**DIGITS], f"{number % 10**DIGITS:0{DIGITS}d}"
    wanted = {"c": digits, "s": "".join(sorted(digits)), "r": digits[::-1]}[order]
    return Problem(id=f"{order}{digits}", prompt=f"{order}{digits}=", answer=f"{wanted}.", domain=order)


def aspects(problem: Problem, text: str) -> dict[str, float]:
    """What a response is worth in four ways, each in [0, 1].

    "order": the share of places at which the right digit stands. "content": how many of the digits it has, in any
    order, as a share of five or of all it writes, whichever are more. "format": 1 where it is digits and then one full
    stop. "brevity": 1 for up to six characters, beyond that 6 over their number.
    """
    assert problem.answer is not None
    wanted = problem.answer.removesuffix(".")
    digits = re.sub(r"[^0-9]", "", text)
    shared = sum((Counter(digits) & Counter(wanted)).values())
    return {
        "order": sum(a == b for a, b in zip(digits, wanted, strict=False)) / DIGITS,
        "content": shared / max(DIGITS, len(digits)),
        "format": float(re.fullmatch(r"[0-9]+\.", text) is not None),
        "brevity": min(1.0, (DIGITS + 1) / len(text)) if text else 1.0,
    }


def gold(problem: Problem, text: str) -> float:
    """The mean of the four aspects."""
    return sum(aspects(problem, text).values()) / len(ASPECTS)


def sloppy(problem: Problem, slip: float, rng: Rng) -> str:
    """A response of somebody who errs, each time with probability `slip`, in every aspect.

    Any digit may be another one; two neighbors may have changed places; the full stop may be missing; up to three
    digits too many may stand before it.
    """
    assert problem.answer is not None
    draw = rng.numpy()
    digits = [
        str(int(draw.integers(10))) if missed else digit
        for digit, missed in zip(problem.answer.removesuffix("."), draw.random(DIGITS) < slip, strict=True)
    ]
    at = int(draw.integers(DIGITS - 1))
    swapped, longer, stopless = draw.random(3) < slip
    if swapped:
        digits[at], digits[at + 1] = digits[at + 1], digits[at]
    extra = draw.integers(10, size=int(draw.integers(1, 4)))
    if longer:
        digits += [str(digit) for digit in np.asarray(extra).tolist()]
    return "".join(digits) + ("" if stopless else ".")
