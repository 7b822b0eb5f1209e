"""A run made up for the report's tests: numbers like those of a small model that learns to find the largest number."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from reckon.files import write_table
from reckon.runs import ROLLOUTS, Run, make_table

RECIPE = {
    "model": {"name": "smollm2-135m"},
    "method": {"kind": "grpo"},
    "task": {"kind": "largest", "n": 5},
    "reward": {
        "correct": {"kind": "verifier", "weight": 1.0, "watch": False},
        "format": {"kind": "format", "weight": 0.1, "watch": False},
        "judge": {"kind": "judge", "weight": 1.0, "watch": True},
    },
    "steps": 40,
    "seed": 7,
}


def write_rollouts(path: Path, columns: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, make_table(columns, ROLLOUTS))


def rollout(rng: random.Random, step: int, row: int, group: int, right_share: float) -> dict[str, object]:
    posed = random.Random(1000 * step + group)
    numbers = [posed.randrange(10, 100) for _ in range(5)]
    reference = str(max(numbers))
    right = rng.random() < right_share
    said = reference if right else str(min(numbers))
    unknown = rng.random() < 0.02
    pieces = ["The", " largest", " number", " is", " ", said[0], said[1], ".", "\n", "So", ":", f" {said}", ""]
    outcome = None if unknown else float(right)
    judged = [rng.gauss(0.4 if right else -0.4, 0.5) for _ in pieces]
    credit = 0.0 if unknown else (0.9 if right else -0.8) * (1 + 0.3 * rng.random())
    dense = group % 2 == 1  # half of the groups credit each token by itself
    return {
        "step": step,
        "row": row,
        "group": group,
        "problem": f"largest-{step:03}-{group}",
        "domain": ["two digits", "three digits"][group % 2],
        "prompt": f"user: Which is the largest: {', '.join(map(str, numbers))}? Reply with the number only.",
        "answer": reference,
        "text": "".join(pieces),
        "outcome": outcome,
        "parsed": said,
        "reason": "timed out" if unknown else "right" if right else "wrong",
        "end": "length" if rng.random() < 0.1 else "eos",
        "train": not unknown,
        "tokens": list(range(len(pieces))),
        "pieces": pieces,
        "logprobs": [-abs(rng.gauss(0, 0.6)) for _ in pieces],
        "advantages": [credit + dense * value for value in judged],
        "stream/correct": outcome,
        "stream/format": float(rng.random() < 0.8) * 0.1,
        "stream/judge/tokens": judged,
    }


def log(folder: Path, step: int, metrics: dict[str, float]) -> None:
    """A line of the log, with a clock of our own: 15.2 s a step, 30 s before the first."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "seconds": 30 + 15.2 * step} | metrics) + "\n")


def log_metrics(folder: Path, rng: random.Random, steps: int, per_step: int) -> None:
    for step in range(1, steps + 1):
        share = 0.34 + 0.5 * step / steps
        metrics = {
            "outcome/mean": share + rng.gauss(0, 0.06),
            "outcome/unknown": 0.02,
            "reward/correct/mean": share + rng.gauss(0, 0.06),
            "reward/format/mean": 0.05 + 0.04 * step / steps,
            "reward/judge/mean": -0.2 + 0.5 * step / steps + rng.gauss(0, 0.05),
            "advantage/zero_groups": 0.1 + 0.3 * step / steps,
            "length/mean": 13 - 4 * step / steps + rng.gauss(0, 0.4),
            "length/truncated": max(0.0, 0.12 - 0.1 * step / steps),
            "tokens/generated": 13.0 * per_step,
            "tokens/trained": 12.0 * per_step,
            "policy/loss": rng.gauss(0, 0.02),
            "policy/entropy": 1.2 * 0.97**step,
            "policy/kl": 0.001 * step,
            "policy/clip_fraction": 0.02 + 0.01 * rng.random(),
            "policy/grad_norm": 1.5 + abs(rng.gauss(0, 0.4)),
            "policy/lr": 5e-6,
            "time/sample": 8.0,
            "time/update": 5.0,
            "computed/sample": 13.0 * per_step,
            "memory/peak_mib": 2100.0 + step,
        }
        log(folder, step, metrics)
        if step % 10 == 0:
            rate = 0.34 + 0.53 * step / steps
            log(folder, step, {"eval/dev/pass@1": rate, "eval/dev/low": rate - 0.08, "eval/dev/high": rate + 0.07})


def evaluate(run: Run, rng: random.Random, step: int, right: list[bool]) -> None:
    rows = [rollout(rng, step, i, i, float(is_right)) for i, is_right in enumerate(right)]
    for i, (row, is_right) in enumerate(zip(rows, right, strict=True)):
        held_out = random.Random(i)  # the same problem in every evaluation
        numbers = [held_out.randrange(10, 100) for _ in range(5)]
        said = str(max(numbers) if is_right else min(numbers))
        row |= {
            "problem": f"test-{i}",
            "prompt": f"user: Which is the largest: {numbers}?",
            "answer": str(max(numbers)),
        }
        row |= {"outcome": float(is_right), "parsed": said, "reason": "right" if is_right else "wrong", "text": said}
        row |= {"tokens": [1, 2], "pieces": [said, ""], "logprobs": [-0.2, -0.1], "sample": 0, "greedy": True}
    left_out = ("train", "advantages", "stream/correct", "stream/format", "stream/judge/tokens")
    run.evaluation("test", step, {name: [row[name] for row in rows] for name in rows[0] if name not in left_out})


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Builds a run of `steps` steps with `per_step` rollouts each, in groups of 4."""

    def make(
        folder: Path, steps: int = 40, per_step: int = 20, evals: int = 2, right_after: range = range(2, 114)
    ) -> Path:
        rng = random.Random(0)
        with Run.create(folder, recipe=RECIPE) as run:
            # 128 problems; before the first 44 are right; after the 3rd to the 114th: 70 new ones, and 2 lost
            if evals:
                evaluate(run, rng, 0, [i < 44 for i in range(128)])
                log(folder, 0, {"eval/dev/pass@1": 0.34, "eval/dev/low": 0.27, "eval/dev/high": 0.43})
            log_metrics(folder, rng, steps, per_step)
            if evals == 2:
                evaluate(run, rng, steps, [i in right_after for i in range(128)])
        for step in range(1, steps + 1):
            rows = [rollout(rng, step, row, row // 4, 0.34 + 0.5 * step / steps) for row in range(per_step)]
            write_rollouts(
                folder / "rollouts" / f"step-{step:06}.parquet", {name: [row[name] for row in rows] for name in rows[0]}
            )
        return folder

    return make


@pytest.fixture(scope="session")
def small(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 rollouts over 40 steps, evaluated before and after."""
    return make_run(tmp_path_factory.mktemp("runs") / "largest-7", per_step=5)


@pytest.fixture(scope="session")
def big(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 rollouts over 250 steps, and 256 held-out answers."""
    return make_run(tmp_path_factory.mktemp("runs") / "big", steps=250, per_step=40)


def rollout_columns(n: int) -> dict[str, list]:
    """n rollouts of one token, as columns to change."""
    rng = random.Random(0)
    rows = [rollout(rng, 1, row, row, 0.5) for row in range(n)]
    one = {"text": "x", "pieces": ["x"], "tokens": [1], "logprobs": [-1.0], "advantages": [0.5]}
    return {name: [one.get(name, row[name]) for row in rows] for name in rows[0] if not name.startswith("stream/")}


NASTY = [
    "</script><script>window.pwned = 1</script>",
    "<!-- <script> <![CDATA[ <img src=x onerror='window.pwned = 1'>",
    "\"'`&amp;&lt;${window.pwned = 1}</textarea></style></title>",
    "line\u2028separator\u2029paragraph",
    "half a surrogate \ud83d here",
    "\x1b[31mred\x1b[0m bell\x07 nul\x00 back\x08",
    "safe\u202egnp.exe\u202c and \u2066isolate\u2069",
    "javascript:window.pwned=1",
    "e\u0301 😀 עברית 你好",
    "\r\n\r\n",
]


def make_nasty(folder: Path) -> Path:
    """A run in which every text tries to break out of its place."""
    with Run.create(folder, recipe={"model": NASTY[0], "method": NASTY[1], "reward": {NASTY[0]: {"kind": NASTY[2]}}}):
        pass
    log(folder, 1, {"outcome/mean": 0.5, "reward/<script>/mean": 1.0, "eval/<b>/pass@1": 0.5})
    whole = [text.encode("utf-8", "replace").decode() for text in NASTY]
    columns = rollout_columns(len(NASTY)) | {"stream/<i>": [1.0] * len(NASTY)}
    columns |= dict.fromkeys(("text", "prompt", "answer", "parsed", "problem", "domain", "reason", "end"), whole)
    columns |= {"pieces": [[text] for text in whole]}
    write_rollouts(folder / "rollouts" / "step-000001.parquet", columns)
    return folder
