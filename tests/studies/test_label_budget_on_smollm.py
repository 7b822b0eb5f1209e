"""SmolLM2's running sums as something to buy labels for: votes by hand, splits, rules, and all lines but the model."""

import csv
from pathlib import Path

import numpy as np
import pytest

from reckon.errors import MissingError
from reckon.studies import judge, load_study, run_study
from reckon.studies._labeled_sums import agreement, labeled_sums, sums_data
from reckon.studies.label_budget_on_smollm import BUDGETS
from reckon.studies.label_budget_on_smollm_pages import write_plans

ROOT = Path(__file__).parents[2]
TABLE = str(ROOT / "results" / "signals-running-sums" / "responses.parquet")


def test_agreement_with_the_commonest_answer_by_hand():
    answers = ["7", "7", "8", None, "1", "2", None]
    assert agreement([0, 0, 0, 0, 1, 1, 2], answers).tolist() == [1, 1, 0, 0, 1, 1, 0]  # of 1 and 2 none is commoner


def test_as_many_right_as_wrong_responses_and_no_problem_on_both_sides():
    sums = labeled_sums(TABLE, None)
    assert sums.right.mean() == 0.5
    assert len(sums.right) == 2 * 675  # 21.1% of 3,200 are right
    first, second = (sums_data(TABLE, None, "implicit", seed) for seed in (0, 1))
    assert len(first.x) + len(first.test_x) == len(sums.right)
    assert first.weak.mean() == pytest.approx(0.5, abs=0.01)  # scores above their median
    assert first.x[:, :4].mean(axis=0) == pytest.approx(np.zeros(4), abs=1e-9)  # scaled by the pool
    assert len(first.x) != len(second.x)
    vote = sums_data(TABLE, None, "vote", 0)
    assert vote.gold.tolist() == first.gold.tolist()
    assert set(vote.weak.tolist()) == {0.0, 1.0}


def seed_of(study, **reached):
    """A seed in which every accuracy and share is 0.65, but for those told."""
    metrics = {row.metric: 0.65 for row in study.rows}
    return {arm: metrics | reached.get(arm, {}) for arm in study.arms}


def test_the_rules():
    study = load_study("label-budget-on-smollm")
    flat = [seed_of(study)] * 10
    told = [judge(claim, flat, 10).verdict for claim in study.claims]
    # .65 - .5 is enough for implicit and votes and too much for the outcome judge; nothing is ahead of anything, a
    # plan that loses nothing is within two points, and money went to the outcome judge's labels.
    assert told == ["seen"] * 2 + ["not seen"] * 5 + ["seen", "not seen"]
    hoped = seed_of(
        study,
        implicit={"accuracy/16/1": 0.67, "accuracy/64/0": 0.67},
        outcome={"labels": 0.51, "weak share/64": 0.0},
        vote={
            **{f"accuracy/{budget}/{way}": 0.67 for budget in BUDGETS for way in ("1", "plan")},
            "accuracy/64/0.4": 0.69,
        },
    )
    assert {judge(claim, [hoped] * 10, 10).verdict for claim in study.claims} == {"seen"}
    lost = seed_of(study, implicit={f"accuracy/{budget}/plan": 0.62 for budget in BUDGETS})
    assert judge(study.claims[7], [lost] * 10, 10).verdict == "not seen"


def test_fast_runs_end_to_end_and_its_pilots_make_plans(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the table is
    results = run_study("label-budget-on-smollm", tmp_path, fast=True)
    assert results["not run"] == []
    written = write_plans(tmp_path, draws=2)
    assert {path.name for path in written} == {
        f"{name}-{source}.{kind}"
        for source in ("implicit", "outcome", "vote")
        for name, kind in (("pilot", "csv"), ("plan", "txt"))
    }
    with (tmp_path / "pilot-vote.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 33  # 11 purchases, three times
    assert (tmp_path / "plan-vote.txt").read_text().startswith("For 64, buy ")


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(MissingError, match="Run this study from the repository's folder"):
        labeled_sums(str(tmp_path / "none.parquet"), None)
    with pytest.raises(MissingError, match="Run `reckon study label-budget-on-smollm"):
        write_plans(tmp_path)
