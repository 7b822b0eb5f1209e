"""What a study must show, as rules that are written down before it is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from reckon.evaluate import paired_difference

ByArm: TypeAlias = Mapping[str, Mapping[str, float]]  # what one seed found: arm to metric to number
Verdict: TypeAlias = Literal["seen", "not seen", "not testable here"]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A number that every seed gives by itself, so that arms are compared seed by seed, and how large it must be.

    The mean over seeds must be `least` or more and lie two standard errors above 0. With `within` instead, the effect
    must be as good as absent: the mean and two standard errors around it lie between -within and within.
    """

    says: str  # "accuracy at step 15, format only less correctness"
    of: Callable[[ByArm], float]
    least: float = 0.0
    within: float | None = None

    @property
    def rule(self) -> str:
        """The rule in words."""
        if self.within is not None:
            return f"mean and two standard errors within ±{self.within:g}"
        return f"mean at least {self.least:g}, and two standard errors above 0"


def less(
    arm: str, other: str, metric: str, *, says: str = "", least: float = 0.0, within: float | None = None
) -> Effect:
    """By how much a number of one arm lies above that of another; `says` is what to call it, if not by its name."""
    return Effect(
        says=f"{says or metric}: {arm} less {other}",
        of=lambda found: found[arm][metric] - found[other][metric],
        least=least,
        within=within,
    )


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence that is seen if all of its effects are."""

    says: str
    effects: tuple[Effect, ...] = ()  # none: it cannot be tested here
    why: str = ""  # why not


@dataclass(frozen=True, kw_only=True)
class Found:
    """An effect as it came out."""

    effect: Effect
    mean: float
    error: float  # standard error over seeds
    seeds: int

    @property
    def holds(self) -> bool:
        """Whether it is what the rule asks for."""
        if self.effect.within is not None:
            return abs(self.mean) + 2 * self.error <= self.effect.within
        return self.mean >= self.effect.least and self.mean - 2 * self.error > 0


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim, its effects as they came out, and the verdict."""

    claim: Claim
    found: tuple[Found, ...]
    verdict: Verdict
    why: str  # of "not testable here"; else empty


def judge(claim: Claim, seeds: Sequence[ByArm], wanted: int) -> Judged:
    """Applies a claim's rules.

    Args:
        claim: what must be shown.
        seeds: one entry for each seed of which all arms are finished.
        wanted: seeds that the rule asks for, at least 2. With fewer nothing is seen and nothing is not.
    """
    if not claim.effects:
        return Judged(claim=claim, found=(), verdict="not testable here", why=claim.why)
    found = tuple(_find(effect, seeds) for effect in claim.effects) if seeds else ()
    if len(seeds) < wanted:
        why = f"{len(seeds)} of {wanted} seeds are finished"
        return Judged(claim=claim, found=found, verdict="not testable here", why=why)
    if any(math.isnan(one.mean) for one in found):
        return Judged(claim=claim, found=found, verdict="not testable here", why="an effect is not a number")
    return Judged(claim=claim, found=found, verdict="seen" if all(one.holds for one in found) else "not seen", why="")


def _find(effect: Effect, seeds: Sequence[ByArm]) -> Found:
    values = [effect.of(seed) for seed in seeds]
    if any(math.isnan(value) for value in values):
        return Found(effect=effect, mean=math.nan, error=math.nan, seeds=len(values))
    difference = paired_difference([0.0] * len(values), values)
    return Found(effect=effect, mean=difference.mean, error=difference.error, seeds=len(values))
