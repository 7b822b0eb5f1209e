"""The study novelty-transformer: its sums and slips by hand, what is measured, what its arms' recipes say."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from reckon.errors import InputError
from reckon.recipe import Recipe
from reckon.rewards import EpisodicCount, GlobalCount
from reckon.studies import _carry_sums as sums
from reckon.studies import run_study
from reckon.studies.novelty_transformer import (
    ARMS,
    BONUSES,
    CLAIMS,
    FEW,
    METRICS,
    OUTCOME,
    PROMPTS,
    STEPS,
    STUDY,
    WEIGHT,
    WORLDS,
    behind,
    fades,
    recipe,
)
from reckon.types import Problem, Rng

KIND = f"{sums.__file__}:CarrySums"


@pytest.fixture(scope="module")
def task():
    return sums.CarrySums(seed=4)


@pytest.mark.parametrize(
    ("a", "b", "answer", "forgotten"),
    [
        (47, 85, "231", "221"),  # 132; 12 and 2
        (47, 25, "270", "260"),  # 72; 6 and 2
        (95, 15, "011", "001"),  # 110; 10 and 0
        (48, 52, "001", "090"),  # 100; 9 and 0: two digits are wrong
    ],
)
def test_sums_by_hand(task, a, b, answer, forgotten):
    problems = {problem.id: problem for split in ("train", "dev", "test") for problem in task.problems(split)}
    problem = problems[f"{a}+{b}"]
    assert (problem.prompt, problem.answer) == (f"{a}+{b}=", answer)
    assert sums.without_carry(problem) == forgotten
    assert sums.slipped(problem, 0.0, Rng((0,))) == forgotten
    assert task.check(problem, answer).outcome == 1
    wrong = task.check(problem, forgotten)
    assert (wrong.outcome, wrong.answer, wrong.reason) == (0, forgotten, "wrong")


@pytest.mark.parametrize("text", ["", "23", "2310", "23x", " 231", "231."])
def test_what_is_no_answer(task, text):
    verdict = task.check(task.problems("train")[0], text)
    assert (verdict.outcome, verdict.answer, verdict.reason) == (0, None, "no answer")


def test_forgetting_the_carry_is_always_wrong(task):
    problems = [problem for split in ("train", "dev", "test") for problem in task.problems(split)]
    assert len(problems) == len({problem.id for problem in problems}) == 3645  # 81 times 45
    assert all(sums.without_carry(problem) != problem.answer for problem in problems)
    assert [len(task.problems(split)) for split in ("train", "dev", "test")] == [3389, 128, 128]


def test_templates_are_the_first_of_all(task):
    few = sums.CarrySums(seed=4, templates=8)
    assert list(few.problems("train")) == list(task.problems("train"))[:8]
    assert list(few.problems("test")) == list(task.problems("test"))
    assert len(task.problems("train")) >= STEPS * PROMPTS  # so that none comes twice


def test_a_secret_is_one_problems_own(task):
    """The second digit of the sum without its carry, raised by 1 to 9; nine secrets are nearly equally frequent."""
    secret = sums.CarrySums(seed=4, rule="secret")
    raised = []
    for problem, plain in zip(secret.problems("train"), task.problems("train"), strict=True):
        assert problem.prompt == plain.prompt
        forgotten = sums.without_carry(problem)
        assert (problem.answer[0], problem.answer[2]) == (forgotten[0], forgotten[2])
        raised.append((int(problem.answer[1]) - int(forgotten[1])) % 10)
    share = np.bincount(raised, minlength=10) / len(raised)
    assert share[0] == 0
    assert share[1:] == pytest.approx(np.full(9, 1 / 9), abs=4 * math.sqrt(8 / 81 / 3389))
    few = sums.CarrySums(seed=4, templates=8, rule="secret")
    assert list(few.problems("train")) == list(secret.problems("train"))[:8]
    other = [problem.answer for problem in sums.CarrySums(seed=5, rule="secret").problems("train")]
    assert other != [problem.answer for problem in secret.problems("train")]


@pytest.mark.parametrize("templates", [-1, 3390])
def test_templates_that_there_are_not(templates):
    with pytest.raises(InputError, match=f"`templates` is {templates}; it must be 0 for all, or 1 to 3389"):
        sums.CarrySums(templates=templates)
    with pytest.raises(InputError, match="`rule` is 'none'; it must be carry or secret"):
        sums.CarrySums(rule="none")


def test_slips_are_as_frequent_as_they_should_be(task):
    """A digit is another with 9/10 of the probability that it is drawn anew."""
    problems = task.problems("train")[:1000]
    differ = [
        a != b
        for i, problem in enumerate(problems)
        for a, b in zip(sums.slipped(problem, 0.5, Rng((i,))), sums.without_carry(problem), strict=True)
    ]
    assert np.mean(differ) == pytest.approx(0.45, abs=4 * math.sqrt(0.25 / 3000))


def answering(*texts):
    """A policy that gives 8 times each of four texts to every problem."""

    def sample(problems, k, rng):
        assert k == 32
        return SimpleNamespace(text=[text for _ in problems for text in texts for _ in range(8)])

    return SimpleNamespace(sample=sample)


def test_what_is_measured_by_hand(task):
    """8 of 32 are right: pass@1 is 1/4, and 24 are wrong. A group of 16 has two answers, the other one."""
    problem = Problem(id="47+85", prompt="47+85=", answer="231")
    found = sums.measure(answering("231", "221", "000", "?"), task, [problem])
    assert found["pass@1"] == pytest.approx(1 / 4)
    assert found["pass@16"] == pytest.approx(1 - math.comb(24, 16) / math.comb(32, 16))
    assert found["pass@32"] == 1
    assert found["different answers"] == pytest.approx(3 / 2)
    assert sums.measure(answering("221", "000", "1", "?"), task, [problem])["pass@32"] == 0


def parsed_recipe(arm):
    return Recipe.parse(json.dumps({"model": "tiny", **recipe(ARMS[arm], KIND, 4)}))


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_grpo_and_its_bonus(arm):
    """Arms of a world differ in the bonus alone; what is counted is the checker's answer, for its own problem."""
    parsed = parsed_recipe(arm)
    bonus, world = arm.split(", ", 1)
    templates, rule = WORLDS[world]
    posed = sums.CarrySums(seed=4, templates=templates, rule=rule).problems("train")
    assert list(parsed.made_task.problems("train")) == list(posed)
    wanted = {"no bonus": (), "in the run": (GlobalCount,), "in the group": (EpisodicCount,)}
    kinds = wanted.get(bonus, (EpisodicCount, GlobalCount))
    assert set(parsed.reward) == ({"correct", "bonus"} if kinds else {"correct"})
    if kinds:
        parts = parsed.reward["bonus"].part.settings["parts"]
        assert [part.target for part in parts.values()] == list(kinds)
        assert parsed.reward["bonus"].weight == WEIGHT[bonus]
    plain = parsed_recipe(f"no bonus, {world}")
    assert parsed.resolved() | {"reward": None} == plain.resolved() | {"reward": None}


def numbers():
    return {arm: dict.fromkeys(METRICS, 0.5) for arm in ARMS}


def test_how_far_the_product_is_behind_by_hand():
    found = numbers()
    for bonus, value in zip(BONUSES, (0.9, 0.3, 0.6, 0.55), strict=True):
        found[f"{bonus}, {FEW}"]["pass@16, posed"] = value
    assert behind(found, FEW, "pass@16, posed") == pytest.approx(-0.05)  # beside 0.6, whatever no bonus reaches


def test_what_fades_by_hand():
    found = numbers()
    found["in the run, 8 templates"][OUTCOME] = 0.8
    found["in the run, no repeats"][OUTCOME] = 0.6
    assert fades(found) == pytest.approx(0.3 - 0.1)


def test_every_claim_and_row_reads_what_there_is():
    for claim in CLAIMS:
        assert all(math.isfinite(effect.of(numbers())) for effect in claim.effects)
    names = {*METRICS, *(f"{metric}, at first" for metric in METRICS)}
    assert all(row.metric in names for row in STUDY.rows)
    assert len(ARMS) == len(BONUSES) * len(WORLDS)


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """A `--fast` run of one seed, and what its cells found by arm."""
    folder = tmp_path_factory.mktemp("fast")
    results = run_study("novelty-transformer", folder, fast=True, seeds=[0])
    cells = [json.loads(path.read_text()) for path in (folder / "cells").iterdir()]
    return results, {cell["arm"]: cell["metrics"] for cell in cells}


def test_fast_runs_every_line(fast):
    assert all(set(STUDY.fast) <= set(arm) for arm in ARMS.values())
    assert not fast[0]["not run"]
    assert set(fast[1]) == set(ARMS)
    wanted = {*METRICS, *(f"{metric}, at first" for metric in METRICS if metric != OUTCOME)}
    assert all(set(metrics) == wanted for metrics in fast[1].values())


def test_arms_begin_as_one(fast):
    """Also with other templates and rules: what is asked that was not posed is the same, and so are the answers."""
    name = "different answers, held out, at first"
    assert len({metrics[name] for metrics in fast[1].values()}) == 1
