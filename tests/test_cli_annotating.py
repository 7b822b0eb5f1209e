"""The commands that make labels and references, from files to files."""

import json
import os
from pathlib import Path

import pyarrow.parquet
import pytest

from reckon.cli import main
from reckon.errors import InputError
from reckon.models import Sampling, load_model
from reckon.recipe import Recipe
from reckon.rewards import ReferenceStore
from reckon.tasks import ChainArithmetic
from reckon.types import Rng

OWN = """
def judge(triple):
    return None if "?" in triple.completion else triple.completion.endswith(triple.problem.answer)

def words(triple):
    return "yes"
"""
TRIPLES = [
    {"id": "a", "prompt": "1 + 1?", "answer": "2", "completion": "Answer: 2", "gold": True},
    {"id": "b", "prompt": "1 + 2?", "answer": "3", "completion": "Answer: 3.0", "gold": True},
    {"id": "c", "prompt": "1 + 3?", "answer": "4", "completion": "Answer: 5", "gold": False},
    {"id": "d", "prompt": "1 + 4?", "answer": "5", "completion": "Is it 6?", "gold": False},
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder with triples and verifiers of one's own, where the commands run."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    Path("triples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TRIPLES))


def told(capsys, *arguments):
    """What a command printed as JSON."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def sentence(capsys, *arguments):
    """What a command told about a mistake."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert out == ""
    return err


def test_two_checkers_agree_on_what_is_kept(capsys):
    """Exact rejects 3.0, Number accepts it; both accept a and reject c and d: 3 of 4, one of them labeled right.

    Of the table both accept 1, only Number 1, neither 2: agreement 3/4, by chance 1/4 * 1/2 + 3/4 * 1/2 = 1/2, so
    kappa is 1/2.
    """
    given = ["annotate", "triples.jsonl", "--verifier", "exact", "--verifier", "loose=number", "--out", "kept.parquet"]
    found = told(capsys, *given)
    rows = pyarrow.parquet.read_table("kept.parquet").to_pylist()
    assert [(row["id"], row["completion"], row["label"]) for row in rows] == [
        ("a", "Answer: 2", 1), ("c", "Answer: 5", 0), ("d", "Is it 6?", 0),
    ]  # fmt: skip
    assert (found["n"], found["kept"], found["accepted"], found["kept_rate"]) == (4, 3, 1, 0.75)
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"], pair["both"], pair["only_second"], pair["neither"]) == (
        "exact", "loose", 1, 1, 2,
    )  # fmt: skip
    assert (pair["agreement"], pair["kappa"]) == (0.75, 0.5)
    assert found["tallies"][0]["gold"]["recall"] == 0.5  # Exact misses b
    assert main(given) == 0
    out = capsys.readouterr().out
    assert "3 of 4 kept (75.0%), 1 of them labeled right" in out
    assert out.splitlines()[-1] == "kept.parquet"


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ("unanimous", {"a": 1, "c": 0}),  # the function abstains from d, and rejects 3.0
        ("majority", {"a": 1, "b": 0, "c": 0, "d": 0}),
        ("any", {"a": 1, "b": 1, "c": 0, "d": 0}),
    ],
)
def test_policies_say_what_is_kept(capsys, policy, kept):
    verifiers = [f"--verifier={what}" for what in ("exact,policy=strict", "number", "own.py:judge")]
    found = told(capsys, "annotate", "triples.jsonl", *verifiers, "--policy", policy, "--out", "kept.jsonl")
    rows = [json.loads(line) for line in Path("kept.jsonl").read_text().splitlines()]
    assert {row["id"]: row["label"] for row in rows} == kept
    assert [tally["name"] for tally in found["tallies"]] == ["exact", "number", "judge"]
    assert found["tallies"][2]["abstained"] == 1


def test_a_task_verifies_by_its_own_checker(capsys):
    found = told(capsys, "annotate", "triples.jsonl", "--verifier", "chain_arithmetic,operations=2", "--out", "k.jsonl")
    assert found["tallies"][0]["name"] == "chain_arithmetic"
    assert found["tallies"][0]["abstained"] < 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "x.jsonl"], "annotate needs --verifier and --out"),
        (["--verifier", "exact"], "annotate needs --verifier and --out"),
        (["--verifier", "numbr", "--out", "x.jsonl"], "there is no verifier `numbr`. Did you mean `number`?"),
        (["--verifier", "number,casee=1", "--out", "x.jsonl"], "`verifier.number.casee` is not a setting of 'number'"),
        (["--verifier", "exact,case=maybe", "--out", "x.jsonl"], "`verifier.exact.case` must be true or false"),
        (["--verifier", "exact", "--verifier", "exact", "--out", "x.jsonl"], "two verifiers are called 'exact'"),
        (["--verifier", "own.py:jugde", "--out", "x.jsonl"], "has no 'jugde'. Did you mean 'judge'?"),
        (["--verifier", "own.py:judge,strict=1", "--out", "x.jsonl"], "is a function, which has no settings here"),
        (["--verifier", "own.py:words", "--out", "x.jsonl"], "the verifier 'words' gave 'yes' for triple 0, not True"),
        (["--verifier", "exact", "--policy", "most", "--out", "x.jsonl"], "`policy` is 'most'; it must be one of unan"),
        (["--verifier", "exact", "--out", "x.csv"], "rows are written as .jsonl or .parquet"),
        (["--verifier", "exact", "--out", "triples.jsonl"], "triples.jsonl is what is read, and would be overwritten"),
        (["--verifier", "yes_no", "--out", "x.parquet"], "no triple got a label, so there is nothing to write"),
    ],
)
def test_a_mistake_of_annotate_is_told_in_a_sentence(capsys, arguments, says):
    before = Path("triples.jsonl").read_bytes()
    assert says in sentence(capsys, "annotate", "triples.jsonl", *arguments)
    assert Path("triples.jsonl").read_bytes() == before
    assert not list(Path().glob("x.*"))


REWARDS = """
def brief(completions):
    return [-len(text) for text in completions]

def digit(completions):
    return [float(text[:1].isdigit()) for text in completions]
"""
SIZES = {"operations": 2, "train": 6, "dev": 2, "test": 2}
TASK = ["--task", "chain_arithmetic", *(f"--set={name}={value}" for name, value in SIZES.items())]


@pytest.fixture
def asked(small_model):
    """The command so far: a small model, its task and two rewards."""
    os.symlink(small_model, "small")
    Path("rewards.py").write_text(REWARDS)
    how = ["--set=sampling.max_new_tokens=3", "--set=model.dtype=float32"]
    return ["references", "./small", "short=rewards.py:brief", "rewards.py:digit", *TASK, *how]


def test_references_are_what_samples_of_the_model_earn(asked, capsys):
    found = told(capsys, *asked, "--k", "5", "--level", "how=mean", "--out", "refs.json")
    problems = ChainArithmetic(**SIZES).problems("train")
    store = ReferenceStore.load("refs.json")
    assert (store.keys, store.how, store.fitted_on["policy"]) == (("short", "digit"), "mean", "./small")
    policy = load_model("./small", sampling=Sampling(max_new_tokens=3), dtype="float32")
    drawn = policy.sample(problems, 5, Rng((0, "references")).child("references", 0))
    levels, known = store.levels("short", problems)
    assert known.all()
    expected = [-sum(map(len, drawn.text[i : i + 5])) / 5 for i in range(0, 30, 5)]
    assert levels.tolist() == pytest.approx(expected)
    assert found["levels"]["short"]["lowest"] == pytest.approx(min(expected))
    assert (found["problems"], set(found["levels"])) == (6, {"short", "digit"})
    recipe = f"""
model: ./small
task: {json.dumps({"kind": "chain_arithmetic", **SIZES})}
reward: {{good: {{kind: centered, reward: "rewards.py:brief", references: refs.json, key: short}}}}
evaluate: null
"""
    assert Recipe.parse(recipe).reward["good"].part.settings["key"] == "short"
    with pytest.raises(InputError, match=r"the store has no 'shirt'\. It has digit, short"):
        Recipe.parse(recipe, ["reward.good.key=shirt"])


def test_an_answer_may_be_the_reference(asked, capsys):
    found = told(capsys, *asked, "--answer", "Total: 7", "--n", "4", "--out", "refs.json")
    assert found["levels"]["short"] == {"lowest": -8, "median": -8, "highest": -8}
    assert found["fitted_on"]["policy"] == "canned text"
    assert found["problems"] == 4
    again = [*asked, "--answer", "Total: 7", "--n", "4", "--out"]
    assert "refs.json is there already, and references are never replaced" in sentence(capsys, *again, "refs.json")
    assert main([*again, "other.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["short", "-8", "to", "-8,", "median", "-8"]
    assert lines[-1] == "other.json"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["references", "./small", *TASK, "--out", "x.json"], "references needs rewards and --out"),
        (["references", "./small", "format", *TASK], "references needs rewards and --out"),
        (["references", "./small", "format", *TASK, "--out", "x.yaml"], "Let its name end in .json"),
        (["references", "./small", "format", "--out", "x.json"], "name a task with --task"),
        (["references", "./small", "formt", *TASK, "--out", "x.json"], "there is no reward of kind `formt`"),
        (["references", "./small", "kl_reward", *TASK, "--out", "x.json"], "'kl_reward' needs a policy"),
        (
            ["references", "./small", "format", *TASK, "--level", "how=best", "--out", "x.json"],
            "`level.how` must be one",
        ),
        (["references", "./small", "format", *TASK, "--level", "q=2", "--out", "x.json"], "`q` is 2.0; it must lie"),
        (["references", "./small", "format", *TASK, "--level", "p=2", "--out", "x.json"], "`level.p` is not a setting"),
    ],
)
def test_a_mistake_of_references_is_told_before_the_model_is_loaded(asked, capsys, monkeypatch, arguments, says):
    monkeypatch.setattr("reckon.models._open.open_network", lambda *_: pytest.fail("the model was loaded"))
    assert says in sentence(capsys, *arguments)
    assert not Path("x.json").exists()
