"""Times a whole GRPO step of ours and of TRL's, alternating on one machine: `make bench`.

Each side is a process of its own, loaded once for each model; they take turns step by step. What a turn took is written
to results/bench at once, and an interrupted run goes on after the last turn that counted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
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
NO_WARM_UP = 300.0  # seconds of all sides' first turn


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


def measure(
    sides: Sides, name: str, folder: Path, shape: Shape, repeats: int, before: Message, keep: Callable[[Message], None]
) -> Message:
    """One cell: steps of every side in turns, until there are `repeats`.

    The first turn of each process is a warm-up and not counted, unless all sides together take minutes for it: what is
    loaded and allocated is then less than a hundredth, and a second such turn would cost more than it tells.

    Args:
        sides: the running ones.
        name: of the model.
        folder: where it lies.
        shape: of the step.
        repeats: turns that count.
        before: the cell as an interrupted run left it, or {}.
        keep: is given the cell after every turn that counts.
    """
    from transformers import AutoTokenizer

    times: dict[str, list[Message]] = before.get("steps") or {side: [] for side in sides.workers}
    if set(times) != set(sides.workers):
        raise SystemExit(f"{name}, {shape.name} was begun with the sides {', '.join(times)}. Name these, or --fresh.")
    numbers: list[int] = before.get("numbers", [])  # of the turns that count
    first = max(numbers, default=-1) + 1
    most = first + 1 + repeats - len(numbers)
    lengths = [shape.lengths(step) for step in range(most)]  # the sides count from `first`
    job = {
        "model": str(folder),
        "shape": saved(shape),
        "prompts": prompts(AutoTokenizer.from_pretrained(folder), shape, most)[first:],
        "lengths": lengths[first:],
        "learning": LEARNING,
        "seed": SEED,
    }
    about = {"ours": sides.ask("ours", do="open", **job)}
    dtype = about["ours"]["dtype"]  # of its matrix products; the others get the same
    setting = best(name, shape, dtype)
    for side in sides.workers:
        if side != "ours":
            about[side] = sides.ask(side, do="open", dtype=dtype, settings=setting["settings"], **job)
    config = json.loads((folder / "config.json").read_text())
    where = machine()
    if "vllm" in about:
        where["versions"]["vllm"] = about["vllm"]["version"]
    cell: Message = dict(before)
    for step in range(first, most):
        turn = {}
        for side in sides.workers:
            turn[side] = sides.ask(side, do="step", step=step - first)
            check(side, turn[side], shape, lengths[step])
        took = {side: answer["seconds"] for side, answer in turn.items()}
        counts = step > first or sum(took.values()) > NO_WARM_UP
        shown = ", ".join(f"{side} {seconds:.2f} s" for side, seconds in took.items())
        print(f"{name}, {shape.name}: {shown}{'' if counts else ' (warm-up)'}", file=sys.stderr, flush=True)
        if not counts:
            continue
        numbers.append(step)
        for side, answer in turn.items():
            times[side].append(answer)
        needed = [operations(config, shape, lengths[number]) for number in numbers]
        rate = max(product_rate(dtype), cell.get("rate", {}).get("per_second", 0.0))
        cell = {
            "model": {"name": name, "parameters": about["ours"]["parameters"]},
            "shape": saved(shape),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "seed": SEED,
            "machine": where,
            "trl": setting,
            "rate": {"dtype": dtype, "per_second": rate},
            "operations": {part: sum(n[i] for n in needed) / len(needed) for i, part in enumerate(("sample", "learn"))},
            "idle": max(sides.idle, cell.get("idle", 0.0)),
            "numbers": numbers,
            "steps": times,
        }
        keep(cell)
        if len(numbers) == repeats:
            break
    return cell


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
                found = json.loads(path.read_text()) if path.exists() else {}
                cell = found if found.get("run") == run else {}
                repeats = args.repeats or shape.repeats
                if cell and len(cell["steps"]["ours"]) >= repeats:
                    print(
                        f"{name}, {shape.name}: measured {cell['date']} at {cell['commit']} (--fresh: again)",
                        file=sys.stderr,
                    )
                else:
                    running = running or Sides(pythons)
                    folder = model_folder(name, SCRATCH / "models")

                    def keep(made: Message, path: Path = path) -> None:
                        path.write_text(json.dumps(made | {"run": run}, indent=1) + "\n")

                    cell = measure(running, name, folder, shape, repeats, cell, keep)
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
        raise SystemExit("\ninterrupted: the same command goes on after the last turn that counted.") from None
