"""Which of the rollouts are worth training on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from reckon.errors import InputError
from reckon.types import End, Keep, Rng, Rollouts, Use

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class All:
    """Trains on every response."""

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64, `Use.TRAIN` throughout."""
        return torch.full_like(rollouts.end, Use.TRAIN)


@dataclass(frozen=True, kw_only=True)
class AccuracyBand:
    """Keeps the groups whose mean known outcome lies between `low` and `high` (PRIME's filter, arXiv:2502.01456).

    Unknown outcomes leave the mean; a group with none known has no accuracy and is dropped.
    """

    low: float = 0.2
    high: float = 0.8
    inclusive: bool = True  # whether a mean exactly on a bound is kept

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise InputError(
                f"accuracy_band: `low` ({self.low}) and `high` ({self.high}) must obey 0 <= low <= high <= 1."
            )

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64."""
        # Outcomes are float32 and the bounds are not: without some slack 0.8 would not be 0.8.
        slack = 1e-6 if self.inclusive else -1e-6
        values, group = outcome.cpu().double(), rollouts.seq.group.cpu()  # Metal has no float64
        known, zeros = ~values.isnan(), values.new_zeros(len(rollouts.problems))
        total = zeros.index_add(0, group, torch.where(known, values, 0.0))
        mean = total / zeros.index_add(0, group, known.to(values.dtype))  # NaN where none is known: in no band
        kept = (mean >= self.low - slack) & (mean <= self.high + slack)
        return whole_groups(rollouts, kept.to(outcome.device))


@dataclass(frozen=True, kw_only=True)
class DropEqual:
    """Drops the groups whose known outcomes are all equal, which teach nothing (DAPO, arXiv:2503.14476, eq. 11).

    A group with one known outcome or none has no two that differ, and is dropped too.
    """

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64."""
        known, group = ~outcome.isnan(), rollouts.seq.group
        bounds = torch.full((len(rollouts.problems),), torch.inf, dtype=outcome.dtype, device=outcome.device)
        low = bounds.scatter_reduce(0, group, torch.where(known, outcome, torch.inf), "amin")
        high = (-bounds).scatter_reduce(0, group, torch.where(known, outcome, -torch.inf), "amax")
        return whole_groups(rollouts, low < high)


@dataclass(frozen=True, kw_only=True)
class OnePair:
    """Trains on one right and one wrong response of each group, chosen by chance; the others are for its baseline.

    OREAL's filter (arXiv:2502.06781). Right is an outcome above 1/2, and an unknown one neither. Groups without both
    are dropped.
    """

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64."""
        group, values = rollouts.seq.group.tolist(), outcome.tolist()
        chosen: dict[tuple[int, bool], int] = {}  # by group and side, the first in an order of chance
        for row in rng.numpy().permutation(len(values)).tolist():
            if not math.isnan(values[row]):
                chosen.setdefault((group[row], values[row] > 0.5), row)
        both = {g for g in group if (g, True) in chosen and (g, False) in chosen}
        use = [int(Use.CONTEXT if g in both else Use.DROP) for g in group]
        for g in both:
            use[chosen[g, True]] = use[chosen[g, False]] = int(Use.TRAIN)
        return torch.tensor(use, dtype=torch.int64, device=outcome.device)


@dataclass(frozen=True, kw_only=True)
class DropTruncated:
    """Drops the responses that ran into the limit, or the whole groups that have one."""

    whole_group: bool = False

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64."""
        cut = rollouts.end == End.LENGTH
        if not self.whole_group:
            return torch.where(cut, int(Use.DROP), int(Use.TRAIN))
        return whole_groups(rollouts, ~touched(rollouts, cut))


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Several rules one after another: each sees what those before it left, and none brings anything back."""

    rules: Sequence[Keep]

    def __post_init__(self) -> None:
        if not self.rules:
            raise InputError("chain: there is no rule in it. Name at least one, or take `all`.")

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64: for each response the strictest of the rules that saw it."""
        use = torch.full_like(rollouts.end, Use.TRAIN)
        for number, rule in enumerate(self.rules):
            rows = (use != Use.DROP).nonzero().squeeze(1)
            if not len(rows):
                break
            decided = rule(rollouts.take(rows), outcome[rows], rng.child(number))
            use[rows] = torch.minimum(use[rows], decided)
        return use


def touched(rollouts: Rollouts, rows: Tensor) -> Tensor:
    """[N] bool -> [G] bool: the groups that have one of the rows."""
    touched = torch.zeros(len(rollouts.problems), dtype=torch.bool, device=rows.device)
    touched[rollouts.seq.group[rows]] = True
    return touched


def whole_groups(rollouts: Rollouts, kept: Tensor) -> Tensor:
    """[G] bool -> [N] int64."""
    return torch.where(kept[rollouts.seq.group], int(Use.TRAIN), int(Use.DROP))
