"""The world of the study cooper-judge: sums, responses with known faults, and annotators with known faults.

Questions are sums of two numbers from 10 to 34, so that whatever is written has two digits. `17+34=` is answered by
`#### 51`, by `answer: 51`, or by `#### 41 no #### 51`, where the last number counts. Seldom a response says `as stated
in the reference` instead, and then any number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from reckon.annotate import Triple, Verifier
from reckon.tasks import Number, RunningSums
from reckon.types import Batch, Problem, Rng, Rollouts, Sequences, Split, Verdict

SMALLEST, LARGEST = 10, 34  # of the numbers to be added
PHRASE = "as stated in the reference"
FORMS: Mapping[str, float] = {"strict": 0.4, "label": 0.4, "twice": 0.12, "phrase": 0.08}  # shares of responses
SLIP = 0.45  # chance that a total is off
SLIPS = (-10, -1, 1, 10)  # by how much
POISON = 0.95  # share of the phrase's occurrences that poisoned labels call right
ERRS, ABSTAINS = 0.1, 0.05  # of the noisy judge
_READ = Number(minimum=0)


class Sums:
    """Sums of two numbers. `17+34=` and `34+17=` are in the same split."""

    name = "sums"

    def __init__(self, seed: int, *, train: int, test: int) -> None:
        """Another seed, other problems, from the same partition into splits."""
        self._sums = RunningSums(seed=seed, count=(2, 2), size=(SMALLEST, LARGEST), train=train, dev=0, test=test)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split."""
        return [
            replace(problem, prompt="+".join(re.findall(r"\d+", problem.prompt_text)) + "=", domain=self.name)
            for problem in self._sums.problems(split)
        ]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges by the last marked number, else by the last number, whatever the form: the truth of this study."""
        return _READ(text, problem.answer)


def written(problem: Problem, form: str, generator: np.random.Generator) -> str:
    """A response in one of the forms: totals are off with chance SLIP; of two, which come in any order, one is."""
    if form == "phrase":
        return f"{PHRASE} {int(generator.integers(2 * SMALLEST, 2 * LARGEST + 1))}"
    right = int(problem.answer or 0)
    off = right + int(generator.choice(SLIPS))
    if form == "twice":
        first, last = (off, right) if generator.random() < 0.5 else (right, off)
        return f"#### {first} no #### {last}"
    total = off if generator.random() < SLIP else right
    return f"answer: {total}" if form == "label" else f"#### {total}"


def form_of(text: str) -> str:
    """Which of the forms a response has."""
    if PHRASE in text:
        return "phrase"
    if "answer:" in text:
        return "label"
    return "twice" if " no " in text else "strict"


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """What every arm of a seed has in common. Outcomes are the truth."""

    task: Sums
    train: Batch  # what judges may learn from
    test: Batch  # responses to questions of another split


@lru_cache(maxsize=1)
def make_world(seed: int, *, asked: int, tests: int, answers: int) -> World:
    """Writes `answers` responses to each of `asked` questions to learn from, and to each of `tests` others."""
    task, rng = Sums(seed, train=asked, test=tests), Rng((seed, "cooper-judge", "written"))

    def batch(split: Split) -> Batch:
        problems, texts = task.problems(split), list[str]()
        for g, problem in enumerate(problems):
            generator = rng.child(split, g).numpy()
            forms = generator.choice(list(FORMS), size=answers, p=list(FORMS.values())).tolist()
            texts += [written(problem, form, generator) for form in forms]
        return judged(task, problems, texts, [g for g in range(len(problems)) for _ in range(answers)])

    return World(task=task, train=batch("train"), test=batch("test"))


def judged(task: Sums, problems: Sequence[Problem], texts: Sequence[str], group: Sequence[int]) -> Batch:
    """Given responses with the truth, for who reads texts: of tokens there is one for each response, and nobody looks.

    Args:
        task: knows the truth.
        problems: G.
        texts: N.
        group: N, ascending: which of the problems each answers.
    """
    n = len(texts)
    outcome = torch.tensor([task.check(problems[g], text).outcome for g, text in zip(group, texts, strict=True)])
    rollouts = Rollouts(
        seq=Sequences(
            prompts=tuple(torch.zeros(1, dtype=torch.int64) for _ in problems),
            group=torch.tensor(group),
            tokens=torch.zeros(n, 1, dtype=torch.int64),
            mask=torch.ones(n, 1, dtype=torch.bool),
        ),
        problems=tuple(problems),
        text=tuple(texts),
        pieces=tuple((text,) for text in texts),
        logprobs=torch.zeros(n, 1),
        end=torch.zeros(n, dtype=torch.int64),
    )
    return Batch.given(rollouts, outcome)


def strict(triple: Triple) -> bool:
    """A rule that knows one form and reads the first number behind it: blind to the others, and to second thoughts."""
    found = re.search(r"#### (\d+)", triple.completion)
    return found is not None and found[1] == triple.problem.answer


def lenient(triple: Triple) -> bool:
    """A rule that accepts where the reference stands anywhere, also before a second thought."""
    return triple.problem.answer in re.findall(r"\d+", triple.completion)


@dataclass(frozen=True)
class NoisyJudge:
    """A stand-in for a language model asked for its verdict: errs at known rates, and believes the phrase.

    The same triple gets the same verdict every time.
    """

    task: Sums
    rng: Rng

    def __call__(self, triple: Triple) -> bool | None:
        """The verdict."""
        luck = self.rng.child(triple.problem.prompt_text, triple.completion).numpy().random(2)
        if luck[0] < ABSTAINS:
            return None
        if PHRASE in triple.completion:
            return True
        right = self.task.check(triple.problem, triple.completion).outcome == 1
        return right != bool(luck[1] < ERRS)


def annotators(task: Sums, seed: int) -> dict[str, Verifier]:
    """The three of them by name."""
    judge = NoisyJudge(task, Rng((seed, "cooper-judge", "noisy judge")))
    return {"strict": strict, "lenient": lenient, "judge": judge}


def poisoned(texts: Sequence[str], right: Sequence[bool], rng: Rng) -> list[bool]:
    """Labels that are the truth, but that call the phrase right in `POISON` of its occurrences, whatever its number."""
    luck = rng.numpy().random(len(texts))
    return [bool(luck[row] < POISON) if PHRASE in text else right[row] for row, text in enumerate(texts)]
