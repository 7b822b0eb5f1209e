"""How much each token of a response counts, by a model that learns online which responses are right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import torch

from reckon import preferences
from reckon.advantages import mixed, sides, token_means
from reckon.errors import InputError, RunError
from reckon.models import Optimization
from reckon.process import Prefix, outcome_weights
from reckon.rewards._judges_reading import check_tokens
from reckon.types import Batch, Columns, Credit, Metrics, Outputs, Policy, Rng, State, Stream, Want

if TYPE_CHECKING:
    from torch import Tensor

Position = Literal["before", "after"]


class HasHeadedTwin(Protocol):
    """A policy that can give a second model with a head of its own to learn by itself, as language models do."""

    def twin(self, optimizer: Optimization, *, value_head: bool = False) -> Policy:
        """A second model, equal now, that learns as `optimizer` says; its head says 0 everywhere."""
        ...


@dataclass
class TokenOutcomeModel:
    """Weighs tokens by a model that learns at every step which responses are right (OREAL, arXiv:2502.06781).

    The model gives every token a logit. Their mean over a response is trained to tell right from wrong, one
    cross-entropy for a response and no label for any token; what the logits say along the way weighs the tokens
    (`reckon.process.outcome_weights`): in a right response those after which it looks right, in a wrong one those after
    which it looks wrong. It begins as the policy with a head that says 0, by which every weight is 0 too: let the
    policy wait for it (`warmup` of `reckon.credit.Reshaped`).

    Weights are taken before the model learns from the same rows. It reads and learns from the rows that train, of
    groups with a right and a wrong one; all others have no weight (NaN). Where these are not balanced, as one right and
    one wrong of each group are (`one_pair`), it learns to call everything wrong, and right responses count nothing:
    `balanced` gives both sides half of its loss.
    """

    policy: HasHeadedTwin  # what the model begins as, when it is first needed
    _: KW_ONLY
    optimizer: Optimization = field(default_factory=lambda: Optimization(lr=2e-6, weight_decay=0.01))
    how: Prefix = "mean"  # mean of the logits so far, the token's own, or the largest means of a response
    position: Position = "before"  # the logit is read where the token is predicted, or after the token
    threshold: float = 0.5  # the least chance that weighs anything, in [0, 1); not with "top"
    top: float = 0.5  # share of the tokens that "top" weighs, in (0, 1]
    balanced: bool = False

    def __post_init__(self) -> None:
        for name, choice, choices in (
            ("how", self.how, get_args(Prefix)),
            ("position", self.position, get_args(Position)),
        ):
            if choice not in choices:
                raise self._error(f"`{name}` is {choice!r}; it must be one of {', '.join(choices)}.")
        if not 0 <= self.threshold < 1:
            raise self._error(f"`threshold` is {self.threshold}; it must be at least 0 and below 1.")
        if not 0 < self.top <= 1:
            raise self._error(f"`top` is {self.top}; it must be above 0 and at most 1.")
        unread = "threshold" if self.how == "top" else "top"
        if getattr(self, unread) != 0.5:
            raise self._error(f"`{unread}` is not read with how={self.how!r}. Leave it out.")
        self._told: Metrics = {}

    @cached_property
    def model(self) -> Policy:
        """What learns. Begins as the policy is when it is first asked for: at the latest by the first step."""
        return self.policy.twin(self.optimizer, value_head=True)

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T] of weights in [0, 1], which depend on the batch's outcomes. Pure."""
        return self._stream(batch, self._logits(batch))

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step; then the model learns from the batch.

        Raises:
            InputError: the responses are in the tokens of another tokenizer.
            RunError: the model's logits are not finite.
        """
        logits = self._logits(batch)
        streams = self._stream(batch, logits)
        self._told = self._judged(batch, logits, streams["token_outcome_model"].values) | self._learn(batch, rng)
        return streams

    def metrics(self) -> Metrics:
        """How the last `assess` went.

        "loss" (cross-entropy of a response) and "accuracy" as the model was before it learned from these rows; "right"
        and "wrong", the mean weight of a token of the right and of the wrong responses: where both are near 0, the
        policy learns nothing; "steps" and "grad_norm" of the learning; "tokens", those it learned from.
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

    def _logits(self, batch: Batch) -> Tensor:
        """[N, T] float32, NaN in rows that are not read."""
        rows = _read(batch).nonzero().squeeze(1)
        found = torch.full(batch.seq.mask.shape, torch.nan, device=batch.seq.mask.device)
        if not len(rows):
            return found
        check_tokens("token_outcome_model", self.model, batch)
        logits = _logits(self.model.outputs(batch.seq.take(rows), _want(self.position)), self.position)
        if not bool(logits[batch.seq.mask[rows]].isfinite().all()):
            raise RunError(
                "token_outcome_model: its logits are not finite. Lower `optimizer.lr`, or clip the gradient."
            )
        found[rows] = logits.to(found.device)
        return found

    def _stream(self, batch: Batch, logits: Tensor) -> dict[str, Stream]:
        right, _ = sides(batch.outcome)
        weights = outcome_weights(logits, batch.seq.mask, right, how=self.how, threshold=self.threshold, top=self.top)
        weights = torch.where(_read(batch)[:, None], weights, torch.nan)
        return {"token_outcome_model": Stream(values=weights, kind="weight")}

    def _judged(self, batch: Batch, logits: Tensor, weights: Tensor) -> Metrics:
        rows, mask = _read(batch), batch.seq.mask
        right, outcome = sides(batch.outcome)[0][rows], batch.outcome[rows]
        mean = token_means(logits[rows], mask[rows])
        agree = torch.where(right, mean > 0, mean < 0).double() + (mean == 0).double() / 2
        return {
            "loss": float(preferences.outcome_ce(mean, outcome).mean()) if len(mean) else math.nan,
            "accuracy": float(agree.mean()),
            "right": float(weights[rows][right][mask[rows][right]].mean()),
            "wrong": float(weights[rows][~right][mask[rows][~right]].mean()),
        }

    def _learn(self, batch: Batch, rng: Rng) -> Metrics:
        """One or more steps on the rows that are read, as the optimizer is set to."""
        mask = batch.seq.mask & _read(batch)[:, None]
        if not mask.any():  # a gradient of zero would still move weights, by momentum and decay
            return {"steps": 0.0, "grad_norm": 0.0, "tokens": 0.0}
        ones = torch.ones(mask.shape, device=mask.device)
        credit = Credit(advantages=torch.zeros_like(ones), weights=ones, mask=mask)
        found = self.model.update(_OutcomeOfMean(self.position, self.balanced), batch, credit, rng)
        return {
            "steps": found["policy/steps"],
            "grad_norm": found["policy/grad_norm"],
            "tokens": found["tokens/trained"],
        }

    def _error(self, says: str) -> InputError:
        return InputError(f"token_outcome_model: {says}")


@dataclass(frozen=True)
class _OutcomeOfMean:
    """One cross-entropy for each response, between its outcome and the mean of its tokens' logits."""

    position: Position
    balanced: bool

    @property
    def want(self) -> tuple[Want, ...]:
        return _want(self.position)

    def prepare(self, batch: Batch, credit: Credit) -> Columns:
        """Outcomes, and each response's part of the mini-batch's mean, or of half of it by its side."""
        right, wrong = sides(batch.outcome)
        part = torch.full_like(batch.outcome, 1 / len(batch.outcome))
        if self.balanced and right.any() and wrong.any():
            part = torch.where(right, 0.5 / right.sum(), 0.5 / wrong.sum())
        return {"mask": credit.mask, "outcome": batch.outcome, "part": part}

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n]."""
        mean = token_means(_logits(outputs, self.position), columns["mask"])
        return preferences.outcome_ce(mean, columns["outcome"]) * columns["part"]


def _read(batch: Batch) -> Tensor:
    """[N] bool: rows that train, of groups in which a right and a wrong one do."""
    trained = batch.train & ~batch.outcome.isnan() & batch.seq.mask.any(dim=1)
    return trained & mixed(torch.where(trained, batch.outcome, torch.nan), batch.seq.group)


def _want(position: Position) -> tuple[Want, ...]:
    return ("values",) if position == "before" else ("scores",)


def _logits(outputs: Outputs, position: Position) -> Tensor:
    logits = outputs.values if position == "before" else outputs.scores
    assert logits is not None
    return logits
