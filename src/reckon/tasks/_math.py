"""Mathematical equivalence, judged in a process that can be killed."""

from __future__ import annotations

import functools
import importlib.util
import re
from dataclasses import dataclass

from reckon.errors import InputError, MissingError
from reckon.tasks._answers import find_answers
from reckon.tasks._checkers import Policy, check_policy, judge
from reckon.tasks._killable import CrashedError, Killable, TimedOutError
from reckon.tasks._numbers import numbers, show
from reckon.types import Verdict

LONGEST_FORMULA = 500  # characters; longer ones are refused unread
_MATH = re.compile(r"\$\$([^$]{1,500})\$\$|\$([^$\n]{1,500})\$|\\\[(.{1,500}?)\\\]|\\\((.{1,500}?)\\\)", re.DOTALL)


def compare(reference: str, answer: str) -> str:
    """Runs in the worker: "right", "wrong", "no answer" (not mathematics), "no reference" (the reference is not).

    Only math-verify's LaTeX reader is used: its other one passes plain expressions to sympy's parse_expr, which
    evaluates Python.
    """
    import logging

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)  # it warns that its own time-outs are off: they are, the process has a limit

    def read(text: str) -> list[object]:
        found: list[object] = parse(
            f"${text}$", extraction_config=[LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
        )
        return found

    gold = read(reference)
    if not gold:
        return "no reference"
    given = read(answer)
    if not given:
        return "no answer"
    return "right" if verify(gold, given, timeout_seconds=None) else "wrong"


@functools.lru_cache(maxsize=8)
def _comparer(seconds: float) -> Killable:
    return Killable("reckon.tasks._math:compare", seconds=seconds, ahead=["math_verify"])


@dataclass(frozen=True, kw_only=True)
class Math:
    r"""The same mathematical object as the reference, by math-verify: 1/2 is 0.5, x=3 is 3; sets, intervals, matrices.

    The answer is what stands in an answer tag, a box or after a label, else the last formula between dollars or
    `\( \)`, else the last number. Formulas of more than 500 characters are wrong unread. A comparison that takes too
    long or dies is unknown. Needs the extra `math`.

    Args:
        seconds: limit for one comparison.
        policy: what several different marked answers mean.
    """

    seconds: float = 5.0
    policy: Policy = "last"

    def __post_init__(self) -> None:
        check_policy(self, self.policy)
        if self.seconds <= 0:
            raise InputError(f"Math: `seconds` must be above 0, not {self.seconds}.")
        if importlib.util.find_spec("math_verify") is None:
            raise MissingError("The checker 'math' needs math-verify. Install it with: pip install 'reckon-rl[math]'")

    def __call__(self, text: str, answer: str | None) -> Verdict:
        """Judges a response."""
        found = find_answers(text)
        offered = list(found.answers) if found.mark != "none" else _unmarked("\n".join(found.answers))
        formulas = [one if len(one) <= LONGEST_FORMULA else "" for one in (_bare(one) for one in offered)]
        formulas = formulas if formulas and formulas[-1] else []
        reference = None if answer is None else _bare(_reference(answer))
        verdict = judge(formulas, reference or None, self.policy)
        if verdict.reason != "wrong":  # the same characters, ambiguous, or one of the two is not there
            return verdict
        assert reference is not None
        try:
            reason = _comparer(self.seconds)(reference, formulas[-1])
        except TimedOutError:
            return Verdict(outcome=None, answer=verdict.answer, reason="timed out")
        except CrashedError:
            return Verdict(outcome=None, answer=verdict.answer, reason="crashed")
        if reason == "right":
            return Verdict(outcome=1.0, answer=verdict.answer, reason="right")
        if reason == "no reference":
            return Verdict(outcome=None, answer=verdict.answer, reason="no reference")
        if reason == "no answer":
            return Verdict(outcome=0.0, answer=None, reason="no answer")
        return verdict


def _unmarked(text: str) -> list[str]:
    formulas = [next(part for part in groups if part) for groups in _MATH.findall(text)]
    if formulas:
        return formulas
    if "\n" not in text and 0 < len(text) <= LONGEST_FORMULA and not re.search(r"[A-Za-z]{3,}\s+[A-Za-z]{2,}", text):
        return [text]  # nothing but the answer
    values = numbers(text)
    return [show(values[-1])] if values and values[-1] is not None else []


def _reference(answer: str) -> str:
    found = find_answers(answer)
    return found.answers[-1] if found.mark != "none" and found.answers else answer


def _bare(formula: str) -> str:
    return formula.strip().strip("$").removesuffix(".").strip()
