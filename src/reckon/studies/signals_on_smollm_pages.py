"""What is kept of the study signals-on-smollm beside its README: curves over wall time, and every run's report.

    python -m reckon.studies.signals_on_smollm_pages results/signals-on-smollm

Needs the study's folder and, for the reports, its runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reckon.errors import MissingError
from reckon.files import writing
from reckon.studies._study import slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TIME = "minutes of training"  # a curve of every cell
REPORT = 40_000  # bytes of a report that its rollouts may take: some groups of each run, and all its curves
Curves = Mapping[str, Sequence[float]]


def write_pages(out: Path) -> list[Path]:
    """Draws `by-minutes.png` from the finished cells, and writes reports/ARM-seed-N.html of the finished runs.

    Args:
        out: the study's folder.

    Returns:
        The files written.

    Raises:
        MissingError: there is no study in the folder, or none of its cells is finished.
    """
    from reckon.report import write_report
    from reckon.studies._smollm_run import run_folder

    if not (out / "results.json").is_file():
        raise MissingError(
            f"there is no results.json in {out}. Run `reckon study signals-on-smollm --out {out}` first."
        )
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    cells: dict[str, list[Curves]] = {}
    written: list[Path] = []
    for arm, settings in results["settings"].items():
        for seed in results["seeds"]:
            name = f"{slug(arm)}-seed-{seed}"
            cell, run = out / "cells" / f"{name}.json", run_folder(settings, seed)
            if cell.is_file():
                cells.setdefault(arm, []).append(json.loads(cell.read_text(encoding="utf-8"))["curves"])
            if (run / "finished").exists():
                (out / "reports").mkdir(exist_ok=True)
                written.append(write_report(run, out / "reports" / f"{name}.html", budget_bytes=REPORT))
    if not cells:
        raise MissingError(f"no cell of the study in {out} is finished, so there is nothing to draw.")
    drawing = out / "by-minutes.png"
    with writing(drawing):
        over_time(cells).savefig(drawing, dpi=120, metadata={"Software": None})
    return [drawing, *written]


def over_time(cells: Mapping[str, Sequence[Curves]]) -> Figure:
    """Every curve over the minutes it took: each seed thin, their mean thick.

    Args:
        cells: by arm, the curves of its finished seeds.
    """
    from matplotlib.figure import Figure

    first = next(iter(cells.values()))[0]
    names = [name for name in first if name not in (TIME, "generated tokens")]
    figure = Figure(figsize=(5.0 * len(names), 4.2), layout="constrained")
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for i, (arm, seeds) in enumerate(cells.items()):
            for curves in seeds if len(seeds) > 1 else ():
                panel.plot(curves[TIME], curves[name], color=f"C{i}", alpha=0.3, linewidth=0.8)
            mean = {key: np.mean([curves[key] for curves in seeds], axis=0) for key in (TIME, name)}
            panel.plot(mean[TIME], mean[name], color=f"C{i}", label=arm, linewidth=2)
        panel.set(xlabel=TIME, title=name)
        panel.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


if __name__ == "__main__":
    for path in write_pages(Path(*sys.argv[1:2] or ["results/signals-on-smollm"])):
        sys.stdout.write(f"{path}\n")
