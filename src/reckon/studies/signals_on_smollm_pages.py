"""What is kept of the study signals-on-smollm beside its README: curves over wall time, the runs' reports, arms paired
by problem, and how much the signals that stand in for the verdict knew of it.

    python -m reckon.studies.signals_on_smollm_pages results/signals-on-smollm

Needs the study's folder and, for the reports and the pairs, its runs; of runs that are no longer there it keeps what it
had written before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from reckon.errors import MissingError
from reckon.files import write_file, writing
from reckon.studies._script import run_script
from reckon.studies._study import slug
from reckon.studies.signals_on_smollm import ARMS, COOPER, EXACT, EXACT_4, GRPO, NOVELTY, PRIME, RLOO, STEPS, SURROGATE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from reckon.evaluate import Difference

TIME = "minutes of training"  # a curve of every cell
REPORT = 40_000  # bytes of a report that its rollouts may take: some groups of each run, and all its curves
START = "the start"
# What is paid beside the verdict or instead of it. OREAL's weights say where a response is decided, and not whether.
PAID: Mapping[str, str] = {
    PRIME: "stream/process/tokens",
    STEPS: "stream/progress/step_advantage/tokens",
    SURROGATE: "stream/surrogate",
    NOVELTY: "stream/bonus/novelty",
    COOPER: "stream/judge",
    EXACT: "stream/progress/tokens",
    EXACT_4: "stream/progress/tokens",
}
# An advantage of a step stands at each of its tokens: what a response has of them is their mean. Rewards add up.
ADVANTAGES = (PAID[STEPS], PAID[EXACT])
# The two arms of exact step advantages against what they were added to be held against.
JUDGED = ((EXACT, STEPS), (EXACT_4, STEPS), (EXACT_4, EXACT), (EXACT, RLOO), (EXACT_4, RLOO))
HALVES = ("first half", "second half")  # of a run's steps
Curves = Mapping[str, Sequence[float]]
ByProblem = Mapping[str, float]  # share of right samples, by the problem's id
Shares = dict[str, dict[str, dict[str, ByProblem]]]  # by exam, arm and seed
Known = dict[str, dict[str, dict[str, dict[str, float]]]]  # by arm, seed and half: see `knowledge`


def write_pages(out: Path) -> list[Path]:
    """Draws `by-minutes.png` from the finished cells, and writes what the finished runs tell.

    reports/ARM-seed-N.html; `by-problem.json`, the share of right samples by exam, problem and run at equal generated
    tokens, and `by-problem.md`, the arms compared by them; `judges.json` and `judges.md`, what the signals knew.

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
    shares: Shares = _kept(out / "by-problem.json")
    known: Known = _kept(out / "judges.json")
    for arm, settings in results["settings"].items():
        for seed in results["seeds"]:
            name = f"{slug(arm)}-seed-{seed}"
            cell, run = out / "cells" / f"{name}.json", run_folder(settings, seed)
            if cell.is_file():
                cells.setdefault(arm, []).append(json.loads(cell.read_text(encoding="utf-8"))["curves"])
            if (run / "finished").exists():
                (out / "reports").mkdir(exist_ok=True)
                written.append(write_report(run, out / "reports" / f"{name}.html", budget_bytes=REPORT))
                add_shares(shares, run, arm, seed)
                if arm in PAID:
                    known.setdefault(arm, {})[str(seed)] = knowledge(run, PAID[arm])
    if not cells:
        raise MissingError(f"no cell of the study in {out} is finished, so there is nothing to draw.")
    drawing = out / "by-minutes.png"
    with writing(drawing):
        over_time(cells).savefig(drawing, dpi=120, metadata={"Software": None})
    for stem, found, page in (("by-problem", shares, compared(shares)), ("judges", known, told_apart(known))):
        if found:
            write_file(out / f"{stem}.json", (json.dumps(found) + "\n").encode())
            write_file(out / f"{stem}.md", page.encode())
            written += [out / f"{stem}.json", out / f"{stem}.md"]
    return [drawing, *written]


def _kept(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def add_shares(shares: Shares, run: Path, arm: str, seed: int) -> None:
    """Adds what a finished run answered in its exams: at the start, under `START`, and at equal generated tokens."""
    from reckon.recipe import read_evaluation
    from reckon.studies import _smollm_exam as exam

    for name in exam.EXAMS:
        first, last = sorted((run / "evals").glob(f"{name}-step-*.parquet"))
        for who, path in ((START, first), (arm, last)):
            found = read_evaluation(path)
            samples = 1 + max(response.sample for response in found.responses)
            shares.setdefault(name, {}).setdefault(who, {})[str(seed)] = exam.shares(found, samples)


def paired(of: Mapping[str, ByProblem], other: Mapping[str, ByProblem]) -> Difference:
    """By how much more often an arm is right than another, over the seeds that both have and the problems.

    The error is that over problems, of which each counts once with its mean over seeds.
    """
    from reckon.evaluate import paired_difference

    seeds = [seed for seed in of if seed in other]
    problems = list(of[seeds[0]])
    theirs, own = ([fmean(side[seed][problem] for seed in seeds) for problem in problems] for side in (other, of))
    return paired_difference(theirs, own)


def compared(shares: Shares) -> str:
    """A page: every arm less the start, and less GRPO, by exam; then the pairs of `JUDGED`."""
    lines = [
        "# Arms compared by problem",
        "",
        "Share of right samples at equal generated tokens, paired by problem, each problem with its mean over seeds; ±",
        "is the standard error over problems, and what each seed says stands in brackets. The error is that of these",
        "runs: how much a method's next run differs, it leaves out. By the luck of the problems alone one in twenty",
        "lies two errors from 0, and three exams with ten arms less the start, nine less GRPO and the five pairs at",
        "the end are 72 looks.",
        "",
        "Written by `python -m reckon.studies.signals_on_smollm_pages`.",
    ]
    for exam, arms in shares.items():
        lines += ["", f"## {exam}", "", "| arm | seeds | right | less the start | less GRPO |", "|---|---|---|---|---|"]
        for arm in (arm for arm in (START, *ARMS) if arm in arms):
            seeds = arms[arm]
            right = fmean(share for problems in seeds.values() for share in problems.values())
            cells = [arm, ", ".join(seeds), f"{right:.3f}"]
            for other in (START, GRPO):
                both = [seed for seed in seeds if seed in arms.get(other, {})] if arm not in (START, other) else []
                cells.append(_difference(seeds, arms[other], both) if both else "")
            lines.append(f"| {' | '.join(cells)} |")
    told = []
    for exam, arms in shares.items():
        for one, other in JUDGED:
            if both := [seed for seed in arms.get(one, {}) if seed in arms.get(other, {})]:
                told.append(f"| {exam} | {one} less {other} | {_difference(arms[one], arms[other], both)} |")
    if told:
        lines += ["", "## Step advantages, by what their judge knows", "", "| exam | | |", "|---|---|---|", *told]
    return "\n".join(lines) + "\n"


def knowledge(run: Path, stream: str) -> dict[str, dict[str, float]]:
    """How often a signal puts a right answer above a wrong one to the same problem, in each half of a run's steps.

    Args:
        run: its folder.
        stream: a column of its rollouts, with its weight; of values for tokens a response has the sum, or of
            `ADVANTAGES` the mean.

    Returns:
        By half, over groups that have answers of both kinds: "auc", the mean share of pairs in which the right one is
        paid more, ties half; "error", its standard error; "groups", how many they are; "mean" of what is paid;
        "spread", the mean standard deviation in a group of what is paid (of `ADVANTAGES` over all tokens of the group)
        over that of the verdict.
    """
    from reckon.runs import read_rollouts

    rows = read_rollouts(run, columns=["step", "group", "outcome", stream]).to_pylist()
    known = [row for row in rows if row["outcome"] is not None and row[stream] is not None]
    steps = sorted({row["step"] for row in rows})
    halves = zip(HALVES, (steps[: len(steps) // 2], steps[len(steps) // 2 :]), strict=True)
    return {half: _known([row for row in known if row["step"] in of], stream) for half, of in halves}


def _known(rows: Sequence[Mapping[str, Any]], stream: str) -> dict[str, float]:
    from reckon.evaluate import count_pairs

    groups: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["step"], row["group"]), []).append(row)
    shares, paid, spreads, verdicts = [], [], [], []
    for group in groups.values():
        right = np.array([row["outcome"] for row in group], dtype=float)
        values = [_values(row[stream]) for row in group]
        whole = np.array([np.nanmean(one) if stream in ADVANTAGES else np.nansum(one) for one in values])
        pairs = count_pairs(whole, right, np.zeros(len(group), dtype=int), 1)
        if not pairs.pairs[0]:
            continue
        shares.append(pairs.auc)
        paid.append(whole.mean())
        spreads.append(np.nanstd(np.concatenate(values)) if stream in ADVANTAGES else whole.std())
        verdicts.append(right.std())
    n = len(shares)
    return {
        "auc": float(np.mean(shares)) if n else float("nan"),
        "error": float(np.std(shares, ddof=1)) / n**0.5 if n > 1 else float("nan"),
        "groups": float(n),
        "mean": float(np.mean(paid)) if n else float("nan"),
        "spread": float(np.sum(spreads) / np.sum(verdicts)) if n else float("nan"),
    }


def _values(value: float | Sequence[float | None]) -> Any:
    return np.atleast_1d(np.array(value, dtype=float))


def told_apart(known: Known) -> str:
    """A page: how much each signal knew of the verdict in its own run."""
    lines = [
        "# What the signals knew",
        "",
        "How often what is paid beside the verdict, or instead of it, is higher for a right answer than for a wrong",
        "one to the same problem: mean over the groups of a run that have both ± standard error, with the groups in",
        "brackets. 0.5 is a coin. These are answers that the policy gave while it learned from the signal. `novelty`",
        "need not know; OREAL's weights say where a response is decided, and not whether it is right. Spread: the",
        "deviation in a group of what is paid, with its weight, over that of the verdict. Of rewards a response has",
        "the sum, of step advantages the mean, and their spread is that of all tokens. PRIME's rewards are credited",
        "against a baseline of their own, and then added.",
        "",
        "Written by `python -m reckon.studies.signals_on_smollm_pages`.",
        "",
        f"| arm | paid | seed | {' | '.join(f'{half} | mean | spread' for half in HALVES)} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in (arm for arm in PAID if arm in known):
        for seed, halves in sorted(known[arm].items()):
            cells = [
                f"{one['auc']:.2f} ± {one['error']:.2f} ({one['groups']:.0f}) | {one['mean']:.2f} | {one['spread']:.2f}"
                for one in halves.values()
            ]
            lines.append(f"| {arm} | `{PAID[arm].removeprefix('stream/')}` | {seed} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _difference(of: Mapping[str, ByProblem], other: Mapping[str, ByProblem], seeds: Sequence[str]) -> str:
    found = paired(of, other)
    alone = [f"{paired({seed: of[seed]}, other).mean:+.3f}" for seed in seeds]
    return f"{found.mean:+.3f} ± {found.error:.3f}" + (f" ({', '.join(alone)})" if len(alone) > 1 else "")


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


def main() -> None:
    """Writes them into the folder that is named, and tells which."""
    for path in write_pages(Path(*sys.argv[1:2] or ["results/signals-on-smollm"])):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    run_script(main)
