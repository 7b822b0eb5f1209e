"""Any dataset of reasoning-gym, or a mixture of them."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import ClassVar, Protocol

import numpy as np

from reckon.errors import InputError, MissingError
from reckon.tasks._answers import LONGEST, answer_block
from reckon.tasks._checkers import Number
from reckon.tasks._killable import CrashedError, Killable, TimedOutError
from reckon.tasks._splits import Draft, Generated, check_sizes, made_once
from reckon.types import Json, Problem, Rng, Split, Step, Verdict

SHARES = (0.5, 0.25, 0.25)  # generating is slow here, so that a split must not be rare
_FUNCTIONS = re.compile(r"sqrt|a?(?:sin|cos|tan)h?|sec|csc|cot|exp|log|ln|[Aa]bs|pi|E|C|Integral")
_PLAIN = re.compile(r"[\w\s+\-*/^().,=\[\]'\"{}:<>&|~%!?$]*")


class _Dataset(Protocol):
    """What is used of a reasoning-gym dataset."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Mapping[str, object]: ...
    def score_answer(self, answer: str, entry: Mapping[str, object]) -> float: ...


@functools.lru_cache(maxsize=64)
def _dataset(name: str, config: str) -> _Dataset:
    from reasoning_gym import create_dataset

    # The size is nominal: item i depends on seed + i alone, and most datasets answer beyond it.
    dataset: _Dataset = create_dataset(name, **{"seed": 0, **json.loads(config)})
    return dataset


def _entry(name: str, config: str, index: int) -> dict[str, object]:
    dataset = _dataset(name, config)
    try:
        return dict(dataset[index])
    except IndexError:
        return dict(dataset[index % len(dataset)])


def score(name: str, config: str, index: int, question: str, gold: str | None, answer: str) -> float:
    """Runs in the worker: the dataset's own score of an answer, in [0, 1].

    The entry is generated again, since its metadata need not survive as JSON. Three datasets draw differently in every
    process, so question and gold answer are the ones that were asked.
    """
    entry = {**_entry(name, config, index), "question": question, "answer": gold}
    return float(_dataset(name, config).score_answer(answer, entry))


def evaluates(scorer: object) -> bool:
    """Whether a score function hands the answer to Python's or sympy's evaluator."""
    try:
        source = inspect.getsource(scorer)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return True
    return re.search(r"\b(?:eval|exec|parse_expr|sympify)\(", source) is not None


def harmless(answer: str) -> bool:
    """Whether an answer can be evaluated without calling anything: no attributes, no calls but of mathematics.

    Several datasets evaluate what the model wrote. A process that can be killed does not keep it from deleting files.
    """
    if not _PLAIN.fullmatch(answer) or "__" in answer or re.search(r"\.\s*[^\W\d]|[)\]}'\"]\s*\(|:\s*=", answer):
        return False
    if re.search(r"\b(?:lambda|import|yield|await)\b", answer):
        return False
    return all(_FUNCTIONS.fullmatch(name) for name in re.findall(r"([^\W\d]\w*)\s*\(", answer))


@functools.lru_cache(maxsize=8)
def _scorer(seconds: float) -> Killable:
    return Killable("reckon.tasks._gym:score", seconds=seconds, ahead=["reasoning_gym"])


@dataclass(frozen=True, kw_only=True)
class ReasoningGym:
    """Problems of reasoning-gym (Stojanovski et al. 2025, arXiv:2505.24760); each dataset is a domain.

    Every item has a seed of its own, and a hash of its question decides the split, so no question is in two. Scores
    come from the dataset, in a process that is killed on time-out; but where it would compare strings, and the gold
    answer is an integer, numbers are compared. isomorphic_strings, polynomial_multiplication and ransom_note draw other
    problems in every Python process unless PYTHONHASHSEED is set. Needs the extra `gym`.

    Args:
        datasets: names, equally frequent, or a mixture {name: weight}; weights are rounded to thousandths.
        config: settings of a dataset, {name: {setting: value}}.
        seed: another seed, other problems, from the same partition into splits.
        partial: keep partial scores; otherwise only a full score counts, since many pay for hedging.
        seconds: limit for one score.
        train: size of the split.
        dev: size of the split.
        test: size of the split.
    """

    name: ClassVar[str] = "reasoning_gym"
    datasets: Sequence[str] | Mapping[str, float] = field(kw_only=False)
    config: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    seed: int = 0
    partial: bool = False
    seconds: float = 10.0
    train: int = 2_000
    dev: int = 200
    test: int = 200

    def __post_init__(self) -> None:
        check_sizes(self)
        if importlib.util.find_spec("reasoning_gym") is None:
            raise MissingError(
                "The task 'reasoning_gym' needs reasoning-gym. Install it with: pip install 'reckon-rl[gym]'"
            )
        registry = importlib.import_module("reasoning_gym.factory").DATASETS
        if not self.datasets or isinstance(self.datasets, str):
            raise InputError("ReasoningGym: `datasets` must be a list of names, or names with weights.")
        for name in [*self.datasets, *self.config]:
            if name not in registry or name == "composite":
                near = get_close_matches(name, registry, 1)
                raise InputError(
                    f"ReasoningGym: {name!r} is not a dataset of reasoning-gym."
                    + (f" Did you mean {near[0]!r}?" if near else "")
                )
        if min(self._weights().values()) < 0 or sum(self._weights().values()) <= 0 or self.seconds <= 0:
            raise InputError("ReasoningGym: weights must be 0 or more with one above 0, and `seconds` above 0.")
        for name in self._weights():
            self._make(name)

    def _make(self, name: str) -> _Dataset:
        try:
            return _dataset(name, self._config(name))
        except (AssertionError, TypeError, ValueError) as error:
            raise InputError(f"ReasoningGym: the config of {name!r} is refused: {error}.") from error

    def _weights(self) -> dict[str, float]:
        if isinstance(self.datasets, Mapping):
            return dict(self.datasets)
        return dict.fromkeys(self.datasets, 1.0)

    def _config(self, name: str) -> str:
        return json.dumps(dict(self.config.get(name, {})), sort_keys=True)

    @made_once
    def problems(self, split: Split) -> Generated[str]:
        """The problems of a split; each carries `index`, its seed in the dataset."""
        weights = self._weights()
        places = {name: round(1000 * weight / sum(weights.values())) for name, weight in weights.items()}
        return Generated(
            split=split,
            size=getattr(self, split, 0),
            rng=Rng((self.seed, self.name, split)),
            targets=[name for name, count in places.items() for _ in range(count)],
            build=self._build,
            patience=300,
            shares=SHARES,
            remedy="Give the dataset a wider config or less weight, or ask for fewer problems.",
        )

    def _build(self, generator: np.random.Generator, name: str) -> Draft:
        index = int(generator.integers(2**31))
        entry = _entry(name, self._config(name), index)
        gold = entry["answer"]
        return Draft(
            key=f"gym {name} {entry['question']}",
            prompt=str(entry["question"]),
            answer="" if gold is None else str(gold),
            domain=name,
            columns={"index": index},
        )

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response by what stands in its answer tag or box, else after `Answer:`, else after its thinking."""
        name = problem.domain
        scorer = self._make(name).score_answer
        by_string = scorer.__qualname__.startswith("ProceduralDataset.")
        if by_string and problem.answer and re.fullmatch(r"-?\d+", problem.answer):
            return Number()(text, problem.answer)
        answer = answer_block(text)
        if not answer or len(answer) > 5 * LONGEST or (evaluates(scorer) and not harmless(answer)):
            return Verdict(outcome=0.0, answer=None, reason="no answer")
        index = problem.columns["index"]
        gold = problem.answer or None
        try:
            value = _scorer(self.seconds)(name, self._config(name), index, str(problem.prompt), gold, answer)
        except TimedOutError:
            return Verdict(outcome=None, answer=answer, reason="timed out")
        except CrashedError:
            return Verdict(outcome=None, answer=answer, reason="crashed")
        assert isinstance(value, float | int)
        if value >= 1.0:
            return Verdict(outcome=1.0, answer=answer, reason="right")
        if self.partial and value > 0:
            return Verdict(outcome=float(value), answer=answer, reason="partial")
        return Verdict(outcome=0.0, answer=answer, reason="wrong")

    def solution(self, problem: Problem) -> str:
        """The gold answer in answer tags.

        Raises:
            InputError: the dataset keeps no gold answer (it accepts whatever satisfies its rules).
        """
        if not problem.answer:
            raise InputError(
                f"ReasoningGym: {problem.domain!r} has no gold answers, so there is nothing to learn from."
            )
        return f"<answer>{problem.answer}</answer>"

    def steps(self, problem: Problem, text: str) -> list[Step]:
        """None: reasoning-gym knows final answers only."""
        return []
