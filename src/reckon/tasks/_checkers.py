"""Checkers: a response and a reference in, a verdict out. None of them raises for anything a response may hold.

A checker is any `(text, answer) -> Verdict`. All of these share two rules. An answer that is missing, ambiguous or
cannot be read is wrong (0). Without a reference, or with one the checker cannot read, the verdict is unknown (None)
with the reason "no reference".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from reckon.errors import InputError
from reckon.tasks._answers import LONGEST, Found, find_answers
from reckon.tasks._numbers import numbers, show
from reckon.types import Verdict

Checker: TypeAlias = Callable[[str, str | None], Verdict]
Policy: TypeAlias = Literal["last", "strict"]


def judge(answers: list[str], reference: str | None, policy: Policy) -> Verdict:
    """The verdict on readable answers, in the order given, against a reference in the same normal form.

    Args:
        answers: what the response offers; empty = no answer.
        reference: None = nobody knows.
        policy: "last": the last answer counts. "strict": answers that differ are ambiguous, hence wrong.
    """
    answer = answers[-1] if answers else None
    if reference is None:
        return Verdict(outcome=None, answer=answer, reason="no reference")
    if answer is None:
        return Verdict(outcome=0.0, answer=None, reason="no answer")
    if policy == "strict" and len(set(answers)) > 1:
        return Verdict(outcome=0.0, answer=None, reason="ambiguous")
    right = answer == reference
    return Verdict(outcome=float(right), answer=answer, reason="right" if right else "wrong")


def check_policy(owner: object, policy: str) -> None:
    """Raises InputError unless `policy` is one of the two."""
    if policy not in ("last", "strict"):
        raise InputError(f"{type(owner).__name__}: `policy` must be 'last' or 'strict', not {policy!r}.")


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The same characters as the reference, blanks aside and a final full stop forgiven.

    The answer is what stands in an answer tag, a box or after a label such as `Answer:`; without any of these, the
    whole response.

    Args:
        case: whether letter case counts.
        policy: what several marked answers mean.
    """

    case: bool = True
    policy: Policy = "last"

    def __post_init__(self) -> None:
        check_policy(self, self.policy)

    def __call__(self, text: str, answer: str | None) -> Verdict:
        """Judges a response."""
        reference = None if answer is None else self._normal(answer)
        found = [self._normal(one) for one in find_answers(text).answers if len(one) <= LONGEST]
        if reference and not reference.endswith("."):
            found = [one.removesuffix(".") for one in found]
        return judge([one for one in found if one], reference or None, self.policy)

    def _normal(self, text: str) -> str:
        text = " ".join(text.split())
        return text if self.case else text.casefold()


@dataclass(frozen=True, kw_only=True)
class Number:
    """The same number as the reference: 3, 3.0, 1,024, three, full-width digits, 1/2 and 0.5.

    Read from the strongest mark there is (tag, box, label, bare text). After a label the first number counts, or the
    first after the last `=`; elsewhere the last one does.

    Args:
        minimum: a smaller number is no answer at all; 0 for counts.
        policy: what several different numbers mean.
    """

    minimum: int | None = None
    policy: Policy = "last"

    def __post_init__(self) -> None:
        check_policy(self, self.policy)

    def __call__(self, text: str, answer: str | None) -> Verdict:
        """Judges a response."""
        reference = None
        if answer is not None:
            known = self._read(find_answers(answer))
            reference = known[-1] if known else None
        return judge(self._read(find_answers(text)), reference, self.policy)

    def _read(self, found: Found) -> list[str]:
        """The numbers that count, the decisive one last; empty when that one cannot be read."""
        values = []
        for content in found.answers:
            here = numbers(content)
            if found.mark == "line":
                here = numbers(content.rsplit("=", 1)[-1]) or here
                here = here if self.policy == "strict" else here[:1]
            values += here or ([None] if found.mark != "none" else [])
        shown = [None if v is None or (self.minimum is not None and v < self.minimum) else show(v) for v in values]
        if not shown or shown[-1] is None:
            return []
        return [value for value in shown if value is not None]


_LETTER_GOES_ON = r"(?!\s+(?!(?:is|was|because|since|as|seems|follows|would|must)\b)[a-z])"  # "A dog", "I think"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of several options, found as a whole word; letter case counts only for options of one letter.

    Args:
        options: labels such as A, B, C or words such as True, False, Unknown; at least two, all different.
        policy: what several different options mean.
    """

    options: tuple[str, ...] = ("A", "B", "C", "D", "E")
    policy: Policy = "last"

    def __post_init__(self) -> None:
        check_policy(self, self.policy)
        if len({option.casefold() for option in self.options}) < max(2, len(self.options)):
            raise InputError(f"Choice: `options` must be two or more different words, not {list(self.options)!r}.")

    def __call__(self, text: str, answer: str | None) -> Verdict:
        """Judges a response."""
        mentions = [one for content in find_answers(text).answers for one in self._mentions(content)]
        return judge(mentions, None if answer is None else self._alone(answer), self.policy)

    def _alone(self, text: str) -> str | None:
        bare = text.strip().strip("()[]{}.:*_$ \"'").casefold()
        bare = re.sub(r"^\\text\{|\}$", "", bare).strip("() ")
        return next((option for option in self.options if option.casefold() == bare), None)

    def _mentions(self, text: str) -> list[str]:
        whole = self._alone(text) if len(text) < LONGEST else None
        if whole is not None:
            return [whole]
        return [match[0] for match in self._letters(text)] or self._words(text)

    def _letters(self, text: str) -> list[re.Match[str]]:
        letters = [re.escape(option) for option in self.options if len(option) == 1]
        if not letters:
            return []
        pattern = "|".join(letter + (_LETTER_GOES_ON if letter in "AI" else "") for letter in letters)
        return list(re.finditer(rf"(?<![^\W_])(?<!')(?:{pattern})(?![^\W_])(?!['’])", text))

    def _words(self, text: str) -> list[str]:
        words = sorted((option for option in self.options if len(option) > 1), key=len, reverse=True)
        if not words:
            return []
        canonical = {word.casefold(): word for word in words}
        pattern = "|".join(re.escape(word) for word in words)
        found = re.findall(rf"(?<![^\W_])(?:{pattern})(?![^\W_])", text, re.IGNORECASE)
        return [canonical[word.casefold()] for word in found if word.casefold() in canonical]


@dataclass(frozen=True, kw_only=True)
class YesNo:
    """Yes or No, as a whole word in any letter case.

    Args:
        policy: what it means when both occur.
    """

    policy: Policy = "last"

    def __post_init__(self) -> None:
        check_policy(self, self.policy)

    def __call__(self, text: str, answer: str | None) -> Verdict:
        """Judges a response."""
        return Choice(options=("Yes", "No"), policy=self.policy)(text, answer)


@dataclass(frozen=True, kw_only=True)
class Set:
    """The same elements as the reference in any order, repetitions aside.

    Elements are separated by commas, semicolons, line ends or "and"; braces, brackets and letter case do not count, and
    elements that are numbers are compared as numbers. Without a mark, the last pair of braces counts, else the last
    line.

    Args:
        partial: give the F1 of the elements instead of 0 for a set that is only partly right.
        policy: what several different marked sets mean.
    """

    partial: bool = False
    policy: Policy = "last"

    def __post_init__(self) -> None:
        check_policy(self, self.policy)

    def __call__(self, text: str, answer: str | None) -> Verdict:
        """Judges a response."""
        found = find_answers(text)
        contents = list(found.answers)
        if found.mark == "none" and contents:
            braces = re.findall(r"\{[^{}]*\}", contents[0])
            contents = [braces[-1] if braces else contents[0].rsplit("\n", 1)[-1]]
        sets = [elements(one) for one in contents if one.strip() and len(one) <= LONGEST]
        reference = elements(answer) if answer is not None and answer.strip() else None
        shown = [_show_set(one) for one in sets]
        verdict = judge(shown, None if reference is None else _show_set(reference), self.policy)
        if self.partial and verdict.reason == "wrong" and reference and sets:
            f1 = 2 * len(reference & sets[-1]) / (len(reference) + len(sets[-1]))
            if f1 > 0:
                return Verdict(outcome=f1, answer=verdict.answer, reason="partial")
        return verdict


def elements(text: str) -> frozenset[str]:
    r"""The elements of a set written as `{1, 2}`, `1 and 2`, `\{a; b\}` or line by line, each in normal form."""
    text = text.strip().strip("$").removesuffix(".").replace("\\{", "{").replace("\\}", "}")
    if text.casefold() in ("\\emptyset", "\\varnothing", "∅", "empty set", "the empty set"):
        return frozenset()
    parts = re.split(r"[,;\n]|\band\b", text.strip("{}[]() "))
    return frozenset(_element(part) for part in parts if part.strip())


def _element(text: str) -> str:
    text = " ".join(text.split()).strip("\"'`*").casefold()
    if re.fullmatch(r"[-+]?[\d./]+", text):
        value = numbers(text)
        if len(value) == 1 and value[0] is not None:
            return show(value[0])
    return text


def _show_set(items: frozenset[str]) -> str:
    return "{" + ", ".join(sorted(items)) + "}"
