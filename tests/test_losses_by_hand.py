"""Each objective against numbers worked by hand, and what it reports of itself."""

import math
from dataclasses import replace

import pytest
import torch

from credit_batches import same
from loss_batches import Fixed, batch_of, credit_of, drawn, learn
from reckon.errors import InputError
from reckon.losses import ClippedRatio, EntropyBonus, KLPenalty, PolicyGradient, ValueLoss
from reckon.types import Outputs

NAN = math.nan


def test_clipped_ratio_by_hand():
    """Rows of 2 and 1 tokens; ratios 1.5, 1, 0.5; advantages 2, 2, -2; weights 1, 0.5, 3; averaged by sequences.

    Clipped gains 2.4, 2, -1.6; scales 1/4, 1/4, 1/2.
    """
    mask = torch.tensor([[True, True], [True, False]])
    batch = batch_of(mask, torch.zeros(2, 2))
    credit = credit_of(torch.tensor([2.0, -2.0]), mask, torch.tensor([[1.0, 0.5], [3.0, 1.0]]))
    logprobs = torch.tensor([[math.log(1.5), 0.0], [math.log(0.5), 0.0]])
    loss, gradient = learn(ClippedRatio(), batch, credit, logprobs)
    same(loss, [[-2.4 / 4, -2 * 0.5 / 4], [1.6 * 3 / 2, 0]])
    same(gradient, [[0, -2 * 0.5 / 4], [0, 0]])


@pytest.mark.parametrize(
    ("average", "length", "scales"),
    [("tokens", None, (1 / 3, 1 / 3)), ("sequences", None, (1 / 4, 1 / 2)), ("constant", 5, (1 / 10, 1 / 10))],
)
def test_averages_by_hand(average, length, scales):
    mask = torch.tensor([[True, True], [True, False]])
    batch = batch_of(mask, torch.zeros(2, 2))
    credit = credit_of(torch.tensor([3.0, -1.0]), mask)
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]])
    loss, gradient = learn(PolicyGradient(average=average, length=length), batch, credit, logprobs)
    same(loss, [[3 * scales[0], 6 * scales[0]], [-0.5 * scales[1], 0]])
    same(gradient, [[-3 * scales[0], -3 * scales[0]], [scales[1], 0]])


def test_kl_penalty_by_hand():
    """d = log 2 and log 1: k3 = 1 - log 2 and 0, k2 = (log 2)^2 / 2 and 0; one row of two tokens, coefficient 0.5."""
    mask = torch.tensor([[True, True]])
    batch, credit = batch_of(mask, torch.zeros(1, 2)), credit_of(torch.zeros(1), mask)
    reference = Fixed(torch.tensor([[math.log(2) - 1, -1.0]]))
    logprobs = torch.tensor([[-1.0, -1.0]])
    k3 = KLPenalty(reference=reference, coef=0.5)
    same(learn(k3, batch, credit, logprobs)[0], [[0.25 * (1 - math.log(2)), 0]])
    same(learn(replace(k3, estimator="k2"), batch, credit, logprobs)[0], [[0.25 * math.log(2) ** 2 / 2, 0]])


def test_entropy_bonus_by_hand():
    mask = torch.tensor([[True, True], [True, False]])
    batch, credit = batch_of(mask, torch.zeros(2, 2)), credit_of(torch.zeros(2), mask)
    entropy = torch.tensor([[1.0, 2.0], [3.0, 99.0]])
    loss, gradient = learn(EntropyBonus(coef=0.2), batch, credit, torch.zeros(2, 2), entropy)
    same(loss, [[-0.05, -0.1], [-0.3, 0]])
    same(gradient, [[-0.05, -0.05], [-0.1, 0]])


def test_value_loss_by_hand():
    """Rows of 2 and 1 tokens. V_old 1, V 1.5, R 1.1: half of 0.16. V 2, R 0: half of 4. V_old 0, V 0.1, R 0: 0.005.

    Averaged over three tokens, times 0.1; the second token is not held back, for it moved away from its return.
    """
    mask = torch.tensor([[True, True], [True, False]])
    batch = batch_of(mask, torch.zeros(2, 2))
    credit = replace(
        credit_of(torch.zeros(2), mask, torch.full((2, 2), 9.0)),
        returns=torch.tensor([[1.1, 0.0], [0.0, NAN]]),
        values=torch.tensor([[1.0, 1.0], [0.0, NAN]]),
    )
    values = torch.tensor([[1.5, 2.0], [0.1, NAN]])
    loss, gradient = learn(ValueLoss(clip=0.2), batch, credit, torch.zeros(2, 2), values)
    same(loss, [[0.1 * 0.08 / 3, 0.1 * 2 / 3], [0.1 * 0.005 / 3, 0]])
    same(gradient, [[0.1 * 0.4 / 3, 0.1 * 2 / 3], [0.1 * 0.1 / 3, 0]])
    # Towards its return by more than 0.2 it waits: V_old 1, V 0.7, R 0 counts 0.8, and no gradient.
    values[0, 1] = 0.7
    loss, gradient = learn(ValueLoss(clip=0.2), batch, credit, torch.zeros(2, 2), values)
    same(loss[0, 1], 0.1 * 0.32 / 3)
    assert gradient[0, 1] == 0
    part = ValueLoss(clip=0.2)
    found = part.diagnostics(Outputs(values=values), part.prepare(batch, credit))
    assert float(found["value_clip_fraction"]) == pytest.approx(1 / 3)
    assert float(found["value_error"]) == pytest.approx((0.08 + 0.32 + 0.005) / 3)


def test_a_value_loss_needs_a_critics_advantages():
    batch, credit, *_ = drawn()
    for missing in ("returns", "values"):
        with pytest.raises(InputError, match=r"the advantages were made without one.*Take the advantage gae"):
            ValueLoss().prepare(batch, replace(credit, **{missing: None}))


def test_whitening_is_over_the_tokens_of_the_mini_batch_that_train():
    """Advantages 1, 3 and, in the row that does not train, 50: mean 2, variance 2."""
    mask = torch.tensor([[True, True], [True, False]])
    batch, credit = batch_of(mask, torch.zeros(2, 2)), credit_of(torch.tensor([[1.0, 3.0], [50.0, 0.0]]), mask)
    credit = replace(credit, mask=torch.tensor([[True, True], [False, False]]))
    root = 1 / math.sqrt(2)
    for part in (ClippedRatio(whiten=True), PolicyGradient(whiten=True)):
        same(part.prepare(batch, credit)["advantages"], [[-root, root], [0, 0]])


def test_a_ratio_to_each_step_is_the_policy_gradient():
    """Whatever was sampled, and also where sampling was truncated: the ratio is 1 and nothing is clipped."""
    batch, credit, logprobs, *_ = drawn()
    truncated = replace(batch, rollouts=replace(batch.rollouts, truncated=True))
    for taken in (batch, truncated):
        for level in ("token", "sequence"):
            part = ClippedRatio(old="step", level=level, low=0.01, high=0.01, average="tokens")
            assert "old_logprobs" not in part.prepare(taken, credit)
            found = part.diagnostics(Outputs(logprobs=logprobs), part.prepare(taken, credit))
            assert found["clip_fraction"] == found["kl_sampled"] == 0
            assert float(found["ratio_mean"]) == pytest.approx(1)
        step = learn(ClippedRatio(old="step", average="tokens"), taken, credit, logprobs)
        same(step[1], learn(PolicyGradient(average="tokens"), taken, credit, logprobs)[1])
    assert not torch.allclose(step[1], learn(ClippedRatio(average="tokens"), batch, credit, logprobs)[1], atol=1e-3)


def test_weights_change_no_denominator():
    batch, credit, logprobs, *_ = drawn()
    for part in (ClippedRatio(), PolicyGradient()):
        plain = learn(part, batch, replace(credit, weights=torch.ones_like(credit.weights)), logprobs)
        double = learn(part, batch, replace(credit, weights=torch.full_like(credit.weights, 2.0)), logprobs)
        assert torch.equal(double[0], 2 * plain[0])
        assert torch.equal(double[1], 2 * plain[1])


def test_weights_concern_the_policy_alone():
    batch, credit, logprobs, ref, entropy = drawn()
    heavy = replace(credit, weights=3 * credit.weights)
    for part in (KLPenalty(reference=Fixed(ref), coef=1.0), EntropyBonus(coef=1.0)):
        assert torch.equal(
            learn(part, batch, credit, logprobs, entropy)[0], learn(part, batch, heavy, logprobs, entropy)[0]
        )


def test_the_reference_is_asked_once_for_a_mini_batch():
    batch, credit, logprobs, ref, _ = drawn()
    part = KLPenalty(reference=Fixed(ref), coef=0.1)
    columns = part.prepare(batch, credit)
    for rows in ([0, 1], [2, 3, 4, 5]):
        part(Outputs(logprobs=logprobs[rows]), {name: c[rows] for name, c in columns.items()})
    assert part.reference.asked == [6]


# Diagnostics


def test_diagnostics_by_hand():
    """Ratios 2 (good: clipped), 1, 0.5 (bad: clipped), over three tokens.

    kl_sampled is the mean of r - 1 - log r: (1 - log 2) and 0 and (-1/2 + log 2), so 1/6.
    """
    mask = torch.tensor([[True, True], [True, False]])
    batch, credit = batch_of(mask, torch.zeros(2, 2)), credit_of(torch.tensor([1.0, -1.0]), mask)
    logprobs = torch.tensor([[math.log(2), 0.0], [-math.log(2), 9.0]], requires_grad=True)
    part = ClippedRatio()
    found = part.diagnostics(Outputs(logprobs=logprobs), part.prepare(batch, credit))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"clip_fraction": 2 / 3, "ratio_mean": 3.5 / 3, "kl_sampled": 1 / 6}
    )
    assert not any(value.requires_grad for value in found.values())
    # The rows' geometric means are sqrt(2) and 1/2: all three tokens are clipped.
    by_sequence = replace(part, level="sequence").diagnostics(Outputs(logprobs=logprobs), part.prepare(batch, credit))
    assert float(by_sequence["clip_fraction"]) == pytest.approx(1)
    assert float(by_sequence["ratio_mean"]) == pytest.approx((2 * math.sqrt(2) + 0.5) / 3)


def test_penalties_report_themselves_before_the_coefficient():
    mask = torch.tensor([[True, True]])
    batch, credit = batch_of(mask, torch.zeros(1, 2)), credit_of(torch.zeros(1), mask)
    reference = Fixed(torch.tensor([[math.log(2) - 1, -1.0]]))
    outputs = Outputs(logprobs=torch.tensor([[-1.0, -1.0]]), entropy=torch.tensor([[1.0, 2.0]], requires_grad=True))
    for coef in (0.0, 0.3):
        penalty = KLPenalty(reference=reference, coef=coef)
        assert float(penalty.diagnostics(outputs, penalty.prepare(batch, credit))["kl"]) == pytest.approx(
            (1 - math.log(2)) / 2
        )
        bonus = EntropyBonus(coef=coef)
        entropy = bonus.diagnostics(outputs, bonus.prepare(batch, credit))["entropy"]
        assert float(entropy) == pytest.approx(1.5)
        assert not entropy.requires_grad
