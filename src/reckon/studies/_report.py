"""A study's results as Markdown and as curves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from reckon.studies._study import Measured, Study
from reckon.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL, LONE, HEIGHT = 5.0, 7.0, 3.6  # inches: the width of a panel, the least of a drawing, and how high panels are
ACROSS = 5  # panels in a row
COLUMN, LINE = 2.4, 0.21  # inches of the legend: the least width of a column, the height of a line
SAMPLE, LETTER = 0.6, 0.085  # inches of a column: the line beside a name, and each letter of it


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; NaN where there are too few values."""
    if not values:
        return math.nan, math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


def markdown(results: Mapping[str, Json], plot: str | None) -> str:
    """README.md: verdicts, the table paper / pilot / here, and how it was made.

    Args:
        results: what results.json holds.
        plot: the name of the drawing beside it; None if there is none.
    """
    known = cast("Mapping[str, Any]", results)  # the shape is `_results`'s
    seeds = ", ".join(map(str, known["seeds"]))
    machine = known["machine"]
    lines = [f"# {known['title']}", "", f"{known['source']}", ""]
    if known["fast"]:
        fast = "This is a `--fast` run: every line of the study ran, with settings too small for verdicts."
        lines += [f"{fast} Where a line names a step, the run may have ended before it.", ""]
    else:
        lines += [
            "## Verdicts",
            "",
            "| claim | effect | here ± standard error | rule | verdict |",
            "|---|---|---|---|---|",
        ]
        for claim in known["claims"]:
            verdict = f"**{claim['verdict']}**" + (f" ({claim['why']})" if claim["why"] else "")
            if not claim["effects"]:
                lines.append(f"| {claim['claim']} | | | | {verdict} |")
            for i, effect in enumerate(claim["effects"]):
                first = (claim["claim"], verdict) if i == 0 else ("", "")
                here = f"{_signed(effect['mean'])} ± {_plain(effect['error'])}" + (
                    "" if effect["holds"] else " (fails)"
                )
                lines.append(f"| {first[0]} | {effect['says']} | {here} | {effect['rule']} | {first[1]} |")
        lines.append("")
    lines += [
        "## Numbers",
        "",
        "| arm | measured | paper | pilot | here ± standard error | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for row in known["rows"]:
        here = f"{_plain(row['here']['mean'])} ± {_plain(row['here']['error'])}" if row["here"]["seeds"] else "not run"
        cells = (row["arm"], row["says"], row["paper"] or "–", row["pilot"] or "–", here, str(row["here"]["seeds"]))
        lines.append(f"| {' | '.join(cells)} |")
    if known["pools"]:
        lines += [
            "",
            "## Interquartile means",
            "",
            "| pooled | measured | mean of the middle half | 95% interval | runs |",
        ]
        lines.append("|---|---|---|---|---|")
        for pool in known["pools"]:
            bounds = f"{_plain(pool['low'])} to {_plain(pool['high'])}"
            mean, runs = _plain(pool["mean"]), pool["runs"]
            lines.append(f"| {pool['says']} | {pool['metric']} | {mean} | {bounds} | {runs} |")
    if plot is not None:
        lines += ["", f"![Curves of every arm, mean and standard error over seeds]({plot})"]
    if known["notes"]:
        lines += ["", "## Notes", "", *(f"- {note}" for note in known["notes"])]
    lines += [
        *("", "## How it was made", "", f"`{known['command']}`", ""),
        f"{known['date']}; seeds {seeds}; reckon {machine['reckon']}, Python {machine['python']}, "
        f"torch {machine['torch']}, NumPy {machine['numpy']}; {machine['platform']}, {machine['cores']} cores.",
        "",
        "Cells not run: " + ("; ".join(known["not run"]) or "none") + ".",
    ]
    return "\n".join(lines) + "\n"


def draw(study: Study, done: Mapping[tuple[str, int], Measured], path: Path) -> bool:
    """Draws a panel for every curve, a line for every arm with a band of one standard error; False if there is none."""
    figure = curves_figure(study, done)
    if figure is None:
        return False
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return True


def curves_figure(study: Study, done: Mapping[tuple[str, int], Measured]) -> Figure | None:
    """The drawing, with one legend below all panels for the arms that any of them shows; None without a curve."""
    from matplotlib.figure import Figure

    names = sorted({name for measured in done.values() for name in measured.curves} - {study.axis}, key=_counting)
    if not names:
        return None
    across = min(len(names), ACROSS)
    down = math.ceil(len(names) / across)
    width = max(LONE, PANEL * across)
    figure = Figure(layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for empty in panels[len(names) :]:
        empty.set_axis_off()
    shown: dict[str, Any] = {}
    for panel, name in zip(panels, names, strict=False):
        for i, arm in enumerate(study.arms):
            cells = [measured for (other, _), measured in done.items() if other == arm and name in measured.curves]
            if not cells:
                continue
            values = np.array([cell.curves[name] for cell in cells])
            mean, x = values.mean(axis=0), cells[0].curves[study.axis]
            (line,) = panel.plot(x, mean, label=arm, color=f"C{i % 10}", linestyle="-" if i < 10 else "--")
            shown.setdefault(arm, line)
            if len(cells) > 1:
                error = values.std(axis=0, ddof=1) / math.sqrt(len(cells))
                panel.fill_between(x, mean - error, mean + error, color=f"C{i % 10}", alpha=0.2, linewidth=0)
        panel.set(xlabel=study.axis, title=name)
        panel.locator_params(axis="x", nbins=5)  # six-figure steps run into each other
        panel.grid(alpha=0.3)
    lines = [shown[arm] for arm in study.arms if arm in shown]
    column = max(COLUMN, SAMPLE + LETTER * max(len(arm) for arm in shown))
    columns = max(1, min(len(lines), int(width / column)))
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, frameon=False)
    # The legend is as high as it has lines, and takes that from nobody.
    figure.set_size_inches(width, HEIGHT * down + LINE * math.ceil(len(lines) / columns))
    return figure


def _counting(name: str) -> list[str | int]:
    """A key that sorts "at 16" before "at 1024", and "10 maps" before "3,000 maps"."""
    joined = re.sub(r"(?<=\d),(?=\d{3})", "", name)
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", joined)]


def _plain(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+.3f}"
