"""PRIME as a recipe: its filter, its parts, and real runs of a one-layer model that must agree to the last bit."""

import json
from contextlib import chdir

import pytest
import torch

from credit_batches import batch_of
from reckon.errors import InputError
from reckon.methods import prime
from reckon.models import Optimization
from reckon.recipe import Recipe
from reckon.rewards import OnlineImplicitReward
from reckon.samplers import AccuracyBand
from reckon.tasks import ChainArithmetic
from reckon.types import Refill, Rng, Use
from whole_runs import broken_off, checkpoint, made_once, metrics

RECIPE = """\
model: {{name: "{model}", dtype: float32}}
method: {{kind: prime, lr: 1e-2}}
task: {{kind: chain_arithmetic, operations: 2, train: 40, dev: 12, test: 12}}
sampling: {{max_new_tokens: 6}}
warmup: {{examples: 16, epochs: 6, lr: 3e-2, batch: 8}}
optimizer: {{lr: 3e-3}}
steps: 6
prompts: 4
answers: 4
evaluate: {{every: 3, n: 12, k: 2}}
save: {{every: 2}}
"""
PROCESS = "reward.process"
VARIANTS = {
    "as it is": (),
    "adapters": ("model.lora={rank: 2}",),
    "policy as reference": (f"{PROCESS}.against=policy", f"{PROCESS}.update=before"),
    "mini-batches": (f"{PROCESS}.optimizer={{lr: 1e-2, epochs: 2, minibatches: 2, weight_decay: 0.1}}",),
    "losses of the group": (f"{PROCESS}.loss=bon_rm", f"{PROCESS}.update=reverse"),
}


# The filter (section 2.5 of the specification)


@pytest.mark.parametrize(
    ("k", "kept"), [(4, {1, 2, 3}), (8, {2, 3, 4, 5, 6}), (16, {4, 5, 6, 7, 8, 9, 10, 11, 12})], ids=["4", "8", "16"]
)
def test_the_filter_keeps_what_its_table_says(k, kept):
    """Groups with 0 to k right responses, in this order: bounds included, order preserved, whole groups."""
    group = [g for g in range(k + 1) for _ in range(k)]
    outcome = torch.tensor([float(j < g) for g in range(k + 1) for j in range(k)])
    rollouts = batch_of(group, [1] * len(group)).rollouts
    use = AccuracyBand()(rollouts, outcome, Rng((0,))).reshape(k + 1, k)
    assert {g for g in range(k + 1) if (use[g] == Use.TRAIN).all()} == kept
    assert ((use == Use.TRAIN).all(dim=1) | (use == Use.DROP).all(dim=1)).all()


def test_its_parts_are_the_papers():
    """Section 2.8: beta 0.05, gamma 1, clip 0.2 both ways over all tokens, a model learning at 1e-6, clipped at 10."""
    policy = object()
    parts = prime(ChainArithmetic(), policy=policy, reference=object())
    process = parts.reward.parts["process"]
    assert (process.beta, process.update, process.loss, process.per) == (0.05, "after", "ce", "token")
    assert process.optimizer == Optimization(lr=1e-6, clip=10.0)
    assert process.policy is policy
    assert parts.keep == AccuracyBand(low=0.2, high=0.8)
    assert parts.refill == Refill(rounds=8)
    assert repr(parts.advantage).startswith("Streamwise(estimator='rloo', form='code', weights={}, gammas={}")
    assert parts.advantage.whiten
    assert (parts.objective.low, parts.objective.high, parts.objective.average) == (0.2, 0.2, "tokens")
    with pytest.raises(InputError, match=r"prime .* `policy`"):
        prime(ChainArithmetic())


# Runs


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_model):
    folder = tmp_path_factory.mktemp("prime")
    (folder / "prime.yaml").write_text(RECIPE.format(model=small_model))
    with chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def trained(home):
    return made_once(home, "prime.yaml")


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_with_its_judge_it_is_as_if_nothing_had_happened(home, trained, variant):
    """Stopped after the third of six steps: every number, every weight of policy and judge, every moment."""
    settings = VARIANTS[variant]
    whole = trained(*settings)
    broken = broken_off(home / f"broken-{variant.replace(' ', '-')}", OnlineImplicitReward, "prime.yaml", *settings)
    assert metrics(broken) == metrics(whole)
    assert checkpoint(broken, 6) == checkpoint(whole, 6)
    assert checkpoint(whole, 6)["reward.safetensors"] != checkpoint(whole, 4)["reward.safetensors"]


def test_what_a_step_tells_of_its_judge(trained):
    lines = [json.loads(line) for line in (trained() / "metrics.jsonl").read_text().splitlines()][1:]
    told = {"loss", "accuracy", "dpo_acc", "ratio", "steps", "grad_norm", "tokens", "mean", "std", "unknown"}
    for line in lines:
        found = {name.removeprefix("reward/process/") for name in line if name.startswith("reward/process/")}
        assert found == told
        assert line["time/reward/process"] > 0
        assert line["computed/reward/process"] > 0
    assert lines[0]["reward/process/dpo_acc"] == 0.5
    assert lines[0]["reward/process/mean"] == 0.0
    assert lines[-1]["reward/process/std"] > 0


def test_at_weight_0_it_is_training_on_the_outcome_alone_bit_for_bit(trained):
    without = trained("reward={correct: verifier}")
    for off in (f"{PROCESS}.weight=0", f"{PROCESS}.watch=true", "advantage.weights={process: 0}"):
        beside = trained(off)
        assert checkpoint(beside, 6)["policy.safetensors"] == checkpoint(without, 6)["policy.safetensors"]
    assert checkpoint(trained(), 6)["policy.safetensors"] != checkpoint(without, 6)["policy.safetensors"]


def test_adapters_of_policy_and_judge_are_saved_apart(trained):
    files = checkpoint(trained(*VARIANTS["adapters"]), 6)
    assert b"lora_A.default" in files["policy.safetensors"]
    assert b"lora_A.adapter1" not in files["policy.safetensors"]
    assert b"lora_A.adapter1" in files["reward.safetensors"]
    assert b"embed_tokens" not in files["reward.safetensors"]


def test_settings_of_the_method_and_of_its_parts_are_checked_in_the_recipe(home):
    for override, says in (
        ("method.update=later", "`method.update` must be one of none, after, before"),
        (f"{PROCESS}.smoothing=2", "`smoothing` is 2"),
        (f"{PROCESS}.optimizer.lrr=1", "`reward.process.optimizer.lrr` is not a setting"),
        ("advantage.estimator=ppo", "`advantage.estimator` must be one of rloo, grpo, reinforce, value"),
    ):
        with pytest.raises(InputError, match=says):
            Recipe.load("prime.yaml", [override])
