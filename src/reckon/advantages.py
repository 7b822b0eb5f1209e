"""What a response's reward is worth beside other responses' rewards. Pure functions on tensors.

A reward that is NaN is unknown: it is left out of every count and mean, and its own result is NaN. Rewards that are all
equal give exactly 0, not rounding noise: each mean is taken of the distances from the smallest reward.

Every estimator here is (returns - center) / scale with one center and one scale per response, and takes the `returns`
apart from the `rewards` that make the center and scale. Left out, they are the rewards themselves. A caller with
rewards for single tokens passes rewards-to-go ([N, T]) instead, and each token is credited with what can still be its
doing.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Form: TypeAlias = Literal["paper", "code"]  # of PRIME's leave-one-out


def group_normalized(
    rewards: Tensor, group: Tensor, *, std: bool = True, eps: float = 1e-6, returns: Tensor | None = None
) -> Tensor:
    """Distance from the group's mean in the group's standard deviations (GRPO).

    Shao et al. 2024, arXiv:2402.03300, section 4.1.2. `std=False` leaves the distance as it is (Dr. GRPO; Liu et al.
    2025, arXiv:2503.20783, section 3.2). The standard deviation is the sample's, with n - 1, as in the public
    implementations; the paper does not say. A response with nothing to be compared with gets 0: one without a known
    sibling, and with `std` any in a group of equal rewards.

    Args:
        rewards: [N] float, one for each response; NaN = unknown.
        group: [N] int64, equal numbers answer the same prompt; in any order.
        std: divide by the group's standard deviation.
        eps: added to it, at least 0.
        returns: [N] or [N, T], credited in place of `rewards`.

    Returns:
        The shape of `returns`; NaN where the reward is unknown.
    """
    known, distance, low, count = _within_groups(rewards, group)
    mean = _group_sum(distance, group) / count
    scale = torch.where(count > 1, 1.0, torch.inf)
    if std:
        squares = _group_sum(torch.where(known, (distance - mean).square(), 0.0), group)
        deviation = (squares / (count - 1).clamp(min=1)).sqrt()
        scale = torch.where(deviation > 0, deviation + eps, torch.inf)
    return _above(rewards if returns is None else returns, low + mean, scale, known)


def leave_one_out(rewards: Tensor, group: Tensor, *, returns: Tensor | None = None) -> Tensor:
    """Distance from the mean of the siblings' rewards (RLOO).

    r_i - sum over j != i of r_j / (n - 1), Ahmadian et al. 2024, arXiv:2402.14740, after Kool et al. 2019. A response
    without a known sibling has no baseline and gets 0.

    Args:
        rewards: [N] float, one for each response; NaN = unknown.
        group: [N] int64, equal numbers answer the same prompt; in any order.
        returns: [N] or [N, T], credited in place of `rewards`.

    Returns:
        The shape of `returns`; NaN where the reward is unknown.
    """
    known, distance, low, count = _within_groups(rewards, group)
    siblings = (_group_sum(distance, group) - distance) / (count - 1).clamp(min=1)
    scale = torch.where(count > 1, 1.0, torch.inf)
    return _above(rewards if returns is None else returns, low + siblings, scale, known)


def batch_mean(rewards: Tensor, *, returns: Tensor | None = None) -> Tensor:
    """Distance from the mean of all known rewards: REINFORCE with the batch's mean as baseline.

    Williams 1992, section 4, leaves the baseline open. The mean contains the response's own reward, so the expected
    gradient is (N - 1) / N of the unbiased one. A response that is alone gets 0.

    Args:
        rewards: [N] float, one for each response; NaN = unknown.
        returns: [N] or [N, T], credited in place of `rewards`.

    Returns:
        The shape of `returns`; NaN where the reward is unknown.
    """
    everyone = torch.zeros_like(rewards).long()
    return group_normalized(rewards, everyone, std=False, returns=returns)


def running_mean(total: float, weight: float, value: float, *, decay: float) -> tuple[float, float]:
    """One more value in an exponentially weighted mean, which is `total / weight`.

    Dividing by the weight undoes the pull towards the start at 0 (as Kingma & Ba 2015, arXiv:1412.6980, section 3):
    after one value the mean is that value, whatever `decay` is.

    Args:
        total: of the values so far, 0.0 before the first.
        weight: of the values so far, 0.0 before the first.
        value: the new one.
        decay: how much the past still counts, in [0, 1).

    Returns:
        The new total and the new weight.
    """
    return decay * total + (1 - decay) * value, decay * weight + (1 - decay)


def returns_to_go(rewards: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """What a token and those after it earn: G_t = r_t + gamma G_{t+1}.

    Sutton & Barto 2018, eq. 3.9, but r_t is what token t itself earns (they write R_{t+1}).

    Args:
        rewards: [N, T] float, one for each token; what stands where `mask` is False does not matter.
        mask: [N, T] bool, True where the token counts. Other positions earn nothing, but each takes part in
            discounting.
        gamma: discount, in [0, 1].

    Returns:
        [N, T]. Also where `mask` is False: what is earned from that position on.
    """
    _check_same_shape(mask, rewards=rewards)
    earned = torch.where(mask, rewards, 0.0)
    # One token at a time, from the end: padding comes first and adds exact zeros, on any device and for any gamma.
    columns = list(earned.unbind(dim=1))
    for t in range(len(columns) - 2, -1, -1):
        columns[t] = columns[t] + gamma * columns[t + 1]
    return torch.stack(columns, dim=1) if columns else earned


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    ends: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates, and what the critic should have predicted.

    Schulman et al. 2016, arXiv:1506.02438, eqs. 11 and 16: d_t = r_t + gamma V_{t+1} - V_t and
    A_t = d_t + gamma lam A_{t+1}, with V = 0 after the last token, where every response is over. The returns are
    A_t + V_t, the TD(lambda) target; take them before the advantages are whitened. With `lam` 1 an advantage is the
    reward-to-go less V_t, with 0 it is d_t.

    Args:
        rewards: [N, T] float, what each token earns.
        values: [N, T] float, V_t: what the critic expects where token t is predicted, before it is known.
        mask: [N, T] bool, True where the token counts. Other positions are no states: time passes over them, and what
            the other tensors hold there does not matter.
        gamma: discount, in [0, 1].
        lam: how far the sum reaches beyond the critic's next value, in [0, 1].
        ends: [N, T] bool, True at the last token of an episode where a row holds several: V = 0 after it, and nothing
            later counts. An episode that is only cut short there, or at the end of the row, is worth more: add gamma
            times the value of what would have come next to the reward.

    Returns:
        Advantages and returns, [N, T] each, 0 where `mask` is False.
    """
    _check_same_shape(mask, rewards=rewards, values=values)
    if ends is not None:
        _check_same_shape(mask, ends=ends)
    rewards, values = (torch.where(mask, x, 0.0) for x in (rewards, values))
    advantage = next_value = rewards.new_zeros(len(rewards))
    columns = list(rewards.unbind(dim=1))
    for t in range(len(columns) - 1, -1, -1):
        if ends is not None:
            next_value, advantage = (torch.where(ends[:, t], 0.0, later) for later in (next_value, advantage))
        counts, value = mask[:, t], values[:, t]
        surprise = columns[t] + gamma * next_value - value
        advantage = torch.where(counts, surprise + gamma * lam * advantage, advantage)
        next_value = torch.where(counts, value, next_value)
        columns[t] = torch.where(counts, advantage, 0.0)
    advantages = torch.stack(columns, dim=1) if columns else rewards
    return advantages, advantages + values


def whiten(values: Tensor, mask: Tensor, *, eps: float = 1e-6, shift: bool = True) -> Tensor:
    """Distance from the mean of all that counts, over its standard deviation: (x - mean) / sqrt(var + eps).

    The variance is the sample's, with n - 1. As PPO's implementations have it (Huang et al. 2022, "The 37
    Implementation Details of Proximal Policy Optimization", ICLR blog track), and those for language models since
    Ziegler et al. 2019, arXiv:1909.08593. Values that are all equal, or alone, have distance 0.

    Args:
        values: [N, T] float; not NaN where `mask` is True.
        mask: [N, T] bool, True where the token counts.
        eps: added to the variance, at least 0.
        shift: subtract the mean; without it the mean stays as it was and the distances from it are scaled, as rewards
            are, whose mean is the critic's business.

    Returns:
        [N, T], 0 where `mask` is False.
    """
    _check_same_shape(mask, values=values)
    distance, mean = _from_mean(values, mask)
    variance = distance.square().sum() / (mask.sum() - 1).clamp(min=1)
    scaled = distance * torch.where(variance > 0, (variance + eps).rsqrt(), 0.0)
    return scaled if shift else torch.where(mask, scaled + mean, 0.0)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """How much of what returns differ by a critic foresaw: 1 - Var(returns - values) / Var(returns).

    1 = all of it; 0 = no more than a constant would; below 0 = the critic adds noise.

    Args:
        values: [N, T] float, predicted.
        returns: [N, T] float, what came.
        mask: [N, T] bool, True where the token counts.

    Returns:
        []; NaN where the returns do not differ.
    """
    _check_same_shape(mask, values=values, returns=returns)
    spread, left = (_from_mean(x, mask)[0].square().sum() for x in (returns, returns - values))
    return torch.where(spread > 0, 1 - left / spread, torch.nan)


def sum_tokens(rewards: Tensor, mask: Tensor) -> Tensor:
    """A response's total of rewards given to its tokens, where NaN means that a token was given none.

    Args:
        rewards: [N, T] float; NaN = none.
        mask: [N, T] bool, True where the token counts.

    Returns:
        [N]; NaN where no token that counts was given a reward.
    """
    _check_same_shape(mask, rewards=rewards)
    given = mask & ~rewards.isnan()
    total = torch.where(given, rewards, 0.0).sum(dim=1)
    return torch.where(given.any(dim=1), total, torch.nan)


def sum_known(rewards: Tensor, group: Tensor) -> Tensor:
    """A response's total over S rewards, none of which need apply to every prompt.

    A reward that no response of a group has does not apply there and is left out of that group's totals. One that only
    some of the group have is unknown for the others, and so is their total: counted as 0 it would punish them.

    Args:
        rewards: [S, N] float; NaN = unknown.
        group: [N] int64, equal numbers answer the same prompt; in any order.

    Returns:
        [N]; NaN = unknown, which includes a response to which nothing applies.
    """
    given = ~rewards.isnan()
    applies = torch.stack([_group_sum(row, group) > 0 for row in given.long()])
    total = torch.where(given, rewards, 0.0).sum(dim=0)
    known = (given | ~applies).all(dim=0) & applies.any(dim=0)
    return torch.where(known, total, torch.nan)


def sides(outcome: Tensor) -> tuple[Tensor, Tensor]:
    """Which responses count as right and which as wrong, where a method treats the two apart.

    Args:
        outcome: [N] float in [0, 1]; NaN = unknown, which is neither.

    Returns:
        Two [N] bool: an outcome above 1/2; an outcome of at most 1/2.
    """
    return outcome > 0.5, outcome <= 0.5


def mixed(outcome: Tensor, group: Tensor) -> Tensor:
    """Whether a response's group has a right response and a wrong one, so that there is something to tell apart.

    Args:
        outcome: [N] float in [0, 1]; NaN = unknown.
        group: [N] int64, equal numbers answer the same prompt; in any order.

    Returns:
        [N] bool.
    """
    right, wrong = (_group_sum(side.long(), group) > 0 for side in sides(outcome))
    return right & wrong


def failure_rate(outcome: Tensor, group: Tensor) -> Tensor:
    """How often the responses to a prompt go wrong: 1 less the mean known outcome of the group.

    Args:
        outcome: [N] float in [0, 1]; NaN = unknown.
        group: [N] int64, equal numbers answer the same prompt; in any order.

    Returns:
        [N]; NaN in a group in which nothing is known.
    """
    _, distance, low, count = _within_groups(outcome, group)
    return 1 - (low + _group_sum(distance, group) / count)


def token_leave_one_out(
    rewards: Tensor, group: Tensor, mask: Tensor, *, gamma: float = 1.0, form: Form = "paper"
) -> Tensor:
    """Rewards of tokens against the siblings' mean reward of a token, summed from each token on (PRIME's RLOO).

    Cui et al. 2025, arXiv:2502.01456, eq. 5. With m_i the mean of response i over its own tokens and n responses,
    "paper" sums gamma^(u - t) (s_iu - sum over j != i of m_j / (n - 1)) over u >= t, and "code", as both released
    implementations have it, gamma^(u - t) (n s_iu - sum over all j of m_j) / (n - 1). They differ by (s_iu - m_i) /
    (n - 1) at each token, which sums to 0 over a response: without discount they agree at the first token. (The paper's
    printed eq. 5 has the siblings' totals instead of their means, which would charge a whole response at every token.)
    A baseline that is not 0 is charged once for every token, so that long responses collect it more often.

    Args:
        rewards: [N, T] float, one for each token; NaN = none. A token without one is as if it were not there.
        group: [N] int64, equal numbers answer the same prompt; in any order.
        mask: [N, T] bool, True where the token counts.
        gamma: discount, in [0, 1].
        form: see above.

    Returns:
        [N, T], also where `mask` is False: what is earned from that position on. NaN for a response none of whose
        tokens has a reward, 0 for one without a sibling that has.
    """
    given = mask & ~rewards.isnan()
    mean = token_means(rewards, mask)
    known, distance, low, count = _within_groups(mean, group)
    others = (count - 1).clamp(min=1)
    if form == "paper":
        centered = rewards - (low + (_group_sum(distance, group) - distance) / others)[:, None]
    else:
        centered = (rewards - (low + _group_sum(distance, group) / count)[:, None]) * (count / others)[:, None]
    return _from_each_token(centered, given, gamma, known, alone=count < 2)


def token_group_normalized(
    rewards: Tensor, group: Tensor, mask: Tensor, *, gamma: float = 1.0, std: bool = True, eps: float = 1e-6
) -> Tensor:
    """Rewards of tokens against the group's mean reward of a token, summed from each token on (PRIME with GRPO).

    Cui et al. 2025, arXiv:2502.01456: gamma^(u - t) (s_iu - mean of the m_j) / std of the m_j, summed over
    u >= t, m_j being the mean over response j's own tokens. That deviation is tiny beside the tokens' own, so that it
    blows them up; `std=False` leaves it out.

    Args:
        rewards: [N, T] float, one for each token; NaN = none.
        group: [N] int64, equal numbers answer the same prompt; in any order.
        mask: [N, T] bool, True where the token counts.
        gamma: discount, in [0, 1].
        std: divide by the deviation of the group's means (n - 1).
        eps: added to it, at least 0.

    Returns:
        [N, T] as `token_leave_one_out`; with `std` 0 in a group whose means are all equal.
    """
    given = mask & ~rewards.isnan()
    known, distance, low, count = _within_groups(token_means(rewards, mask), group)
    mean = _group_sum(distance, group) / count
    centered, alone = rewards - (low + mean)[:, None], count < 2
    if std:
        squares = _group_sum(torch.where(known, (distance - mean).square(), 0.0), group)
        deviation = (squares / (count - 1).clamp(min=1)).sqrt()
        alone = alone | (deviation == 0)
        centered = centered / torch.where(alone, 1.0, deviation + eps)[:, None]
    return _from_each_token(centered, given, gamma, known, alone=alone)


def token_means(rewards: Tensor, mask: Tensor) -> Tensor:
    """A response's mean reward of a token, over the tokens that have one.

    Args:
        rewards: [N, T] float; NaN = none.
        mask: [N, T] bool, True where the token counts.

    Returns:
        [N]; NaN where no token that counts has a reward.
    """
    return sum_tokens(rewards, mask) / (mask & ~rewards.isnan()).sum(dim=1)


def earned_before(rewards: Tensor, mask: Tensor) -> Tensor:
    """What the tokens before each one have earned: a value of the prefix, where rewards are differences of values.

    Args:
        rewards: [N, T] float; NaN = none.
        mask: [N, T] bool, True where the token counts.

    Returns:
        [N, T], 0 at the first token; NaN for a response none of whose tokens has a reward.
    """
    given = mask & ~rewards.isnan()
    earned = torch.where(given, rewards, 0.0)
    before = earned.cumsum(dim=1).roll(1, dims=1)
    before[:, :1] = 0.0
    return torch.where(given.any(dim=1, keepdim=True), before, torch.nan)


def unit_returns(rewards: Tensor, mask: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Rewards divided by the largest return there is: max over responses and tokens of |r_t + r_{t+1} + ...| + eps.

    The released code of Cui et al. 2025, arXiv:2502.01456 ("batch_norm"); of the whole batch, where theirs is of each
    device's share. Rewards of any scale come out with a largest return of 1, those of a model that has learned nothing
    and differs by noise too: `eps` is all that stands against it.

    Args:
        rewards: [N, T] float, not NaN where `mask` is True.
        mask: [N, T] bool, True where the token counts.
        eps: added to the largest return, above 0.

    Returns:
        [N, T], 0 where `mask` is False; 0 throughout where all rewards are.
    """
    returns = returns_to_go(rewards, mask)
    largest = torch.where(mask, returns.abs(), 0.0).amax() if mask.any() else returns.new_zeros(())
    return torch.where(mask, rewards, 0.0) / (largest + eps)


def smoothed(rewards: Tensor, mask: Tensor, lam: float, outcome: Tensor | None = None) -> Tensor:
    """Each token's reward joined by those after it: the sum of lam^k r_{t+k} (the port of PRIME in verl-recipe).

    Args:
        rewards: [N, T] float, not NaN where `mask` is True.
        mask: [N, T] bool, True where the token counts.
        lam: in [0, 1]; 0 changes nothing.
        outcome: [N] float: first puts outcome - (the other tokens' rewards) in the place of the last token's, so that a
            response's rewards add up to its outcome. NaN, or None, leaves the last token's as it is.

    Returns:
        [N, T], 0 where `mask` is False.
    """
    rewards = torch.where(mask, rewards, 0.0)
    if outcome is not None:
        last = mask & (mask.flip(1).long().cumsum(dim=1).flip(1) == 1)
        rest = outcome - torch.where(last, 0.0, rewards).sum(dim=1)
        rewards = torch.where(last & ~outcome.isnan()[:, None], rest[:, None].to(rewards.dtype), rewards)
    return torch.where(mask, returns_to_go(rewards, mask, lam), 0.0)


def _from_mean(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Distances from the mean of what counts, 0 elsewhere, and the mean; exact where all are equal."""
    low = torch.where(mask, values, torch.inf).amin()
    above = torch.where(mask, values - low, 0.0)
    mean = above.sum() / mask.sum().clamp(min=1)
    return torch.where(mask, above - mean, 0.0), low + mean


def _within_groups(rewards: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each response: is it known, how far above its group's smallest (0 if unknown), the smallest, the count."""
    _check_same_shape(group, rewards=rewards)
    known = ~rewards.isnan()
    place = _places(group)
    highest = torch.full_like(rewards, torch.inf)
    low = highest.scatter_reduce(0, place, torch.where(known, rewards, torch.inf), "amin")[place]
    distance = torch.where(known, rewards - low, 0.0)
    return known, distance, low, _group_sum(known.to(rewards.dtype), group)


def _group_sum(values: Tensor, group: Tensor) -> Tensor:
    """[N]: for each response, the sum of `values` over its group."""
    place = _places(group)
    return torch.zeros_like(values).index_add(0, place, values)[place]


def _places(group: Tensor) -> Tensor:
    """[N] int64: the groups numbered from 0."""
    places: Tensor = torch.unique(group, return_inverse=True)[1]
    return places


def _above(returns: Tensor, center: Tensor, scale: Tensor, known: Tensor) -> Tensor:
    if returns.ndim == 2:
        center, scale, known = center[:, None], scale[:, None], known[:, None]
    return torch.where(known, (returns - center) / scale, torch.nan)


def _from_each_token(centered: Tensor, given: Tensor, gamma: float, known: Tensor, *, alone: Tensor) -> Tensor:
    """Sums from each token on; 0 for rows with nothing to be compared with, NaN for unknown ones."""
    returns = returns_to_go(torch.where(alone[:, None], 0.0, centered), given, gamma)
    return torch.where(known[:, None], returns, torch.nan)


def _check_same_shape(like: Tensor, **tensors: Tensor) -> None:
    """Raises ValueError before broadcasting makes an [N] of an [N, T] unseen."""
    for name, tensor in tensors.items():
        if tensor.shape != like.shape:
            raise ValueError(f"{name} must be of shape {tuple(like.shape)}, not {tuple(tensor.shape)}")
