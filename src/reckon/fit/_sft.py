"""Supervised fine-tuning without a run: the warm-up of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from reckon.errors import InputError
from reckon.types import Columns, Metrics, Model, Outputs, Problem, Rng, Sequences


class Tokenizing(Model, Protocol):
    """A model that can read responses it is given."""

    def tokenize(
        self, problems: Sequence[Problem], texts: Sequence[str], ended: Sequence[bool] | None = None
    ) -> Sequences:
        """The responses as tokens, each in a group of its own; only those that have `ended` with an end token."""
        ...


def negative_log_likelihood(outputs: Outputs, columns: Columns) -> Tensor:
    """Supervised fine-tuning's loss a token, times `columns["scale"]` ([n, T] float32)."""
    assert outputs.logprobs is not None
    return -outputs.logprobs * columns["scale"]


def sft(
    model: Tokenizing,
    problems: Sequence[Problem],
    solutions: Sequence[str],
    rng: Rng,
    *,
    epochs: int = 1,
    batch: int = 16,
    ended: Sequence[bool] | None = None,
    told: Callable[[int, int, Metrics], None] | None = None,
) -> Metrics:
    """Supervised fine-tuning: makes given solutions likelier, each token of a mini-batch counting the same.

    Args:
        model: what learns; its own optimizer settings hold.
        problems: N problems.
        solutions: N responses to imitate.
        rng: decides the order of the rows.
        epochs: passes over the rows.
        batch: rows to a step; the last step of a pass may have fewer.
        ended: N: False for a solution that is cut off, so that no end token is learned behind it. Left out, all end.
        told: called after each step with (steps done, steps in all, the step's metrics).

    Returns:
        "fit/loss": mean loss a token over the last pass, in nats; "fit/steps".

    Raises:
        InputError: there are no rows, not one solution for each problem, or `epochs` or `batch` is below 1.
    """
    if epochs < 1 or batch < 1:
        raise InputError(f"fine-tuning needs `epochs` and `batch` of at least 1, not {epochs} and {batch}.")
    if not problems or len(problems) != len(solutions):
        raise InputError(f"fine-tuning needs rows: got {len(problems)} problems and {len(solutions)} solutions.")
    if ended is not None and len(ended) != len(problems):
        raise InputError(f"fine-tuning got {len(problems)} problems, and for {len(ended)} whether they end. Give both.")
    seq = model.tokenize(problems, solutions, ended)
    n = len(problems)
    total = epochs * -(-n // batch)
    done, loss = 0, 0.0
    for epoch in range(epochs):
        order = torch.from_numpy(rng.child("epoch", epoch).numpy().permutation(n))
        loss = 0.0
        for chunk in order.split(batch):
            part = seq.take(chunk.sort().values)
            tokens = part.mask.sum()
            scale = part.mask / tokens
            metrics = model.step(part, {"scale": scale}, negative_log_likelihood)
            loss += metrics["policy/loss"] * float(tokens / seq.mask.sum())
            done += 1
            if told is not None:
                told(done, total, metrics)
    return {"fit/loss": loss, "fit/steps": float(done)}
