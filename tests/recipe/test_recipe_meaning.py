"""What a recipe means: presets, overrides, injection, paths, resolving."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from reckon.errors import InputError
from reckon.recipe import Recipe
from reckon.rewards import Function, Gate, Verifier
from reckon.runs import recipe_text
from reckon.types import Use


def test_a_setting_without_a_kind_changes_the_presets(load):
    recipe = load("method: dapo\nobjective: {low: 0.1}")
    assert recipe.resolved()["objective"] == {
        "clipped_ratio": {
            "kind": "clipped_ratio",
            "low": 0.1,
            "high": 0.28,  # of dapo
            "dual": None,
            "level": "token",
            "average": "tokens",  # of dapo
            "length": None,
            "old": "rollout",
            "whiten": False,
        }
    }


def test_a_kind_replaces_the_part_with_its_own_defaults(load):
    recipe = load("method: dapo\nobjective: {kind: clipped_ratio, low: 0.1}")
    found = recipe.resolved()["objective"]["clipped_ratio"]
    assert (found["low"], found["high"], found["average"]) == (0.1, 0.2, "sequences")


def test_rewards_without_a_kind_change_settings_and_keep_the_rest(load):
    reward = load("method: dapo", "reward.overlong.buffer=3", "reward.correct.weight=2").resolved()["reward"]
    assert list(reward) == ["correct", "overlong"]
    assert reward["overlong"]["buffer"] == 3
    assert reward["overlong"]["l_max"] == 256  # sampling.max_new_tokens
    assert reward["correct"]["weight"] == 2.0


def test_rewards_with_a_kind_are_the_whole_list(load):
    reward = load("method: dapo\nreward: {form: {kind: format}, correct: {right: 2}}").resolved()["reward"]
    assert list(reward) == ["form", "correct"]  # overlong is not listed, so it is not used
    assert reward["correct"]["right"] == 2.0


def test_a_weight_that_a_kind_has_itself_is_the_kinds(load):
    recipe = load("reward: {form: {kind: format, weight: 0.1}, correct: {kind: verifier, weight: 0.3}}")
    top = recipe.build(None).reward
    assert top.parts["form"].weight == 0.1
    assert dict(top.weights) == {"correct": 0.3}


def test_one_part_alone_is_named_after_its_kind(load):
    assert list(load("reward: verifier").reward) == ["verifier"]
    assert list(load("reward: {kind: 'own.py:score', timeout: null}").reward) == ["score"]


@pytest.mark.parametrize(
    "override", ["reward.a={kind: verifier, watch: true}", "reward={a: {kind: verifier, weight: 0}}"]
)
def test_training_needs_a_reward_that_trains(load, override):
    with pytest.raises(InputError, match=r"`reward` has nothing to learn from: a is watched or weighs 0"):
        load("", override).check_training()


def test_ratios_and_cut_off_tokens_exclude_each_other_in_training_alone(load):
    with pytest.raises(InputError, match=r"line, `sampling\.top_k=5`: `sampling\.top_k` cuts off tokens"):
        load("", "sampling.top_k=5").check_training()
    with pytest.raises(InputError, match=r"`sampling\.min_p` cuts off tokens"):
        load("", "sampling={top_p: 1.0, min_p: 0.1}").check_training()
    load("", "sampling={top_p: 1.0, min_p: 0.0}").check_training()
    load("objective: policy_gradient", "sampling.top_k=5").check_training()


def test_line_breaks_of_unicode_survive_being_resolved(load):
    recipe = load('sampling: {stop: ["\\x85", "\\u2028"]}')
    again = Recipe.parse(recipe.to_yaml())
    assert again.sampling.stop == recipe.sampling.stop == ("\x85", "\u2028")


def test_a_function_may_itself_be_a_keep_rule_or_an_advantage(load):
    """Use.DROP is 0 and Use.TRAIN is 2; what it is called with is no setting, and the rest is."""
    recipe = load("keep: {kind: 'own.py:longest', least: 2}", "advantage=own.py:level")
    assert recipe.resolved()["keep"]["least"] == 2
    parts = recipe.build(None)
    assert parts.advantage(None, {}) == "credit"
    rollouts = SimpleNamespace(seq=SimpleNamespace(mask=torch.tensor([[True, True], [True, False]])))
    assert parts.keep(rollouts, None, None).tolist() == [Use.TRAIN, Use.DROP]
    assert load("keep: 'own.py:longest'").keep.settings == {"least": 3}


def test_parts_inside_parts_and_functions_of_ones_own(load):
    recipe = load(
        """
        keep: {kind: chain, rules: [drop_truncated, {kind: accuracy_band, low: 0.1}]}
        reward:
          gated:
            kind: gate
            condition: {kind: format, validate: "own.py:has_digit"}
            then: {kind: verifier, right: 2}
            otherwise: -1
          mine: {kind: "own.py:score", watch: true}
        """
    )
    parts = recipe.build(None)
    gate = parts.reward.parts["gated"]
    assert isinstance(gate, Gate)
    assert gate.then == Verifier(right=2.0)
    assert gate.otherwise == -1.0
    assert gate.condition.validate("7")
    assert not gate.condition.validate("x")
    assert isinstance(parts.reward.parts["mine"], Function)
    assert parts.reward.watch == ("mine",)
    assert [type(rule).__name__ for rule in parts.keep.rules] == ["DropTruncated", "AccuracyBand"]
    assert parts.keep.rules[1].low == 0.1


class FakePolicy:
    tokenizer = "words"

    def __init__(self):
        self.frozen = 0

    def reference(self):
        self.frozen += 1
        return f"reference {self.frozen}"


def test_what_parts_need_is_injected_and_the_reference_is_made_once(load):
    text = """
    method: {kind: rloo, kl: 0.1}
    objective: {ratio: clipped_ratio, kl: {kind: kl_penalty, coef: 0.2}}
    """
    recipe, policy = load(text), FakePolicy()
    parts = recipe.build(policy)
    assert recipe.needs_reference
    assert parts.objective.parts["kl"].reference == parts.reward.parts["kl"].reference == "reference 1"
    assert policy.frozen == 1
    plain = load()
    plain.build(policy)
    assert not plain.needs_reference
    assert policy.frozen == 1


def test_paths_begin_beside_the_recipe_whatever_the_folder(load, folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    task = load().resolved()["task"]
    assert task == {
        "kind": f"{folder / 'own.py'}:Copy",
        "count": 3,
        "ratio": 0.5,
        "mode": "easy",
        "words": [],
        "path": "data.txt",  # the default is the task's business
    }
    assert load("", "task.path=data.txt").resolved()["task"]["path"] == str(folder / "data.txt")
    for name, meant in (("mine", str(folder / "mine")), ("tiny", "tiny")):  # a built-in name is never a folder's
        (folder / name).mkdir()
        assert load("", f"model={name}").resolved()["model"]["name"] == meant


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce", "{kind: grpo, kl: 0.04}"])
def test_a_resolved_recipe_loads_as_itself(load, method):
    recipe = load(
        f"""
        method: {method}
        reward:
          correct: {{kind: verifier, watch: true}}
          mine: {{kind: "own.py:score", weight: 1e-2}}
          form: {{kind: format, weight: 0.3, watch: true}}
        """
    )
    again = Recipe.parse(recipe.to_yaml(), name="recipe.yaml")
    assert again.resolved() == recipe.resolved()
    assert again.optimizer == recipe.optimizer
    assert again.sampling == recipe.sampling


@settings_of_hypothesis(max_examples=25)
@example(lr=1e-4, high=0.2, stop=["0E0", "1e-4", "~", ".5", "no", "null", "1:30"], steps=1)
@given(
    lr=st.floats(1e-9, 1.0),
    high=st.floats(1e-6, 100.0),
    stop=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=3),
    steps=st.integers(1, 10**9),
)
def test_any_value_survives_being_resolved(tmp_path_factory, own, plain, lr, high, stop, steps):
    folder = tmp_path_factory.getbasetemp() / "survives"
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(own)
    text = plain.replace("own.py", str(folder / "own.py")) + recipe_text(
        {"optimizer": {"lr": lr}, "objective": {"high": high}, "sampling": {"stop": stop}, "steps": steps}
    )
    recipe = Recipe.parse(text, name="r.yaml")
    assert recipe.optimizer.lr == lr
    assert recipe.sampling.stop == tuple(stop)
    assert Recipe.parse(recipe.to_yaml(), name="r.yaml").resolved() == recipe.resolved()


def test_the_schedules_length_follows_from_the_steps(load):
    recipe = load("steps: 10\noptimizer: {schedule: linear, epochs: 2, minibatches: 3}")
    assert recipe.optimizer.total == 60  # 10 steps * 2 passes * 3 mini-batches


def test_a_keep_rule_that_drops_groups_draws_again_by_default(load):
    assert load().refill.rounds == 1
    assert load("keep: drop_equal").refill.rounds == 8
    assert load("keep: drop_equal\nrefill: {rounds: 2, on_short: fill}").refill.rounds == 2


def test_overrides_win_and_reach_into_short_forms(load):
    recipe = load("advantage: group_normalized\nsteps: 5", "advantage.std=false", "steps=6", "model.dtype=float32")
    assert recipe.frame.steps == 6
    assert recipe.resolved()["advantage"] == {"kind": "group_normalized", "std": False, "eps": 1e-6}
    assert recipe.model["name"] == "tiny"
    assert recipe.model["dtype"] == "float32"


def test_the_runs_folder_is_named_after_the_recipe(load):
    assert load().out == Path("runs/r")
    assert load("out: there").out == Path("there")


def test_rewards_of_evaluations_are_apart_from_those_of_training(load):
    recipe = load("eval_reward: {brief: {kind: length, l_max: 8}, form: {kind: format}}")
    assert set(recipe.eval_reward) == {"brief", "form"}
    assert set(recipe.reward) == {"correct"}
    assert recipe.resolved()["eval_reward"]["brief"]["l_max"] == 8
    assert "eval_reward" not in load("").resolved()
    with pytest.raises(InputError, match=r"`eval_reward.brief.l_mx` is not a setting of 'length'. Did you mean"):
        load("eval_reward: {brief: {kind: length, l_mx: 8}}")
