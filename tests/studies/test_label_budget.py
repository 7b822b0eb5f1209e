"""The worlds of the study, its rules on the pilot's table, and a run of every line."""

import json
from dataclasses import replace

import numpy as np
import pytest

from reckon.labels import LogConfidence
from reckon.studies import judge, load_study, run_study
from reckon.studies._budget_world import Mixing, digits_world, linear_world, sequential, weak_accuracy
from reckon.studies.label_budget import BUDGETS, SHARES


def test_the_linear_world_is_the_specifications():
    data = linear_world(3000, seed=0)
    x = data.x[:, :-1]
    assert data.x.shape == (3000, 257)
    assert set(data.x[:, -1]) == {1.0}
    variance = np.arange(1, 257) ** -0.6
    assert x.var(axis=0).mean() == pytest.approx(1, abs=0.02)
    assert x[:, 0].var() == pytest.approx(variance[0] / variance.mean(), rel=0.15)
    assert len(data.test_y) == 4000
    assert 0.35 < data.gold.mean() < 0.65
    assert weak_accuracy(data) == pytest.approx(0.734, abs=0.05)  # the pilot's mean over seeds


def test_shuffled_errors_are_as_many():
    plain, shuffled = linear_world(2000, seed=1), linear_world(2000, seed=1, shuffled=True)
    assert plain.gold.tolist() == shuffled.gold.tolist()
    assert np.sort(np.abs(plain.weak - plain.gold)) == pytest.approx(np.sort(np.abs(shuffled.weak - plain.gold)))


def test_digits_that_are_tested_are_not_in_the_pool():
    data = digits_world(seed=0)
    assert (len(data.x), len(data.test_x)) == (1397, 400)
    assert {tuple(row) for row in data.test_x.round(9)}.isdisjoint(tuple(row) for row in data.x.round(9))


def test_mixing_trains_on_both_kinds_at_once():
    data = linear_world(600, seed=0)
    offers = data.offers(300, 100, 0)
    model = Mixing(257, 20).fit(offers, 0)
    again = Mixing(257, 20).fit(offers, 0)
    assert model.weights().tolist() == again.weights().tolist()
    assert model.weights().tolist() != sequential(257, (20, 20)).fit(offers, 0).weights().tolist()


def test_mixing_reads_each_label_from_its_own_source():
    """Labels that were not bought of a kind may be anything; those that were may not."""
    data = linear_world(600, seed=0)
    offers = data.offers(300, 100, 0)
    weak, gold = offers["weak"].rows[:300], offers["gold"].rows[:100]

    def mixed(weak_rows, gold_rows):
        other = replace(data, weak=data.weak.copy(), gold=data.gold.copy())
        other.weak[weak_rows] = 1 - other.weak[weak_rows]
        other.gold[gold_rows] = 1 - other.gold[gold_rows]
        return Mixing(257, 20).fit(other.offers(300, 100, 0), 0).weights().tolist()

    rest = np.setdiff1d(np.arange(600), np.concatenate([weak, gold]))
    plain = mixed([], [])
    assert mixed(np.concatenate([gold, rest]), np.concatenate([weak, rest])) == plain
    assert mixed(weak, []) != plain
    assert mixed([], gold) != plain


def test_the_log_confidence_arm_differs_in_its_loss_alone():
    """With a coefficient of 0 the loss is plain cross-entropy, and training the same bit for bit."""
    arms = load_study("label-budget").arms
    assert arms["log-confidence loss"] == {**arms["weak, then gold"], "way": "log-confidence", "microbatch": 8}
    offers = linear_world(600, seed=0).offers(300, 100, 0)

    def weights(**loss):
        return sequential(257, (20, 20), **loss).fit(offers, 0).weights().tolist()

    assert weights(loss=LogConfidence(coefficient=0.0)) == weights()
    assert weights(loss=LogConfidence()) != weights()


def pilot():
    """What the pilot found, as one seed of the study would tell it."""
    study = load_study("label-budget")
    found = {arm: {} for arm in study.arms}
    for row in study.rows:
        found[row.arm][row.metric] = float(row.pilot) if row.pilot else np.nan
    return study, found


def test_the_rules_see_the_pilots_table_and_not_a_flat_one():
    study, found = pilot()
    main = study.claims[:6]  # those that the pilot's table is about
    assert [judge(claim, [found] * 10, 10).verdict for claim in main] == ["seen"] * 6
    flat = {arm: dict.fromkeys(metrics, 0.7) for arm, metrics in found.items()}
    # With every accuracy equal, only "no more than they know" holds.
    assert [judge(claim, [flat] * 10, 10).verdict for claim in main] == ["not seen"] * 5 + ["seen"]


def test_every_division_of_the_pilot_is_a_row():
    study, _ = pilot()
    rows = {row.metric for row in study.rows if row.arm == "weak, then gold"}
    assert {f"accuracy/{budget}/{share:g}" for budget in BUDGETS for share in SHARES} <= rows


def test_fast_runs_end_to_end(tmp_path):
    results = run_study("label-budget", tmp_path, fast=True)
    assert results["not run"] == []
    assert len(list((tmp_path / "cells").iterdir())) == 20
    assert json.loads((tmp_path / "results.json").read_text())["claims"] == []
    assert (tmp_path / "curves.png").is_file()
