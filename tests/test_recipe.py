import math
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from reckon.errors import InputError, MissingError
from reckon.recipe import KINDS, Recipe, describe, load_kind, make_task, open_target, settings, snake_case
from reckon.recipe._document import parse, read
from reckon.rewards import Function, Gate, Verifier
from reckon.types import Use

OWN = '''
from dataclasses import dataclass
from typing import Literal

from reckon.types import Problem, Verdict

@dataclass(frozen=True, kw_only=True)
class Copy:
    """Says the number again."""
    count: int = 3
    ratio: float = 0.5
    mode: Literal["easy", "hard"] = "easy"
    words: tuple[str, ...] = ()
    path: str = "data.txt"
    name = "copy"

    def problems(self, split):
        count = 0 if split == "test" else self.count
        return [Problem(id=f"{split}{i}", prompt=str(i), answer=str(i)) for i in range(count)]

    def check(self, problem, text):
        return Verdict(outcome=float(text == problem.answer), answer=text, reason="right")

class Half:
    def draw(self, n, rng):
        return []

def longest(rollouts, outcome, rng, *, least=3):
    return (rollouts.seq.mask.sum(1) >= least) * 2

def level(batch, streams):
    return "credit"

def score(completions):
    return [1.0] * len(completions)

def has_digit(text):
    return text.isdigit()

LIMIT = 3
'''

RECIPE = """\
model: tiny
task: {kind: "own.py:Copy"}
evaluate: {final: null}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "data.txt").write_text("x")
    return tmp_path


@pytest.fixture
def load(folder):
    def loaded(text="", *overrides):
        path = folder / "r.yaml"
        path.write_text(RECIPE + textwrap.dedent(text))
        return Recipe.load(path, overrides)

    return loaded


# Reading


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 0.0001),  # text in YAML 1.1, and so in PyYAML
        ("5.0e-6", 0.000005),
        ("-.5", -0.5),
        ("1_000", 1000),
        ("010", 10),  # octal in YAML 1.1
        ("1:30", "1:30"),  # ninety in YAML 1.1
        ("no", "no"),  # false in YAML 1.1
        ("on", "on"),
        ("2024-01-02", "2024-01-02"),  # a date in YAML 1.1
        ("true", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("1e", "1e"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written, value):
    found = parse(f"a: {written}", name="r.yaml").values["a"]
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_written_by_python_is_read_back(number):
    assert parse(f"a: {number!r}", name="r.yaml").values["a"] == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", r"r.yaml, line 1: this is not YAML"),
        ("a: 1\nb: 2\na: 3", r"r.yaml, line 3: the key `a` stands here twice"),
        ("- 1", r"r.yaml: a recipe is a mapping"),
        ("", r"r.yaml: a recipe is a mapping"),
        ("a:\n  b: !!python/object/apply:os.system [ls]", r"r.yaml, line 2: the tag `tag:yaml.org,2002:python/object"),
        ("a: !!binary aGk=", r"line 1: the tag `tag:yaml.org,2002:binary` is not allowed"),
        ("a: !!int word", r"line 1: `word` cannot be read as int"),
        ("a: " + "1" * 5000, r"line 1: `1+` cannot be read as int"),
        ("a: &x [*x]", r"line 1: the alias .* stands in"),
        ("[1]: 2", r"line 1: a key must be plain text"),
        ("a: {<<: {b: 1}}", r"line 1: a key must be plain text"),
    ],
)
def test_what_is_no_recipe(text, message):
    with pytest.raises(InputError, match=message):
        parse(text, name="r.yaml")


def test_a_missing_file_names_its_neighbor(tmp_path):
    (tmp_path / "prime.yaml").write_text(RECIPE)
    with pytest.raises(MissingError, match=r"no recipe .*prim\.yaml. Did you mean .*prime\.yaml\?"):
        read(tmp_path / "prim.yaml")


def test_a_binary_or_huge_file_is_no_recipe(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("a: " + "x" * 1_000_001)
    with pytest.raises(InputError, match="too many for a recipe"):
        read(tmp_path / "b.yaml")


# Checking

WRONG = [
    (
        "objective.hihg=0.3",
        r"`objective.hihg` is not a setting of 'clipped_ratio'. Did you mean `high`\? \(settings: .*low",
    ),
    ("foo=1", r"`foo` is not a setting of a recipe"),
    ("setps=1", r"Did you mean `steps`\?"),
    ("advantage=leave_one_uot", r"no advantage of kind `leave_one_uot`. Did you mean `leave_one_out`\?"),
    ("method=dappo", r"no method \"dappo\".* Did you mean `dapo`\? \(methods: dapo, dr_grpo"),
    ("method.clp=0.1", r"`method.clp` is not a setting of 'grpo'. Did you mean `clip`\?"),
    ("optimizer.lr=fast", r"`optimizer.lr` must be a number, not \"fast\" \(text\)"),
    ("optimizer.lr=true", r"`optimizer.lr` must be a number, not true"),
    ("optimizer.epochs=1.5", r"`optimizer.epochs` must be a whole number, not 1.5 \(a number\)"),
    ("optimizer.schedule=cosin", r"must be one of constant, linear, cosine, not \"cosin\".* Did you mean `cosine`\?"),
    ("optimizer.total=9", r"`optimizer.total` is not a setting of `optimizer`"),
    ("optimizer.minibatches=9", r"is 9, but a step has only 8 `prompts`"),
    ("objective.low=7", r"`objective`: clipped_ratio: low is 7.0; it must be above 0"),
    ("sampling.temperature=0", r"`sampling.temperature` is 0.0, but must be above 0"),
    ("sampling.stop=x", r"`sampling.stop` must be a list of text, not \"x\""),
    ("task.count=many", r"`task.count` must be a whole number, not \"many\""),
    ("task.mode=hrd", r"must be one of easy, hard, not \"hrd\".* Did you mean `hard`\?"),
    ("task.words=[1]", r"`task.words` must be a list of text, not \[1\] \(a list\)"),
    ("task.kind=3", r"`task.kind` must be text, not 3"),
    ("task.kind=own.py:Cpoy", r"has no 'Cpoy'. Did you mean 'Copy'\?"),
    ("task.kind=won.py:Copy", r"won.py is not there"),
    ("task.kind=own.py:LIMIT", r"must be a function|cannot be called|is of type int"),
    ("task=larges", r"no task of kind `larges`. Did you mean `largest`\?"),
    ("sampler.task=x", r"`sampler.task` is given to 'uniform' by reckon, and cannot be set"),
    ("steps=0", r"`steps` must be a whole number of at least 1, not 0"),
    ("prompts=-1", r"`prompts` must be a whole number of at least 1"),
    ("evaluate.split=tset", r"Did you mean `test`\?"),
    ("evaluate.split=test", r"the task 'copy' has no problems in that split"),
    ("evaluate.final=test", r"`evaluate.final` is test, and the task 'copy' has no problems"),
    ("warmup.examples=5", r"`warmup` shows worked solutions, and the task 'copy' has none"),
    ("warmup.examples=0", r"of at least 1"),
    ("warmup={}", r"`warmup.examples` is missing"),
    ("warmup={examples: 5, lr: 0}", r"`warmup.lr` must be a number above 0, not 0"),
    ("save.keep=0", r"of at least 1"),
    ("log=[tensorbord]", r"must be a list of one of tensorboard, trackio, wandb"),
    ("model.lora.rnk=4", r"`model.lora.rnk` is not a setting of `model.lora`. Did you mean `rank`\?"),
    ("model.lora.rank=0", r"`lora.rank` is 0"),
    ("model.lora=16", r"`model.lora` must be a mapping \(rank, alpha, targets\) or null, not 16"),
    ("model.sampling=1", r"`model.sampling` is not a setting"),
    ("reward=[1]", r"`reward` must be a kind of reward, or a mapping of names to parts, not \[1\]"),
    ("reward={}", r"`reward` is empty"),
    ("reward.new.weight=1", r"`reward.new` needs a `kind`: verifier, "),
    ("reward.correct.weight=much", r"`reward.correct.weight` must be a number"),
    ("reward.correct.watch=1", r"`reward.correct.watch` must be true or false, not 1"),
    ("reward.correct={watch: true, weight: 2}", r"only watched, so its `weight` is never used"),
    ("reward.kind=overlong_penalty", r"`reward.l_max` is missing: 'overlong_penalty' needs it \(a whole number\)"),
    ("reward={a: {kind: gate, condition: {kind: fomat}, then: {kind: verifier}}}", r"no reward of kind `fomat`"),
    ("reward={a: {kind: gate, condition: {kind: format, wight: 1}, then: verifier}}", r"`reward.a.condition.wight`"),
    ("reward={a: {kind: kl_reward, coef: -1}}", r"`reward.a`: kl_reward: `coef` is -1"),
    ("objective={a: {kind: kl_penalty}}", r"`objective.a.coef` is missing"),
    ("objective={a: {kind: clipped_ratio, weight: 1}}", r"`objective.a.weight` is not a setting"),
    ("keep={kind: chain, rules: drop_equal}", r"`keep.rules` must be a list of parts \(keep\)"),
    ("keep={kind: chain, rules: [drop_eqal]}", r"no keep of kind `drop_eqal`"),
    ("refill.on_short=drop", r"must be one of short, fill, error"),
    ("method=dapo reward.weight=1", r"`reward.weight` does not say whose it is.* correct, overlong"),
    ("save=null", r"`save` must be a mapping \(every, keep\), not null"),
    ("lr=1e-4", r"`lr` is not a setting of a recipe by itself\. Write `optimizer\.lr`"),
    ("every=5", r"Write `evaluate\.every` or `save\.every`"),
    ("keep={kind: 'own.py:longest', left: 1}", r"`keep\.left` is not a setting of .*longest'.*\(settings: least\)"),
    ("sampler=own.py:Half", r"`sampler`: Half has no `learn`, which every sampler must have"),
    ("steps", r"a setting is given as key=value"),
    ("a..b=1", r"a setting is given as key=value"),
    ("steps=[", r"cannot be read as YAML"),
    ("steps.more=1 ", r"`steps` has no settings below it|`steps` must be a whole number"),
]


@pytest.mark.parametrize(("override", "message"), WRONG, ids=[w[0] for w in WRONG])
def test_wrong_settings_are_told_with_their_place(load, override, message):
    overrides = override.split(" ") if override.startswith("method=dapo ") else [override]
    with pytest.raises(InputError, match=message) as told:
        load("", *overrides)
    assert str(told.value).startswith(("command line", "r.yaml"))


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("objective:\n  low: 0.2\n  hihg: 0.3\n", "r.yaml, line 6", "`objective.hihg`"),
        ("objective:\n  low: 0.2\n  high: wide\n", "r.yaml, line 6", "`objective.high` must be a number"),
        ("objective:\n  high: 0.2\n  low: 3\n", "r.yaml, line 6", "low is 3.0"),
        ("reward:\n  a: verifier\n  b: {kind: frmat}\n", "r.yaml, line 6", "no reward of kind `frmat`"),
        ("steps: soon\n", "r.yaml, line 4", "`steps` must be a whole number"),
    ],
)
def test_an_error_names_its_line(load, text, place, message):
    with pytest.raises(InputError) as told:
        load(text)
    assert str(told.value).startswith(f"{place}: ")
    assert message in str(told.value)


def test_model_and_task_are_needed(tmp_path):
    for key in ("model", "task"):
        text = "\n".join(line for line in RECIPE.splitlines() if not line.startswith(key)) + "\n"
        with pytest.raises(InputError, match=f"r.yaml: the recipe has no `{key}`. Add it, for example"):
            Recipe.parse(text, name="r.yaml")


def test_a_users_file_that_fails_is_told(folder, load):
    (folder / "bad.py").write_text("x = 1\nraise KeyError('no')\n")
    with pytest.raises(InputError, match=r"r.yaml, line 4: .*bad.py, line 2: importing it raised KeyError"):
        load("reward: {kind: 'bad.py:x'}")


# Meaning


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
@given(
    lr=st.floats(1e-9, 1.0),
    high=st.floats(1e-6, 100.0),
    stop=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=3),
    steps=st.integers(1, 10**9),
)
def test_any_value_survives_being_resolved(tmp_path_factory, lr, high, stop, steps):
    import yaml

    folder = tmp_path_factory.getbasetemp() / "survives"
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(OWN)
    text = RECIPE.replace("own.py", str(folder / "own.py")) + yaml.safe_dump(
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


# Kinds


@pytest.mark.parametrize(("role", "kind"), [(role, kind) for role, kinds in KINDS.items() for kind in kinds])
def test_every_kind_is_there_and_can_be_described(role, kind):
    target = load_kind(role, kind)
    assert snake_case(target.__name__) == kind
    assert target.__doc__
    for setting in settings(target).values():
        assert setting.name != "kind"
        assert setting.name != "watch" or kind == "sum"
        assert describe(setting.annotation)


@pytest.mark.parametrize(
    ("name", "snake"), [("KLReward", "kl_reward"), ("DropEqual", "drop_equal"), ("Http", "http"), ("A1B", "a1_b")]
)
def test_snake_case(name, snake):
    assert snake_case(name) == snake


def test_tasks_are_those_of_their_room():
    import reckon.tasks

    assert {kind: load_kind("task", kind) for kind in KINDS["task"]} == reckon.tasks.KINDS


def test_every_part_of_the_rooms_is_a_kind():
    import reckon.credit
    import reckon.losses
    import reckon.rewards
    import reckon.samplers

    known = {path for kinds in KINDS.values() for path in kinds.values()}
    top = {"Sum", "Objectives", "Function"}  # what a recipe writes as a mapping of names, or as `file.py:name`
    for module in (reckon.credit, reckon.losses, reckon.rewards, reckon.samplers):
        names = getattr(module, "__all__", [n for n in vars(module) if n[0].isupper()])
        for name in names:
            part = getattr(module, name)
            is_part = isinstance(part, type) and part.__module__.startswith("reckon") and _plays_a_role(part)
            if is_part and part.__module__ != "reckon.types" and name not in top:
                assert f"{module.__name__}:{name}" in known, f"{name} is a part without a kind"


def _plays_a_role(part):
    return not getattr(part, "_is_protocol", False) and any(
        name in vars(part) for name in ("score", "draw", "prepare", "__call__")
    )


# A task or a model by itself


def test_a_task_by_itself(folder, monkeypatch):
    monkeypatch.chdir(folder)
    part, task = make_task("own.py:Copy", ["task.count=5"])
    assert len(task.problems("train")) == 5
    assert part.plain()["count"] == 5
    with pytest.raises(InputError, match=r"command line, `task.cuont=5`: .* Did you mean `count`\?"):
        make_task("own.py:Copy", ["task.cuont=5"])
    with pytest.raises(InputError, match="`steps` is not a setting of a task"):
        make_task("own.py:Copy", ["steps=5"])


def test_a_model_by_itself_is_checked_before_it_is_loaded():
    part, task, _ = open_target("no/such-model", None, ["sampling.temperature=0.5"], "best")
    assert part is None
    assert task is None
    with pytest.raises(InputError, match=r"`sampling.temprature` is not a setting.* Did you mean `temperature`\?"):
        open_target("tiny", None, ["sampling.temprature=1"], "best")
    with pytest.raises(InputError, match="there is no task to set this of"):
        open_target("tiny", None, ["task.n=1"], "best")


def test_rewards_of_evaluations_are_apart_from_those_of_training(load):
    recipe = load("eval_reward: {brief: {kind: length, l_max: 8}, form: {kind: format}}")
    assert set(recipe.eval_reward) == {"brief", "form"}
    assert set(recipe.reward) == {"correct"}
    assert recipe.resolved()["eval_reward"]["brief"]["l_max"] == 8
    assert "eval_reward" not in load("").resolved()
    with pytest.raises(InputError, match=r"`eval_reward.brief.l_mx` is not a setting of 'length'. Did you mean"):
        load("eval_reward: {brief: {kind: length, l_mx: 8}}")
