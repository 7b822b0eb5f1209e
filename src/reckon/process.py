"""What a step of a response is worth: Q values, step rewards, advantages of provers. Pure functions on tensors.

And how the process rewards of a group's responses compare, which is what they are learned from online.

Rows of steps are padded on the right with NaN. A response without steps has no scores: its row is NaN alone.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

How: TypeAlias = Literal["min", "sum", "mean", "last", "product", "accumulative_min"]
Prefix: TypeAlias = Literal["mean", "token", "top"]


def q_values(logratios: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Q of each prefix under an implicit reward: q_t = beta * sum of the log-ratios up to token t.

    Yuan et al. 2024, arXiv:2412.01981, Proposition 3.1: beta * log E_ref exp(r / beta) over the reference's ways to go
    on from the prefix. The reward of a step is the difference of Q at its ends, so the current step's tokens alone
    count (the printed eq. 3 starts its sum one step early).

    Args:
        logratios: [N, T] float, log pi(token) - log pi_ref(token).
        mask: [N, T] bool, True where the token counts. What stands elsewhere does not matter.
        beta: above 0.

    Returns:
        [N, T], 0 where `mask` is False; at the last token the response's reward.
    """
    _check_same_shape(mask, logratios=logratios)
    return torch.where(mask, beta * torch.where(mask, logratios, 0.0).cumsum(dim=1), 0.0)


def aggregate(step_scores: Tensor, how: How) -> Tensor:
    """One score for a response from those of its steps.

    Yuan et al. 2024, arXiv:2412.01981, rank by the lowest step reward ("min"). "sum" of step rewards is
    the response's reward. "accumulative_min" is the lowest sum of a beginning of the steps: the lowest Q value.
    "product" takes scores as logits and multiplies their sigmoids, as Lightman et al. 2023 (arXiv:2305.20050) do with
    probabilities.

    Args:
        step_scores: [N, H] float, NaN behind a response's last step.
        how: see above.

    Returns:
        [N]; NaN for a response without steps, or with a NaN before its last step.
    """
    if how not in get_args(How):
        raise ValueError(f"how is {how!r}; it must be one of {', '.join(get_args(How))}")
    known = ~step_scores.isnan()
    count = known.sum(dim=1)
    whole = (count > 0) & (known.long().cumprod(dim=1).sum(dim=1) == count)
    if step_scores.shape[1] == 0:
        return step_scores.new_full((step_scores.shape[0],), torch.nan)
    present = torch.where(known, step_scores, 0.0)
    if how == "sum":
        score = present.sum(dim=1)
    elif how == "mean":
        score = present.sum(dim=1) / count.clamp(min=1)
    elif how == "last":
        score = present.gather(1, (count - 1).clamp(min=0)[:, None])[:, 0]
    elif how == "product":
        score = torch.where(known, torch.nn.functional.logsigmoid(present), 0.0).sum(dim=1).exp()
    else:
        each = present if how == "min" else present.cumsum(dim=1)
        score = torch.where(known, each, torch.inf).amin(dim=1)
    return torch.where(whole, score, torch.nan)


def best_of_k(q: Tensor, k: int) -> Tensor:
    """Chance that one of k completions is right, each being so with probability q: 1 - (1 - q)^k.

    The Q of the prover BoK(pi) (Setlur et al. 2024, arXiv:2410.08146), which samples k completions and
    keeps a right one. k multiplies an error of q near 0, so calibrate first. A q that is itself estimated gives a
    result that is biased low; from counts take `unbiased_best_of_k`.

    Args:
        q: float in [0, 1], any shape; NaN stays NaN. For k > 1 it is clamped to 1 - 1e-7.
        k: at least 1.

    Returns:
        The shape of `q`.
    """
    if k < 1:
        raise ValueError(f"k is {k}, but must be at least 1")
    if bool(((q < 0) | (q > 1)).any()):
        raise ValueError("q must be probabilities in [0, 1]; a logit goes through a sigmoid first")
    if k == 1:
        return q
    return -torch.expm1(k * torch.log1p(-q.clamp(max=1 - 1e-7)))


def unbiased_best_of_k(correct: Tensor, n: Tensor | int, k: int) -> Tensor:
    """The same from counts, without bias: 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374, eq. 1).

    Args:
        correct: c, whole numbers in [0, n], any shape: how many of n completions were right.
        n: completions, of the shape of `correct` or one number.
        k: at least 1 and at most n.

    Returns:
        Float64, the shape of `correct`.
    """
    total = torch.as_tensor(n, dtype=torch.float64, device=correct.device).expand(correct.shape)
    c = correct.double()
    if bool(((c < 0) | (c > total)).any()):
        raise ValueError("correct must lie in [0, n]")
    if k < 1 or bool((total < k).any()):
        raise ValueError(f"k is {k}, but must be at least 1 and at most n: more cannot be estimated without bias")
    none_right = torch.ones_like(total)
    for i in range(k):
        none_right = none_right * (total - c - i).clamp(min=0) / (total - i)
    return 1 - none_right


def best_of_k_law(law: Tensor, right: Tensor, k: int) -> Tensor:
    """The law of the best of k responses, a right one if there is any.

    pi (R (1 - (1 - p)^k) / p + (1 - R) (1 - p)^(k - 1)) for a reward R of 0 or 1, where p is the law's chance of being
    right (Lyu et al. 2025, arXiv:2502.06781). For a large k it is the law of the right responses, whatever k: to
    imitate one right response chosen by chance is to aim at it.

    Args:
        law: [..., Y] float, probabilities that sum to 1, with 0 < p < 1.
        right: [..., Y] bool.
        k: at least 1.

    Returns:
        [..., Y], summing to 1.
    """
    p = torch.where(right, law, 0.0).sum(dim=-1, keepdim=True)
    return law * torch.where(right, best_of_k(p, k) / p, (1 - p) ** (k - 1))


def best_of_k_kl(p: Tensor, k: int) -> Tensor:
    """KL(best of k || policy) in nats, where a response is right with chance p: below log(1 / p), whatever k.

    q log(q / p) + (1 - q) log((1 - q) / (1 - p)) with q = 1 - (1 - p)^k. (Lyu et al. 2025, arXiv:2502.06781, quote
    log k - (k - 1) / k, which holds for rewards that never tie and grows without bound.)

    Args:
        p: float in (0, 1), any shape.
        k: at least 1.

    Returns:
        The shape of `p`.
    """
    q = best_of_k(p, k)
    # The second term without 1 - q, which a large k rounds to 0: its logarithm's ratio is (k - 1) log(1 - p).
    return q * (q / p).log() + (1 - p) ** k * (k - 1) * torch.log1p(-p)


def best_of_k_temperature(p: Tensor, k: int) -> Tensor:
    """The alpha for which the best of k is the optimum of E[R] - alpha KL, pi exp(R / alpha) up to a constant.

    1 / alpha = log((1 - (1 - p)^k) / (p (1 - p)^(k - 1))), for a reward of 0 or 1 (Lyu et al. 2025, arXiv:2502.06781).

    Args:
        p: float in (0, 1), any shape.
        k: at least 1; 1 leaves the policy as it is, and alpha is infinite.

    Returns:
        The shape of `p`.
    """
    return 1 / ((best_of_k(p, k) / p).log() - (k - 1) * torch.log1p(-p))


def label_variance(correct: Tensor, n: Tensor | int) -> Tensor:
    """Variance of a Monte-Carlo label c / n, estimated without bias: q (1 - q) / (n - 1) with q = c / n.

    Its expectation is p (1 - p) / n, the variance of the mean of n coins of chance p.

    Args:
        correct: c, whole numbers in [0, n], any shape.
        n: completions, of the shape of `correct` or one number.

    Returns:
        Float64, the shape of `correct`; NaN where n is 1.
    """
    total = torch.as_tensor(n, dtype=torch.float64, device=correct.device).expand(correct.shape)
    q = correct.double() / total
    return torch.where(total > 1, q * (1 - q) / (total - 1), torch.nan)


def with_outcome(values: Tensor, outcome: Tensor) -> Tensor:
    """Puts the verifier's verdict in the place of a response's last value: the whole response is no guess any more.

    With it the step advantages add up to outcome - value of the empty prefix.

    Args:
        values: [N, H + 1] float, column 0 the empty prefix, column h after step h; NaN behind a response's last step.
        outcome: [N] float in [0, 1]; where it is NaN, or the response has no step, the values stay.

    Returns:
        [N, H + 1].
    """
    count = (~values.isnan()).sum(dim=1)
    last = torch.arange(values.shape[1], device=values.device) == (count - 1)[:, None]
    given = (count > 1) & ~outcome.isnan()
    return torch.where(last & given[:, None], outcome[:, None].to(values.dtype), values)


def step_advantages(values: Tensor) -> Tensor:
    """How much each step changed a prover's chance of success: A_h = V(after h) - V(before h).

    Setlur et al. 2024, arXiv:2410.08146. All values are of one prover and one verifier. An advantage belongs to
    its own step and is never summed into a return: the sum telescopes, and the method cancels.

    Args:
        values: [N, H + 1] float, column 0 the empty prefix, column h after step h; NaN behind a response's last step.

    Returns:
        [N, H], in [-1, 1] for probabilities; NaN behind the last step.
    """
    if values.ndim != 2 or values.shape[1] < 1:
        raise ValueError(f"values must be [N, H + 1] with the empty prefix first, not of shape {tuple(values.shape)}")
    return values[:, 1:] - values[:, :-1]


def effective_reward(q: Tensor, advantage: Tensor, alpha: float) -> Tensor:
    """Q of the policy plus alpha times the prover's advantage (Setlur et al. 2024, arXiv:2410.08146).

    Args:
        q: [N, H] float, the policy's own chance of success after each step.
        advantage: [N, H] float, the prover's step advantages.
        alpha: at least 0.

    Returns:
        [N, H].
    """
    _check_same_shape(q, advantage=advantage)
    return q + alpha * advantage


def alignment(q_prover: Tensor, q_policy: Tensor, label_covariance: Tensor | None = None) -> Tensor:
    """E over the policy's actions of A^mu A^pi in each state: do prover and policy agree on what is good?

    Setlur et al. 2024, arXiv:2410.08146. As A^pi has mean 0 under the policy, it is the covariance of the
    two Q values, whatever the prover's own mean is. A diagnostic for choosing provers, not a bound on improvement.

    Args:
        q_prover: [S, m] float, m >= 2: in each of S states the prover's Q of m actions drawn from the policy.
        q_policy: [S, m] float, the policy's Q of the same actions.
        label_covariance: [S, m] float: of the two labels' errors; None = labels from rollouts of their own, or exact.

    Returns:
        [S], unbiased, so single states may be below 0.
    """
    _check_same_shape(q_prover, q_policy=q_policy)
    if q_prover.ndim != 2 or q_prover.shape[1] < 2:
        raise ValueError(f"q must be [S, m] with m of 2 or more, not of shape {tuple(q_prover.shape)}")
    a = q_prover - q_prover.mean(dim=1, keepdim=True)
    b = q_policy - q_policy.mean(dim=1, keepdim=True)
    covariance = (a * b).sum(dim=1) / (q_prover.shape[1] - 1)
    if label_covariance is None:
        return covariance
    _check_same_shape(q_prover, label_covariance=label_covariance)
    return covariance - label_covariance.mean(dim=1)


def distinguishability(q_prover: Tensor, variance: Tensor | None = None) -> Tensor:
    """Variance of A^mu over the policy's actions in each state: does the prover tell them apart at all?

    Setlur et al. 2024, arXiv:2410.08146. Noise of Monte-Carlo labels counts as variance unless its own is
    subtracted. A diagnostic, not a bound: the first-order gain of a policy step has Var[A^pi] in this place.

    Args:
        q_prover: [S, m] float, m >= 2: in each of S states the prover's Q of m actions drawn from the policy.
        variance: [S, m] float, the labels' own (`label_variance`); None = exact values.

    Returns:
        [S], unbiased, so single states may be below 0.
    """
    return alignment(q_prover, q_prover, variance)


def outcome_weights(
    logits: Tensor, mask: Tensor, right: Tensor, *, how: Prefix = "mean", threshold: float = 0.5, top: float = 0.5
) -> Tensor:
    """How much each token of a response counts, by a model of which responses are right (OREAL's token weights).

    Lyu et al. 2025, arXiv:2502.06781. A token's logit is, with "mean", the mean of the logits so far, as in the
    released code: only means are what the model is trained to tell outcomes by. With "token" (the printed eq. 10) it is
    the token's own. P is the sigmoid of it in a right response, of minus it in a wrong one, and the weight is
    max(0, (P - threshold) / (1 - threshold)); at 1/2 that is max(0, 2 P - 1), so that a model that knows nothing weighs
    nothing. With "top", the other choice of the code, the share `top` of the tokens with the largest P (of the means)
    is weighed from 0 to 1 between the smallest and the largest of these, all 1 where they are equal, and the rest is 0.

    Args:
        logits: [N, T] float.
        mask: [N, T] bool, True where the token counts. What stands elsewhere does not matter.
        right: [N] bool; the others are wrong.
        how: "mean", "token" or "top".
        threshold: in [0, 1); not read by "top".
        top: in (0, 1]; rounded down to whole tokens, and at least one. Read by "top" alone.

    Returns:
        [N, T] in [0, 1], 0 where `mask` is False.
    """
    if how not in get_args(Prefix):
        raise ValueError(f"how is {how!r}; it must be one of {', '.join(get_args(Prefix))}")
    _check_same_shape(mask, logits=logits)
    read = torch.where(mask, logits, 0.0)
    if how != "token":
        read = read.cumsum(dim=1) / mask.cumsum(dim=1).clamp(min=1)
    chance = torch.where(right[:, None], read, -read).sigmoid()
    if how != "top":
        return torch.where(mask, ((chance - threshold) / (1 - threshold)).clamp(min=0), 0.0)
    count = (mask.sum(dim=1, keepdim=True) * top + 1e-6).floor().clamp(min=1)  # 100 times 0.29 is a little under 29
    order = torch.where(mask, chance, -1.0).argsort(dim=1, descending=True, stable=True)
    kept = mask & (order.argsort(dim=1) < count)
    low = torch.where(kept, chance, torch.inf).amin(dim=1, keepdim=True)
    spread = torch.where(kept, chance, -torch.inf).amax(dim=1, keepdim=True) - low
    return torch.where(kept, torch.where(spread > 0, (chance - low) / spread, 1.0), 0.0)


def ranked_share(scores: Tensor, outcome: Tensor, group: Tensor) -> Tensor:
    """How well scores rank the responses of each group, pairs of outcomes far apart counting more.

    Of all pairs of a group whose outcomes differ, the share whose scores are in the same order, each pair weighted by
    that difference; a tie counts half. The released code of PRIME (arXiv:2502.01456) logs the mean over groups as
    `dpo_acc`.

    Args:
        scores: [N] float; NaN = unknown.
        outcome: [N] float; NaN = unknown.
        group: [N] int64, equal numbers answer the same prompt; in any order.

    Returns:
        [G] float, one for each group in ascending order of its number; 1/2 for one without two outcomes that differ.
    """
    _check_same_shape(group, scores=scores, outcome=outcome)
    known = ~(scores.isnan() | outcome.isnan())
    place = torch.unique(group, return_inverse=True)[1]
    better = _pairs(torch.where(known, outcome, 0.0), group) * (known[:, None] & known)
    ahead = scores[:, None] - scores
    right = torch.where(ahead > 0, 1.0, torch.where(ahead == 0, 0.5, 0.0)).to(better.dtype)
    total = better.new_zeros(int(place.max()) + 1 if len(place) else 0)
    wins = total.index_add(0, place, (better * right).sum(dim=1))
    total = total.index_add(0, place, better.sum(dim=1))
    return torch.where(total > 0, wins / torch.where(total > 0, total, 1.0), 0.5)


def opponent_rewards(rewards: Tensor, outcome: Tensor, group: Tensor) -> Tensor:
    """What each response is to be told apart from: the mean reward of the group's worse ones, or of its better ones.

    Of those with a lower outcome for a response whose outcome is above 0, of those with a higher one otherwise; 0 where
    there are none. From the group losses of PRIME's port in verl-recipe.

    Args:
        rewards: [N] float, beta times the log-ratios, as they were before anything was learned.
        outcome: [N] float; NaN = unknown, which is nobody's opponent and has none.
        group: [N] int64, equal numbers answer the same prompt; in any order.

    Returns:
        [N].
    """
    _check_same_shape(group, rewards=rewards, outcome=outcome)
    known = ~outcome.isnan()
    above = _pairs(torch.where(known, outcome, 0.0), group) > 0  # [i, j]: i is better than j
    chosen = torch.where((outcome > 0)[:, None], above, above.T) & known[:, None] & known
    return (chosen * torch.where(known, rewards, 0.0)).sum(dim=1) / chosen.sum(dim=1).clamp(min=1)


def best_of_group_weights(values: Tensor, group: Tensor) -> Tensor:
    """How much likelier than chance a response is the best of n draws from its own group: n F^(n - 1).

    Here n is the number of known responses in the group and F the share of them whose value is at most this one's; from
    the `bon` losses of PRIME's port in verl-recipe.

    Args:
        values: [N] float; NaN = unknown.
        group: [N] int64, equal numbers answer the same prompt; in any order.

    Returns:
        [N], 0 where the value is unknown.
    """
    _check_same_shape(group, values=values)
    known = ~values.isnan()
    siblings = (group[:, None] == group) & known[:, None] & known
    n = siblings.sum(dim=1)
    share = (siblings & (values[:, None] >= values)).sum(dim=1) / n.clamp(min=1)
    return torch.where(known, n * share ** (n - 1).clamp(min=0), 0.0)


def _pairs(outcome: Tensor, group: Tensor) -> Tensor:
    """[N, N]: by how much i's outcome is above j's, for the pairs of a group; 0 for all others."""
    return torch.where(group[:, None] == group, (outcome[:, None] - outcome).clamp(min=0), 0.0)


def _check_same_shape(like: Tensor, **tensors: Tensor) -> None:
    """Raises ValueError before broadcasting makes an [N] of an [N, T] unseen."""
    for name, tensor in tensors.items():
        if tensor.shape != like.shape:
            raise ValueError(f"{name} must be of shape {tuple(like.shape)}, not {tuple(tensor.shape)}")
