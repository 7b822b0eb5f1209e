"""OREAL on a small transformer: agreement by hand, arms that differ where they say, every line of the study once."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reckon.recipe import Recipe
from reckon.studies import load_study, oreal_transformer
from reckon.studies._chain_texts import Truth, make_start, make_task
from reckon.studies._language_model import exam
from reckon.studies.oreal_transformer import (
    ARMS,
    BALANCED_ALL,
    CLAIMS,
    CLONE,
    CODE,
    CODE_ALL,
    MC,
    MC_FEW,
    PAPER,
    RELEASED,
    RLOO,
    RLOO_ALL,
    SINGLE,
    STUDY,
    WEIGHTS,
    WEIGHTS_ALL,
    agreement,
    cell,
    recipe_of,
)
from reckon.types import Stream

SEED = 7  # the study does not use it
TASK = make_task(SEED, STUDY.fast["operations"], STUDY.fast["posed"])
TRAINED = [arm for arm in ARMS if arm not in (MC, MC_FEW)]


@pytest.fixture(scope="module")
def every_arm():
    return {arm: cell({**settings, **STUDY.fast}, SEED) for arm, settings in ARMS.items()}


def truth(chance):
    values = np.array(chance)
    valid = np.zeros((len(values), values.shape[1] - 1), dtype=np.bool_)
    return Truth(rows=torch.arange(len(values)), valid=valid, chance=values)


# Advantages [0.25, -0.75], [-0.47, -0.03] and, right, [0.25, 0.25]: the sum is lost in the second and the first step.
EXACT = truth([[0.5, 0.75, 0.0], [0.5, 0.03, 0.0], [0.5, 0.75, 1.0]])
RIGHT = np.array([False, False, True])


def test_agreement_by_hand():
    """Credit 1, -1, 0, -0.5 beside 0.25, -0.75, -0.47, -0.03.

    Below 0 are the last three, all with less credit than the first: 1. Below -0.1 are -0.75 (less credit than both
    others) and -0.47 (less than the first, more than the last): 3 of 4. Ranks 4 1 3 2 beside 4 1 2 3: 1 - 6 * 2 / 60.
    """
    found = agreement(np.array([[1.0, -1.0], [0.0, -0.5], [-9.0, 9.0]]), EXACT, RIGHT)
    assert found == pytest.approx({"lost": 1.0, "slip": 0.75, "rank": 0.8})


def test_exact_advantages_agree_with_themselves_and_even_weights_with_nothing():
    assert agreement(EXACT.advantage, EXACT, RIGHT) == {"lost": 1.0, "slip": 1.0, "rank": pytest.approx(1.0)}
    assert agreement(np.full((3, 2), -0.3), EXACT, RIGHT) == {"lost": 0.5, "slip": 0.5, "rank": 0.0}


def test_right_rows_and_rows_without_credit_do_not_count():
    credit = np.array([[1.0, -1.0], [np.nan, np.nan], [-9.0, 9.0]])
    assert agreement(credit, EXACT, RIGHT) == pytest.approx({"lost": 1.0, "slip": 1.0, "rank": 1.0})
    assert all(math.isnan(value) for value in agreement(credit, EXACT, np.array([True] * 3)).values())


def test_token_credit_has_the_sign_of_its_side_and_is_read_at_digits():
    """Weights of a wrong response are blame: 0.1 and 0.9 beside advantages 0.25 and -0.75, and the comma's is not read.

    Logits 2, 0, -8 have means 2, 1, -2: differences of the digits' are 2 and -4.
    """
    mask = torch.ones(2, 4, dtype=torch.bool)
    batch = SimpleNamespace(outcome=torch.tensor([0.0, 1.0]), seq=SimpleNamespace(mask=mask))
    logits = torch.tensor([[2.0, 0.0, -8.0, 5.0], [1.0, 1.0, 1.0, 1.0]])
    weights = torch.tensor([[0.1, 0.5, 0.9, 0.0], [0.3, 0.3, 0.3, 0.3]])
    asked = []

    def outputs(seq, want):
        asked.append(want)
        return SimpleNamespace(scores=logits, values=-logits)

    exact = truth([[0.5, 0.75, 0.0], [0.5, 0.75, 1.0]])
    for position, sign in (("after", 1.0), ("before", -1.0)):
        judge = SimpleNamespace(
            position=position,
            score=lambda _: {"token_outcome_model": Stream(values=weights, kind="weight")},
            model=SimpleNamespace(outputs=outputs),
        )
        found = oreal_transformer._token_credit(judge, batch, exact)
        assert (found["lost"], found["rank"]) == (1.0, pytest.approx(1.0))
        assert found["rank of differences"] == pytest.approx(sign)
    assert asked == [("scores",), ("values",)]


def test_it_is_a_study_of_the_house():
    assert load_study("oreal-transformer") is STUDY


def test_every_claim_and_row_reads_what_is_there(every_arm):
    found = {arm: measured.metrics for arm, measured in every_arm.items()}
    told = {effect.says: effect.of(found) for claim in CLAIMS for effect in claim.effects}
    told |= {f"{row.arm}: {row.metric}": found[row.arm][row.metric] for row in STUDY.rows}
    assert [name for name, value in told.items() if not math.isfinite(value)] == []


def test_arms_begin_alike_and_draw_as_much(every_arm):
    assert len({every_arm[arm].metrics["start"] for arm in TRAINED}) == 1
    one = {**STUDY.fast, "steps": 1, "frozen": 1}
    first = {arm: cell({**ARMS[arm], **one}, SEED).metrics for arm in (RLOO, CODE, WEIGHTS, RLOO_ALL)}
    assert len({measured["generated"] for measured in first.values()}) == 1
    assert len({measured["surprise"] for measured in first.values()}) == 4


def test_the_policy_waits_for_the_token_model():
    """In a run of frozen steps alone it stays the start; an arm without weights has no token model to wait for."""
    frozen = {**STUDY.fast, "steps": 2, "frozen": 2}
    start = make_start(TASK, STUDY.fast["worked"], STUDY.fast["passes"])
    before = exam(start.open(), TASK, SEED, n=frozen["tested"], k=oreal_transformer.TESTED)
    waited = cell({**ARMS[WEIGHTS], **frozen}, SEED).metrics
    assert {name: waited[name] for name in before} == before
    assert cell({**ARMS[CODE], **frozen}, SEED).metrics["surprise"] != before["surprise"]


def test_monte_carlo_credit_costs_more_the_more_is_completed(every_arm):
    many, few = every_arm[MC].metrics, every_arm[MC_FEW].metrics
    assert 4.5 > many["cost"] / few["cost"] > 3.5  # eight completions or two, of the same beginnings
    assert many["rank"] != few["rank"]


def parts_of(arm):
    """An arm's recipe, resolved."""
    settings = {"model": "tiny", "sampling": {"max_new_tokens": 8}, **recipe_of(ARMS[arm], TASK)}
    return Recipe.parse(json.dumps(settings)).resolved()


def test_arms_are_recipes_that_differ_where_they_say():
    found = {arm: parts_of(arm) for arm in TRAINED}
    credit = {arm: recipe["advantage"] for arm, recipe in found.items()}
    rules = {arm: (one["right"], one["wrong"], one["warmup"]) for arm, one in credit.items()}
    code, waiting = ("rloo", "rloo", 0), ("rloo", "rloo", 10)
    assert rules == {
        RLOO: code,
        CLONE: ("one", "one", 0),
        PAPER: ("one", "failures", 0),
        CODE: code,
        WEIGHTS: waiting,
        RELEASED: waiting,
        SINGLE: waiting,
        RLOO_ALL: code,
        CODE_ALL: code,
        WEIGHTS_ALL: waiting,
        BALANCED_ALL: waiting,
    }
    for arm, recipe in found.items():
        assert recipe["keep"]["kind"] == ("drop_equal" if arm.endswith("all answers") else "one_pair")
        assert recipe["refill"]["rounds"] == 1
        assert (recipe["reward"]["correct"]["right"], recipe["reward"]["correct"]["wrong"]) == (1.0, -1.0)
        assert recipe["objective"]["kl"]["coef"] == 0.01
    tokens = {arm: recipe["reward"]["tokens"] for arm, recipe in found.items() if "tokens" in recipe["reward"]}
    assert {arm: (one["how"], one["position"], one["balanced"]) for arm, one in tokens.items()} == {
        WEIGHTS: ("mean", "after", False),
        RELEASED: ("mean", "before", False),
        SINGLE: ("token", "after", False),
        WEIGHTS_ALL: ("mean", "after", False),
        BALANCED_ALL: ("mean", "after", True),
    }
    negatives = {arm: recipe["objective"].get("wrong", {}).get("coef") for arm, recipe in found.items()}
    assert {arm for arm, coef in negatives.items() if coef is None} == {RLOO, RLOO_ALL}
    assert negatives[CLONE] == 0.0
    assert negatives[PAPER] == negatives[CODE] == negatives[WEIGHTS] == 0.5


def test_every_arm_has_the_same_rates():
    assert {(settings["lr"], settings["judge lr"]) for settings in ARMS.values()} == {
        (oreal_transformer.POLICY, oreal_transformer.JUDGE)
    }


def test_a_cell_depends_on_settings_and_seed_alone(every_arm):
    make_start.cache_clear()
    oreal_transformer._probe.cache_clear()
    for arm in (WEIGHTS, MC):
        assert cell({**ARMS[arm], **STUDY.fast}, SEED).metrics == every_arm[arm].metrics
