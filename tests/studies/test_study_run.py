"""A study of two arms that is over in no time."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest

from reckon.errors import InputError, MissingError, RunError
from reckon.studies import STUDIES, Claim, Effect, Measured, Row, Study, load_study, run_study
from reckon.studies._report import curves_figure


class Counting:
    """Remembers which cells were run."""

    def __init__(self, fail_at=None):
        self.ran = []
        self.fail_at = fail_at

    def __call__(self, settings, seed):
        if len(self.ran) == self.fail_at:
            raise KeyboardInterrupt
        self.ran.append((settings["slope"], seed))
        ys = [settings["slope"] * x + seed / 3 for x in range(settings["steps"])]
        return Measured(metrics={"end": ys[-1]}, curves={"step": list(range(len(ys))), "height": ys})


def toy(cell, **changes):
    study = Study(
        name="toy",
        title="A toy",
        source="Nobody 2026",
        arms={"steep": {"slope": 2.0, "steps": 3}, "flat": {"slope": 0.5, "steps": 3}},
        seeds=(0, 1, 2),
        fast={"steps": 1},
        cell=cell,
        claims=(
            Claim(
                says="Steep ends higher",
                effects=(Effect(says="end", of=lambda found: found["steep"]["end"] - found["flat"]["end"], least=3),),
            ),
            Claim(says="Flies", why="no wings"),
        ),
        rows=(Row(arm="steep", metric="end", says="height at the end", paper="4.2", pilot="4"),),
        notes=("Mind the slope.",),
    )
    return replace(study, **changes)


def test_a_full_run(tmp_path, capsys):
    cell = Counting()
    results = run_study(toy(cell), tmp_path)
    assert cell.ran == [(2.0, 0), (0.5, 0), (2.0, 1), (0.5, 1), (2.0, 2), (0.5, 2)]
    assert results == json.loads((tmp_path / "results.json").read_text())
    # end = slope * 2 + seed / 3: steep 4, 4.333, 4.667; the difference is 3 in every seed
    assert results["rows"][0]["here"]["mean"] == pytest.approx(4 + 1 / 3, abs=1e-5)
    assert results["rows"][0]["here"]["error"] == pytest.approx((1 / 3) / math.sqrt(3), abs=1e-5)
    assert [claim["verdict"] for claim in results["claims"]] == ["seen", "not testable here"]
    assert results["not run"] == []
    page = (tmp_path / "README.md").read_text()
    assert "| steep | height at the end | 4.2 | 4 | 4.333 ± 0.192 | 3 |" in page
    assert (
        "| Steep ends higher | end | +3.000 ± 0.000 | mean at least 3, and two standard errors above 0 | **seen** |"
        in page
    )
    assert "**not testable here** (no wings)" in page
    assert f"`reckon study toy --out {tmp_path}`" in page
    assert "Cells not run: none." in page
    assert "Mind the slope." in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "cells", "curves.png", "results.json"]
    assert not list(tmp_path.glob("cells/.*"))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "seen  Steep ends higher" in capsys.readouterr().out


def test_json_goes_to_stdout_alone(tmp_path, capsys):
    results = run_study(toy(Counting()), tmp_path, json=True)
    assert json.loads(capsys.readouterr().out) == results


def test_finished_cells_are_read_and_give_the_same_digits(tmp_path):
    first = run_study(toy(Counting()), tmp_path)
    again = Counting()
    second = run_study(toy(again), tmp_path)
    assert again.ran == []
    assert second == first


def test_a_cell_of_other_settings_is_run_again(tmp_path):
    run_study(toy(Counting()), tmp_path)
    again = Counting()
    run_study(toy(again, arms={"steep": {"slope": 2.0, "steps": 3}, "flat": {"slope": 0.25, "steps": 3}}), tmp_path)
    assert again.ran == [(0.25, 0), (0.25, 1), (0.25, 2)]


def test_the_legend_has_every_arm_that_some_panel_shows():
    """In the order of the arms, once each; the last panel alone would lack `steep`."""
    x = [0.0, 1.0]
    done = {
        ("flat", 0): Measured(metrics={}, curves={"step": x, "height": x, "width": x}),
        ("steep", 0): Measured(metrics={}, curves={"step": x, "height": x}),
        ("steep", 1): Measured(metrics={}, curves={"step": x, "height": [1.0, 2.0]}),
    }
    figure = curves_figure(toy(Counting()), done)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["steep", "flat"]
    assert [len(panel.lines) for panel in figure.axes] == [2, 1]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.5, 1.5]  # the mean of both seeds
    assert legend.get_lines()[1].get_color() == figure.axes[1].lines[0].get_color()
    assert figure.get_figwidth() == 10
    lone = curves_figure(toy(Counting()), {("flat", 0): Measured(metrics={}, curves={"step": x, "height": x})})
    assert lone.get_figwidth() == 7  # as wide as it has to be for a legend, and no thumbnail
    assert curves_figure(toy(Counting()), {("flat", 0): Measured(metrics={}, curves={"step": x})}) is None
    many = {("flat", 0): Measured(metrics={}, curves={"step": x, **{f"curve {i}": x for i in range(6)}})}
    grid = curves_figure(toy(Counting()), many)
    assert grid.get_figwidth() == 25  # five in a row, and one below them
    assert [panel.axison for panel in grid.axes] == [True] * 6 + [False] * 4
    budgets = {
        ("flat", 0): Measured(metrics={}, curves={"step": x, "at 1024": x, "at 3,000": x, "at 16": x, "at 64": x})
    }
    titles = [panel.get_title() for panel in curves_figure(toy(Counting()), budgets).axes]
    assert titles == ["at 16", "at 64", "at 1024", "at 3,000"]


def test_a_legend_of_long_names_stays_in_the_drawing():
    arms = {
        f"an arm with a name as long as arms in studies have, number {i}": {"slope": 1.0, "steps": 2} for i in range(9)
    }
    done = {(arm, 0): Measured(metrics={}, curves={"step": [0.0], "height": [0.0], "width": [0.0]}) for arm in arms}
    figure = curves_figure(toy(Counting(), arms=arms, rows=()), done)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_study(toy(Counting(fail_at=3)), tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["not run"] == ["flat, seed 1", "steep, seed 2", "flat, seed 2"]
    assert results["claims"][0]["verdict"] == "not testable here"
    assert results["claims"][0]["why"] == "1 of 3 seeds are finished"
    assert "Cells not run: flat, seed 1; steep, seed 2; flat, seed 2." in (tmp_path / "README.md").read_text()
    rest = Counting()
    assert run_study(toy(rest), tmp_path)["claims"][0]["verdict"] == "seen"
    assert rest.ran == [(0.5, 1), (2.0, 2), (0.5, 2)]


def test_stopped_before_the_first_cell(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_study(toy(Counting(fail_at=0)), tmp_path)
    assert "| steep | height at the end | 4.2 | 4 | not run | 0 |" in (tmp_path / "README.md").read_text()
    assert not (tmp_path / "curves.png").exists()


def test_fast_gives_no_verdicts_and_two_seeds(tmp_path, capsys):
    cell = Counting()
    results = run_study(toy(cell), tmp_path, fast=True)
    assert results["claims"] == []
    assert results["seeds"] == [0, 1]
    assert results["settings"]["steep"]["steps"] == 1
    assert "too small for verdicts" in (tmp_path / "README.md").read_text()
    assert "too small for verdicts" in capsys.readouterr().out


def test_fast_leaves_a_full_run_alone(tmp_path):
    run_study(toy(Counting()), tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(InputError, match="holds a full run, which --fast would overwrite"):
        run_study(toy(Counting()), tmp_path, fast=True)
    assert (tmp_path / "results.json").read_bytes() == before


def test_other_seeds(tmp_path):
    results = run_study(toy(Counting()), tmp_path, seeds=[7, 9])
    assert results["claims"][0]["why"] == "2 of 3 seeds are finished"
    assert results["command"].endswith("--seeds 7,9")


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_refuses_no_seeds_and_twins(tmp_path, seeds):
    with pytest.raises(InputError, match="give at least one, and each once"):
        run_study(toy(Counting()), tmp_path, seeds=seeds)


def test_a_number_that_is_none_is_told_as_such(tmp_path):
    study = toy(lambda settings, seed: Measured(metrics={"end": math.nan}))
    for _ in range(2):  # run, then read
        results = run_study(study, tmp_path)
        assert results["rows"][0]["here"]["mean"] is None
        assert results["claims"][0]["why"] == "an effect is not a number"
    assert "| ? ± ? | 3 |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("content", ["{", "[]", '{"study": "toy"}'])
def test_a_damaged_cell_is_named(tmp_path, content):
    run_study(toy(Counting()), tmp_path)
    path = tmp_path / "cells" / "flat-seed-1.json"
    if content.endswith('"toy"}'):
        whole = json.loads(path.read_text())
        del whole["metrics"]
        content = json.dumps(whole)
    path.write_text(content)
    with pytest.raises(RunError, match=r"flat-seed-1\.json is no finished cell .* Delete it, and it will be run again"):
        run_study(toy(Counting()), tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file.* could not be written"):
        run_study(toy(Counting()), tmp_path / "file")


def test_matplotlib_is_asked_for_before_anything_is_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    cell = Counting()
    with pytest.raises(MissingError, match=r"pip install 'reckon-rl\[studies\]'"):
        run_study(toy(cell), tmp_path)
    assert cell.ran == []


def test_unknown_studies_are_told_the_nearest():
    with pytest.raises(InputError, match=r"there is no study 'surogate-rewards'\. Did you mean 'surrogate-rewards'"):
        load_study("surogate-rewards")
    with pytest.raises(InputError, match="There are: "):
        load_study("xyz")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_can_be_loaded_and_has_its_own_name(name):
    study = load_study(name)
    assert study.name == name
    assert all(claim.effects or claim.why for claim in study.claims)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1,)}, "seeds must be 2 or more"),
        ({"arms": {"a b": {}, "a-b": {}}, "rows": ()}, "differ in letters and digits"),
        ({"arms": {"flat": {}}}, "the table has a row for 'steep', which is no arm"),
    ],
)
def test_a_study_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        toy(Counting(), **changes)


def test_listing_studies_needs_no_torch():
    code = "import sys, reckon.studies; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
