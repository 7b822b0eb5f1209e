"""What a person may get wrong, through the command line: exit code 2, one sentence that names the place, no traceback.

Each room tests its own messages; here the whole path is walked, and what can be told early leaves no run behind.
"""

import contextlib
import json
import resource
import shutil
import signal
import socket
import time

import pytest

from reckon.cli import main

OWN = '''
import os, resource

class Fussy:
    """Reads every response as a number."""

    name = "fussy"

    def problems(self, split):
        from reckon.types import Problem

        return [Problem(id=f"{split}-{i}", prompt=f"{i}+1=", answer=str(i + 1)) for i in range(3)]

    def check(self, problem, text):
        return 1 / 0

def strict(text, answer):
    raise LookupError("no such key")

def letters(completions, **kwargs):
    """Fills the disk at the call that RECKON_TEST_FULL counts down to: no file may have over 20 kB then."""
    left = int(os.environ.get("RECKON_TEST_FULL", 0))
    if left:
        os.environ["RECKON_TEST_FULL"] = str(left - 1)
        if left == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return [sum(map(ord, text)) / 500 for text in completions]

def raises(completions, **kwargs):
    return [1 / 0 for text in completions]

def too_few(completions, **kwargs):
    return [1.0] * (len(completions) - 1)

def words(completions, **kwargs):
    return ["good"] * len(completions)

def nothing(completions, **kwargs):
    pass

def curious(completions, mood):
    return [1.0] * len(completions)

a_number = 3
'''
RECIPE = """\
model: {name: ./small, dtype: float32}
task: {kind: file, path: good.jsonl, shares: [1, 0, 0]}
sampling: {max_new_tokens: 6}
reward: {letters: "own.py:letters"}
optimizer: {lr: 3e-3}
steps: 3
prompts: 2
answers: 3
evaluate: null
save: {every: 1}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_model):
    """A folder with a good recipe, bad data, bad functions and bad models, where the tests run."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(small_model, folder / "small")
    shutil.copytree(small_model, folder / "weightless", ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "own.py").write_text(OWN)
    (folder / "broken.py").write_text("def reward(completions):\n    return [\n")
    (folder / "good.yaml").write_text(RECIPE)
    (folder / "slip.yaml").write_text(RECIPE.replace("answers: 3", "anwsers: 3"))
    (folder / "tabs.yaml").write_text("model: small\n\ttask: file\n")
    good = [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(6)]
    for name, rows in {
        "good": good,
        "empty": [],
        "hole": [*good[:2], {"answer": "4"}],
        "long": [*good, {"prompt": "1+" * 60, "id": "the long one"}],
        "twice": [*good, {"prompt": "x", "id": "row-2"}],
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "torn.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": "1+\n')
    (folder / "header.csv").write_text("prompt,answer\n")
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture
def told(home, capsys):
    """told(*arguments) -> what stderr says of a command that must end with exit code 2."""

    def run(*arguments, others=False):
        capsys.readouterr()
        assert main([*arguments, "--quiet"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert others or len(err.splitlines()) == 1, err  # other libraries may have said something before
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("reckon: ")
        return err

    return run


EARLY = [
    # a key or kind that there is not
    ("slip.yaml", "slip.yaml, line 8: `anwsers` is not a setting of a recipe. Did you mean `answers`?"),
    ("good.yaml stps=3", "command line, `stps=3`: `stps` is not a setting of a recipe. Did you mean `steps`?"),
    ("good.yaml optimizer.lrr=1", "`optimizer.lrr` is not a setting of `optimizer`. Did you mean `lr`?"),
    ("good.yaml task.pth=x", "`task.pth` is not a setting of 'file'. Did you mean `path`?"),
    ("good.yaml task=larges", "there is no task of kind `larges`. Did you mean `largest`?"),
    ("good.yaml reward.c=verifer", "there is no reward of kind `verifer`. Did you mean `verifier`?"),
    ("good.yaml reward.c=something", "there is no reward of kind `something`."),
    ("good.yaml objective={average: tokens, levl: token}", "`objective.levl` is not a setting of 'clipped_ratio'. Did"),
    ("good.yaml advantage=leave_on_out", "there is no advantage of kind `leave_on_out`. Did you mean `leave_one_out`?"),
    ("good.yaml objective=cliped_ratio", "there is no objective of kind `cliped_ratio`. Did you mean `clipped_ratio`?"),
    ("good.yaml keep=drop_equals", "there is no keep of kind `drop_equals`. Did you mean `drop_equal`?"),
    ("good.yaml method=grop", 'there is no method "grop" (text). Did you mean `grpo`?'),
    # a value of the wrong type, or one that cannot be
    ("good.yaml steps=many", '`steps` must be a whole number of at least 1, not "many" (text).'),
    ("good.yaml prompts=2.5", "`prompts` must be a whole number of at least 1, not 2.5 (a number)."),
    ("good.yaml answers=0", "`answers` must be a whole number of at least 1, not 0 (a whole number)."),
    ("good.yaml sampling.temperature=hot", '`sampling.temperature` must be a number, not "hot" (text).'),
    ("good.yaml sampling.temperature=0", "`sampling.temperature` is 0.0, but must be above 0"),
    ("good.yaml optimizer=[1]", "`optimizer` must be a mapping of settings"),
    ("good.yaml evaluate.greedy=1", "`evaluate.greedy` must be true or false, not 1 (a whole number)."),
    ("tabs.yaml", "tabs.yaml, line 2: this is not YAML"),
    # a file that is not there
    ("god.yaml", "There is no recipe god.yaml. Did you mean good.yaml?"),
    ("good.yaml task.path=gone.jsonl", "gone.jsonl"),
    ("good.yaml reward.x=gone.py:letters", "gone.py is not there"),
    ("good.yaml model.name=./gone", "there is no model './gone'"),
    # data
    ("good.yaml task.path=hole.jsonl", "hole.jsonl, row 3: `prompt` is missing (columns: answer)."),
    ("good.yaml task.path=torn.jsonl", "torn.jsonl, row 2: not JSON"),
    ("good.yaml task.path=twice.jsonl", "twice.jsonl, row 7: `id` 'row-2' is that of row 2 too."),
    ("good.yaml task.path=empty.jsonl", "empty.jsonl: there are no rows"),
    ("good.yaml task.path=header.csv", "header.csv: there are no rows"),
    ("good.yaml task.shares=[0,0.5,0.5]", "no problem in its split 'train'"),
    ("good.yaml evaluate={}", "`evaluate.split` is dev, and the task 'good' has no problems in that split."),
    ("good.yaml warmup.examples=3", "`warmup` shows worked solutions, and the task 'good' has none."),
    # models
    ("good.yaml model.name=./weightless", "weightless has no weights (*.safetensors)."),
    ("good.yaml model.name=./nothing/here", "there is no model './nothing/here'"),
    # functions
    ("good.yaml reward.x=own.py:leters", "own.py has no 'leters'. Did you mean 'letters'?"),
    ("good.yaml reward.x=own.py:a_number", "'a_number' in "),
    ("good.yaml reward.x=broken.py:reward", "broken.py, line 2: '[' was never closed."),
]
LATE = [
    ("good.yaml task.path=long.jsonl prompts=7", "the prompt of problem 'the long one' has 120 tokens; with"),
    ("good.yaml reward.x=own.py:raises", "the reward function 'raises' raised ZeroDivisionError: division by zero"),
    ("good.yaml reward.x=own.py:too_few", "the reward function 'too_few' returned 5 values for 6 completions."),
    ("good.yaml reward.x=own.py:words", "the reward function 'words' returned 'good' (str) for row 0"),
    ("good.yaml reward.x=own.py:nothing", "the reward function 'nothing' returned None (NoneType)."),
    (
        "good.yaml reward.x=own.py:curious",
        "the reward function 'curious' asks for `mood`, and there is no such column.",
    ),
    (
        "good.yaml task=own.py:Fussy",
        "the checker of the task 'fussy' raised ZeroDivisionError on a response to",
    ),
    ("good.yaml task.checker=own.py:strict", "the checker of the task 'good' raised LookupError on a response to"),
    ("good.yaml keep=drop_equal refill.on_short=error", "the keep rule DropEqual kept 0 of the 16 groups drawn, and 2"),
]


@pytest.mark.parametrize(("arguments", "message"), EARLY, ids=[arguments for arguments, _ in EARLY])
def test_told_before_anything_is_made(told, tmp_path, arguments, message):
    assert message in told("train", *arguments.split(" ", 1), "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("arguments", "message"), LATE, ids=[arguments for arguments, _ in LATE])
def test_told_when_it_happens(told, tmp_path, arguments, message):
    assert message in told("train", *arguments.split(), "--out", str(tmp_path / "run"))


def test_a_worked_solution_longer_than_the_context(told, tmp_path):
    """52 characters and, with the end token, 50: the prompt and its 6 new tokens would fit in 96."""
    long = ("task={kind: chain_arithmetic, operations: 25, train: 4, dev: 1, test: 1}", "warmup.examples=4")
    message = told("train", "good.yaml", *long, "--out", str(tmp_path / "run"))
    assert "have 52 and 50 tokens, together more than the model's context of 96" in message
    assert not (tmp_path / "run").exists()


def test_no_network_for_a_hub_id(told, tmp_path, monkeypatch):
    def unreachable(*_arguments, **_settings):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the hub's library tries six times, half a minute in all
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    out = ("--out", str(tmp_path / "run"))
    message = told("train", "good.yaml", "model.name=nobody/nothing-at-all", *out, others=True)
    assert "the model could not be opened from 'nobody/nothing-at-all' from the Hugging Face hub" in message
    assert "Check the name and the network" in message
    message = told("train", "good.yaml", "task={kind: hub_dataset, path: nobody/nothing-at-all}", *out, others=True)
    assert "The dataset 'nobody/nothing-at-all' could not be loaded" in message
    assert not (tmp_path / "run").exists()


def test_resuming_with_another_recipe(told, tmp_path):
    folder = tmp_path / "run"
    assert main(["train", "good.yaml", "--out", str(folder), "--quiet"]) == 0
    message = told("train", "good.yaml", "optimizer.lr=0.1", "--resume", str(folder))
    assert "was made with another recipe: `optimizer.lr` was 0.003 and is now 0.1" in message
    assert "nowhere is not a run" in told("train", "--resume", "nowhere")
    assert "holds a run already" in told("train", "good.yaml", "--out", str(folder))


def test_no_room_left_while_saving(told, tmp_path, monkeypatch):
    """What was saved is intact: with room again, the run goes on and ends as if nothing had happened."""
    whole, full = tmp_path / "whole", tmp_path / "full"
    assert main(["train", "good.yaml", "--out", str(whole), "--quiet"]) == 0
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    monkeypatch.setenv("RECKON_TEST_FULL", "2")
    try:
        message = told("train", "good.yaml", "--out", str(full))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert f"No room left to write {full}" in message
    assert "Free some space, then resume or start again: what was saved before is intact." in message
    assert sorted(path.name for path in (full / "checkpoints").iterdir()) == ["step-000001"]
    assert main(["train", "--resume", str(full), "--quiet"]) == 0
    saved = [(run / "checkpoints" / "step-000003" / "policy.safetensors").read_bytes() for run in (whole, full)]
    assert saved[0] == saved[1]
