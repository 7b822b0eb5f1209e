"""What labels cost, before they are made and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reckon.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What was spent: never count labels alone, for one label may cost twenty rollouts."""

    rollouts: int = 0  # responses and completions that were sampled
    tokens: int = 0  # tokens that were sampled; those of a given prefix are not
    checks: int = 0  # answers that were checked

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            rollouts=self.rollouts + other.rollouts,
            tokens=self.tokens + other.tokens,
            checks=self.checks + other.checks,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            rollouts=self.rollouts - other.rollouts,
            tokens=self.tokens - other.tokens,
            checks=self.checks - other.checks,
        )

    def __str__(self) -> str:
        return f"{self.rollouts:,} rollouts, {self.tokens:,} tokens, {self.checks:,} checks"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most that may be spent; None = no limit. It is never exceeded: what might not fit is not begun."""

    rollouts: int | None = None
    tokens: int | None = None
    checks: int | None = None

    def __post_init__(self) -> None:
        for name, most in vars(self).items():
            if most is not None and most < 0:
                raise InputError(f"the budget's `{name}` is {most}; it must be 0 or more, or None for no limit.")

    def allows(self, cost: Cost) -> bool:
        """Whether so much may be spent in all."""
        limits = ((self.rollouts, cost.rollouts), (self.tokens, cost.tokens), (self.checks, cost.checks))
        return all(most is None or spent <= most for most, spent in limits)


def predict_rollouts(steps: Sequence[int], n_mc: int, *, ended: int = 0) -> int:
    """How many rollouts it takes to label every prefix of some seeds, the seeds included.

    The sum of 1 + (H + 1) n_mc over the seeds (Setlur et al. 2024, arXiv:2410.08146, section 4.2): one for the seed,
    n_mc for each of its prefixes, the empty one included. With n_cov seeds of H steps it is n_cov (1 + (H + 1) n_mc).

    Args:
        steps: H of each seed.
        n_mc: completions of each prefix, at least 1.
        ended: how many of the seeds have ended and are checked, not continued, where they stand whole.
    """
    if n_mc < 1:
        raise InputError(f"`n_mc` is {n_mc}; a label needs at least 1 completion.")
    return sum(1 + (count + 1) * n_mc for count in steps) - ended * n_mc


class Purse:
    """A budget and what is spent of it."""

    def __init__(self, budget: Budget | None, longest: int | None) -> None:
        """Starts with nothing spent.

        Args:
            budget: None = no limit.
            longest: the most tokens one rollout can have; a limit on tokens needs it.
        """
        self.budget = budget or Budget()
        if self.budget.tokens is not None and longest is None:
            raise InputError(
                "a budget of tokens needs `most_tokens`, the most that a response may have; otherwise nobody can tell "
                "what still fits."
            )
        self.longest = longest or 0
        self.spent = Cost()

    def affords(self, rollouts: int) -> bool:
        """Whether so many more rollouts fit, each checked and as long as can be."""
        return self.budget.allows(self.spent + Cost(rollouts=rollouts, tokens=rollouts * self.longest, checks=rollouts))

    def spend(self, cost: Cost) -> None:
        """Takes note of what was spent."""
        self.spent = self.spent + cost
