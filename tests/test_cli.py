import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import reckon
from reckon.cli import main
from reckon.runs import Run

OWN = '''
from dataclasses import dataclass

from reckon.types import Problem, Step, Verdict

@dataclass(frozen=True, kw_only=True)
class Copy:
    """Say the digit before the sign again."""
    most: int = 3
    name = "copy"

    def problems(self, split):
        start = {"train": 0, "dev": 3, "test": 6}[split]
        return [Problem(id=f"{split}-{i}", prompt=f"{i}=", answer=str(i)) for i in range(start, start + self.most)]

    def check(self, problem, text):
        right = text[:1] == problem.answer
        return Verdict(outcome=float(right), answer=text[:1] or None, reason="the digit" if right else "another")

    def solution(self, problem):
        return problem.answer

    def steps(self, problem, text):
        return []

class Broken:
    name = "broken"

    def problems(self, split):
        raise KeyError("a bug")

    def check(self, problem, text):
        raise KeyError("a bug")
'''
RECIPE = """\
model: tiny
task: {kind: "own.py:Copy"}
sampling: {max_new_tokens: 3}
warmup: {examples: 3, epochs: 2, lr: 1e-3, batch: 3}
optimizer: {lr: 1e-3}
steps: 4
prompts: 3
answers: 4
evaluate: {every: 2}
save: {every: 2}
"""


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder with a recipe, a task and one finished run."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "own.py").write_text(OWN)
    (folder / "copy.yaml").write_text(RECIPE)
    before, cache = os.getcwd(), os.environ.get("RECKON_CACHE")
    os.environ["RECKON_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    assert main(["train", "copy.yaml", "--quiet"]) == 0
    yield folder
    os.chdir(before)
    if cache is None:
        del os.environ["RECKON_CACHE"]
    else:
        os.environ["RECKON_CACHE"] = cache


@pytest.fixture
def run(home, capsys):
    """Runs a command; returns (exit code, stdout, stderr)."""

    def ran(*arguments):
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return ran


def metrics(folder):
    """What a run measured, times aside."""
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("time/", "memory/")) and k != "seconds"} for line in lines
    ]


def test_training_leaves_a_run_with_everything_in_it(home):
    run = home / "runs" / "copy"
    assert [line["step"] for line in metrics(run)] == [0, 1, 2, 3, 4]
    assert "fit/loss" in metrics(run)[0]
    dev = {line["step"] for line in metrics(run) if "eval/dev/pass@1" in line}
    test = {line["step"] for line in metrics(run) if "eval/test/pass@1" in line}
    assert (dev, test) == ({0, 2, 4}, {0, 4})
    assert sorted(path.name for path in (run / "evals").glob("*.parquet")) == [
        "dev-step-000000.parquet",
        "dev-step-000002.parquet",
        "dev-step-000004.parquet",
        "test-step-000000.parquet",
        "test-step-000004.parquet",
    ]
    assert (run / "report.html").stat().st_size > 1000


def test_train_for_machines(run):
    code, out, err = run("train", "copy.yaml", "steps=2", "--out", "machine", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["run"], found["steps"], found["finished"]) == ("machine", 2, True)
    assert found["comparison"]["n"] == 3
    assert Path(found["report"]).is_file()
    assert "step 2/2" in err


def test_train_tells_before_and_after_and_the_report_last(run):
    code, out, _ = run("train", "copy.yaml", "steps=1", "--out", "people", "--quiet")
    first, second, last = out.splitlines()
    assert code == 0
    assert first.startswith("Held-out problems: ")
    assert second == "people: 1 steps, finished"
    assert last == f"Report: {Path('people/report.html')}"


def test_a_run_that_is_interrupted_is_saved_and_goes_on_exactly(home, run):
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **threads}
    assert run("train", "copy.yaml", "steps=40", "--quiet", "--out", "whole")[0] == 0
    child = subprocess.Popen(
        [sys.executable, "-m", "reckon", "train", "copy.yaml", "steps=40", "--quiet", "--out", "broken"],
        env=environment,
        cwd=home,
        stdout=subprocess.PIPE,
        text=True,
    )
    log, deadline = home / "broken" / "metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") >= 4):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    told = child.communicate(timeout=180)[0]
    assert child.returncode == 130
    assert "interrupted; go on with: reckon train --resume broken" in told
    assert run("train", "--resume", "broken", "--quiet")[0] == 0
    assert metrics("broken") == metrics("whole")
    code, _, err = run("train", "copy.yaml", "steps=41", "--resume", "broken")
    assert code == 2
    assert "`steps` was 40 and is now 41" in err


def test_resuming_a_finished_run_changes_nothing(home, run):
    before = metrics("runs/copy")
    code, out, _ = run("train", "--resume", "runs/copy", "--quiet")
    assert code == 0
    assert "4 steps, finished" in out
    assert metrics("runs/copy") == before


def test_eval_of_a_run_and_comparison(home, run):
    code, out, _ = run("eval", "runs/copy", "--split", "dev", "--out", "dev.parquet", "--step", "last")
    assert code == 0
    assert " of 3 problems right (95% interval " in out
    code, out, _ = run("eval", "runs/copy", "--split", "dev", "--compare", "dev.parquet", "--json", "--step", "last")
    found = json.loads(out)
    assert code == 0
    assert found["metrics"]["items"] == 3
    assert found["task"]["most"] == 3
    assert (found["comparison"]["b"], found["comparison"]["c"], found["comparison"]["p"]) == (0, 0, 1.0)
    stored = "runs/copy/evals/dev-step-000004.parquet"
    assert json.loads(run("eval", "runs/copy", "--split", "dev", "--compare", stored, "--step", "last", "--json")[1])[
        "comparison"
    ]["before"] == pytest.approx(found["metrics"]["pass@1"])


def test_eval_of_a_model_on_a_task(run):
    code, out, _ = run(
        "eval", "tiny", "--task", "own.py:Copy", "most=2", "sampling.max_new_tokens=2", "--json", "--k", "4"
    )
    found = json.loads(out)
    assert code == 0
    assert found["task"]["most"] == 2
    assert found["metrics"]["items"] == 2
    assert "pass@4" in found["metrics"]
    assert "sampled/pass@1" in found["metrics"]


def test_sampling_is_repeatable_and_has_verdicts(run):
    arguments = ("sample", "runs/copy", "--n", "2", "--k", "2", "--json", "--seed", "5")
    answers = json.loads(run(*arguments)[1])["answers"]
    assert [row["id"] for row in answers] == ["dev-3", "dev-3", "dev-4", "dev-4"]
    assert {row["reason"] for row in answers} <= {"the digit", "another"}
    assert json.loads(run(*arguments)[1])["answers"] == answers
    code, out, _ = run("sample", "tiny", "--prompt", "1+1=", "--greedy", "sampling.max_new_tokens=2")
    assert code == 0
    assert out.startswith("\n> 1+1=\n")
    assert not re.search(r"\[(the digit|another)\]$", out)  # nobody can judge it


def test_tasks_are_listed_and_described(run):
    code, out, _ = run("tasks")
    assert code == 0
    assert "chain_arithmetic" in out
    assert set(json.loads(run("tasks", "--json")[1])["tasks"]) >= {"largest", "rules", "file"}
    code, out, _ = run("tasks", "largest", "count=3", "--n", "1")
    assert code == 0
    assert re.search(r"^  count +3  \(a whole number\)$", out, flags=re.MULTILINE)
    assert out.count("\n> ") == 1
    found = json.loads(run("tasks", "largest", "count=3", "--n", "2", "--json")[1])
    assert found["task"]["count"] == 3
    assert len(found["problems"]) == 2
    assert found["problems"][0]["answer"] in found["problems"][0]["prompt"]


def test_models_are_listed_fetched_exported_and_removed(home, run, monkeypatch):
    monkeypatch.setenv("RECKON_CACHE", str(home / "other-cache"))
    assert run("models", "fetch", "tiny")[0] == 0
    listed = {row["name"]: row for row in json.loads(run("models", "list", "--json")[1])["models"]}
    assert listed["tiny"]["folder"] is not None
    assert listed["smollm2-135m"]["folder"] is None
    assert "not fetched" in run("models", "list")[1]
    assert run("models", "export", "runs/copy", "exported")[0] == 0
    assert (home / "exported" / "model.safetensors").is_file()
    on_run = json.loads(run("sample", "runs/copy", "--greedy", "--json")[1])["answers"]
    exported = ("sample", "exported", "--task", "own.py:Copy", "sampling.max_new_tokens=3", "--greedy", "--json")
    assert json.loads(run(*exported)[1])["answers"] == on_run
    code, _, err = run("models", "export", "tiny", "exported")
    assert code == 2
    assert "exported is not empty" in err
    assert json.loads(run("models", "remove", "tiny", "--json")[1]) == {"model": "tiny", "removed": True}
    assert "was not there" in run("models", "remove", "tiny")[1]


def test_what_a_step_costs_by_part(home, run):
    prime = ("train", "copy.yaml", "method={kind: prime, lr: 1e-3}", "keep=all", "steps=2", "evaluate=null")
    assert run(*prime, "--out", "runs/prime", "--quiet")[0] == 0
    found = json.loads(run("costs", "runs/copy", "runs/prime", "--json")[1])
    base, other = found["runs"]
    assert (base["run"], base["steps"], other["steps"]) == ("runs/copy", 4, 2)
    assert {"sample", "verify", "reward/correct", "advantage", "update"} <= set(base["seconds"])
    assert "reward/process" not in base["seconds"]
    assert other["tokens"]["reward/process"] > 0
    (times,) = found["times"]
    assert times["tokens"] == pytest.approx(sum(other["tokens"].values()) / sum(base["tokens"].values()))
    code, out, _ = run("costs", "runs/copy", "runs/prime")
    assert code == 0
    lines = out.splitlines()
    head = ["part", *(cell for name in ("copy", "prime") for cell in (f"{name},", "s", f"{name},", "tokens"))]
    assert lines[0].split() == head
    (process,) = [line.split() for line in lines if line.split()[0] == "reward/process"]
    assert process[1:3] == ["–", "–"]
    assert process[4] == f"{other['tokens']['reward/process']:,.0f}"
    assert lines[-1].startswith("A step of runs/prime takes ")
    assert "the tokens of one of runs/copy." in lines[-1]
    assert len({len(line) for line in lines[1:-1]}) == 1  # in columns
    same = run("costs", "runs/copy", "runs/../runs/copy")[1].splitlines()
    assert same[0].split()[1::2] == ["runs/copy,", "runs/copy,", "runs/../runs/copy,", "runs/../runs/copy,"]


def test_report_and_studies(home, run):
    assert run("report", "runs/copy", "--out", "page.html")[0] == 0
    assert (home / "page.html").is_file()
    assert "surrogate-rewards" in json.loads(run("studies", "--json")[1])["studies"]
    assert "surrogate-rewards" in run("studies")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "Name a recipe"),
        (("train", "nope.yaml"), "There is no recipe nope.yaml. Did you mean copy.yaml?"),
        (
            ("train", "copy.yaml", "stps=3"),
            "command line, `stps=3`: `stps` is not a setting of a recipe. Did you mean `steps`?",
        ),
        (("train", "copy.yaml"), "holds a run already"),
        (("train", "runs/copy"), "runs/copy is a run. Go on with it: reckon train --resume runs/copy"),
        (("train", "--resume", "nowhere"), "nowhere is not a run"),
        (("train", "--resume", "runs/copy", "--out", "x"), "--resume goes on in the run's own folder"),
        (("train", "--resume", "runs/copy", "model.name=org/other"), "`model.name` was 'tiny' and is now 'org/other'"),
        (("train", "copy.yaml", "model=nowhere", "--out", "none"), "no model 'nowhere'"),
        (("eval", "tiny"), "name a task with --task"),
        (("eval", "tiny", "--task", "largest"), "set `sampling.max_new_tokens` to 170 or less"),
        (("eval", "runs/copy", "--split", "tset"), "--split is 'tset'"),
        (("eval", "runs/copy", "--step", "3"), "Checkpoints of this run: 2, 4"),
        (("eval", "runs/copy", "--step", "first"), "--step is 'first'"),
        (("eval", "runs/copy", "--n", "99"), "has 3 problems"),
        (("eval", "runs/copy", "--compare", "nope.parquet"), "There is no table nope.parquet"),
        (("eval", "runs/copy", "--compare", "copy.yaml"), "copy.yaml is not a table of evaluated answers"),
        (("eval", "tiny", "--task", "largst"), "Did you mean `largest`?"),
        (("eval", "tiny", "--task", "largest", "cuont=3"), "Did you mean `count`?"),
        (("eval", "runs"), "runs is neither a run (no recipe.yaml) nor a model's folder (no config.json)"),
        (("eval", "runs/cpy"), "There is no run runs/cpy. Did you mean runs/copy?"),
        (("models", "export", "runs/cpy", "x"), "There is no run runs/cpy. Did you mean runs/copy?"),
        (("eval", "runs/copy", "--out", "x.csv"), "Let its name end in .parquet"),
        (
            ("eval", "runs/copy", "--compare", "runs/copy/evals/test-step-000000.parquet", "--sample", "--k", "2"),
            "--compare takes one answer to each problem",
        ),
        (("sample", "tiny"), "name a task with --task, or give it a --prompt"),
        (("sample", "tiny", "--task", "largest", "--prompt", "x"), "exclude each other"),
        (("sample", "tiny", "--task", "largest", "--n", "-1"), "Invalid value for '--n'"),
        (("tasks", "largest", "--n", "-1"), "Invalid value for '--n'"),
        (("tasks", "larges"), "Did you mean `largest`?"),
        (("report", "nowhere"), "nowhere"),
        (("costs", "nowhere"), "nowhere"),
        (("costs",), "Missing argument"),
        (("study", "surogate-rewards"), "Did you mean 'surrogate-rewards'?"),
        (("study", "surrogate-rewards", "--seeds", "a"), "must be whole numbers"),
        (("models", "fetch", "tyni"), "no built-in model 'tyni'"),
        (("trian",), "No such command"),
        (("train", "--foo"), "No such option"),
    ],
)
def test_mistakes_are_told_in_a_sentence_and_end_with_2(run, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_a_model_that_cannot_be_loaded_leaves_no_run_behind(home, run):
    run("train", "copy.yaml", "model=nowhere", "--out", "none")
    assert not (home / "none").exists()


def test_a_bug_ends_with_1_and_a_traceback(home):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "reckon", "tasks", "own.py:Broken"]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'a bug'" in done.stderr


def test_a_run_that_could_not_learn_says_so(run):
    """One answer to each problem has nobody to be better than."""
    code, out, _ = run("train", "copy.yaml", "steps=2", "answers=1", "--out", "alone", "--quiet")
    assert code == 0
    assert "In 2 of 2 steps all answers to each problem earned the same, which teaches nothing" in out
    assert json.loads(run("train", "--resume", "alone", "--quiet", "--json")[1])["idle"] == 2


def test_a_policy_that_waits_for_its_judges_is_not_told_to_choose_other_problems(run):
    waits = ("advantage={kind: reshaped, warmup: 2}", "steps=2", "evaluate=null")
    code, out, _ = run("train", "copy.yaml", *waits, "--out", "waiting", "--quiet", "--json")
    assert code == 0
    assert json.loads(out)["idle"] == 0


def test_data_without_answers_is_trained_on_to_the_end(home, run):
    """The final evaluations have no verdict to compare, and the report is written all the same."""
    rows = [{"prompt": f"say {i}", "split": split} for i, split in enumerate(("train", "dev", "test"))]
    (home / "unlabeled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = ("task={kind: file, path: unlabeled.jsonl}", "reward={kind: length, l_max: 3}", "warmup=null", "steps=1")
    code, out, err = run("train", "copy.yaml", *changes, "prompts=1", "--out", "unlabeled", "--quiet")
    assert (code, err) == (0, "")
    assert "Held-out" not in out
    assert "none of them has a verdict" in (home / "unlabeled" / "report.html").read_text()


def test_a_run_made_in_python_says_how_its_policy_is_loaded(run):
    with Run.create("by-hand", recipe={"made by": "hand"}):
        pass
    for command in (("eval", "by-hand"), ("sample", "by-hand", "--task", "largest"), ("train", "--resume", "by-hand")):
        code, _, err = run(*command)
        assert code == 2
        assert "by-hand was made in Python, so it does not say what its model and its task are" in err


def test_version(run):
    assert run("--version") == (0, f"reckon {reckon.__version__}\n", "")


def test_an_empty_split_is_named(home, run):
    (home / "one.jsonl").write_text('{"prompt": "?", "answer": "1", "split": "dev"}\n')
    code, out, _ = run("tasks", "file", "path=one.jsonl")
    assert code == 0
    assert "There are no problems in the split train" in out
    assert "> ?" in run("tasks", "file", "path=one.jsonl", "--split", "dev")[1]


def test_reasons_of_ones_own_checker_survive_a_table(run):
    of = ("eval", "tiny", "--task", "own.py:Copy", "sampling.max_new_tokens=2")
    assert run(*of, "--out", "odd.parquet")[0] == 0
    assert "McNemar p = 1" in run(*of, "--compare", "odd.parquet")[1]


def test_help_has_panels(run):
    code, out, _ = run("--help")
    assert code == 0
    for panel in ("Train", "Judge", "Study"):
        assert panel in out


def test_training_on_ones_own_data_with_ones_own_reward(run):
    recipe = Path(__file__).parent.parent / "recipes" / "own-data.yaml"
    short = ("model=tiny", "steps=1", "prompts=2", "answers=2", "sampling.max_new_tokens=4", "--quiet")
    assert run("train", str(recipe), *short, "--out", "own")[0] == 0
    (line,) = [line for line in metrics("own") if line["step"] == 1]
    assert "reward/correct/mean" in line
    assert 0 <= line["reward/brief/mean"] <= 0.2 + 1e-7  # its weight in float32; its own numbers are at most 1
    Path("bad_reward.py").write_text("def bad(completions):\n    return [1 / 0 for _ in completions]\n")
    code, _, err = run(
        "train", str(recipe), *short, "--out", "bad", f"reward.brief.kind={Path.cwd()}/bad_reward.py:bad"
    )
    assert code == 2
    assert "the reward function 'bad' raised ZeroDivisionError" in err
    assert "bad_reward.py, line 2" in err


def test_a_reward_without_answers_trains_where_no_verdict_is_known(run):
    Path("questions.jsonl").write_text("".join(f'{{"prompt": "{i}?", "split": "train"}}\n' for i in range(4)))
    Path("free.yaml").write_text(
        "model: tiny\ntask: {kind: file, path: questions.jsonl}\nsampling: {max_new_tokens: 4}\nevaluate: null\n"
        "reward: {kind: length, l_max: 4}\nsteps: 1\nprompts: 2\nanswers: 2\n"
    )
    code, _, err = run("train", "free.yaml", "--quiet")
    assert (code, "Traceback" in err) == (0, False)
    assert metrics("runs/free")[-1]["outcome/unknown"] == 1
