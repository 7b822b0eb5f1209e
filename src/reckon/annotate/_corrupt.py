"""Corruptors: a right response in, a wrong one like it out. What they give is validated elsewhere (`build_pairs`)."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from reckon.annotate._hybrid import Triple, fill
from reckon.errors import InputError
from reckon.steps import Splitter, step_ends
from reckon.tasks import verdict_on
from reckon.types import Problem, Rng, Task

# None = there is nothing to corrupt. The numbers of chance come from the Rng alone.
Corruptor: TypeAlias = "Callable[[Problem, str, Rng], str | Awaitable[str | None] | None]"
Reader: TypeAlias = Callable[[Problem, str], "str | None"]  # the answer a response gives

_NUMERAL = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_LONGEST = 60  # characters; a longer numeral is not an answer
_TRIED = 50  # so many numerals from the end are tried, that a text full of them stays cheap
_DIGITS = 18  # digits redrawn at most, so that they fit 64 bits


def answer_of(task: Task) -> Reader:
    """Reads answers as a task's checker does."""
    return lambda problem, text: verdict_on(task, problem, text).answer


@dataclass(frozen=True, kw_only=True)
class ChangeNumber:
    """Puts another number of as many digits in the place of the final one.

    Args:
        intermediate: also change one digit of a number before it, so that the reasoning is wrong too.
        read: what the answer is; then the final number is the last one that decides it, in a box or behind a label.
            Without it, it is the last number of the text.
    """

    intermediate: bool = False
    read: Reader | None = None

    def __call__(self, problem: Problem, text: str, rng: Rng) -> str | None:
        """The corrupted response; None if it has no number that decides the answer."""
        numerals = [match for match in _NUMERAL.finditer(text) if len(match[0]) <= _LONGEST]
        final = self._final(problem, text, numerals[-_TRIED:], rng)
        if final is None:
            return None
        match, changed = final
        before = [other for other in numerals if other.end() <= match.start()]
        if self.intermediate and before:
            generator = rng.child("intermediate").numpy()
            other = before[int(generator.integers(len(before)))]
            changed = text[: other.start()] + _other_digit(other[0], generator) + changed[other.end() :]
        return changed

    def _final(
        self, problem: Problem, text: str, numerals: Sequence[re.Match[str]], rng: Rng
    ) -> tuple[re.Match[str], str] | None:
        """The last number that decides the answer, and the text with another one there."""
        answer = None if self.read is None else self.read(problem, text)
        for match in reversed(numerals):
            number = _other_number(match[0], rng.child("final").numpy())
            changed = text[: match.start()] + number + text[match.end() :]
            if self.read is None or self.read(problem, changed) not in (answer, None):
                return match, changed
        return None


def _other_number(numeral: str, generator: np.random.Generator) -> str:
    """Another number, equally likely any with these digits' number, commas and point, and no new leading zero."""
    digits = [place for place, character in enumerate(numeral) if character.isdigit()][-_DIGITS:]
    old = int("".join(numeral[place] for place in digits))
    whole = numeral.partition(".")[0]
    leads = digits[0] == 0 and len(whole) > 1 and numeral[0] != "0"
    low = 10 ** (len(digits) - 1) if leads else 0
    new = low + int(generator.integers(10 ** len(digits) - low - 1))
    new += new >= old
    return _put(numeral, digits, f"{new:0{len(digits)}}")


def _other_digit(numeral: str, generator: np.random.Generator) -> str:
    """The number with one digit changed, no new leading zero."""
    digits = [place for place, character in enumerate(numeral) if character.isdigit()]
    place = digits[int(generator.integers(len(digits)))]
    low = int(place == 0 and len(digits) > 1 and numeral[0] != "0")
    old = int(numeral[place])
    choices = [digit for digit in range(low, 10) if digit != old]
    return _put(numeral, [place], str(choices[int(generator.integers(len(choices)))]))


def _put(numeral: str, places: Sequence[int], digits: str) -> str:
    characters = list(numeral)
    for place, digit in zip(places, digits, strict=True):
        characters[place] = digit
    return "".join(characters)


@dataclass(frozen=True)
class DeleteStep:
    """Leaves out one step, any with equal chance.

    The final answer changes only if the last step is hit, and may then be gone; follow it with `ChangeNumber` by
    `Then` for a wrong answer behind a gap.
    """

    splitter: Splitter

    def __call__(self, problem: Problem, text: str, rng: Rng) -> str | None:
        """The shorter response; None if it has only one step."""
        ends = step_ends(text, self.splitter)
        if len(ends) < 2:
            return None
        gone = int(rng.numpy().integers(len(ends)))
        start = ends[gone - 1] if gone else 0
        return (
            (text[:start] + text[ends[gone] :]).rstrip() if gone == len(ends) - 1 else text[:start] + text[ends[gone] :]
        )


@dataclass(frozen=True)
class Then:
    """One corruptor after another, for plain functions: what the first gives is corrupted by the next."""

    corruptors: Sequence[Callable[[Problem, str, Rng], str | None]]

    def __post_init__(self) -> None:
        if not self.corruptors:
            raise InputError("then: there is no corruptor in it. Name at least one.")

    def __call__(self, problem: Problem, text: str, rng: Rng) -> str | None:
        """The corrupted response; None if one of them finds nothing to corrupt."""
        changed: str | None = text
        for place, corruptor in enumerate(self.corruptors):
            if changed is None:
                return None
            changed = corruptor(problem, changed, rng.child(place))
        return changed


REWRITE = (
    "Question:\n{question}\n\nA correct solution:\n{completion}\n\n"
    "Rewrite the solution so that its reasoning contains a mistake and its final answer is wrong. Keep its style, its "
    "format and about its length, and let it look plausible. Reply with the solution only, and do not say that it is "
    "wrong."
)


@dataclass(frozen=True, kw_only=True)
class Rewriter:
    """A language model as a corruptor (Hong et al. 2025, arXiv:2508.05613).

    It is shown the question and the right response, not the reference. Keep several requests under way with `workers`
    of `build_pairs`.

    Args:
        ask: takes a prompt and gives the reply, plain or `async def`. Of `max_tokens`, `temperature` and `seed` it is
            handed, by keyword, those it names.
        template: may name {question} and {completion}.
        tries: calls until one does not fail.
        pause: seconds before the second call, twice as long before each further one.
        temperature: for the model.
        extra_tokens: `max_tokens` is the number of the response's words and this many more.
    """

    ask: Callable[..., str | Awaitable[str]]
    template: str = REWRITE
    tries: int = 3
    pause: float = 0.5
    temperature: float = 0.7
    extra_tokens: int = 500

    def __post_init__(self) -> None:
        if self.tries < 1 or self.pause < 0:
            raise InputError(
                f"rewriter: `tries` is {self.tries} and `pause` {self.pause}; at least 1 and 0 are needed."
            )
        fill(self.template, Triple(problem=Problem(id="", prompt=""), completion=""))

    async def __call__(self, problem: Problem, text: str, rng: Rng) -> str | None:
        """The reply, stripped; what the last try raised, if all failed."""
        prompt = fill(self.template, Triple(problem=problem, completion=text))
        for attempt in range(self.tries):
            try:
                reply = self.ask(prompt, **self._options(text, rng.child("try", attempt)))
                return (reply if isinstance(reply, str) else await reply).strip()
            except Exception:
                if attempt == self.tries - 1:
                    raise
                await asyncio.sleep(self.pause * 2**attempt)
        return None

    def _options(self, text: str, rng: Rng) -> dict[str, float | int]:
        every: dict[str, float | int] = {
            "max_tokens": len(text.split()) + self.extra_tokens,
            "temperature": self.temperature,
            "seed": rng.integer() % 2**31,
        }
        parameters = inspect.signature(self.ask).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return every
        return {name: value for name, value in every.items() if name in parameters}
