"""What parts spend: every second and token once, and nothing kept where nobody asks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from reckon import costs
from reckon.costs import Ledger, computed, spending
from reckon.methods import rloo
from reckon.models import Sampling, load_model
from reckon.rewards import OutcomeModel, Sum, Verifier
from reckon.runs import Run
from reckon.tasks import ChainArithmetic
from reckon.train import Plan, train
from reckon.types import Stream


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: `clock(2)` lets two seconds pass."""
    now = [100.0]
    monkeypatch.setattr(costs.time, "perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_what_is_nested_is_counted_once(clock):
    with Ledger() as ledger:
        clock(5)  # nobody's
        with spending("sample"):
            clock(2)
            computed(100)
            with spending("verify"):
                clock(3)
            clock(1)
            computed(10)
        with spending("reward"), spending("reward/judge"):
            clock(4)
            computed(7)
        computed(1000)  # nobody's
    assert ledger.metrics() == {
        "time/sample": 3.0,
        "time/verify": 3.0,
        "time/reward": 0.0,
        "time/reward/judge": 4.0,
        "computed/sample": 110.0,
        "computed/reward/judge": 7.0,
    }


def test_time_adds_up_over_calls_and_survives_an_error(clock):
    def fails():
        with spending("update"):
            clock(2)
            raise ValueError("no")

    with Ledger() as ledger:
        for _ in range(3):
            with spending("update"):
                clock(1)
        with pytest.raises(ValueError, match="no"):
            fails()
        with spending("sample"):
            clock(1)
    assert ledger.metrics() == {"time/update": 5.0, "time/sample": 1.0}


def test_an_inner_ledger_hides_from_the_outer_one_and_none_keeps_nothing(clock):
    with spending("sample"):  # no ledger is open
        computed(5)
    with Ledger() as outer, spending("update"):
        with Ledger() as inner, spending("judge"):
            clock(1)
            computed(3)
        computed(4)
    assert inner.metrics() == {"time/judge": 1.0, "computed/judge": 3.0}
    assert outer.metrics() == {"time/update": 1.0, "computed/update": 4.0}


class Opinion:
    """A reward that reports something about itself."""

    def score(self, batch):
        return {"opinion": Stream(values=torch.zeros(len(batch.seq.tokens)))}

    def metrics(self):
        return {"loss": 0.5}


def test_every_part_of_a_step_is_charged_and_reports(tmp_path):
    """A run of the loop: the judge that reads a model is charged its tokens, and what parts report is logged."""
    task = ChainArithmetic(operations=2, train=8, dev=1, test=1)
    policy = load_model("tiny", sampling=Sampling(max_new_tokens=4))
    judge = load_model("tiny", sampling=Sampling(max_new_tokens=4), value_head=True)
    parts = rloo(task)
    reward = Sum({"correct": Verifier(), "judge": OutcomeModel(judge), "opinion": Opinion()})
    with Run.create(tmp_path / "run", recipe={}) as run:
        train(policy, task, replace(parts, reward=reward), run, Plan(steps=2, prompts=2, answers=2, show="nothing"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        stages = ("sample", "verify", "reward", "reward/correct", "reward/judge", "advantage", "update")
        assert all(line[f"time/{stage}"] >= 0 for stage in stages)
        assert sum(line[f"time/{stage}"] for stage in stages) < line["seconds"]
        prompts = 2 * len(task.problems("train")[0].prompt)  # one character is one token
        assert line["computed/reward/judge"] >= prompts + line["tokens/generated"]
        assert line["computed/sample"] > prompts
        assert "computed/reward/correct" not in line
        assert line["reward/opinion/loss"] == 0.5
