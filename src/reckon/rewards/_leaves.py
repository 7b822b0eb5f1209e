"""Rewards read off the verdict or the sampled log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from reckon.errors import InputError
from reckon.types import Batch, Model, Stream


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """The verifier's verdict as a reward: `right` for an outcome of 1, `wrong` for 0, between them in proportion.

    An unknown verdict stays unknown (NaN). `right=1, wrong=-1` gives the other scale in use.
    """

    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        if not self.right > self.wrong:
            raise InputError(f"verifier: `right` ({self.right}) must be larger than `wrong` ({self.wrong}).")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N]."""
        return {"verifier": Stream(values=self.wrong + (self.right - self.wrong) * batch.outcome)}


@dataclass(frozen=True, kw_only=True)
class KLReward:
    """Charges every token for its distance from a reference model: -coef (log pi(token) - log ref(token)).

    This is the k1 estimate, in the reward: summed over a response it is an unbiased estimate of -coef KL(pi || ref),
    and its gradient reaches the policy through the credit (Ziegler et al. 2019, arXiv:1909.08593, eq. 2). Both models
    score the tokens anew: beside the sampler's own log-probs, rounding alone would make equal models differ.
    """

    policy: Model  # both at the temperature of sampling
    reference: Model
    coef: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.coef < float("inf"):
            raise InputError(f"kl_reward: `coef` is {self.coef}; it must be 0 or larger, and finite.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T], 0 where the mask is False."""
        logprobs, ref_logprobs = (model.outputs(batch.seq).logprobs for model in (self.policy, self.reference))
        if logprobs is None or ref_logprobs is None:
            raise ValueError("KLReward: a model was asked for logprobs and gave none")
        values = -self.coef * (logprobs - ref_logprobs.to(logprobs.device))
        return {"kl_reward": Stream(values=torch.where(batch.seq.mask, values, 0.0))}
