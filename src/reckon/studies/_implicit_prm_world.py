"""The world of the study implicit-prm: chains of sums modulo 10, drawn by the thousand as arrays.

What `reckon.tasks.ChainArithmetic` says about one text, its `check`, `steps` and `noisy_solution`, holds for every row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reckon.tasks import ChainArithmetic
from reckon.types import Rng, Split

STEPS = 8  # operations, and so steps of a response
PER_STEP = 28  # sum of 0 to 7: steps sampled to complete each prefix of a response once


@dataclass(frozen=True, kw_only=True, eq=False)
class Traces:
    """N responses of STEPS steps, `per` to each prompt, side by side."""

    start: Tensor  # [N] int64, the first number of the prompt
    operand: Tensor  # [N, STEPS] int64 from 1 to 9: what each step must add
    written: Tensor  # [N, STEPS] int64 from 0 to 9
    per: int

    @property
    def before(self) -> Tensor:
        """[N, STEPS] int64: the digit that each step starts from, right or wrong."""
        return torch.cat([self.start[:, None], self.written[:, :-1]], dim=1)

    @property
    def valid(self) -> Tensor:
        """[N, STEPS] bool: the step follows from the digit before it."""
        return self.written == (self.before + self.operand) % 10

    @property
    def right(self) -> Tensor:
        """[N] bool: the last digit is that of the whole sum; wrong steps may have canceled."""
        return self.written[:, -1] == (self.start + self.operand.sum(dim=1)) % 10

    @property
    def cell(self) -> Tensor:
        """[N, STEPS] int64: which of the 900 cells (digit before, operand, digit written) each step is."""
        return (self.before * 9 + self.operand - 1) * 10 + self.written

    def first(self, prompts: int, responses: int) -> Traces:
        """The first responses to each of the first prompts."""
        rows = torch.arange(prompts)[:, None] * self.per + torch.arange(responses)
        flat = rows.flatten()
        return Traces(
            start=self.start[flat], operand=self.operand[flat], written=self.written[flat], per=min(responses, self.per)
        )


def draw(split: Split, prompts: int, per: int, error: float, seed: int) -> Traces:
    """Responses of a generator that errs at each step with probability `error`, in any of nine ways, and goes on."""
    task = ChainArithmetic(seed=seed, operations=STEPS, train=16_000, dev=300, test=300)
    problems = task.problems(split)
    texts = [str(problems[i].prompt) for i in range(prompts)]
    digits = torch.tensor([[int(digit) for digit in text.rstrip("=").split("+")] for text in texts])
    digits = digits.repeat_interleave(per, dim=0)
    start, operand = digits[:, 0], digits[:, 1:]
    written = torch.from_numpy(_walk(start.numpy(), operand.numpy(), error, Rng((seed, "implicit-prm", split))))
    return Traces(start=start, operand=operand, written=written, per=per)


def shares_right(traces: Traces, completions: int, error: float, rng: Rng) -> Tensor:
    """[N, STEPS] float64: of so many completions drawn from each step on, the share that end right (Math-Shepherd)."""
    operand, written = traces.operand.numpy(), traces.written.numpy()
    wanted = (traces.start.numpy() + operand.sum(axis=1)) % 10
    found = np.empty(written.shape)
    for step in range(STEPS):
        left = np.repeat(operand[:, step + 1 :], completions, axis=0)
        last = np.repeat(written[:, step], completions)
        if left.shape[1]:
            last = _walk(last, left, error, rng.child(step))[:, -1]
        found[:, step] = (last.reshape(-1, completions) == wanted[:, None]).mean(axis=1)
    return torch.from_numpy(found)


def reference(error: float) -> Tensor:
    """[10, 9, 10] float64: the generator's own log-probs of a digit, given the digit before it and the operand."""
    before, operand = torch.meshgrid(torch.arange(10), torch.arange(1, 10), indexing="ij")
    law = torch.full((10, 9, 10), error / 9, dtype=torch.float64)
    return law.scatter(2, ((before + operand) % 10)[:, :, None], 1 - error).log()


def _walk(value: np.ndarray, operands: np.ndarray, error: float, rng: Rng) -> np.ndarray:
    # Two streams, so that the first rows are the same however many follow: arms with fewer prompts see the same ones.
    wrong = rng.child("wrong").numpy().random(operands.shape) < error
    drift = np.where(wrong, rng.child("drift").numpy().integers(1, 10, size=operands.shape), 0)
    written: np.ndarray = (value[:, None] + (operands + drift).cumsum(axis=1)) % 10
    return written
