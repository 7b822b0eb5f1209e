"""What a person should know about a signal before using it, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from reckon.evaluate._signals import SignalReport

Trust = Literal["trust", "care", "chance", "misleads", "unknown", "verdict"]
WORDS = {
    "trust": "Trust",
    "care": "With care",
    "chance": "Chance level",
    "misleads": "Misleads",
    "unknown": "Cannot tell",
    "verdict": "Is the verdict",
}


@dataclass(frozen=True, kw_only=True)
class Remark:
    """One thing to know."""

    kind: str  # "verdict", "ties", "easy", "length", "alike", "format", "unknown", "falls", "scale", "probe"
    text: str
    blind: bool  # whether it is a blind spot that a policy could use; else it is only good to know


def trust(one: SignalReport) -> Trust:
    """Whether to trust a signal.

    "misleads" and "chance" by the interval of the AUC within prompts, below 0.5 or around it; "trust" if it is above,
    best-of-n is not found to lose, and no remark is of a blind spot; else "care". "verdict" says nothing new.
    """
    within = one.within
    if one.is_verdict:
        return "verdict"
    if math.isnan(within.value) or math.isnan(within.low):
        return "unknown"
    if within.high < 0.5:
        return "misleads"
    if within.low <= 0.5:
        return "chance"
    return "care" if one.gain.high < 0 or any(remark.blind for remark in remarks(one)) else "trust"


def remarks(one: SignalReport) -> tuple[Remark, ...]:
    """What to know of a signal, blind spots first."""
    found = [Remark(kind="probe", text=probe.words, blind=True) for probe in one.probes if probe.flag is not None]

    def say(kind: str, text: str, *, blind: bool = True) -> None:
        found.append(Remark(kind=kind, text=text, blind=blind))

    length, within, curve = one.length, one.within, one.curve
    if abs(length.value) >= 0.2 and length.low * length.high > 0:
        which = "longer" if length.value > 0 else "shorter"
        say("length", f"prefers {which} answers (rank correlation {_signed(length.value)} at equal verdict)")
    if within.low > 0.5 and one.alike.low <= 0.5 and one.alike.value < within.value - 0.05:
        say("alike", f"among answers of like length it is no better than chance (AUC {one.alike.value:.2f})")
    if one.format.value >= 0.6 and one.format.low > 0.5:
        say("format", f"pays for form: {one.format.value:.0%} of well-formed wrong answers beat ill-formed ones")
    if one.unknown > 0.05:
        say("unknown", f"has no value for {one.unknown:.0%} of the responses")
    peak = max(range(len(curve)), key=lambda i: curve[i], default=0)
    if one.fall.high < 0:
        k, n = one.ks[peak], one.ks[-1]
        say("falls", f"best-of-N falls with more samples: {curve[peak]:.1%} of {k}, {curve[-1]:.1%} of {n}")
    if one.pooled - within.value > 0.1:
        say("easy", f"knows which prompts are easy: pooled AUC {one.pooled:.2f}, within prompts {within.value:.2f}")
    if within.low > 0.5 and one.over_vote.high < 0:
        points = -100 * one.over_vote.value
        say("vote", f"majority vote is better by {points:.1f} points, and costs nothing", blind=False)
    if one.ties > 0.3 and not one.is_verdict:
        say("ties", f"gives {one.ties:.0%} of the pairs equal scores", blind=False)
    if one.calibration.probability and one.calibration.error > 0.1:
        off = one.calibration.error
        say("scale", f"its probabilities are off by {off:.2f}: recalibrate before using", blind=False)
    if one.is_verdict:
        say("verdict", "is the verdict itself, so this page cannot judge it", blind=False)
    return tuple(found)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
