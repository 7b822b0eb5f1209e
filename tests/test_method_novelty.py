"""Paying for what is new as a recipe: its parts, and real runs of a one-layer model that must agree to the last bit."""

import json
from contextlib import chdir

import pytest

from reckon.errors import InputError
from reckon.methods import grpo, novelty
from reckon.recipe import Recipe
from reckon.rewards import EpisodicCount, GlobalCount, Novelty
from reckon.tasks import ChainArithmetic
from whole_runs import broken_off, checkpoint, made_once, metrics

RECIPE = """\
model: {{name: "{model}", dtype: float32}}
method: novelty
task: {{kind: chain_arithmetic, operations: 2, train: 10, dev: 12, test: 12}}
sampling: {{max_new_tokens: 6}}
warmup: {{examples: 10, epochs: 6, lr: 3e-2, batch: 8}}
optimizer: {{lr: 3e-3}}
steps: 5
prompts: 4
answers: 4
evaluate: null
save: {{every: 1, keep: 5}}
"""
HIDDEN = (
    "reward.bonus={kind: novelty, normalize: std, decay: 0.9, parts: {odd: elliptical, strange: random_distillation}}"
)
VARIANTS = {
    "counts": (),
    "hidden states": ("reward.correct=verifier", HIDDEN),
    "adapters": ("reward.correct=verifier", HIDDEN, "model.lora={rank: 2}"),
}


def test_it_is_grpo_with_a_product_of_two_counts():
    task = ChainArithmetic(operations=2, train=40, dev=4, test=4)
    parts, plain = novelty(task), grpo(task)
    assert parts.reward.parts["correct"] == plain.reward.parts["correct"]
    bonus = parts.reward.parts["bonus"]
    assert bonus == Novelty({"in_group": EpisodicCount(), "in_run": GlobalCount()})
    assert (bonus.how, bonus.center, bonus.normalize) == ("product", True, "none")
    assert parts.reward.weights == {"bonus": 0.1}
    for role in ("keep", "advantage", "objective", "refill"):
        assert getattr(parts, role) == getattr(plain, role)
    assert novelty(task, alpha=0.3, clip=0.1).objective == grpo(task, clip=0.1).objective
    assert novelty(task, alpha=0.3).reward.weights == {"bonus": 0.3}


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_model):
    folder = tmp_path_factory.mktemp("novelty")
    (folder / "novelty.yaml").write_text(RECIPE.format(model=small_model))
    with chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def trained(home):
    """trained(*settings) -> the folder of a whole run with these settings, made once."""
    return made_once(home, "novelty.yaml")


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_with_its_memory_it_is_as_if_nothing_had_happened(home, trained, variant):
    settings = VARIANTS[variant]
    whole = trained(*settings)
    broken = broken_off(home / f"broken-{variant.replace(' ', '-')}", Novelty, "novelty.yaml", *settings)
    assert metrics(broken) == metrics(whole)
    assert checkpoint(broken, 5) == checkpoint(whole, 5)
    memories = {checkpoint(whole, step)["reward.json"] for step in range(1, 6)}
    assert len(memories) == 5  # it does remember something


def test_what_a_step_tells_of_its_bonuses(trained):
    lines = (trained() / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines[1:]]  # after the warm-up's
    assert steps[0]["reward/bonus/in_run/new"] == 1
    known = [step["reward/bonus/in_run/known"] for step in steps]
    assert known == sorted(known)
    assert known[-1] > known[0] > 4
    for step in steps:
        assert abs(step["reward/bonus/novelty/mean"]) < 1e-6  # less its mean in the group
        assert step["reward/bonus/novelty/std"] > 0


def test_settings_are_checked_in_the_recipe(home):
    for override, says in (
        ("reward.bonus.how=mean", "`reward.bonus.how` must be one of product, sum"),
        ("reward.bonus.parts={run: {kind: global_count, per: run}}", "per='run' counts over all problems"),
        ("reward.bonus.parts={a: {kind: eliptical}}", r"no reward of kind `eliptical`.* Did you mean `elliptical`\?"),
        ("method.alfa=1", "`method.alfa` is not a setting"),
    ):
        with pytest.raises(InputError, match=says):
            Recipe.load("novelty.yaml", [override])
