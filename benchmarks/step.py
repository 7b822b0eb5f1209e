"""Times one online step by its parts: sampling, scoring, learning. `make bench`, or with --model, --prompts, --answers.

Prints medians over repeated steps after a warm-up, as a table or (--json) one object; --profile says which operations
the time goes to. Absolute figures belong to the machine they were taken on; compare two of them only from one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from reckon.models import Optimization, Sampling, load_model
from reckon.tasks import Largest
from reckon.types import Columns, Outputs, Rng


def loss(outputs: Outputs, columns: Columns) -> torch.Tensor:
    return -outputs.logprobs * columns["scale"]


def timed(action: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Least, median and greatest seconds of `repeats` calls, after one that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    counted = sorted(seconds[1:])
    return counted[0], statistics.median(counted), counted[-1]


def shares(action: Callable[[], object], most: int = 12) -> list[tuple[str, int, float, float]]:
    """The operations that a call spends its own time in, the rest last.

    Each as its name, number of calls, share of the whole, and billions of operations a second: 0 for all but products.
    """
    action()
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as seen:
        action()
    rows = sorted(seen.key_averages(), key=lambda row: -row.self_cpu_time_total)
    whole = sum(row.self_cpu_time_total for row in rows)  # microseconds
    found = [
        (row.key, row.count, row.self_cpu_time_total / whole, row.flops / row.self_cpu_time_total / 1e3)
        for row in rows[:most]
    ]
    rest = rows[most:]
    seconds = sum(row.self_cpu_time_total for row in rest)
    return [*found, ("all others", sum(row.count for row in rest), seconds / whole, 0.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16, help="longest answer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ignore-eos", action="store_true", help="answers of exactly --tokens")
    parser.add_argument("--profile", action="store_true", help="where the time goes, by operation")
    args = parser.parse_args()
    sampling = Sampling(max_new_tokens=args.tokens, ignore_eos=args.ignore_eos)
    model = load_model(args.model, sampling=sampling, optimizer=Optimization(lr=1e-6))
    problems = Largest().problems("train")[: args.prompts]
    seq = model.sample(problems, args.answers, Rng((0,))).seq
    columns = {"scale": seq.mask / seq.mask.sum()}
    parts: dict[str, Callable[[], object]] = {
        "sample": lambda: model.sample(problems, args.answers, Rng((0,))),
        "score": lambda: model.outputs(seq),
        "learn": lambda: model.step(seq, columns, loss),
    }
    if args.profile:
        for name, action in parts.items():
            print(f"{name}: share of its time, calls, billions of operations a second")
            for operation, calls, share, rate in shares(action):
                print(f"  {share:6.1%}{calls:>8}{f'{rate:.0f}' if rate else '':>6}  {operation}")
        return
    rows = {name: timed(action, args.repeats) for name, action in parts.items()}
    tokens = int(seq.mask.sum())
    if args.json:
        print(json.dumps({"model": args.model, "tokens": tokens, "threads": torch.get_num_threads(), "seconds": rows}))
        return
    print(f"{args.model}: {args.prompts} prompts x {args.answers} answers, {tokens} answer tokens, {model.dtype}")
    print(f"{'part':<8}{'least s':>10}{'median s':>10}{'greatest s':>12}{'tokens/s':>10}")
    for name, (least, median, greatest) in rows.items():
        print(f"{name:<8}{least:>10.3f}{median:>10.3f}{greatest:>12.3f}{tokens / median:>10.0f}")


if __name__ == "__main__":
    main()
