"""The pilots of the study label-budget-on-smollm as files, and the plans that are made of them.

    python -m reckon.studies.label_budget_on_smollm_pages results/label-budget-on-smollm

Each plan is what this says as well, in the folder and for SOURCE one of implicit, outcome, vote; it draws a page too:

    reckon plan-labels --pilot pilot-SOURCE.csv --prices SOURCE=0.1,gold=1 --budget 64 --extrapolate
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

from reckon.errors import MissingError
from reckon.files import write_file
from reckon.labels import BudgetPlanner, LabelSource, read_pilot
from reckon.studies._script import run_script
from reckon.studies._study import slug
from reckon.studies.label_budget_on_smollm import BUDGETS, STUDY


def write_plans(out: Path, draws: int = 200) -> list[Path]:
    """Writes pilot-SOURCE.csv and plan-SOURCE.txt, from the pilots of the study's first split.

    Args:
        out: the study's folder.
        draws: of the bootstrap.

    Returns:
        The files written.

    Raises:
        MissingError: a cell of the first split is not there.
    """
    written = []
    for source, settings in STUDY.arms.items():
        cell = out / "cells" / f"{slug(source)}-seed-{STUDY.seeds[0]}.json"
        if not cell.is_file():
            raise MissingError(f"there is no {cell}. Run `reckon study {STUDY.name} --out {out}` first.")
        metrics = json.loads(cell.read_text(encoding="utf-8"))["metrics"]
        pilot, words = out / f"pilot-{source}.csv", out / f"plan-{source}.txt"
        write_file(pilot, _table(source, metrics).encode())
        weak, gold = LabelSource(source, float(str(settings["price"]))), LabelSource("gold", 1.0)
        planner = BudgetPlanner(weak, gold, draws=draws).fit(read_pilot(pilot, weak, gold))
        plan = planner.plan(BUDGETS[-1], allow_extrapolation=True)
        write_file(words, f"{plan}\n".encode())
        written += [pilot, words]
    return written


def _table(source: str, metrics: dict[str, float]) -> str:
    """The pilot as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([f"n_{source}", "n_gold", "seed", "accuracy"])
    for name, reached in metrics.items():
        kind, *bought = name.split("/")
        if kind == "pilot":
            rows.writerow([*bought, reached])
    return text.getvalue()


def main() -> None:
    """Writes them into the folder that is named, and tells which."""
    for path in write_plans(Path(*sys.argv[1:2] or ["results/label-budget-on-smollm"])):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    run_script(main)
