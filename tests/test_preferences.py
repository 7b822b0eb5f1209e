"""The losses of `reckon.preferences`: numbers by hand, gradients, invariants, and what must not happen at the edges."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from reckon.preferences import (
    bradley_terry,
    dpo,
    dpo_norm,
    ipo,
    kto,
    kto_kl,
    masked_mean,
    nca,
    outcome_ce,
    pair_accuracy,
    response_logratio,
    simpo,
    step_ce,
    step_mse,
    step_sign_loss,
    token_logratios,
)

slow_start = settings(deadline=None)  # torch's first call takes longer than hypothesis allows an example
NAN, INF = math.nan, math.inf
nats = st.floats(-50, 50)
betas = st.floats(0.01, 5)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def same(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=tolerance, atol=tolerance)


def gradients(loss, *inputs):
    """The loss's gradient with respect to each input."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    loss(*leaves).sum().backward()
    return [leaf.grad for leaf in leaves]


PAIRED = {  # a lone token in each response, so that means and sums are the same
    "dpo": dpo,
    "cdpo": lambda w, v, beta: dpo(w, v, beta, 0.1),
    "dpo_norm": lambda w, v, beta: dpo_norm(w, v, torch.ones_like(w), torch.ones_like(v), beta),
    "simpo": lambda w, v, beta: simpo(w, v, torch.ones_like(w), torch.ones_like(v), beta, 0.5),
    "ipo": ipo,
    "nca": nca,
    "bradley_terry": lambda w, v, beta: bradley_terry(beta * w, beta * v, center=0.01),
}
LABELED = {
    "outcome_ce": lambda ratio, labels, beta: outcome_ce(beta * ratio, labels),
    "kto": lambda ratio, labels, beta: kto(ratio, labels, 0.5, beta),
}
STEPS = {"ce": step_ce, "mse": step_mse, "sign": step_sign_loss}

# From log-probs to log-ratios


def test_log_ratios_of_a_ragged_batch():
    logprobs = torch.tensor([[-1.0, -2.0, NAN], [-0.5, INF, -INF]], requires_grad=True)
    ref = torch.tensor([[-1.5, -1.0, INF], [-2.0, NAN, NAN]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    same(token_logratios(logprobs, ref, mask), [[0.5, -1.0, 0.0], [1.5, 0.0, 0.0]])
    found = response_logratio(logprobs, ref, mask)
    same(found, [-0.5, 1.5])  # 0.5 - 1.0; 1.5
    found.sum().backward()
    same(logprobs.grad, mask.float())


def test_without_a_reference_log_probs_are_left():
    logprobs, mask = torch.tensor([[-1.0, -2.0, -4.0]]), torch.tensor([[True, False, True]])
    same(response_logratio(logprobs, None, mask), [-5.0])


def test_the_reference_gets_no_gradient():
    ref = torch.zeros(1, 2, requires_grad=True)
    assert not token_logratios(torch.zeros(1, 2), ref, torch.ones(1, 2, dtype=torch.bool)).requires_grad


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(half):
    """At -100 a bfloat16's neighbors are 0.5 apart: log-probs -100.2 and -100.1 would have the log-ratio 0."""
    assert (torch.tensor(-100.2).bfloat16() - torch.tensor(-100.1).bfloat16()) == 0
    mask, logprobs = torch.ones(1, 1, dtype=torch.bool), torch.tensor([[-100.2]])
    with pytest.raises(ValueError, match=r"^logprobs must be float32 or finer, not torch\.\w+: a log-ratio is a small"):
        token_logratios(logprobs.to(half), logprobs, mask)
    with pytest.raises(ValueError, match=r"^ref_logprobs must be float32"):
        token_logratios(logprobs, logprobs.to(half), mask)


def test_a_response_without_tokens_has_log_ratio_0():
    empty = torch.full((1, 3), NAN)
    same(response_logratio(empty, empty, torch.zeros(1, 3, dtype=torch.bool)), [0.0])


# Numbers by hand


def test_cross_entropy_by_hand():
    """beta .05, log-ratio 10: z = .5, s = 1 / (1 + e^-.5) = .62246; -ln .62246 = .47408, -ln .37754 = .97408."""
    z = 0.05 * double(10, 10, 10)
    same(outcome_ce(z, double(1, 0, 0.25)), [0.474077, 0.974077, 0.25 * 0.474077 + 0.75 * 0.974077], 1e-6)
    (gradient,) = gradients(lambda z: outcome_ce(z, double(1, 0, 0.25)), z)
    same(gradient, [0.622459 - 1, 0.622459, 0.622459 - 0.25], 1e-6)  # s(z) - l


def test_the_gradient_of_cross_entropy_is_reinforce():
    """beta (s(z) - l) at every token: .05 * (.62246 - 1) = -.018877."""
    logprobs, ref = double([-1, -2, -3]), double([-5, -5, -6])
    mask = torch.ones(1, 3, dtype=torch.bool)  # 4 + 3 + 3 = 10
    (gradient,) = gradients(lambda p: outcome_ce(0.05 * response_logratio(p, ref, mask), double(1)), logprobs)
    same(gradient, [[-0.018877] * 3], 1e-6)


def test_dpo_by_hand():
    """beta .05, +10 and -6: beta h = .8, ln(1 + e^-.8) = .371101."""
    same(dpo(double(10), double(-6), 0.05), [0.371101], 1e-6)


def test_dpo_from_log_probs_by_hand():
    """log pi (-10, -14), reference (-12, -13): ratios 2 and -1, h = 3, beta h = .3.

    ln(1 + e^-.3) = .554355; .9 * .554355 + .1 * (.554355 + .3) = .584355; (3 - 5)^2 = 4; -.1 s(-.3) = -.0425557.
    """
    ratio_w, ratio_l = double(-10) - double(-12), double(-14) - double(-13)
    same(dpo(ratio_w, ratio_l, 0.1), [0.554355], 1e-6)
    same(dpo(ratio_w, ratio_l, 0.1, 0.1), [0.584355], 1e-6)
    same(ipo(ratio_w, ratio_l, 0.1), [4.0])
    same(0.1 * torch.cat([ratio_w, ratio_l]), [0.2, -0.1])  # the implicit rewards
    up, down = gradients(lambda w, v: dpo(w, v, 0.1), ratio_w, ratio_l)
    same(up, [-0.0425557], 1e-7)
    same(down, [0.0425557], 1e-7)
    up, down = gradients(lambda w, v: ipo(w, v, 0.1), ratio_w, ratio_l)
    same(torch.cat([up, down]), [-4.0, 4.0])  # 2 (3 - 5)


def test_nca_by_hand():
    """z_w = .5, z_l = -.3: .474077 + .5 * .974077 + .5 * ln(1 + e^-.3) = .474077 + .487038 + .277178 = 1.238293."""
    same(nca(double(10), double(-6), 0.05), [1.23829], 1e-5)
    up, down = gradients(lambda w, v: nca(w, v, 0.05), double(10), double(-6))
    same(up, [0.05 * (1.5 * 0.622459 - 1)], 1e-6)  # beta (-(1 - s) + s / 2)
    same(down, [0.05 * 0.5 * 0.425557], 1e-6)  # beta s(z_l) / 2, s(-.3) = .425557


def test_nca_is_least_where_the_winner_has_reward_log_2():
    up, _ = gradients(lambda w, v: nca(w, v, 0.5), double(2 * math.log(2)), double(0))
    same(up, [0.0])


def test_kto_by_hand():
    """beta .05, reference point 2: 1 - s(.05 * 8) = 1 - s(.05 * (2 + 6)) = 1 - .598688 = .40131."""
    ratio, labels = double(10, -6), double(1, 0)
    same(kto(ratio, labels, 2.0, 0.05), [0.401312, 0.401312], 1e-6)
    same(kto(ratio, labels.bool(), double(2)[0], 0.05, desirable=3, undesirable=0.5), [1.203937, 0.200656], 1e-6)
    (gradient,) = gradients(lambda r: kto(r, labels, 2.0, 0.05), ratio)
    same(gradient, [-0.05 * 0.401312 * 0.598688, 0.05 * 0.401312 * 0.598688], 1e-6)  # beta s (1 - s)


def test_kto_mixes_a_soft_label():
    """1 - s(.4) = .401312 if right, s(.4) = .598688 if wrong; .3 and .7 of them: .539475."""
    same(kto(double(10), double(0.3), 2.0, 0.05), [0.539475], 1e-6)


def test_the_reference_point_of_kto():
    ratios = double(1, -2, 7).requires_grad_()
    found = kto_kl(ratios)
    same(found, 2.0)  # (1 - 2 + 7) / 3
    assert not found.requires_grad
    same(kto_kl(-ratios), 0.0)  # -2 is clamped


def test_the_reference_point_gets_no_gradient_through_the_loss():
    kl = double(2.0).requires_grad_()
    ratio = double(10).requires_grad_()
    kto(ratio, double(1), kl[0], 0.05).sum().backward()
    assert kl.grad is None


def test_one_response_has_nothing_to_be_mismatched_with():
    with pytest.raises(ValueError, match=r"^kto_kl needs 2 mismatched log-ratios or more, not 1: use a larger batch"):
        kto_kl(double(3.0))


def test_length_normalized_dpo_by_hand():
    """Sums 6 and -4 over 3 and 8 tokens: means 2 and -.5, beta 2: ln(1 + e^-5) = .006715."""
    same(dpo_norm(double(6), double(-4), torch.tensor([3]), torch.tensor([8]), 2.0), [0.006715], 1e-5)
    up, down = gradients(lambda w, v: dpo_norm(w, v, double(3), double(8), 2.0), double(6), double(-4))
    same(up, [-2 / 3 * 0.006693], 1e-5)  # beta / |y_w| s(-5)
    same(down, [2 / 8 * 0.006693], 1e-5)


def test_simpo_by_hand():
    """Sums -6 and -20 over 3 and 5 tokens: means -2 and -4, beta 2, gamma 1.5: ln(1 + e^-2.5) = .078889."""
    same(simpo(double(-6), double(-20), double(3), double(5), 2.0, 1.5), [0.078889], 1e-5)
    found = simpo(double(-6), double(-20), double(3), double(5), 2.0, 1.5, smoothing=0.1)
    same(found, [0.9 * 0.078889 + 0.1 * 2.578889], 1e-5)


def test_bradley_terry_by_hand():
    """1.2 and .4: ln(1 + e^-.8) = .371101, gradient -s(-.8) = -.310026; margin 1: ln(1 + e^.2) = .798139."""
    same(bradley_terry(double(1.2), double(0.4)), [0.371101], 1e-6)
    same(bradley_terry(double(1.2), double(0.4), double(1.0)), [0.798139], 1e-6)
    up, down = gradients(bradley_terry, double(1.2), double(0.4))
    same(up, [-0.310026], 1e-6)
    same(down, [0.310026], 1e-6)


def test_centering_by_hand():
    """.01 * (1.2 + .4)^2 = .0256 more, gradient .01 * 2 * 1.6 = .032 on both."""
    same(bradley_terry(double(1.2), double(0.4), center=0.01), [0.371101 + 0.0256], 1e-6)
    up, down = gradients(lambda c, r: bradley_terry(c, r, center=0.01), double(1.2), double(0.4))
    same(up, [-0.310026 + 0.032], 1e-6)
    same(down, [0.310026 + 0.032], 1e-6)


@pytest.mark.parametrize(
    ("valid", "loss"),
    # differences 1 and 0: ln(1 + e^-1) = .313262, ln 2 = .693147, their mean .503204
    [([True, False], 0.313262), ([True, True], 0.503204), ([False, False], 0.0)],
)
def test_pairs_that_are_not_valid_count_for_nothing(valid, loss):
    chosen, rejected, mask = double(2.0, 0.5), double(1.0, 0.5), torch.tensor(valid)
    same(masked_mean(bradley_terry(chosen, rejected, mask=mask), mask), loss, 1e-5)
    chosen[~mask], rejected[~mask] = NAN, INF
    found = masked_mean(bradley_terry(chosen, rejected, double(0, 0), 0.1, mask), mask)
    same(found, loss + 0.1 * 9 * valid[0] / max(sum(valid), 1) + 0.1 * valid[1] / max(sum(valid), 1), 1e-5)
    for gradient in gradients(lambda c, r: masked_mean(bradley_terry(c, r, mask=mask), mask), chosen, rejected):
        assert (gradient[~mask] == 0).all()
        assert gradient.isfinite().all()


def test_the_gradient_of_one_pair_at_margin_1():
    up, down = gradients(bradley_terry, double(2.0), double(1.0))  # s(-1) = .268941
    same(torch.cat([up, down]), [-0.268941, 0.268941], 1e-6)


def test_steps_by_hand():
    """ln(1 + e^-1) = .313262; at 0: ln 2; s(1) = .731059."""
    logits, mask = double([1.0, 0.0, NAN], [-1.0, INF, -INF]), torch.tensor([[True, True, False], [True, False, False]])
    targets = double([1.0, 1.0, NAN], [0.25, NAN, 5.0])
    same(step_ce(logits, targets, mask), [[0.313262, 0.693147, 0], [0.25 * 1.313262 + 0.75 * 0.313262, 0, 0]], 1e-6)
    same(step_mse(logits, targets, mask), [[0.268941**2, 0.25, 0], [(0.268941 - 0.25) ** 2, 0, 0]], 1e-6)
    hard = torch.where(targets == 0.25, 0.0, targets)
    # -ln s(+|1|), -ln s(0), -ln s(-|-1|)
    same(step_sign_loss(logits, hard, mask), [[0.313262, 0.693147, 0], [1.313262, 0, 0]], 1e-6)


@pytest.mark.parametrize("loss", STEPS.values(), ids=STEPS)
def test_what_stands_in_masked_steps_reaches_no_gradient(loss):
    logits, mask = double([1.0, 0.5, NAN, INF, -INF]), torch.tensor([[True, True, False, False, False]])
    (gradient,) = gradients(lambda z: loss(z, double([1, 0, NAN, 1, 0]), mask), logits)
    (alone,) = gradients(lambda z: loss(z, double([1, 0]), mask[:, :2]), logits[:, :2])
    same(gradient[:, :2], alone)
    assert (gradient[:, 2:] == 0).all()


def test_a_step_label_may_be_a_bool_and_the_mask_need_not_be_a_prefix():
    mask = torch.tensor([[False, True]])
    for loss in STEPS.values():
        found = loss(torch.tensor([[9.0, 1.0]]), torch.tensor([[True, True]]), mask)
        assert found.dtype == torch.float32
        same(found, loss(double([9.0, 1.0]), double([0.0, 1.0]), mask).float(), 1e-6)


def test_two_token_head_and_one_logit_are_the_same():
    """Cross-entropy over logits (+1.5, -.5) of the tokens + and -, target +: that of one logit 2."""
    pair = functional.cross_entropy(double([1.5, -0.5]), torch.tensor([0]), reduction="none")
    same(step_ce(double([2.0]), double([1.0]), torch.ones(1, 1, dtype=torch.bool)), pair[None])


def test_the_printed_sign_loss_is_blind_to_signs():
    """Gradients of -ln s(l |r|): good: -s(-|r|) sign r, away from 0; bad: s(|r|) sign r, to 0; at 0 none."""
    mask = torch.ones(1, 5, dtype=torch.bool)
    rewards, labels = double([1.0, -1.0, 1.0, -1.0, 0.0]), double([1, 1, 0, 0, 1])
    (gradient,) = gradients(lambda r: step_sign_loss(r, labels, mask), rewards)
    same(gradient, [[-0.268941, 0.268941, 0.731059, -0.731059, 0.0]], 1e-6)
    (sane,) = gradients(lambda r: step_ce(r, labels, mask), rewards)
    same(sane, [[-0.268941, -0.731059, 0.731059, 0.268941, -0.5]], 1e-6)


# At theta = reference


def test_where_policy_and_reference_agree():
    zero, half = double(0), double(1)
    for label in (0, 1):
        same(outcome_ce(zero, double(label)), [math.log(2)])
        same(kto(zero, double(label), 0.0, 0.05), [0.5])
    for smoothing in (0.0, 0.2):
        same(dpo(zero, zero, 0.1, smoothing), [math.log(2)])
    same(dpo_norm(zero, zero, half, half, 5.0), [math.log(2)])
    same(nca(zero, zero, 0.1), [2 * math.log(2)])
    same(ipo(zero, zero, 0.1), [25.0])  # (1 / .2)^2
    same(bradley_terry(zero, zero), [math.log(2)])
    same(pair_accuracy(zero, zero), [0.0])  # strict: a tie is wrong


def test_accuracy_is_strict():
    assert pair_accuracy(double(1, 0, -2), double(0, 1, -2)).tolist() == [1, 0, 0]


# Edges


@pytest.mark.parametrize("loss", PAIRED.values(), ids=PAIRED)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_saturated_pairs_have_finite_losses_and_gradients(loss, size):
    w, v = torch.tensor([size, size, 0.0]), torch.tensor([-size, size, size])
    assert loss(w, v, 1.0).isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(lambda w, v: loss(w, v, 1.0), w, v))


@pytest.mark.parametrize("loss", LABELED.values(), ids=LABELED)
def test_saturated_responses_have_finite_losses_and_gradients(loss):
    ratio, labels = torch.tensor([1e4, 1e4, -1e4, -1e4]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    assert loss(ratio, labels, 1.0).isfinite().all()
    (gradient,) = gradients(lambda r: loss(r, labels, 1.0), ratio)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", STEPS.values(), ids=STEPS)
def test_saturated_steps_have_finite_losses_and_gradients(loss):
    rewards, labels = torch.tensor([[1e4, 1e4, -1e4, -1e4]]), torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert loss(rewards, labels, mask).isfinite().all()
    (gradient,) = gradients(lambda r: loss(r, labels, mask), rewards)
    assert gradient.isfinite().all()


def test_a_pair_that_is_far_the_wrong_way_round_keeps_its_gradient():
    """-ln s(-10^4) = 10^4 with gradient -1. A sigmoid before the logarithm would have given ln 0 and no gradient."""
    up, down = gradients(bradley_terry, torch.tensor([-5e3]), torch.tensor([5e3]))
    assert (up.item(), down.item()) == (-1.0, 1.0)
    assert bradley_terry(torch.tensor([-5e3]), torch.tensor([5e3])).item() == 1e4
    assert outcome_ce(torch.tensor([-1e4]), torch.tensor([1.0])).item() == 1e4
    assert torch.sigmoid(torch.tensor(-1e4)).log().item() == -INF


def test_a_sigmoid_before_the_pair_loss_kills_the_gradient():
    """Scores 30 and 40 the wrong way round: in float32 both sigmoids are 1, so their difference cannot be learned."""
    chosen, rejected = torch.tensor([30.0]), torch.tensor([40.0])
    up, _ = gradients(bradley_terry, chosen, rejected)
    assert up.item() == pytest.approx(-1 / (1 + math.exp(-10)), rel=1e-6)  # -s(10)
    up, _ = gradients(lambda c, r: bradley_terry(torch.sigmoid(c), torch.sigmoid(r)), chosen, rejected)
    assert abs(up.item()) < 1e-12


def test_an_unknown_label_makes_an_unknown_loss_and_nobody_elses():
    z, labels = double(1, 2), double(NAN, 1)
    for loss in (outcome_ce(z, labels), kto(z, labels, 0.0, 0.1)):
        assert loss.isnan().tolist() == [True, False]


def test_a_mean_of_nothing_is_0_and_moves_nothing():
    values = double(NAN, INF)
    mask = torch.zeros(2, dtype=torch.bool)
    assert masked_mean(values, mask).item() == 0
    (gradient,) = gradients(lambda v: masked_mean(v, mask), values)
    assert gradient.tolist() == [0, 0]
    same(masked_mean(double(1, NAN, 4), torch.tensor([True, False, True])), 2.5)


COLUMN = torch.zeros(3, 1)
ROW = torch.zeros(3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: outcome_ce(ROW, COLUMN),
        lambda: kto(ROW, COLUMN, 0.0, 0.1),
        lambda: dpo(ROW, COLUMN, 0.1),
        lambda: dpo_norm(ROW, ROW, ROW + 1, COLUMN + 1, 0.1),
        lambda: simpo(ROW, COLUMN, ROW + 1, COLUMN + 1, 0.1),
        lambda: ipo(ROW, COLUMN, 0.1),
        lambda: nca(ROW, COLUMN, 0.1),
        lambda: bradley_terry(ROW, COLUMN),
        lambda: bradley_terry(ROW, ROW, COLUMN),
        lambda: bradley_terry(ROW, ROW, mask=COLUMN.bool()),
        lambda: pair_accuracy(ROW, COLUMN),
        lambda: masked_mean(ROW, COLUMN.bool()),
        lambda: step_ce(COLUMN, ROW, COLUMN.bool()),
        lambda: step_mse(ROW, COLUMN, COLUMN.bool()),
        lambda: step_sign_loss(COLUMN, COLUMN, ROW.bool()),
        lambda: token_logratios(COLUMN, ROW, COLUMN.bool()),
        lambda: token_logratios(COLUMN, None, ROW.bool()),
    ],
)
def test_shapes_are_not_broadcast(call):
    """[3] with [3, 1] would be [3, 3]: nine pairs of which six are nobody's."""
    with pytest.raises(ValueError, match=r"^\w+ must be of shape \(3(, 1|,)\), not \(3(, 1|,)\)$"):
        call()


@pytest.mark.parametrize("beta", [0.0, -0.1, NAN])
@pytest.mark.parametrize("name", ["dpo", "cdpo", "dpo_norm", "simpo", "ipo", "nca", "kto"])
def test_beta_is_above_0(name, beta):
    with pytest.raises(ValueError, match=r"^beta must be above 0, not "):
        (PAIRED | LABELED)[name](ROW, ROW, beta)


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, NAN])
def test_half_of_the_pairs_cannot_be_the_wrong_way_round(smoothing):
    for call in (lambda: dpo(ROW, ROW, 0.1, smoothing), lambda: simpo(ROW, ROW, ROW + 1, ROW + 1, 1.0, 0.0, smoothing)):
        with pytest.raises(ValueError, match=r"^smoothing must be at least 0 and below 0.5, not "):
            call()


def test_a_response_without_a_token_has_no_mean():
    with pytest.raises(ValueError, match=r"^a length is below 1: .* no mean; drop its pair$"):
        dpo_norm(ROW, ROW, torch.tensor([3, 0, 1]), torch.tensor([1, 1, 1]), 5.0)


# Invariants


@slow_start
@given(nats, nats, nats, betas)
def test_shifting_both_ratios_changes_no_difference(w, v, shift, beta):
    """What depends on the difference alone does not see a constant; NCA and centering do."""
    for name in ("dpo", "cdpo", "simpo", "ipo"):
        moved = PAIRED[name](double(w + shift), double(v + shift), beta)
        same(moved, PAIRED[name](double(w), double(v), beta), 1e-6)
    same(bradley_terry(double(w + shift), double(v + shift)), bradley_terry(double(w), double(v)), 1e-9)


@slow_start
@given(nats, nats, betas)
def test_swapping_a_pair_maps_the_difference_to_its_negative(w, v, beta):
    """-ln s(-d) = d - ln s(d), so loss(l, w) - loss(w, l) = beta (w - l), and gradients of both sides sum to 0."""
    for loss in (lambda w, v: dpo(w, v, beta), lambda w, v: bradley_terry(beta * w, beta * v)):
        same(loss(double(v), double(w)) - loss(double(w), double(v)), [beta * (w - v)], 1e-9)
        up, down = gradients(loss, double(w), double(v))
        same(up + down, [0.0], 1e-9)
    there = gradients(lambda d: functional.logsigmoid(-d) - functional.logsigmoid(d), double(beta * (w - v)))
    same(there[0], [-1.0], 1e-9)


@slow_start
@given(nats, nats, betas, st.floats(0.1, 10))
def test_beta_and_ratios_only_appear_as_a_product(w, v, beta, scale):
    for name in ("dpo", "cdpo", "nca"):
        same(
            PAIRED[name](double(w), double(v), beta * scale),
            PAIRED[name](double(w * scale), double(v * scale), beta),
            1e-6,
        )
    same(ipo(double(w * scale), double(v * scale), beta / scale), scale**2 * ipo(double(w), double(v), beta), 1e-6)
    same(kto(double(w), double(1), v, beta * scale), kto(double(w * scale), double(1), v * scale, beta), 1e-9)


@slow_start
@given(nats, st.floats(0, 1))
def test_cross_entropy_is_torchs_and_symmetric(z, label):
    reference = functional.binary_cross_entropy_with_logits(double(z), double(label), reduction="none")
    same(outcome_ce(double(z), double(label)), reference)
    same(outcome_ce(double(-z), double(1 - label)), reference, 1e-9)
    same(step_ce(double([z]), double([label]), torch.ones(1, 1, dtype=torch.bool)), reference[None])


@slow_start
@given(st.floats(-10, 10), st.floats(0.01, 0.49))
def test_smoothing_is_least_where_the_pair_is_as_sure_as_its_label(start, smoothing):
    """The derivative s(x) - (1 - e) is 0 at s(x) = 1 - e."""
    best = double(math.log((1 - smoothing) / smoothing))
    (gradient,) = gradients(lambda x: dpo(x, torch.zeros_like(x), 1.0, smoothing), best)
    same(gradient, [0.0], 1e-9)
    assert dpo(double(start), double(0), 1.0, smoothing) >= dpo(best, double(0), 1.0, smoothing) - 1e-12


@slow_start
@given(st.lists(nats, min_size=4, max_size=4), st.permutations(range(4)))
def test_rows_do_not_see_each_other(values, order):
    a, b, order = double(*values), double(*reversed(values)), torch.tensor(order)
    for loss in PAIRED.values():
        same(loss(a[order], b[order], 0.3), loss(a, b, 0.3)[order])
    labels = double(1, 0, 1, 0)
    for loss in LABELED.values():
        same(loss(a[order], labels[order], 0.3), loss(a, labels, 0.3)[order])


@slow_start
@given(st.integers(0, 5), st.integers(0, 2**31))
def test_padding_on_either_side_changes_no_log_ratio(width, seed):
    rng = torch.Generator().manual_seed(seed)
    logprobs, ref = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    pad = torch.full((3, width), NAN, dtype=torch.float64)
    none = torch.zeros(3, width, dtype=torch.bool)
    wanted = response_logratio(logprobs, ref, mask)
    same(response_logratio(torch.cat([logprobs, pad], 1), torch.cat([ref, pad], 1), torch.cat([mask, none], 1)), wanted)
    same(response_logratio(torch.cat([pad, logprobs], 1), torch.cat([pad, ref], 1), torch.cat([none, mask], 1)), wanted)
    same(response_logratio(ref, logprobs, mask), -wanted)  # exchanged, every sign is


# What the losses mean


def table(seed, V=3, T=4):
    """All V^T sequences with their log-probs under two random tables that condition on everything before."""
    rng = torch.Generator().manual_seed(seed)
    law = {}
    for t in range(T):
        for prefix in itertools.product(range(V), repeat=t):
            law[prefix] = torch.randn(2, V, generator=rng, dtype=torch.float64).log_softmax(-1)
    sequences = list(itertools.product(range(V), repeat=T))
    logprobs = torch.stack([torch.stack([law[s[:t]][:, s[t]] for t in range(T)], -1) for s in sequences], 1)
    return sequences, *logprobs


@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_the_reward_of_a_right_response_cannot_be_high_on_average(beta):
    """E_ref exp(r / beta) = 1, so E_ref[r | right] <= beta ln(1 / p): why s(r) is no probability of being right."""
    for seed in range(3):
        sequences, logprobs, ref = table(seed)
        mask = torch.ones_like(ref, dtype=torch.bool)
        reward, law = beta * response_logratio(logprobs, ref, mask), ref.sum(-1).exp()
        same((law * (reward / beta).exp()).sum(), 1.0)
        right = torch.tensor([sum(s) % 2 == 0 for s in sequences])
        p = law[right].sum()
        assert (law[right] * reward[right]).sum() / p <= beta * (1 / p).log()
    assert 0.05 * math.log(2) == pytest.approx(0.035, abs=4e-4)  # half of them right, beta .05
    assert torch.sigmoid(torch.tensor(0.05 * math.log(2))).item() == pytest.approx(0.509, abs=4e-4)


def test_dpo_and_regularized_reward_have_the_same_optimum():
    """pi_ref (.5, .3, .2), r (1, 0, -1), beta .5: pi* ~ pi_ref e^(2 r) = .5 e^2, .3, .2 e^-2 = 3.694528, .3, .027067.

    They sum to 4.021595: pi* = (.918672, .074597, .006730), and the best value is beta ln 4.021595 = .695839. DPO on
    all pairs drawn from pi_ref, labeled as Bradley and Terry would by r, must end there too.
    """
    ref, reward, beta = double(0.5, 0.3, 0.2), double(1, 0, -1), 0.5
    best = double(0.918672, 0.074597, 0.006730)
    i, j = torch.tensor(list(itertools.permutations(range(3), 2))).T
    weight = ref[i] * ref[j] * torch.sigmoid(reward[i] - reward[j])

    def regularized(law):
        return -(law.exp() * (reward - beta * (law - ref.log()))).sum()

    def population(law):
        ratio = law - ref.log()
        return (weight * dpo(ratio[i], ratio[j], beta)).sum()

    for objective in (regularized, population):
        logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([logits], lr=0.05)
        for _ in range(1500):
            adam.zero_grad()
            objective(logits.log_softmax(0)).backward()
            adam.step()
        same(logits.detach().softmax(0), best, 1e-3)
        same(-regularized(logits.detach().log_softmax(0)), 0.695839, 1e-3)
