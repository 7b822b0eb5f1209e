"""Times a whole GRPO step of ours and of TRL's, alternating on one machine: `make bench`.

Each side is a process of its own, loaded once for each model; they take turns step by step. A finished shape is written
to results/bench at once, and an interrupted run goes on after it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import show
import torch
from cells import ALL, LEARNING, MODELS, SEED, SHAPES, Shape, machine, model_folder, operations, prompts, saved
from trl_settings import best
from wire import Message, Worker

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "bench"
SCRATCH = ROOT / "runs" / "bench"  # models, logs, and which cells belong to this checkout's run
IDLE_AT_MOST = 0.1  # of one core, while another side works


def product_rate(dtype: str, seconds: float = 3.0) -> float:
    """Operations a second in large matrix products, the best of several: what no step can be faster than."""
    n = 2048
    a, b = (torch.randn(n, n).to(getattr(torch, dtype)) for _ in range(2))
    fastest, ends = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        began = time.perf_counter()
        torch.mm(a, b)
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * n**3 / fastest


class Sides:
    """The running sides, of which one works at a time."""

    def __init__(self, pythons: Mapping[str, str]) -> None:
        """Starts a process for each side."""
        self.workers = {name: Worker(name, python, SCRATCH / f"{name}.log") for name, python in pythons.items()}
        self.idle = 0.0  # the greatest share of a core that the waiting sides together took

    def ask(self, side: str, **command: Any) -> Message:
        """One side's turn, watching that the others wait."""
        others = [worker for name, worker in self.workers.items() if name != side]
        before, began = sum(map(processor_time, others)), time.perf_counter()
        answer = self.workers[side].ask(**command)
        seconds = time.perf_counter() - began
        share = (sum(map(processor_time, others)) - before) / seconds
        if seconds > 1 and command["do"] == "step":
            self.idle = max(self.idle, share)
            if share > IDLE_AT_MOST:
                raise SystemExit(
                    f"while {side} worked, the waiting sides took {share:.0%} of a core, so its time is not its own. "
                    "Set OMP_WAIT_POLICY=passive and try again."
                )
        settle(self.workers[side])
        return answer

    def close(self) -> None:
        """Ends all of them."""
        for worker in self.workers.values():
            worker.close()


def processor_time(worker: Worker) -> float:
    """Seconds that a side's processes have computed."""
    process = psutil.Process(worker.process.pid)
    return sum(sum(p.cpu_times()[:2]) for p in (process, *process.children(recursive=True)))


def settle(worker: Worker, most: float = 30.0) -> None:
    """Waits until a side rests after its turn: vLLM's processes look for new work for seconds before they sleep."""
    ends = time.perf_counter() + most
    while time.perf_counter() < ends:
        before = processor_time(worker)
        time.sleep(0.3)
        if processor_time(worker) - before < 0.03:
            return


def check(side: str, answer: Message, shape: Shape, lengths: Sequence[int]) -> None:
    """Both sides did the same work, or nothing here means anything."""
    if answer["tokens"] != sum(lengths):
        raise SystemExit(f"{side} dealt with {answer['tokens']} answer tokens, but {sum(lengths)} were asked for.")
    if answer["prompt"] != [shape.prompt]:
        raise SystemExit(f"{side} saw prompts of {answer['prompt']} tokens, but they have {shape.prompt}.")
    if "spread" in answer and not answer["spread"] > 0.1:
        raise SystemExit(
            f"{side}: the advantages of a group hardly differ ({answer['spread']}), so work may be skipped."
        )


def measure(sides: Sides, name: str, folder: Path, shape: Shape, repeats: int) -> Message:
    """One cell: a warm-up and `repeats` steps of every side, in turns."""
    from transformers import AutoTokenizer

    steps = repeats + 1
    lengths = [shape.lengths(step) for step in range(steps)]
    job = {
        "model": str(folder),
        "shape": saved(shape),
        "prompts": prompts(AutoTokenizer.from_pretrained(folder), shape, steps),
        "lengths": lengths,
        "learning": LEARNING,
        "seed": SEED,
    }
    about = {"ours": sides.ask("ours", do="open", **job)}
    dtype = about["ours"]["dtype"]  # of its matrix products; the others get the same
    setting = best(name, shape, dtype)
    for side in sides.workers:
        if side != "ours":
            about[side] = sides.ask(side, do="open", dtype=dtype, settings=setting["settings"], **job)
    times: dict[str, list[Message]] = {side: [] for side in sides.workers}
    for step in range(steps):
        for side in sides.workers:
            answer = sides.ask(side, do="step", step=step)
            check(side, answer, shape, lengths[step])
            if step > 0:
                times[side].append(answer)
        shown = ", ".join(f"{side} {rows[-1]['seconds']:.2f} s" for side, rows in times.items() if rows) or "warm-up"
        print(f"{name}, {shape.name}, step {step} of {repeats}: {shown}", file=sys.stderr, flush=True)
    config = json.loads((folder / "config.json").read_text())
    needed = [operations(config, shape, one) for one in lengths[1:]]
    where = machine()
    if "vllm" in about:
        where["versions"]["vllm"] = about["vllm"]["version"]
    return {
        "model": {"name": name, "parameters": about["ours"]["parameters"]},
        "shape": saved(shape),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "seed": SEED,
        "machine": where,
        "trl": setting,
        "rate": {"dtype": dtype, "per_second": product_rate(dtype)},
        "operations": {part: sum(n[i] for n in needed) / repeats for i, part in enumerate(("sample", "learn"))},
        "idle": sides.idle,
        "steps": times,
    }


def commit() -> str:
    """The state of the sources."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def run_name(fresh: bool) -> str:
    """The name of this checkout's run. A cell of another run, such as one that came with a clone, is measured anew."""
    path = SCRATCH / "run"
    if fresh or not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12])
    return path.read_text()


def cells_of(run: str, folder: Path) -> list[Message]:
    """All that this run has measured by now, in order, whatever shapes this call asked for."""
    paths = [folder / f"{name}-{shape}.json" for name in MODELS for shape in ALL]
    return [cell for path in paths if path.exists() and (cell := json.loads(path.read_text())).get("run") == run]


def chosen(text: str, known: Sequence[str], everything: Sequence[str], what: str) -> list[str]:
    """The names in a comma list."""
    names = list(everything) if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise SystemExit(f"there is no {what} {name!r} (there are: {', '.join(known)}; or all)")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="all", help=f"all, or some of {','.join(SHAPES)}")
    parser.add_argument("--models", default="all", help=f"all, or some of {','.join(MODELS)}")
    parser.add_argument("--sides", default="all", help="all, or some of ours,trl,generate,vllm")
    parser.add_argument("--repeats", type=int, help="timed steps a side; left out, each shape's own number")
    parser.add_argument("--fresh", action="store_true", help="measure again what this checkout has measured")
    parser.add_argument("--vllm", default=str(ROOT / ".venv-vllm/bin/python"), help="the Python that has vLLM")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    models = chosen(args.models, MODELS, MODELS, "model")
    shapes = [SHAPES[name] for name in chosen(args.shapes, list(SHAPES), ALL, "shape")]
    known = ["ours", "trl", "generate", "vllm"]
    sides = sorted(chosen(args.sides, known, known, "side"), key=known.index)
    if sides[0] != "ours" or (args.repeats is not None and args.repeats < 1):
        raise SystemExit("ours must be among --sides, and --repeats at least 1.")
    pythons = dict.fromkeys(sides, sys.executable)
    if "vllm" in sides:
        pythons["vllm"] = args.vllm
        if not Path(args.vllm).exists():
            del pythons["vllm"]
            print("vLLM is not measured: `make bench-vllm` adds it, in an environment of its own.", file=sys.stderr)

    args.out.mkdir(parents=True, exist_ok=True)
    run, cells = run_name(args.fresh), []
    for name in models:
        running: Sides | None = None
        try:
            for shape in shapes:
                path = args.out / f"{name}-{shape.name}.json"
                cell = json.loads(path.read_text()) if path.exists() else {}
                if cell.get("run") == run:
                    print(
                        f"{name}, {shape.name}: measured {cell['date']} at {cell['commit']} (--fresh: again)",
                        file=sys.stderr,
                    )
                else:
                    running = running or Sides(pythons)
                    folder = model_folder(name, SCRATCH / "models")
                    cell = measure(running, name, folder, shape, args.repeats or shape.repeats) | {"run": run}
                    path.write_text(json.dumps(cell, indent=1) + "\n")
                cells.append(cell)
        finally:
            if running is not None:
                running.close()
    show.page(cells_of(run, args.out) or cells, args.out)
    show.table(cells)
    print(show.summary(cells))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\ninterrupted: the same command goes on after the last finished shape.") from None
