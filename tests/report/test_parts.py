"""The facts behind the page, each against numbers worked out by hand."""

import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import rollout_columns, write_rollouts
from reckon.errors import InputError, MissingError, RunError
from reckon.evaluate import Comparison, Difference
from reckon.report import costs, write_report
from reckon.report._budget import Budget, budget, command
from reckon.report._curves import curves, figures
from reckon.report._held_out import held_out
from reckon.report._read import read_folder
from reckon.report._rollouts import Source, pack_rollouts
from reckon.report._streams import stream_facts
from reckon.runs import Run


def test_the_headline_by_hand(small):
    found = held_out(read_folder(small))
    assert (found.split, found.greedy) == ("test", True)
    assert (found.before.step, found.after.step) == (0, 40)
    assert found.before.rate == 44 / 128
    assert found.after.rate == 112 / 128
    # Wilson: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 0.34375, n = 128, z = 1.95996:
    # center (0.34375 + 0.0150057) / 1.0300115 = 0.348302
    # half 1.95996 √(0.00176239 + 0.00005862) / 1.0300115 = 0.081200
    assert found.before.low == pytest.approx(0.267102, abs=1e-5)
    assert found.before.high == pytest.approx(0.429502, abs=1e-5)
    assert isinstance(found.change, Comparison)
    assert (found.change.c, found.change.b) == (70, 2)
    # 2 (C(72,0) + C(72,1) + C(72,2)) / 2^72 = 2 (1 + 72 + 2556) / 2^72
    assert found.change.p == pytest.approx(5258 / 2**72, rel=1e-12)


def test_several_samples_of_a_problem_are_compared_by_their_shares(small, tmp_path):
    """Two rows each make one problem: 44 and 112 of 128 samples are right, 53.1 points over 64 problems."""
    folder = copy_run(small, tmp_path)
    for path in (folder / "evals").glob("test-*.parquet"):
        rows = pq.read_table(path).to_pylist()
        twice = [
            {**row, **{key: rows[i - i % 2][key] for key in ("problem", "prompt", "answer")}, "sample": i % 2}
            for i, row in enumerate(rows)
        ]
        table = pq.read_table(path)
        pq.write_table(pa.Table.from_pylist([{**row, "greedy": False} for row in twice], schema=table.schema), path)
    found = held_out(read_folder(folder))
    assert isinstance(found.change, Difference)
    assert (found.change.mean, found.change.n) == (68 / 128, 64)
    words = " ".join(re.sub(r"<[^>]+>", "", write_report(folder).read_text(encoding="utf-8")).split())
    assert "Training raised the share of right answers on 64 held-out problems from 34.4% to 87.5%." in words
    assert "That is +53.1 percentage points" in words
    assert "over 64 problems, each with the share of its samples that are right." in words
    assert "McNemar" not in words
    assert "Difference, points" in words


def test_other_problems_after_training_are_not_compared(small, tmp_path):
    folder = copy_run(small, tmp_path)
    path = folder / "evals" / "test-step-000040.parquet"
    table = pq.read_table(path)
    write = table.set_column(
        table.column_names.index("problem"), "problem", [[f"other-{i}" for i in range(table.num_rows)]]
    )
    pq.write_table(write, path)
    found = held_out(read_folder(folder))
    assert "128 problems" in found.change
    assert found.after.rate == 112 / 128


def test_correlation_start_end_and_gaps_by_hand(tmp_path):
    nan = None
    columns = [  # outcome, flat stream, dense stream
        ([1.0, 0.0], [3.0, 1.0], [[1.0, 2.0], [0.0]]),
        ([1.0, nan], [2.0, 5.0], [nan, [math.nan, 4.0]]),
    ]
    for step, (outcome, flat, dense) in enumerate(columns, 1):
        table = rollout_columns(2)
        table |= {"outcome": outcome, "stream/flat": flat, "stream/dense/tokens": dense}
        write_rollouts(tmp_path / f"step-{step:06}.parquet", table)
    dense, flat = stream_facts({1: tmp_path / "step-000001.parquet", 2: tmp_path / "step-000002.parquet"})
    assert (flat.name, flat.dense, flat.start, flat.end, flat.known, flat.missing) == ("flat", False, 2.0, 3.5, 3, 0.0)
    # outcome (1, 0, 1), flat (3, 1, 2): deviations (1/3, -2/3, 1/3) and (1, -1, 0): r = 1 / √(2/3 · 2) = 0.866025
    assert flat.correlation == pytest.approx(math.sqrt(3) / 2)
    # per response 1.5, 0, nothing, 4: the mean of step 1 is 0.75, one in four has no value
    assert (dense.name, dense.dense, dense.start, dense.end, dense.missing) == ("dense", True, 0.75, 4.0, 0.25)
    assert dense.correlation == pytest.approx(1.0)  # two points


def test_a_stream_that_never_varies_has_no_correlation(tmp_path):
    write_rollouts(tmp_path / "step-000001.parquet", rollout_columns(3) | {"stream/same": [0.5] * 3})
    (facts,) = stream_facts({1: tmp_path / "step-000001.parquet"})
    assert math.isnan(facts.correlation)


def test_budget_adds_up_what_the_log_says(small):
    spent = budget(read_folder(small))
    # 40 steps of 8 s and 5 s; the clock says 30 + 40 · 15.2 s; 13 and 12 tokens for each of 5 rollouts
    assert (spent.steps, spent.seconds) == (40, 638)
    assert spent.parts == {"sample": (320, 2600), "update": (200, 0)}
    assert spent.other == 118
    assert (spent.generated, spent.trained, spent.peak_mib) == (2600, 2400, 2140)


def test_where_no_times_were_logged_nobody_knows_the_rest():
    unknown = dict.fromkeys(("generated", "trained", "peak_mib"), math.nan)
    assert math.isnan(Budget(steps=1, seconds=9.0, parts={}, **unknown).other)


def test_the_command_is_quoted_and_names_no_folder_of_this_machine():
    assert command({"command": ["/usr/lib/bin/reckon", "train", "a b.yaml"]}) == "reckon train 'a b.yaml'"
    assert command({"command": ["/x/reckon/__main__.py", "train", "r.yaml"]}) == "python -m reckon train r.yaml"
    assert command({}) is None


def test_curves_hold_the_log(small):
    folder = read_folder(small)
    data = curves(folder.metrics)
    json.dumps(data, allow_nan=False)
    steps, tokens, minutes = (axis["values"] for axis in data["axes"])
    assert steps == list(range(41))
    assert tokens[:3] == [0, 65, 130]  # step 0 generated nothing; then 13 tokens for each of 5 rollouts
    assert minutes[1] == pytest.approx(45.2 / 60, rel=1e-5)
    by_step = {row["step"]: row for row in folder.metrics}
    drawn = data["columns"]["outcome/mean"]
    assert drawn[0] is None
    assert drawn[7] == pytest.approx(by_step[7]["outcome/mean"], rel=1e-5)
    assert [step for step, value in zip(steps, data["columns"]["eval/dev/pass@1"], strict=True) if value] == [
        *(0, 10, 20, 30, 40)
    ]


def test_figures_are_drawn_for_what_was_logged_and_for_nothing_else():
    row = {"step": 1, "outcome/mean": 0.5, "policy/kl": math.nan, "policy/odd_one": 0.1, "eval/my split/pass@1": 1.0}
    found = figures([row])
    assert [figure.title for figure in found] == ["Right answers", "Odd one"]
    assert [line.label for line in found[0].lines] == ["training", "my split"]
    assert figures([]) == []


def test_a_fit_is_drawn_by_its_rows_learned_from_and_held_back(tmp_path):
    rows = [
        {"step": 0, "dev/loss": 0.7, "dev/accuracy": 0.5},
        {"step": 1, "fit/loss": 0.7, "fit/grad_norm": 2.0, "fit/rows": 8.0, "dev/loss": 0.6, "dev/accuracy": 0.75},
    ]
    found = {figure.title: figure for figure in figures(rows)}
    assert list(found) == ["Loss", "Accuracy", "Grad norm"]
    assert [(line.key, line.label, line.points) for line in found["Loss"].lines] == [
        ("fit/loss", "learned from", False),
        ("dev/loss", "held back", True),
    ]
    assert (found["Accuracy"].percent, found["Loss"].percent) == (True, False)
    with Run.create(tmp_path / "fit", recipe={"fit": "outcome-bce", "data": "rows.jsonl"}) as run:
        for row in rows:
            run.log(row["step"], {name: value for name, value in row.items() if name != "step"})
    page = write_report(tmp_path / "fit").read_text(encoding="utf-8")
    assert '"fit/loss": [null, 0.7]' in page or '"fit/loss":[null,0.7]' in page


def pack(tmp_path, columns, **settings):
    write_rollouts(tmp_path / "step-000001.parquet", columns)
    shares, data = pack_rollouts([Source(name="training", tables={1: tmp_path / "step-000001.parquet"})], **settings)
    return shares, data


def test_a_rollout_is_packed_with_all_its_numbers(tmp_path):
    columns = rollout_columns(2) | {
        "pieces": [["a😀", "", "\n"], ["é", "x"]],
        "tokens": [[1, 2, 3], [4, 5]],
        "logprobs": [[-0.123456, 0.0, -12.0], [-1e-6, math.nan]],
        "advantages": [[0.5, 0.5, 0.5], [1.0, -2.0]],
        "outcome": [None, 0.25],
        "stream/flat": [None, 2.0],
        "stream/judge/tokens": [[0.1, 0.2, 0.3], None],
    }
    _, data = pack(tmp_path, columns)
    assert (data["flat"], data["dense"], data["sources"]) == (["flat"], ["judge"], ["training"])
    first, second = data["rows"]
    assert first[4] is None
    assert first[9:] == [
        "a😀\n",
        [3, 0, 1],
        [-0.1235, 0, -12],
        0.5,
        [None],
        [[0.1, 0.2, 0.3]],
    ]  # 😀 is two UTF-16 units
    assert second[4] == 0.25
    assert second[9:] == ["éx", [1, 1], [-1e-06, None], [1, -2], [2], [None]]
    json.dumps(data, allow_nan=False)


def test_four_digits_are_the_shortest_that_say_so(tmp_path):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=300) * 10.0 ** rng.integers(-8, 8, size=300)).astype(np.float32)
    columns = rollout_columns(1) | {"pieces": [["x"] * 300], "tokens": [[0] * 300], "advantages": [values.tolist()]}
    _, data = pack(tmp_path, columns | {"logprobs": [[0.0] * 300]})
    for value, packed in zip(values.tolist(), data["rows"][0][12], strict=True):
        assert packed == pytest.approx(value, rel=5.1e-4)
        assert packed == float(f"{packed:.4g}") or packed == value  # whole numbers are kept as they are


def test_a_sample_is_of_whole_groups_seeded_and_within_its_budget(tmp_path):
    columns = rollout_columns(400) | {"group": [row // 4 for row in range(400)]}
    shares, data = pack(tmp_path, columns, budget=20_000)
    groups = [row[2] for row in data["rows"]]
    assert 40 < len(groups) < 400
    assert all(groups.count(group) == 4 for group in groups)
    assert groups == sorted(groups)
    assert (shares[0].shown, shares[0].total) == (len(groups), 400)
    assert len(json.dumps(data["rows"], separators=(",", ":"))) <= 20_000
    assert pack(tmp_path, columns, budget=20_000)[1] == data
    assert pack(tmp_path, columns, budget=20_000, seed=1)[1] != data


def test_lists_that_do_not_fit_together_are_told(tmp_path):
    columns = rollout_columns(2) | {"logprobs": [[-1.0], [-1.0, -2.0]]}
    with pytest.raises(RunError, match=r"step-000001\.parquet, row 1: `logprobs` has 2 numbers for 1 tokens"):
        pack(tmp_path, columns)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(MissingError, match="is not a run"):
        read_folder(tmp_path)


def test_a_damaged_table_is_named(small, tmp_path):
    folder = copy_run(small, tmp_path)
    path = folder / "rollouts" / "step-000003.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match=r"step-000003\.parquet cannot be read"):
        stream_facts(read_folder(folder).rollouts)


def copy_run(run, tmp_path):
    import shutil

    return shutil.copytree(run, tmp_path / "copy")


def logged(folder, *lines):
    with Run.create(folder, recipe={"made by": "hand"}) as run:
        for step, line in enumerate(lines, start=1):
            run.log(step, line)
    return folder


def test_the_costs_of_a_step_by_hand(tmp_path):
    """Two steps each. RLOO: 2 + 1 s and 400 + 300 tokens a step; PRIME: 3 + 0.5 + 2.5 s, 600 + 500 + 1000 tokens."""
    rloo = logged(
        tmp_path / "rloo",
        {"time/sample": 1.0, "time/update": 1.0, "computed/sample": 300.0, "computed/update": 300.0},
        {"time/sample": 3.0, "time/update": 1.0, "computed/sample": 500.0, "computed/update": 300.0},
    )
    step = {"time/sample": 3.0, "time/reward": 0.5, "time/reward/process": 2.5}
    tokens = {"computed/sample": 600.0, "computed/reward/process": 500.0, "computed/update": 1000.0}
    prime = logged(tmp_path / "prime", {**step, "time/update": 0.0, **tokens}, {**step, "time/update": 0.0, **tokens})
    base, found = costs(rloo), costs(prime)
    assert (base.run, base.steps) == (str(rloo), 2)
    assert base.seconds == {"sample": 2.0, "update": 1.0}
    assert base.tokens == {"sample": 400.0, "update": 300.0}
    assert found.seconds == {"sample": 3.0, "reward": 0.5, "reward/process": 2.5, "update": 0.0}
    assert found.tokens == {"sample": 600.0, "reward/process": 500.0, "update": 1000.0}
    assert (found.all_seconds, found.all_tokens) == (6.0, 2100.0)
    assert found.against(base) == (2.0, 3.0)
    assert base.against(base) == (1.0, 1.0)
    silent = costs(logged(tmp_path / "silent", {"time/sample": 1.0}))
    assert silent.tokens == {}
    assert math.isnan(found.against(silent)[1])


def test_costs_of_a_log_without_any(tmp_path):
    with pytest.raises(InputError, match="does not say what the parts of a step took"):
        costs(logged(tmp_path / "run", {"outcome/mean": 0.5}))
    with pytest.raises(MissingError):
        costs(tmp_path / "nowhere")
