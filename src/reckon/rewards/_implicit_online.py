"""An implicit process reward that goes on learning while the policy does, from the outcomes it learns from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

import torch

from reckon import preferences
from reckon.advantages import returns_to_go, smoothed, unit_returns
from reckon.errors import InputError, RunError
from reckon.models import Optimization
from reckon.process import ranked_share
from reckon.rewards._implicit import on_last_tokens
from reckon.rewards._implicit_online_loss import GROUP_LOSSES, ImplicitLoss, OnlineLoss, loss_columns
from reckon.rewards._judges_reading import Scorer, check_splitter, check_tokens, last_tokens, steps_of
from reckon.steps import Splitter, over_steps
from reckon.types import Batch, Metrics, Model, Rng, State, Stream

if TYPE_CHECKING:
    from torch import Tensor

Order: TypeAlias = Literal["none", "after", "before", "reverse"]


class HasTwin(Scorer, Protocol):
    """A model that can give a second one to learn by itself: a language model, or a table."""

    def twin(self, optimizer: Optimization) -> Model:
        """A second model, equal now, that learns as `optimizer` says."""
        ...


@dataclass
class OnlineImplicitReward:
    """The implicit process reward, retrained at every step on the outcomes of its rollouts (PRIME, arXiv:2502.01456).

    A token is worth beta (log model - log reference), where `model` begins as the policy, so that every reward is 0 at
    first, and learns from nothing but which responses were right. Rows with an unknown outcome teach it nothing.

    `update` says when: "after" the scores are taken (one forward pass; the paper's default), "before" (two passes; its
    rewards are then partly in-sample), "none" (frozen), or "reverse", as "after" with a loss that compares the scores
    of a group ("group_dpo", "bon_rm", "bon_acc", of the port in verl-recipe). "ce" takes outcomes between 0 and 1 too;
    "dpo" pairs every two responses of a group whose outcomes differ. `against` the "initial" policy, or the "policy" as
    it is while it answers, which needs no third model.

    `normalize="batch"` makes the largest return of a batch 1, which cancels beta and gives a model that knows nothing
    yet as much say as the outcome: `warmup` lets it in over so many steps. "none" leaves rewards that grow with the
    model's confidence. "step" puts each step's sum on its last token, "whole" the response's.
    """

    policy: HasTwin  # what the model begins as, when it is first needed; scores the rollouts for against="policy"
    reference: Scorer | None = None  # the policy before training; let go with against="policy"
    _: KW_ONLY
    optimizer: Optimization = field(default_factory=lambda: Optimization(lr=1e-6, clip=10.0))
    update: Order = "after"
    against: Literal["initial", "policy"] = "initial"
    loss: OnlineLoss = "ce"
    beta: float = 0.05
    per: Literal["token", "step", "whole"] = "token"
    splitter: Splitter | None = None  # where steps end; for per="step"
    smoothing: float = 0.0  # lambda: how much of the next tokens' rewards a token is given, in [0, 1]
    true_total: bool = False  # put on the last token what makes a response's rewards add up to its outcome, if known
    normalize: Literal["batch", "none"] = "batch"
    warmup: int = 0  # steps over which the rewards rise linearly to their full size

    def __post_init__(self) -> None:
        for name, choice, choices in (
            ("update", self.update, get_args(Order)),
            ("against", self.against, ("initial", "policy")),
            ("loss", self.loss, get_args(OnlineLoss)),
            ("per", self.per, ("token", "step", "whole")),
            ("normalize", self.normalize, ("batch", "none")),
        ):
            if choice not in choices:
                raise self._error(f"`{name}` is {choice!r}; it must be one of {', '.join(choices)}.")
        if not (self.beta > 0 and math.isfinite(self.beta)):
            raise self._error(f"`beta` is {self.beta}; it must be above 0, and finite.")
        if not 0 <= self.smoothing <= 1:
            raise self._error(f"`smoothing` is {self.smoothing}; it must lie between 0 and 1.")
        if self.warmup < 0:
            raise self._error(f"`warmup` is {self.warmup}; it must be 0 steps or more.")
        if (self.loss in GROUP_LOSSES) != (self.update == "reverse"):
            raise self._error(
                f"the loss {self.loss!r} does not go with update={self.update!r}: {', '.join(GROUP_LOSSES)} compare "
                "the scores of a group, which update='reverse' takes first, and the others need no such scores."
            )
        if (self.per == "step") != (self.splitter is not None):
            raise self._error("a `splitter`, such as reckon.steps.Pattern(), goes with per='step', and with no other.")
        if self.splitter is not None:
            check_splitter("online_implicit_reward", self.splitter)
        if self.against == "policy":
            self.reference = None
        elif self.reference is None:
            raise self._error(
                "`reference` is missing. Give policy.reference(), taken before training, or against='policy'."
            )
        self._told: Metrics = {}

    @cached_property
    def model(self) -> Model:
        """What learns. Begins as the policy is when it is first asked for: at the latest by the first step."""
        return self.policy.twin(self.optimizer)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T] of rewards for tokens, 0 where the mask is False. Pure."""
        return self._stream(batch, self._ratios(batch, self._reference_logprobs(batch)))

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step, and learns from the batch, before or after.

        Raises:
            InputError: the responses are in the tokens of another tokenizer.
            RunError: the model's log-probs, or the reference's, are not finite.
        """
        theirs = self._reference_logprobs(batch)
        ratios = self._ratios(batch, theirs)
        told = self._judged(batch, ratios)
        if self.update != "none":
            told |= self._learn(batch, theirs, self.beta * ratios.sum(dim=1), rng)
        if self.update == "before":
            ratios = self._ratios(batch, theirs)
        streams = self._stream(batch, ratios)
        self._told = told | self._magnitude(batch, streams["online_implicit_reward"].values)
        return streams

    def metrics(self) -> Metrics:
        """How the last `assess` went.

        "loss" (cross-entropy of the outcomes), "accuracy" (pairs of a group in the right order) and "dpo_acc"
        (`reckon.process.ranked_share`), all three as the model was before it learned from these rows; "ratio", the mean
        size of the return of a token over that of an outcome, NaN where every outcome is 0; "steps" and "grad_norm" of
        the learning; "tokens", those it learned from.
        """
        return dict(self._told)

    def state_dict(self) -> State:
        """The model that learns and its optimizer."""
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        saved = state["model"]
        assert isinstance(saved, Mapping)
        self.model.load_state_dict(saved)

    def _reference_logprobs(self, batch: Batch) -> Tensor:
        """[N, T]. The policy scores its own responses anew: the sampler's log-probs have other rounding errors."""
        return _logprobs(self.policy if self.reference is None else self.reference, batch)

    def _ratios(self, batch: Batch, theirs: Tensor) -> Tensor:
        """[N, T] float32, 0 where the mask is False."""
        check_tokens("online_implicit_reward", self.model, batch)
        ratios = preferences.token_logratios(_logprobs(self.model, batch), theirs, batch.seq.mask)
        if not bool(ratios.isfinite().all()):
            raise RunError(
                "online_implicit_reward: its log-probs are not finite. Lower `optimizer.lr`, or clip the gradient."
            )
        return ratios

    def _stream(self, batch: Batch, ratios: Tensor) -> dict[str, Stream]:
        values, mask = self.beta * ratios, batch.seq.mask
        if self.per == "step":
            assert self.splitter is not None
            steps = steps_of(batch, self.splitter)
            values = on_last_tokens(over_steps(values, steps), steps)
        elif self.per == "whole":
            last = last_tokens(mask)[:, None]
            values = torch.zeros_like(values).scatter(1, last, values.sum(dim=1, keepdim=True))
        values = smoothed(values, mask, self.smoothing, batch.outcome if self.true_total else None)
        if self.normalize == "batch":
            values = unit_returns(values, mask)
        values = values * min(1.0, (batch.step + 1) / (self.warmup + 1))
        return {"online_implicit_reward": Stream(values=values)}

    def _learn(self, batch: Batch, theirs: Tensor, scores: Tensor, rng: Rng) -> Metrics:
        """Passes over the rows that train and whose outcome is known, in mini-batches cut between groups."""
        known = batch.train & ~batch.outcome.isnan()
        columns = loss_columns(self.loss, batch, theirs, scores)
        loss = ImplicitLoss(self.loss, self.beta)
        groups, plan = batch.seq.group[known].unique(), self.optimizer
        norms, tokens = list[float](), 0
        for epoch in range(plan.epochs):
            order = torch.from_numpy(rng.child("epoch", epoch).numpy().permutation(len(groups)))
            for chunk in groups[order].tensor_split(min(plan.minibatches, max(len(groups), 1))):
                rows = (torch.isin(batch.seq.group, chunk) & known).nonzero().squeeze(1)
                part = {name: column[rows] for name, column in columns.items()}
                if loss.divide(part):  # else a gradient of zero would still move weights, by momentum and decay
                    seq = batch.seq.take(rows)
                    norms.append(self.model.step(seq, part, loss)["policy/grad_norm"])
                    tokens += int(seq.mask.sum())
        mean = sum(norms) / len(norms) if norms else 0.0
        return {"steps": float(len(norms)), "grad_norm": mean, "tokens": float(tokens)}

    def _judged(self, batch: Batch, ratios: Tensor) -> Metrics:
        """Loss and rankings of rewards the model has not been fitted to."""
        known = ~batch.outcome.isnan()
        scores, outcome, group = (self.beta * ratios.sum(dim=1))[known], batch.outcome[known], batch.seq.group[known]
        if not len(outcome):
            return {"loss": math.nan, "accuracy": math.nan, "dpo_acc": math.nan}
        ahead = scores[:, None] - scores
        pairs = (group[:, None] == group) & (outcome[:, None] > outcome)
        right = (ahead > 0).double() + (ahead == 0).double() / 2
        return {
            "loss": float(preferences.outcome_ce(scores, outcome).mean()),
            "accuracy": float(right[pairs].mean()),
            "dpo_acc": float(ranked_share(scores, outcome, group).mean()),
        }

    def _magnitude(self, batch: Batch, values: Tensor) -> Metrics:
        mask, known = batch.seq.mask, ~batch.outcome.isnan()
        process, outcome = returns_to_go(values, mask)[mask].abs().mean(), batch.outcome[known].abs().mean()
        return {"ratio": float(process / outcome) if outcome > 0 else math.nan}

    def _error(self, says: str) -> InputError:
        return InputError(f"online_implicit_reward: {says}")


def _logprobs(model: Scorer, batch: Batch) -> Tensor:
    logprobs = model.outputs(batch.seq).logprobs
    assert logprobs is not None
    return logprobs.to(batch.seq.mask.device)
