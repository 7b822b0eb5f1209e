import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import reckon
from reckon.errors import InputError, MissingError, RunError
from reckon.recipe._document import parse
from reckon.runs import Run, read_metrics
from reckon.runs._recipe import check_same, plain_recipe, read_recipe, write_recipe

SOURCE = str(Path(reckon.__file__).parents[1])
RECIPE = {"steps": 10, "reward": {"correct": {"kind": "verifier"}}, "lr": 5e-6}


class Counter:
    """A part that remembers one number and one tensor."""

    def __init__(self, count=0):
        self.count, self.tensor = count, torch.full((3,), float(count))

    def state_dict(self):
        return {"count": self.count, "tensor": self.tensor}

    def load_state_dict(self, state):
        self.count, self.tensor = state["count"], state["tensor"]


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", recipe=RECIPE) as run:
        yield run


def python(code, *arguments):
    """Another process."""
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_new_run_tells_what_it_is(run):
    assert yaml.safe_load((run.folder / "recipe.yaml").read_text()) == RECIPE
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["threads"] == torch.get_num_threads()
    assert environment["cores"] >= 1
    assert {"python", "transformers", "numpy", "platform", "cpu", "commit", "command", "date"} <= set(environment)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({**RECIPE, "lr": 1e-6}, r"another recipe: `lr` was 5e-06 and is now 1e-06\. Resume without a recipe"),
        (
            {**RECIPE, "reward": {"correct": {"kind": "format"}}},
            r"`reward\.correct\.kind` was 'verifier' and is now 'f",
        ),
        ({**RECIPE, "seed": 1}, "`seed` was not set and is now 1"),
        ({"steps": 10, "lr": 5e-6}, "`reward` was {.*} and is now not set"),
        ({**RECIPE, "steps": True}, "`steps` was 10 and is now True"),
        ({**RECIPE, "reward": []}, "`reward` was {"),
    ],
)
def test_another_recipe_is_refused(run, recipe, message):
    run.close()
    with pytest.raises(RunError, match=message):
        Run.resume(run.folder, recipe)


def test_lists_are_compared_item_by_item(tmp_path):
    with pytest.raises(RunError, match=r"`a\[1\]\.b` was 2 and is now 3"):
        check_same(tmp_path, {"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]})
    with pytest.raises(RunError, match=r"`a` was \[1\] and is now \[1, 2\]"):
        check_same(tmp_path, {"a": [1]}, {"a": [1, 2]})
    with pytest.raises(RunError, match="`a` was 1 and is now True"):
        check_same(tmp_path, {"a": 1}, {"a": True})
    check_same(tmp_path, {"a": math.nan, "b": 1}, {"b": 1.0, "a": math.nan})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(recipe=st.dictionaries(st.text(), json_values, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_recipe_is_read_as_it_was_written(recipe):
    with TemporaryDirectory() as folder:
        write_recipe(Path(folder), plain_recipe(recipe))
        assert repr(read_recipe(Path(folder))) == repr(recipe)


def test_text_that_could_be_a_number_stays_text_in_yaml_1_1_and_1_2(tmp_path):
    recipe = {"stop": ["1e5", "0E0", "08", "+.5", "no", "1:30", "~"], "lr": 1e-5}
    write_recipe(tmp_path, recipe)
    assert read_recipe(tmp_path) == recipe
    assert parse((tmp_path / "recipe.yaml").read_text(), name="recipe.yaml").values == recipe


def test_a_recipe_must_be_json(tmp_path):
    with pytest.raises(InputError, match=r"The recipe cannot be written: .*set"):
        Run.create(tmp_path, recipe={"a": {1}})


def test_the_same_recipe_goes_on(run):
    run.close()
    with Run.resume(run.folder, {**RECIPE, "reward": {"correct": {"kind": "verifier"}}}) as resumed:
        assert resumed.recipe == RECIPE
        assert len(resumed.environment["resumed"]) == 1


def test_another_machine_is_told(run):
    path = run.folder / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "threads": 77}))
    run.close()
    with pytest.warns(UserWarning, match="not bit for bit: threads was 77 and is"):
        Run.resume(run.folder).close()


def test_a_run_is_not_overwritten_unless_asked(run):
    run.log(1, {"a": 1})
    run.save(1, {"part": Counter()})
    run.close()
    with pytest.raises(RunError, match=r"holds a run already \(recipe\.yaml\)\. Resume it, choose another"):
        Run.create(run.folder, recipe=RECIPE)
    (run.folder / "notes.txt").write_text("mine")
    with Run.create(run.folder, recipe={"other": 1}, overwrite=True) as other:
        assert (other.recipe, other.metrics(), other.checkpoints) == ({"other": 1}, [], [])
    assert (run.folder / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/years_of_work").write_text("x")
    with pytest.raises(RunError, match="has checkpoints but is no run of reckon"):
        Run.create(tmp_path, recipe={}, overwrite=True)
    assert (tmp_path / "checkpoints/years_of_work").exists()
    Run.create(tmp_path / "fresh", recipe={}).close()  # and the lock was let go


def test_no_run_is_told(tmp_path):
    for way in (Run.open, Run.resume):
        with pytest.raises(MissingError, match=r"is not a run: it has no recipe\.yaml"):
            way(tmp_path / "nothing")


def test_two_writers_in_one_process_are_refused(run):
    for way in (Run.resume, lambda folder: Run.create(folder, recipe=RECIPE, overwrite=True)):
        with pytest.raises(RunError, match="already open for writing in this process"):
            way(run.folder)
    run.close()
    Run.resume(run.folder).close()


def test_two_processes_are_refused_and_a_dead_one_is_not_waited_for(tmp_path):
    code = "import sys; from reckon.runs import Run; r = Run.create(sys.argv[1], recipe={}); print('up'); input()"
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    command = [sys.executable, "-u", "-c", code, str(tmp_path)]
    writer = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"up\n"
    with pytest.raises(RunError, match=rf"is being written by process {writer.pid} on .* since 20.*Wait until"):
        Run.resume(tmp_path)
    assert Run.open(tmp_path).metrics() == []  # reading is free
    writer.kill()
    writer.communicate()
    Run.resume(tmp_path).close()


def test_a_reader_cannot_write(run):
    reader = Run.open(run.folder)
    for write in (lambda: reader.log(1, {}), lambda: reader.save(1, {}), lambda: reader.evaluation("dev", 1, {})):
        with pytest.raises(RunError, match=r"not open for writing\. Use Run\.create or Run\.resume"):
            write()
    with pytest.raises(RunError, match="open for reading"):
        reader.restore({})


def test_a_resumed_run_is_restored_before_it_is_written(run):
    run.close()
    with Run.resume(run.folder) as resumed:
        with pytest.raises(RunError, match=r"Call run\.restore"):
            resumed.log(1, {})
        assert resumed.restore({}) == 0
        resumed.log(1, {})


def test_metrics_are_numbers_and_come_back(run):
    run.log(0, {"a": 1, "b": 0.1 + 0.2, "c": torch.tensor(0.5), "d": True})
    run.log(1, {"nan": math.nan, "inf": -math.inf})
    first, second = run.metrics()
    assert first.pop("seconds") >= 0
    assert first == {"step": 0, "a": 1, "b": 0.1 + 0.2, "c": 0.5, "d": 1}
    assert math.isnan(second["nan"])
    assert second["inf"] == -math.inf
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    strict = [json.loads(line, parse_constant=pytest.fail) for line in lines]  # NaN and Infinity are not JSON
    assert strict[1]["nan"] is None
    for metrics, message in [({"x": "1"}, "`x` is a str, not a number"), ({"step": 1}, "cannot be called `step`")]:
        with pytest.raises(InputError, match=message):
            run.log(1, metrics)
    with pytest.raises(InputError, match="A step cannot be -1"):
        run.log(-1, {})


@pytest.mark.parametrize("torn", [b'{"step": 3, "seconds": 1.0', b'{"step": 3, "seconds": 1.0, "a": 1}', b"\0\0\0"])
def test_a_torn_last_line_is_dropped(run, torn):
    run.log(1, {"a": 1})
    run.save(1, {})
    with (run.folder / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert [line["step"] for line in read_metrics(run.folder)] == [1]
    run.close()
    with Run.resume(run.folder) as resumed:
        assert resumed.restore({}) == 1
        resumed.log(2, {"a": 2})
        assert [line["step"] for line in resumed.metrics()] == [1, 2]


def test_a_damaged_line_in_the_middle_is_named(run):
    run.log(1, {})
    (run.folder / "metrics.jsonl").write_text('{"step": 1, "seconds": 0}\n[]\n{"step": 2, "seconds": 0}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: this is not a line of metrics"):
        run.metrics()


def test_seconds_go_on_where_they_were(run):
    run.save(1, {})
    (run.folder / "metrics.jsonl").write_text('{"step": 1, "seconds": 1000.0}\n{"step": 2, "seconds": 2000.0}\n')
    run.close()
    with Run.resume(run.folder) as resumed:
        resumed.restore({})
        resumed.log(2, {})
        assert 1000 <= resumed.metrics()[-1]["seconds"] < 1010


def write_step(run, step, batch):
    run.log(step, {"a": step})
    run.record(step, batch, {})
    row = {name: ["x"] for name in ("problem", "domain", "prompt", "text", "end")}
    row |= {name: [0] for name in ("row", "group", "sample")} | {"step": [step], "greedy": [True]}
    run.evaluation("dev", step, {**row, "tokens": [[1]], "pieces": [["x"]], "logprobs": [[-0.5]]})


@pytest.mark.parametrize(("saved", "left"), [([2, 4], [0, 1, 2, 3, 4]), ([], []), ([0], [])])
def test_restoring_takes_the_files_back_to_the_checkpoint(run, batch, saved, left):
    for step in range(7):
        write_step(run, step, batch)
        if step in saved:
            run.save(step, {"part": Counter(step), "plain": object()})
    (run.folder / "evals/.tmp-dev-step-000009.parquet").touch()
    run.close()
    with Run.resume(run.folder) as resumed:
        part = Counter(99)
        assert resumed.restore({"part": part, "plain": object()}) == max(saved, default=0)
        assert part.count == max(saved, default=99)
        assert [line["step"] for line in resumed.metrics()] == left
        assert resumed.rollouts()["step"].unique().to_pylist() == left
        assert resumed.evaluations("dev", columns=["step"])["step"].to_pylist() == left
        assert len(list((run.folder / "evals").iterdir())) == len(left)


def test_the_last_two_and_the_best_are_kept(run):
    for step, score in enumerate([None, 0.25, 0.5, 0.5, math.nan, 0.3, None]):
        run.save(step, {"part": Counter(step)}, score=score)
    assert run.checkpoints == [2, 5, 6]  # 2 and 3 are equal, and the first of equals is the best
    assert run.best == 2
    assert (run.folder / "checkpoints/best").read_text() == "step-000002\n"
    part = Counter()
    assert (run.load({"part": part}), part.count) == (2, 2)
    assert (run.load({"part": part}, "last"), part.count) == (6, 6)
    assert (run.load({"part": part}, 5), part.count) == (5, 5)
    assert torch.equal(part.tensor, torch.full((3,), 5.0))
    with pytest.raises(MissingError, match=r"step-000003 is not there\. Checkpoints of this run: 2, 5, 6"):
        run.load({"part": part}, 3)


def test_no_checkpoint_is_told(run):
    with pytest.raises(MissingError, match="has no checkpoint yet"):
        run.load({})


def test_saving_when_due(run):
    scores = {1: 0.1, 2: 0.3, 5: 0.2}
    saved = [s for s in range(1, 9) if run.save_if_due(s, 8, {}, every=3, score=scores.get(s), stop=s == 7)]
    assert saved == [1, 2, 3, 6, 7, 8]  # better, better, third, sixth, stopped, last; 5 is worse than 2


def test_names_of_parts_must_agree(run):
    run.save(1, {"policy": Counter(), "judge": Counter()})
    message = r"holds the parts judge, policy, and the run has policy, sampler: they differ in judge, sampler"
    with pytest.raises(RunError, match=message):
        run.restore({"policy": Counter(), "sampler": Counter()})
    with pytest.raises(RunError, match="they differ in judge"):
        run.restore({"policy": Counter()})
    run.load({"policy": Counter()})  # for reading, some are enough


@pytest.mark.parametrize("name", ["checkpoint", "../x", "", ".hidden", "a b"])
def test_names_that_are_no_files(run, name):
    with pytest.raises(InputError, match="cannot be the name of a saved part"):
        run.save(1, {name: Counter()})


def test_half_a_memory_is_refused(run):
    class Half:
        def state_dict(self):
            return {}

    with pytest.raises(InputError, match=r"`part` \(Half\) needs both state_dict and load_state_dict"):
        run.save(1, {"part": Half()})


def test_half_written_checkpoints_are_ignored_and_cleaned(run):
    for step in (1, 2):
        run.save(step, {"part": Counter(step)})
    places = run.folder / "checkpoints"
    (places / ".tmp-step-000003").mkdir()
    (places / ".tmp-step-000003/part.json").write_text("{")
    (places / "step-000004").mkdir()  # as a copy that was broken off leaves it
    (places / "step-000004/part.json").write_text("{")
    (places / "step-000002").rename(places / ".old-step-000002")  # killed while it was being replaced
    assert run.checkpoints == [1]
    run.close()
    with Run.resume(run.folder) as resumed:
        part = Counter()
        assert (resumed.restore({"part": part}), part.count) == (2, 2)
    assert sorted(path.name for path in places.iterdir()) == ["step-000001", "step-000002"]


def test_a_step_can_be_saved_again(run):
    run.save(1, {"part": Counter(1)})
    run.save(1, {"part": Counter(7)}, score=0.5)
    part = Counter()
    assert (run.restore({"part": part}), part.count, run.best) == (1, 7, 1)
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["best", "step-000001"]


def test_a_state_that_cannot_be_saved_leaves_the_last_checkpoint(run):
    part = Counter(1)
    run.save(1, {"part": part})
    part.count = {1, 2}
    with pytest.raises(InputError, match="`count` is a set"):
        run.save(2, {"part": part})
    assert run.checkpoints == [1]
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["step-000001"]


@pytest.mark.parametrize("tensors", [True, False])
def test_no_room_left_is_told_and_the_last_checkpoint_is_intact(run, tensors):
    """The system refuses files over 100 kB, as a full disk would any."""
    part = Counter(1)
    run.save(1, {"part": part})
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    part.tensor, part.count = (torch.zeros(10**6), 2) if tensors else (torch.zeros(1), "x" * 10**6)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(RunError, match=r"No room left to write .*step-000002 \(File too large\)\. Free some space"):
            run.save(2, {"part": part})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["step-000001"]
    assert (run.restore({"part": part}), part.count) == (1, 1)


def test_no_room_for_a_line_leaves_the_lines_whole(run):
    run.log(1, {"a": 1})
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, before[1]))  # room for half the second line
        with pytest.raises(RunError, match=r"No room left to write .*metrics\.jsonl"):
            run.log(2, {"a": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    run.log(2, {"a": 3})
    assert [line["a"] for line in run.metrics()] == [1, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told(run):
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match="No room left to write"):
        run.log(1, {})


def test_no_permission_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file/run could not be written \(Not a directory\)"):
        Run.create(tmp_path / "file/run", recipe={})
    if os.path.isdir("/proc/self"):
        with pytest.raises(RunError, match="/proc/self/run"):
            Run.create("/proc/self/run", recipe={})


def test_unknown_settings_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"`tensorbord` is not a log target\. Choose from tensorboard, trackio, wandb"):
        Run.create(tmp_path, recipe={}, targets=["tensorbord"])
    with pytest.raises(InputError, match="keep_last must be at least 1"):
        Run.create(tmp_path, recipe={}, keep_last=0)
    with Run.create(tmp_path, recipe={}) as run, pytest.raises(InputError, match="`a/b` cannot be the name of a split"):
        run.evaluation("a/b", 1, {})


def test_tensorboard_reads_what_was_logged_and_kept(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Run.create(tmp_path, recipe={}, targets=["tensorboard"]) as run:
        for step in (1, 2, 3):
            run.log(step, {"reward/mean": step / 4})
            if step == 2:
                run.save(2, {})
    with Run.resume(tmp_path, targets=["tensorboard"]) as run:
        assert run.restore({}) == 2
        run.log(3, {"reward/mean": 7.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(1, 0.25), (2, 0.5), (3, 7.5)]


def test_a_target_that_is_not_installed_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # which makes its import fail, installed or not
    message = r"pip install 'reckon-rl\[wandb\]'"
    with Run.create(tmp_path, recipe={}, targets=["wandb"]) as run, pytest.raises(MissingError, match=message):
        run.log(1, {})


def test_the_room_is_light():
    code = (
        "import sys, reckon.runs; print([name for name in ('torch', 'pyarrow', 'transformers') if name in sys.modules])"
    )
    assert python(code).communicate()[0] == "[]\n"


def test_killed_runs_end_as_if_nothing_had_been(tmp_path):
    script = Path(__file__).parents[2] / "scripts/kill_test.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "10"],
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("10 kills in ")
