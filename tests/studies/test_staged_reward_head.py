"""The study staged-reward-head: stages and measures by hand, and that arms run and meet the same rollouts."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from reckon.studies import load_study
from reckon.studies._implicit_prm_texts import uneven_solution
from reckon.studies._staged_rollouts import by_chance, measured, stage
from reckon.tasks import ChainArithmetic
from reckon.types import Problem, Rng


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("2,3,4,5,6,7", 3),  # 1+1, +1, ...: right in every step
        ("2,3,4,5,6,8", 2),  # five of six
        ("2,3,4,5,0,1", 2),  # the first four: two thirds
        ("2,3,4,0,1,2", 1),
        ("2,3,0,1,2,3", 1),  # the first two: a third
        ("2,0,1,2,3,4", 0),
        ("0,1,2,3,4,5", 0),
        ("2,3,4,5,6,7,8", 2),  # one too many
        ("2,3,4,5,6", 2),  # one too few
        ("", 0),
        ("a,b", 0),
    ],
)
def test_stages_by_hand(text, reached):
    task = ChainArithmetic(operations=6, train=1, dev=1, test=1)
    assert stage(task, Problem(id="0", prompt="1+1+1+1+1+1+1="), text) == reached


def test_measures_by_hand():
    """Two prompts of 16 responses; one right response in all, which has the highest score of its prompt."""
    right = np.zeros(32)
    right[3] = 1.0
    written = SimpleNamespace(right=right, stages=np.array([0] * 31 + [3]))
    scores = np.full(32, -4.0)
    scores[3] = 0.0
    found = measured(scores, written)
    assert found["best/16"] == 0.5
    assert found["auc"] == 1.0
    assert found["right"] == pytest.approx(100 / 32)
    assert found["oracle"] == 0.5
    low = 1 / (1 + math.exp(4))
    plain = (31 * (1 / 32) ** 2 + (31 / 32) ** 2) / 32
    assert found["skill"] == pytest.approx(100 * (1 - (31 * low**2 + 0.25) / 32 / plain))
    assert found["log loss"] == pytest.approx(-(31 * math.log(1 - low) + math.log(0.5)) / 32)


def test_large_digits_err_more():
    """error 0.5: a 1 errs with 0.1 and a 9 with 0.9; a wrong step is gone on from."""
    problem = Problem(id="0", prompt="0+1+9=")
    texts = [uneven_solution(problem, 0.5, Rng((3, i))) for i in range(2000)]
    first = [text[0] != "1" for text in texts]
    second = [int(text[2]) != (int(text[0]) + 9) % 10 for text in texts]
    assert np.mean(first) == pytest.approx(0.1, abs=0.03)
    assert np.mean(second) == pytest.approx(0.9, abs=0.03)
    assert {len(text) for text in texts} == {3}
    assert uneven_solution(problem, 0.0, Rng((3,))) == "1,0"


def test_the_chance_of_a_prompt_ranks_by_its_added_digits():
    """0.9 * 0.1, then 0.5 * 0.5, then 0.9 * 0.9: the first digit is not added."""
    prompts = ["9+1+9=", "1+5+5=", "5+1+1="]
    rollouts = SimpleNamespace(problem=lambda row: Problem(id=str(row), prompt=prompts[row]))
    written = SimpleNamespace(test=SimpleNamespace(rollouts=rollouts), right=np.array([0.0, 1.0, 0.0]))
    assert by_chance(written, 0.5) == 0.5
    written.right = np.array([0.0, 0.0, 1.0])
    assert by_chance(written, 0.5) == 1.0


@pytest.mark.parametrize("world", ["", ", uneven"])
def test_arms_meet_the_same_rollouts(world):
    study = load_study("staged-reward-head")
    staged, share = (
        study.cell({**study.arms[arm + world], **study.fast}, 0).metrics
        for arm in ("staged head, policy frozen", "share of right responses")
    )
    assert share["skill"] == pytest.approx(0.0, abs=1e-9)
    assert share["auc"] == 0.5
    assert staged["log loss"] != share["log loss"]
    for name in ("right", "oracle", "learned"):
        assert staged[name] == share[name]
    assert all(math.isfinite(value) for value in staged.values())
