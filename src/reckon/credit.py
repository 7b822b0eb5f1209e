"""How much of what a response earned each of its tokens is credited with: streams in, `Credit` out.

Most estimators here take a response's total reward to find its baseline and credit each token with what the response
earns from that token on, less the baseline. They differ in the baseline alone, and that is in `reckon.advantages`.
`GAE` asks a critic instead, at every token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from reckon import advantages
from reckon.errors import InputError
from reckon.types import Batch, Credit, Kind, Metrics, Objective, Policy, State, Stream


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


@dataclass(frozen=True, kw_only=True)
class Streamwise:
    """Credits each reward stream by itself and adds the results up (PRIME, arXiv:2502.01456).

    The other estimators add rewards first. Here an outcome is compared with outcomes and a token's reward with rewards
    of tokens, so that a dense reward has a baseline at every token, and a weight and a discount of its own.

    "rloo": against the siblings; for tokens in the paper's form or that of its code (`advantages.token_leave_one_out`).
    "grpo": against the group's mean, over its deviation with `std` (responses) and `token_std` (tokens). "reinforce":
    no baseline. "value": tokens' rewards are no rewards but differences of a value, and what the tokens before have
    earned is the baseline.

    A stream of weight 0 is as if it were not there. Weights multiply after normalization; those of `Sum`, before it,
    have no say where a deviation is divided by.
    """

    estimator: Literal["rloo", "grpo", "reinforce", "value"] = "rloo"
    form: advantages.Form = "paper"
    weights: Mapping[str, float] = field(default_factory=dict)  # by stream; 1 where none is given
    gammas: Mapping[str, float] = field(default_factory=dict)  # discounts, by stream of tokens; 1 where none is given
    std: bool = True
    token_std: bool = False
    eps: float = 1e-6  # added to both deviations
    whiten: bool = False  # to mean 0 and variance 1 over the batch's tokens, before advantage streams are added

    def __post_init__(self) -> None:
        if self.estimator not in ("rloo", "grpo", "reinforce", "value"):
            raise InputError(
                f"streamwise: estimator is {self.estimator!r}; it must be 'rloo', 'grpo', 'reinforce' or 'value'"
            )
        if self.form not in ("paper", "code"):
            raise InputError(f"streamwise: form is {self.form!r}; it must be 'paper' or 'code'")
        if not 0 <= self.eps < math.inf:
            raise InputError(f"streamwise: eps is {self.eps}; it must be at least 0 and finite")
        for name, default, of in (
            ("form", "paper", "rloo"),
            ("std", True, "grpo"),
            ("token_std", False, "grpo"),
            ("eps", 1e-6, "grpo"),
        ):
            if getattr(self, name) != default and self.estimator != of:
                raise InputError(f"streamwise: {name} is read by estimator={of!r} alone. Leave it out.")
        for name, weight in self.weights.items():
            if not math.isfinite(weight):
                raise InputError(f"streamwise: the weight of {name!r} is {weight}; it must be finite")
        for name, gamma in self.gammas.items():
            if not 0 <= gamma <= 1 or self.estimator == "value":
                raise InputError(
                    f"streamwise: the gamma of {name!r} is {gamma}; it must lie between 0 and 1, and a value has none"
                )

    def __call__(self, batch: Batch, streams: Mapping[str, Stream]) -> Credit:
        """Credit for every token of the batch."""
        rewards = self._weighing(batch, streams)
        mask, group = batch.seq.mask, batch.seq.group
        totals = [x if x.ndim == 1 else advantages.sum_tokens(x, mask) for x in rewards.values()]
        unknown = advantages.sum_known(torch.stack(totals), group).isnan()[:, None]
        credited = torch.zeros(mask.shape, device=mask.device)
        for name, values in rewards.items():
            if values.ndim == 1:
                part = self._of_responses(torch.where(unknown[:, 0], torch.nan, values), group)[:, None]
            else:
                part = self._of_tokens(name, torch.where(unknown, torch.nan, values), batch)
            credited = credited + self.weights.get(name, 1.0) * part.nan_to_num(nan=0.0)
        if self.whiten:
            credited = advantages.whiten(credited, mask & ~unknown, eps=1e-8)
        return spread(batch, streams, torch.where(unknown, torch.nan, credited))

    def _weighing(self, batch: Batch, streams: Mapping[str, Stream]) -> dict[str, Tensor]:
        """The reward streams that train and have a weight."""
        for key, names in (("weights", self.weights), ("gammas", self.gammas)):
            for name in names:
                if name not in streams:
                    raise InputError(f"streamwise: {key} names {name!r}, which is no stream; there are {list(streams)}")
        rewards = {name: x for name, x in _select(batch, streams, "reward").items() if self.weights.get(name, 1) != 0}
        for name, values in rewards.items():
            if values.ndim == 1 and self.gammas.get(name, 1.0) != 1:
                raise InputError(
                    f"streamwise: {name!r} is one number for a response, which is not discounted. Leave its gamma out."
                )
        if not rewards:
            raise InputError("streamwise: no reward stream trains with a weight other than 0, so nothing is to learn.")
        return rewards

    def _of_responses(self, values: Tensor, group: Tensor) -> Tensor:
        if self.estimator == "rloo":
            return advantages.leave_one_out(values, group)
        if self.estimator == "grpo":
            return advantages.group_normalized(values, group, std=self.std, eps=self.eps)
        return values

    def _of_tokens(self, name: str, values: Tensor, batch: Batch) -> Tensor:
        mask, group, gamma = batch.seq.mask, batch.seq.group, self.gammas.get(name, 1.0)
        if self.estimator == "rloo":
            return advantages.token_leave_one_out(values, group, mask, gamma=gamma, form=self.form)
        if self.estimator == "grpo":
            return advantages.token_group_normalized(values, group, mask, gamma=gamma, std=self.token_std, eps=self.eps)
        if self.estimator == "value":
            return -advantages.earned_before(values, mask)
        return advantages.returns_to_go(values.nan_to_num(nan=0.0), mask, gamma)


@dataclass(frozen=True, kw_only=True)
class Reshaped:
    """Credits right responses by one rule and wrong ones by another (OREAL's reshaping, arXiv:2502.06781).

    Each rule says what becomes of a response's total reward r, mostly 1 where it is right and -1 where it is wrong
    (`verifier` with wrong -1): "rloo", its excess over the siblings' mean; "grpo", over the group's mean in the group's
    standard deviations; "one", r itself; and for wrong responses "failures", (1 - p) r, where p is the group's mean
    outcome. The released code has "rloo" for both, the paper's text "one" and "failures". They disagree: with c of K
    responses right, "rloo" gives a wrong one -2c / (K - 1), which is least on the hardest prompts, where "failures" is
    most.

    Right is an outcome above 1/2. A group without a right and a wrong response is credited with 0, and a response whose
    outcome is unknown trains nothing.
    """

    right: Literal["rloo", "grpo", "one"] = "rloo"
    wrong: Literal["rloo", "grpo", "failures", "one"] = "rloo"
    warmup: int = 0  # steps, from the run's first, in which only judges learn

    def __post_init__(self) -> None:
        for name, rule, rules in (
            ("right", self.right, ("rloo", "grpo", "one")),
            ("wrong", self.wrong, ("rloo", "grpo", "failures", "one")),
        ):
            if rule not in rules:
                raise InputError(f"reshaped: {name} is {rule!r}; it must be one of {', '.join(rules)}")
        if self.warmup < 0:
            raise InputError(f"reshaped: warmup is {self.warmup}; it must be at least 0")

    def __call__(self, batch: Batch, streams: Mapping[str, Stream]) -> Credit:
        """Credit for every token of the batch.

        Raises:
            InputError: every prompt was answered once, so that there is nothing to tell apart.
        """
        if len(batch.seen.outcome) == batch.seen.wanted * batch.seen.rounds:
            raise InputError(
                "reshaped compares the responses to a prompt, and every prompt was answered once. Ask for 2 answers or "
                "more."
            )
        earned = earnings(batch, streams)
        right, _ = advantages.sides(batch.outcome)
        credited = torch.where(right[:, None], _by(self.right, earned, batch), _by(self.wrong, earned, batch))
        teaches = advantages.mixed(batch.outcome, batch.seq.group)
        unknown = batch.outcome.isnan() | earned.totals.isnan()
        credited = torch.where(teaches[:, None], credited, 0.0)
        credit = spread(batch, streams, torch.where(unknown[:, None], torch.nan, credited))
        return _waiting(credit) if batch.step < self.warmup else credit


def _by(rule: str, earned: Earnings, batch: Batch) -> Tensor:
    """[N, T]: what a rule of `Reshaped` credits."""
    group = batch.seq.group
    if rule == "rloo":
        return advantages.leave_one_out(earned.totals, group, returns=earned.returns)
    if rule == "grpo":
        return advantages.group_normalized(earned.totals, group, eps=1e-8, returns=earned.returns)
    if rule == "failures":
        return advantages.failure_rate(batch.outcome, group)[:, None] * earned.returns
    return earned.returns


@dataclass(kw_only=True)
class GAE:
    """Credits what came out better than a critic expected, from the token on (GAE; arXiv:1506.02438).

    A response's own reward is earned by its last token. Without `learn` the critic is taught elsewhere: as the policy's
    own value head, by a `ValueLoss` among its objectives; or not at all. With it the critic is a model of its own. It
    learns from each batch as soon as that batch's advantages are made, in the epochs and mini-batches that its
    optimizer is set to, and is saved with the run.

    With `expects="all"` the critic is a baseline for all that a token is credited with: what streams of kind
    "advantage" add to it is expected too, and none of it reaches an earlier token (section 2.6 of Setlur et al. 2024,
    arXiv:2410.08146). That goes with lam=1, where no value stands in for what is still to come.
    """

    critic: Policy  # injected; its value head is read
    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = False  # advantages to mean 0 and variance 1 over the batch, before advantage streams are added
    whiten_rewards: bool = False  # rewards of tokens to variance 1 over the batch, their mean left as it is
    learn: Objective | None = None  # what a critic of its own minimizes: `ValueLoss(coef=1.0)`
    warmup: int = 0  # steps, from the run's first, in which only the critic learns
    expects: Literal["rewards", "all"] = "rewards"  # of the critic

    def __post_init__(self) -> None:
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"gae: {name} is {getattr(self, name)}; it must be at least 0 and at most 1")
        if self.warmup < 0 or (self.warmup and self.learn is None):
            raise InputError(
                f"gae: warmup is {self.warmup}; it must be at least 0, and 0 without `learn`: a critic that shares the "
                "policy's weights cannot learn while they stay"
            )
        if self.expects not in ("rewards", "all"):
            raise InputError(f"gae: expects is {self.expects!r}; it must be 'rewards' or 'all'")
        if self.expects == "all" and (self.lam < 1 or self.whiten):
            raise InputError(
                f"gae: expects='all' goes with lam=1 and whiten=False, not with lam={self.lam}, whiten={self.whiten}: "
                "else a later step's advantage would reach earlier tokens, or expectation and credit have other units"
            )
        self._metrics: Metrics = {}

    def __call__(self, batch: Batch, streams: Mapping[str, Stream]) -> Credit:
        """Credit for every token of the batch, with returns and values; then the critic learns from it, if it is to."""
        earned = earnings(batch, streams)
        known = ~earned.totals.isnan()[:, None]
        counts = batch.seq.mask & known
        rewards = advantages.whiten(earned.rewards, counts, shift=False) if self.whiten_rewards else earned.rewards
        values = _values_of(self.critic, batch).to(counts.device)
        estimates, returns = advantages.gae(rewards, values, counts, gamma=self.gamma, lam=self.lam)
        if self.whiten:
            estimates = advantages.whiten(estimates, counts)
        credit = spread(batch, streams, torch.where(known, estimates, torch.nan))
        if self.expects == "all":
            returns = torch.where(counts, returns + _added(batch, streams), 0.0)
        credit = replace(credit, returns=returns, values=torch.where(counts, values, 0.0))
        explained = advantages.explained_variance(values, returns, credit.mask).item()
        self._metrics = {} if math.isnan(explained) else {"critic/explained_variance": explained}
        if self.learn is not None:
            found = self.critic.update(self.learn, batch, credit, batch.rng.child("critic"))
            self._metrics |= {f"critic/{name.rpartition('/')[2]}": value for name, value in found.items()}
        return _waiting(credit) if batch.step < self.warmup else credit

    def metrics(self) -> Metrics:
        """What part of the returns' variance the critic foresaw, and how it learned if it did, as "critic/..."."""
        return dict(self._metrics)

    def state_dict(self) -> State:
        """The critic, if it is one of its own."""
        return {} if self.learn is None else {"critic": self.critic.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        if ("critic" in state) != (self.learn is not None):
            raise InputError("gae: the saved state is of a run whose critic was not where this one's is")
        if self.learn is not None:
            self.critic.load_state_dict(cast("State", state["critic"]))


def _added(batch: Batch, streams: Mapping[str, Stream]) -> Tensor:
    """[N, T]: what the streams of kind "advantage" that train add to their own tokens."""
    total = torch.zeros(batch.seq.mask.shape, device=batch.seq.mask.device)
    for values in _select(batch, streams, "advantage").values():
        total = total + _per_token(values, batch.seq.mask).nan_to_num(nan=0.0)
    return total


def _values_of(critic: Policy, batch: Batch) -> Tensor:
    values = critic.outputs(batch.seq, ("values",)).values
    if values is None:
        raise InputError("gae: its critic gives no values. Take a model with a value head.")
    return values


class Earnings(NamedTuple):
    """What responses and tokens earned, summed over the reward streams that train."""

    totals: Tensor  # [N] float32, NaN = unknown
    returns: Tensor  # [N, T] float32: the rewards of the response, and those of this token and the ones after it
    rewards: Tensor  # [N, T] float32: the reward of the token and, at the last one, that of the response


def earnings(batch: Batch, streams: Mapping[str, Stream]) -> Earnings:
    """Sums the reward streams that train; see `reckon.advantages.sum_known` for what NaN does.

    A token whose own reward is NaN earns nothing there; a response has no value in an [N, T] stream when all its
    tokens are NaN. Without any reward stream everybody earns 0, so that streams of kind "advantage" can teach alone.

    Raises:
        InputError: no stream trains; a stream is infinite or of another size than the batch.
    """
    rewards = list(_select(batch, streams, "reward").values())
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
    after = mask.flip(1).cumsum(dim=1).flip(1)  # sampled tokens from this one on
    at_the_end = torch.where(mask & (after == 1), responses[:, None], 0.0)
    unknown = totals.isnan()[:, None]
    return Earnings(
        totals,
        returns=torch.where(unknown, torch.nan, returns),
        rewards=torch.where(unknown, torch.nan, tokens + at_the_end),
    )


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
    for values in _select(batch, streams, "advantage").values():
        total = total + _per_token(values, mask).nan_to_num(nan=0.0)
    weights = torch.ones_like(credited)
    for values in _select(batch, streams, "weight").values():
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


def _select(batch: Batch, streams: Mapping[str, Stream], kind: Kind) -> dict[str, Tensor]:
    """The values of the streams of a kind that train, by name, float32 and checked."""
    mask = batch.seq.mask
    chosen = {}
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
        chosen[name] = values
    return chosen


def _waiting(credit: Credit) -> Credit:
    """Credit by which the policy learns nothing."""
    return replace(credit, mask=torch.zeros_like(credit.mask), advantages=torch.zeros_like(credit.advantages))


def _per_token(values: Tensor, mask: Tensor) -> Tensor:
    return values[:, None].expand(mask.shape) if values.ndim == 1 else values
