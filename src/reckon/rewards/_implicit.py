"""Rewards that a model implies by what it has come to find likelier than its reference does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from reckon.errors import InputError
from reckon.process import How, aggregate, q_values
from reckon.rewards._judges_reading import Scorer, check_splitter, check_tokens, steps_of
from reckon.steps import Splitter, Steps, over_steps
from reckon.types import Batch, Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImplicitReward:
    """A process reward that needs no step labels: beta (log pi(token) - log ref(token)) (arXiv:2412.01981, eq. 2).

    A model trained with such a reward on right and wrong responses alone gives it to every token. Summed up to a token
    it is a Q value: what the response is worth if the reference goes on from there. It ranks; it is no probability, for
    the mean of exp(reward / beta) under the reference is 1 whatever was learned, so that right responses can hardly
    rise above 0.

    Without a reference the log-probs stand alone, as "reference-free" rewards do: for ranking, and not for training,
    where they pay for what is likely anyway.

    A model that learned from means over tokens (length-normalized DPO) is read by them with `length_normalized`: a
    token's reward is divided by its response's count of tokens, so that a response's is the mean that was learned. What
    is said above of sums, Q values and exp(reward / beta) is then not true.
    """

    model: Scorer
    _: KW_ONLY
    reference: Scorer | None = None  # what `model` was trained from; with LoRA `model.reference()`
    beta: float = 0.05  # as in training
    length_normalized: bool = False  # as in training: a response's reward is a mean over its tokens, and no sum
    splitter: Splitter | None = None  # where steps end; needed by all that reads steps
    per: Literal["token", "step", "response"] = "token"
    how: How = "min"  # a response's reward out of its steps'; "sum" needs no splitter. Read by per="response" alone

    def __post_init__(self) -> None:
        if not (self.beta > 0 and math.isfinite(self.beta)):
            raise InputError(f"implicit_reward: `beta` is {self.beta}; it must be above 0, and finite.")
        if self.per not in ("token", "step", "response"):
            raise InputError(f"implicit_reward: `per` is {self.per!r}; it must be token, step or response.")
        if self.how not in get_args(How):
            raise InputError(f"implicit_reward: `how` is {self.how!r}; it must be one of {', '.join(get_args(How))}.")
        if self.how != "min" and self.per != "response":
            raise InputError(f"implicit_reward: per={self.per!r} has no `how`. Leave it out, or take per='response'.")
        if self.splitter is None and (self.per == "step" or (self.per == "response" and self.how != "sum")):
            raise InputError(
                "implicit_reward: rewards of steps need a `splitter`, such as reckon.steps.Pattern(): under another "
                "one they are other rewards, so none is assumed."
            )
        if self.splitter is not None:
            check_splitter("implicit_reward", self.splitter)
        if self.reference is self.model:
            raise InputError("implicit_reward: model and reference are one, so every reward would be 0.")
        own, theirs = (getattr(model, "sampling", None) for model in (self.model, self.reference))
        if own is not None and theirs is not None and own.temperature != theirs.temperature:
            raise InputError(
                f"implicit_reward: the model's log-probs are at temperature {own.temperature}, the reference's at "
                f"{theirs.temperature}. Load both with the same one."
            )

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream of rewards. Pure.

        Returns:
            per="token": [N, T], 0 where the mask is False. per="step": [N, T], each step's reward on its last token,
            so that what a token returns is what its step and the later ones earn. per="response": [N], NaN where
            nothing was sampled.
        """
        return {"implicit_reward": Stream(values=self._values(batch))}

    def token_rewards(self, batch: Batch) -> Tensor:
        """[N, T] float32, 0 where the mask is False; summed over a response its reward."""
        return self.beta * self._ratios(batch)

    def q_values(self, batch: Batch) -> Tensor:
        """[N, T] float32: rewards summed up to each token, it included; 0 where the mask is False."""
        return q_values(self._ratios(batch), batch.seq.mask, self.beta)

    def step_rewards(self, batch: Batch) -> Tensor:
        """[N, H] float32, NaN behind a response's last step; summed over the steps the response's reward."""
        return over_steps(self.token_rewards(batch), self._steps(batch))

    def _values(self, batch: Batch) -> Tensor:
        if self.per == "token":
            return self.token_rewards(batch)
        if self.per == "response" and self.how == "sum":
            sampled = batch.seq.mask.any(dim=1)
            return torch.where(sampled, self.token_rewards(batch).sum(dim=1), torch.nan)
        steps = self._steps(batch)
        per_step = over_steps(self.token_rewards(batch), steps)
        return aggregate(per_step, self.how) if self.per == "response" else on_last_tokens(per_step, steps)

    def _steps(self, batch: Batch) -> Steps:
        if self.splitter is None:
            raise InputError("implicit_reward: rewards of steps need a `splitter`, such as reckon.steps.Pattern().")
        return steps_of(batch, self.splitter)

    def _ratios(self, batch: Batch) -> Tensor:
        """[N, T] float32: log pi(token) - log ref(token), or its part of their mean; 0 where the mask is False."""
        check_tokens("implicit_reward", self.model, batch)
        logprobs = self.model.outputs(batch.seq).logprobs
        assert logprobs is not None
        if self.reference is not None:
            ref_logprobs = self.reference.outputs(batch.seq).logprobs
            assert ref_logprobs is not None
            logprobs = logprobs - ref_logprobs.to(logprobs.device)
        ratios = torch.where(batch.seq.mask, logprobs, 0.0)
        return ratios / batch.seq.mask.sum(dim=1, keepdim=True).clamp(min=1) if self.length_normalized else ratios


def on_last_tokens(per_step: Tensor, steps: Steps) -> Tensor:
    """Puts each step's value [N, H] on its last token, 0 elsewhere: [N, T]."""
    placed = per_step.new_zeros(steps.index.shape)
    for row, ends in enumerate(steps.ends):
        placed[row, list(ends)] = per_step[row, : len(ends)]
    return placed
