"""What a person should know about a signal before using it, in words, and the thresholds that the words follow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from reckon.evaluate._signals import SignalReport
    from reckon.evaluate._signals_bootstrap import Estimate

Trust = Literal["trust", "care", "chance", "misleads", "unknown", "verdict"]
WORDS = {
    "trust": "Trust",
    "care": "With care",
    "chance": "Chance level",
    "misleads": "Misleads",
    "unknown": "Cannot tell",
    "verdict": "Is the verdict",
}

# The word: which side of these the 95% intervals lie on. docs/signals.md states them; a change here is one there.
COIN = 0.5  # AUC of a signal that knows nothing; "trust" needs the whole interval above it
NO_GAIN = 0.0  # best-of-n less pass@1, whose interval "trust" needs above it, and less the majority vote, not below it
# The remarks: from where on something is said.
LENGTH = 0.2  # rank correlation with length
ALIKE = 0.05  # by how much the AUC falls among answers of like length
FORM = 0.6  # AUC of well-formed wrong answers over others
WITHOUT_VALUE = 0.05  # share of responses
EASY = 0.1  # pooled AUC less that within prompts
TIES = 0.3  # share of pairs
OFF = 0.1  # binned error of a probability


@dataclass(frozen=True, kw_only=True)
class Remark:
    """One thing to know."""

    kind: str  # "verdict", "ties", "easy", "length", "alike", "format", "unknown", "falls", "vote", "scale", "probe"
    text: str
    blind: bool  # whether it is a blind spot that a policy could use; else it is only good to know


def trust(one: SignalReport) -> Trust:
    """Whether to trust a signal.

    By the interval of the AUC within prompts: "misleads" below a coin's, "chance" around it. Above it "trust", if
    best-of-n is found to gain over a single answer, the majority vote is not found to be better, and no remark is of a
    blind spot; else "care". "verdict" says nothing new. `reasons` tells which of these it was.
    """
    within = one.within
    if one.is_verdict:
        return "verdict"
    if math.isnan(within.value) or math.isnan(within.low):
        return "unknown"
    if within.high < COIN:
        return "misleads"
    if within.low <= COIN:
        return "chance"
    return "trust" if one.gain.low > NO_GAIN and not _beaten(one) and not _blind(one) else "care"


def reasons(one: SignalReport) -> tuple[str, ...]:
    """Why the word is what it is: what was found of each thing it asks for, the majority vote among them."""
    if one.is_verdict:
        return ("every value is the verdict",)
    within, n = one.within, one.ks[-1]
    if math.isnan(within.value):
        return ("no prompt has both a right and a wrong answer that it scored",)
    found = [f"ranks {within.value:.0%} of right answers above wrong ones to the same prompt{_interval(within, 0)}"]
    if math.isnan(within.low):
        return (*found, "a single problem, which has no interval")
    if math.isfinite(one.gain.value):
        found.append(f"best of {n} {_against(one.gain, 'a single answer')}")
    else:
        found.append("too few answers to a prompt to choose among")
    if math.isfinite(one.over_vote.value):
        found.append(f"best of {n} {_against(one.over_vote, 'the majority vote')}")
    else:
        found.append("no majority vote to compare with")
    blind = _blind(one)
    return (*found, f"{blind} blind spot{'s' * (blind > 1)}" if blind else "no blind spot was found")


def remarks(one: SignalReport) -> tuple[Remark, ...]:
    """What to know of a signal, blind spots first."""
    found = [Remark(kind="probe", text=probe.words, blind=True) for probe in one.probes if probe.flag is not None]

    def say(kind: str, text: str, *, blind: bool = True) -> None:
        found.append(Remark(kind=kind, text=text, blind=blind))

    length, within, curve = one.length, one.within, one.curve
    if abs(length.value) >= LENGTH and length.low * length.high > 0:
        which = "longer" if length.value > 0 else "shorter"
        say("length", f"prefers {which} answers (rank correlation {_signed(length.value)} at equal verdict)")
    if within.low > COIN and one.alike.low <= COIN and one.alike.value < within.value - ALIKE:
        say("alike", f"among answers of like length it is no better than chance (AUC {one.alike.value:.2f})")
    if one.format.value >= FORM and one.format.low > COIN:
        say("format", f"pays for form: {one.format.value:.0%} of well-formed wrong answers beat ill-formed ones")
    if one.unknown > WITHOUT_VALUE:
        say("unknown", f"has no value for {one.unknown:.0%} of the responses")
    peak = max(range(len(curve)), key=lambda i: curve[i], default=0)
    if one.fall.high < NO_GAIN:
        k, n = one.ks[peak], one.ks[-1]
        say("falls", f"best-of-N falls with more samples: {curve[peak]:.1%} of {k}, {curve[-1]:.1%} of {n}")
    if one.pooled - within.value > EASY:
        say("easy", f"knows which prompts are easy: pooled AUC {one.pooled:.2f}, within prompts {within.value:.2f}")
    if within.low > COIN and _beaten(one):
        points = -100 * one.over_vote.value
        say("vote", f"majority vote is better by {points:.1f} points, and costs nothing", blind=False)
    if one.ties > TIES and not one.is_verdict:
        say("ties", f"gives {one.ties:.0%} of the pairs equal scores", blind=False)
    if one.calibration.probability and one.calibration.error > OFF:
        off = one.calibration.error
        say("scale", f"its probabilities are off by {off:.2f}: recalibrate before using", blind=False)
    if one.is_verdict:
        say("verdict", "is the verdict itself, so this page cannot judge it", blind=False)
    return tuple(found)


def _beaten(one: SignalReport) -> bool:
    """Whether the majority vote is found to be better."""
    return one.over_vote.high < NO_GAIN


def _blind(one: SignalReport) -> int:
    return sum(remark.blind for remark in remarks(one))


def _against(lead: Estimate, other: str) -> str:
    """A difference of two shares right, its interval, and which side of it 0 is on."""
    told = f"{_signed(100 * lead.value, 1)} points{_interval(lead, 1)}"
    if lead.low > NO_GAIN:
        return f"is better than {other}: {told}"
    return f"is worse than {other}: {told}" if lead.high < NO_GAIN else f"cannot be told from {other}: {told}"


def _interval(one: Estimate, digits: int) -> str:
    if math.isnan(one.low):
        return ""
    return f" (95%: {_plain(100 * one.low, digits)} to {_plain(100 * one.high, digits)})"


def _plain(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")
