"""How much of what a response earned each of its tokens is credited with: streams in, `Credit` out.

Every estimator here takes a response's total reward to find its baseline and credits each token with what the response
earns from that token on, less the baseline. They differ in the baseline alone, and that is in `reckon.advantages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from reckon import advantages
from reckon.errors import InputError
from reckon.types import Batch, Credit, Kind, Metrics, State, Stream


@dataclass(frozen=True, kw_only=True)
class GroupNormalized:
    """Credits the distance from the group's mean in the group's standard deviations (GRPO).

    `std=False` leaves the distance as it is (Dr. GRPO). Groups of equal totals, and responses without a known
    sibling, are credited with 0. With rewards for single tokens prefer `std=False`: the deviation is that of totals,
    and where totals nearly agree it blows up what differs inside a response.
    """

    std: bool = True
    eps: float = 1e-6  # added to the standard deviation

    def __post_init__(self) -> None:
        if not 0 <= self.eps < float("inf"):
            raise InputError(f"group_normalized: eps is {self.eps}; it must be at least 0 and finite")

    def __call__(self, batch: Batch, streams: Mapping[str, Stream]) -> Credit:
        """Credit for every token of the batch."""
        earned = earnings(batch, streams)
        credited = advantages.group_normalized(
            earned.totals, batch.seq.group, std=self.std, eps=self.eps, returns=earned.returns
        )
        return spread(batch, streams, credited)


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """Credits the distance from the mean of the other responses to the same prompt (RLOO).

    A response without a known sibling has no baseline and is credited with 0.
    """

    def __call__(self, batch: Batch, streams: Mapping[str, Stream]) -> Credit:
        """Credit for every token of the batch."""
        earned = earnings(batch, streams)
        credited = advantages.leave_one_out(earned.totals, batch.seq.group, returns=earned.returns)
        return spread(batch, streams, credited)


@dataclass(frozen=True, kw_only=True)
class BatchMean:
    """Credits the distance from the mean of the whole batch, whatever the prompt (REINFORCE)."""

    def __call__(self, batch: Batch, streams: Mapping[str, Stream]) -> Credit:
        """Credit for every token of the batch."""
        earned = earnings(batch, streams)
        return spread(batch, streams, advantages.batch_mean(earned.totals, returns=earned.returns))


@dataclass(kw_only=True)
class RunningMean:
    """Credits the distance from the mean of earlier batches: a baseline that does not depend on the batch (REINFORCE).

    The baseline is the exponentially weighted mean of the earlier batches' mean totals, with weights that sum to 1
    however few they are; the batch at hand joins it afterwards, once for each call. The first batch has no earlier
    one and takes its own mean. A batch in which nothing is known leaves the mean as it was.
    """

    decay: float = 0.9  # weight of the past; 0 = the last batch alone

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise InputError(f"running_mean: decay is {self.decay}; it must be at least 0 and less than 1")
        self._total = 0.0
        self._weight = 0.0

    def __call__(self, batch: Batch, streams: Mapping[str, Stream]) -> Credit:
        """Credit for every token of the batch; remembers its mean total."""
        earned = earnings(batch, streams)
        if earned.totals.isnan().all():
            return spread(batch, streams, earned.returns)
        mean = earned.totals.nanmean().item()
        baseline = self._total / self._weight if self._weight > 0 else mean
        self._total, self._weight = advantages.running_mean(self._total, self._weight, mean, decay=self.decay)
        return spread(batch, streams, earned.returns - baseline)

    def state_dict(self) -> State:
        """The running total and its weight."""
        return {"total": self._total, "weight": self._weight}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        total, weight = state["total"], state["weight"]
        if not isinstance(total, float) or not isinstance(weight, float):
            raise InputError("running_mean: the saved state must hold two numbers, total and weight")
        self._total, self._weight = total, weight


class Earnings(NamedTuple):
    """What responses and tokens earned, summed over the reward streams that train."""

    totals: Tensor  # [N] float32, NaN = unknown
    returns: Tensor  # [N, T] float32: the rewards of the response, and those of this token and the ones after it


def earnings(batch: Batch, streams: Mapping[str, Stream]) -> Earnings:
    """Sums the reward streams that train; see `reckon.advantages.sum_known` for what NaN does.

    A token whose own reward is NaN earns nothing there; a response has no value in an [N, T] stream when all its
    tokens are NaN. Without any reward stream everybody earns 0, so that streams of kind "advantage" can teach alone.

    Raises:
        InputError: no stream trains; a stream is infinite or of another size than the batch.
    """
    rewards = _select(batch, streams, "reward")
    if not rewards and not _select(batch, streams, "advantage"):
        raise InputError(
            f"no reward to learn from: of the streams {sorted(streams)} none is a reward or an advantage that trains. "
            "Give the policy at least one with train=True."
        )
    mask = batch.seq.mask
    tokens = torch.zeros(mask.shape, device=mask.device)
    responses = tokens.new_zeros(len(mask))
    rows = [responses]
    for values in rewards:
        if values.ndim == 1:
            rows.append(values)
            responses = responses + values.nan_to_num(nan=0.0)
        else:
            rows.append(advantages.sum_tokens(values, mask))
            tokens = tokens + values.nan_to_num(nan=0.0)
    totals = advantages.sum_known(torch.stack(rows[1:] or rows), batch.seq.group)
    returns = responses[:, None] + advantages.returns_to_go(tokens, mask)
    return Earnings(totals, torch.where(totals.isnan()[:, None], torch.nan, returns))


def spread(batch: Batch, streams: Mapping[str, Stream], credited: Tensor) -> Credit:
    """Makes `Credit` of advantages: adds the advantage streams, multiplies the weight streams, masks.

    Args:
        batch: N responses of at most T tokens.
        streams: of kind "advantage" are added to their own tokens and of kind "weight" multiplied, if they train; where
            they are NaN they add nothing and weigh 1. [N] holds for every token of the response.
        credited: [N, T] float, what the rewards gave; a response whose credit is NaN is unknown and trains nothing.

    Returns:
        Credit whose mask is True on the sampled tokens of the known responses that train.

    Raises:
        InputError: a stream is infinite or of another size than the batch.
    """
    known = ~credited.isnan().any(dim=1)
    mask = batch.seq.mask & (batch.train & known)[:, None]
    total = credited
    for values in _select(batch, streams, "advantage"):
        total = total + _per_token(values, mask).nan_to_num(nan=0.0)
    weights = torch.ones_like(credited)
    for values in _select(batch, streams, "weight"):
        weights = weights * _per_token(values, mask).nan_to_num(nan=1.0)
    return Credit(
        advantages=torch.where(mask, total, 0.0),
        weights=torch.where(mask, weights, 1.0),
        mask=mask,
    )


def credit_metrics(credit: Credit, batch: Batch) -> Metrics:
    """Whether there is anything to learn from.

    Returns:
        "advantage/zero_groups": share of groups in which no token's advantage differs from 0, those without any token
        that trains included; "advantage/mean_abs": mean size of the advantages of the tokens that train, left out if
        none do.
    """
    teaches = torch.zeros(len(batch.seq.prompts), dtype=torch.int64, device=credit.mask.device)
    teaches.index_add_(0, batch.seq.group, (credit.advantages != 0).any(dim=1).long())
    metrics = {"advantage/zero_groups": (teaches == 0).float().mean().item()}
    if credit.mask.any():
        metrics["advantage/mean_abs"] = credit.advantages[credit.mask].abs().mean().item()
    return metrics


def _select(batch: Batch, streams: Mapping[str, Stream], kind: Kind) -> list[Tensor]:
    """The values of the streams of a kind that train, float32 and checked."""
    mask = batch.seq.mask
    chosen = []
    for name, stream in streams.items():
        if stream.kind != kind or not stream.train:
            continue
        if stream.values.shape != mask.shape[: stream.values.ndim]:
            raise InputError(
                f"stream {name!r} is of shape {tuple(stream.values.shape)}, but the batch has {mask.shape[0]} "
                f"responses of {mask.shape[1]} tokens. Return one number for each response, or one for each token."
            )
        values = stream.values.to(mask.device, torch.float32)
        if values.ndim == 2:
            values = torch.where(mask, values, 0.0)
        infinite = values.isinf().nonzero()
        if len(infinite):
            row = int(infinite[0, 0])
            raise InputError(
                f"stream {name!r} is infinite in row {row}. Bound it, or return NaN where it has no value."
            )
        chosen.append(values)
    return chosen


def _per_token(values: Tensor, mask: Tensor) -> Tensor:
    return values[:, None].expand(mask.shape) if values.ndim == 1 else values
