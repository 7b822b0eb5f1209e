"""How new something is: counts, elliptical bonuses, distillation errors, and their combinations. Pure functions.

States come in sequences, of which each is compared with those before it, or in groups that have no order, such as the
responses to a prompt: there each is compared with all others. Every bonus is at least 0, and larger for what is newer.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

How: TypeAlias = Literal["inverse", "sqrt", "first"]


def visits(keys: Tensor, group: Tensor) -> Tensor:
    """How often a state has been met in its episode, in the order they stand in, the present visit included.

    Args:
        keys: [N] int64, equal numbers are equal states.
        group: [N] int64, equal numbers belong to one episode; all equal = counted over everything.

    Returns:
        [N] int64; 1 where it is new.
    """
    _check_same_shape(group, keys=keys)
    return _alike(keys, group).tril().sum(dim=1)


def copies(keys: Tensor, group: Tensor) -> Tensor:
    """How many of a group have a state's key, itself included: 1 more than leaving it out would find.

    Args:
        keys: [N] int64, equal numbers are equal states.
        group: [N] int64, equal numbers are compared with each other; in any order.

    Returns:
        [N] int64, at least 1.
    """
    _check_same_shape(group, keys=keys)
    return _alike(keys, group).sum(dim=1)


def count_bonus(counts: Tensor, how: How) -> Tensor:
    """What a count is worth: 1 / n ("inverse"), 1 / sqrt(n) ("sqrt") or 1 where n is 1 and else 0 ("first").

    "sqrt" of `visits` over all training is the global bonus, "first" of those within an episode the episodic one of
    Henaff et al. 2023, arXiv:2306.03236. Of exchangeable states "first" is a fair draw among copies: averaged over
    their orders it is "inverse" of `copies`, which has the same mean without the noise of the draw.

    Args:
        counts: any shape, int64, at least 1: the present visit counts.
        how: see above.

    Returns:
        The shape of `counts`, float32 in [0, 1].

    Raises:
        ValueError: a count is below 1, or `how` is none of these.
    """
    if bool((counts < 1).any()):
        raise ValueError("a count is below 1; the present visit has to be counted too")
    if how == "first":
        return (counts == 1).float()
    if how == "sqrt":
        return counts.float().rsqrt()
    if how == "inverse":
        return 1 / counts.float()
    raise ValueError(f"how must be 'inverse', 'sqrt' or 'first', not {how!r}")


def elliptical_step(inverse: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """The elliptical bonus of the next state, and the inverse covariance with it (Sherman and Morrison 1950).

    b = phi' C^-1 phi, where C = ridge I + the sum of phi_i phi_i' over the states before (E3B; Henaff et al. 2022,
    arXiv:2210.05805). Begin an episode with `inverse` = I / ridge: the first bonus is then |phi|^2 / ridge.
    In float32 the error grows with the steps; compute it anew every thousand or so.

    Args:
        inverse: [..., D, D] float, C^-1 before this state; symmetric.
        features: [..., D] float, phi.

    Returns:
        [...], and the new inverse [..., D, D].
    """
    u = (inverse @ features[..., None])[..., 0]
    # At least 0, but for rounding, where features are large: then nothing is new, and there is nothing to take away.
    bonus = (features * u).sum(dim=-1).clamp(min=0)
    # The same factor on both sides keeps it symmetric to the last bit.
    v = torch.where((bonus > 0)[..., None], u / (1 + bonus).sqrt()[..., None], 0.0)
    return bonus, torch.addcmul(inverse, v[..., :, None], v[..., None, :], value=-1)


def elliptical_sequence(features: Tensor, ridge: float) -> Tensor:
    """The elliptical bonus of every state of an episode, without a matrix of features by features.

    The same numbers as `elliptical_step`, by the kernel form (Woodbury): b_t = (k_tt - k_t' (K + ridge I)^-1 k_t) /
    ridge, K and k_t being inner products with the states before. What is taken from k_tt is the sum of squares left of
    the diagonal in row t of one Cholesky factor of K + ridge I; nothing is lost where b_t is small for features that
    are. For episodes shorter than D.

    Args:
        features: [T, D] float, in order.
        ridge: above 0.

    Returns:
        [T]. The sum of log(1 + b_t) is log det(I + features' features / ridge), whatever the order.
    """
    factor: Tensor = torch.linalg.cholesky(_gram(features, ridge))
    explained = factor.tril(-1).square().sum(dim=1)
    return ((features.square().sum(dim=1) - explained) / ridge).clamp(min=0)


def elliptical_leave_one_out(features: Tensor, group: Tensor, ridge: float) -> Tensor:
    """The elliptical bonus of every member of an unordered group, compared with all others of it.

    b_i = phi_i' (ridge I + sum over j != i of phi_j phi_j')^-1 phi_i = h_i / (1 - h_i) with the leverages
    h_i = phi_i' (ridge I + sum over all phi_j phi_j')^-1 phi_i, by Sherman and Morrison. Computed in the kernel form,
    h_i = [K (K + ridge I)^-1]_ii and 1 - h_i = ridge [(K + ridge I)^-1]_ii, of which the one loses nothing where h_i is
    near 0, the other where it is near 1.

    Args:
        features: [N, D] float.
        group: [N] int64, equal numbers are compared with each other; in any order.
        ridge: above 0.

    Returns:
        [N]; |phi|^2 / ridge for one that is alone in its group.
    """
    bonus = torch.zeros_like(features[:, 0])
    for rows in ((group == number).nonzero().squeeze(1) for number in group.unique()):
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(_gram(features[rows], ridge)))
        leverage = (features[rows] @ features[rows].T * inverse).sum(dim=1)
        bonus[rows] = (leverage / (ridge * inverse.diagonal())).clamp(min=0)
    return bonus


def distillation_error(predicted: Tensor, target: Tensor) -> Tensor:
    """How badly a network predicts what a random one says of a state: |f - f_random|^2 (RND).

    Burda et al. 2018, arXiv:1810.12894, section 2.2. Some released code pays the norm and not its square.

    Args:
        predicted: [N, E] float, of the network that learns; carries the gradient.
        target: [N, E] float, of the one that does not.

    Returns:
        [N].
    """
    _check_same_shape(predicted, target=target)
    return (predicted - target.detach()).square().sum(dim=1)


def clipped_difference(after: Tensor, before: Tensor, c: float) -> Tensor:
    """[after - c before]_+: how much less known the state entered is than the one left (NovelD).

    Zhang et al. 2021, "NovelD: A Simple yet Effective Exploration Criterion", eq. 1, without its factor for what is new
    in the episode. c = 0 gives `after`.

    Args:
        after: any shape, at least 0: the novelty of the state entered.
        before: the same shape: that of the state left.
        c: at least 0.

    Returns:
        That shape.
    """
    _check_same_shape(after, before=before)
    return (after - c * before).clamp(min=0)


def impact(after: Tensor, before: Tensor) -> Tensor:
    """|phi' - phi|: how far an action moved the features (RIDE; Raileanu, Rocktäschel 2020, arXiv:2002.12292, eq. 4).

    The paper divides by the square root of the visits in the episode.

    Args:
        after: [..., D] float, features of the state entered.
        before: [..., D] float, of the state left.

    Returns:
        [...].
    """
    _check_same_shape(after, before=before)
    return (after - before).square().sum(dim=-1).sqrt()


def categorical_kl(logits: Tensor, other: Tensor) -> Tensor:
    """KL(p || q) of two distributions over A actions (as AGAC's bonus; Flet-Berliac et al. 2021, arXiv:2102.04376).

    Args:
        logits: [..., A] float, finite, of p.
        other: [..., A] float, finite, of q.

    Returns:
        [...] nats, at least 0.
    """
    _check_same_shape(logits, other=other)
    logp, logq = logits.log_softmax(dim=-1), other.log_softmax(dim=-1)
    return (logp.exp() * (logp - logq)).sum(dim=-1).clamp(min=0)  # rounding may take it below


def in_deviations(bonus: Tensor, deviation: float) -> Tensor:
    """A bonus in standard deviations, without centering (Burda et al. 2018, section 2.4); as it is if there is none.

    Not centered, a bonus stays at least 0: what everything has in common is then paid too.

    Args:
        bonus: any shape.
        deviation: of bonuses so far, at least 0.

    Returns:
        The shape of `bonus`.
    """
    return bonus / deviation if deviation > 0 else bonus


def released_moments(bonus: Tensor) -> tuple[float, float, float]:
    """Moments of a rollout's bonuses as the released code of Henaff et al. 2023 has them, with T for T N values.

    All T N values are summed, and divided by T. Over many rollouts the root of squares / count is therefore not the
    standard deviation s of bonuses of mean m, but sqrt(N (s^2 + (N - 1)^2 m^2)): 10 in place of 0.5 for a bonus that
    is 1 half the time in 8 environments. For comparison with numbers that were made with it.

    Args:
        bonus: [T, N] float.

    Returns:
        What stands for their count, mean and summed squared distances from it.
    """
    values, count = bonus.cpu().double(), len(bonus)
    mean = float(values.sum()) / count
    return float(count), mean, float((values - mean).square().sum())


def product(bonuses: Tensor) -> Tensor:
    """New in every sense at once: the product, as of an episodic and a global bonus (Henaff et al. 2023).

    What each is measured in does not matter: a factor on one is a factor on all.

    Args:
        bonuses: [K, N] float, at least 0; NaN = unknown.

    Returns:
        [N]; NaN where one is unknown.
    """
    return bonuses.prod(dim=0)


def weighted_sum(bonuses: Tensor, weights: Tensor | None = None) -> Tensor:
    """New in some sense: the weighted sum. A global bonus fades over training and the sum turns into the episodic one.

    Args:
        bonuses: [K, N] float, at least 0; NaN = unknown.
        weights: [K]; left out, all 1.

    Returns:
        [N]; NaN where one is unknown.
    """
    return (bonuses if weights is None else weights[:, None] * bonuses).sum(dim=0)


def _alike(keys: Tensor, group: Tensor) -> Tensor:
    """[N, N] bool: the same key in the same group."""
    return (keys[:, None] == keys) & (group[:, None] == group)


def _gram(features: Tensor, ridge: float) -> Tensor:
    """Inner products, with the ridge on the diagonal."""
    if not 0 < ridge < float("inf"):
        raise ValueError(f"ridge is {ridge}; it must be above 0, and finite")
    return features @ features.T + ridge * torch.eye(len(features), dtype=features.dtype, device=features.device)


def _check_same_shape(like: Tensor, **tensors: Tensor) -> None:
    """Raises ValueError before broadcasting makes an [N, N] of an [N] unseen."""
    for name, tensor in tensors.items():
        if tensor.shape != like.shape:
            raise ValueError(f"{name} must be of shape {tuple(like.shape)}, not {tuple(tensor.shape)}")
