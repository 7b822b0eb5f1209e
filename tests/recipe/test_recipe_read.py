"""What is no recipe, and what is told about it."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reckon.errors import InputError, MissingError
from reckon.recipe import Recipe, read_evaluation
from reckon.recipe._document import parse, read


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


def test_a_missing_file_names_its_neighbor(tmp_path, plain):
    (tmp_path / "prime.yaml").write_text(plain)
    with pytest.raises(MissingError, match=r"no recipe .*prim\.yaml. Did you mean .*prime\.yaml\?"):
        read(tmp_path / "prim.yaml")


def test_a_damaged_table_of_answers_is_told(tmp_path):
    path = tmp_path / "dev.parquet"
    pq.write_table(pa.table({"text": [str(i) for i in range(1000)]}), path)
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes([255]) * 100 + data[104:])  # the footer is whole, and the cells are not
    with pytest.raises(InputError, match=r"dev\.parquet is not a table of evaluated answers: "):
        read_evaluation(path)


def test_a_binary_or_huge_file_is_no_recipe(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("a: " + "x" * 1_000_001)
    with pytest.raises(InputError, match="too many for a recipe"):
        read(tmp_path / "b.yaml")


WRONG = [
    (
        "objective.hihg=0.3",
        r"`objective.hihg` is not a setting of 'clipped_ratio'. Did you mean `high`\? \(settings: .*low",
    ),
    ("foo=1", r"`foo` is not a setting of a recipe"),
    ("setps=1", r"Did you mean `steps`\?"),
    ("advantage=leave_one_uot", r"no advantage of kind `leave_one_uot`. Did you mean `leave_one_out`\?"),
    ("method=dappo", r"no method \"dappo\".* Did you mean `dapo`\? \(methods: cooper, dapo, dr_grpo"),
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
    ("refill.on_short=drop", r"must be one of short, fill, repeat, error"),
    ("method=dapo reward.weight=1", r"`reward.weight` does not say whose it is.* correct, overlong"),
    ("save=null", r"`save` must be a mapping \(every, keep\), not null"),
    ("lr=1e-4", r"`lr` is not a setting of a recipe by itself\. Write `optimizer\.lr`"),
    ("every=5", r"Write `evaluate\.every` or `save\.every`"),
    ("keep={kind: 'own.py:longest', left: 1}", r"`keep\.left` is not a setting of .*longest'.*\(settings: least\)"),
    (
        "advantage={kind: streamwise, weights: {corect: 2}}",
        r"^command line.*`advantage.weights` names 'corect', but there is no reward 'corect'\. Did you mean `corr",
    ),
    ("advantage={kind: streamwise, gammas: {steps/first: 0.9}}", r"there is no reward 'steps'\. \(rewards: correct\)"),
    ("sampler=own.py:Half", r"`sampler`: Half has no `learn`, which every sampler must have"),
    ("steps", r"a setting is given as key=value"),
    ("a..b=1", r"a setting is given as key=value"),
    ("steps=[", r"cannot be read as YAML"),
    ("steps=!!python/name:x y", r"^command line, `steps=!!python/name:x y`, line 1: the tag `.*` is not allowed"),
    ("steps=!!int soon", r"^command line.*`soon` cannot be read as int"),
    ("steps=&a [*a]", r"^command line.*the alias .* stands in"),
    ("save={every: 1, every: 2}", r"^command line.*the key `every` stands here twice"),
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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "1+1?", "answer": "2"}, {"prompt": ["?"], "answer": "3"}], "rows.jsonl, row 2: "),
        ([{"prompt": "1+1?", "answer": "2", "split": "dev"}], "has no problem in its split 'train'"),
    ],
)
def test_what_is_wrong_with_a_task_s_problems_is_told_at_the_task(folder, rows, message):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "r.yaml").write_text(
        "model: tiny\nmethod: dapo\ntask:\n  kind: file\n  path: rows.jsonl\nevaluate: null\n"
    )
    with pytest.raises(InputError) as told:
        Recipe.load(folder / "r.yaml")
    assert str(told.value).startswith("r.yaml, line 3: `task`: ")
    assert message in str(told.value)


def test_streams_that_rewards_may_give_are_no_misspellings(load):
    """Whether `correct` gives a stream of a name of its own is known when it has scored."""
    weights = "{kind: streamwise, weights: {correct: 2, correct/first: 0.5, looked: 0}}"
    recipe = load("reward: {correct: verifier, looked: {kind: format, watch: true}}", f"advantage={weights}")
    assert recipe.advantage.settings["weights"] == {"correct": 2, "correct/first": 0.5, "looked": 0}
    assert load("", "method=prime").advantage.kind == "streamwise"


def test_model_and_task_are_needed(plain):
    for key in ("model", "task"):
        text = "\n".join(line for line in plain.splitlines() if not line.startswith(key)) + "\n"
        with pytest.raises(InputError, match=f"r.yaml: the recipe has no `{key}`. Add it, for example"):
            Recipe.parse(text, name="r.yaml")


def test_a_users_file_that_fails_is_told(folder, load):
    (folder / "bad.py").write_text("x = 1\nraise KeyError('no')\n")
    with pytest.raises(InputError, match=r"r.yaml, line 4: .*bad.py, line 2: importing it raised KeyError"):
        load("reward: {kind: 'bad.py:x'}")


def test_the_page_shows_what_is_told():
    page = (Path(__file__).parents[2] / "docs" / "recipe.md").read_text()
    bare = "model: tiny\ntask: largest\n"
    for text, settings in ((bare + "advantage: {kind: gae, gama: 0.9}\n", []), (bare, ["optimizer.lr=fast"])):
        with pytest.raises(InputError) as told:
            Recipe.parse(text, settings, name="mine.yaml")
        assert f"\n{told.value}\n" in page
