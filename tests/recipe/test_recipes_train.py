"""The recipes of the small model from their first step to their report, in two steps of 160."""

import json
from pathlib import Path

import pytest
import yaml

from reckon.cli import main


def _is_small(path):
    model = yaml.safe_load(path.read_text())["model"]
    return (model if isinstance(model, str) else model["name"]) == "tiny"


RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SMALL = [path for path in RECIPES if _is_small(path)]
SHORT = ("steps=2", "prompts=4", "answers=4", "warmup.examples=32", "warmup.epochs=1", "evaluate={every: 1, n: 8}")


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_a_recipe_of_the_small_model_trains_and_is_reported(path, monkeypatch, tmp_path):
    monkeypatch.setenv("RECKON_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(path), *SHORT, "--out", "run", "--quiet"]) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all(line["rollouts/generated"] >= 16 for line in lines[1:])
    assert Path("run/report.html").stat().st_size > 50_000


def test_there_are_recipes_of_the_small_model():
    assert {"tiny-chain", "rloo", "ppo", "prime", "oreal", "pav-rl", "cooper"} <= {path.stem for path in SMALL}
