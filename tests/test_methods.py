import inspect
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from reckon.errors import InputError
from reckon.losses import Objectives, PolicyGradient, ValueLoss
from reckon.methods import METHODS, dapo, dr_grpo, grpo, gspo, ppo, reinforce, rloo, rule_reasoner
from reckon.recipe import Recipe, methods_table
from reckon.rewards import as_reward
from reckon.samplers import DomainSampler, Uniform
from reckon.train import take_step
from reckon.types import Problem, Rng, Verdict, snake_case


@dataclass(frozen=True)
class Task:
    name: str = "one"

    def problems(self, split):
        return [Problem(id="0", prompt="x", answer="y")]

    def check(self, problem, text):
        return Verdict(outcome=1.0, answer=text, reason="right")


# What the papers say, in the words of parts: arXiv numbers in reckon.methods.
PAPERS = [
    # GRPO: normalized with the deviation, clip 0.2 both ways, mean within a response and then over responses
    (grpo(Task()), "All()", "GroupNormalized(std=True", "low=0.2, high=0.2", "token", "sequences", None),
    # Dr. GRPO: no deviation; sums over tokens divided by a constant
    (dr_grpo(Task(), limit=64), "All()", "GroupNormalized(std=False", "low=0.2, high=0.2", "token", "constant", 64),
    # DAPO: groups of equal outcomes dropped, clip 0.2 and 0.28, mean over all tokens
    (dapo(Task(), limit=64), "DropEqual()", "GroupNormalized(std=True", "low=0.2, high=0.28", "token", "tokens", None),
    # GSPO: one ratio a response, clip 3e-4 and 4e-4
    (gspo(Task()), "All()", "GroupNormalized(std=True", "low=0.0003, high=0.0004", "sequence", "sequences", None),
]


@pytest.mark.parametrize(
    ("parts", "keep", "advantage", "clip", "level", "average", "length"),
    PAPERS,
    ids=["grpo", "dr_grpo", "dapo", "gspo"],
)
def test_ratio_methods_are_what_their_papers_say(parts, keep, advantage, clip, level, average, length):
    assert isinstance(parts.sampler, Uniform)
    assert repr(parts.keep) == keep
    assert repr(parts.advantage).startswith(advantage)
    assert clip in repr(parts.objective)
    assert (parts.objective.level, parts.objective.average, parts.objective.length) == (level, average, length)
    assert "Verifier(right=1.0, wrong=0.0)" in repr(parts.reward.parts["correct"])


def test_rule_reasoner_is_grpo_with_another_sampler():
    """Section 2.5 of the specification: no divergence, no entropy bonus, clip 0.2 both ways, alpha 0.5, tau 0.5."""
    parts, plain = rule_reasoner(Task()), grpo(Task())
    assert isinstance(parts.sampler, DomainSampler)
    assert (parts.sampler.alpha, parts.sampler.tau, parts.sampler.eps) == (0.5, 0.5, 0.1)
    assert repr(replace(parts, sampler=None)) == repr(replace(plain, sampler=None))
    assert rule_reasoner(Task(), clip=0.1).objective == grpo(Task(), clip=0.1).objective


def test_dapo_charges_for_length_over_the_last_fifth():
    overlong = dapo(Task(), limit=20480).reward.parts["overlong"]
    assert (overlong.l_max, overlong.buffer) == (20480, 4096)  # section 4.1: expected 16,384 and 4,096 more
    assert dapo(Task(), limit=3).reward.parts["overlong"].buffer == 1


@pytest.mark.parametrize(("method", "advantage"), [(rloo, "LeaveOneOut()"), (reinforce, "BatchMean()")])
def test_policy_gradient_methods_sum_over_a_responses_tokens(method, advantage):
    parts = method(Task())
    assert repr(parts.advantage) == advantage
    assert parts.objective == PolicyGradient(average="constant", length=1, whiten=False)


def test_reinforce_with_a_running_baseline():
    assert repr(reinforce(Task(), decay=0.5).advantage) == "RunningMean(decay=0.5)"


def test_ppo_is_what_its_paper_for_language_models_says():
    """Ivison et al. 2024: gamma 1, lambda 0.95, clip 0.2 and 0.2, value loss 0.1, KL 0.05, whitened by mini-batch."""
    live, frozen = object(), object()
    parts = ppo(Task(), policy=live, reference=frozen)
    charge = parts.reward.parts["kl"]
    assert (charge.policy, charge.reference, charge.coef, charge.clamp) == (live, frozen, 0.05, False)
    part = parts.advantage
    assert (part.critic, part.gamma, part.lam, part.whiten, part.whiten_rewards) == (live, 1.0, 0.95, False, False)
    assert (part.learn, part.warmup) == (None, 0)
    ratio, value = parts.objective.parts["ratio"], parts.objective.parts["value"]
    assert (ratio.low, ratio.high, ratio.whiten, ratio.old, ratio.average) == (0.2, 0.2, True, "rollout", "tokens")
    assert (value.clip, value.coef, value.average) == (0.2, 0.1, "tokens")


def test_ppo_with_a_critic_of_its_own_teaches_it_apart():
    live, own = object(), object()
    parts = ppo(Task(), kl=0.0, whiten="batch", old="step", value_clip=None, policy=live, critic=own)
    assert list(parts.reward.parts) == ["correct"]
    assert (parts.advantage.critic, parts.advantage.whiten) == (own, True)
    assert parts.advantage.learn == ValueLoss(coef=0.1, clip=None)
    assert (parts.objective.whiten, parts.objective.old) == (False, "step")
    shared = ppo(Task(), kl=0.0, policy=live, critic=live)
    assert shared.advantage.learn is None
    with pytest.raises(InputError, match="ppo asks a critic"):
        ppo(Task(), kl=0.0)
    with pytest.raises(InputError, match="compares two models"):
        ppo(Task(), policy=live)
    with pytest.raises(InputError, match="`whiten` is 'mini-batch'"):
        ppo(Task(), kl=0.0, policy=live, whiten="mini-batch")


def test_kl_stands_where_the_papers_put_it():
    frozen = object()
    objective = grpo(Task(), kl=0.04, reference=frozen).objective
    assert isinstance(objective, Objectives)
    penalty = objective.parts["kl"]
    assert (penalty.reference, penalty.coef, penalty.estimator) == (frozen, 0.04, "k3")
    live = object()
    charge = rloo(Task(), kl=0.05, policy=live, reference=frozen).reward.parts["kl"]
    assert (charge.policy, charge.reference, charge.coef) == (live, frozen, 0.05)
    for method in (grpo, rloo):
        with pytest.raises(InputError, match="compares two models"):
            method(Task(), kl=0.1)


class Frozen:
    """A policy that is its own reference."""

    tokenizer = None

    def reference(self):
        return self


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_source_and_its_recipe(name, tmp_path, monkeypatch):
    first = (inspect.getdoc(METHODS[name]) or "").split("\n")[0]
    assert re.search(r"arXiv:\d{4}\.\d{5}|doi:", first)
    (tmp_path / "own.py").write_text(
        "from reckon.types import Problem, Verdict\n"
        "class One:\n"
        "    name = 'one'\n"
        "    def problems(self, split): return [Problem(id=split, prompt='x', answer='y')]\n"
        "    def check(self, problem, text): return Verdict(outcome=1.0, answer=text, reason='right')\n"
    )
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.parse(f"model: tiny\nmethod: {name}\ntask: 'own.py:One'\n")
    policy = Frozen()
    made = recipe.build(policy)
    direct = METHODS[name](recipe.made_task, **_given(name, policy, recipe.sampling.max_new_tokens))
    for role in ("keep", "reward", "advantage", "objective"):
        assert getattr(made, role) == getattr(direct, role)


def test_the_table_in_the_docs_is_the_one_that_is_generated():
    page = Path(__file__).parent.parent / "docs" / "methods.md"
    assert methods_table() in page.read_text(), (
        "docs/methods.md is out of date: python -c 'from reckon.recipe import methods_table; print(methods_table())'"
    )


def test_the_table_has_every_method_and_its_parts():
    lines = methods_table().splitlines()[2:]
    assert [line.split("|")[1].strip().strip("`") for line in lines] == list(METHODS)
    for line, method in zip(lines, METHODS.values(), strict=True):
        parts = method(Task(), **_given(method.__name__, Frozen(), 8))
        for role in ("sampler", "keep", "advantage"):
            assert snake_case(type(getattr(parts, role)).__name__) in line
        for part in getattr(parts.objective, "parts", {"": parts.objective}).values():
            assert snake_case(type(part).__name__) in line


def _given(name, policy, limit):
    """What a recipe gives a method beside the task."""
    wanted = inspect.signature(METHODS[name]).parameters
    given = {"limit": limit, "policy": policy, "reference": policy}
    return {key: value for key, value in given.items() if key in wanted}


def test_a_bare_function_as_the_reward_of_parts_is_told_what_to_do():
    def brief(completions):
        return [1.0 for _ in completions]

    with pytest.raises(InputError, match=r"reward of `Parts` is 'brief', which has no `assess`\. Wrap .*as_reward"):
        replace(grpo(Task()), reward=brief)
    assert list(replace(grpo(Task()), reward=as_reward(brief)).reward.parts) == ["brief"]


@pytest.mark.parametrize("name", ["dapo", "prime", "oreal"])
@pytest.mark.parametrize("on_short", ["short", "repeat", "fill"])
def test_a_step_of_which_the_filter_keeps_nothing_teaches_nobody(name, on_short, small_model):
    """A model that is never right: all groups are of equal outcomes. `fill` trains on them, as it says."""
    recipe = Recipe.parse(
        f"""
model: {{name: "{small_model}", dtype: float32}}
method: {name}
task: {{kind: chain_arithmetic, operations: 2, train: 40, dev: 12, test: 12}}
sampling: {{max_new_tokens: 4}}
refill: {{rounds: 1, on_short: {on_short}}}
optimizer: {{lr: 1e-2}}
""",
        name="untaught.yaml",
    )
    policy = recipe.load_policy()
    parts = recipe.build(policy)
    judges = [part.model for part in parts.reward.parts.values() if hasattr(part, "model")]
    assert len(judges) == (name != "dapo")
    weights = [parameter for model in (policy, *judges) for parameter in model.network.parameters()]
    before = [parameter.detach().clone() for parameter in weights]
    done = take_step(policy, recipe.made_task, parts, Rng((0, 0)), step=20, prompts=2, answers=2)
    assert done.metrics["outcome/mean"] == 0
    assert done.metrics["keep/share"] == 0
    assert done.batch.train.tolist() == [on_short == "fill"] * 4
    assert done.metrics["tokens/generated"] > 0
    if on_short != "fill":
        assert done.metrics["policy/steps"] == 0
        assert all(map(torch.equal, weights, before))
    elif name == "prime":  # whose reward model learns from what is wrong alone
        assert done.metrics["reward/process/steps"] == 1
        assert not all(map(torch.equal, weights, before))
