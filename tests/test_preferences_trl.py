"""Against TRL: the numbers its trainers gave on a tiny model, as committed, and those of the TRL that is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reckon.preferences import bradley_terry, dpo, dpo_norm, ipo, kto, kto_kl, nca, response_logratio, simpo

ROOT = Path(__file__).parents[1]
ORACLE = json.loads((ROOT / "tests/oracles/preferences.json").read_text())


def same(found, wanted):
    """TRL computes in float32, on numbers of a few nats."""
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=1e-5, atol=1e-6)


PAIRED = {
    "sigmoid": lambda case, w, v, n_w, n_l: dpo(w, v, case["beta"]),
    "ipo": lambda case, w, v, n_w, n_l: ipo(w / n_w, v / n_l, case["beta"]),  # TRL: means a token
    "nca_pair": lambda case, w, v, n_w, n_l: nca(w, v, case["beta"]),
    "sigmoid_norm": lambda case, w, v, n_w, n_l: dpo_norm(w, v, n_w, n_l, case["beta"]),
}


@pytest.mark.parametrize("name", PAIRED)
def test_pairs_as_dpo_trainer(name):
    case = ORACLE["dpo"][name]
    logprobs = torch.tensor(case["logprobs"], requires_grad=True)
    mask = torch.tensor(case["mask"])
    winners, losers = response_logratio(logprobs, torch.tensor(case["ref_logprobs"]), mask).chunk(2)
    loss = PAIRED[name](case, winners, losers, *mask.sum(dim=1).chunk(2)).mean()
    loss.backward()
    same(loss, case["loss"])
    same(logprobs.grad, case["gradient"])


@pytest.mark.parametrize("name", ORACLE["kto"])
def test_labeled_responses_as_kto_trainer(name):
    case = ORACLE["kto"][name]
    others = (torch.tensor(case[f"mismatched_{key}"]) for key in ("logprobs", "ref_logprobs", "mask"))
    kl = kto_kl(response_logratio(*others))
    same(kl, case["kl"])
    logprobs = torch.tensor(case["logprobs"], requires_grad=True)
    ratio = response_logratio(logprobs, torch.tensor(case["ref_logprobs"]), torch.tensor(case["mask"]))
    weights = {"desirable": case.get("desirable_weight", 1.0), "undesirable": case.get("undesirable_weight", 1.0)}
    loss = kto(ratio, torch.tensor(case["label"]), kl, case["beta"], **weights).mean()
    loss.backward()
    same(loss, case["loss"])
    same(logprobs.grad, case["gradient"])


def test_the_kto_oracle_has_both_sides_of_the_clamp():
    assert ORACLE["kto"]["clamped"]["kl"] == 0
    assert ORACLE["kto"]["kto"]["kl"] > 1


@pytest.mark.parametrize("name", ORACLE["reward"])
def test_scores_as_reward_trainer(name):
    case = ORACLE["reward"][name]
    scores = torch.tensor(case["scores"], requires_grad=True)
    margin = None if case["margin"] is None else torch.tensor(case["margin"])
    loss = bradley_terry(*scores.chunk(2), margin, case["center"]).mean()
    loss.backward()
    same(loss, case["loss"])
    same(scores.grad, case["gradient"])


def test_pairs_as_cpo_trainer():
    """Its loss takes what its caller has made of log-probs: sums, or for SimPO means, here of one token."""
    cases = ORACLE["cpo"]
    chosen, rejected = (torch.tensor(cases["simpo"][side]) for side in ("chosen", "rejected"))
    one = torch.ones(4)
    same(dpo(chosen, rejected, 0.3, 0.2), cases["smoothed"]["losses"])
    same(ipo(chosen, rejected, 0.7), cases["ipo"]["losses"])
    same(simpo(chosen, rejected, one, one, 2.0, 0.6), cases["simpo"]["losses"])
    same(simpo(chosen * 3, rejected * 5, 3 * one, 5 * one, 2.0, 0.6), cases["simpo"]["losses"])
    same(simpo(chosen, rejected, one, one, 2.0, 0.6, smoothing=0.1), cases["simpo_smoothed"]["losses"])


def numbers(value, path=""):
    """Every number of a nested value under its path."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in numbers(inner, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, inner in enumerate(value) for k, v in numbers(inner, f"{path}/{i}").items()}
    return {} if isinstance(value, str) else {path: value}


def test_this_trl_gives_the_committed_numbers(tmp_path):
    pytest.importorskip("trl", reason="TRL is not installed (extra `oracles`)")
    made = tmp_path / "preferences.json"
    subprocess.run(
        [sys.executable, ROOT / "scripts/make_trl_oracles.py", made],
        check=True,
        timeout=280,
        capture_output=True,
    )
    expected, found = numbers(ORACLE), numbers(json.loads(made.read_text()))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        close = value if value is None else pytest.approx(value, rel=1e-4, abs=1e-5)
        assert found[path] == close, path
