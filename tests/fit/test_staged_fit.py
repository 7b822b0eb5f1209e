"""A staged head by `fit`: the exact solver's on the model's states, opened as a reward, seen by the bench."""

import contextlib
import json

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from reckon.cli import main
from reckon.errors import InputError, RunError
from reckon.fit import Settings, Staged, StagedOutcome, fit_command, held_back, read_examples
from reckon.models import load_model, tiny
from reckon.ordinal import PrestoClassifier, PrestoClassifierCV
from reckon.rewards import StagedReward, last_states, load_judge
from reckon.runs import read_metrics
from reckon.tasks import prompt_key
from reckon.types import Rng

NAMES = ("nothing", "parsed", "right")
QUICK = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a model of one layer."""
    folder = tmp_path_factory.mktemp("small")
    tiny.make_network(layers=1, width=16).save_pretrained(folder)
    tiny.make_tokenizer().save_pretrained(folder)
    return str(folder)


def rows_of(n=30, k=4):
    """Responses of one to three letters; a longer one mostly reaches a later stage."""
    numbers = Rng(("staged rows",)).numpy()
    rows = []
    for i in range(n):
        for _ in range(k):
            length = int(numbers.integers(1, 4))
            stage = int(numbers.integers(3)) if numbers.random() < 0.3 else length - 1
            rows.append({"id": str(i), "prompt": f"{i}?", "completion": "xyz"[:length], "stage": stage})
    return rows


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged") / "run"
    done = fit_command("staged", rows_of(), small, folder, Settings(**QUICK, dev=0.3, stages=NAMES), show="nothing")
    return folder, done


def test_the_head_is_the_exact_solvers_on_the_states_of_the_model(run, small):
    folder, done = run
    judge = load_judge(folder, device="cpu")
    assert isinstance(judge, StagedReward)
    train, dev = held_back(read_examples(rows_of(), "staged").rows, 0.3)
    assert (done.rows, done.dev_rows) == (len(train), len(dev))
    model = load_model(small, **QUICK)
    states = last_states(model, model.tokenize([row.problem for row in train], [row.text for row in train]))
    assert states.shape == (len(train), 16)
    model = PrestoClassifierCV(PrestoClassifier(categories=range(3))).fit(
        states.double().numpy(),
        [row.stage for row in train],
        groups=[prompt_key(row.problem.prompt) for row in train],
    )
    found = judge.head.probabilities(states).detach().numpy()
    assert found == pytest.approx(model.predict_proba(states.double().numpy()), abs=1e-4)
    assert found[:, 2].std() > 0.05


def test_what_is_written(run, small):
    folder, done = run
    assert done.finished
    saved = load_file(folder / "model" / "staged_head.safetensors")
    assert {name: tuple(value.shape) for name, value in saved.items()} == {"psi": (2, 16), "intercepts": (2,)}
    assert not (folder / "model" / "value_head.safetensors").exists()
    start, kept = load_file(f"{small}/model.safetensors"), load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(start[name], kept[name]) for name in start)  # the model itself is left alone
    judge = json.loads((folder / "model" / "judge.json").read_text())
    assert judge["kind"] == "staged_reward"
    assert judge["about"]["stages"] == list(NAMES)
    shares, found = read_metrics(folder)
    assert found["dev/loss"] < shares["dev/loss"]  # than what the stages' shares alone say
    assert found["dev/loss"] == pytest.approx(done.metrics["dev/loss"], abs=1e-6)
    assert found["dev/right"] == shares["dev/right"] > 0
    assert found["dev/brier"] < shares["dev/brier"]


def test_names_a_function_and_counts_are_the_same_stages(run, small, tmp_path):
    folder, _ = run
    named = [{**row, "stage": NAMES[row["stage"]]} for row in rows_of()]
    bare = [{name: value for name, value in row.items() if name != "stage"} for row in rows_of()]
    known = {(row["prompt"], i): row["stage"] for i, row in enumerate(rows_of())}
    (tmp_path / "own.py").write_text(
        f"STAGES = {list(known.values())}\nasked = iter(STAGES)\n\ndef stage(problem, text):\n    return next(asked)\n"
    )
    how = {**QUICK, "dev": 0.3, "stages": NAMES}
    fit_command("staged", named, small, tmp_path / "named", Settings(**how), show="nothing")
    asked = Settings(**how, stage_of=f"{tmp_path / 'own.py'}:stage")
    fit_command("staged", bare, small, tmp_path / "asked", asked, show="nothing")
    heads = [load_judge(path, device="cpu").head for path in (folder, tmp_path / "named", tmp_path / "asked")]
    assert all(torch.equal(heads[0].psi, head.psi) for head in heads)


def test_a_function_that_fails_is_named(small, tmp_path):
    (tmp_path / "own.py").write_text("def stage(problem, text):\n    return int(text)\n")
    settings = Settings(**QUICK, stage_of=f"{tmp_path / 'own.py'}:stage")
    rows = [{"id": "7", "prompt": "a?", "completion": "xy"}]
    with pytest.raises(RunError, match=r"own\.py:stage, raised ValueError on a response to problem '7': invalid"):
        fit_command("staged", rows, small, tmp_path / "run", settings, show="nothing")


def test_unknown_stages_are_left_out_and_told(small, tmp_path):
    rows = [*rows_of(), {"prompt": "a?", "completion": "x", "stage": None}]
    done = fit_command("staged", rows, small, tmp_path / "run", Settings(**QUICK, dev=0.0), show="nothing")
    assert done.rows == 120
    assert "1 rows without a stage were left out." in done.told
    again = fit_command(
        "staged", rows, small, tmp_path / "run", Settings(**QUICK, dev=0.0), resume=True, show="nothing"
    )
    assert again.finished


def test_worth_is_kept_with_the_judge(small, tmp_path):
    settings = Settings(**QUICK, dev=0.0, worth=(0.0, 0.5, 1.0))
    fit_command("staged", rows_of(), small, tmp_path / "run", settings, show="nothing")
    assert load_judge(tmp_path / "run", device="cpu").worth == (0.0, 0.5, 1.0)
    path = tmp_path / "run" / "model" / "judge.json"
    path.write_text(json.dumps({"kind": "staged_reward", "worth": ["much"]}))
    with pytest.raises(InputError, match=r"`worth` is .*; it must be a list of numbers, or null"):
        load_judge(tmp_path / "run")


def test_it_scores_and_is_seen_by_the_bench(run, tmp_path, capsys):
    folder, _ = run
    rows = [{**row, "label": int(row["stage"] == 2), "answer": "xyz"} for row in rows_of(n=12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with contextlib.chdir(tmp_path):
        assert main(["score", "rows.jsonl", f"head={folder}", "--out", "scored.parquet"]) == 0
        table = pyarrow.parquet.read_table("scored.parquet").to_pydict()
        capsys.readouterr()
        assert main(["signals", "rows.jsonl", f"head={folder}", "--only", "head", "--probe", "0", "--json"]) == 0
    scores = torch.tensor(table["stream/head"])
    lengths = torch.tensor([len(row["completion"]) for row in rows])
    assert scores[lengths == 3].mean() > scores[lengths == 1].mean() + 0.5
    told = json.loads(capsys.readouterr().out)
    assert (tmp_path / told["report"]).is_file()
    assert "head" in json.dumps(told["signals"])


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (rows_of(), {"lr": 1e-3}, "`lr` is how a model learns step by step, and 'staged' solves for a head"),
        (rows_of(), {"balance": "dataset"}, "`balance` is not a setting of 'staged', but of kto"),
        (rows_of(), {"stages": ("a", "b")}, "has the stage 2, but stages are counted from 0 to 1"),
        (rows_of(), {"stages": ("a", "b", "c", "d")}, "no row of class .*3"),
        (rows_of(), {"folds": 1}, "cv is 1"),
        (rows_of(), {"stages": ("a", "b", "a")}, "a name comes twice. Give each stage a name of its own"),
        (rows_of(), {"stages": ("1", "2", "3")}, "'1' reads as a count"),
        (rows_of(), {"worth": (1.0, 2.0)}, "it must be 3 numbers, one for each stage"),
        ([{**rows_of()[0], "stage": "rigth"}], {"stages": NAMES}, "'rigth', and the stages are nothing, parsed, right"),
        ([{**rows_of()[0], "stage": "right"}], {}, "have no names: give stages="),
        ([{**rows_of()[0], "stage": 1.5}], {}, "`stage` is 1.5, but stages are counted from 0"),
        ([{"prompt": "a", "completion": "b"}], {}, "none of 1 rows has a stage. Give a column `stage`, or stage_of="),
    ],
)
def test_what_cannot_be_is_one_sentence(rows, settings, message, small, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        fit_command("staged", rows, small, tmp_path / "out", Settings(**QUICK, **settings), show="nothing")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "recipe.yaml").exists()


def test_a_head_that_is_not_there_yet_is_not_asked(small):
    model = load_model(small, **QUICK)
    rows = read_examples(rows_of(1), "staged").rows
    assert all(isinstance(row, Staged) for row in rows)
    loss = StagedOutcome()
    seq, columns = loss.prepare(model, rows)
    with pytest.raises(RunError, match="solved for before it is asked"):
        loss(model.outputs(seq, loss.want), columns)
