"""The four counting tasks of Xu and Ma 2025 (arXiv:2410.14166) on random strings, with the questions of their data.

Random strings, since in natural words length, distinct letters, token count and rarity go together. The word alone
decides the split, for all four tasks: no word of a test question was ever trained on, by any of them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from reckon.errors import InputError
from reckon.tasks._checkers import Number, YesNo
from reckon.tasks._splits import Draft, Generated, check_choice, check_pair, check_sizes, made_once, ways
from reckon.types import Problem, Rng, Split, Step, Verdict

Mode: TypeAlias = Literal["open", "direct"]
Running: TypeAlias = Callable[[str, int, str], int]  # (characters so far, count so far, character) -> count

_COUNT = Number(minimum=0)
_REMEDY = "Widen `length` or `alphabet`, or ask for fewer problems."
_LINE = re.compile(r"(?P<char>\S) (?P<count>\d{1,6})[ \t]*$")
_FINAL = re.compile(r"Answer: (?P<count>\d{1,6})\.?[ \t]*$")


def _check(task: LetterCount | WordLength | DistinctLetters | Substring) -> None:
    check_sizes(task)
    check_pair(task, "length", least=1)
    check_choice(task, "mode", ("open", "direct"))
    letters = task.alphabet
    bad = [char for char in letters if not char.isascii() or not char.isprintable() or char in ' "']
    if len(letters) < 2 or len(set(letters)) < len(letters) or bad:
        raise InputError(
            f"{type(task).__name__}: `alphabet` must be two or more different visible ASCII characters without the "
            f"double quote, not {letters!r}."
        )


def _word(generator: np.random.Generator, alphabet: Sequence[str], length: int) -> list[str]:
    return [alphabet[i] for i in generator.integers(len(alphabet), size=length)]


def _length(generator: np.random.Generator, length: tuple[int, int], least: int = 1) -> int:
    return int(generator.integers(max(length[0], least), length[1] + 1))


def _question(question: str, mode: Mode, closing: str) -> str:
    return f"{question} {closing}" if mode == "direct" else question


def _scratchpad(word: str, running: Running) -> str:
    """`character count` a line, then the answer: state and update, one step a character."""
    lines, count = [], 0
    for i, char in enumerate(word):
        count = running(word[:i], count, char)
        lines.append(f"{char} {count}")
    return "\n".join([*lines, f"Answer: {count}"])


def _scratchpad_steps(text: str, word: str, running: Running) -> list[Step]:
    """Each line judged on its own: the right next character, and the count that follows from the lines before it."""
    steps: list[Step] = []
    written, count, start = "", 0, 0
    for line in text.splitlines(keepends=True):
        end = start + len(line)
        valid: bool | None = None
        bare = line.rstrip("\n")
        if match := _LINE.match(bare):
            position = len(written)
            expected = running(written, count, match["char"])
            valid = word[position : position + 1] == match["char"] and int(match["count"]) == expected
            written, count = written + match["char"], int(match["count"])
        elif match := _FINAL.match(bare):
            valid = len(written) == len(word) and int(match["count"]) == count
        if bare.strip():
            steps.append(Step(start=start, end=end, valid=valid))
        start = end
    return steps


@dataclass(frozen=True, kw_only=True)
class LetterCount:
    """How many times a letter occurs in a random string; letter case counts.

    Args:
        seed: another seed, other problems, from the same partition into splits.
        length: shortest and longest string.
        alphabet: the characters strings are made of.
        count: "uniform": every answer from 0 to `most` is equally frequent. "natural": the letter is drawn from the
            string, as in the paper, so that most answers are 1 and none is 0.
        most: the largest answer under "uniform", at most the longest length.
        mode: "direct" adds the paper's request for the bare number.
        train: size of the split.
        dev: size of the split.
        test: size of the split.
    """

    name: ClassVar[str] = "letter_count"
    seed: int = 0
    length: tuple[int, int] = (4, 10)
    alphabet: str = string.ascii_lowercase
    count: Literal["uniform", "natural"] = "uniform"
    most: int = 4
    mode: Mode = "open"
    train: int = 10_000
    dev: int = 500
    test: int = 500

    def __post_init__(self) -> None:
        _check(self)
        check_choice(self, "count", ("uniform", "natural"))
        if not 1 <= self.most <= self.length[1]:
            raise InputError(
                f"LetterCount: `most` must be from 1 to the longest length, {self.length[1]}, not {self.most}."
            )

    @made_once
    def problems(self, split: Split) -> Generated[int]:
        """The problems of a split."""
        low, high = self.length
        others = len(self.alphabet) - 1
        rarest = min(
            sum(comb(n, c) * ways(others, n - c) for n in range(max(low, c), high + 1))
            for c in ({0, self.most} if self.count == "uniform" else {1})
        )
        return Generated(
            split=split,
            size=getattr(self, split, 0),
            rng=Rng((self.seed, self.name, split)),
            targets=range(self.most + 1) if self.count == "uniform" else (-1,),
            build=self._build,
            space=rarest,
            remedy=_REMEDY,
        )

    def _build(self, generator: np.random.Generator, count: int) -> Draft:
        if count < 0:
            word = _word(generator, self.alphabet, _length(generator, self.length))
            letter = word[int(generator.integers(len(word)))]
        else:
            letter = self.alphabet[int(generator.integers(len(self.alphabet)))]
            size = _length(generator, self.length, least=count)
            word = _word(generator, self.alphabet.replace(letter, ""), size)
            for i in generator.permutation(size)[:count]:
                word[i] = letter
        text = "".join(word)
        return Draft(
            key=f"word {text}",
            prompt=_question(f'How many {letter}\'s in the word "{text}"?', self.mode, "Directly answer the number."),
            answer=str(text.count(letter)),
            domain=self.name,
            columns={"word": text, "letter": letter},
        )

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response: the last number, number words too; a negative one is no answer."""
        return _COUNT(text, problem.answer)

    def solution(self, problem: Problem) -> str:
        """The string letter by letter with a running count, then `Answer: n`."""
        return _scratchpad(str(problem.columns["word"]), _occurrences(problem))

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """One step a line: the character copied and the running count updated rightly."""
        return _scratchpad_steps(text, str(problem.columns["word"]), _occurrences(problem))


def _occurrences(problem: Problem) -> Running:
    letter = problem.columns["letter"]
    return lambda _, count, char: count + (char == letter)


@dataclass(frozen=True, kw_only=True)
class WordLength:
    """How many characters a random string has; every length is equally frequent.

    Args:
        seed: another seed, other problems, from the same partition into splits.
        length: shortest and longest string.
        alphabet: the characters strings are made of.
        mode: "direct" adds the paper's request for the bare number.
        train: size of the split.
        dev: size of the split.
        test: size of the split.
    """

    name: ClassVar[str] = "word_length"
    seed: int = 0
    length: tuple[int, int] = (4, 12)
    alphabet: str = string.ascii_lowercase
    mode: Mode = "open"
    train: int = 10_000
    dev: int = 500
    test: int = 500

    def __post_init__(self) -> None:
        _check(self)

    @made_once
    def problems(self, split: Split) -> Generated[int]:
        """The problems of a split."""
        return Generated(
            split=split,
            size=getattr(self, split, 0),
            rng=Rng((self.seed, self.name, split)),
            targets=range(self.length[0], self.length[1] + 1),
            build=self._build,
            space=ways(len(self.alphabet), self.length[0]),
            remedy=_REMEDY,
        )

    def _build(self, generator: np.random.Generator, length: int) -> Draft:
        text = "".join(_word(generator, self.alphabet, length))
        return Draft(
            key=f"word {text}",
            prompt=_question(f'How many characters in the word "{text}"?', self.mode, "Directly answer the number."),
            answer=str(len(text)),
            domain=self.name,
            columns={"word": text},
        )

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response: the last number, number words too."""
        return _COUNT(text, problem.answer)

    def solution(self, problem: Problem) -> str:
        """The string letter by letter, numbered, then `Answer: n`."""
        return _scratchpad(str(problem.columns["word"]), _every)

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """One step a line: the character copied and numbered rightly."""
        return _scratchpad_steps(text, str(problem.columns["word"]), _every)


def _every(_: str, count: int, __: str) -> int:
    return count + 1


@dataclass(frozen=True, kw_only=True)
class DistinctLetters:
    """How many different characters a random string has; letter case counts.

    Args:
        seed: another seed, other problems, from the same partition into splits.
        length: shortest and longest string.
        alphabet: the characters strings are made of.
        count: "uniform": every answer from 2 to what length and alphabet allow is equally frequent (1 has hardly any
            strings). "natural": whatever strings of independent characters give.
        mode: "direct" adds the paper's request for the bare number.
        train: size of the split.
        dev: size of the split.
        test: size of the split.
    """

    name: ClassVar[str] = "distinct_letters"
    seed: int = 0
    length: tuple[int, int] = (4, 10)
    alphabet: str = string.ascii_lowercase
    count: Literal["uniform", "natural"] = "uniform"
    mode: Mode = "open"
    train: int = 10_000
    dev: int = 500
    test: int = 500

    def __post_init__(self) -> None:
        _check(self)
        check_choice(self, "count", ("uniform", "natural"))
        if self.count == "uniform" and self.length[1] < 2:
            raise InputError("DistinctLetters: `length` must reach 2 for a uniform count.")

    @made_once
    def problems(self, split: Split) -> Generated[int]:
        """The problems of a split."""
        most = min(self.length[1], len(self.alphabet))
        return Generated(
            split=split,
            size=getattr(self, split, 0),
            rng=Rng((self.seed, self.name, split)),
            targets=range(2, most + 1) if self.count == "uniform" else (-1,),
            build=self._build,
            space=comb(len(self.alphabet), 2) * ways(2, self.length[1]),
            remedy=_REMEDY,
        )

    def _build(self, generator: np.random.Generator, count: int) -> Draft:
        if count < 0:
            word = _word(generator, self.alphabet, _length(generator, self.length))
        else:
            size = _length(generator, self.length, least=count)
            letters = [self.alphabet[i] for i in generator.permutation(len(self.alphabet))[:count]]
            word = letters + _word(generator, letters, size - count)
            word = [word[i] for i in generator.permutation(size)]
        text = "".join(word)
        return Draft(
            key=f"word {text}",
            prompt=_question(
                f'How many distinct characters in the word "{text}"?', self.mode, "Directly answer the number."
            ),
            answer=str(len(set(text))),
            domain=self.name,
            columns={"word": text},
        )

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response: the last number, number words too."""
        return _COUNT(text, problem.answer)

    def solution(self, problem: Problem) -> str:
        """The string letter by letter with the number of different ones so far, then `Answer: n`."""
        return _scratchpad(str(problem.columns["word"]), _new)

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """One step a line: the character copied and the running count updated rightly."""
        return _scratchpad_steps(text, str(problem.columns["word"]), _new)


def _new(before: str, count: int, char: str) -> int:
    return count + (char not in before)


@dataclass(frozen=True, kw_only=True)
class Substring:
    """Whether a string is part of a random string; Yes and No are equally frequent.

    Args:
        seed: another seed, other problems, from the same partition into splits.
        length: shortest and longest string.
        size: shortest and longest part asked for, shorter than the shortest string.
        alphabet: the characters strings are made of.
        negatives: "edit": a part with one character replaced, as in the paper; most can be told by a letter that does
            not occur. "hard": letters of the string itself in an order that does not occur.
        mode: "direct" adds the paper's request for the bare word.
        train: size of the split.
        dev: size of the split.
        test: size of the split.
    """

    name: ClassVar[str] = "substring"
    seed: int = 0
    length: tuple[int, int] = (4, 10)
    size: tuple[int, int] = (2, 3)
    alphabet: str = string.ascii_lowercase
    negatives: Literal["edit", "hard"] = "hard"
    mode: Mode = "open"
    train: int = 10_000
    dev: int = 500
    test: int = 500

    def __post_init__(self) -> None:
        _check(self)
        check_pair(self, "size", least=2)
        check_choice(self, "negatives", ("edit", "hard"))
        if self.size[1] >= self.length[0]:
            raise InputError(
                f"Substring: `size` must stay below the shortest length, {self.length[0]}, not reach {self.size[1]}."
            )

    @made_once
    def problems(self, split: Split) -> Generated[str]:
        """The problems of a split."""
        return Generated(
            split=split,
            size=getattr(self, split, 0),
            rng=Rng((self.seed, self.name, split)),
            targets=("Yes", "No"),
            build=self._build,
            space=ways(len(self.alphabet), self.length[1]) / 4,
            remedy=_REMEDY,
        )

    def _build(self, generator: np.random.Generator, answer: str) -> Draft | None:
        word = "".join(_word(generator, self.alphabet, _length(generator, self.length)))
        size = _length(generator, self.size)
        start = int(generator.integers(len(word) - size + 1))
        part = word[start : start + size]
        if answer == "No":
            part = self._absent(generator, word, part)
            if part in word:  # an edit can make another true part, and "aaaa" has no other order
                return None
        return Draft(
            key=f"word {word}",
            prompt=_question(
                f'Is substring "{part}" part of the word "{word}"?', self.mode, "Directly answer Yes or No."
            ),
            answer=answer,
            domain=self.name,
            columns={"word": word, "part": part},
        )

    def _absent(self, generator: np.random.Generator, word: str, part: str) -> str:
        if self.negatives == "hard":
            return "".join(word[i] for i in generator.permutation(len(word))[: len(part)])
        at = int(generator.integers(len(part)))
        others = self.alphabet.replace(part[at], "")
        return part[:at] + others[int(generator.integers(len(others)))] + part[at + 1 :]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response: the last yes or no in it."""
        return YesNo()(text, problem.answer)

    def solution(self, problem: Problem) -> str:
        """`Yes` or `No`."""
        return str(problem.answer)

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """None: the answer is one word."""
        return []
