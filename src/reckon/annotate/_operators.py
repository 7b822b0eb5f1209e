"""A corruptor that calculates with the wrong operator, and goes on from what it got."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from reckon.types import Problem, Rng

_EQUATION = re.compile(
    r"(?<![\d.,])(\d{1,12}(?:\s{0,3}[-+*/×÷−]\s{0,3}\d{1,12}){1,20})(\s{0,3}=\s{0,3})(\d{1,12})(?!\d|[.,]\d)"
)
_PART = re.compile(r"\d+|[-+*/×÷−]|\s+")
_NUMBER = re.compile(r"(?<![\d.,])\d{1,12}(?!\d|[.,]\d)")
_OPERATORS = "+-*/"
_PLAIN = {"×": "*", "÷": "/", "−": "-"}
_MOST = 30  # equations read, the last ones


@dataclass(frozen=True, kw_only=True)
class SwapOperator:
    """Swaps one operator of an equation between whole numbers for another: `17 + 48 = 65` becomes `17 * 48 = 816`.

    Args:
        carry: go on from the wrong result: the equation's result, later numbers equal to the right one, and what later
            equations make of them are calculated anew, so that the final answer is wrong by one wrong step. Swaps that
            would need a negative number or a fraction are not made. False = only the operator changes.
    """

    carry: bool = True

    def __call__(self, problem: Problem, text: str, rng: Rng) -> str | None:
        """The corrupted response; None if no equation can be changed so."""
        equations = list(_EQUATION.finditer(text))[-_MOST:]
        swaps = [
            (place, part, operator)
            for place, match in enumerate(equations)
            for part, old in enumerate(_PART.findall(match[1]))
            if _plain(old) in _OPERATORS
            for operator in _OPERATORS
            if operator != _plain(old)
        ]
        for number in rng.numpy().permutation(len(swaps)).tolist():
            place, part, operator = swaps[number]
            parts = _PART.findall(equations[place][1])
            parts[part] = operator
            changed = self._swapped(text, equations, place, parts)
            if changed is not None:
                return changed
        return None

    def _swapped(self, text: str, equations: Sequence[re.Match[str]], place: int, parts: Sequence[str]) -> str | None:
        """The text with the equation at `place` written as `parts`."""
        match = equations[place]
        if not self.carry:
            return text[: match.start()] + "".join(parts) + text[match.end(1) :]
        result = _value(parts)
        if result is None or result == match[3]:
            return None
        carried = _Carried({match[3]: result})
        pieces = [text[: match.start()], "".join(parts), match[2], result]
        at = match.end()
        for later in equations[place + 1 :]:
            pieces += [carried.over(text[at : later.start()]), carried.equation(later)]
            at = later.end()
        pieces.append(carried.over(text[at:]))
        return None if carried.failed else "".join(pieces)


@dataclass
class _Carried:
    """What later numbers have become."""

    new: dict[str, str]
    failed: bool = field(default=False)

    def over(self, text: str) -> str:
        return _NUMBER.sub(lambda match: self.new.get(match[0], match[0]), text)

    def equation(self, match: re.Match[str]) -> str:
        parts = _PART.findall(match[1])
        changed = [self.new.get(part, part) for part in parts]
        if changed == parts:
            return match[0]
        result = _value(changed)
        if result is None:
            self.failed = True
            return match[0]
        self.new[match[3]] = result
        return "".join(changed) + match[2] + result


def _plain(part: str) -> str:
    return _PLAIN.get(part, part) if not part.isspace() else "?"


def _value(parts: Sequence[str]) -> str | None:
    """What whole numbers joined by + - * / are worth, multiplication first; None if negative or not whole."""
    marks = [_plain(part) for part in parts if not part.isspace()]
    terms = [Fraction(int(marks[0]))]
    for operator, digits in zip(marks[1::2], marks[2::2], strict=True):
        number = Fraction(int(digits))
        if operator == "/" and number == 0:
            return None
        if operator in "+-":
            terms.append(number if operator == "+" else -number)
        else:
            terms[-1] = terms[-1] * number if operator == "*" else terms[-1] / number
    total = sum(terms, Fraction(0))
    return str(total) if total.denominator == 1 and 0 <= total < 10**12 else None
