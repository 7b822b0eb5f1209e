"""Losses per token, and the scales that turn them into a mean. Pure functions on tensors.

Everything is [N, T]: `logprobs` are natural logarithms, `mask` is True where a token counts. What any tensor holds
where the mask is False does not matter, infinities and NaN included, neither for the loss nor for its gradient. A
log-ratio above 88 overflows float32 and is not hidden: the loss becomes infinite, and whoever steps must refuse it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Average = Literal["tokens", "sequences", "constant"]
Estimator = Literal["k1", "k2", "k3"]


def clipped_ratio(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    low: float = 0.2,
    high: float = 0.2,
    dual: float | None = None,
) -> Tensor:
    """PPO's clipped surrogate as a loss per token (Schulman et al. 2017, arXiv:1707.06347, eq. 7).

    -min(r A, clip(r, 1 - low, 1 + high) A) with r = pi / pi_old. A wider `high` than `low` is DAPO's (Yu et al. 2025,
    arXiv:2503.14476, eq. 10). How tokens are averaged is another choice: see `token_scale`.

    The minimum leaves a bad token (A < 0) that has become likelier unbounded. With `dual` = c > 1 its gain is at least
    c A (dual clip; Ye et al. 2020, arXiv:1912.09729): above r = c the loss stays at -c A and the gradient is 0.

    Args:
        logprobs: [N, T] float, under the policy being trained; carries the gradient.
        old_logprobs: [N, T] float, under the policy that sampled.
        advantages: [N, T] float; treated as a constant.
        mask: [N, T] bool, True where the token counts.
        low: how far below 1 the ratio may fall, in (0, 1].
        high: how far above 1 it may rise, > 0.
        dual: a bound > 1 on the ratio of tokens with a negative advantage, or None.

    Returns:
        [N, T], 0 where `mask` is False.
    """
    ratio = token_ratio(logprobs, old_logprobs, mask)
    return _clipped_loss(ratio, advantages, mask, low, high, dual)


def clipped_sequence_ratio(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    low: float = 0.2,
    high: float = 0.2,
    dual: float | None = None,
) -> Tensor:
    """As `clipped_ratio`, with one ratio for a whole response (GSPO).

    Zheng et al. 2025, arXiv:2507.18071, eqs. 5 and 7. The ratio is the geometric mean of the token ratios and
    stands at each of the response's tokens, so that "sequences" of `token_scale` gives the paper's objective. Every
    token's gradient reaches all tokens, through the mean; the paper's token variant (its eq. 13) is not this. The
    paper clips at 3e-4 below and 4e-4 above 1: a mean moves less than its parts.

    Args:
        logprobs: [N, T] float, under the policy being trained; carries the gradient.
        old_logprobs: [N, T] float, under the policy that sampled.
        advantages: [N, T] float; treated as a constant.
        mask: [N, T] bool, True where the token counts.
        low: how far below 1 the ratio may fall, in (0, 1].
        high: how far above 1 it may rise, > 0.
        dual: a bound > 1 on the ratio of tokens with a negative advantage, or None.

    Returns:
        [N, T], 0 where `mask` is False.
    """
    ratio = sequence_ratio(logprobs, old_logprobs, mask)
    return _clipped_loss(ratio, advantages, mask, low, high, dual)


def token_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """[N, T]: pi / pi_old of each token, 1 where `mask` is False."""
    _check_same_shape(mask, logprobs=logprobs, old_logprobs=old_logprobs)
    return _log_ratio(logprobs, old_logprobs.detach(), mask).exp()


def sequence_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """[N, T]: at each token the geometric mean of its response's token ratios, 1 where `mask` is False.

    Zheng et al. 2025, arXiv:2507.18071, eq. 7.
    """
    _check_same_shape(mask, logprobs=logprobs, old_logprobs=old_logprobs)
    log_ratio = _log_ratio(logprobs, old_logprobs.detach(), mask)
    mean = log_ratio.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(mask, mean, 0.0).exp()


def clip_active(
    ratio: Tensor, advantages: Tensor, *, low: float = 0.2, high: float = 0.2, dual: float | None = None
) -> Tensor:
    """[N, T] bool: the tokens that clipping keeps from being learned from.

    A good one whose `ratio` is above 1 + high, a bad one below 1 - low or, with `dual`, above that.
    """
    active = ((advantages > 0) & (ratio > 1 + high)) | ((advantages < 0) & (ratio < 1 - low))
    return active if dual is None else active | ((advantages < 0) & (ratio > dual))


def policy_gradient(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-A log pi: a loss whose gradient is REINFORCE's (Williams 1992). Its value means nothing.

    Args:
        logprobs: [N, T] float, under the policy being trained; carries the gradient.
        advantages: [N, T] float; treated as a constant.
        mask: [N, T] bool, True where the token counts.

    Returns:
        [N, T], 0 where `mask` is False.
    """
    _check_same_shape(mask, logprobs=logprobs, advantages=advantages)
    counted, learned = (torch.where(mask, values, 0.0) for values in (advantages.detach(), logprobs))
    return -counted * learned


def self_ratio(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-A rho, where rho = pi / pi is 1 and has the gradient of log pi: REINFORCE, with a loss that means something.

    The gradient is `policy_gradient`'s, the value minus what the tokens are credited with. So the released code of Lyu
    et al. 2025, arXiv:2502.06781, writes its loss of wrong responses.

    Args:
        logprobs: [N, T] float, under the policy being trained; carries the gradient.
        advantages: [N, T] float; treated as a constant.
        mask: [N, T] bool, True where the token counts.

    Returns:
        [N, T], 0 where `mask` is False.
    """
    _check_same_shape(mask, advantages=advantages)
    return -torch.where(mask, advantages.detach(), 0.0) * token_ratio(logprobs, logprobs, mask)


def value_error(
    values: Tensor, returns: Tensor, mask: Tensor, *, old_values: Tensor | None = None, clip: float | None = None
) -> Tensor:
    """Half the squared error of a critic: (V - R)^2 / 2, or with `clip` the larger of it and a clipped one.

    max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) / 2, as in the code of Schulman et al. 2017, arXiv:1707.06347
    (the paper has the plain square). Where V has moved more than c towards R, it has no gradient: a critic is held
    near the one that the advantages were made with.

    Args:
        values: [N, T] float, predicted; carries the gradient.
        returns: [N, T] float, what should have been; treated as a constant.
        mask: [N, T] bool, True where the token counts.
        old_values: [N, T] float, before the first step on the batch; needed with `clip`, treated as a constant.
        clip: c > 0, in the units of the values, or None.

    Returns:
        [N, T], 0 where `mask` is False.

    Raises:
        ValueError: `clip` without `old_values`.
    """
    _check_same_shape(mask, values=values, returns=returns)
    values, returns = (torch.where(mask, x, 0.0) for x in (values, returns.detach()))
    squares = (values - returns).square()
    if clip is not None:
        if old_values is None:
            raise ValueError("a value clip needs old_values, which it is measured from")
        _check_same_shape(mask, old_values=old_values)
        squares = torch.maximum(squares, (_near(values, old_values, mask, clip) - returns).square())
    return 0.5 * squares


def value_clip_active(values: Tensor, returns: Tensor, mask: Tensor, old_values: Tensor, clip: float) -> Tensor:
    """[N, T] bool: the tokens at which `value_error` takes the clipped error, which has no gradient there."""
    near = _near(values, old_values, mask, clip)
    return mask & ((near - returns).square() > (values - returns).square())


def kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, estimator: Estimator = "k3") -> Tensor:
    """An estimate of KL(policy || reference) from each token the policy sampled.

    Schulman, "Approximating KL Divergence" (2020, joschu.net/blog/kl-approx.html). With d = log pi_ref - log pi:
    k1 = -d and k3 = exp(d) - 1 - d are unbiased, k2 = d^2 / 2 nearly so for small d; k1 may be negative, the others
    not. As losses on the policy's own samples they are three different things: k1's expected gradient is 0, k2's is
    that of KL(policy || reference), k3's that of KL(reference || policy).

    Args:
        logprobs: [N, T] float, under the policy that sampled the tokens; carries the gradient.
        ref_logprobs: [N, T] float, under the reference; treated as a constant.
        mask: [N, T] bool, True where the token counts.
        estimator: "k1", "k2" or "k3". The exponent of k3 is not clamped: a clamp would stop pulling exactly those
            tokens that are farthest from the reference.

    Returns:
        [N, T] nats, 0 where `mask` is False.

    Raises:
        ValueError: another estimator.
    """
    _check_same_shape(mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    d = _log_ratio(ref_logprobs.detach(), logprobs, mask)
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return 0.5 * d.square()
    if estimator == "k3":
        return d.expm1() - d
    raise ValueError(f"estimator must be 'k1', 'k2' or 'k3', not {estimator!r}")


def token_scale(mask: Tensor, average: Average, length: int | None = None) -> Tensor:
    """What to multiply each token's loss by, so that the sum is the wanted mean.

    Made once for all rows of an optimizer step; then any micro-batches add up to the same gradient. A response
    without a token that counts is not counted either.

    Args:
        mask: [N, T] bool, True where the token counts.
        average: "tokens": every token weighs the same (DAPO, Yu et al. 2025, arXiv:2503.14476, eq. 12). "sequences":
            every response weighs the same, and within it every token (GRPO, Shao et al. 2024, arXiv:2402.03300, eq.
            3). "constant": tokens are summed and divided by responses times `length`, so that a token's weight
            depends on nobody's length (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783, section 3.2).
        length: for "constant", at least 1; usually the most tokens a response may have.

    Returns:
        [N, T] float32, 0 where `mask` is False.

    Raises:
        ValueError: another average, or a `length` without "constant" or the reverse.
    """
    if (average == "constant") != (length is not None):
        raise ValueError(f"length belongs to average='constant', not to average={average!r} with length={length}")
    tokens = mask.sum(dim=1, keepdim=True)
    rows = (tokens > 0).sum()
    if average == "tokens":
        weight = tokens.sum()
    elif average == "sequences":
        weight = tokens * rows
    elif length is not None:
        weight = rows * length
    else:
        raise ValueError(f"average must be 'tokens', 'sequences' or 'constant', not {average!r}")
    return mask / weight.clamp(min=1)


def _log_ratio(above: Tensor, below: Tensor, mask: Tensor) -> Tensor:
    # Mask before anything nonlinear: padding may hold -inf, and the gradient of a discarded NaN is still NaN.
    return torch.where(mask, above - below, 0.0)


def _near(values: Tensor, old_values: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Values no farther than `clip` from the old ones."""
    old = torch.where(mask, old_values.detach(), 0.0)
    return torch.minimum(torch.maximum(values, old - clip), old + clip)


def _clipped_loss(
    ratio: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float, dual: float | None
) -> Tensor:
    _check_same_shape(mask, advantages=advantages)
    advantages = torch.where(mask, advantages.detach(), 0.0)
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    if dual is not None:
        gain = torch.maximum(gain, dual * advantages.clamp(max=0.0))  # a good token's gain is above 0 anyway
    return -gain


def _check_same_shape(like: Tensor, **tensors: Tensor) -> None:
    """Raises ValueError before broadcasting makes an [N] of an [N, T] unseen."""
    for name, tensor in tensors.items():
        if tensor.shape != like.shape:
            raise ValueError(f"{name} must be of shape {tuple(like.shape)}, not {tuple(tensor.shape)}")
