"""A reward head for outcomes that are rare, from the ordered stages a rollout passes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import logsigmoid

from reckon.errors import InputError
from reckon.rewards._judges_reading import Scorer, check_tokens, last_tokens
from reckon.types import Batch, Sequences, Stream, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.ordinal import PrestoClassifierCV

HEAD_FILE = "staged_head.safetensors"
TANGENT = 1e-3  # a gap below which the barrier goes on as a straight line
_ROWS = 64  # responses whose hidden states are held at once


def staged_log_probabilities(scores: Tensor, stages: Tensor) -> Tensor:
    """Log P(Y = stage) from the scores of boundaries, without cancellation.

    It is log s(hi) + log s(-lo) + log(1 - exp(lo - hi)), s the logistic function, hi and lo the scores above and below
    the stage. Where a step has brought them closer than 0.001 or let them cross, the last term goes on as its tangent:
    no probability any more, but a slope that leads back.

    Args:
        scores: [N, K-1] float, logit P(Y <= k); carries the gradient.
        stages: [N] int64, stages passed, 0 to K-1.

    Returns:
        [N], of the scores' dtype.
    """
    last = scores.shape[1]
    hi = scores.gather(1, stages.clamp(max=last - 1)[:, None])[:, 0]
    lo = scores.gather(1, (stages - 1).clamp(min=0)[:, None])[:, 0]
    has_hi, has_lo = stages < last, stages > 0
    gap = torch.where(has_hi & has_lo, hi - lo, torch.inf)
    wide = gap.clamp(min=TANGENT)
    barrier = torch.log(-torch.expm1(-wide)) + (gap.clamp(max=TANGENT) - TANGENT) / math.expm1(TANGENT)
    ends = torch.where(has_hi, logsigmoid(hi), 0.0) + torch.where(has_lo, logsigmoid(-lo), 0.0)
    return ends + torch.where(has_hi & has_lo, barrier, 0.0)


def stage_of_verdict(verdict: Verdict) -> int | None:
    """The stage a checker's verdict shows: 0 no answer, 1 an answer, 2 partly right, 3 right; None = unknown."""
    if verdict.outcome is None:
        return None
    return 0 if verdict.answer is None else 1 + (verdict.outcome > 0) + (verdict.outcome >= 1)


class StagedRewardHead(nn.Module):
    """The log-odds that a rollout passes every stage, from a hidden state (PRESTO: Faletto and Bien, ICML 2023).

    Stages are counted in their order: parsed, right format, partly right, fully right is K = 5 with 0 for none. Where
    few rollouts are fully right, the earlier stages tell the weights what the last one has too few rows to say. `fit`
    solves for frozen hidden states exactly. To train the hidden states as well, minimize the mean of
    -`staged_log_probabilities(head(hidden), stages)` and call `shrink` after each optimizer step.
    """

    def __init__(self, width: int, stages: int) -> None:
        """Makes a head that knows nothing: all stages equally likely.

        Args:
            width: D, of the hidden states.
            stages: K, 2 or more, counting the one of having passed none.
        """
        super().__init__()
        if width < 1 or stages < 2:
            raise InputError(f"a staged head of width {width} with {stages} stages; it needs 1 or more, and 2 or more.")
        even = torch.arange(1, stages) / stages
        self.psi = nn.Parameter(torch.zeros(stages - 1, width))
        self.intercepts = nn.Parameter(even.logit())

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, K-1]: logit P(Y <= k), from hidden states [N, D]."""
        return hidden @ self.psi.cumsum(dim=0).T + self.intercepts

    def fit(
        self,
        hidden: Tensor,
        stages: Tensor,
        *,
        groups: Sequence[str] | None = None,
        folds: int = 5,
        seed: int = 0,
    ) -> Self:
        """Solves for frozen hidden states, the penalty chosen by cross-validation.

        Args:
            hidden: [N, D] float, of the last token.
            stages: [N] int64, stages passed, 0 to K-1; each must be there.
            groups: [N] names of what must not be split between training and test, such as the problem.
            folds: of the cross-validation.
            seed: which rows go to which fold.

        Raises:
            InputError: shapes that do not fit, NaN, or a stage without rows.
        """
        from reckon.ordinal import PrestoClassifier, PrestoClassifierCV

        count = len(self.intercepts) + 1
        if hidden.ndim != 2 or hidden.shape[1] != self.psi.shape[1] or stages.shape != hidden.shape[:1]:
            raise InputError(
                f"a staged head of width {self.psi.shape[1]} got hidden states {list(hidden.shape)} and stages "
                f"{list(stages.shape)}; they must be [N, {self.psi.shape[1]}] and [N]."
            )
        model: PrestoClassifierCV = PrestoClassifierCV(
            PrestoClassifier(categories=range(count)), cv=folds, random_state=seed
        )
        model.fit(hidden.detach().double().cpu().numpy(), stages.cpu().numpy(), groups=groups)
        with torch.no_grad():
            self.psi.copy_(torch.from_numpy(model.psi_))
            self.intercepts.copy_(torch.from_numpy(model.intercepts_))
        return self

    def score(self, hidden: Tensor) -> Tensor:
        """[N]: the log-odds of the last stage, a scalar reward."""
        boundaries: Tensor = self(hidden)
        return -boundaries[:, -1]

    def probabilities(self, hidden: Tensor) -> Tensor:
        """[N, K]: of each stage. Where boundaries cross, earlier ones are lowered, so the last stage's stays."""
        below = self(hidden).flip(1).cummin(dim=1).values.flip(1).sigmoid()
        ends = torch.cat([torch.zeros_like(below[:, :1]), below, torch.ones_like(below[:, :1])], dim=1)
        return ends.diff(dim=1)

    def utility(self, hidden: Tensor, worth: Sequence[float]) -> Tensor:
        """[N]: expected worth of the stage reached, given what each of the K stages is worth.

        Raises:
            InputError: not K numbers.
        """
        if len(worth) != len(self.intercepts) + 1:
            raise InputError(f"{len(worth)} worths for {len(self.intercepts) + 1} stages; give one for each.")
        return self.probabilities(hidden) @ torch.as_tensor(worth, dtype=self.psi.dtype, device=self.psi.device)

    @torch.no_grad()
    def shrink(self, amount: float) -> None:
        """Draws every weight and difference of weights towards 0 by `amount`: the learning rate times lambda."""
        self.psi.copy_(self.psi.sign() * (self.psi.abs() - amount).clamp(min=0))

    def save(self, folder: Path) -> None:
        """Writes psi [K-1, D] and the intercepts [K-1] into a model's folder, as safetensors."""
        state = {name: value.detach().float().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(state, folder / HEAD_FILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The head in a model's folder.

        Raises:
            InputError: it is not there, or damaged.
        """
        path = folder / HEAD_FILE
        try:
            state = load_file(path)
            head = cls(state["psi"].shape[1], len(state["intercepts"]) + 1)
            head.load_state_dict(state)
        except (SafetensorError, OSError, KeyError, IndexError, RuntimeError) as error:
            raise InputError(f"the staged head {path} cannot be read ({error}). Fit it again.") from error
        return head


def last_states(model: Scorer, seq: Sequences) -> Tensor:
    """[N, D] float32: the last hidden state after the last sampled token of each of N responses, without gradients."""
    found = []
    for rows in torch.arange(len(seq.tokens)).split(_ROWS):
        part = seq.take(rows)
        hidden = model.outputs(part, ("hidden",)).hidden
        assert hidden is not None
        found.append(hidden[torch.arange(len(rows)), last_tokens(part.mask)])
    return torch.cat(found)


@dataclass(frozen=True)
class StagedReward:
    """How likely a response passes every stage, read from a frozen model by a `StagedRewardHead`.

    The score is the log-odds of the last stage, as that of an outcome model is of a right answer; with `worth`, what
    each of the K stages is worth, it is the expected worth of the stage reached.
    """

    model: Scorer
    head: StagedRewardHead
    _: KW_ONLY
    worth: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        stages = len(self.head.intercepts) + 1
        if self.worth is not None and not (len(self.worth) == stages and all(map(math.isfinite, self.worth))):
            raise InputError(
                f"staged_reward: `worth` is {list(self.worth)}; it must be {stages} numbers, one for each stage."
            )

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], NaN where nothing was sampled. Pure.

        Raises:
            InputError: the responses are in another tokenizer's tokens, or the head is of a model of another width.
        """
        check_tokens("staged_reward", self.model, batch)
        states = last_states(self.model, batch.seq)
        width = self.head.psi.shape[1]
        if states.shape[1] != width:
            raise InputError(
                f"staged_reward: the model's states have {states.shape[1]} numbers and its head reads {width}. Was "
                f"{HEAD_FILE} copied from another model's folder?"
            )
        with torch.no_grad():
            head = self.head.to(states.device)
            values = head.score(states) if self.worth is None else head.utility(states, self.worth)
        return {"staged_reward": Stream(values=torch.where(batch.seq.mask.any(dim=1), values, torch.nan))}
