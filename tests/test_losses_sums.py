"""Objectives in sum: losses, gradients, memory and what is reported."""

import math
from dataclasses import dataclass

import pytest
import torch

from credit_batches import same
from loss_batches import Fixed, drawn, learn, parts_of
from reckon.errors import InputError
from reckon.losses import ClippedRatio, EntropyBonus, KLPenalty, Objectives, PolicyGradient, ValueLoss
from reckon.types import Outputs, Stateful


def test_objectives_are_the_sum_of_their_parts():
    batch, credit, logprobs, ref, entropy = drawn()
    parts = parts_of(ref)
    loss, gradient = learn(Objectives(parts), batch, credit, logprobs, entropy)
    each = [learn(part, batch, credit, logprobs, entropy) for part in parts.values()]
    same(loss, sum(x for x, _ in each))
    same(gradient, sum(g for _, g in each))


def test_objectives_want_what_any_part_wants():
    assert Objectives({"a": ClippedRatio()}).want == ("logprobs",)
    three = Objectives({"a": ClippedRatio(), "h": EntropyBonus(coef=0.1), "g": PolicyGradient()})
    assert three.want == ("logprobs", "entropy")


@pytest.mark.parametrize("fill", [0.5, math.inf])
def test_a_part_of_weight_zero_equals_no_part_bit_for_bit(fill):
    batch, credit, logprobs, ref, entropy = drawn()
    alone = learn(ClippedRatio(), batch, credit, logprobs, entropy)
    beside = learn(
        Objectives(
            {
                "kl": KLPenalty(reference=Fixed(ref * fill), coef=0.0),
                "policy": ClippedRatio(),
                "entropy": EntropyBonus(coef=0.0),
                "value": ValueLoss(coef=0.0, clip=0.2),
            }
        ),
        batch,
        credit,
        logprobs,
        entropy * fill,
    )
    assert torch.equal(alone[0], beside[0])
    assert torch.equal(alone[1], beside[1])


@dataclass
class PerResponse:
    """A user's objective with one loss for each response and a memory."""

    steps: int = 0
    want = ("logprobs",)

    def prepare(self, batch, credit):
        return {"a/b": torch.ones(len(credit.mask))}

    def __call__(self, outputs, columns):
        return outputs.logprobs.sum(dim=1) * columns["a/b"]

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def test_losses_by_token_and_by_response_add_up_by_response():
    batch, credit, logprobs, *_ = drawn()
    found, _ = learn(Objectives({"a": PolicyGradient(), "own": PerResponse()}), batch, credit, logprobs)
    same(found, learn(PolicyGradient(), batch, credit, logprobs)[0].sum(dim=1) + logprobs.sum(dim=1))


def test_objectives_save_the_parts_that_remember():
    objectives = Objectives({"a": PolicyGradient(), "own": PerResponse(steps=3)})
    assert isinstance(objectives, Stateful)
    assert objectives.state_dict() == {"own": {"steps": 3}}
    fresh = Objectives({"a": PolicyGradient(), "own": PerResponse()})
    fresh.load_state_dict(objectives.state_dict())
    assert fresh.parts["own"].steps == 3


def test_diagnostics_of_micro_batches_add_up():
    batch, credit, logprobs, ref, entropy = drawn()
    objective = Objectives({**parts_of(ref), "own": PerResponse()})
    columns = objective.prepare(batch, credit)
    whole = objective.diagnostics(Outputs(logprobs=logprobs, entropy=entropy, values=entropy), columns)
    ratio = ["clip_fraction", "ratio_mean", "kl_sampled"]
    reported = [f"{part}{x}" for part in ("", "dapo/", "gspo/") for x in ratio] + ["kl", "k3/kl", "entropy"]
    reported += [f"white/{x}" for x in ratio] + ["value_error", "held value/value_error", "value_clip_fraction"]
    assert list(whole) == reported
    assert 0 < whole["value_clip_fraction"] < 1
    halves = [
        objective.diagnostics(
            Outputs(logprobs=logprobs[rows], entropy=entropy[rows], values=entropy[rows]),
            {k: c[rows] for k, c in columns.items()},
        )
        for rows in (slice(0, 2), slice(2, 6))
    ]
    for name, value in whole.items():
        assert float(halves[0][name] + halves[1][name]) == pytest.approx(float(value), rel=1e-5, abs=1e-7)


def test_a_saved_state_that_is_none_is_refused():
    with pytest.raises(InputError, match="objectives: the saved state of 'own' is not one"):
        Objectives({"own": PerResponse()}).load_state_dict({"own": 3})
