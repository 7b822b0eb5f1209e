"""Modules of the studies that are commands: a person's mistake is one line, and no traceback."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "words", "told"),
    [
        ("signals_on_smollm_pages", ["nowhere"], "there is no results.json in nowhere. Run `reckon study"),
        ("signals_on_smollm_trl", ["verdict", "--out", "nowhere"], "there is no nowhere/results.json, so there is"),
        ("label_budget_on_smollm_pages", ["nowhere"], "nowhere"),
    ],
)
def test_a_folder_without_a_study_is_one_line(module, words, told, tmp_path):
    command = [sys.executable, "-m", f"reckon.studies.{module}", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("reckon: ")
    assert told in line
    assert not (tmp_path / "nowhere").exists()
