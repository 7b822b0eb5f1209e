"""One number out of several rewards: transforms, combinations and the reference levels they need. Pure functions.

K properties (or reward models), N responses. NaN is "does not apply" and is left out of every sum, mean and minimum: a
property that does not apply neither helps nor hurts. Where nothing applies the result is NaN.

`z` is a reward less its reference level, r - r_ref: the log-odds that the response beats the reference, if rewards are
Bradley-Terry's. Good and not good are computed from log-odds, never from probabilities: sigmoid(-200) is 0 in float32,
and its logarithm is lost. All functions are finite, with finite gradients, for |z| up to 1e4 in float32.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Level = Literal["quantile", "gaussian", "mean", "median"]


def linear(rewards: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over properties of w_k r_k: what every library does, and the baseline of arXiv:2402.00742.

    Args:
        rewards: [K, N] float; NaN = does not apply.
        weights: [K]; left out, all 1.

    Returns:
        [N]; NaN where no property applies.
    """
    return _sum_given(rewards, _filled(rewards), weights)


def and_(z: Tensor, weights: Tensor | None = None) -> Tensor:
    """Log-probability that all properties are good: sum over k of w_k logsigmoid(z_k), at most 0 (LSC).

    Wang et al. 2024, "Transforming and Combining Rewards for Aligning Large Language Models", arXiv:2402.00742: with
    weights 1 and properties that are independent given the response. Other weights temper it. With one property it is
    the transform of a single reward.

    Args:
        z: [K, N] float, log-odds of each property; NaN = does not apply, which counts as good.
        weights: [K], at least 0; left out, all 1.

    Returns:
        [N]; NaN where no property applies.
    """
    return _sum_given(z, logsigmoid(_filled(z)), weights)


def or_(z: Tensor) -> Tensor:
    """Log-probability that at least one property is good: log(1 - prod over k of sigmoid(-z_k)), the dual of `and_`.

    Args:
        z: [K, N] float, log-odds of each property; NaN = does not apply, which does not count as good here, or it would
            make everything true.

    Returns:
        [N]; NaN where no property applies.
    """
    return logsigmoid(or_odds(z))


def not_(z: Tensor) -> Tensor:
    """Log-probability that a property is not good: logsigmoid(-z). Any shape; NaN stays NaN."""
    return logsigmoid(-z)


def and_odds(z: Tensor, weights: Tensor | None = None) -> Tensor:
    """Log-odds of `and_`, to nest: log p - log(1 - p) with log p = and_(z, weights).

    Args:
        z: [K, N] float, log-odds of each property; NaN = does not apply.
        weights: [K], above 0; left out, all 1.

    Returns:
        [N]; NaN where no property applies.
    """
    all_good = and_(z, weights)
    # Where p is within rounding of 1, 1 - p is the sum of the w_k (1 - p_k): the products in it are smaller than the
    # rounding. log1mexp would give -inf there once all_good underflows to 0.
    tiny = math.sqrt(torch.finfo(z.dtype).tiny)
    near = all_good > -tiny
    scaled = logsigmoid(-_filled(z))
    scaled = scaled if weights is None else scaled + weights.to(z.dtype).log()[:, None]
    failing = torch.logsumexp(torch.where(z.isnan(), -torch.inf, scaled), dim=0)
    rest = torch.where(near, failing, log1mexp(torch.where(near | all_good.isnan(), -1.0, all_good)))
    return all_good - rest


def or_odds(z: Tensor) -> Tensor:
    """[N]: log-odds of `or_`, to nest. By De Morgan: none is good if and only if all are not good."""
    return -and_odds(-z)


def log1mexp(a: Tensor) -> Tensor:
    """log(1 - exp(a)) for a < 0, of any shape.

    Maechler 2012, "Accurately Computing log(1 - exp(-|a|))", eq. 7: expm1 keeps the digits near 0, log1p those far
    below, and each loses them in the other's place. At 0 the value is -inf.
    """
    near = a > -math.log(2.0)
    close = a.expm1().neg().log()
    # This one sees only arguments of its own: near 0 its gradient is infinite, and discarded it would be inf times 0.
    far = torch.log1p(-torch.where(near, -1.0, a).exp())
    return torch.where(near, close, far)


def log_odds(probabilities: Tensor, eps: float) -> Tensor:
    """Log-odds of probabilities clipped to [eps, 1 - eps], of any shape; NaN stays NaN.

    A rule that says 0 or 1 would have log-probability -inf, and one failure would outweigh everything: `eps` is how
    sure a rule may be, and log(eps) is the most a failure can cost.
    """
    clipped = probabilities.clamp(eps, 1 - eps)
    return clipped.log() - (-clipped).log1p()


def min_(z: Tensor) -> Tensor:
    """The worst property: the least of z_k over k.

    Args:
        z: [K, N] float; NaN = does not apply.

    Returns:
        [N]; NaN where no property applies.
    """
    least = torch.where(z.isnan(), torch.inf, z).amin(dim=0)
    return torch.where(_any_given(z), least, torch.nan)


def softmin(z: Tensor, temperature: float) -> Tensor:
    """-t log of the mean over k of exp(-z_k / t): the minimum for t near 0, the mean for a large t.

    Args:
        z: [K, N] float; NaN = does not apply.
        temperature: t > 0, in the units of z.

    Returns:
        [N]; NaN where no property applies.
    """
    _check_positive(temperature=temperature)
    count = (~z.isnan()).sum(dim=0)
    total = torch.logsumexp(torch.where(z.isnan(), -torch.inf, -z / temperature), dim=0)
    applies = count > 0
    mean = torch.where(applies, total, 0.0) - count.clamp(min=1).to(z.dtype).log()
    return torch.where(applies, -temperature * mean, torch.nan)


def ensemble_min(rewards: Tensor) -> Tensor:
    """The most pessimistic of K reward models of one property (worst-case optimization).

    Coste et al. 2024, "Reward Model Ensembles Help Mitigate Overoptimization", arXiv:2310.02743. As `min_`, but of
    rewards on one scale.
    """
    return min_(rewards)


def ensemble_uwo(rewards: Tensor, coef: float) -> Tensor:
    """Mean less coef times variance over K reward models of one property (uncertainty-weighted optimization).

    Coste et al. 2024, arXiv:2310.02743. The variance is the population's, 1/K.

    Args:
        rewards: [K, N] float; NaN = this model has no opinion.
        coef: what disagreement costs, at least 0.

    Returns:
        [N]; NaN where no model has an opinion.
    """
    given = ~rewards.isnan()
    count = given.sum(dim=0).clamp(min=1)
    mean = _filled(rewards).sum(dim=0) / count
    variance = torch.where(given, _filled(rewards) - mean, 0.0).square().sum(dim=0) / count
    return torch.where(given.any(dim=0), mean - coef * variance, torch.nan)


def product(probabilities: Tensor) -> Tensor:
    """Probability that all properties are good, as `and_` without the logarithm: it fades where one is near 0.

    Args:
        probabilities: [K, N] float in [0, 1]; NaN = does not apply.

    Returns:
        [N]; NaN where no property applies.
    """
    whole = torch.where(probabilities.isnan(), 1.0, probabilities).prod(dim=0)
    return torch.where(_any_given(probabilities), whole, torch.nan)


def sigmoid_centered(rewards: Tensor, references: Tensor) -> Tensor:
    """Mean over base samples of sigmoid(r - r_ref): the chance to beat one of them, in [0, 1] (PAR).

    Fu et al. 2025, "Reward Shaping to Mitigate Reward Hacking in RLHF", arXiv:2502.18770.

    Args:
        rewards: [N] float.
        references: [J, N] float, rewards of base samples for the same prompts; NaN = fewer samples.

    Returns:
        [N]; NaN where the reward is, or no sample is.
    """
    return _mean_given((rewards - references).sigmoid())


def quantile_reward(rewards: Tensor, references: Tensor) -> Tensor:
    """Share of base samples that the response is at least as good as, in [0, 1].

    Matrenok et al. 2025, "Quantile Reward Policy Optimization", arXiv:2507.08068: P(r(y') <= r(y)) for y' of the base
    model. It has no gradient.

    Args:
        rewards: [N] float.
        references: [J, N] float, rewards of base samples for the same prompts; NaN = fewer samples.

    Returns:
        [N]; NaN where the reward is, or no sample is.
    """
    beaten = (references <= rewards).to(rewards.dtype)
    return _mean_given(torch.where(references.isnan() | rewards.isnan(), torch.nan, beaten))


def zscore(rewards: Tensor, group: Tensor, eps: float = 1e-4) -> Tensor:
    """Distance from the group's mean in the group's standard deviations: (r - mean) / (std + eps).

    Args:
        rewards: [N] float; NaN = does not apply.
        group: [N] int64, equal numbers answer the same prompt; in any order.
        eps: added to the standard deviation, which is the sample's, with n - 1.

    Returns:
        [N]; exactly 0 in a group of equal rewards or of one, NaN where the reward is.
    """
    place = torch.unique(group, return_inverse=True)[1]
    given = ~rewards.isnan()

    def total(values: Tensor) -> Tensor:
        return torch.zeros_like(rewards).index_add(0, place, torch.where(given, values, 0.0))[place]

    # From the group's smallest: equal rewards are then at exactly 0, whatever rounding their mean has.
    lowest = torch.full_like(rewards, torch.inf).scatter_reduce(
        0, place, torch.where(given, rewards, torch.inf), "amin"
    )[place]
    above = rewards - lowest
    count = total(torch.ones_like(rewards))
    off = above - total(above) / count
    std = (total(off.square()) / (count - 1).clamp(min=1)).sqrt()
    return torch.where(std > 0, off / (std + eps), torch.where(given, 0.0, torch.nan))


def standardized(rewards: Tensor, mean: Tensor | float, std: Tensor | float, eps: float = 1e-5) -> Tensor:
    """(r - mean) / (std + eps) with statistics from elsewhere: running ones ("meanstd") or base samples'."""
    return (rewards - mean) / (std + eps)


def updated_moments(
    count: float, mean: float, squares: float, values: Tensor, *, decay: float = 1.0
) -> tuple[float, float, float]:
    """How many values there were, their mean and their summed squared distances from it, with more values among them.

    Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances": two
    samples together, in double precision. sqrt(squares / count) is the standard deviation.

    Args:
        count: 0 before the first.
        mean: 0 before the first.
        squares: 0 before the first.
        values: any shape; NaN = unknown, and left out.
        decay: what the values before still count, in (0, 1]; below 1, old ones are forgotten.

    Returns:
        The new count, mean and squares; as they were where no value is known.
    """
    known = values[~values.isnan()].cpu().double()  # Metal has no float64
    if not len(known):
        return count, mean, squares
    center = float(known.mean())
    others = (float(len(known)), center, float((known - center).square().sum()))
    return merged_moments((count, mean, squares), others, decay=decay)


def merged_moments(
    moments: tuple[float, float, float], others: tuple[float, float, float], *, decay: float = 1.0
) -> tuple[float, float, float]:
    """Count, mean and summed squared distances of two samples together; see `updated_moments`.

    Args:
        moments: of the values before.
        others: of those that join them, of which there is at least one.
        decay: what the values before still count, in (0, 1].
    """
    count, mean, squares = decay * moments[0], moments[1], decay * moments[2]
    total, off = count + others[0], others[1] - mean
    return total, mean + off * others[0] / total, squares + others[2] + off**2 * count * others[0] / total


def minmax(rewards: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """(r - low) / (high - low), 0 where high equals low. Rewards outside the range are not clipped."""
    width = torch.as_tensor(high, dtype=rewards.dtype) - torch.as_tensor(low, dtype=rewards.dtype)
    scaled = (rewards - low) / torch.where(width > 0, width, 1.0)
    return torch.where(rewards.isnan() | (width > 0), scaled, 0.0)


def clip(rewards: Tensor, low: float, high: float) -> Tensor:
    """Rewards held in [low, high]; NaN stays NaN."""
    return rewards.clamp(low, high)


def constrained(rewards: Tensor, costs: Tensor, limits: Tensor, multipliers: Tensor) -> Tensor:
    """The Lagrangian of "maximize r where each mean cost stays below its limit": r - sum over k of lam_k (c_k - d_k).

    Dai et al. 2024, "Safe RLHF", arXiv:2310.12773, eq. 9 less its normalization.

    Args:
        rewards: [N] float.
        costs: [K, N] float; NaN = does not apply.
        limits: [K], d_k.
        multipliers: [K], lam_k, at least 0; see `updated_multipliers`.

    Returns:
        [N]; NaN where the reward is. Costs that do not apply charge nothing.
    """
    excess = torch.where(costs.isnan(), 0.0, costs - limits[:, None])
    return rewards - (multipliers[:, None] * excess).sum(dim=0)


def updated_multipliers(multipliers: Tensor, costs: Tensor, limits: Tensor, lr: float) -> Tensor:
    """max(0, lam_k + lr (mean of c_k - d_k)): a violated limit costs more next time, a slack one less.

    Args:
        multipliers: [K], at least 0.
        costs: [K, N] float; NaN = does not apply.
        limits: [K], d_k.
        lr: step size, above 0.

    Returns:
        [K]; a multiplier whose cost applies nowhere stays as it is.
    """
    given = ~costs.isnan()
    mean = torch.where(given, costs, 0.0).sum(dim=1) / given.sum(dim=1).clamp(min=1)
    moved = (multipliers + lr * (mean - limits)).clamp(min=0)
    return torch.where(given.any(dim=1), moved, multipliers)


def normalize_then_sum(
    rewards: Tensor, group: Tensor, weights: Tensor | None = None, *, eps: float = 1e-4, whiten: bool = True
) -> Tensor:
    """Each reward's z-score within its group, then the weighted sum, then the whole batch to mean 0 and deviation 1.

    GDPO, Liu et al. 2026, arXiv:2601.05242. Summed first, as GRPO does, two rewards that differ both or one alone give
    the same advantage; normalized first they do not.

    Args:
        rewards: [K, N] float; NaN = does not apply.
        group: [N] int64, equal numbers answer the same prompt.
        weights: [K]; left out, all 1.
        eps: added to every standard deviation, which is the sample's.
        whiten: normalize over the batch in the end, which keeps the size of advantages apart from the number of
            rewards.

    Returns:
        [N]; NaN where no reward applies.
    """
    scores = torch.stack([zscore(row, group, eps) for row in rewards])
    total = _sum_given(scores, _filled(scores), weights)
    return zscore(total, torch.zeros_like(group), eps) if whiten else total


def level(samples: Tensor, how: Level, q: float = 0.85, *, sample_std: bool = False) -> Tensor:
    """The reference level r_ref of J base samples' rewards: what a response must beat to be good.

    "quantile": the q-quantile, linear between samples (arXiv:2402.00742 uses 0.85). "gaussian": mean + z_q std, where
    z_q is the normal's quantile (1.0364334 for 0.85); needs fewer samples. The higher the level, the nearer LSC is to
    the raw reward; the lower, the sooner it saturates.

    Args:
        samples: [J, ...] float; NaN = fewer samples.
        how: which level.
        q: in (0, 1), for "quantile" and "gaussian".
        sample_std: divide by J - 1, not J, in the standard deviation of "gaussian".

    Returns:
        [...]; NaN where there is no sample.
    """
    if not 0 < q < 1:
        raise ValueError(f"q must lie between 0 and 1, not {q}")
    if how == "quantile":
        return torch.nanquantile(samples, q, dim=0)
    if how == "median":
        return torch.nanquantile(samples, 0.5, dim=0)
    mean = _mean_given(samples)
    if how == "mean":
        return mean
    given = ~samples.isnan()
    squares = torch.where(given, (samples - mean).square(), 0.0).sum(dim=0)
    std = (squares / (given.sum(dim=0) - int(sample_std)).clamp(min=1)).sqrt()
    z_q: Tensor = torch.special.ndtri(torch.tensor(q, dtype=samples.dtype))
    return mean + z_q * std


def _any_given(values: Tensor) -> Tensor:
    return (~values.isnan()).any(dim=0)


def _filled(values: Tensor) -> Tensor:
    """0 for NaN, before anything is computed from it: the gradient of a discarded NaN is still NaN."""
    return torch.where(values.isnan(), 0.0, values)


def _sum_given(given: Tensor, terms: Tensor, weights: Tensor | None) -> Tensor:
    """[N]: sum of w_k terms_k over the k where `given` is no NaN."""
    weighted = terms if weights is None else weights.to(terms.dtype)[:, None] * terms
    return torch.where(_any_given(given), torch.where(given.isnan(), 0.0, weighted).sum(dim=0), torch.nan)


def _mean_given(values: Tensor) -> Tensor:
    given = ~values.isnan()
    mean = torch.where(given, values, 0.0).sum(dim=0) / given.sum(dim=0).clamp(min=1)
    return torch.where(given.any(dim=0), mean, torch.nan)


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be above 0, not {number}")
