"""The study staged-reward-head: stages and measures by hand, and that arms run and meet the same rollouts."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from reckon.studies import load_study
from reckon.studies._staged_rollouts import measured, stage
from reckon.tasks import ChainArithmetic
from reckon.types import Problem


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


def test_arms_meet_the_same_rollouts():
    study = load_study("staged-reward-head")
    staged, share = (
        study.cell({**study.arms[arm], **study.fast}, 0).metrics
        for arm in ("staged head, policy frozen", "share of right responses")
    )
    assert share["skill"] == pytest.approx(0.0, abs=1e-9)
    assert share["auc"] == 0.5
    assert staged["log loss"] != share["log loss"]
    for name in ("right", "oracle", "learned"):
        assert staged[name] == share[name]
    assert all(math.isfinite(value) for value in staged.values())
