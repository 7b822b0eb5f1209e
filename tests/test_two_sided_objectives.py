"""What right responses are imitated by and wrong ones pushed away by: numbers of OREAL's specification, and loops."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_batches import same
from loss_batches import Fixed, batch_of, credit_of
from reckon.errors import InputError
from reckon.losses import ClonePositives, KLPenalty, Objectives, PolicyGradient, WeightedNegatives
from reckon.models.table import Action, TablePolicy
from reckon.objectives import kl, policy_gradient, self_ratio
from reckon.types import Credit, Outputs, Problem, Rng

NAN = math.nan

# Two right responses of 2 and 3 tokens, two wrong ones of 1 and 3, one nobody could judge; the fourth is context.
LENGTHS, OUTCOME, ADVANTAGES = [2, 3, 1, 3, 2], [1.0, 1.0, 0.0, 0.0, NAN], [1.5, 0.5, -2.0, -9.0, 1.0]
MASK = torch.arange(3) < torch.tensor(LENGTHS)[:, None]
WEIGHTS = torch.tensor([[0.5, 0.0, 1], [1, 1, 0.25], [0.5, 1, 1], [1, 1, 1], [1, 1, 1]])
LOGPROBS = torch.tensor([[-1.0, -2, -9], [-0.5, -1, -4], [-3.0, -9, -9], [-1.0, -1, -1], [-1.0, -1, -9]])


def example():
    batch = replace(batch_of(MASK, torch.zeros(5, 3)), outcome=torch.tensor(OUTCOME))
    trains = MASK & torch.tensor([True, True, True, False, True])[:, None]
    return batch, credit_of(torch.tensor(ADVANTAGES), trains, WEIGHTS)


def learned(objective, batch, credit, logprobs):
    leaf = logprobs.clone().requires_grad_()
    loss = objective(Outputs(logprobs=leaf), objective.prepare(batch, credit))
    loss.sum().backward()
    return loss.detach(), leaf.grad


def test_cloning_by_hand():
    """Five tokens are right, whatever their weights: A w (-log pi) / 5, with A 1.5 and 0.5."""
    loss, gradient = learned(ClonePositives(), *example(), LOGPROBS)
    same(loss, torch.tensor([[0.75, 0, 0], [0.25, 0.5, 0.5], [0, 0, 0], [0, 0, 0], [0, 0, 0]]) / 5)
    same(gradient, torch.tensor([[-0.75, 0, 0], [-0.5, -0.5, -0.125], [0, 0, 0], [0, 0, 0], [0, 0, 0]]) / 5)


def test_negatives_by_hand():
    """One token is wrong and trains: value -0.5 (-2) 0.5 / 1, and the same gradient, by rho = 1."""
    loss, gradient = learned(WeightedNegatives(), *example(), LOGPROBS)
    wanted = torch.zeros(5, 3)
    wanted[2, 0] = 0.5
    same(loss, wanted)
    same(gradient, wanted)


def test_the_rho_form_has_the_value_of_the_advantages_and_the_gradient_of_log_probs():
    """Check 8: against the explicit log-prob loss; what stands in padding, infinities and NaN included, is nothing."""
    advantages = torch.tensor(ADVANTAGES)[:, None].expand(5, 3)
    spoiled = torch.where(MASK, LOGPROBS, torch.tensor([[-torch.inf, NAN, torch.inf]]))
    leaf, other = (spoiled.clone().requires_grad_() for _ in range(2))
    loss, explicit = self_ratio(leaf, advantages, MASK), policy_gradient(other, advantages, MASK)
    same(loss.detach(), torch.where(MASK, -advantages, 0.0))
    loss.sum().backward()
    explicit.sum().backward()
    assert torch.equal(leaf.grad, other.grad)
    assert torch.equal(leaf.grad, torch.where(MASK, -advantages, 0.0))


def test_without_the_other_side_nothing_is_divided_by_zero():
    batch, credit = example()
    all_right = replace(batch, outcome=torch.ones(5))
    loss, gradient = learned(WeightedNegatives(), all_right, credit, LOGPROBS)
    assert not loss.any()
    assert not gradient.any()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_the_whole_loss_against_a_loop(seed):
    """Section 2.2, step 7, one token after another."""
    numbers = torch.Generator().manual_seed(seed)
    n, width = 7, 4
    mask = torch.arange(width) < torch.randint(0, width + 1, (n, 1), generator=numbers)
    outcome = torch.tensor([0.0, 1.0, NAN])[torch.randint(0, 3, (n,), generator=numbers)]
    logprobs, ref, advantages = torch.randn(3, n, width, generator=numbers).unbind()
    weights = torch.rand(n, width, generator=numbers)
    credit = Credit(advantages=torch.where(mask, advantages, 0.0), weights=weights, mask=mask)
    batch = replace(batch_of(mask, torch.zeros(n, width)), outcome=outcome)
    objective = Objectives(
        {
            "right": ClonePositives(coef=0.9),
            "wrong": WeightedNegatives(coef=0.4),
            "kl": KLPenalty(reference=Fixed(ref), coef=0.01, average="tokens"),
        }
    )
    tokens = [(i, t) for i in range(n) for t in range(width) if mask[i, t]]
    right = [(i, t) for i, t in tokens if outcome[i] == 1]
    wrong = [(i, t) for i, t in tokens if outcome[i] == 0]
    value, slope = 0.0, torch.zeros(n, width)
    for i, t in right:
        share = 0.9 * float(advantages[i, t] * weights[i, t]) / len(right)
        value, slope[i, t] = value - share * float(logprobs[i, t]), slope[i, t] - share
    for i, t in wrong:
        share = 0.4 * float(advantages[i, t] * weights[i, t]) / len(wrong)
        value, slope[i, t] = value - share, slope[i, t] - share
    for i, t in tokens:
        d = float(ref[i, t] - logprobs[i, t])
        value += 0.01 * (math.exp(d) - d - 1) / len(tokens)
        slope[i, t] += 0.01 * (1 - math.exp(d)) / len(tokens)
    loss, gradient = learned(objective, batch, credit, logprobs)
    assert float(loss.sum()) == pytest.approx(value, rel=1e-4, abs=1e-5)
    same(gradient, slope, 1e-5)


def test_with_one_coefficient_and_no_weights_it_is_policy_gradient_divided_by_side():
    """Check 11: rescaling every side by its tokens over all tokens gives one policy gradient over all tokens."""
    batch, credit = example()
    credit = replace(credit, weights=torch.ones(5, 3))
    known = replace(credit, mask=credit.mask & ~batch.outcome.isnan()[:, None])
    both = Objectives({"right": ClonePositives(), "wrong": WeightedNegatives(coef=1.0)})
    _, split = learned(both, batch, credit, LOGPROBS)
    _, plain = learned(PolicyGradient(average="tokens"), batch, known, LOGPROBS)
    same(split[:2] * 5 / 6, plain[:2])
    same(split[2:3] * 1 / 6, plain[2:3])


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_cut_into_micro_batches_the_gradient_is_the_same(cut):
    """Check 9: denominators are of the whole, also where a piece has one side only."""
    batch, credit = example()
    both = Objectives({"right": ClonePositives(), "wrong": WeightedNegatives()})
    _, whole = learned(both, batch, credit, LOGPROBS)
    columns, leaf = both.prepare(batch, credit), LOGPROBS.clone().requires_grad_()
    for rows in torch.arange(5).split(cut):
        both(Outputs(logprobs=leaf[rows]), {name: column[rows] for name, column in columns.items()}).sum().backward()
    same(leaf.grad, whole)


def test_rows_that_learn_nothing_are_known():
    batch, credit = example()
    silent = {
        part: part.silent(batch, credit).tolist()
        for part in (ClonePositives(), WeightedNegatives(), ClonePositives(coef=0.0))
    }
    assert list(silent.values()) == [
        [False, False, True, True, True],
        [True, True, False, True, True],
        [True] * 5,
    ]
    zero = replace(credit, weights=torch.zeros(5, 3))
    both = Objectives({"right": ClonePositives(), "wrong": WeightedNegatives()})
    assert both.silent(batch, zero).all()


# With a zero head every weight is 0: check 4


def test_weights_of_zero_leave_the_penalty_alone_and_from_the_reference_nothing():
    batch, credit = example()
    zero = replace(credit, weights=torch.zeros(5, 3))
    penalty = KLPenalty(reference=Fixed(LOGPROBS + 0.3), coef=0.01, average="tokens")
    parts = {"right": ClonePositives(), "wrong": WeightedNegatives()}
    _, found = learned(Objectives({**parts, "kl": penalty}), batch, zero, LOGPROBS)
    _, wanted = learned(penalty, batch, zero, LOGPROBS)
    assert torch.equal(found, wanted)
    assert found.any()
    same_policy = KLPenalty(reference=Fixed(LOGPROBS), coef=0.01, average="tokens")
    _, none = learned(Objectives({**parts, "kl": same_policy}), batch, zero, LOGPROBS)
    assert not none.any()


# Check 7: what k3 measures and what it pulls towards


def test_k3_measures_one_divergence_and_pulls_along_the_other():
    """pi = (.5, .3, .2), ref = (.2, .5, .3): E k3 = KL(pi || ref) = .223805; gradient pi - ref = (.3, -.2, -.1)."""
    law, ref = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.5, 0.3]).double()
    logits = law.log().requires_grad_()
    logprobs = logits.log_softmax(0)
    penalty = kl(logprobs[None], ref.log()[None], torch.ones(1, 3, dtype=torch.bool), "k3")[0]
    assert float((law * penalty).sum().detach()) == pytest.approx(0.223805, abs=5e-7)
    (sampled,) = torch.autograd.grad((law * penalty).sum(), logits, retain_graph=True)
    assert sampled.tolist() == pytest.approx([0.3, -0.2, -0.1])
    (reverse,) = torch.autograd.grad((ref * (ref.log() - logprobs)).sum(), logits, retain_graph=True)
    assert sampled.tolist() == pytest.approx(reverse.tolist())
    (forward,) = torch.autograd.grad((logprobs.exp() * (logprobs - ref.log())).sum(), logits)
    # pi (log(pi / ref) - KL): .5 (.916291 - .223805), .3 (-.510826 - .223805), .2 (-.405465 - .223805)
    assert forward.tolist() == pytest.approx([0.346243, -0.220389, -0.125854], abs=1e-6)


# Through a policy's update


def test_a_table_clones_what_is_right_and_leaves_what_is_wrong():
    table = TablePolicy([Action(text=t) for t in "abc"], torch.zeros(3), optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
    rollouts = table.sample([Problem(id="0", prompt="?")], 64, Rng((1,)))
    batch = replace(batch_of(rollouts.seq.mask, rollouts.logprobs), rollouts=rollouts)
    outcome = (rollouts.seq.tokens[:, 0] == 0).float()
    outcome[rollouts.seq.tokens[:, 0] == 2] = NAN
    batch = replace(batch, outcome=outcome)
    known = rollouts.seq.mask & ~outcome.isnan()[:, None]
    credit = credit_of(torch.where(outcome == 1, 1.0, -1.0), known)
    both = Objectives({"right": ClonePositives(), "wrong": WeightedNegatives(coef=0.5)})
    told = table.update(both, batch, credit, Rng((2,)))
    # log pi(a) weighs 1, log pi(b) -0.5; the gradient of log pi(y) is onehot(y) - 1/3.
    same(table.logits.detach()[0], [1 - 1 / 3 + 0.5 / 3, -1 / 3 - 0.5 * 2 / 3, -1 / 3 + 0.5 / 3])
    assert told["tokens/trained"] == known.sum()


@pytest.mark.parametrize("part", [ClonePositives, WeightedNegatives])
@pytest.mark.parametrize("coef", [-0.1, math.inf, NAN])
def test_coefficients_that_cannot_be(part, coef):
    with pytest.raises(InputError, match=r"_(positives|negatives): coef is"):
        part(coef=coef)
