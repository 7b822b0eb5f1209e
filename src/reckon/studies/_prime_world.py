"""The world of the study prime: chains of sums modulo 10, answered by a table with exact chances of success."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from reckon.advantages import unit_returns
from reckon.tasks import ChainArithmetic
from reckon.types import (
    Batch,
    Columns,
    Credit,
    End,
    Loss,
    Metrics,
    Objective,
    Outputs,
    Problem,
    Rng,
    Rollouts,
    Sequences,
    Split,
    State,
    Stream,
    Verdict,
    Want,
)

if TYPE_CHECKING:
    from reckon.models import Optimization


class Chains:
    """`reckon.tasks.ChainArithmetic`, every problem of which is made once and not whenever it is posed."""

    name = ChainArithmetic.name

    def __init__(self, seed: int, *, operations: int, train: int, test: int) -> None:
        task = ChainArithmetic(seed=seed, operations=operations, train=train, dev=0, test=test)
        self._problems = {split: list(task.problems(split)) for split in get_args(Split)}

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split."""
        return self._problems[split]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judges a response of `ChainPolicy` by its last digit, as the task does, without a parser of numbers."""
        right = text[-1] == problem.answer
        return Verdict(outcome=float(right), answer=text[-1], reason="right" if right else "wrong")


class ChainPolicy:
    """A table of 10 x 9 x 10 logits, pi(digit written | digit before, operand), as a `Policy`.

    A response is one token for each operand; there is no end token, for every response has as many steps as it must.
    """

    def __init__(self, logits: Tensor, optimizer: Optimization) -> None:
        """Begins as a table of logits [10, 9, 10], which is copied."""
        self.logits = logits.detach().clone().requires_grad_()
        self._settings = optimizer
        self._adamw = torch.optim.AdamW(
            [self.logits],
            lr=optimizer.lr,
            betas=(optimizer.beta1, optimizer.beta2),
            weight_decay=optimizer.weight_decay,
        )

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Answers each of G problems k times; the draws invert the distribution at numbers that are `rng`'s alone."""
        if prefixes is not None:
            raise ValueError("a chain is begun at its first step")
        digits = _digits(problems)
        start, operand = digits[:, 0].repeat_interleave(k), digits[:, 1:].repeat_interleave(k, dim=0)
        chance = torch.from_numpy(rng.numpy().random(operand.shape))[:, :, None]
        heights = self.logits.detach().double().softmax(dim=2).cumsum(dim=2)
        before, tokens = start, torch.empty_like(operand)
        for t in range(operand.shape[1]):
            below = heights[before, operand[:, t] - 1] <= chance[:, t]
            before = tokens[:, t] = below.sum(dim=1).clamp(max=9)
        seq = Sequences(
            prompts=tuple(digits),
            group=torch.arange(len(problems)).repeat_interleave(k),
            tokens=tokens,
            mask=torch.ones(tokens.shape, dtype=torch.bool),
        )
        logprobs = self.outputs(seq).logprobs
        assert logprobs is not None
        rows = [[str(digit) for digit in row] for row in tokens.tolist()]
        return Rollouts(
            seq=seq,
            problems=tuple(problems),
            text=tuple(",".join(row) for row in rows),
            pieces=tuple((*(f"{digit}," for digit in row[:-1]), row[-1]) for row in rows),
            logprobs=logprobs,
            end=torch.full((len(tokens),), int(End.EOS)),
        )

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """Log-probs, without gradients."""
        del want  # no part of this study wants more
        with torch.no_grad():
            return Outputs(logprobs=self._logprobs(seq))

    def step(self, seq: Sequences, columns: Columns, loss: Loss, want: Iterable[Want] = ("logprobs",)) -> Metrics:
        """One step of AdamW on the sum of `loss` over all rows."""
        del want
        self._adamw.zero_grad()
        value = loss(Outputs(logprobs=self._logprobs(seq)), columns).sum()
        value.backward()
        assert self.logits.grad is not None
        self._adamw.step()
        return {"policy/loss": float(value.detach()), "policy/grad_norm": float(self.logits.grad.norm())}

    def update(self, objective: Objective, batch: Batch, credit: Credit, rng: Rng) -> Metrics:
        """Learns from a batch in one step."""
        del rng  # nothing is shuffled
        columns = objective.prepare(replace(batch, on_policy=True), credit)
        return self.step(batch.seq, columns, objective, objective.want)

    def twin(self, optimizer: Optimization) -> ChainPolicy:
        """A second table, equal now, that learns by itself."""
        return ChainPolicy(self.logits, optimizer)

    def reference(self) -> ChainPolicy:
        """The table as it is now, which nobody trains."""
        return ChainPolicy(self.logits, self._settings)

    def state_dict(self) -> State:
        """The table; a study keeps no moments."""
        return {"logits": self.logits.detach().clone()}

    def load_state_dict(self, state: State) -> None:
        """Takes the table up."""
        logits = state["logits"]
        assert isinstance(logits, Tensor)
        with torch.no_grad():
            self.logits.copy_(logits)

    def _logprobs(self, seq: Sequences) -> Tensor:
        before, operand = _steps(seq)
        return self.logits.log_softmax(dim=2)[before, operand - 1, seq.tokens]


def start_table(right: float, rng: Rng) -> Tensor:
    """[10, 9, 10] float32: log-probs of a policy whose steps are right with chance `right`, and N(0, 0.5^2) noise."""
    before, operand = torch.meshgrid(torch.arange(10), torch.arange(1, 10), indexing="ij")
    law = torch.full((10, 9, 10), (1 - right) / 9).scatter(2, ((before + operand) % 10)[:, :, None], right)
    return (law.log() + 0.5 * torch.from_numpy(rng.numpy().normal(size=law.shape))).float()


def chance_of_success(logits: Tensor, operations: int) -> float:
    """How likely the last digit is right, over all prompts, exactly: what may have gone wrong may cancel again.

    The state is the digit written and how far it is from what it should be.
    """
    law = logits.detach().double().softmax(dim=2)  # [before, operand - 1, written]
    off, before, operand, written = torch.meshgrid(*map(torch.arange, (10, 10, 9, 10)), indexing="ij")
    now = (off + written - before - operand - 1) % 10
    moves = torch.zeros(100, 100, dtype=torch.float64)  # from (off, before) to (now, written); operands equally likely
    places = (10 * off + before).flatten(), (10 * now + written).flatten()
    moves.index_put_(places, (law / 9).expand(10, 10, 9, 10).flatten(), accumulate=True)
    state = torch.zeros(100, dtype=torch.float64)
    state[:10] = 0.1
    for _ in range(operations):
        state = state @ moves
    return float(state[:10].sum())


def valid_steps(seq: Sequences) -> Tensor:
    """[N, T] bool: the digit follows from the one before it."""
    before, operand = _steps(seq)
    return seq.tokens == (before + operand) % 10


class ExactSteps:
    """The truth as a process reward: -1 for every step that does not follow, the largest return then made 1."""

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T]."""
        wrong = (~valid_steps(batch.seq)).float()
        return {"exact_steps": Stream(values=unit_returns(-wrong, batch.seq.mask))}


def _steps(seq: Sequences) -> tuple[Tensor, Tensor]:
    """[N, T] each: the digit before a step, and what it must add."""
    digits = torch.stack(seq.prompts)[seq.group]
    return torch.cat([digits[:, :1], seq.tokens[:, :-1]], dim=1), digits[:, 1:]


def _digits(problems: Sequence[Problem]) -> Tensor:
    """[G, 1 + L] int64."""
    return torch.tensor([[int(digit) for digit in re.findall(r"\d", problem.prompt_text)] for problem in problems])
