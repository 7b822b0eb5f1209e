"""Arithmetic with known step validity: chains modulo 10, running sums, and the largest of several numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reckon.errors import InputError
from reckon.tasks._checkers import Number
from reckon.tasks._splits import Draft, Generated, check_pair, check_sizes, made_once, ways
from reckon.types import Problem, Rng, Split, Step, Verdict

_INTEGER = Number(minimum=0)


@dataclass(frozen=True, kw_only=True)
class ChainArithmetic:
    """Sums modulo 10, one digit a step: small enough for a two-layer model that reads characters.

    `3+4+8=` is answered by `7,5`: 3 + 4 = 7, then 7 + 8 = 15, of which the last digit is written. Every digit stands
    two characters after the one before, in prompt and response alike, so a step's operand is always equally far away.
    The start is from 0 to 9, each number added from 1 to 9.

    Args:
        seed: another seed, other problems, from the same partition into splits.
        operations: how many digits are added; prompt and solution have 4 * operations + 1 characters.
        train: size of the split.
        dev: size of the split.
        test: size of the split.
    """

    name: ClassVar[str] = "chain_arithmetic"
    seed: int = 0
    operations: int = 8
    train: int = 10_000
    dev: int = 500
    test: int = 500

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.operations < 1:
            raise InputError(f"ChainArithmetic: `operations` must be 1 or more, not {self.operations}.")

    @made_once
    def problems(self, split: Split) -> Generated[None]:
        """The problems of a split."""
        return Generated(
            split=split,
            size=getattr(self, split, 0),
            rng=Rng((self.seed, self.name, split)),
            targets=(None,),
            build=self._build,
            space=10 * ways(9, self.operations),
            remedy="Use more `operations`, or ask for fewer problems.",
        )

    def _build(self, generator: np.random.Generator, _: None) -> Draft:
        digits = [int(generator.integers(10)), *generator.integers(1, 10, size=self.operations).tolist()]
        prompt = "+".join(map(str, digits)) + "="
        return Draft(key=f"chain {prompt}", prompt=prompt, answer=str(sum(digits) % 10), domain=self.name)

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response by its last number, so that wrong steps may cancel out, as in real data."""
        return _INTEGER(text, problem.answer)

    def solution(self, problem: Problem) -> str:
        """The running sums modulo 10, separated by commas."""
        return self.noisy_solution(problem, 0.0, Rng((0,)))

    def noisy_solution(self, problem: Problem, error: float, rng: Rng) -> str:
        """A solution that errs at each step with probability `error`, in any of nine ways, and goes on from there.

        Its last digit is right with probability 0.1 + 0.9 (1 - 10/9 error)^operations.
        """
        digits = _operands(problem)
        generator = rng.numpy()
        value, written = digits[0], []
        for digit in digits[1:]:
            value = (value + digit) % 10
            if generator.random() < error:
                value = (value + int(generator.integers(1, 10))) % 10
            written.append(str(value))
        return ",".join(written)

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """One step a digit, its comma included, valid if it follows from the digit written before it.

        Digits beyond the last operation are not valid. What is no single digit cannot be judged, nor can the step that
        would have to build on it.
        """
        digits = _operands(problem)
        steps: list[Step] = []
        before: int | None = digits[0]
        for place, match in enumerate(re.finditer(r"[^,]+,?|,", text), start=1):
            piece = match[0].removesuffix(",").strip()
            here = int(piece) if re.fullmatch(r"[0-9]", piece) else None
            valid: bool | None = None
            if place >= len(digits):
                valid = False
            elif here is not None and before is not None:
                valid = here == (before + digits[place]) % 10
            steps.append(Step(start=match.start(), end=match.end(), valid=valid))
            before = here
        return steps


def _operands(problem: Problem) -> list[int]:
    return [int(digit) for digit in re.findall(r"\d+", str(problem.prompt))]


_EQUATION = re.compile(r"(?P<sum>\d{1,12}(?:\s{0,3}\+\s{0,3}\d{1,12}){1,50})\s{0,3}=\s{0,3}(?P<result>\d{1,12})")
_TOTAL = re.compile(r"\btotal\b\W{0,5}(?:is\s{1,3})?(?P<result>\d{1,12})", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RunningSums:
    """Adding numbers one after another, for pretrained models; the truth of every line is known.

    `Add these numbers step by step: 17, 48, 20` is worked as `17 + 48 = 65`, `65 + 20 = 85`, `Total: 85`. The numbers
    without their order decide the split.

    Args:
        seed: another seed, other problems, from the same partition into splits.
        count: fewest and most numbers, at least 2.
        size: smallest and largest number.
        train: size of the split.
        dev: size of the split.
        test: size of the split.
    """

    name: ClassVar[str] = "running_sums"
    seed: int = 0
    count: tuple[int, int] = (5, 5)
    size: tuple[int, int] = (10, 99)
    train: int = 10_000
    dev: int = 500
    test: int = 500

    def __post_init__(self) -> None:
        check_sizes(self)
        check_pair(self, "count", least=2)
        check_pair(self, "size", least=0)

    @made_once
    def problems(self, split: Split) -> Generated[int]:
        """The problems of a split."""
        return Generated(
            split=split,
            size=getattr(self, split, 0),
            rng=Rng((self.seed, self.name, split)),
            targets=range(self.count[0], self.count[1] + 1),
            build=self._build,
            space=ways(self.size[1] - self.size[0] + 1, self.count[0]),
            remedy="Widen `size` or `count`, or ask for fewer problems.",
        )

    def _build(self, generator: np.random.Generator, count: int) -> Draft:
        numbers = generator.integers(self.size[0], self.size[1] + 1, size=count).tolist()
        return Draft(
            key=f"numbers {sorted(numbers)}",
            prompt=f"Add these numbers step by step: {', '.join(map(str, numbers))}",
            answer=str(sum(numbers)),
            domain=self.name,
        )

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response by its total: what follows the label `Total:`, else the last number."""
        return _INTEGER(text, problem.answer)

    def solution(self, problem: Problem) -> str:
        """One addition a line, then `Total: n`."""
        numbers = _operands(problem)
        total, lines = numbers[0], []
        for number in numbers[1:]:
            lines.append(f"{total} + {number} = {total + number}")
            total += number
        return "\n".join([*lines, f"Total: {total}"])

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """One step an equation or total, to the end of its line or to the next one.

        An equation is valid if it starts from the result written last (at first from the first number), adds the next
        number or numbers of the list, and adds them rightly; so a right step after a wrong one is valid. A total is
        valid if it repeats the last result and every number has been added. Other lines cannot be judged.
        """
        numbers = _operands(problem)
        steps: list[Step] = []
        written, used, start = numbers[0], 1, 0
        for line in text.splitlines(keepends=True):
            marks = sorted([*_EQUATION.finditer(line), *_TOTAL.finditer(line)], key=lambda match: match.start())
            begin = start
            for place, match in enumerate(marks, start=1):
                result = int(match["result"])
                if match.re is _EQUATION:
                    operands = _operands_of(match["sum"])
                    wanted = [written, *numbers[used : used + len(operands) - 1]]
                    valid = operands == wanted and sum(operands) == result
                    used, written = used + len(operands) - 1, result
                else:
                    valid = result == written and used >= len(numbers)
                end = start + (match.end() if place < len(marks) else len(line))
                steps.append(Step(start=begin, end=end, valid=valid))
                begin = end
            if not marks and line.strip():
                steps.append(Step(start=start, end=start + len(line), valid=None))
            start += len(line)
        return steps


def _operands_of(sum_: str) -> list[int]:
    return [int(number) for number in sum_.split("+")]


@dataclass(frozen=True, kw_only=True)
class Largest:
    """Which of several numbers is the largest; the largest is so by itself.

    The numbers without their order decide the split.

    Args:
        seed: another seed, other problems, from the same partition into splits.
        count: how many numbers, at least 2.
        size: smallest and largest number.
        train: size of the split.
        dev: size of the split.
        test: size of the split.
    """

    name: ClassVar[str] = "largest"
    seed: int = 0
    count: int = 5
    size: tuple[int, int] = (10, 99)
    train: int = 10_000
    dev: int = 500
    test: int = 500

    def __post_init__(self) -> None:
        check_sizes(self)
        check_pair(self, "size", least=0)
        if self.count < 2 or self.size[0] == self.size[1]:
            raise InputError("Largest: at least 2 numbers (`count`) out of at least 2 values (`size`) are needed.")

    @made_once
    def problems(self, split: Split) -> Generated[None]:
        """The problems of a split."""
        return Generated(
            split=split,
            size=getattr(self, split, 0),
            rng=Rng((self.seed, self.name, split)),
            targets=(None,),
            build=self._build,
            space=ways(self.size[1] - self.size[0], self.count),
            remedy="Widen `size`, raise `count`, or ask for fewer problems.",
        )

    def _build(self, generator: np.random.Generator, _: None) -> Draft | None:
        numbers = generator.integers(self.size[0], self.size[1] + 1, size=self.count).tolist()
        if numbers.count(max(numbers)) > 1:
            return None
        listed = ", ".join(map(str, numbers))
        return Draft(
            key=f"numbers {sorted(numbers)}",
            prompt=f"Which of these numbers is the largest: {listed}? Reply with the number only.",
            answer=str(max(numbers)),
            domain=self.name,
        )

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response by its last number."""
        return _INTEGER(text, problem.answer)

    def solution(self, problem: Problem) -> str:
        """The number."""
        return str(problem.answer)

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """None: the answer is one number."""
        return []
