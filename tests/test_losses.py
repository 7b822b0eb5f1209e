"""What all objectives share: no row or token that does not train is felt, and no cut into micro-batches."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_batches import same
from loss_batches import Fixed, drawn, learn, parts_of
from reckon.errors import InputError
from reckon.losses import ClippedRatio, EntropyBonus, KLPenalty, Objectives, PolicyGradient, ValueLoss
from reckon.types import Outputs

slow_start = settings(
    deadline=None, max_examples=20
)  # torch's first call takes longer than hypothesis allows an example
NAN = math.nan
every_part = pytest.mark.parametrize("name", parts_of(None))


@every_part
def test_columns_can_be_cut_by_rows(name):
    batch, credit, _, ref, _ = drawn()
    for column in parts_of(ref)[name].prepare(batch, credit).values():
        assert column.shape in ((6,), (6, 5))


@every_part
@slow_start
@given(st.integers(0, 50), st.permutations(range(6)), st.integers(1, 5))
def test_micro_batches_add_up_to_the_mini_batch(name, seed, order, cut):
    batch, credit, logprobs, ref, entropy = drawn(seed=seed)
    part = parts_of(ref)[name]
    columns = part.prepare(batch, credit)
    wanted, gradient = learn(part, batch, credit, logprobs, entropy)
    leaf, other = logprobs.clone().requires_grad_(), entropy.clone().requires_grad_()
    total = 0.0
    for rows in (order[:cut], order[cut:]):
        loss = part(
            Outputs(logprobs=leaf[rows], entropy=other[rows], values=other[rows]),
            {name: column[rows] for name, column in columns.items()},
        )
        loss.sum().backward()
        total += float(loss.detach().sum())
    assert total == pytest.approx(float(wanted.sum()), rel=1e-5, abs=1e-6)
    found = sum(x.grad for x in (leaf, other) if x.grad is not None)
    same(found, gradient, 1e-6)


@every_part
@pytest.mark.parametrize("rubbish", [NAN, math.inf, -math.inf])
def test_rows_and_tokens_that_do_not_train_leak_nothing(name, rubbish):
    """Neither padding nor an untrained row, whatever the tensors hold there."""
    batch, credit, logprobs, ref, entropy = drawn()
    keep = credit.mask

    def filled(x):
        return torch.where(keep, x, rubbish)

    dirty_batch = replace(batch, rollouts=replace(batch.rollouts, logprobs=filled(batch.rollouts.logprobs)))
    dirty_credit = replace(
        credit, **{name: filled(getattr(credit, name)) for name in ("advantages", "weights", "returns", "values")}
    )
    clean = learn(parts_of(ref)[name], batch, credit, logprobs, entropy)
    dirty = learn(parts_of(filled(ref))[name], dirty_batch, dirty_credit, filled(logprobs), filled(entropy))
    assert torch.equal(clean[0], dirty[0])
    assert torch.equal(clean[1], dirty[1])
    assert (dirty[1][~keep] == 0).all()


@every_part
def test_rows_that_do_not_train_are_not_counted(name):
    batch, credit, logprobs, ref, entropy = drawn()
    rows = torch.tensor([0, 2, 3, 4, 5])
    whole, gradient = learn(parts_of(ref)[name], batch, credit, logprobs, entropy)
    part = parts_of(ref[rows])[name]
    without, gradient_without = learn(part, batch.take(rows), credit.take(rows), logprobs[rows], entropy[rows])
    same(whole[rows], without)
    same(gradient[rows], gradient_without)
    assert not whole[1].any()


@every_part
def test_a_batch_that_trains_nothing_gives_zero(name):
    batch, credit, logprobs, ref, entropy = drawn()
    nothing = replace(credit, mask=torch.zeros_like(credit.mask))
    loss, gradient = learn(parts_of(ref)[name], batch, nothing, logprobs, entropy)
    assert torch.equal(loss, torch.zeros_like(loss))
    assert torch.equal(gradient, torch.zeros_like(gradient))


@every_part
def test_gradients_equal_finite_differences(name):
    batch, credit, logprobs, ref, entropy = drawn()
    part = parts_of(ref.double())[name]
    columns = {key: c.double() if c.is_floating_point() else c for key, c in part.prepare(batch, credit).items()}
    inputs = (logprobs.double().requires_grad_(), entropy.double().requires_grad_())
    assert torch.autograd.gradcheck(lambda x, h: part(Outputs(logprobs=x, entropy=h, values=h), columns).sum(), inputs)


@every_part
def test_a_model_that_does_not_give_what_is_wanted_is_named(name):
    batch, credit, _, ref, _ = drawn()
    part = parts_of(ref)[name]
    with pytest.raises(InputError, match=r"the model gave no (logprobs|entropy|values), though the objective wants"):
        part(Outputs(), part.prepare(batch, credit))


# Bad settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClippedRatio(low=0.0), "clipped_ratio: low is 0.0; it must be above 0 and at most 1"),
        (lambda: ClippedRatio(low=1.1), "clipped_ratio: low is 1.1"),
        (lambda: ClippedRatio(low=NAN), "clipped_ratio: low is nan"),
        (lambda: ClippedRatio(high=0.0), "clipped_ratio: high is 0.0; it must be above 0 and finite"),
        (lambda: ClippedRatio(high=math.inf), "clipped_ratio: high is inf"),
        (lambda: ClippedRatio(dual=1.0), "clipped_ratio: dual is 1.0; it must be above 1 and finite"),
        (lambda: ClippedRatio(dual=math.inf), "clipped_ratio: dual is inf"),
        (lambda: ClippedRatio(level="row"), "clipped_ratio: level is 'row'; it must be 'token' or 'sequence'"),
        (lambda: ClippedRatio(average="mean"), "clipped_ratio: average is 'mean'; it must be 'tokens'"),
        (lambda: ClippedRatio(average="constant"), "clipped_ratio: average='constant' needs length"),
        (lambda: ClippedRatio(average="constant", length=0), "clipped_ratio: average='constant' needs length"),
        (lambda: ClippedRatio(length=8), "clipped_ratio: length is used by average='constant' alone"),
        (lambda: PolicyGradient(average="constant"), "policy_gradient: average='constant' needs length"),
        (lambda: KLPenalty(reference=Fixed(None), coef=-0.1), "kl_penalty: coef is -0.1; it must be at least 0"),
        (lambda: KLPenalty(reference=Fixed(None), coef=0.1, length=3), "kl_penalty: length is used by"),
        (
            lambda: KLPenalty(reference=Fixed(None), coef=0.1, estimator="k1"),
            "must be 'k2' or 'k3'.*k1 as a loss pulls nowhere: on the policy's own samples its expected gradient is 0",
        ),
        (lambda: EntropyBonus(coef=math.inf), "entropy_bonus: coef is inf; it must be at least 0 and finite"),
        (lambda: EntropyBonus(coef=0.1, average="mean"), "entropy_bonus: average is 'mean'"),
        (lambda: ClippedRatio(old="batch"), "clipped_ratio: old is 'batch'; it must be 'rollout' or 'step'"),
        (lambda: ValueLoss(clip=0.0), "value_loss: clip is 0.0; it must be above 0 and finite, or left out"),
        (lambda: ValueLoss(clip=math.inf), "value_loss: clip is inf"),
        (lambda: ValueLoss(coef=-0.1), "value_loss: coef is -0.1; it must be at least 0"),
        (lambda: ValueLoss(average="constant"), "value_loss: average='constant' needs length"),
        (lambda: Objectives({}), "objectives: there is none to minimize"),
        (lambda: Objectives({"a/b": ClippedRatio()}), "objectives: 'a/b' cannot be a name"),
        (lambda: Objectives({"": ClippedRatio()}), "objectives: '' cannot be a name"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_ratio_with_truncated_sampling_is_refused():
    batch, credit, *_ = drawn()
    truncated = replace(batch, rollouts=replace(batch.rollouts, truncated=True))
    with pytest.raises(InputError, match="sampling was truncated"):
        ClippedRatio().prepare(truncated, credit)
