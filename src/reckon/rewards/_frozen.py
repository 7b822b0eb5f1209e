"""Responses that are kept to measure a judge on, over and over, while the policy goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch

from reckon.types import Batch, Json, Problem, Rollouts, Sequences, State

if TYPE_CHECKING:
    from torch import Tensor


class FrozenSet:
    """The first responses of a run whose verdict is known, as many right as wrong."""

    def __init__(self, size: int) -> None:
        """Empty; `size` is even."""
        self.size = size
        self._parts: list[Batch] = []

    @property
    def full(self) -> bool:
        """Whether it has all its responses; it never changes after."""
        return all(self._has(verdict) == self.size // 2 for verdict in (0.0, 1.0))

    def add(self, batch: Batch) -> None:
        """Takes what it still lacks, in the order of the batch."""
        found = [
            (batch.outcome == verdict).nonzero().squeeze(1)[: self.size // 2 - self._has(verdict)]
            for verdict in (0.0, 1.0)
        ]
        rows = torch.cat(found).sort().values
        if len(rows):
            self._parts.append(batch.take(rows))

    def accuracy(self, judge: Callable[[Batch], Tensor], threshold: float) -> float:
        """The share of its responses that a judge puts on the right side of a threshold.

        Args:
            judge: gives a value for each response [N]; NaN ones do not count.
            threshold: right is what lies above.

        Returns:
            In [0, 1]; NaN where the judge gives no value.
        """
        values = torch.cat([judge(part).cpu() for part in self._parts])
        right = torch.cat([part.outcome.cpu() for part in self._parts]) == 1
        known = ~values.isnan()
        return float(((values > threshold) == right)[known].double().mean()) if known.any() else math.nan

    def state_dict(self) -> State:
        """The responses, with all that any judge may read of them."""
        return {str(number): _packed(part) for number, part in enumerate(self._parts)}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        self._parts = [_unpacked(cast("State", state[str(number)])) for number in range(len(state))]

    def _has(self, verdict: float) -> int:
        return sum(int((part.outcome == verdict).sum()) for part in self._parts)


def _packed(batch: Batch) -> State:
    rollouts, seq = batch.rollouts, batch.seq
    told: list[Json] = [
        {
            "id": problem.id,
            "prompt": problem.prompt if isinstance(problem.prompt, str) else [dict(turn) for turn in problem.prompt],
            "answer": problem.answer,
            "domain": problem.domain,
            "columns": dict(problem.columns),
        }
        for problem in rollouts.problems
    ]
    return {
        "prompts": {str(number): prompt for number, prompt in enumerate(seq.prompts)},
        "group": seq.group,
        "tokens": seq.tokens,
        "mask": seq.mask,
        "problems": told,
        "text": list(rollouts.text),
        "pieces": [list(row) for row in rollouts.pieces],
        "logprobs": rollouts.logprobs,
        "end": rollouts.end,
        "truncated": rollouts.truncated,
        "outcome": batch.outcome,
        "step": batch.step,
    }


def _unpacked(state: State) -> Batch:
    saved = cast("dict[str, Any]", state)
    prompts = [saved["prompts"][str(number)] for number in range(len(saved["prompts"]))]
    told = [{**row, "prompt": _prompt(row["prompt"])} for row in saved["problems"]]
    rollouts = Rollouts(
        seq=Sequences(prompts=tuple(prompts), group=saved["group"], tokens=saved["tokens"], mask=saved["mask"]),
        problems=tuple(Problem(**row) for row in told),
        text=tuple(saved["text"]),
        pieces=tuple(tuple(row) for row in saved["pieces"]),
        logprobs=saved["logprobs"],
        end=saved["end"],
        truncated=saved["truncated"],
    )
    return Batch.given(rollouts, saved["outcome"], train=True, step=saved["step"])


def _prompt(saved: str | list[dict[str, str]]) -> str | tuple[dict[str, str], ...]:
    return saved if isinstance(saved, str) else tuple(saved)
