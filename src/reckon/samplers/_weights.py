"""From accuracies to weights of domains, and from weights to whole numbers of problems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from reckon.errors import InputError
from reckon.types import Rng

Rounding: TypeAlias = Literal["heaviest", "chance"]
Value: TypeAlias = Literal["gap", "variance"]
Initial: TypeAlias = Literal["average", "inverse", "softmax_inverse"]


def domain_weights(
    accuracy: Sequence[float],
    *,
    tau: float,
    eps: float = 0.0,
    floor: float = 0.0,
    invert: bool = False,
    value: Value = "gap",
) -> list[float]:
    """How much of a batch each domain gets: the more, the worse it goes (RuleReasoner, arXiv:2506.08672, Algorithm 1).

    w_d is proportional to exp(v_d / tau) + eps with v_d = 1 - accuracy_d; inside the exponential eps would cancel.

    Args:
        accuracy: D numbers, in [0, 1] except where chance or a ceiling they are measured by was a wrong guess.
        tau: temperature, above 0; near 0 all goes to the worst domain, large gives all the same.
        eps: 0 or more; draws the weights together, though it is no minimum, for the exponential is 1 or more.
        floor: least weight of a domain, from 0 to 1 / D: the rule divides what the floors leave.
        invert: the control: exp(accuracy_d / tau) + eps, which favors what goes well.
        value: "variance" is v_d = accuracy_d (1 - accuracy_d), which favors what goes right about half the time, and
            inverted 1/4 less that.

    Returns:
        D weights that sum to 1.
    """
    found = np.asarray(accuracy, dtype=np.float64)
    if value == "variance":
        found = found.clip(0, 1)
        spread = found * (1 - found)
        return normalized_weights(1 / 4 - spread if invert else spread, tau=tau, eps=eps, floor=floor)
    return normalized_weights(found if invert else 1 - found, tau=tau, eps=eps, floor=floor)


def normalized_weights(value: np.ndarray, *, tau: float, eps: float = 0.0, floor: float = 0.0) -> list[float]:
    """[D]: exp(value / tau) + eps, each divided by the sum of all; `floor` as in `domain_weights`."""
    top = value.max()
    unnormalized = np.exp((value - top) / tau) + eps * np.exp(-top / tau)  # as it is, exp overflows at a small tau
    return _above(floor, unnormalized / unnormalized.sum())


def initial_weights(
    sizes: Sequence[int], how: Literal["inverse", "softmax_inverse"], *, floor: float = 0.0
) -> list[float]:
    """Weights that know only how many problems each domain has, as RuleReasoner's released code offers them.

    Args:
        sizes: D numbers of problems, each 1 or more.
        how: w_d is proportional to 1 / sqrt(size_d), or to exp(1 / sqrt(size_d)).
        floor: as in `domain_weights`.

    Returns:
        D weights that sum to 1.
    """
    inverse = 1 / np.sqrt(np.asarray(sizes, dtype=np.float64))
    if how == "softmax_inverse":
        return normalized_weights(inverse, tau=1.0, floor=floor)
    return _above(floor, inverse / inverse.sum())


def capped_weights(weights: Sequence[float], caps: Sequence[float]) -> list[float]:
    """Weights of which none is above its cap: what is too much goes to the others in proportion to their weights.

    Args:
        weights: D numbers that sum to 1.
        caps: D greatest weights, above 0, that sum to 1 or more.

    Returns:
        D weights that sum to 1; `weights` themselves where none was above its cap.
    """
    found, most = np.array(weights, dtype=np.float64), np.asarray(caps, dtype=np.float64)
    free = np.ones(len(found), dtype=bool)
    while (over := free & (found > most)).any():
        found[over] = most[over]
        free &= ~over
        if free.any():
            left, total = 1 - found[~free].sum(), found[free].sum()
            # At a small tau the others may have underflown to 0.
            found[free] = found[free] * (left / total) if total > 0 else left / free.sum()
    return [float(weight) for weight in found]


def _above(floor: float, weights: np.ndarray) -> list[float]:
    return [float(floor + (1 - len(weights) * floor) * weight) for weight in weights]


def domain_counts(weights: Sequence[float], n: int, rng: Rng | None = None) -> list[int]:
    """How many of n problems each domain gives.

    Args:
        weights: D numbers of 0 or more that sum to 1.
        n: problems in all.
        rng: None = the paper's rule: n w_d rounded down, and the places left over go one each to the domains in order
            of decreasing weight, the first of equals before the others. With few places it gives light domains none at
            all. Given, chance rounds n w_d up or down so that n w_d is what is expected (systematic sampling).

    Returns:
        D counts of 0 or more that sum to n.
    """
    shares = n * np.asarray(weights, dtype=np.float64)
    if rng is not None:
        edges = np.floor(np.cumsum(shares) + rng.numpy().random()).astype(int)
        edges[-1] = n
        return [int(count) for count in np.diff(np.minimum(edges, n), prepend=0)]
    counts = np.floor(shares + 1e-9).astype(int)  # 49 times 1/49 is a little under 1
    heaviest = sorted(range(len(counts)), key=lambda d: -weights[d])
    for d in heaviest[: n - int(counts.sum())]:
        counts[d] += 1
    return [int(count) for count in counts]


def check_rule(owner: str, domains: int, *, tau: float, floor: float, rounding: str) -> None:
    """Raises InputError for settings that no rule can have."""
    if not tau > 0:
        raise InputError(f"{owner}: `tau` is {tau}; it must be above 0.")
    if not 0 <= floor <= 1 / domains:
        raise InputError(
            f"{owner}: `floor` is {floor}; with {domains} domains it must lie between 0 and {1 / domains:g}."
        )
    check_rounding(owner, rounding)


def check_rounding(owner: str, rounding: str) -> None:
    """Raises InputError for a way to round that there is not."""
    if rounding not in ("heaviest", "chance"):
        raise InputError(f"{owner}: `rounding` is {rounding!r}; it must be heaviest or chance.")
