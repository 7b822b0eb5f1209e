"""How far two annotators agree, and how right one is. Pure functions on lists of True, False and None (abstained)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reckon.errors import InputError

Verdicts: TypeAlias = Sequence[bool | None]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The 2x2 table of two annotators, over what both gave a verdict on."""

    first: str
    second: str
    both: int  # both accept
    only_first: int
    only_second: int
    neither: int
    abstained: int  # one of them or both gave no verdict; not in the table

    @property
    def n(self) -> int:
        """What both gave a verdict on."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def rate(self) -> float:
        """The share on which they agree; NaN if there is nothing."""
        return (self.both + self.neither) / self.n if self.n else math.nan

    @property
    def kappa(self) -> float:
        """Agreement beyond chance (Cohen 1960): (rate - chance) / (1 - chance).

        NaN if there is nothing, or if both always say the same one thing: chance would then explain everything.
        """
        if not self.n:
            return math.nan
        first, second = (self.both + self.only_first) / self.n, (self.both + self.only_second) / self.n
        chance = first * second + (1 - first) * (1 - second)
        return math.nan if chance == 1 else (self.rate - chance) / (1 - chance)


@dataclass(frozen=True, kw_only=True)
class Against:
    """An annotator against the truth, over what it gave a verdict on."""

    n: int
    abstained: int  # of those whose truth is known
    accuracy: float  # NaN where there is nothing to divide by
    precision: float  # of what it accepts, the share that is right
    recall: float  # of what is right, the share it accepts
    kept_recall: float  # the same, but what it abstained on counts as not accepted


def agreement(first: Verdicts, second: Verdicts, names: tuple[str, str] = ("first", "second")) -> Agreement:
    """Counts how two annotators judged the same things.

    Raises:
        InputError: they judged different numbers of things.
    """
    if len(first) != len(second):
        raise InputError(
            f"{names[0]} gave {len(first)} verdicts and {names[1]} {len(second)}; give one for each triple."
        )
    pairs = list(zip(first, second, strict=True))
    return Agreement(
        first=names[0],
        second=names[1],
        both=sum(a is True and b is True for a, b in pairs),
        only_first=sum(a is True and b is False for a, b in pairs),
        only_second=sum(a is False and b is True for a, b in pairs),
        neither=sum(a is False and b is False for a, b in pairs),
        abstained=sum(a is None or b is None for a, b in pairs),
    )


def against_gold(verdicts: Verdicts, gold: Verdicts) -> Against:
    """Precision and recall of an annotator where the truth is known.

    Args:
        verdicts: the annotator's.
        gold: the truth; None = unknown, which counts nowhere.
    """
    table = agreement(verdicts, gold, ("the annotator", "gold"))
    known = [(a, b) for a, b in zip(verdicts, gold, strict=True) if b is not None]
    right = sum(b is True for _, b in known)
    return Against(
        n=table.n,
        abstained=sum(a is None for a, _ in known),
        accuracy=table.rate,
        precision=_ratio(table.both, table.both + table.only_first),
        recall=_ratio(table.both, table.both + table.only_second),
        kept_recall=_ratio(table.both, right),
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
