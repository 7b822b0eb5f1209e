"""Interquartile means in a study's results and page."""

import math

import pytest

from reckon.evaluate import pooled
from reckon.studies import Measured, Pool, Row, Study, run_study
from reckon.types import Rng


def study(cell, pools):
    return Study(
        name="pooling",
        title="Pools",
        source="Nobody 2026",
        arms={"a": {"base": 0.0}, "b": {"base": 1.0}},
        seeds=(0, 1, 2),
        fast={},
        cell=cell,
        claims=(),
        rows=(Row(arm="a", metric="end", says="end"),),
        pools=pools,
    )


def test_a_pool_is_all_runs_of_its_arms(tmp_path):
    def cell(settings, seed):
        return Measured(metrics={"end": settings["base"] + seed / 8})

    results = run_study(study(cell, (Pool(says="both", arms=("a", "b"), metric="end"),)), tmp_path)
    (pool,) = results["pools"]
    # 0, 1/8, 2/8, 1, 9/8, 10/8 without the lowest and the highest: (1/8 + 2/8 + 1 + 9/8) / 4
    assert pool["mean"] == 0.625
    assert pool["runs"] == 6
    told = pooled([[0.0, 0.125, 0.25], [1.0, 1.125, 1.25]], Rng(("study", "both")))
    assert pool["low"] == pytest.approx(told.low, rel=1e-5)
    assert pool["high"] == pytest.approx(told.high, rel=1e-5)
    page = (tmp_path / "README.md").read_text()
    assert f"| both | end | 0.625 | {told.low:.3f} to {told.high:.3f} | 6 |" in page


def test_a_run_without_a_number_is_left_out_and_an_arm_without_one_says_so(tmp_path):
    def cell(settings, seed):
        return Measured(metrics={"end": math.nan if settings["base"] == 1.0 and seed < 2 else seed / 8})

    pools = (Pool(says="both", arms=("a", "b"), metric="end"),)
    assert run_study(study(cell, pools), tmp_path / "some")["pools"][0]["runs"] == 4
    results = run_study(study(cell, pools), tmp_path / "one", seeds=(0, 1))
    assert results["pools"][0]["mean"] is None
    assert "| both | end | ? | ? to ? | 2 |" in (tmp_path / "one" / "README.md").read_text()


def test_a_study_without_pools_has_no_table(tmp_path):
    def cell(settings, seed):
        return Measured(metrics={"end": 0.0})

    assert run_study(study(cell, ()), tmp_path)["pools"] == []
    assert "Interquartile" not in (tmp_path / "README.md").read_text()


def test_a_pool_of_what_is_no_arm():
    with pytest.raises(ValueError, match="'both' pools"):
        study(lambda settings, seed: Measured(metrics={}), (Pool(says="both", arms=("a", "c"), metric="end"),))
