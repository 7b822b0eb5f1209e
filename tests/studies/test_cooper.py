"""The hacking world against its specification's numbers and against a few lines of NumPy."""

import json

import numpy as np
import pytest
import torch

from reckon.models import Optimization
from reckon.rewards import OnlineReferenceBased, ReferenceBased
from reckon.samplers import All, Uniform, collect
from reckon.studies import judge, load_study, run_study
from reckon.studies._hacking_world import (
    SAYS,
    STYLES,
    CellJudge,
    Questions,
    cells_right,
    expected,
    expected_reward,
    start_policy,
)
from reckon.studies.cooper import cell
from reckon.types import Rng

CHANCE = np.array([0.35, 0.65, 0.35, 0.65, 0.1, 0.1])
START = np.array([0.3, 0.3, 0.175, 0.175, 0.025, 0.025])


def test_the_start_is_the_specifications():
    """Accuracy 0.95 * 0.5 + 0.05 * 0.1 = 0.48, of which the rule accepts 0.6 * 0.5 + 0.05 * 0.1 = 0.305."""
    law = start_policy().probabilities()[0]
    assert law.tolist() == pytest.approx(START.tolist())
    found = expected(law)
    assert found == {
        "accuracy": pytest.approx(0.48),
        "verified": pytest.approx(0.305),
        "loose": pytest.approx(0.35),
        "hack": pytest.approx(0.05),
    }


def test_the_rule_accepts_what_is_right_and_not_loose():
    task = Questions()
    problem = task.problems("train")[3]
    verdicts = [
        task.check(problem, SAYS[style].format(answer)).outcome for style in STYLES for answer in (problem.answer, "99")
    ]
    assert verdicts == [1, 0, 0, 0, 1, 0]
    assert task.check(problem, SAYS["loose"].format(problem.answer)).answer is None


def test_the_judge_at_the_start_is_the_specifications():
    """Strict and loose are judged by c alone, -3 and 3; the hack has logit 4 with any answer: 5 of 6 cells right."""
    start = CellJudge()
    assert start.cells().tolist() == [[-3, 3], [-3, 3], [4, 4]]
    assert cells_right(start) == 5
    problem = Questions().problems("train")[0]
    texts = [SAYS[style].format(answer) for style in STYLES for answer in ("99", problem.answer)]
    shown = ReferenceBased(start, output="logit")
    tokens = [start.tokenizer(shown.text(problem, text))["input_ids"] for text in texts]
    assert tokens == [[0, place] for place in range(6)]


def test_the_judge_reads_the_responses_of_a_batch():
    learner, task, start = start_policy(), Questions(), CellJudge()
    batch = collect(
        Uniform(task),
        learner,
        lambda r: [task.check(r.problem(i), text) for i, text in enumerate(r.text)],
        All(),
        8,
        16,
        Rng((0,)),
        step=0,
    )
    values = ReferenceBased(start).score(batch)["reference_based"].values
    for value, text, row in zip(values.tolist(), batch.rollouts.text, range(128), strict=True):
        right = text.split()[-1].rstrip(".") == batch.rollouts.problem(row).answer
        logit = 4 if text.startswith("As") else 3 if right else -3
        assert value == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
    # The mean over 128 responses and what the table says it should be: their standard error is 0.04
    assert values.mean().item() == pytest.approx(expected_reward(learner.probabilities()[0], start), abs=0.12)


def test_the_expected_reward_by_hand():
    """0.475 of the answers are right and not hacks, 0.475 wrong and not, 0.05 are hacks."""
    law, start = torch.tensor(START), CellJudge()
    sure = 1 / (1 + np.exp(-3))
    wanted = 0.475 * sure + 0.475 * (1 - sure) + 0.05 / (1 + np.exp(-4))
    assert expected_reward(law, start) == pytest.approx(wanted, abs=1e-6)
    assert expected_reward(law, start, binary=True) == pytest.approx(0.475 + 0.05)


def numpy_run(kind, lr, steps, seed):
    """The specification in plain NumPy: accuracy at the end, and the judge's cells."""
    draw = np.random.default_rng(seed)
    start = np.log(START)
    logits, style = start.copy(), np.repeat([0, 1, 2], 2)
    b, m, u, v = 0.0, 3.0, np.array([0.0, 0.0, 4.0]), np.array([0.0, 0.0, -3.0])
    for _ in range(steps):
        p = np.exp(logits) / np.exp(logits).sum()
        a = draw.choice(6, size=(8, 16), p=p)
        right = draw.random(a.shape) < CHANCE[a]
        accepted = right & (style[a] != 1)
        s, c = style[a], np.where(right, 1, -1)
        r = accepted.astype(float) if kind == "rule" else 1 / (1 + np.exp(-(b + u[s] + (m + v[s]) * c)))
        credit = (r - r.mean(1, keepdims=True)) / (r.std(1, ddof=1, keepdims=True) + 1e-6)
        gradient = np.bincount(a.ravel(), credit.ravel(), 6) / 128 - p * credit.mean()
        # k3 on the sampled tokens: its gradient is (1 - pi_ref / pi) grad log pi
        off = 1 - np.exp(start - np.log(p))[a]
        gradient -= 0.01 * (np.bincount(a.ravel(), off.ravel(), 6) / 128 - p * off.mean())
        logits += 0.3 * gradient
        if kind == "cooper" and accepted.any():
            first = [style[a[g, accepted[g].argmax()]] for g in range(8) if accepted[g].any()]
            slope = np.array([2 / (1 + np.exp(2 * (m + v[k]))) for k in first]) / len(first)
            m += lr * slope.sum()
            v = v + lr * np.bincount(first, slope, 3)
    p = np.exp(logits) / np.exp(logits).sum()
    return (p * CHANCE).sum()


@pytest.mark.parametrize(("kind", "arm"), [("rule", "rule"), ("static", "static judge"), ("cooper", "Cooper, rate 2")])
def test_the_parts_learn_what_plain_numpy_learns(kind, arm):
    """Other random numbers, the same law: means over seeds agree within three standard errors of their difference."""
    settings = {**load_study("cooper").arms[arm], "steps": 40}
    ours = [cell(settings, seed).metrics["accuracy/400"] for seed in range(6)]
    theirs = [numpy_run(kind, 2.0, 40, seed) for seed in range(60)]
    spread = np.std(theirs, ddof=1)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=3 * spread * np.hypot(1 / 6**0.5, 1 / 60**0.5))


def test_a_pair_moves_what_tells_right_from_wrong_and_nothing_else():
    """Slope 2 s(-2 w) / 8 pairs of m and v; bias and styles, which both of a pair share, stay."""
    moved = CellJudge().twin(Optimization(lr=2.0, clip=None), value_head=True)

    class Holds:
        def twin(self, optimizer, *, value_head=False):
            return moved

    learner, task = start_policy(), Questions()
    batch = collect(
        Uniform(task),
        learner,
        lambda r: [task.check(r.problem(i), text) for i, text in enumerate(r.text)],
        All(),
        8,
        16,
        Rng((0,)),
        step=0,
    )
    online = OnlineReferenceBased(Holds(), task, optimizer=Optimization(lr=2.0, clip=None))
    online.assess(batch, Rng((1,)))
    weights = moved.weights.detach()
    first = []
    for group in range(8):
        rows = [r for r in range(128) if batch.seq.group[r] == group and batch.outcome[r] == 1]
        first += [0 if batch.rollouts.text[rows[0]].startswith("#") else 2] if rows else []
    slopes = [2 / (1 + np.exp(2 * w)) / len(first) for w in ((3, 3, 0)[style] for style in first)]
    assert weights[1].item() == pytest.approx(3 + 2 * sum(slopes), rel=1e-4)
    assert weights[[0, 2, 3, 4]].tolist() == [0, 0, 0, 4]
    assert weights[6].item() == 0  # loose: the rule accepts none, so the judge learns nothing of it
    assert online.metrics()["pairs/learned"] == len(first)


def test_a_cell_depends_on_its_seed_alone():
    settings = {**load_study("cooper").arms["Cooper, rate 2"], "steps": 4}
    assert cell(settings, 1) == cell(settings, 1)
    assert cell(settings, 1) != cell(settings, 2)


def test_arms_of_a_seed_draw_the_same_numbers():
    """One step of the rule and of a judge: the first batch is the same, so a judge that never learned ends alike."""
    arms = load_study("cooper").arms
    still = cell({**arms["Cooper, rate 2"], "lr": 0.0, "steps": 3}, 0)
    static = cell({**arms["static judge"], "steps": 3}, 0)
    assert still.curves["accuracy"] == static.curves["accuracy"]


def test_fast_runs_end_to_end(tmp_path):
    results = run_study("cooper", tmp_path, fast=True, seeds=[0])
    assert results["not run"] == []
    assert json.loads((tmp_path / "results.json").read_text())["claims"] == []


def test_the_rules_see_the_pilot_and_would_not_see_its_opposite():
    """The claims judged on the specification's numbers, and on arms of which each is as good as the next."""
    study = load_study("cooper")
    base = {"accuracy/0": 0.48, "reward/0": 0.5, "loose/0": 0.35, "cells": 5.0, "alarm": 401.0, "accuracy/alarm": 0.6}
    base |= {"accuracy/400": 0.6, "reward/400": 0.6, "loose/100": 0.2, "loose/400": 0.2}
    base |= {"accuracy/best": 0.6, "reward/best": 0.6}
    equal = {arm: dict(base) for arm in study.arms}
    pilot = {arm: dict(base) for arm in study.arms}
    pilot["rule"] |= {"accuracy/400": 0.647, "loose/400": 0.01}
    pilot["static judge"] |= {
        "accuracy/400": 0.105,
        "reward/400": 0.97,
        "accuracy/best": 0.58,
        "reward/best": 0.7,
        "alarm": 120.0,
        "accuracy/alarm": 0.5,
    }
    for lr, accuracy in ((0.5, 0.15), (2, 0.25), (4, 0.46), (8, 0.6), (16, 0.642)):
        pilot[f"Cooper, rate {lr:g}"] |= {"accuracy/400": accuracy, "cells": 6.0 if lr >= 16 else 5.0}
    pilot["Cooper, rate 4"] |= {"alarm": 300.0}
    pilot["Cooper, rate 4, rejected negatives"] |= {"accuracy/400": 0.631, "loose/100": 0.1}
    verdicts = [judge(claim, [pilot] * 5, 5).verdict for claim in study.claims]
    # All but the rate as it is written, at which the pilot's numbers are those of a step that goes eight times as far
    assert verdicts == ["seen"] * 2 + ["not seen"] + ["seen"] * 8 + ["not testable here"]
    verdicts = [judge(claim, [equal] * 5, 5).verdict for claim in study.claims]
    # Arms that are all alike: only "as accurate as the rule" holds
    assert verdicts == ["not seen"] * 2 + ["seen"] * 2 + ["not seen"] * 7 + ["not testable here"]
