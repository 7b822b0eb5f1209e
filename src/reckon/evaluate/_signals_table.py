"""The signal bench for terminals and machines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import cast

from reckon.evaluate._signals import SignalBench, SignalReport
from reckon.evaluate._signals_bootstrap import Estimate
from reckon.evaluate._signals_remarks import WORDS
from reckon.types import Json


def bench_json(bench: SignalBench) -> dict[str, Json]:
    """Everything as JSON values; null where a number is not known."""
    found = cast("dict[str, Json]", _plain(dataclasses.asdict(bench)))
    for values, one in zip(cast("list[dict[str, Json]]", found["signals"]), bench.signals, strict=True):
        values["trust"] = one.trust
        values["reasons"] = list(one.reasons)
        values["remarks"] = [cast("Json", dataclasses.asdict(remark)) for remark in one.remarks]
    return found


def bench_rows(bench: SignalBench) -> tuple[list[str], list[list[str]]]:
    """The overview as a table of text: head and rows, one a signal, the most trusted first."""
    head = ["signal", "verdict", "AUC", "95%", f"best of {bench.n}", "calibration", "length", "unknown", "ms", "hacks"]
    return head, [_row(one) for one in bench.signals]


def bench_text(bench: SignalBench) -> str:
    """The overview for a terminal, with the remarks below it."""
    head, rows = bench_rows(bench)
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        f"{bench.source}: {bench.responses} responses to {bench.prompts} prompts, {bench.mixed} of them with right and "
        f"wrong answers; pass@1 {_percent(bench.rate)}, oracle of {bench.n} {_percent(_last(bench.oracle))}"
        + (f", majority vote {_percent(bench.vote[-1])}" if bench.vote else ""),
        "",
        *(_line(row, widths) for row in [head, *rows]),
    ]
    for one in bench.signals:
        lines += [
            f"\n{one.name}: {WORDS[one.trust]}.",
            f"  {'; '.join(one.reasons)}.",
            *(f"  - {remark.text}" for remark in one.remarks),
        ]
    return "\n".join(lines)


def _row(one: SignalReport) -> list[str]:
    within, flagged = one.within, sum(probe.flag is not None for probe in one.probes)
    return [
        one.name,
        WORDS[one.trust],
        _two(within.value),
        f"{_two(within.low)} to {_two(within.high)}" if math.isfinite(within.low) else "-",
        _points(one.gain),
        _skill(one),
        _signed(one.length.value),
        _percent(one.unknown),
        "-" if math.isnan(one.seconds) else f"{1000 * one.seconds:.3g}",
        str(flagged) if one.probes else "-",
    ]


def _skill(one: SignalReport) -> str:
    own = one.calibration.error
    return (
        f"{_two(own)}, {_two(one.calibration.recalibrated_error)} recalibrated"
        if math.isfinite(own)
        else (f"{_two(one.calibration.recalibrated_error)} recalibrated")
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _last(values: Sequence[float]) -> float:
    return values[-1] if values else math.nan


def _two(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _signed(value: float) -> str:
    return f"{value:+.2f}" if math.isfinite(value) else "-"


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "-"


def _points(gain: Estimate) -> str:
    return f"{100 * gain.value:+.1f} points" if math.isfinite(gain.value) else "-"
