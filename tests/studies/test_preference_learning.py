"""The exact world of E1 against NumPy, SciPy and numbers worked out by hand."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from reckon.studies import load_study, run_study
from reckon.studies.preference_learning import (
    ARMS,
    BETA,
    REFERENCE,
    REWARD,
    SIZES,
    Question,
    best_of_n,
    cell,
    drawn_shares,
    ipo_optimum,
    law_of_the_best,
    optimum,
    pair_loss,
    policy,
    population_shares,
    ppo_parts,
    state,
)
from reckon.types import Outputs


def test_the_optimum_is_the_specifications():
    assert optimum() == pytest.approx([0.918672, 0.074597, 0.006730], abs=1e-6)
    found = state(optimum())
    assert found["value"] == pytest.approx(0.695839, abs=1e-6)
    assert found["value"] == pytest.approx(BETA * math.log(np.dot(REFERENCE, np.exp(np.array(REWARD) / BETA))))
    assert found["distance"] == 0
    assert state(REFERENCE)["kl"] == 0
    assert state(REFERENCE)["value"] == pytest.approx(0.3)


def test_nothing_on_a_grid_of_policies_is_worth_more():
    grid = [(a, b, 1 - a - b) for a, b in product(np.linspace(0.001, 0.998, 200), repeat=2) if a + b < 1]
    assert max(state(law)["value"] for law in grid) < 0.69584


def losses(arm, seed=0):
    """The loss of an arm as a function of two log-ratio differences, by torch, and of the same by hand."""
    loss = pair_loss(ARMS[arm], seed)
    ref = torch.tensor(REFERENCE, dtype=torch.float64).log()

    def of(x):
        law = torch.tensor(np.append(x, 0.0)).add(ref).log_softmax(0)
        return float(loss(Outputs(logprobs=law[:, None]), {"ref_logprobs": ref}).sum())

    return of


def by_hand(x, kind, smoothing=0.0):
    """The population loss from its formula, pair by pair."""
    d, total = np.append(x, 0.0), 0.0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        p = 1 / (1 + math.exp(REWARD[j] - REWARD[i]))
        for share, h in ((p, d[i] - d[j]), (1 - p, d[j] - d[i])):
            if kind == "ipo":
                total += share * (h - 1 / (2 * BETA)) ** 2
            else:
                right, wrong = (np.logaddexp(0, -sign * BETA * h) for sign in (1, -1))
                total += share * ((1 - smoothing) * right + smoothing * wrong)
    return total / 3


KINDS = {"DPO": ("dpo", 0.0), "cDPO, smoothing 0.1": ("dpo", 0.1), "IPO": ("ipo", 0.0)}


@pytest.mark.parametrize("arm", KINDS)
def test_the_population_losses_are_their_formulas(arm):
    for x in ([0.0, 0.0], [3.0, 1.0], [-2.0, 0.5]):
        assert losses(arm)(np.array(x)) == pytest.approx(by_hand(x, *KINDS[arm]), rel=1e-6)


@pytest.mark.parametrize("arm", KINDS)
def test_descent_ends_where_an_optimizer_of_another_house_does(arm):
    least = minimize(by_hand, np.zeros(2), args=KINDS[arm], tol=1e-12).x
    weights = np.array(REFERENCE) * np.exp(np.append(least, 0.0))
    wanted = weights / weights.sum()
    found = cell(ARMS[arm], 0).metrics
    assert [found[f"p/{text}"] for text in ("good", "fair", "poor")] == pytest.approx(wanted, abs=1e-3)
    if arm == "DPO":
        assert wanted == pytest.approx(optimum(), abs=1e-4)
    if arm == "IPO":
        assert wanted == pytest.approx(ipo_optimum(), abs=1e-4)


def test_reward_maximization_reaches_the_optimum():
    found = cell(ARMS["reward maximization"], 0)
    assert found.metrics["distance"] < 1e-3
    assert found.metrics["value"] == pytest.approx(0.695839, abs=1e-4)
    assert (np.diff(found.curves["value"]) > -1e-6).all()


def test_pairs_are_drawn_as_often_as_the_law_of_bradley_and_terry_says():
    assert sum(population_shares().values()) == pytest.approx(1)
    assert population_shares()[0, 2] == pytest.approx(1 / 3 / (1 + math.exp(-2)))
    shares = [drawn_shares(seed) for seed in range(20)]
    for pair, p in population_shares().items():
        assert np.mean([share[pair] for share in shares]) == pytest.approx(p, abs=4 * math.sqrt(p / 40_000))
    assert shares[0] == drawn_shares(0) != shares[1]


def test_the_verdict_comes_back_as_the_reward():
    """Outcomes 1, 1/2, 0 on the scale of the reward, and the charge at beta."""
    learner, task = policy(0.5), Question()
    problem = task.problems("train")[0]
    outcome = [task.check(problem, text).outcome for text in ("good", "fair", "poor")]
    assert outcome == [1.0, 0.5, 0.0]
    parts = ppo_parts(learner, task, ARMS["PPO"])
    score, charge = parts.reward.parts["score"], parts.reward.parts["kl"]
    assert [score.wrong + (score.right - score.wrong) * x for x in outcome] == list(REWARD)
    assert charge.coef == BETA
    assert parts.advantage.critic is learner
    assert parts.objective.parts["ratio"].whiten is False


def test_the_best_of_n_by_hand():
    """Of two draws the best response is missed with (1/2)^2; the worst is kept with 0.2^2."""
    assert law_of_the_best([0.2, 0.3, 0.5], 2) == pytest.approx([0.04, 0.21, 0.75])
    found = best_of_n()
    assert found["reward/1"] == pytest.approx(0.3)
    assert found["kl/1"] == pytest.approx(0)
    assert found["reward/16"] == pytest.approx(1, abs=1e-4)
    assert found["bound/16"] == pytest.approx(1.835089, abs=1e-6)
    for n in SIZES:
        assert found[f"kl/{n}"] <= found[f"bound/{n}"] + 1e-12
        assert found[f"kl of many/{n}"] <= found[f"bound/{n}"] + 1e-12
    draws = np.random.default_rng(0).choice(3, p=REFERENCE, size=(20_000, 4))
    assert found["reward/4"] == pytest.approx(np.array(REWARD)[draws].max(axis=1).mean(), abs=0.01)


def test_fast_runs_every_line(tmp_path):
    study = load_study("preference-learning")
    assert all(set(study.fast) <= set(arm) or arm["kind"] == "best-of-n" for arm in study.arms.values())
    found = run_study("preference-learning", tmp_path / "fast", fast=True, seeds=[0])
    assert not found["not run"]
