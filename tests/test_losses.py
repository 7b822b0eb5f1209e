import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.errors import InputError
from reckon.losses import ClippedRatio, EntropyBonus, KLPenalty, Objectives, PolicyGradient, ValueLoss
from reckon.types import Batch, Credit, Outputs, Problem, Rollouts, Seen, Sequences, Stateful

slow_start = settings(
    deadline=None, max_examples=20
)  # torch's first call takes longer than hypothesis allows an example
NAN = math.nan


@dataclass
class Fixed:
    """A reference that answers every batch of the right size with the same log-probs."""

    logprobs: torch.Tensor
    asked: list[int] = field(default_factory=list)

    def outputs(self, seq: Sequences, want: Iterable[str] = ("logprobs",)) -> Outputs:
        assert tuple(want) == ("logprobs",)
        self.asked.append(len(seq.tokens))
        return Outputs(logprobs=self.logprobs)


def batch_of(mask, old):
    n = len(mask)
    nothing = torch.zeros(0)
    rollouts = Rollouts(
        seq=Sequences(
            prompts=(torch.tensor([1]),),
            group=torch.zeros(n, dtype=torch.int64),
            tokens=torch.zeros(mask.shape, dtype=torch.int64),
            mask=mask,
        ),
        problems=(Problem(id="0", prompt="?"),),
        text=("",) * n,
        pieces=((),) * n,
        logprobs=old,
        end=torch.zeros(n, dtype=torch.int64),
    )
    return Batch(
        rollouts=rollouts,
        outcome=torch.zeros(n),
        train=torch.ones(n, dtype=torch.bool),
        seen=Seen(problems=(), outcome=nothing, lengths=nothing.long(), end=nothing.long(), rounds=1, wanted=1, kept=1),
        step=0,
    )


def credit_of(advantages, mask, weights=None):
    if advantages.ndim == 1:
        advantages = advantages[:, None].expand(mask.shape)
    return Credit(
        advantages=torch.where(mask, advantages, 0.0),
        weights=torch.ones(mask.shape) if weights is None else weights,
        mask=mask,
    )


def drawn(n=6, width=5, seed=0):
    """A ragged batch with a row that does not train, its credit, log-probs, the reference's, and entropies.

    The entropies serve as values too; a critic had others before.
    """
    rng = torch.Generator().manual_seed(seed)
    mask = torch.arange(width) < torch.randint(1, width + 1, (n,), generator=rng)[:, None]
    trains = mask.clone()
    trains[1] = False
    old, ref, entropy = (-3 * torch.rand(n, width, generator=rng) for _ in range(3))
    logprobs = old + 0.4 * torch.randn(n, width, generator=rng)
    weights = torch.rand(n, width, generator=rng)
    credit = credit_of(torch.randn(n, width, generator=rng), trains, weights)
    returns, values = torch.randn(2, n, width, generator=rng).unbind()
    return batch_of(mask, old), replace(credit, returns=returns, values=values - entropy), logprobs, ref, -entropy


def parts_of(ref):
    return {
        "clipped": ClippedRatio(),
        "dapo": ClippedRatio(high=0.28, dual=3.0, average="tokens"),
        "gspo": ClippedRatio(low=0.1, high=0.1, level="sequence"),
        "gradient": PolicyGradient(average="constant", length=7),
        "k2": KLPenalty(reference=Fixed(ref), coef=0.1, estimator="k2", average="tokens"),
        "k3": KLPenalty(reference=Fixed(ref), coef=0.1),
        "entropy": EntropyBonus(coef=0.1),
        "white": ClippedRatio(whiten=True, average="tokens"),
        "white gradient": PolicyGradient(whiten=True),
        "value": ValueLoss(average="sequences"),
        "held value": ValueLoss(clip=0.5, coef=0.7),
    }


every_part = pytest.mark.parametrize("name", parts_of(None))


def same(found, wanted, tolerance=1e-6):
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=tolerance, atol=tolerance)


def learn(objective, batch, credit, logprobs, entropy=None):
    """Loss [N, T] and its gradient with respect to log-probs (and entropies, added)."""
    leaf = logprobs.clone().requires_grad_()
    other = None if entropy is None else entropy.clone().requires_grad_()
    loss = objective(Outputs(logprobs=leaf, entropy=other, values=other), objective.prepare(batch, credit))
    loss.sum().backward()
    zero = torch.zeros_like(leaf)
    return loss.detach(), (zero if leaf.grad is None else leaf.grad) + (
        zero if other is None or other.grad is None else other.grad
    )


# By hand


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


# What all parts share


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


# Sums


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


def test_a_saved_state_that_is_none_is_refused():
    with pytest.raises(InputError, match="objectives: the saved state of 'own' is not one"):
        Objectives({"own": PerResponse()}).load_state_dict({"own": 3})


# TRL


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
