"""The world of the study oreal: texts of twelve tokens of which two decide, and a policy on shared features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

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
    Verdict,
    Want,
)

if TYPE_CHECKING:
    from reckon.models import Optimization

PROMPTS, TOKENS, WORDS, FEATURES = 32, 12, 5, 96
AIMED = 0.45  # the chance of a critical token that the start is fitted to


class CriticalTokens:
    """Each of 32 prompts asks for a given word at two of twelve places; what stands elsewhere does not matter."""

    name = "critical_tokens"

    def __init__(self, rng: Rng) -> None:
        """Draws the places and the words."""
        generator = rng.child("critical").numpy()
        places = np.stack([generator.permutation(TOKENS)[:2] for _ in range(PROMPTS)])
        self.places = torch.from_numpy(places)  # [X, 2] int64
        self.words = torch.from_numpy(generator.integers(WORDS, size=(PROMPTS, 2)))  # [X, 2] int64
        self._problems = [Problem(id=str(x), prompt=str(x)) for x in range(PROMPTS)]

    def problems(self, split: Split) -> Sequence[Problem]:
        """All prompts, whatever the split: a table has nothing to generalize to."""
        del split
        return self._problems

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right if both critical words are there."""
        x = int(problem.id)
        asked = zip(self.places[x].tolist(), self.words[x].tolist(), strict=True)
        right = all(text[place] == str(word) for place, word in asked)
        return Verdict(outcome=float(right), answer=text, reason="right" if right else "wrong")

    def chance_of_success(self, law: Tensor) -> float:
        """How likely a text is right, the mean over prompts, exactly: `law` is [X, T, V]."""
        x = torch.arange(PROMPTS)[:, None]
        return float(law.double()[x, self.places, self.words].prod(dim=1).mean())


class FeaturePolicy:
    """Words drawn independently at each place by softmax(features W), as a `Policy`; its head is linear too.

    The 384 contexts (prompt and place) share 96 features, so that what is learned of filler disturbs what is critical.
    With a head [96, V] the score after a token is the context's features times the head's column of the token.
    """

    def __init__(self, features: Tensor, weights: Tensor, optimizer: Optimization, *, value_head: bool = False) -> None:
        """Begins at weights [D, V], which are copied, and a head of zeros."""
        self.features = features  # [X, T, D] float32
        self.weights = weights.detach().clone().requires_grad_()
        self.head = torch.zeros(weights.shape, requires_grad=True) if value_head else None
        self.optimizer = optimizer
        self._adamw = torch.optim.AdamW(
            [self.weights] if self.head is None else [self.weights, self.head],
            lr=optimizer.lr,
            betas=(optimizer.beta1, optimizer.beta2),
            weight_decay=optimizer.weight_decay,
        )

    def law(self) -> Tensor:
        """[X, T, V] float32: the probabilities of words."""
        return self._log_law().detach().exp()

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Answers each of G problems k times; the draws invert the distribution at numbers that are `rng`'s alone."""
        assert prefixes is None, "a text is begun at its first word"
        x = torch.tensor([int(problem.id) for problem in problems])
        heights = self.law().double().cumsum(dim=2)[x][:, None]  # [G, 1, T, V]
        chance = torch.from_numpy(rng.numpy().random((len(problems), k, TOKENS, 1)))
        tokens = (heights <= chance).sum(dim=3).clamp(max=WORDS - 1).reshape(-1, TOKENS)
        seq = Sequences(
            prompts=tuple(x[:, None]),
            group=torch.arange(len(problems)).repeat_interleave(k),
            tokens=tokens,
            mask=torch.ones(tokens.shape, dtype=torch.bool),
        )
        logprobs = self.outputs(seq).logprobs
        assert logprobs is not None
        text = tuple("".join(map(str, row)) for row in tokens.tolist())
        return Rollouts(
            seq=seq,
            problems=tuple(problems),
            text=text,
            pieces=tuple(tuple(row) for row in text),
            logprobs=logprobs,
            end=torch.full((len(text),), int(End.EOS)),
        )

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """Log-probs and scores, without gradients."""
        with torch.no_grad():
            return self._forward(seq, tuple(want))

    def step(self, seq: Sequences, columns: Columns, loss: Loss, want: Iterable[Want] = ("logprobs",)) -> Metrics:
        """One step of AdamW on the sum of `loss` over all rows."""
        self._adamw.zero_grad()
        value = loss(self._forward(seq, tuple(want)), columns).sum()
        value.backward()
        learned = [x.grad for x in (self.weights, self.head) if x is not None and x.grad is not None]
        self._adamw.step()
        norm = torch.stack([gradient.square().sum() for gradient in learned]).sum().sqrt()
        return {"policy/loss": float(value.detach()), "policy/grad_norm": float(norm), "policy/steps": 1.0}

    def update(self, objective: Objective, batch: Batch, credit: Credit, rng: Rng) -> Metrics:
        """Learns in one step from the rows that train, or makes none where none does."""
        del rng  # nothing is shuffled
        rows = credit.mask.any(dim=1).nonzero().squeeze(1)
        if not len(rows):
            return {"policy/steps": 0.0, "policy/grad_norm": 0.0, "tokens/trained": 0.0}
        part, due = replace(batch.take(rows), on_policy=True), credit.take(rows)
        found = self.step(part.seq, objective.prepare(part, due), objective, objective.want)
        return {**found, "tokens/trained": float(due.mask.sum())}

    def twin(self, optimizer: Optimization, *, value_head: bool = False) -> FeaturePolicy:
        """A second policy, equal now, that learns by itself."""
        return FeaturePolicy(self.features, self.weights, optimizer, value_head=value_head)

    def reference(self) -> FeaturePolicy:
        """The policy as it is now, which nobody trains."""
        return FeaturePolicy(self.features, self.weights, self.optimizer)

    def state_dict(self) -> State:
        """The weights; a study keeps no moments."""
        head = {} if self.head is None else {"head": self.head.detach().clone()}
        return {"weights": self.weights.detach().clone(), **head}

    def load_state_dict(self, state: State) -> None:
        """Takes the weights up."""
        with torch.no_grad():
            for name, values in (("weights", self.weights), ("head", self.head)):
                if values is not None:
                    saved = state[name]
                    assert isinstance(saved, Tensor)
                    values.copy_(saved)

    def _log_law(self) -> Tensor:
        return (self.features @ self.weights).log_softmax(dim=2)

    def _forward(self, seq: Sequences, want: tuple[Want, ...]) -> Outputs:
        x = torch.cat(seq.prompts)[seq.group]
        scores = None
        if "scores" in want:
            assert self.head is not None
            scores = _at(self.features @ self.head, x, seq.tokens)
        return Outputs(logprobs=_at(self._log_law(), x, seq.tokens) if "logprobs" in want else None, scores=scores)


def start_policy(task: CriticalTokens, optimizer: Optimization, rng: Rng) -> FeaturePolicy:
    """Features N(0, 1 / 96), and the weights of least squares for a chance of 0.45 of every critical word.

    The logits aimed at are log(0.45 * 4 / 0.55) for a critical word and 0 for all others; 96 features reach about a
    quarter of the way for 384 contexts.
    """
    drawn = rng.child("features").numpy().normal(size=(PROMPTS, TOKENS, FEATURES)) / FEATURES**0.5
    features = torch.from_numpy(drawn)
    logits = torch.zeros(PROMPTS, TOKENS, WORDS, dtype=torch.float64)
    x = torch.arange(PROMPTS)[:, None]
    logits[x, task.places, task.words] = float(np.log(AIMED * (WORDS - 1) / (1 - AIMED)))
    flat = features.reshape(-1, FEATURES), logits.reshape(-1, WORDS)
    weights = torch.linalg.lstsq(*flat, driver="gelsd").solution
    return FeaturePolicy(features.float(), weights.float(), optimizer)


def token_scores(model: FeaturePolicy) -> Tensor:
    """[X, T, V]: what the head says after every word in every context."""
    assert model.head is not None
    return (model.features @ model.head).detach()


def localization(scores: Tensor, task: CriticalTokens) -> tuple[float, float]:
    """How well a model of tokens has found what matters, of scores [X, T, V].

    Returns:
        The AUC with which the spread of a place's scores over words tells the critical places from filler, and the
        share of critical places at which the right word has the largest score (chance 1/5).
    """
    from reckon.evaluate import auc

    x = torch.arange(PROMPTS)[:, None]
    critical = torch.zeros(PROMPTS, TOKENS, dtype=torch.float64).index_put((x, task.places), torch.tensor(1.0).double())
    top = scores[x, task.places].argmax(dim=2) == task.words
    spread = scores.double().std(dim=2).flatten()
    return auc(spread.numpy(), critical.flatten().numpy()), float(top.double().mean())


def _at(table: Tensor, x: Tensor, tokens: Tensor) -> Tensor:
    """[n, T] of a table [X, T, V]: at each place of row i the entry of prompt x[i] and its token."""
    return table[x].gather(2, tokens[:, :, None])[:, :, 0]
