"""Rewards read off the verdict or the sampled log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from reckon.errors import InputError, RunError
from reckon.types import Batch, Metrics, Model, Rng, State, Stream

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_ERROR = 0.2  # of the controller, either way (Ziegler et al. 2019)


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """The verifier's verdict as a reward: `right` for an outcome of 1, `wrong` for 0, between them in proportion.

    An unknown verdict stays unknown (NaN). `right=1, wrong=-1` gives the other scale in use.
    """

    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        if not math.inf > self.right > self.wrong > -math.inf:
            raise InputError(
                f"verifier: `right` ({self.right}) must be larger than `wrong` ({self.wrong}), and both finite."
            )

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N]."""
        return {"verifier": Stream(values=self.wrong + (self.right - self.wrong) * batch.outcome)}


@dataclass(frozen=True, kw_only=True)
class KLReward:
    """Charges every token for its distance from a reference model: -coef (log pi(token) - log ref(token)).

    This is the k1 estimate, in the reward: summed over a response it is an unbiased estimate of -coef KL(pi || ref),
    and its gradient reaches the policy through the credit (Ziegler et al. 2019, arXiv:1909.08593, eq. 2). Both models
    score the tokens anew: beside the sampler's own log-probs, rounding alone would make equal models differ.

    A token that has become less likely is paid for it. `clamp` pays nothing for those, so that what is charged is no
    longer an estimate of the divergence but more than it.
    """

    policy: Model  # both at the temperature of sampling
    reference: Model
    coef: float = 0.05
    clamp: bool = False  # a token's distance counts as 0 where it is below

    def __post_init__(self) -> None:
        if not 0 <= self.coef < float("inf"):
            raise InputError(f"kl_reward: `coef` is {self.coef}; it must be 0 or larger, and finite.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T], 0 where the mask is False."""
        distance = _distance("KLReward", self.policy, self.reference, batch)
        return {"kl_reward": _charge(distance, self.coef, batch, clamp=self.clamp)}


@dataclass(kw_only=True)
class AdaptiveKLReward:
    """As `kl_reward`, with a coefficient that follows a wanted divergence (Ziegler et al. 2019, arXiv:1909.08593, 2.2).

    After each step coef *= 1 + e n / horizon for n responses, where e = KL / target - 1, held between -0.2 and 0.2, and
    KL is the mean over responses of the summed distances. The paper's constant 0.1 is n / horizon. The batch at hand is
    charged with the coefficient found before it.
    """

    policy: Model  # both at the temperature of sampling
    reference: Model
    target: float  # nats a response
    coef: float = 0.05  # at first; above 0, for it is only ever multiplied
    horizon: int = 10_000  # responses in which an error of 0.2 changes the coefficient by about a fifth
    clamp: bool = False  # a token's distance counts as 0 where it is below, in the reward; the controller sees it

    def __post_init__(self) -> None:
        for name in ("target", "coef"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(
                    f"adaptive_kl_reward: `{name}` is {getattr(self, name)}; it must be above 0, and finite."
                )
        if self.horizon < 1:
            raise InputError(f"adaptive_kl_reward: `horizon` is {self.horizon}; it must be 1 or more.")
        self._coef = float(self.coef)  # as `load_state_dict` wants it
        self._metrics: Metrics = {}

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N, T], 0 where the mask is False, at the present coefficient. Pure."""
        return {"adaptive_kl_reward": self._charged(self._distance(batch), batch)}

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`; then the coefficient follows the batch's divergence."""
        distance = self._distance(batch)
        charged = self._charged(distance, batch)
        found = torch.where(batch.seq.mask, distance, 0.0).sum(dim=1).mean().item()
        self._metrics = {"coef": self._coef, "kl": found}
        error = min(max(found / self.target - 1, -LARGEST_ERROR), LARGEST_ERROR)
        self._coef *= max(0.0, 1 + error * len(distance) / self.horizon)
        return {"adaptive_kl_reward": charged}

    def metrics(self) -> Metrics:
        """`coef`, which the last batch was charged with, and `kl`, its mean divergence in nats a response."""
        return dict(self._metrics)

    def state_dict(self) -> State:
        """The coefficient."""
        return {"coef": self._coef}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        coef = state["coef"]
        if not isinstance(coef, float):
            raise InputError("adaptive_kl_reward: the saved state must hold the coefficient, a number")
        self._coef = coef

    def _distance(self, batch: Batch) -> Tensor:
        return _distance("AdaptiveKLReward", self.policy, self.reference, batch)

    def _charged(self, distance: Tensor, batch: Batch) -> Stream:
        return _charge(distance, self._coef, batch, clamp=self.clamp)


def _distance(who: str, policy: Model, reference: Model, batch: Batch) -> Tensor:
    """[N, T] float32: log pi - log ref of each token; anything where the mask is False.

    Raises:
        RunError: one is not finite. As a reward it would be an unknown one, and so no charge at all.
    """
    logprobs, ref_logprobs = (model.outputs(batch.seq).logprobs for model in (policy, reference))
    if logprobs is None or ref_logprobs is None:
        raise ValueError(f"{who}: a model was asked for logprobs and gave none")
    distance = logprobs - ref_logprobs.to(logprobs.device)
    if not distance[batch.seq.mask].isfinite().all():
        raise RunError(
            f"{who}: the log-probs of the policy or the reference are not finite. Lower `optimizer.lr`, or clip the "
            "gradient."
        )
    return distance


def _charge(distance: Tensor, coef: float, batch: Batch, *, clamp: bool) -> Stream:
    values = -coef * (distance.clamp(min=0.0) if clamp else distance)
    return Stream(values=torch.where(batch.seq.mask, values, 0.0))
