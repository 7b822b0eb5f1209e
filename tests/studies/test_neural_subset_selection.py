"""The tasks, the arms and the rules of the study."""

import json

import numpy as np
import pytest
import torch

from reckon.studies import judge, run_study
from reckon.studies.neural_subset_selection import (
    _ARMS,
    STUDY,
    TARGET,
    cell,
    draw_responses,
    draw_sets,
    model_of,
)
from reckon.subsets import random_jaccard
from reckon.types import Rng

ROOT = Rng((0, "test"))
SMALL = {"sets": 12, "held": 6, "epochs": 2}


@pytest.mark.parametrize(
    ("task", "shape", "wanted"),
    [("near", (20, 2), {4}), ("mixture", (30, 2), {5}), ("moons", (20, 2), {4}), ("digits", (20, 8, 16), {2, 3, 4, 5})],
)
def test_tasks_are_the_specifications_and_parts_are_apart(task, shape, wanted):
    sets = draw_sets(task, 40, 0, ROOT)
    assert tuple(sets.features.shape) == (40, *shape)
    assert set(sets.chosen.sum(dim=1).tolist()) == wanted
    again, other = draw_sets(task, 40, 0, ROOT), draw_sets(task, 40, 1, ROOT)
    assert sets.features.equal(again.features)
    assert not sets.features.equal(other.features)


def test_of_the_responses_one_of_each_good_kind_is_wanted_and_the_best_are_of_one_kind():
    pool = draw_responses(40, 0, ROOT)
    assert pool.sets.mask.all()
    for places, chosen, worth in zip(pool.sets.features, pool.sets.chosen, pool.worth, strict=True):
        wanted = places[chosen][places[chosen][:, 0].argsort()]
        torch.testing.assert_close(wanted, torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), rtol=0, atol=0.3)
        assert (places[worth.argsort()[-2:]][:, 0] > 1).all()
    assert not draw_responses(40, 1, ROOT).sets.features.equal(pool.sets.features)


def test_arms_are_what_they_are_called():
    made = {
        arm: model_of(settings)((8, 16) if settings["task"] == "digits" else (2,))
        for arm, (settings, _, _) in _ARMS.items()
        if settings["model"] not in ("random", "top")
    }
    weights = {arm: sum(w.numel() for w in model.parameters()) for arm, model in made.items()}
    # phi 2-64-32: 192 + 2080; f 32-64-64-1: 2112 + 4160 + 65
    assert weights["A: set alone"] == 2272 + 6337
    assert weights["A: complement"] == 2272 + 2 * 6337
    assert weights["A: set alone, doubled width"] > weights["A: complement"]  # so capacity has every chance
    assert weights["B: mixture, set alone"] == 3 * 32 + 6337  # a linear encoder
    assert made["A: set alone, copula posterior"].posterior.rank == 5
    assert made["A: set alone, independent posterior"].posterior.rank == 0
    for arm, context in (
        ("A: complement", "complement"),
        ("A: concat", "concat"),
        ("A: add (the paper's form)", "add"),
    ):
        assert made[arm].energy.context == context
    assert {made[arm].inference.samples for arm in ("A: set alone", "C: digits, complement")} == {4}


@pytest.mark.filterwarnings("ignore:SubsetSelector. psi is")  # two epochs teach nothing
def test_a_cell_is_its_settings_and_its_seed():
    settings = {**_ARMS["A: complement"][0], **SMALL}
    first, again, other = cell(settings, 0), cell(settings, 0), cell(settings, 1)
    assert first == again
    assert first.metrics["jaccard"] != other.metrics["jaccard"] or first.metrics["loss"] != other.metrics["loss"]
    assert 0 <= first.metrics["jaccard"] <= 1
    assert first.metrics["epochs"] == 3  # never reached: one more than it had
    assert set(first.curves) == {"epoch", "near: training loss", "near: mean Jaccard index, validation"}


def test_a_random_arm_is_as_good_as_chance():
    found = [cell({**_ARMS["A: random"][0], "sets": 1, "held": 300}, seed).metrics["jaccard"] for seed in range(3)]
    assert np.mean(found) == pytest.approx(random_jaccard(20, 4), abs=0.02)


def measured(jaccard=0.7, loss=2.4, epochs=20.0, coverage=0.6, worth=0.5):
    return {"jaccard": jaccard, "loss": loss, "epochs": epochs, "coverage": coverage, "worth": worth}


def table(**changes):
    """One seed in which every arm found the same, but for `changes`."""
    return {arm: measured() for arm in STUDY.arms} | {arm: measured(**values) for arm, values in changes.items()}


def verdict(says, seeds):
    (claim,) = [claim for claim in STUDY.claims if claim.says.startswith(says)]
    return judge(claim, seeds, 5).verdict


def test_the_rules():
    gains = [0.05, 0.04, 0.06, 0.05, 0.04]
    good = [table(**{"A: complement": {"jaccard": 0.7 + gain}}) for gain in gains]
    assert verdict("Where the whole set decides", good) == "seen"
    # the same mean, but in two of five seeds it is below
    uneven = [table(**{"A: complement": {"jaccard": 0.7 + gain}}) for gain in (0.12, 0.12, 0.12, -0.01, -0.01)]
    assert verdict("Where the whole set decides", uneven) == "not seen"
    assert verdict("Where the whole set decides", good[:4]) == "not testable here"
    fits = [table(**{"A: complement": {"loss": 2.1 + 0.01 * i}, "A: concat": {"loss": 2.2}}) for i in range(5)]
    assert verdict("Both forms of context fit", fits) == "seen"
    assert verdict("Both forms of context fit", [table()] * 5) == "not seen"
    quick = [table(**{"A: complement": {"epochs": 10.0 + i}}) for i in range(5)]
    assert verdict("It also learns in fewer epochs", quick) == "seen"
    sane = [
        {**table(), **{arm: measured(0.9 + 0.001 * i) for arm in STUDY.arms if arm.startswith("B")}} for i in range(5)
    ]
    assert verdict("The sanity tasks", sane) == "seen"
    assert verdict("In the sanity tasks context changes nothing", sane) == "seen"
    apart = [{**one, "B: moons, complement": measured(0.95)} for one in sane]
    assert verdict("In the sanity tasks context changes nothing", apart) == "not seen"
    turn = "D: responses, greedy by an energy"
    wide = [table(**{turn: {"coverage": 0.9 + 0.01 * i, "worth": 0.8}}) for i in range(5)]
    assert verdict("Chosen in turn by an energy", wide) == "seen"
    assert verdict("Chances of single elements", wide) == "seen"
    poor = [{**one, turn: {**one[turn], "worth": 0.5}} for one in wide]
    assert verdict("Chosen in turn by an energy", poor) == "not seen"


@pytest.mark.filterwarnings("ignore:SubsetSelector. psi is")  # two epochs teach nothing
def test_every_line_runs(tmp_path, capsys):
    torch.manual_seed(0)
    run_study(STUDY, tmp_path, fast=True, seeds=(0,))
    capsys.readouterr()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["not run"] == []
    assert {row["arm"] for row in results["rows"]} == set(STUDY.arms)
    assert all(row["here"]["mean"] is not None for row in results["rows"])
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert 0.124 < TARGET < 0.709  # above random, below the worst of the pilot's ends
