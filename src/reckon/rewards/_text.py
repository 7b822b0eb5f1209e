"""Rewards for what stands in a response's text: layout, words, repetition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from reckon.errors import InputError
from reckon.rewards import _surrogates
from reckon.types import Batch, End, Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Format:
    """`weight` for a response that ends in one well-formed answer, 0 for any other (arXiv:2505.19439).

    Whether the answer is right is not asked, so an empty or constant box is the way to cheat it: watch the accuracy on
    a few labeled problems beside it.
    """

    weight: float = 0.5  # of no consequence alone, where advantages are standardized; it matters in a sum
    require_eos: bool = True  # a response cut off at the limit is not well-formed, whatever it boxed on the way
    validate: Callable[[str], bool] | None = None  # None = `reckon.tasks.is_answer`
    extract: Callable[[str], str | None] | None = None  # None = `reckon.tasks.extract_answer`

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise InputError(f"format: `weight` is {self.weight}; it must be above 0, and finite.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], 0 or `weight`."""
        return {"format": Stream(values=self.weight * self.holds(batch).float())}

    def holds(self, batch: Batch) -> Tensor:
        """[N] bool: which responses are well-formed."""
        from reckon.tasks import extract_answer, is_answer

        extract, validate = self.extract or extract_answer, self.validate or is_answer
        answers = [extract(text) for text in batch.rollouts.text]
        formed = [answer is not None and bool(answer.strip()) and validate(answer) for answer in answers]
        ended = batch.rollouts.end != End.LENGTH
        found = torch.tensor(formed, dtype=torch.bool, device=ended.device)
        return found & ended if self.require_eos else found


@dataclass(frozen=True, kw_only=True)
class ThinkFormat:
    """`weight` for a response with a closed <think> block anywhere in it (the code of arXiv:2505.19439)."""

    weight: float = 0.5

    def __post_init__(self) -> None:
        _check_weight("think_format", self.weight)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], 0 or `weight`."""
        return {"think_format": _per_text(batch, lambda text: self.weight * _surrogates.has_think_block(text))}


@dataclass(frozen=True, kw_only=True)
class StrictLayout:
    """`weight` for a text that is exactly `<think>...</think><answer>...</answer>`, each tag once, blanks aside."""

    weight: float = 2.0  # as in the code of arXiv:2505.19439

    def __post_init__(self) -> None:
        _check_weight("strict_layout", self.weight)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], 0 or `weight`."""
        return {"strict_layout": _per_text(batch, lambda text: self.weight * _surrogates.is_strict_layout(text))}


@dataclass(frozen=True, kw_only=True)
class RepetitionPenalty:
    """A penalty in proportion to the share of n-grams that repeat an earlier one (arXiv:2502.03373, appendix C.2).

    The defaults are those of the code of arXiv:2505.19439: words, n = 40. `unit="tokens"` needs no blanks
    between words.
    """

    n: int = 40
    max_penalty: float = -0.05  # 0 or below: what a text that only repeats itself tends to
    unit: Literal["words", "tokens"] = "words"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"repetition_penalty: `n` is {self.n}; an n-gram has 1 or more {self.unit}.")
        if not -math.inf < self.max_penalty <= 0:
            raise InputError(
                f"repetition_penalty: `max_penalty` is {self.max_penalty}; a penalty is 0 or below, and finite."
            )
        if self.unit not in ("words", "tokens"):
            raise InputError(f"repetition_penalty: `unit` is {self.unit!r}; it must be words or tokens.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N] in (max_penalty, 0]."""
        rows: list[list[str]] | list[list[int]]
        if self.unit == "words":
            rows = [text.lower().split() for text in batch.rollouts.text]
        else:
            rows = [tokens[mask].tolist() for tokens, mask in zip(batch.seq.tokens, batch.seq.mask, strict=True)]
        values = [self.max_penalty * _surrogates.repeated_share(items, self.n) for items in rows]
        return {"repetition_penalty": _stream(batch, values)}


@dataclass(frozen=True, kw_only=True)
class KeywordReward:
    """Rewards words of reflection: weight * min(n, cap) / cap for n of them in the text (code of arXiv:2505.19439)."""

    words: Sequence[str] = ("however", "but", "wait", "verify", "alternatively")
    weight: float = 0.5
    cap: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.words, str) or not self.words or not all(self.words):
            raise InputError(f"keyword_reward: `words` is {self.words!r}; it must be a list of words, none empty.")
        if self.cap < 1:
            raise InputError(f"keyword_reward: `cap` is {self.cap}; it must be 1 or more.")
        _check_weight("keyword_reward", self.weight)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N] between 0 and `weight`."""
        return {
            "keyword_reward": _per_text(
                batch, lambda text: self.weight * _surrogates.keyword_share(text, self.words, self.cap)
            )
        }


@dataclass(frozen=True, kw_only=True)
class Containment:
    """1 where the response's answer stands inside the reference or the reference inside it, else 0; for watching.

    A problem without a reference has no such reward (NaN). Not a checker: 1 stands inside 12.
    """

    extract: Callable[[str], str | None] | None = None  # None = `reckon.tasks.extract_answer`

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N]."""
        from reckon.tasks import extract_answer

        extract = self.extract or extract_answer
        values: list[float] = []
        for row, text in enumerate(batch.rollouts.text):
            reference = batch.rollouts.problem(row).answer
            if reference is None:
                values.append(float("nan"))
            else:
                values.append(float(_surrogates.contains(extract(text) or "", reference)))
        return {"containment": _stream(batch, values)}


def _check_weight(kind: str, weight: float) -> None:
    if not math.isfinite(weight):
        raise InputError(f"{kind}: `weight` is {weight}; it must be finite.")


def _per_text(batch: Batch, value: Callable[[str], float]) -> Stream:
    return _stream(batch, [value(text) for text in batch.rollouts.text])


def _stream(batch: Batch, values: Sequence[float]) -> Stream:
    return Stream(values=torch.tensor(values, dtype=torch.float32, device=batch.outcome.device))
