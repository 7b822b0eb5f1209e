"""PRIME on a small transformer: arms that differ in what they say they differ in, and every line of the study once."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from reckon.recipe import Recipe
from reckon.studies import load_study, prime_transformer
from reckon.studies._chain_texts import make_start, make_task
from reckon.studies._language_model import Trained
from reckon.studies.prime_transformer import (
    AFTER,
    ALL_PRIME,
    ALL_RLOO,
    ARMS,
    BEFORE,
    CLAIMS,
    EASED,
    ORACLE,
    RAW,
    RLOO,
    STUDY,
    cell,
    recipe_of,
)
from reckon.types import Outputs, Problem

SEED = 7  # the study does not use it
TASK = make_task(SEED, STUDY.fast["operations"], STUDY.fast["posed"])


@pytest.fixture(scope="module")
def every_arm():
    return {arm: cell({**settings, **STUDY.fast}, SEED) for arm, settings in ARMS.items()}


def test_it_is_a_study_of_the_house():
    assert load_study("prime-transformer") is STUDY


def test_every_claim_and_row_reads_what_is_there(every_arm):
    found = {arm: measured.metrics for arm, measured in every_arm.items()}
    told = {effect.says: effect.of(found) for claim in CLAIMS for effect in claim.effects}
    told |= {f"{row.arm}: {row.metric}": found[row.arm][row.metric] for row in STUDY.rows}
    assert [name for name, value in told.items() if not math.isfinite(value)] == []


def test_arms_begin_alike(every_arm):
    assert len({measured.metrics["start"] for measured in every_arm.values()}) == 1
    for arm in (AFTER, BEFORE, RAW, EASED, ALL_PRIME):
        assert every_arm[arm].metrics["auc at first"] == 0.5


def test_the_first_step_of_prime_is_that_of_the_outcome_alone():
    """A reward model that is the reference has nothing to say yet, unless it learns before it speaks."""
    one = {**STUDY.fast, "steps": 1}
    first = {arm: cell({**ARMS[arm], **one}, SEED).metrics for arm in (RLOO, AFTER, BEFORE, ORACLE)}
    for name in ("surprise", "sampled", "generated"):
        assert first[RLOO][name] == first[AFTER][name]
    for arm in (BEFORE, ORACLE):
        assert first[RLOO]["surprise"] != first[arm]["surprise"]
        assert first[RLOO]["generated"] == first[arm]["generated"]
    computed = [first[arm]["computed"] for arm in (RLOO, AFTER, BEFORE)]
    assert computed == sorted(set(computed))  # each scores once more
    assert computed[1] > 1.2 * computed[0]


def test_the_filter_costs_rollouts(every_arm):
    found = {arm: measured.metrics for arm, measured in every_arm.items()}
    assert found[ALL_RLOO]["generated"] < found[RLOO]["generated"]


def test_without_the_filter_the_last_look_is_at_equal_tokens(every_arm):
    """A full response of four operations has eight tokens, so a run without the filter generates the budget or less."""
    for arm in (ALL_RLOO, ALL_PRIME):
        measured = every_arm[arm]
        last = measured.curves["dev accuracy by updates, without it"][-1]
        if measured.metrics["generated"] <= 2 * 16 * 8:
            assert measured.metrics["at equal tokens"] == last
    filtered = every_arm[RLOO]
    assert filtered.curves["dev accuracy by updates, with the filter"][0] == filtered.metrics["start"]


def test_what_is_measured_of_a_run_by_hand():
    """Looks at 0, 1 and 2; 24 tokens, then 72: of a budget of 2 x 2 x 2 x 6 = 48 the half of the second step."""
    settings = {**ARMS[AFTER], "operations": 3, "steps": 2, "prompts": 2, "answers": 2}
    lines = (
        {"step": 0.0, "dev/sampled": 0.1, "dev/auc": 0.5},
        {"step": 1.0, "dev/sampled": 0.2, "dev/auc": 0.6, "tokens/generated": 24.0, "computed/sample": 30.0},
        {"step": 2.0, "dev/sampled": 0.6, "dev/auc": 0.7, "tokens/generated": 48.0, "computed/update": 5.0},
    )
    measured = prime_transformer._measured(settings, Trained(model=None, parts=None, lines=lines), {"sampled": 0.55})
    assert measured.metrics == pytest.approx(
        {
            "sampled": 0.55,
            "start": 0.1,
            "mean": 0.4,
            "at equal tokens": 0.4,  # 24 of the second step's 48 tokens: half way from 0.2 to 0.6
            "generated": 72.0,
            "computed": 35.0,
            "auc at first": 0.5,
            "auc at last": 0.7,
        }
    )
    by_update = measured.curves["dev accuracy by updates, with the filter"]
    assert by_update[:: prime_transformer.POINTS // 2] == pytest.approx([0.1, 0.2, 0.6])
    assert measured.curves[STUDY.axis][-1] == 100.0


def parts_of(arm):
    """An arm's recipe, resolved."""
    settings = {"model": "tiny", "sampling": {"max_new_tokens": 8}, **recipe_of({**ARMS[arm], **STUDY.fast}, TASK)}
    return Recipe.parse(json.dumps(settings)).resolved()


def test_arms_are_recipes_that_differ_where_they_say():
    found = {arm: parts_of(arm) for arm in ARMS}
    base = found[AFTER]
    for arm, recipe in found.items():
        assert (recipe["objective"], recipe["optimizer"]) == (base["objective"], base["optimizer"])
        assert recipe["advantage"]["whiten"] is True
        filtered = arm not in (ALL_RLOO, ALL_PRIME)
        keeps = ("accuracy_band", 8) if filtered else ("all", 1)
        assert (recipe["keep"]["kind"], recipe["refill"]["rounds"]) == keeps
    assert list(found[RLOO]["reward"]) == list(found[ALL_RLOO]["reward"]) == ["correct"]
    assert found[ORACLE]["reward"]["process"]["kind"].endswith("_chain_texts.py:StepErrors")
    process = {arm: found[arm]["reward"]["process"] for arm in (AFTER, BEFORE, RAW, EASED, ALL_PRIME)}
    told = {arm: (one["update"], one["normalize"], one["warmup"]) for arm, one in process.items()}
    assert told == {
        AFTER: ("after", "batch", 0),
        BEFORE: ("before", "batch", 0),
        RAW: ("after", "none", 0),
        EASED: ("after", "batch", 30),
        ALL_PRIME: ("after", "batch", 0),
    }
    weights = {arm: found[arm]["advantage"]["weights"].get("process", 1.0) for arm in process}
    assert weights == {AFTER: 1.0, BEFORE: 1.0, RAW: 3.0, EASED: 0.3, ALL_PRIME: 1.0}


def test_every_arm_has_the_same_rates():
    assert {(settings["lr"], settings["judge lr"]) for settings in ARMS.values()} == {
        (prime_transformer.POLICY, prime_transformer.JUDGE)
    }


class Knowing:
    """Says 1 where a valid step begins and 0 elsewhere."""

    def __init__(self, model):
        self.model = model

    def outputs(self, seq):
        values = torch.zeros(seq.mask.shape)
        for row, pieces in enumerate(self.model.pieces(seq)):
            prompt = self.model.tokenizer.decode(seq.prompts[int(seq.group[row])])
            for step in TASK.steps(Problem(id="p", prompt=prompt), "".join(pieces)):
                if step.valid:
                    values[row, step.start] = 1.0
        return Outputs(logprobs=values)


def test_the_auc_is_of_log_ratios_at_valid_steps():
    """Of one that knows them over one that says nothing, and the other way round."""
    model = make_start(TASK, STUDY.fast["worked"], STUDY.fast["passes"]).open()
    knowing, silent = Knowing(model), SimpleNamespace(outputs=lambda seq: Outputs(logprobs=torch.zeros(seq.mask.shape)))
    for judge, expected in (((knowing, silent), 1.0), ((silent, knowing), 0.0), ((silent, silent), 0.5)):
        told = SimpleNamespace(model=judge[0], reference=judge[1])
        assert prime_transformer._auc(told, model, TASK, SEED, 0) == expected


def test_a_cell_depends_on_settings_and_seed_alone(every_arm):
    make_start.cache_clear()
    assert cell({**ARMS[AFTER], **STUDY.fast}, SEED).metrics == every_arm[AFTER].metrics
