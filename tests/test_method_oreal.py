"""OREAL as a recipe: its parts, and real runs of a one-layer model that must agree to the last bit."""

import contextlib
import json

import pytest

from reckon.credit import Reshaped
from reckon.errors import InputError
from reckon.losses import ClonePositives, WeightedNegatives
from reckon.methods import oreal
from reckon.models import Optimization
from reckon.recipe import Recipe
from reckon.rewards import TokenOutcomeModel, Verifier
from reckon.samplers import OnePair
from reckon.tasks import ChainArithmetic
from reckon.types import Refill
from whole_runs import broken_off, checkpoint, made_once, metrics

RECIPE = """\
model: {{name: "{model}", dtype: float32}}
method: {{kind: oreal, lr: 1e-2, warmup: 2}}
task: {{kind: chain_arithmetic, operations: 2, train: 40, dev: 12, test: 12}}
sampling: {{max_new_tokens: 6}}
warmup: {{examples: 16, epochs: 6, lr: 3e-2, batch: 8}}
optimizer: {{lr: 3e-3}}
steps: 6
prompts: 6
answers: 6
evaluate: null
save: {{every: 2}}
"""
TOKENS = "reward.tokens"
VARIANTS = {
    "as it is": (),
    "adapters": ("model.lora={rank: 2}",),
    "paper, after the token": ("method.schedule=paper", f"{TOKENS}.position=after", f"{TOKENS}.how=token"),
    "all answers, mini-batches": (
        "keep=drop_equal",
        f"{TOKENS}.balanced=true",
        f"{TOKENS}.optimizer={{lr: 1e-2, epochs: 2, minibatches: 2, weight_decay: 0.1}}",
    ),
}


def test_its_parts_are_those_of_the_released_code():
    """Section 2.2: one pair, leave-one-out of +1 and -1, 1.0 and 0.5, k3 0.01 over tokens, 2e-6, 10 frozen steps."""
    policy, reference = object(), object()
    parts = oreal(ChainArithmetic(), policy=policy, reference=reference)
    tokens, penalty = parts.reward.parts["tokens"], parts.objective.parts["kl"]
    assert parts.keep == OnePair()
    assert parts.reward.parts["correct"] == Verifier(right=1.0, wrong=-1.0)
    assert (tokens.how, tokens.position, tokens.threshold, tokens.balanced) == ("mean", "before", 0.5, False)
    assert tokens.optimizer == Optimization(lr=2e-6, weight_decay=0.01, clip=1.0)
    assert tokens.policy is policy
    assert parts.advantage == Reshaped(right="rloo", wrong="rloo", warmup=10)
    assert parts.refill == Refill(rounds=8)
    assert parts.objective.parts["right"] == ClonePositives(coef=1.0)
    assert parts.objective.parts["wrong"] == WeightedNegatives(coef=0.5)
    assert (penalty.reference, penalty.coef, penalty.estimator, penalty.average) == (reference, 0.01, "k3", "tokens")


@pytest.mark.parametrize(
    ("schedule", "right", "wrong"),
    [("code", "rloo", "rloo"), ("paper", "one", "failures"), ("grpo", "grpo", "grpo"), ("one", "one", "one")],
)
def test_schedules_are_named(schedule, right, wrong):
    parts = oreal(ChainArithmetic(), schedule=schedule, kl=0.0, warmup=0, policy=object())
    assert parts.advantage == Reshaped(right=right, wrong=wrong)
    assert list(parts.objective.parts) == ["right", "wrong"]


def test_what_it_cannot_do_without():
    with pytest.raises(InputError, match="oreal makes the model that weighs tokens of the `policy`"):
        oreal(ChainArithmetic())
    with pytest.raises(InputError, match="`kl` is above 0"):
        oreal(ChainArithmetic(), policy=object())
    with pytest.raises(InputError, match="oreal: `schedule` is 'rloo'; it must be one of code, paper, grpo, one"):
        oreal(ChainArithmetic(), schedule="rloo", policy=object(), reference=object())


# Runs


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_model):
    folder = tmp_path_factory.mktemp("oreal")
    (folder / "oreal.yaml").write_text(RECIPE.format(model=small_model))
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def trained(home):
    """trained(*settings) -> the folder of a whole run with these settings, made once."""
    return made_once(home, "oreal.yaml")


def told(folder):
    """Every step's numbers; before the first there is a line of its own."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][1:]


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_with_its_judge_it_is_as_if_nothing_had_happened(home, trained, variant):
    """Stopped after the third of six steps: every number, every weight of policy and judge, every moment."""
    settings = VARIANTS[variant]
    whole = trained(*settings)
    broken = broken_off(home / f"broken-{variant.replace(' ', '-')}", TokenOutcomeModel, "oreal.yaml", *settings)
    assert metrics(broken) == metrics(whole)
    assert checkpoint(broken, 6) == checkpoint(whole, 6)
    assert checkpoint(whole, 6)["reward.safetensors"] != checkpoint(whole, 4)["reward.safetensors"]


def test_the_policy_waits_and_its_judge_learns_meanwhile(trained):
    lines = told(trained())
    for line in lines[:2]:
        assert line["policy/steps"] == 0
        assert line["tokens/trained"] == 0
        assert line["reward/tokens/steps"] == 1
    assert lines[0]["reward/tokens/right"] == lines[0]["reward/tokens/wrong"] == 0
    assert [line["policy/steps"] for line in lines[2:]] == [1] * 4
    assert lines[-1]["reward/tokens/right"] > 0


def test_it_trains_on_pairs_and_says_what_its_judge_found_and_cost(trained):
    names = {"loss", "accuracy", "right", "wrong", "steps", "grad_norm", "tokens", "mean", "std", "unknown"}
    for line in told(trained()):
        found = {name.removeprefix("reward/tokens/") for name in line if name.startswith("reward/tokens/")}
        assert found == names
        assert line["time/reward/tokens"] > 0
        # Two of six answers are read in each group that is kept; of the others nothing is known.
        assert line["reward/tokens/unknown"] == pytest.approx(4 / 6)


def test_without_weights_it_is_another_run(trained):
    without = trained("reward={correct: {kind: verifier, wrong: -1.0}}", "advantage.warmup=0")
    assert checkpoint(trained(), 6)["policy.safetensors"] != checkpoint(without, 6)["policy.safetensors"]
    assert told(without)[0]["policy/steps"] == 1


def test_settings_of_the_method_and_of_its_parts_are_checked_in_the_recipe(home):
    for override, says in (
        ("method.schedule=rloo", "`method.schedule` must be one of code, paper, grpo, one"),
        (f"{TOKENS}.threshold=2", "`threshold` is 2"),
        (f"{TOKENS}.optimizer.lrr=1", "`reward.tokens.optimizer.lrr` is not a setting"),
        ("advantage.wrong=none", "`advantage.wrong` must be one of rloo, grpo, failures, one"),
        ("objective.wrong.coef=-1", "coef is -1"),
    ):
        with pytest.raises(InputError, match=says):
            Recipe.load("oreal.yaml", [override])
