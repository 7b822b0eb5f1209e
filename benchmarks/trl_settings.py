"""Which settings TRL's GRPOTrainer is fastest with here: tries some, and writes them all to results/bench.

`python benchmarks/trl_settings.py --model smollm2-135m --shape small` tries each for one step after a warm-up; with
--only NAME it tries one. `make bench` then takes the fastest of each shape, or of "small" where a shape was not tried.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cells import LEARNING, MODELS, SEED, SHAPES, Shape, machine, model_folder, prompts, saved
from wire import Worker

ROOT = Path(__file__).parents[1]
PATH = ROOT / "results" / "bench" / "trl_settings.json"

# rows: answers in a forward and backward pass (per_device_train_batch_size), with as many accumulated as make up the
# step. weights: the dtype the model is loaded in. The rest are GRPOConfig's own names. What is always set, and helps in
# every case, is in side_trl.py. Liger needs Triton, which does not exist on a CPU.
PLAIN = {"rows": 8, "weights": "float32", "bf16": True, "gradient_checkpointing": False}
TRIED: dict[str, dict[str, Any]] = {
    "as it comes": PLAIN | {"gradient_checkpointing": True},
    "plain": PLAIN,
    "16 rows": PLAIN | {"rows": 16},
    "static cache": PLAIN | {"cache_implementation": "static"},
    "static cache, 4 rows": PLAIN | {"cache_implementation": "static", "rows": 4},
    "64 rows": PLAIN | {"rows": 64},
    "bfloat16 weights": PLAIN | {"weights": "bfloat16", "bf16": False},
    "bfloat16 weights, 16 rows": PLAIN | {"weights": "bfloat16", "bf16": False, "rows": 16},
    "bfloat16 weights, 64 rows": PLAIN | {"weights": "bfloat16", "bf16": False, "rows": 64},
    "bfloat16 weights, 4 rows": PLAIN | {"weights": "bfloat16", "bf16": False, "rows": 4},
    "bfloat16 weights, static cache": PLAIN | {"weights": "bfloat16", "bf16": False, "cache_implementation": "static"},
    "bfloat16 weights, static cache, 4 rows": PLAIN
    | {"weights": "bfloat16", "bf16": False, "cache_implementation": "static", "rows": 4},
    "bfloat16 weights, compiled": PLAIN | {"weights": "bfloat16", "bf16": False, "torch_compile": True},
    "bfloat16 weights, continuous batching": PLAIN
    | {"weights": "bfloat16", "bf16": False, "use_transformers_continuous_batching": True},
    "float32": PLAIN | {"bf16": False},
    "float32, static cache": PLAIN | {"bf16": False, "cache_implementation": "static"},
    "float32, static cache, 16 rows": PLAIN | {"bf16": False, "cache_implementation": "static", "rows": 16},
    "float32, 4 rows": PLAIN | {"bf16": False, "rows": 4},
}
MOST_TOKENS = 8192  # in one pass: SmolLM2's activations of so many take about 10 GB without checkpointing


def best(model: str, shape: Shape, dtype: str) -> dict[str, Any]:
    """The fastest setting tried for a model and shape, with its rows cut to what fits in memory.

    Only settings with float32 weights, as ours has: with bfloat16 weights AdamW's moments are bfloat16 too, and a step
    of 1e-6 on a weight is mostly lost to rounding. That is not the same optimizer step; its time is in the file all the
    same. And only settings whose products are of the dtype that ours computes in on this machine.
    """
    half = dtype != "float32"
    tried = json.loads(PATH.read_text())["tried"] if PATH.exists() else []
    for name in (shape.name, "small"):
        rows = [row for row in tried if row["model"] == model and row["shape"] == name and "seconds" in row]
        rows = [row for row in rows if usable(row["settings"], shape) and row["settings"]["weights"] == "float32"]
        rows = [row for row in rows if row["settings"]["bf16"] == half]
        if rows:
            found = min(rows, key=lambda row: row["seconds"])
            break
    else:
        found = {"name": "plain", "settings": PLAIN | {"bf16": half}}
    settings = dict(found["settings"])
    settings["rows"] = min(settings["rows"], shape.prompts * shape.answers)
    while settings["rows"] * (shape.prompt + shape.limit) > MOST_TOKENS:
        settings["rows"] //= 2
    return {"name": found["name"], "settings": settings}


def usable(settings: dict[str, Any], shape: Shape) -> bool:
    """Whether TRL can be given answers of the shape's lengths under these settings."""
    return not (shape.ragged and settings.get("use_transformers_continuous_batching"))


def trial(name: str, model: str, shape: Shape, steps: int) -> dict[str, Any]:
    """One setting: a warm-up and `steps` timed steps, of which the fastest counts, in TRL's favor."""
    from transformers import AutoTokenizer

    folder = model_folder(model, ROOT / "runs/bench/models")
    worker = Worker("trl", sys.executable, ROOT / "runs/bench/trl_settings.log")
    settings = TRIED[name] | {"rows": min(TRIED[name]["rows"], shape.prompts * shape.answers)}
    about = {"name": name, "model": model, "shape": shape.name, "settings": settings, "machine": machine()}
    try:
        worker.ask(
            do="open",
            model=str(folder),
            shape=saved(shape),
            prompts=prompts(AutoTokenizer.from_pretrained(folder), shape, steps + 1),
            lengths=[shape.lengths(step) for step in range(steps + 1)],
            learning=LEARNING,
            seed=SEED,
            settings=settings,
        )
        done = [worker.ask(do="step", step=step) for step in range(steps + 1)][1:]
    except SystemExit as failed:
        return about | {"failed": str(failed).splitlines()[-2][:300]}
    finally:
        worker.close()
    return about | {key: min(step[key] for step in done) for key in ("seconds", "sample", "learn")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODELS[0], choices=MODELS)
    parser.add_argument("--shape", default="small", choices=SHAPES)
    parser.add_argument("--only", help="names of settings, with ; between: try these, and keep the others' figures")
    parser.add_argument("--steps", type=int, default=1, help="timed steps of each")
    args = parser.parse_args()
    names = args.only.split(";") if args.only else list(TRIED)
    if unknown := [name for name in names if name not in TRIED]:
        raise SystemExit(f"there is no setting {unknown[0]!r} (there are: {'; '.join(TRIED)})")
    for name in names:
        row = trial(name, args.model, SHAPES[args.shape], args.steps)
        tried = json.loads(PATH.read_text())["tried"] if PATH.exists() else []
        key = ("name", "model", "shape")
        tried = [old for old in tried if any(old[part] != row[part] for part in key)] + [row]
        PATH.parent.mkdir(parents=True, exist_ok=True)
        PATH.write_text(json.dumps({"tried": tried}, indent=1) + "\n")
        print({part: row.get(part) for part in ("name", "seconds", "sample", "learn", "failed")}, flush=True)


if __name__ == "__main__":
    main()
