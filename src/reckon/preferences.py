"""Losses on log-ratios, scores and step labels: what offline learning minimizes. Pure functions on tensors.

Every loss is per element and no mean is taken: which rows count, and by what they are divided, is the caller's.
`masked_mean` is one answer. A *log-ratio* is log pi - log pi_ref of a whole response, summed over its tokens; `w` is
the response that won, `l` the one that lost; a *reward* is beta times a log-ratio. All in nats, in float32 or finer.

Gradients are finite for any finite input, and so are losses unless a square overflows: nothing is exponentiated before
a logarithm is taken. What a tensor holds where a mask is False does not matter, infinities and NaN included. Elsewhere
NaN is not hidden: a label that is unknown makes an unknown loss, and whoever steps must leave the row out first or
refuse the step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

# From two models to log-ratios


def token_logratios(logprobs: Tensor, ref_logprobs: Tensor | None, mask: Tensor) -> Tensor:
    """Each token's log pi - log pi_ref; beta times it is the token's implicit process reward.

    Yuan et al. 2024, arXiv:2412.01981, proposition 3.1. Without a reference what is left is log pi: the reference is
    then a constant. The paper finds that this ranks about as well where the base model was tuned on preferences before;
    it is no longer a Q value, and not for training a policy.

    Args:
        logprobs: [N, T] float, of the tokens that were written; carries the gradient.
        ref_logprobs: [N, T] float, under the frozen reference, treated as a constant; None = no reference.
        mask: [N, T] bool, True where the policy wrote the token. What a tool wrote is not a draw from the reference,
            and the identity that makes these sums Q values does not hold for it.

    Returns:
        [N, T], 0 where `mask` is False.

    Raises:
        ValueError: shapes differ, or log-probs are in half precision.
    """
    for name, tensor in {"logprobs": logprobs, "ref_logprobs": ref_logprobs}.items():
        if tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16):
            # At -100 the neighbors of a bfloat16 lie 0.5 apart: more than most log-ratios are.
            raise ValueError(f"{name} must be float32 or finer, not {tensor.dtype}: a log-ratio is a small difference")
    if ref_logprobs is None:
        _check_same_shape(mask, logprobs=logprobs)
        return torch.where(mask, logprobs, 0.0)
    _check_same_shape(mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    return torch.where(mask, logprobs - ref_logprobs.detach(), 0.0)


def response_logratio(logprobs: Tensor, ref_logprobs: Tensor | None, mask: Tensor) -> Tensor:
    """The log-ratio of each whole response: the sum of `token_logratios`, and what every loss here takes.

    A sum, not a mean: with a mean over tokens plain DPO becomes `dpo_norm`, which needs a beta tens of times larger.

    Args:
        logprobs: [N, T] float, of the tokens that were written; carries the gradient.
        ref_logprobs: [N, T] float, treated as a constant; None = no reference.
        mask: [N, T] bool, True where the policy wrote the token.

    Returns:
        [N], 0 for a response without a token.
    """
    return token_logratios(logprobs, ref_logprobs, mask).sum(dim=1)


# Responses with a label each


def outcome_ce(z: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of a response's reward with whether it was right: -l log s(z) - (1 - l) log s(-z).

    s is the logistic function. With z = beta times the log-ratio it is the implicit reward's loss (Yuan et al. 2024,
    arXiv:2412.01981, section 3; printed there without the minus), with the score of a head that of an outcome reward
    model (Cobbe et al. 2021, arXiv:2110.14168). The paper's code takes the logarithm of a sigmoid, which saturates at
    about z = 17; this is written on z itself. The derivative by z is s(z) - l, so that training on an implicit reward
    is REINFORCE with the advantage l - s(z).

    Args:
        z: [n] float, the rewards; carries the gradient.
        labels: [n] float in [0, 1]: 1 right, 0 wrong, between them a share or a belief.

    Returns:
        [n], at least 0; log 2 at z = 0.
    """
    _check_same_shape(z, labels=labels)
    return binary_cross_entropy_with_logits(z, labels.to(z.dtype), reduction="none")


def kto(
    ratio: Tensor,
    labels: Tensor,
    kl: Tensor | float,
    beta: float,
    *,
    desirable: float = 1.0,
    undesirable: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimization: a bounded loss for responses that are each right or wrong.

    Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1, with the constant that makes it 0 at best, as in TRL:
    w_d (1 - s(beta (D - kl))) for a right response, w_u (1 - s(beta (kl - D))) for a wrong one, D the log-ratio. Unlike
    with a cross-entropy a response that is far on the wrong side has no gradient left, just as one that is far on the
    right side. A label between 0 and 1 mixes the two.

    Args:
        ratio: [n] float, log-ratios of whole responses; carries the gradient.
        labels: [n] float or bool, 1 right, 0 wrong.
        kl: what `kto_kl` gives for the same batch; treated as a constant.
        beta: above 0; larger = saturates sooner.
        desirable: weight of right responses, at least 0.
        undesirable: weight of wrong ones, at least 0. Where one kind is rarer, the paper keeps w_d n_right to
            w_u n_wrong between 1 : 1 and 4 : 3.

    Returns:
        [n]; (w_d or w_u) / 2 where policy and reference agree.

    Raises:
        ValueError: shapes differ, or `beta` is not above 0.
    """
    _check_same_shape(ratio, labels=labels)
    above = _scaled(ratio - (kl.detach() if isinstance(kl, Tensor) else kl), beta)
    right = labels.to(ratio.dtype)
    return right * desirable * torch.sigmoid(-above) + (1 - right) * undesirable * torch.sigmoid(above)


def kto_kl(mismatched: Tensor) -> Tensor:
    """KTO's reference point: how far the policy has moved on responses to other prompts.

    max(0, mean), Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1. Each prompt is given the response to another
    prompt of the batch, by shifting responses by one: so a row's loss depends on its batch, and for responses that are
    sorted by prompt the shift is hardly a mismatch. It is no KL estimate of the policy's own samples and may be below 0
    before it is clamped.

    Args:
        mismatched: [n] float, log-ratios of the mismatched pairs, n at least 2.

    Returns:
        A scalar, at least 0, without gradient.

    Raises:
        ValueError: fewer than 2, where a response could only be shifted onto its own prompt.
    """
    if mismatched.numel() < 2:
        raise ValueError(f"kto_kl needs 2 mismatched log-ratios or more, not {mismatched.numel()}: use a larger batch")
    return mismatched.detach().mean().clamp(min=0.0)


# Pairs of responses


def dpo(ratio_w: Tensor, ratio_l: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """Direct preference optimization: -(1 - e) log s(beta h) - e log s(-beta h), h = ratio_w - ratio_l.

    Rafailov et al. 2023, arXiv:2305.18290, eq. 7; with smoothing e > 0 it is conservative DPO (Mitchell 2023,
    "A note on DPO with noisy preferences"), which is least where s(beta h) = 1 - e and pulls back beyond. Without
    smoothing a pair is never finished: the gradient only fades, and both responses may lose probability.

    Args:
        ratio_w: [n] float, log-ratios of the responses that won; carries the gradient.
        ratio_l: [n] float, of those that lost.
        beta: above 0; how much reward a nat of log-ratio is, 0.1 as a rule, and 0.05 for the implicit process reward.
        smoothing: share of pairs thought to be the wrong way round, in [0, 0.5).

    Returns:
        [n]; log 2 where policy and reference agree.

    Raises:
        ValueError: shapes differ, `beta` is not above 0, or another `smoothing`.
    """
    _check_same_shape(ratio_w, ratio_l=ratio_l)
    return _smoothed(_scaled(ratio_w - ratio_l, beta), smoothing)


def dpo_norm(
    ratio_w: Tensor, ratio_l: Tensor, length_w: Tensor, length_l: Tensor, beta: float, smoothing: float = 0.0
) -> Tensor:
    """DPO on mean log-ratios a token (Lambert et al. 2024, arXiv:2411.15124, "length-normalized DPO").

    TRL's `sigmoid_norm`, open-instruct's `dpo_norm`. Beta is of another size than in `dpo`: 5 is usual.

    Args:
        ratio_w: [n] float, summed log-ratios of the responses that won; carries the gradient.
        ratio_l: [n] float, of those that lost.
        length_w: [n] int64 or float, tokens that count in each response that won, at least 1.
        length_l: [n] int64 or float, in each that lost.
        beta: above 0.
        smoothing: as in `dpo`.

    Returns:
        [n].

    Raises:
        ValueError: shapes differ, a length below 1, `beta` is not above 0, or another `smoothing`.
    """
    return dpo(_per_token(ratio_w, length_w), _per_token(ratio_l, length_l), beta, smoothing)


def simpo(
    logprob_w: Tensor,
    logprob_l: Tensor,
    length_w: Tensor,
    length_l: Tensor,
    beta: float,
    gamma: float = 0.0,
    smoothing: float = 0.0,
) -> Tensor:
    """SimPO: no reference, mean log-probs, and a margin (Meng et al. 2024, arXiv:2405.14734, eq. 6).

    -log s(beta / |y_w| log pi(y_w) - beta / |y_l| log pi(y_l) - gamma). Nothing holds the policy near where it began.

    Args:
        logprob_w: [n] float, summed log-probs of the responses that won; carries the gradient.
        logprob_l: [n] float, of those that lost.
        length_w: [n] int64 or float, tokens that count in each response that won, at least 1.
        length_l: [n] int64 or float, in each that lost.
        beta: above 0; 2 to 2.5 in the paper.
        gamma: by how much reward the winner should lead, at least 0: TRL's `simpo_gamma`. Others set gamma / beta, 0.3.
        smoothing: as in `dpo`.

    Returns:
        [n].

    Raises:
        ValueError: shapes differ, a length below 1, `beta` is not above 0, or another `smoothing`.
    """
    winner, loser = _per_token(logprob_w, length_w), _per_token(logprob_l, length_l)
    _check_same_shape(winner, logprob_l=loser)
    return _smoothed(_scaled(winner - loser, beta) - gamma, smoothing)


def ipo(ratio_w: Tensor, ratio_l: Tensor, beta: float) -> Tensor:
    """Identity preference optimization: (h - 1 / (2 beta))^2, h = ratio_w - ratio_l.

    Azar et al. 2023, arXiv:2310.12036, eq. 17, beta being their tau. Unlike DPO it says how far apart is enough. TRL
    divides each log-ratio by its response's tokens first, so that long responses do not rule the square; give it means
    instead of sums to do the same, and a `beta` that is as much larger.

    Args:
        ratio_w: [n] float, log-ratios of the responses that won; carries the gradient.
        ratio_l: [n] float, of those that lost.
        beta: above 0; the wanted difference is 1 / (2 beta).

    Returns:
        [n], at least 0.

    Raises:
        ValueError: shapes differ, or `beta` is not above 0.
    """
    _check_same_shape(ratio_w, ratio_l=ratio_l)
    _scaled(ratio_w, beta)  # refuses the same values of beta
    return (ratio_w - ratio_l - 1 / (2 * beta)).square()


def nca(ratio_w: Tensor, ratio_l: Tensor, beta: float) -> Tensor:
    """Noise contrastive alignment for pairs (Chen et al. 2024, arXiv:2402.05369).

    -log s(z_w) - 0.5 log s(-z_w) - 0.5 log s(-z_l) with z = beta times the log-ratio; TRL's `nca_pair`. It looks at
    each reward by itself: a winner is best at z = log 2 and pulled back there from either side, so that, unlike in DPO,
    it does not lose probability along with the loser.

    Args:
        ratio_w: [n] float, log-ratios of the responses that won; carries the gradient.
        ratio_l: [n] float, of those that lost.
        beta: above 0.

    Returns:
        [n]; 2 log 2 where policy and reference agree.

    Raises:
        ValueError: shapes differ, or `beta` is not above 0.
    """
    _check_same_shape(ratio_w, ratio_l=ratio_l)
    winner, loser = _scaled(ratio_w, beta), _scaled(ratio_l, beta)
    return -logsigmoid(winner) - 0.5 * logsigmoid(-winner) - 0.5 * logsigmoid(-loser)


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    margin: Tensor | None = None,
    center: float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """A reward model's loss on pairs: -log s(r_w - r_l - m) + c (r_w + r_l)^2.

    Ouyang et al. 2022, arXiv:2203.02155, eq. 1; the margin is of Touvron et al. 2023, arXiv:2307.09288, eq. 2, the
    second term of Eisenstein et al. 2023, arXiv:2312.09244: TRL's `center_rewards_coefficient`. With c = 0 only
    differences matter: whatever both responses share, a bias or a style, has no gradient, and scores may drift by any
    constant. Give it raw scores: where a sigmoid of them is saturated, differences of sigmoids are 0 and nothing is
    learned, while a saturated *difference* the wrong way round still has gradient -1 here.

    Args:
        chosen: [n] float, scores of the responses that won, of any size; carries the gradient.
        rejected: [n] float, of those that lost.
        margin: [n] float, by how much the winner should lead; None = 0.
        center: the coefficient c, at least 0; 0.01 is usual.
        mask: [n] bool, False where there is no pair (Cooper's rows without a valid negative); None = all count.

    Returns:
        [n], 0 where `mask` is False.

    Raises:
        ValueError: shapes differ.
    """
    tensors = {"rejected": rejected, "margin": margin, "mask": mask}
    _check_same_shape(chosen, **{name: value for name, value in tensors.items() if value is not None})
    if mask is not None:  # before anything nonlinear: the gradient of a discarded NaN is still NaN
        chosen, rejected = torch.where(mask, chosen, 0.0), torch.where(mask, rejected, 0.0)
        margin = None if margin is None else torch.where(mask, margin, 0.0)
    ahead = chosen - rejected if margin is None else chosen - rejected - margin
    loss = -logsigmoid(ahead)
    if center:
        loss = loss + center * (chosen + rejected).square()
    return loss if mask is None else torch.where(mask, loss, 0.0)


def pair_accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """[n] float32: 1 where the winner's reward is higher. A tie is wrong: where policy and reference agree it is 0."""
    _check_same_shape(chosen, rejected=rejected)
    return (chosen > rejected).float()


# Steps with a label each


def step_ce(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy at every step: -q log s(z) - (1 - q) log s(-z).

    Wang et al. 2024 (Math-Shepherd), arXiv:2312.08935, eq. 2. The target is 1 if any of the completions drawn from the
    step was right (hard) or the share of them (soft); with the response's own label at all of its steps it is the cheap
    baseline "outcome copied to steps". The cross-entropy of a head with two tokens, + and -, is the same with the
    difference of their logits as z.

    Args:
        logits: [N, H] float, one for each step; carries the gradient.
        targets: [N, H] float in [0, 1].
        mask: [N, H] bool, True where there is a step with a known target.

    Returns:
        [N, H], 0 where `mask` is False.
    """
    logits, targets = _counted(mask, logits=logits, targets=targets)
    return torch.where(mask, binary_cross_entropy_with_logits(logits, targets, reduction="none"), 0.0)


def step_mse(rewards: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Second stage of an implicit reward on step labels, as in the paper's code: (s(r) - label)^2.

    Yuan et al. 2024, arXiv:2412.01981, the ablation with step labels. Bounded, so a step that is confidently wrong has
    no gradient left.

    Args:
        rewards: [N, H] float, implicit rewards of the steps; carries the gradient.
        labels: [N, H] float in [0, 1], 1 = a good step.
        mask: [N, H] bool, True where there is a step with a known label.

    Returns:
        [N, H] in [0, 1], 0 where `mask` is False.
    """
    rewards, labels = _counted(mask, rewards=rewards, labels=labels)
    return torch.where(mask, (torch.sigmoid(rewards) - labels).square(), 0.0)


def step_sign_loss(rewards: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Second stage of an implicit reward on step labels, as the paper prints it: -log s(l |r|), l = +1 or -1.

    Yuan et al. 2024, arXiv:2412.01981, the ablation with step labels. Because of the bars it does not see the sign of
    r: a good step's reward is driven *away from 0*, a bad one's *to 0*, whatever their signs; at r = 0, where policy
    and reference agree, nothing moves. For the repetition of a result only; `step_ce` with the rewards as logits is the
    same without the bars, and is what one wants.

    Args:
        rewards: [N, H] float, implicit rewards of the steps; carries the gradient.
        labels: [N, H] float, 1 = a good step, 0 = a bad one, as everywhere here; the paper's l is 2 label - 1.
        mask: [N, H] bool, True where there is a step with a known label.

    Returns:
        [N, H], 0 where `mask` is False.
    """
    rewards, labels = _counted(mask, rewards=rewards, labels=labels)
    return torch.where(mask, -logsigmoid((2 * labels - 1) * rewards.abs()), 0.0)


# Means


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of what counts; exactly 0, with gradients of exactly 0, where nothing does.

    A step on a loss of 0 still moves the weights, by decay and momentum: skip it.

    Args:
        values: any shape, float.
        mask: the same shape, bool.

    Returns:
        A scalar.
    """
    _check_same_shape(mask, values=values)
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _smoothed(ahead: Tensor, smoothing: float) -> Tensor:
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing must be at least 0 and below 0.5, not {smoothing}")
    loss = -(1 - smoothing) * logsigmoid(ahead)
    return loss - smoothing * logsigmoid(-ahead) if smoothing else loss


def _scaled(ratio: Tensor, beta: float) -> Tensor:
    if not beta > 0:
        raise ValueError(f"beta must be above 0, not {beta}")
    return beta * ratio


def _per_token(total: Tensor, length: Tensor) -> Tensor:
    _check_same_shape(total, length=length)
    if bool((length < 1).any()):
        raise ValueError("a length is below 1: a response without a token has no mean; drop its pair")
    return total / length


def _counted(mask: Tensor, **tensors: Tensor) -> list[Tensor]:
    """The tensors with 0 where the mask is False, in the first one's dtype."""
    _check_same_shape(mask, **tensors)
    first, *_ = tensors.values()
    return [torch.where(mask, tensor, 0.0).to(first.dtype) for tensor in tensors.values()]


def _check_same_shape(like: Tensor, **tensors: Tensor) -> None:
    """Raises ValueError before broadcasting makes an [n, n] of an [n] and an [n, 1]."""
    for name, tensor in tensors.items():
        if tensor.shape != like.shape:
            raise ValueError(f"{name} must be of shape {tuple(like.shape)}, not {tuple(tensor.shape)}")
