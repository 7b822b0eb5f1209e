"""The losses of `reckon.preferences`: numbers by hand, gradients, and what must not happen at the edges."""

import math

import pytest
import torch
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

NAN, INF = math.nan, math.inf


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
    assert (bradley_terry(chosen, rejected, mask=mask)[~mask] == 0).all()  # of itself, not by the mean's mask
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
