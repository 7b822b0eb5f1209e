"""Runs a recipe with several seeds and writes what came of it to results/NAME/, NAME being the recipe's.

    python scripts/run_seeds.py recipes/largest-smollm2.yaml --seeds 0 1 2

One run at a time; a run that was interrupted is resumed, a finished one is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

from reckon.evaluate import compare
from reckon.recipe import Recipe, read_evaluation, resume_run, run_recipe
from reckon.runs import Run


def make(path: Path, seed: int, folder: Path) -> None:
    recipe = Recipe.load(path, [f"seed={seed}", f"out={json.dumps(str(folder))}"])
    if (folder / "recipe.yaml").exists():
        if max(Run.open(folder).checkpoints, default=0) < recipe.frame.steps:
            resume_run(folder, recipe)
    else:
        run_recipe(recipe)


def summary(seed: int, folder: Path) -> dict[str, Any]:
    run = Run.open(folder)
    steps = run.recipe["steps"]
    before, after = (
        read_evaluation(folder / "evals" / f"test-step-{step:06}.parquet") for step in (0, int(str(steps)))
    )
    found, metrics = compare(before, after), run.metrics()
    updates = [line for line in metrics if "time/update" in line]
    return {
        "seed": seed,
        "before": found.before,
        "after": found.after,
        "now_right": found.c,
        "now_wrong": found.b,
        "p": found.p,
        "items": found.n,
        "answers": "Greedy" if after.responses[0].greedy else "Sampled",
        "constant": after.metrics["constant"],
        "dev": {int(line["step"]): line["eval/dev/pass@1"] for line in metrics if "eval/dev/pass@1" in line},
        "minutes": metrics[-1]["seconds"] / 60,
        "seconds_per_step": statistics.median(line["time/sample"] + line["time/update"] for line in updates),
        "tokens_generated": sum(line["tokens/generated"] for line in updates),
        "peak_mib": max(line["memory/peak_mib"] for line in updates),
        "environment": {key: run.environment[key] for key in ("date", "cpu", "cores", "threads", "torch", "commit")},
    }


def page(recipe: Path, rows: list[dict[str, Any]], note: str) -> str:
    afters = [float(str(row["after"])) for row in rows]
    machine = rows[0]["environment"]
    lines = [
        f"# {recipe.stem} over seeds",
        "",
        f"`python scripts/run_seeds.py {recipe} --seeds {' '.join(str(row['seed']) for row in rows)}`, "
        f"{str(machine['date'])[:10]}, {machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}.",
        "",
        f"{rows[0]['answers']} answers to {rows[0]['items']} problems of the test split, the same problems for all "
        f"seeds; McNemar's test is exact. {note}".rstrip(),
        "",
        "| seed | before | after | now right | now wrong | McNemar p | best constant | minutes | s a step | commit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['seed']} | {row['before']:.1%} | {row['after']:.1%} | {row['now_right']} | {row['now_wrong']} "
            f"| {row['p']:.1e} | {row['constant']:.1%} | {row['minutes']:.1f} | {row['seconds_per_step']:.1f} "
            f"| {str(row['environment']['commit'])[:7]} |"
        )
    spread = statistics.stdev(afters) if len(afters) > 1 else float("nan")
    lines += [
        "",
        f"After training: mean {statistics.mean(afters):.1%}, standard deviation over seeds {spread:.1%}. "
        "Minutes are the run's working time, evaluations and checkpoints included, downloads left out. "
        "`seed-N.jsonl` are the runs' metrics.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--note", default="", help="how the settings were chosen, for the page")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    args = parser.parse_args()
    out = Path("results") / args.recipe.stem
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in args.seeds:
        folder = args.runs / f"{args.recipe.stem}-{seed}"
        make(args.recipe, seed, folder)
        shutil.copy(folder / "metrics.jsonl", out / f"seed-{seed}.jsonl")
        rows.append(summary(seed, folder))
        (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
        (out / "README.md").write_text(page(args.recipe, rows, args.note))
        print(page(args.recipe, rows, args.note))


if __name__ == "__main__":
    main()
