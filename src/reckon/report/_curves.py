"""Which figures the run's metrics make, and their numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reckon.types import Json, Metrics


@dataclass(frozen=True)
class Line:
    """One line of a figure."""

    key: str
    label: str
    points: bool = False  # evaluations: marked one by one and never smoothed
    low: str | None = None  # the metrics that bound its band
    high: str | None = None


@dataclass(frozen=True)
class Figure:
    """One small figure: lines that share a unit."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    percent: bool = False


_SINGLE = (  # title, unit, metric, whether it is a share
    ("Length of a response", "tokens", "length/mean", False),
    ("Cut off at the limit", "% of responses", "length/truncated", True),
    ("Groups that teach nothing", "% of groups", "advantage/zero_groups", True),
    ("Verdict unknown", "% of responses", "outcome/unknown", True),
    ("Entropy", "nats per token", "policy/entropy", False),
    ("Divergence from the reference", "nats per token", "policy/kl", False),
    ("Moved by the update", "nats per token, sampled to present", "policy/kl_sampled", False),
    ("Probability ratio", "mean over tokens", "policy/ratio_mean", False),
    ("Clipped", "% of tokens", "policy/clip_fraction", True),
    ("Gradient norm", "L2", "policy/grad_norm", False),
    ("Loss", "as minimized", "policy/loss", False),
    ("Learning rate", "per step", "policy/lr", False),
)

_DULL = ("policy/steps", "policy/skipped", "fit/skipped", "fit/rows", "fit/tokens")
_FITTED = {"fit": "learned from", "dev": "held back"}  # rows of an offline fit
_TOKENS = ("tokens", "generated tokens", "tokens/generated")


def figures(metrics: Sequence[Metrics]) -> list[Figure]:
    """The figures that these metrics can fill; one whose metrics were never logged is left out."""
    keys = dict.fromkeys(key for row in metrics for key, value in row.items() if math.isfinite(value))
    accuracy = [Line("outcome/mean", "training")] if "outcome/mean" in keys else []
    for split in (key.split("/")[1] for key in keys if re.fullmatch(r"eval/[^/]+/pass@1", key)):
        name = f"eval/{split}/"
        accuracy.append(Line(name + "pass@1", split, points=True, low=name + "low", high=name + "high"))
    rewards = [match for key in keys if (match := re.fullmatch(r"reward/(.+)/mean", key))]
    found = [Figure("Right answers", "% of responses", tuple(accuracy), percent=True)] if accuracy else []
    if rewards:
        found.append(Figure("Streams", "mean over responses", tuple(Line(m[0], m[1]) for m in rewards)))
    singles = [entry for entry in _SINGLE if entry[2] in keys]
    others = [
        key for key in keys if key.startswith("policy/") and key not in {*_DULL, *(entry[2] for entry in singles)}
    ]
    singles += [(_title(key.removeprefix("policy/")), "mean over the step", key, False) for key in others]
    found += [Figure(title, unit, (Line(key, ""),), percent) for title, unit, key, percent in singles]
    sides = [key.split("/", 1) for key in keys if key.startswith(("fit/", "dev/")) and key not in _DULL]
    for name in dict.fromkeys(name for _, name in sides):
        lines = [Line(f"{side}/{name}", _FITTED[side], side == "dev") for side in _FITTED if f"{side}/{name}" in keys]
        found.append(Figure(_title(name), "mean over rows", tuple(lines), percent=name == "accuracy"))
    return found


def curves(
    metrics: Sequence[Metrics], drawn: Sequence[Figure] | None = None, amount: tuple[str, str, str] = _TOKENS
) -> dict[str, Json]:
    """The figures' data: a column for each axis and each metric drawn, null where a step did not log it.

    Args:
        metrics: of a run.
        drawn: which figures; left out, those of `figures`.
        amount: name, unit and metric of what is added up along an axis, where it was logged.
    """
    drawn = figures(metrics) if drawn is None else drawn
    keys = {key for figure in drawn for line in figure.lines for key in (line.key, line.low, line.high) if key}
    name, unit, metric = amount
    sums, total = [], 0.0
    for row in metrics:
        total += row.get(metric, 0.0)
        sums.append(total)
    axes: list[Json] = [{"name": "steps", "unit": "step", "values": [int(row["step"]) for row in metrics]}]
    if total > 0:
        axes.append({"name": name, "unit": unit, "values": [round(value) for value in sums]})
    if any("seconds" in row for row in metrics):
        axes.append({"name": "minutes", "unit": "minutes", "values": _column(metrics, "seconds", 1 / 60)})
    return {
        "axes": axes,
        "columns": {key: _column(metrics, key) for key in sorted(keys)},
        "figures": [
            {
                "title": figure.title,
                "unit": figure.unit,
                "percent": figure.percent,
                "lines": [
                    {"key": line.key, "label": line.label, "points": line.points, "low": line.low, "high": line.high}
                    for line in figure.lines
                ],
            }
            for figure in drawn
        ],
    }


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _column(metrics: Sequence[Mapping[str, float]], key: str, scale: float = 1.0) -> list[Json]:
    values = (row.get(key, math.nan) * scale for row in metrics)
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]
