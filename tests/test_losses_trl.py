"""Losses and gradients beside those of TRL (oracles/trl.json)."""

import json
from pathlib import Path

import pytest
import torch

from credit_batches import same
from loss_batches import Fixed, batch_of, credit_of, learn
from reckon.losses import ClippedRatio, KLPenalty, Objectives, PolicyGradient
from reckon.types import Outputs

ORACLE = json.loads((Path(__file__).parent / "oracles" / "trl.json").read_text())
TRL = {name: torch.tensor(ORACLE[name]) for name in ("mask", "old_logprobs", "logprobs", "ref_logprobs")}
PAIRS = {
    "grpo": ClippedRatio(),
    "bnpo": ClippedRatio(average="tokens"),
    "dapo": ClippedRatio(high=0.28, average="tokens"),
    "dr_grpo": ClippedRatio(low=0.1, high=0.1, average="constant", length=ORACLE["limit"]),
    "sequence": ClippedRatio(low=0.03, high=0.04, level="sequence"),
    "delta": ClippedRatio(dual=1.5, average="tokens"),
    "kl": Objectives({"policy": ClippedRatio(), "kl": KLPenalty(reference=Fixed(TRL["ref_logprobs"]), coef=0.05)}),
}


@pytest.mark.parametrize("name", PAIRS)
def test_losses_equal_those_of_trl(name):
    theirs, ours = ORACLE["losses"][name], PAIRS[name]
    batch = batch_of(TRL["mask"], TRL["old_logprobs"])
    credit = credit_of(torch.tensor(ORACLE["advantages"]["mixed"]["grpo_group"]), TRL["mask"])
    loss, gradient = learn(ours, batch, credit, TRL["logprobs"])
    assert float(loss.sum()) == pytest.approx(theirs["loss"], rel=1e-5, abs=1e-7)
    same(gradient, theirs["gradient"], 1e-6)
    reported = ours.diagnostics(Outputs(logprobs=TRL["logprobs"]), ours.prepare(batch, credit))
    if name not in ("sequence", "delta"):  # TRL counts clipped sequences, we their tokens; it leaves delta's clips out
        assert float(reported["clip_fraction"]) == pytest.approx(theirs["clip_fraction"], rel=1e-5)
    if theirs["kl"] is not None:
        assert float(reported["kl"]) == pytest.approx(theirs["kl"], rel=1e-5)


def test_every_loss_of_the_oracle_is_compared():
    assert set(PAIRS) == set(ORACLE["losses"])


def test_policy_gradient_equals_the_gradient_of_trls_rloo():
    """TRL clips the ratio of whole responses, which on policy is 1: the gradient is REINFORCE's, averaged over rows."""
    batch = batch_of(TRL["mask"], TRL["logprobs"])
    credit = credit_of(torch.tensor(ORACLE["advantages"]["mixed"]["rloo"]), TRL["mask"])
    _, gradient = learn(PolicyGradient(average="constant", length=1), batch, credit, TRL["logprobs"])
    same(gradient, ORACLE["rloo_loss"]["gradient"], 1e-6)
