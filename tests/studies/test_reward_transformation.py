"""The closed form against a few lines of NumPy, the world against its description, and the learner on its way."""

import json

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import log_expit, softmax

from reckon.studies import run_study
from reckon.studies.reward_transformation import (
    AXIS,
    DISTANCE,
    STUDY,
    best_of,
    cell,
    divergence,
    gamma_at,
    optimum,
    transformed,
    world,
)


def test_the_world_is_the_specification_s():
    here = world(3, prompts=200, candidates=400, easy=False)
    assert here.hacks.sum(dim=1).tolist() == [8] * 200  # 2% of 400
    first, second = here.true
    assert torch.equal(here.rewards[1], second)
    assert torch.equal(here.rewards[0][~here.hacks], first[~here.hacks])
    lowest = first.amin(dim=1, keepdim=True).expand_as(first)
    assert torch.equal(first[here.hacks], lowest[here.hacks])
    honest = np.where(here.hacks, np.nan, first)
    # The lift is taken from all candidates' mean, hacks as they were drawn: 4 above it, up to 8 of 400 draws.
    lift = here.rewards[0].amax(dim=1).numpy() - np.nanmean(honest, axis=1)
    assert np.median(lift) == pytest.approx(4, abs=0.7)
    correlations = [np.corrcoef(a[~h], b[~h])[0, 1] for a, b, h in zip(first, second, here.hacks, strict=True)]
    assert np.mean(correlations) == pytest.approx(-0.5, abs=0.02)
    scales = np.log(np.nanstd(honest, axis=1) / 1.5)
    assert scales.mean() == pytest.approx(0, abs=0.1)
    assert scales.std() == pytest.approx(0.5, abs=0.1)
    assert second.mean(dim=1).std() == pytest.approx(1.5, abs=0.25)
    assert second.std(dim=1).mean() == pytest.approx(1.5, abs=0.02)


def test_the_easy_world_has_no_hacks():
    here = world(3, prompts=50, candidates=400, easy=True)
    assert not here.hacks.any()
    assert torch.equal(here.true, here.rewards)
    assert here.good.double().mean() == pytest.approx(0.25, abs=0.01)  # two independent medians
    assert here.true.std(dim=2).mean() == pytest.approx(1.5, abs=0.02)


def naive(rewards, how):
    """Each transform for one prompt at a time, as the specification writes it."""
    r = rewards.numpy()
    out = []
    for x in range(r.shape[1]):
        mine = r[:, x]
        mean, std = mine.mean(axis=1), mine.std(axis=1, ddof=1)
        reference = {
            "lsc-global": np.quantile(r.reshape(2, -1), 0.85, axis=1),
            "lsc-quantile": np.quantile(mine, 0.85, axis=1),
            "lsc-gaussian": mean + 1.0364333894937898 * mine.std(axis=1),
        }.get(how, mean)
        z = mine - reference[:, None]
        out.append(
            {
                "raw": mine.mean(axis=0),
                "zscore": (z / std[:, None]).sum(axis=0),
                "sigmoid": (1 / (1 + np.exp(-z))).sum(axis=0),
                "min": z.min(axis=0),
            }.get(how, log_expit(z).sum(axis=0))
        )
    return np.stack(out)


HOWS = ["raw", "zscore", "lsc-global", "lsc-quantile", "lsc-gaussian", "lsc-mean", "sigmoid", "min"]


@pytest.mark.parametrize("how", HOWS)
def test_transforms_and_their_optimum_as_numpy_has_them(how):
    rewards = world(5, prompts=6, candidates=40, easy=False).rewards
    u = transformed(rewards, how)
    assert u.numpy() == pytest.approx(naive(rewards, how), abs=1e-9)
    gamma = gamma_at(u, 1.0)

    def kl(gamma):
        law = softmax(u.numpy() / gamma, axis=1)
        return np.where(law > 0, law * np.log(np.where(law > 0, law, 1) * 40), 0).sum(axis=1)

    assert gamma == pytest.approx(brentq(lambda g: kl(g).mean() - 1, 1e-2, 1e3), rel=1e-6)
    assert divergence(optimum(u, gamma)).numpy() == pytest.approx(kl(gamma), abs=1e-9)


def test_best_of_k_by_hand_and_by_drawing():
    u = torch.tensor([[3.0, 1.0, 2.0]])
    # Of two draws from three: the best is the top one in 5 of 9, the middle one in 3, the lowest in 1.
    assert best_of(u, 2)[0].tolist() == pytest.approx([5 / 9, 1 / 9, 3 / 9])
    draws = np.random.default_rng(0).integers(0, 3, (20000, 4))
    best = draws[np.arange(20000), u[0].numpy()[draws].argmax(axis=1)]
    assert best_of(u, 4)[0].tolist() == pytest.approx(np.bincount(best, minlength=3) / 20000, abs=0.01)


def test_an_arm_is_measured_at_the_kl_it_names():
    settings = {"u": "raw", "easy": False, "prompts": 5, "candidates": 60}
    measured = cell(settings, 0)
    there = world(0, 5, 60, easy=False)
    u = transformed(there.rewards, "raw")
    policy = optimum(u, gamma_at(u, 2.0))
    both, base = (policy * there.good).sum(dim=1), there.good.double().mean(dim=1)
    assert divergence(policy).mean() == pytest.approx(2.0)
    assert measured.metrics["both/2"] == pytest.approx(both.mean())
    assert measured.metrics["hacked/2"] == pytest.approx((policy * there.hacks).sum(dim=1).mean())
    assert measured.metrics["improved/2"] == pytest.approx((both > base + 0.05).double().mean())
    assert measured.metrics["spread/2"] == pytest.approx(np.std(divergence(policy).numpy()))
    assert measured.curves[AXIS] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_the_learner_nears_the_optimum():
    settings = {"u": "lsc-quantile", "learner": True, "prompts": 3, "candidates": 12, "steps": 120}
    measured = cell(settings, 0)
    assert measured.metrics["start"] > 0.3
    assert measured.metrics["distance"] < 0.05
    assert measured.metrics["kl"] == pytest.approx(1.0, abs=0.1)
    assert measured.curves[DISTANCE][0] == measured.metrics["start"]


def test_every_line_runs(tmp_path):
    results = run_study(STUDY, tmp_path, fast=True, seeds=[0])
    assert results["not run"] == []
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (tmp_path / "curves.png").is_file()
