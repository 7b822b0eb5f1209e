"""What an implicit reward learns from online: outcomes of responses, pairs of a group, or a group's own scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch.nn.functional import logsigmoid

from reckon import preferences
from reckon.process import best_of_group_weights, opponent_rewards
from reckon.types import Batch, Columns, Outputs

if TYPE_CHECKING:
    from torch import Tensor

OnlineLoss: TypeAlias = Literal["ce", "dpo", "group_dpo", "bon_rm", "bon_acc"]
GROUP_LOSSES = ("group_dpo", "bon_rm", "bon_acc")


def loss_columns(kind: OnlineLoss, batch: Batch, ref_logprobs: Tensor, scores: Tensor) -> dict[str, Tensor]:
    """All that the loss needs of a batch beside the model's outputs.

    Args:
        kind: which loss.
        batch: N responses, some with unknown outcomes.
        ref_logprobs: [N, T] float32.
        scores: [N] float32, beta times the responses' log-ratios, before anything is learned.

    Returns:
        Columns [N] and [N, T]; "share" is each row's weight before `ImplicitLoss.divide`.
    """
    outcome, group = batch.outcome, batch.seq.group
    columns = {
        "mask": batch.seq.mask,
        "ref_logprobs": ref_logprobs,
        "outcome": outcome,
        "group": group,
        "share": torch.ones_like(outcome),
    }
    if kind in GROUP_LOSSES:
        columns["opponent"] = opponent_rewards(scores, outcome, group)
        if kind != "group_dpo":
            ranked = torch.where(outcome.isnan(), torch.nan, scores) if kind == "bon_rm" else outcome
            columns["share"] = best_of_group_weights(ranked, group)
    return columns


@dataclass(frozen=True)
class ImplicitLoss:
    """The loss of rows with known outcomes, divided by `divide`.

    "ce" and "group_dpo" are means over responses, "dpo" over pairs; "bon_rm" and "bon_acc" are sums, as in the port.
    """

    kind: OnlineLoss
    beta: float

    @property
    def whole_groups(self) -> bool:
        """Whether no micro-batch may cut a group."""
        return self.kind == "dpo"

    def divide(self, columns: dict[str, Tensor]) -> bool:
        """Makes shares of a mini-batch's weights; False where it has nothing to learn from."""
        count = len(columns["outcome"])
        if self.kind == "dpo":
            count = int(_pairs(columns).sum())
        if self.kind not in ("bon_rm", "bon_acc"):
            columns["share"] = columns["share"] / max(count, 1)
        return count > 0

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n], or [P] for the pairs of "dpo"."""
        assert outputs.logprobs is not None
        ratio = preferences.response_logratio(outputs.logprobs, columns["ref_logprobs"], columns["mask"])
        outcome, share = columns["outcome"], columns["share"]
        if self.kind == "ce":
            return preferences.outcome_ce(self.beta * ratio, outcome) * share
        if self.kind == "dpo":
            won, lost = _pairs(columns).nonzero(as_tuple=True)
            return preferences.dpo(ratio[won], ratio[lost], self.beta) * share[won]
        sign = torch.where(outcome > 0, 1.0, -1.0)
        return -logsigmoid(sign * (self.beta * ratio - columns["opponent"])) * share


def _pairs(columns: Columns) -> Tensor:
    """[n, n] bool: the first is better than the second, and of the same group."""
    outcome, group = columns["outcome"], columns["group"]
    return (group[:, None] == group) & (outcome[:, None] > outcome)
