"""The simulator against its specification's numbers and against a few lines of NumPy."""

import json

import numpy as np
import pytest
import torch

from reckon.studies import load_study, run_study
from reckon.studies.surrogate_rewards import ABILITY, LENGTHS, START, Numbers, cell, policy, reward
from reckon.types import Batch, End, Rng

X = np.array(LENGTHS) / 100


def test_the_start_is_the_specifications():
    """70% formatted, accuracy 0.332; by hand .82 (1 - .15) = .697 and .82 * .4046 = .331772."""
    law = policy().probabilities()[0].numpy()
    weights = np.array(START) / sum(START)
    assert law[8:] == pytest.approx(0.82 * weights)
    assert law[8:15].sum() == pytest.approx(0.697)
    assert (law[8:] * ABILITY).sum() == pytest.approx(0.332, abs=5e-4)
    assert cell({"reward": "format", "p": 0.5, "steps": 0}, 0).metrics["accuracy/0"] == pytest.approx(
        0.331772, abs=1e-6
    )


def batch_of_every_action(right):
    """One response of each action: 8 without a box, 8 with; `right` decides whether they found the answer."""
    learner, problem = policy(), Numbers().problems("train")[0]
    every = type(learner)(
        [type(a)(text=a.text(problem, 0.0 if right else 0.99), length=a.length, end=a.end) for a in learner.actions],
        learner.logits.detach()[0],
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
    )
    rollouts = every.sample([problem], 4000, Rng((0,)))
    first = torch.tensor([int((rollouts.seq.tokens[:, 0] == a).nonzero()[0]) for a in range(16)])
    rollouts = rollouts.take(first.sort().values)
    outcome = torch.tensor([Numbers().check(problem, text).outcome for text in rollouts.text])
    return Batch.given(rollouts, outcome, train=True), rollouts.seq.tokens[:, 0].argsort()


@pytest.mark.parametrize(
    ("kind", "boxed", "bare"),
    [
        # f at x = .03 .1 .2 .3 .45 .6 .8 1 with p = .5: .1164 .36 .64 .84 .99 .92 .28 -1
        (
            "format-length",
            [0.6164, 0.86, 1.14, 1.34, 1.49, 1.42, 0.78, -1.0],  # at x = 1 it is cut off, so not well-formed
            [0, 0, 0, 0, 0, 0, 0, -1.0],
        ),
        (
            "length",
            [0.1164, 0.36, 0.64, 0.84, 0.99, 0.92, 0.28, -1.0],
            [0.1164, 0.36, 0.64, 0.84, 0.99, 0.92, 0.28, -1.0],
        ),
        ("format", [0.5] * 7 + [0], [0] * 8),
        ("correctness", [1] * 7 + [0], [0] * 8),  # cut off, no action is ever right
        ("correctness+linear", (np.array([1] * 7 + [0]) + X).tolist(), X.tolist()),
        ("format+linear", (0.5 * np.array([1] * 7 + [0]) + X).tolist(), X.tolist()),
    ],
)
def test_what_every_action_earns(kind, boxed, bare):
    batch, order = batch_of_every_action(right=True)
    streams = reward(kind, 0.5).score(batch)
    earned = sum(stream.values for stream in streams.values())[order]
    assert earned.tolist() == pytest.approx([*bare, *boxed], abs=1e-6)


def test_a_wrong_answer_earns_nothing_from_correctness():
    batch, _ = batch_of_every_action(right=False)
    assert reward("correctness", 0.5).score(batch)["correct"].values.tolist() == [0.0] * 16


def test_only_the_longest_is_cut_off():
    ends = [action.end for action in policy().actions]
    assert [end == End.LENGTH for end in ends] == ([False] * 7 + [True]) * 2


def numpy_accuracy(kind, steps, seed):
    """GRPO on the 16 logits as the specification tells it, in plain NumPy, with the exact KL."""
    boxed, x, ability = np.repeat([0, 1], 8), np.tile(X, 2), np.tile(ABILITY, 2)
    formatted = boxed * (x < 1)
    start = np.log(np.repeat([0.18, 0.82], 8) * np.tile(START, 2))
    logits, draw = start.copy(), np.random.default_rng(seed)
    for _ in range(steps):
        p = np.exp(logits) / np.exp(logits).sum()
        a = draw.choice(16, size=(16, 8), p=p)
        right = draw.random(a.shape) < (ability * formatted)[a]
        f = np.where(x <= 0.5, 1 - (1 - x / 0.5) ** 2, 1 - 2 * ((x - 0.5) / 0.5) ** 2)
        r = {
            "correctness": right.astype(float),
            "format-length": np.where(formatted, 0.5 + f, np.minimum(0, f))[a],
        }[kind]
        credit = (r - r.mean(1, keepdims=True)) / (r.std(1, ddof=1, keepdims=True) + 1e-6)
        gradient = np.bincount(a.ravel(), credit.ravel(), 16) / 128 - p * credit.mean()
        distance = np.log(p) - (start - np.log(np.exp(start).sum()))
        logits += 0.5 * (gradient - 0.001 * p * (distance - (p * distance).sum()))
    p = np.exp(logits) / np.exp(logits).sum()
    return (p * formatted * ability).sum()


@pytest.mark.parametrize("kind", ["correctness", "format-length"])
def test_the_parts_learn_what_plain_numpy_learns(kind):
    """Other random numbers, the same law: means over seeds agree within three standard errors of their difference."""
    ours = [cell({"reward": kind, "p": 0.5, "steps": 20}, seed).metrics["accuracy/150"] for seed in range(4)]
    theirs = [numpy_accuracy(kind, 20, seed) for seed in range(64)]
    error = np.hypot(np.std(theirs, ddof=1) / 2, np.std(theirs, ddof=1) / 8)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=3 * error)


def test_a_cell_depends_on_its_seed_alone():
    settings = {"reward": "format-length", "p": 0.5, "steps": 4}
    assert cell(settings, 1) == cell(settings, 1)
    assert cell(settings, 1) != cell(settings, 2)


def test_fast_runs_end_to_end(tmp_path):
    results = run_study("surrogate-rewards", tmp_path, fast=True, seeds=[0])
    assert results["not run"] == []
    assert len(list((tmp_path / "cells").iterdir())) == 9
    assert json.loads((tmp_path / "results.json").read_text())["claims"] == []


def test_the_rules_see_the_pilot_and_would_not_see_its_opposite():
    """The claims judged on the pilot's own table, and on one in which every arm is as good as the next."""
    from reckon.studies import judge

    study = load_study("surrogate-rewards")
    pilot = {arm: {"accuracy/0": 0.332, "accuracy/low": 0.32} for arm in study.arms}
    for row in study.rows:
        pilot[row.arm][row.metric] = float(row.pilot) if row.pilot else np.nan
    verdicts = [judge(claim, [pilot] * 5, 5).verdict for claim in study.claims]
    assert verdicts == ["seen"] * 6 + ["not testable here"]
    equal = {arm: dict(pilot["correctness"], **{"accuracy/low": 0.332}) for arm in study.arms}
    verdicts = [judge(claim, [equal] * 5, 5).verdict for claim in study.claims]
    assert verdicts == ["not seen"] * 6 + ["not testable here"]
