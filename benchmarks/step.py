"""Times one online step by its parts: sampling, scoring, learning. `make bench`, or with --model, --prompts, --answers.

Prints medians over repeated steps after a warm-up, as a table or (--json) one object. Absolute figures belong to the
machine they were taken on; compare two of them only from one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16, help="longest answer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model = load_model(args.model, sampling=Sampling(max_new_tokens=args.tokens), optimizer=Optimization(lr=1e-6))
    problems = Largest().problems("train")[: args.prompts]
    seq = model.sample(problems, args.answers, Rng((0,))).seq
    columns = {"scale": seq.mask / seq.mask.sum()}
    rows = {
        "sample": timed(lambda: model.sample(problems, args.answers, Rng((0,))), args.repeats),
        "score": timed(lambda: model.outputs(seq), args.repeats),
        "learn": timed(lambda: model.step(seq, columns, loss), args.repeats),
    }
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
