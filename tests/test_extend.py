"""The page that shows how a part is added: its example is short, runs, learns, and resumes exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from reckon.cli import main
from reckon.types import LearningReward, Reporting

PAGE = Path(__file__).parents[1] / "docs" / "extend.md"
BLOCKS = [block.split("```")[0] for block in PAGE.read_text().split("```python\n")[1:]]
RECIPE = """
model: tiny
task: {kind: chain_arithmetic, operations: 1, train: 64, dev: 4, test: 4}
method: rloo
sampling: {max_new_tokens: 2}
optimizer: {lr: 1e-3}
steps: 4
prompts: 8
answers: 4
evaluate: null
save: {every: 1, keep: 4}
reward: {correct: {kind: verifier}, digits: {kind: "own.py:LastDigits", weight: 0.5, lr: 2.0}}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(BLOCKS[0])
    Path("own.yaml").write_text(RECIPE)
    return tmp_path


def test_the_example_is_short_and_keeps_the_protocols():
    assert len(BLOCKS[0].strip().splitlines()) < 40
    names: dict[str, object] = {}
    exec(BLOCKS[0], names)
    judge = names["LastDigits"]()  # type: ignore[operator]
    assert isinstance(judge, LearningReward)
    assert isinstance(judge, Reporting)


def test_both_examples_run_as_they_stand(home):
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(block, names)
    lines = [json.loads(line) for line in (home / "runs/extended/metrics.jsonl").read_text().splitlines()]
    # nothing is known at first: every chance is a half, so the first loss is ln 2
    assert lines[0]["reward/digits/loss"] == pytest.approx(math.log(2))
    assert lines[0]["reward/digits/mean"] == pytest.approx(0.25)  # a half times its weight
    assert names["judges"].parts["digits"].weights.any()  # type: ignore[attr-defined]


def test_it_resumes_exactly_from_a_recipe(home):
    assert main(["train", "own.yaml", "--out", "whole", "--quiet"]) == 0
    assert main(["train", "own.yaml", "--out", "cut", "--quiet"]) == 0
    for step in (3, 4):  # as if it had been stopped after the second step
        for path in (home / "cut" / "checkpoints").glob(f"*{step}*"):
            _remove(path)
    assert max((home / "cut" / "checkpoints").iterdir()).name.endswith("2")
    assert main(["train", "--resume", "cut", "--quiet"]) == 0
    ends = [_state(home / name) for name in ("whole", "cut")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def _remove(path):
    for inside in sorted(path.rglob("*"), reverse=True):
        inside.unlink() if inside.is_file() else inside.rmdir()
    path.rmdir()


def _state(run):
    from safetensors.torch import load_file

    last = max((run / "checkpoints").iterdir())
    return {
        f"{path.stem}/{name}": value for path in last.glob("*.safetensors") for name, value in load_file(path).items()
    }
