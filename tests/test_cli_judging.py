"""The commands that learn judges and hold them against verdicts, from rows to a page."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import pyarrow.parquet
import pytest

from reckon.cli import main
from reckon.fit import Settings as FitSettings
from reckon.models import Lora
from reckon.recipe import explore_settings, fit_settings, open_references
from reckon.runs import Run
from reckon.tasks import ChainArithmetic
from reckon.types import Rng

TASK = ["--task", "chain_arithmetic", *(f"--set={name}" for name in ("operations=2", "train=12", "dev=4", "test=4"))]
HOW = ("dev=0.3", "batch=8")
OWN = "def brief(completions):\n    return [-len(text) for text in completions]\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_model):
    """A folder with responses, a model and a judge of them, where the commands run."""
    folder = tmp_path_factory.mktemp("judging")
    task = ChainArithmetic(operations=2, train=12, dev=4, test=4)
    rows = []
    for problem in task.problems("train"):
        for k in range(4):
            text = task.noisy_solution(problem, 0.4, Rng((k, problem.id)))
            known = {"prompt": problem.prompt, "completion": text, "answer": problem.answer, "id": problem.id}
            rows.append({**known, "label": task.check(problem, text).outcome == 1, "luck": (k * 7) % 5})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "own.py").write_text(OWN)
    os.symlink(small_model, folder / "small")
    with contextlib.chdir(folder):
        fitted = ["outcome-bce", "--data", "rows.jsonl", "--model", "./small", "--out", "judge", "--quiet"]
        assert main(["fit", *fitted, "lr=1e-3", "batch=8", "epochs=2", "dtype=float32"]) == 0
        yield folder


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


def test_fit_leaves_a_judge_and_says_what_it_measured(home, capsys):
    found = told(capsys, "fit", "outcome-bce", "--data", "rows.jsonl", "--model", "./small", "--out", "again", *HOW)
    assert found["run"] == "again"
    assert found["finished"] is True
    assert found["rows"] + found["dev_rows"] == 48
    assert found["steps"] == -(-found["rows"] // 8)
    assert found["metrics"]["dev/accuracy"] * found["dev_rows"] % 1 == pytest.approx(0, abs=1e-6)  # a share of its rows
    assert (home / "again" / "model" / "judge.json").is_file()


def test_a_run_that_is_no_judge_says_why(home, capsys):
    how = ["--data", "rows.jsonl", "--model", "./small", "--quiet", "dtype=float32"]
    assert main(["fit", "sft", *how, "--out", "imitated"]) == 0
    capsys.readouterr()
    for name, fit in (("half", "outcome-bce"), ("policy", None)):
        Run.create(name, recipe={"fit": fit} if fit else {"model": "tiny"}).close()
    for folder, says in (
        ("half", "is not finished, so it is no judge yet. Go on with it by the command that began it and --resume"),
        ("half", ": reckon fit outcome-bce ... --out half --resume"),
        ("imitated", "imitated is a fit of sft, which makes no judge"),
        ("policy", "policy is a run that trained a policy, which is no judge"),
    ):
        assert says in sentence(capsys, "score", "rows.jsonl", folder, "--out", "x.csv")


def test_score_adds_a_column_for_each_judge(home, capsys):
    found = told(capsys, "score", "rows.jsonl", "judge", "short=length,l_max=6", "own.py:brief", "--out", "s.parquet")
    assert set(found["streams"]) == {"judge", "short", "brief"}
    assert found["streams"]["judge"]["tokens"] > 0
    rows = pyarrow.parquet.read_table("s.parquet").to_pylist()
    assert len(rows) == 48
    assert [row["stream/brief"] for row in rows] == [-len(row["text"]) for row in rows]
    # a token a character, as the file has no tokens: x = 3 / 6, where f = 1
    assert [row["stream/short"] for row in rows] == [1.0] * 48
    assert len({row["stream/judge"] for row in rows}) > 12


def test_score_keeps_what_else_stands_in_the_rows_and_never_writes_onto_them(home, capsys):
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {"id": f"response-{i}", "note": f"by {i % 5}", "meta": {"row": i}, "reason": "none"}
    Path("more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = Path("more.jsonl").read_bytes()
    for out in ("kept.jsonl", "kept.parquet"):
        told(capsys, "score", "more.jsonl", "format", "--out", out)
        table = Path(out)
        found = pyarrow.parquet.read_table(out).to_pylist() if table.suffix == ".parquet" else [
            json.loads(line) for line in table.read_text().splitlines()
        ]  # fmt: skip
        for name in ("id", "note", "meta", "reason", "answer"):
            assert [row[name] for row in found] == [row[name] for row in rows]
        assert [row["text"] for row in found] == [row["completion"] for row in rows]
    told(capsys, "score", "kept.jsonl", "own.py:brief", "--out", "again.jsonl")
    again = [json.loads(line) for line in Path("again.jsonl").read_text().splitlines()]
    first = [json.loads(line) for line in Path("kept.jsonl").read_text().splitlines()]
    for row, old in zip(again, first, strict=True):
        assert {name: row[name] for name in old if not name.startswith("cost/")} == {
            name: value for name, value in old.items() if not name.startswith("cost/")
        }
    os.symlink("more.jsonl", "link.jsonl")
    for arguments in (
        ["score", "more.jsonl", "format"],
        ["signals", "more.jsonl"],
        ["signals", "more.jsonl", "--table"],
    ):
        option = [] if arguments[-1] == "--table" else ["--out"]
        for name in ("more.jsonl", "./link.jsonl"):
            said = sentence(capsys, *arguments, *option, name)
            assert f"{name.removeprefix('./')} is what is read, and would be overwritten. Name another" in said
    assert Path("more.jsonl").read_bytes() == before


def test_best_of_n_prints_the_table(home, capsys):
    found = told(capsys, "best-of-n", "rows.jsonl", "judge", "--n", "1,2,4", *TASK)
    curves = {(curve["way"], curve["signal"]): curve["accuracy"] for curve in found["curves"]}
    labels = [json.loads(line)["label"] for line in (home / "rows.jsonl").read_text().splitlines()]
    assert found["n"] == [1, 2, 4]
    assert curves["pass@1", None] == pytest.approx([sum(labels) / 48] * 3)
    right = sum(any(labels[i : i + 4]) for i in range(0, 48, 4)) / 12
    assert curves["oracle", None][2] == pytest.approx(right)
    assert {signal for way, signal in curves if way == "best of N"} == {"judge", "luck"}
    assert main(["best-of-n", "rows.jsonl"]) == 0
    assert "| chosen by | N = 1 | N = 2 | N = 4 |" in capsys.readouterr().out


def test_a_weighted_vote_has_a_scale_for_each_signal(home, capsys):
    """Two wrong answers alike, one right one: as probabilities 0.25 + 0.25 < 0.75, as log-odds 0.56 + 0.56 > 0.68."""
    rows = [
        {"prompt": "1+1?", "completion": f"Answer: {said}", "label": said == 2, "p": p, "raw": 8 * p}
        for said, p in ((3, 0.25), (3, 0.25), (2, 0.75))
    ]
    Path("votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def votes(*scales):
        found = told(capsys, "best-of-n", "votes.jsonl", "--n=3", *(f"--scale={scale}" for scale in scales))
        return {c["signal"]: (c["scale"], *c["accuracy"]) for c in found["curves"] if c["way"] == "weighted vote"}

    assert votes() == {"p": (None, 1), "raw": (1, 0)}  # raw: 2 * 0.88 > 0.998
    assert votes("p=1") == {"p": (1, 0), "raw": (1, 0)}
    assert votes("p=none", "0.001") == {"p": (None, 1), "raw": (0.001, 0)}
    assert votes("0.5", "raw=0.01") == {"p": (0.5, 0), "raw": (0.01, 0)}


def test_signals_writes_the_page_and_probes_the_judges(home, capsys):
    found = told(
        capsys, "signals", "rows.jsonl", "judge", "format", *TASK, "--out", "page.html", "--table", "scored.parquet"
    )
    scored = pyarrow.parquet.read_table("scored.parquet").to_pydict()
    assert len(scored["stream/judge"]) == len(scored["text"])
    assert set(scored["stream/format"]) <= {0.0, 1.0}
    by_name = {one["name"]: one for one in found["signals"]}
    assert set(by_name) == {"judge", "format", "luck"}
    assert by_name["judge"]["probes"]
    assert by_name["judge"]["steps"] == []  # it judges whole responses
    assert not by_name["luck"]["probes"]  # a column cannot be asked
    assert found["report"] == "page.html"
    assert "<html" in (home / "page.html").read_text()
    assert main(["signals", "rows.jsonl", "--only", "luck"]) == 0
    out = capsys.readouterr().out
    assert "luck" in out
    assert out.splitlines()[-1] == "Report: signals.html"


def test_scores_that_are_in_the_file_are_not_made_again(home, capsys):
    """The column "luck" stands, though the judge of that name says something else; it is still probed."""
    before = {one["name"]: one for one in told(capsys, "signals", "rows.jsonl")["signals"]}["luck"]
    assert main(["signals", "rows.jsonl", "luck=format", *TASK, "--json"]) == 0
    out, err = capsys.readouterr()
    after = {one["name"]: one for one in json.loads(out)["signals"]}["luck"]
    assert "luck: taken from the file" in err
    assert after["within"] == before["within"]
    assert after["probes"]
    assert not before["probes"]
    assert main(["best-of-n", "rows.jsonl", "luck=format", *TASK]) == 0
    assert "luck: taken from the file" in capsys.readouterr().err


def test_label_writes_prefixes_that_fit_learns_values_from(home, capsys):
    settings = ["operations=2", "train=12", "dev=4", "test=4", "sampling.max_new_tokens=3", "model.dtype=float32"]
    given = ["./small", "--task", "chain_arithmetic", "--n", "6", "--n-cov", "2", "--n-mc", "3", "--out", "labels"]
    found = told(capsys, "label", *given, *settings)
    rows = pyarrow.parquet.read_table(found["table"]).to_pylist()
    assert len(rows) == found["labels"] > 12
    assert all(row["q_hat"] == row["n_correct"] / row["n_mc"] for row in rows)
    assert found["cost"]["rollouts"] >= 12
    for change, what in ((["--n", "5"], "problems"), (["--n-cov", "3"], "seeds"), (["--seed", "1"], "rng")):
        assert f"made with another `{what}` " in sentence(capsys, "label", *given, *change, *settings)
    fitted = ["value", "--data", "labels", "--model", "./small", "--out", "value", "dev=0.0", "calibrate=false"]
    assert told(capsys, "fit", *fitted, "buckets=false", "dtype=float32")["rows"] == len(rows)


def test_label_ends_steps_where_it_is_told(home, capsys):
    """Every character is a step: a response of H characters has H + 1 prefixes, the empty one among them."""
    settings = ["operations=2", "train=12", "dev=4", "test=4", "sampling.max_new_tokens=3", "model.dtype=float32"]
    given = ["./small", "--task", "chain_arithmetic", "--n", "2", "--n-cov", "1", "--n-mc", "1", "--out", "characters"]
    found = told(capsys, "label", *given, "--splitter", "(?s).", *settings)
    prefixes = [row["prefix"] for row in pyarrow.parquet.read_table(found["table"]).to_pylist()]
    assert max(map(len, prefixes)) > 1
    assert {len(step) for prefix in prefixes for step in prefix} == {1}
    wrong = [*given[:-1], "other", "--splitter", "("]
    assert "the pattern '(' that ends a step is no regular expression" in sentence(capsys, "label", *wrong, *settings)


def test_steps_are_labeled_by_the_confidence_of_a_judge(home, capsys):
    """AutoPSV: outcomes copied to steps, labels from confidence, and a model of steps that learns from these."""
    how = ["--model", "./small", "lr=1e-3", "batch=8", "epochs=2", "dtype=float32", 'splitter=","']
    told(capsys, "fit", "outcome-steps", "--data", "rows.jsonl", "--out", "confident", *how)
    found = told(capsys, "annotate", "rows.jsonl", "--steps-by", "confident", "--out", "steps.jsonl")
    rows = [json.loads(line) for line in (home / "steps.jsonl").read_text().splitlines()]
    read = [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()]
    assert sorted("".join(row["completions"]) for row in rows) == sorted(row["completion"] for row in read)
    assert all(len(row["labels"]) == len(row["completions"]) for row in rows)
    assert all(step.endswith(",") for row in rows for step in row["completions"][:-1])
    assert found == {
        "table": "steps.jsonl",
        "responses": 48,
        "steps": sum(len(row["labels"]) for row in rows),
        "right": sum(sum(row["labels"]) for row in rows),
    }
    told(capsys, "fit", "process", "--data", "steps.jsonl", "--out", "stepwise", *how)
    again = told(capsys, "annotate", "rows.jsonl", "--steps-by", "stepwise", "--out", "again.jsonl")
    assert again["steps"] == found["steps"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps-by", "judge"], "annotate --steps-by needs --out, and no --verifier"),
        (["--steps-by", "judge", "--out", "x.jsonl", "--verifier", "exact"], "needs --out, and no --verifier"),
        (["--steps-by", "judge", "--out", "x.jsonl"], "--steps-by judge is no judge of steps. Name a folder"),
        (["--steps-by", "nobody", "--out", "x.jsonl"], "there is no judge in"),
        (["--steps-by", "judge", "--out", "x.csv"], "rows are written as .jsonl or .parquet"),
    ],
)
def test_a_mistake_about_labels_by_confidence_is_told(home, capsys, arguments, says):
    assert says in sentence(capsys, "annotate", "rows.jsonl", *arguments)
    assert not list(home.glob("x.*"))


def test_the_order_of_judges_does_not_matter(home, capsys):
    for name, judges in (("a", ["judge", "length,l_max=6"]), ("b", ["length,l_max=6", "judge"])):
        told(capsys, "score", "rows.jsonl", *judges, "--out", f"{name}.jsonl")
    a, b = ([json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()] for name in "ab")
    for column in ("stream/length", "stream/judge"):
        assert [row[column] for row in a] == [row[column] for row in b]


def test_what_a_reward_prints_is_not_among_the_results(home, capsys):
    Path("loud.py").write_text("def loud(completions):\n    print('hello')\n    return [0.5] * len(completions)\n")
    assert set(told(capsys, "score", "rows.jsonl", "loud.py:loud", "--out", "l.csv")["streams"]) == {"loud"}
    assert set(told(capsys, "score", "l.csv", "loud.py:loud", "--out", "l2.csv")["streams"]) == {"loud"}  # again
    assert told(capsys, "score", "rows.jsonl", "judge", "--out", "j.csv")["responses"] == 48


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["best-of-n", "rows.jsonl", "judge", "--n", "1,8"], "give ascending numbers from 1 to 4"),
        (["best-of-n", "bare.jsonl", "judge"], "none of 2 responses has a known outcome"),
        (["signals", "bare.jsonl", "judge"], "no response has a verdict"),
        (["signals", "rows.jsonl", "judge", "--only", "luk"], "there is no signal 'luk'. Signals: luck, judge."),
        (["score", "rows.jsonl", "c=judge/classifier", "judge,per=token", "--out", "x.csv"], "which has no `per`"),
        (["score", "rows.jsonl", "judge", "tokens=format", "--out", "x.csv"], "'tokens' cannot name a judge"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_opened(home, capsys, monkeypatch, arguments, says):
    monkeypatch.setattr("reckon.models.load_model", lambda *_, **__: pytest.fail("a judge's model was opened"))
    monkeypatch.setattr("reckon.models._load.open_pretrained", lambda *_: pytest.fail("a classifier was opened"))
    Path("bare.jsonl").write_text('{"prompt": "1+1?", "completion": "2"}\n{"prompt": "1+1?", "completion": "3"}\n')
    assert says in sentence(capsys, *arguments)


def test_every_setting_of_a_fit_can_be_set():
    found = fit_settings(["reference=none", "beta=0.2", "lora.rank=4", "cap=null", "balance=dataset"])
    assert found == FitSettings(reference="none", beta=0.2, lora=Lora(rank=4), cap=None, balance="dataset")
    for field in dataclasses.fields(FitSettings):
        value = json.dumps(dataclasses.asdict(FitSettings())[field.name])
        assert fit_settings([f"{field.name}={value}"]) == FitSettings()


def test_a_setting_may_be_written_as_messages_name_it():
    assert fit_settings(["fit.lr=0.5"]) == fit_settings(["lr=0.5"]) == FitSettings(lr=0.5)
    assert explore_settings(["explore.ppo.lr=0.5"]) == explore_settings(["ppo.lr=0.5"])
    assert open_references(["level.q=0.5"]).q == 0.5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "outcome-bce", "--model", "./small"], "fit needs --data"),
        (["fit", "outcome-bce", "--data", "rows.jsonl"], "fit needs --model"),
        (["fit", "outcome-bc", "--data", "rows.jsonl", "--model", "./small"], "outcome-bce"),
        (["fit", "dpo", "lrr=1", "--data", "rows.jsonl", "--model", "./small"], "`fit.lrr` is not a setting of a fit"),
        (["fit", "dpo", "lr=fast", "--data", "rows.jsonl", "--model", "./small"], "`fit.lr` must be a number"),
        (["score", "rows.jsonl", "format"], "score needs judges and --out"),
        (["score", "rows.jsonl", "judge", "--out", "x.txt"], "let its name end in .parquet, .jsonl or .csv"),
        (["score", "gone.jsonl", "format", "--out", "x.parquet"], "gone.jsonl: no such file"),
        (["score", "rows.jsonl", "formt", "--out", "x.parquet"], "there is no reward of kind `formt`. Did you mean"),
        (["score", "rows.jsonl", "./gone", "--out", "x.parquet"], "the judge './gone' is no folder here"),
        (["score", "rows.jsonl", "a=format", "a=length,l_max=3", "--out", "x.parquet"], "two judges are called 'a'"),
        (["score", "rows.jsonl", "length,lmax=3", "--out", "x.parquet"], "Did you mean `l_max`?"),
        (["score", "rows.jsonl", "kl_reward", "--out", "x.parquet"], "'kl_reward' needs a policy"),
        (["score", "rows.jsonl", ",l_max=3", "--out", "x.parquet"], "says no kind"),
        (["signals", "rows.jsonl", "--table", "x.xlsx"], "--table is x.xlsx; let its name end in .parquet"),
        (["signals", "rows.jsonl", "--only", "luk"], "there is no signal 'luk'. Signals: luck"),
        (["signals", "rows.jsonl", "--set", "count=3"], "Name one with --task"),
        (["best-of-n", "rows.jsonl", "--n", "four"], "--n is 'four', but must be whole numbers"),
        (["best-of-n", "rows.jsonl", "--n", "64"], "64"),
        (["best-of-n", "rows.jsonl", "--scale", "0"], "--scale is '0', but must be a number above 0, or none"),
        (["best-of-n", "rows.jsonl", "--scale", "luck=much"], "--scale is 'luck=much', but must be a number"),
        (["best-of-n", "rows.jsonl", "--scale", "luk=2"], "there is no signal 'luk'. Signals: luck"),
        (["best-of-n", "rows.jsonl", "--scale", "luck=none"], "a score lies outside [0, 1]"),
        (["label", "./small", "--out", "x"], "label needs a task and --out"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(home, capsys, arguments, says):
    assert says in sentence(capsys, *arguments)
