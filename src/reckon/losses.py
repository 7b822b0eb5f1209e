"""What the policy's optimizer minimizes: parts made of `reckon.objectives`.

`prepare` sees a whole mini-batch and fixes the denominators, so that the losses of its micro-batches add up to the same
gradient however it is cut. A weight stream multiplies a token's loss and never its denominator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from reckon import advantages, objectives
from reckon.errors import InputError
from reckon.objectives import Average
from reckon.types import Batch, Columns, Credit, Model, Objective, Outputs, Sparse, State, Stateful, Want


@runtime_checkable
class Diagnosed(Protocol):
    """An objective that can say how it fares."""

    def diagnostics(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """Numbers ([]) without gradient that add up over micro-batches to the mini-batch's mean."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClippedRatio:
    """PPO's clipped surrogate, as GRPO, DAPO, Dr. GRPO and, with `level="sequence"`, GSPO use it."""

    low: float = 0.2  # the ratio may fall to 1 - low
    high: float = 0.2  # and rise to 1 + high
    dual: float | None = None  # bound > 1 on the ratio of tokens with a negative advantage (dual clip)
    level: Literal["token", "sequence"] = "token"  # one ratio for each token, or for a response their geometric mean
    # What it is a ratio to: "rollout", the policy that sampled; "step", the policy as it is at each step, so that the
    # ratio is 1, nothing is clipped, and what is left is the policy gradient, off policy from the second step on.
    old: Literal["rollout", "step"] = "rollout"
    whiten: bool = False  # advantages to mean 0 and variance 1 over the tokens of the mini-batch
    average: Average = "sequences"
    length: int | None = None  # for average="constant": divides with the number of responses
    want: ClassVar[tuple[Want, ...]] = ("logprobs",)

    def __post_init__(self) -> None:
        if not 0 < self.low <= 1:
            raise InputError(f"clipped_ratio: low is {self.low}; it must be above 0 and at most 1")
        if not 0 < self.high < math.inf:
            raise InputError(f"clipped_ratio: high is {self.high}; it must be above 0 and finite")
        if self.dual is not None and not 1 < self.dual < math.inf:
            raise InputError(f"clipped_ratio: dual is {self.dual}; it must be above 1 and finite, or left out")
        if self.level not in ("token", "sequence"):
            raise InputError(f"clipped_ratio: level is {self.level!r}; it must be 'token' or 'sequence'")
        if self.old not in ("rollout", "step"):
            raise InputError(f"clipped_ratio: old is {self.old!r}; it must be 'rollout' or 'step'")
        _check_average("clipped_ratio", self.average, self.length)

    def prepare(self, batch: Batch, credit: Credit) -> Columns:
        """Advantages, weights, scales and, unless the batch is on policy, the log-probs before the first step.

        Raises:
            InputError: the responses were drawn under top-k, top-p or min-p, or greedily, and `old` is "rollout".
        """
        if self.old == "step":
            return _policy_columns(credit, self.average, self.length, whiten=self.whiten)
        if batch.rollouts.truncated:
            raise InputError(
                "clipped_ratio compares with the probabilities that the sampler drew from, but sampling was truncated "
                "(top-k, top-p, min-p or greedy). Sample from the whole distribution, or use policy_gradient."
            )
        columns = _policy_columns(credit, self.average, self.length, whiten=self.whiten)
        if not batch.on_policy:
            columns["old_logprobs"] = torch.where(credit.mask, batch.rollouts.logprobs, 0.0)
        return columns

    def silent(self, batch: Batch, credit: Credit) -> Tensor:
        """[n] bool: rows without an advantage. Their loss is 0 whatever the policy says."""
        return _silent(_policy_columns(credit, self.average, self.length, whiten=self.whiten))

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T]: the loss of each token, weighted and scaled."""
        by_level = objectives.clipped_ratio if self.level == "token" else objectives.clipped_sequence_ratio
        loss = by_level(
            _logprobs(outputs),
            _old_logprobs(outputs, columns),
            columns["advantages"],
            columns["mask"],
            low=self.low,
            high=self.high,
            dual=self.dual,
        )
        return loss * columns["weights"] * columns["scale"]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """Means over tokens: `clip_fraction`, `ratio_mean`, and `kl_sampled`, KL(sampling || present policy) by k3."""
        logprobs, old, mask = _logprobs(outputs).detach(), _old_logprobs(outputs, columns), columns["mask"]
        by_level = objectives.token_ratio if self.level == "token" else objectives.sequence_ratio
        ratio = by_level(logprobs, old, mask)
        clipped = objectives.clip_active(ratio, columns["advantages"], low=self.low, high=self.high, dual=self.dual)
        return {
            "clip_fraction": _token_mean(clipped.float(), columns),
            "ratio_mean": _token_mean(ratio, columns),
            "kl_sampled": _token_mean(objectives.kl(old, logprobs, mask, "k3"), columns),
        }


@dataclass(frozen=True, kw_only=True)
class PolicyGradient:
    """REINFORCE: each token's log-prob times its advantage. Right only for the first step on a batch."""

    whiten: bool = False  # advantages to mean 0 and variance 1 over the tokens of the mini-batch
    average: Average = "sequences"
    length: int | None = None  # for average="constant": divides with the number of responses
    want: ClassVar[tuple[Want, ...]] = ("logprobs",)

    def __post_init__(self) -> None:
        _check_average("policy_gradient", self.average, self.length)

    def prepare(self, batch: Batch, credit: Credit) -> Columns:
        """Advantages, weights and scales."""
        return _policy_columns(credit, self.average, self.length, whiten=self.whiten)

    def silent(self, batch: Batch, credit: Credit) -> Tensor:
        """[n] bool: rows without an advantage. Their loss is 0 whatever the policy says."""
        return _silent(_policy_columns(credit, self.average, self.length, whiten=self.whiten))

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T]: the loss of each token, weighted and scaled."""
        loss = objectives.policy_gradient(_logprobs(outputs), columns["advantages"], columns["mask"])
        return loss * columns["weights"] * columns["scale"]


@dataclass(frozen=True, kw_only=True)
class ClonePositives:
    """Imitates right responses: minus their tokens' log-probs, times what each is credited with (OREAL, L1).

    Lyu et al. 2025, arXiv:2502.06781, where the credit is 1 in the paper and the advantage in the released code: see
    `reckon.credit.Reshaped`. Right is an outcome above 1/2. The loss is divided by the tokens of the right responses of
    the mini-batch that train, whatever their weights.
    """

    coef: float = 1.0
    want: ClassVar[tuple[Want, ...]] = ("logprobs",)

    def __post_init__(self) -> None:
        _check_coef("clone_positives", self.coef)

    def prepare(self, batch: Batch, credit: Credit) -> Columns:
        """Advantages, weights and scales, on the right responses alone."""
        return _side_columns(credit, advantages.sides(batch.outcome)[0], self.coef)

    def silent(self, batch: Batch, credit: Credit) -> Tensor:
        """[n] bool: rows that are not right, or without an advantage."""
        return _silent(_side_columns(credit, advantages.sides(batch.outcome)[0], self.coef))

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T]: the loss of each token, weighted and scaled."""
        loss = objectives.policy_gradient(_logprobs(outputs), columns["advantages"], columns["mask"])
        return loss * columns["weights"] * columns["scale"]


@dataclass(frozen=True, kw_only=True)
class WeightedNegatives:
    """Pushes wrong responses away: REINFORCE on what each of their tokens is charged with (OREAL, L2).

    Lyu et al. 2025, arXiv:2502.06781. Wrong is an outcome of at most 1/2. The loss is divided by the tokens of the
    wrong responses of the mini-batch that train, whatever their weights.
    """

    coef: float = 0.5
    want: ClassVar[tuple[Want, ...]] = ("logprobs",)

    def __post_init__(self) -> None:
        _check_coef("weighted_negatives", self.coef)

    def prepare(self, batch: Batch, credit: Credit) -> Columns:
        """Advantages, weights and scales, on the wrong responses alone."""
        return _side_columns(credit, advantages.sides(batch.outcome)[1], self.coef)

    def silent(self, batch: Batch, credit: Credit) -> Tensor:
        """[n] bool: rows that are not wrong, or without an advantage."""
        return _silent(_side_columns(credit, advantages.sides(batch.outcome)[1], self.coef))

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T]: the loss of each token, weighted and scaled."""
        loss = objectives.self_ratio(_logprobs(outputs), columns["advantages"], columns["mask"])
        return loss * columns["weights"] * columns["scale"]


@dataclass(frozen=True, kw_only=True)
class KLPenalty:
    """Holds the policy near a reference, on the tokens that train. `coef=0` only watches the distance.

    "k2" pulls along the gradient of KL(policy || reference), "k3" along that of KL(reference || policy); see
    `reckon.objectives.kl`.
    """

    reference: Model  # injected; scored without gradients, once for each mini-batch
    coef: float
    estimator: Literal["k2", "k3"] = "k3"
    average: Average = "sequences"
    length: int | None = None  # for average="constant": divides with the number of responses
    want: ClassVar[tuple[Want, ...]] = ("logprobs",)

    def __post_init__(self) -> None:
        _check_coef("kl_penalty", self.coef)
        if self.estimator not in ("k2", "k3"):
            raise InputError(
                f"kl_penalty: estimator is {self.estimator!r}; it must be 'k2' or 'k3'. (k1 as a loss pulls nowhere: "
                "on the policy's own samples its expected gradient is 0. It belongs in the reward.)"
            )
        _check_average("kl_penalty", self.average, self.length)

    def prepare(self, batch: Batch, credit: Credit) -> Columns:
        """The reference's log-probs and the scales."""
        ref_logprobs = _logprobs(self.reference.outputs(batch.seq))
        return _scale_columns(credit, self.average, self.length) | {
            "ref_logprobs": torch.where(credit.mask, ref_logprobs, 0.0)
        }

    def silent(self, batch: Batch, credit: Credit) -> Tensor:
        """[n] bool: every row if the coefficient is 0, otherwise none."""
        return _all_rows(credit, self.coef == 0)

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T]: the penalty of each token, scaled."""
        if self.coef == 0:  # not 0 times it: an infinite KL that is only watched must not spoil the loss
            return torch.zeros_like(columns["scale"])
        penalty = objectives.kl(_logprobs(outputs), columns["ref_logprobs"], columns["mask"], self.estimator)
        return self.coef * penalty * columns["scale"]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """`kl`: the mean over tokens, before the coefficient."""
        logprobs = _logprobs(outputs).detach()
        return {
            "kl": _token_mean(
                objectives.kl(logprobs, columns["ref_logprobs"], columns["mask"], self.estimator), columns
            )
        }


@dataclass(frozen=True, kw_only=True)
class EntropyBonus:
    """Rewards the policy for staying undecided at the tokens that train. `coef=0` only watches the entropy."""

    coef: float
    average: Average = "sequences"
    length: int | None = None  # for average="constant": divides with the number of responses
    want: ClassVar[tuple[Want, ...]] = ("entropy",)

    def __post_init__(self) -> None:
        _check_coef("entropy_bonus", self.coef)
        _check_average("entropy_bonus", self.average, self.length)

    def prepare(self, batch: Batch, credit: Credit) -> Columns:
        """The scales."""
        return _scale_columns(credit, self.average, self.length)

    def silent(self, batch: Batch, credit: Credit) -> Tensor:
        """[n] bool: every row if the coefficient is 0, otherwise none."""
        return _all_rows(credit, self.coef == 0)

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T]: minus the entropy at each token, scaled."""
        if self.coef == 0:
            return torch.zeros_like(columns["scale"])
        return -self.coef * torch.where(columns["mask"], _entropy(outputs), 0.0) * columns["scale"]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """`entropy`: the mean over tokens in nats, before the coefficient."""
        return {"entropy": _token_mean(torch.where(columns["mask"], _entropy(outputs).detach(), 0.0), columns)}


@dataclass(frozen=True, kw_only=True)
class ValueLoss:
    """Teaches a critic to predict the returns: half the squared error, clipped or not. `coef=0` only watches it.

    Beside a policy's loss it teaches a critic that shares the policy's weights; alone, with `coef` 1, it is what a
    critic of its own learns from (`reckon.credit.GAE`, `learn`).
    """

    clip: float | None = None  # how far a value may move, in units of the reward, before it is held back
    coef: float = 0.1
    average: Average = "tokens"
    length: int | None = None  # for average="constant": divides with the number of responses
    want: ClassVar[tuple[Want, ...]] = ("values",)

    def __post_init__(self) -> None:
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise InputError(f"value_loss: clip is {self.clip}; it must be above 0 and finite, or left out")
        _check_coef("value_loss", self.coef)
        _check_average("value_loss", self.average, self.length)

    def prepare(self, batch: Batch, credit: Credit) -> Columns:
        """Returns, scales and, with a clip, the values that the advantages were made with.

        Raises:
            InputError: the advantage part has no critic.
        """
        if credit.returns is None or credit.values is None:
            raise InputError(
                "value_loss teaches a critic, but the advantages were made without one, so there is nothing to "
                "predict. Take the advantage gae, or leave value_loss out."
            )
        columns = _scale_columns(credit, self.average, self.length)
        columns["returns"] = torch.where(credit.mask, credit.returns, 0.0)
        if self.clip is not None:
            columns["old_values"] = torch.where(credit.mask, credit.values, 0.0)
        return columns

    def silent(self, batch: Batch, credit: Credit) -> Tensor:
        """[n] bool: every row if the coefficient is 0, otherwise none."""
        return _all_rows(credit, self.coef == 0)

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T]: the error at each token, scaled."""
        if self.coef == 0:
            return torch.zeros_like(columns["scale"])
        return self.coef * self._error(_values(outputs), columns) * columns["scale"]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """Means over tokens: `value_error`, before the coefficient, and with a clip `value_clip_fraction`."""
        values = _values(outputs).detach()
        found = {"value_error": _token_mean(self._error(values, columns), columns)}
        if self.clip is not None:
            clipped = objectives.value_clip_active(
                values, columns["returns"], columns["mask"], columns["old_values"], self.clip
            )
            found["value_clip_fraction"] = _token_mean(clipped.float(), columns)
        return found

    def _error(self, values: Tensor, columns: Columns) -> Tensor:
        return objectives.value_error(
            values, columns["returns"], columns["mask"], old_values=columns.get("old_values"), clip=self.clip
        )


@dataclass(frozen=True)
class Objectives:
    """The sum of several objectives, each under a name.

    `Objectives({"policy": ClippedRatio(), "entropy": EntropyBonus(coef=0.001)})`
    """

    parts: Mapping[str, Objective]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("objectives: there is none to minimize. Name at least one.")
        for name in self.parts:
            if not name or "/" in name:
                raise InputError(f"objectives: {name!r} cannot be a name; use letters, digits and underscores")

    @property
    def want(self) -> tuple[Want, ...]:
        """All that any part wants, each once."""
        return tuple(dict.fromkeys(name for part in self.parts.values() for name in part.want))

    def prepare(self, batch: Batch, credit: Credit) -> Columns:
        """The columns of every part, as "part/column"."""
        return {
            f"{name}/{column}": values
            for name, part in self.parts.items()
            for column, values in part.prepare(batch, credit).items()
        }

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T] or [n]: the sum of the parts' losses; [n] if any part's is."""
        losses = [part(outputs, _columns_of(name, columns)) for name, part in self.parts.items()]
        if any(loss.ndim == 1 for loss in losses):
            losses = [loss if loss.ndim == 1 else loss.sum(dim=1) for loss in losses]
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total

    def silent(self, batch: Batch, credit: Credit) -> Tensor:
        """[n] bool: rows that are silent in every part; none if a part cannot tell."""
        silent = _all_rows(credit, True)
        for part in self.parts.values():
            if not isinstance(part, Sparse):
                return _all_rows(credit, False)
            silent &= part.silent(batch, credit)
        return silent

    def diagnostics(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """What every part reports; a name that an earlier part has used is preceded by its part's, as "part/name"."""
        found: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            if isinstance(part, Diagnosed):
                for key, value in part.diagnostics(outputs, _columns_of(name, columns)).items():
                    found[f"{name}/{key}" if key in found else key] = value
        return found

    def state_dict(self) -> State:
        """The state of every part that has one."""
        return {name: part.state_dict() for name, part in self.parts.items() if isinstance(part, Stateful)}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        for name, part in self.parts.items():
            if isinstance(part, Stateful):
                saved = state[name]
                if not isinstance(saved, Mapping):
                    raise InputError(f"objectives: the saved state of {name!r} is not one")
                part.load_state_dict(saved)


def _policy_columns(credit: Credit, average: Average, length: int | None, *, whiten: bool) -> dict[str, Tensor]:
    credited = advantages.whiten(credit.advantages, credit.mask) if whiten else credit.advantages
    return _scale_columns(credit, average, length) | {
        "advantages": torch.where(credit.mask, credited, 0.0),
        "weights": torch.where(credit.mask, credit.weights, 1.0),
    }


def _side_columns(credit: Credit, side: Tensor, coef: float) -> dict[str, Tensor]:
    """Columns of the rows of one side, whose tokens alone are counted."""
    own = replace(credit, mask=credit.mask & side[:, None], advantages=coef * credit.advantages)
    return _policy_columns(own, "tokens", None, whiten=False)


def _all_rows(credit: Credit, value: bool) -> Tensor:
    """[n] bool: the same of every row."""
    return torch.full(credit.mask.shape[:1], value, device=credit.mask.device)


def _silent(columns: Columns) -> Tensor:
    """[n] bool: rows all of whose tokens have advantage or weight 0."""
    return (columns["advantages"] * columns["weights"] == 0).all(dim=1)


def _scale_columns(credit: Credit, average: Average, length: int | None) -> dict[str, Tensor]:
    """The mask, a token's scale in the loss, and one over the mini-batch's tokens for what is reported."""
    tokens = credit.mask.sum().clamp(min=1)
    return {
        "mask": credit.mask,
        "scale": objectives.token_scale(credit.mask, average, length),
        "share": torch.ones(len(credit.mask), device=credit.mask.device) / tokens,
    }


def _token_mean(values: Tensor, columns: Columns) -> Tensor:
    return (torch.where(columns["mask"], values, 0.0) * columns["share"][:, None]).sum()


def _columns_of(name: str, columns: Columns) -> Columns:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): values for key, values in columns.items() if key.startswith(prefix)}


def _logprobs(outputs: Outputs) -> Tensor:
    if outputs.logprobs is None:
        raise InputError("the model gave no logprobs, though the objective wants them")
    return outputs.logprobs


def _old_logprobs(outputs: Outputs, columns: Columns) -> Tensor:
    """Those of the column; without one the policy is still the one that sampled, and they are its own."""
    return columns["old_logprobs"] if "old_logprobs" in columns else _logprobs(outputs).detach()


def _entropy(outputs: Outputs) -> Tensor:
    if outputs.entropy is None:
        raise InputError("the model gave no entropy, though the objective wants it")
    return outputs.entropy


def _values(outputs: Outputs) -> Tensor:
    if outputs.values is None:
        raise InputError("the model gave no values, though the objective wants them")
    return outputs.values


def _check_coef(part: str, coef: float) -> None:
    if not 0 <= coef < math.inf:
        raise InputError(f"{part}: coef is {coef}; it must be at least 0 and finite")


def _check_average(part: str, average: str, length: int | None) -> None:
    if average not in get_args(Average):
        raise InputError(f"{part}: average is {average!r}; it must be 'tokens', 'sequences' or 'constant'")
    if average == "constant" and (length is None or length < 1):
        raise InputError(
            f"{part}: average='constant' needs length, at least 1: the tokens to divide by, as the limit is"
        )
    if average != "constant" and length is not None:
        raise InputError(f"{part}: length is used by average='constant' alone. Leave it out with average={average!r}.")
