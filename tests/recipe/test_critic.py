"""PPO by a recipe: the policy as its own critic, a critic beside it, a judge as the reward; runs of a small model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reckon.cli import main
from reckon.errors import InputError
from reckon.models import LanguageModel, Optimization, load_model, tiny
from reckon.recipe import Recipe, load_critic, load_run, run_recipe
from reckon.rewards import AdaptiveKLReward, Fitted
from reckon.runs import Run
from reckon.types import Problem

OWN = """
def digits(completions, **kwargs):
    return [sum(c.isdigit() for c in text) / (1 + len(text)) for text in completions]
"""
RECIPE = """\
model: {{name: "{model}", dtype: float32}}
method: ppo
task: {{kind: chain_arithmetic, operations: 2, train: 40, dev: 12, test: 12}}
sampling: {{max_new_tokens: 6}}
reward: {{digits: "own.py:digits", kl: {{kind: kl_reward, coef: 0.01}}}}
optimizer: {{lr: 1e-2, epochs: 2, minibatches: 2}}
steps: 3
prompts: 8
answers: 8
evaluate: null
"""


@pytest.fixture
def text(small_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    return RECIPE.format(model=small_model)


def metrics(folder):
    """Of every step but the 0th."""
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()][1:]


def finished(text, *overrides, out="run"):
    return run_recipe(Recipe.parse(text, [*overrides, f"out={out}"]), show="nothing").folder


# What a recipe says


def test_the_policy_is_its_own_critic(text):
    recipe = Recipe.parse(text)
    assert recipe.has_value_head
    recipe.check_training()
    policy = recipe.load_policy()
    assert not policy.head.weight.any()
    parts = recipe.build(policy)
    assert parts.advantage.critic is policy
    assert parts.advantage.learn is None
    assert list(parts.objective.parts) == ["ratio", "value"]
    assert "critic" not in recipe.resolved()
    assert not Recipe.parse(text, ["method=grpo"]).has_value_head


def test_a_critic_beside_the_policy_starts_as_its_copy(text):
    recipe = Recipe.parse(text, ["critic={optimizer: {lr: 3e-3, epochs: 4}}"])
    assert not recipe.has_value_head
    recipe.check_training()
    assert recipe.critic.optimizer == Optimization(
        lr=3e-3, epochs=4, minibatches=2, total=3 * 4 * 2
    )  # else the policy's
    policy = recipe.load_policy()
    parts = recipe.build(policy)
    critic = parts.advantage.critic
    assert policy.head is None
    assert critic is not policy
    assert critic.head is not None
    assert critic.optimization == recipe.critic.optimizer
    ours, theirs = (dict(model.network.named_parameters()) for model in (policy, critic))
    assert all(torch.equal(theirs[name], weight) and theirs[name] is not weight for name, weight in ours.items())
    assert type(parts.objective).__name__ == "ClippedRatio"
    assert parts.advantage.learn.clip == 0.2


def test_a_critic_may_start_from_a_judge(text, small_model):
    judge = load_model(str(small_model), value_head=True)
    with torch.no_grad():
        judge.head.weight.fill_(0.25)
    judge.save_pretrained("judge")
    recipe = Recipe.parse(text, ["critic={name: judge, dtype: float32}"])
    critic = recipe.build(recipe.load_policy()).advantage.critic
    assert (critic.head.weight == 0.25).all()


@pytest.mark.parametrize("critic", ["null", "{}", "{optimizer: {lr: 1e-4}}", "{name: tiny, lora: {rank: 2}}"])
def test_what_a_run_stores_means_the_same_again(text, critic):
    recipe = Recipe.parse(text, [f"critic={critic}"])
    again = Recipe.parse(recipe.to_yaml())
    assert again.resolved() == recipe.resolved()
    assert again.critic == recipe.critic


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=grpo", "critic={}"], "`critic` is a model that no part asks. Take `advantage: gae`"),
        (["advantage=gae", "critic={}"], "`critic` is a model of its own, and nothing teaches it"),
        (["advantage=gae", "objective=clipped_ratio"], "the policy's own value head, which nothing teaches"),
        (["critic={}", "advantage.learn=null"], "`critic` is a model of its own, and nothing teaches it"),
        (["advantage.learn=value_loss"], "learns with the policy and not by `advantage.learn`"),
    ],
)
def test_a_critic_that_nobody_asks_or_teaches_is_told(text, overrides, message):
    with pytest.raises(InputError, match=message):
        Recipe.parse(text, overrides).check_training()


@pytest.mark.parametrize(
    ("critic", "message"),
    [
        ("{lr: 1e-3}", "`critic.lr` is not a setting of `critic`"),
        ("{lora: {rank: 2}}", "`critic.lora` is a setting of a model that is named"),
        ("{value_head: true}", "`critic.value_head` is not a setting"),
        ("{optimizer: {rate: 1}}", "`critic.optimizer.rate` is not a setting of `critic.optimizer`"),
        ("{optimizer: {minibatches: 9}}", "`critic.optimizer.minibatches` is 9, but a step has only 8"),
        ("tiny", "`critic` must be a mapping of settings"),
        ("{name: 3}", "`critic.name` must be text"),
    ],
)
def test_bad_settings_of_a_critic_are_told(text, critic, message):
    with pytest.raises(InputError, match=message):
        Recipe.parse(text, [f"critic={critic}"])


def test_a_critic_with_other_tokens_is_refused(text):
    tokenizer = tiny.make_tokenizer()
    tokenizer.add_tokens(["<more>"])
    tiny.make_network(layers=1, width=16, heads=2, context=96).save_pretrained("odd")
    tokenizer.save_pretrained("odd")
    recipe = Recipe.parse(text, ["critic={name: odd}"])
    with pytest.raises(InputError, match=r"`critic.name` is .*, whose tokens are others than the policy's"):
        recipe.build(recipe.load_policy())


def test_a_ratio_to_each_step_goes_with_truncated_sampling(text):
    with pytest.raises(InputError, match=r"`sampling.top_k` cuts off tokens"):
        Recipe.parse(text, ["sampling.top_k=5"]).check_training()
    Recipe.parse(text, ["sampling.top_k=5", "method={kind: ppo, old: step}"]).check_training()


# Runs


@pytest.mark.parametrize("own", [False, True])
def test_ppo_learns_to_write_digits(text, own):
    """The share of digits of a random model is small; a few steps of PPO with either critic raise it."""
    critic = ["critic={optimizer: {lr: 1e-2, epochs: 4}}"] if own else []
    lines = metrics(finished(text, "steps=20", *critic))
    share = [line["reward/digits/mean"] for line in lines]
    assert sum(share[-3:]) / 3 > 2 * sum(share[:3]) / 3
    assert sum(share[-3:]) / 3 > 0.3
    assert "critic/explained_variance" in lines[-1]
    assert ("critic/loss" in lines[-1]) is own
    assert ("policy/value_error" in lines[-1]) is not own
    assert max(line["policy/clip_fraction"] for line in lines) > 0


def test_the_value_head_is_exported(text):
    folder = finished(text)
    policy = load_run(folder, "last")
    assert policy.head.weight.any()
    policy.save_pretrained("exported")
    again = load_model("exported", value_head=True, dtype="float32")
    assert torch.equal(again.head.weight, policy.head.weight)


def test_with_a_critic_of_its_own_the_policy_has_no_head(text):
    folder = finished(text, "critic={}")
    assert load_run(folder, "last").head is None
    state = Run.open(folder).folder / "checkpoints" / "step-000003" / "advantage.safetensors"
    assert b"value_head" in state.read_bytes()


@pytest.mark.parametrize("lora", ["null", "{rank: 2}"])
def test_a_critic_of_its_own_is_exported_beside_the_policy(text, lora, capsys):
    folder = finished(text, "critic={optimizer: {lr: 3e-3}}", f"model.lora={lora}")
    policy, critic = load_run(folder, "last"), load_critic(folder, "last")
    assert critic.head.weight.any()
    seq = policy.tokenize([Problem(id="0", prompt="1+2=")], ["3,4"])
    assert not torch.equal(critic.outputs(seq).logprobs, policy.outputs(seq).logprobs)  # it learned for itself
    assert main(["models", "export", str(folder), "exported", "--step", "last", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["critic"] == str(Path("exported") / "critic")
    for name, model in (("exported", policy), ("exported/critic", critic)):
        again = load_model(name, value_head=model is critic, dtype="float32", sampling=policy.sampling)
        torch.testing.assert_close(again.outputs(seq).logprobs, model.outputs(seq).logprobs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        again.outputs(seq, ("values",)).values, critic.outputs(seq, ("values",)).values, rtol=1e-4, atol=1e-5
    )
    state = Run.open(folder).folder / "checkpoints" / "step-000003" / "advantage.safetensors"
    assert torch.equal(critic.head.weight.detach(), load_file(state)["critic.weights.value_head.weight"])


def test_a_run_whose_policy_is_its_own_critic_has_no_other(text, capsys):
    folder = finished(text)
    assert load_critic(folder, "last") is None
    assert main(["models", "export", str(folder), "exported"]) == 0
    assert not (Path("exported") / "critic").exists()


def test_a_fitted_judge_and_a_charge_that_follows_are_the_reward(text, small_model):
    judge = LanguageModel(load_model(str(small_model)).network, tiny.make_tokenizer(), value_head=True)
    with torch.no_grad():
        judge.head.weight.copy_(torch.linspace(-1, 1, 16))
    judge.save_pretrained("judge")
    (Path("judge") / "judge.json").write_text(json.dumps({"kind": "outcome_model"}))
    score = "score: {kind: fitted, folder: judge, unfinished: replace, penalty: -10}"
    charge = "kl: {kind: adaptive_kl_reward, target: 1e-4, horizon: 64}"
    reward = f"reward={{{score}, {charge}}}"
    recipe = Recipe.parse(text, [reward])
    parts = recipe.build(recipe.load_policy()).reward.parts
    assert isinstance(parts["score"], Fitted)
    assert isinstance(parts["kl"], AdaptiveKLReward)
    folder = finished(text, reward)
    lines = metrics(folder)
    assert [line["reward/kl/coef"] for line in lines[:2]] == [0.05, pytest.approx(0.05 * 0.8)]  # at first the KL is 0
    rows = Run.open(folder).rollouts(columns=["end", "stream/score"]).to_pylist()
    cut = [row["end"] == "length" for row in rows]
    assert any(cut)
    assert not all(cut)
    assert [row["stream/score"] == -10 for row in rows] == cut
