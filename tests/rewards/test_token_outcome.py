"""Token weights by a model of outcomes that learns as it goes: OREAL's numbers by hand, what it reads, resuming."""

import math
from dataclasses import replace

import pytest
import torch
from judge_models import NAN, answered, batch_of, language_model
from sklearn.metrics import log_loss

from reckon.credit import Reshaped
from reckon.errors import InputError, RunError
from reckon.losses import ClonePositives, KLPenalty, Objectives, WeightedNegatives
from reckon.models import Lora, Optimization
from reckon.rewards import Sum, TokenOutcomeModel, Verifier
from reckon.types import LearningReward, Outputs, Problem, Reporting, Rng

RNG = Rng((0, "reward"))


class Learner:
    """A model whose logits are its weights, one for each token of a batch, moved by plain gradient descent.

    Read before a token it gives its weights, read after it minus them.
    """

    def __init__(self, weights, lr=1.0):
        self.weights = torch.tensor(weights, dtype=torch.float32, requires_grad=True)
        self.lr, self.losses, self.read = lr, [], []

    def _outputs(self, seq, want):
        found = self.weights[seq.tokens[:, 0], : seq.mask.shape[1]]
        return Outputs(**{name: {"values": found, "scores": -found}[name] for name in want})

    def outputs(self, seq, want=("logprobs",)):
        self.read.append(seq.tokens[:, 0].tolist())
        with torch.no_grad():
            return self._outputs(seq, want)

    def update(self, objective, batch, credit, rng):
        rows = credit.mask.any(1).nonzero()[:, 0]
        part, due = batch.take(rows), credit.take(rows)
        self.weights.grad = None
        loss = objective(self._outputs(part.seq, objective.want), objective.prepare(part, due))
        assert loss.shape == (len(rows),)  # one for a response, none for tokens
        loss.sum().backward()
        self.losses.append((part.seq.tokens[:, 0].tolist(), loss.tolist()))
        with torch.no_grad():
            self.weights -= self.lr * self.weights.grad
        norm = float(self.weights.grad.norm())
        return {"policy/steps": 1.0, "policy/grad_norm": norm, "tokens/trained": float(due.mask.sum())}

    def state_dict(self):
        return {"weights": self.weights.detach().clone()}

    def load_state_dict(self, state):
        self.weights = state["weights"].clone().requires_grad_()


class Begins:
    """A policy whose twin begins with given logits."""

    def __init__(self, weights):
        self.weights = weights

    def twin(self, optimizer, *, value_head=False):
        assert value_head
        return Learner(self.weights, optimizer.lr)


def rows(outcomes, group, lengths, train=None):
    """A batch in which a row's first token is its number, so that `Learner` knows which row it is."""
    batch = batch_of([["x"] * n for n in lengths], group=group, outcomes=outcomes)
    tokens = torch.arange(len(group))[:, None].expand(batch.seq.mask.shape).contiguous()
    train = torch.ones(len(group), dtype=torch.bool) if train is None else torch.tensor(train)
    return replace(batch, rollouts=replace(batch.rollouts, seq=replace(batch.seq, tokens=tokens)), train=train)


def reward_of(weights, lr=0.0, **settings):
    return TokenOutcomeModel(Begins(weights), optimizer=Optimization(lr=lr, clip=None), **settings)


def values(streams):
    (stream,) = streams.values()
    assert (stream.kind, stream.train) == ("weight", True)
    return stream.values


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# Section 6, check 2: w = [0, 2, -1, 3] in a right response, its mirror in a wrong one; a third nobody could judge, a
# group of right ones alone.
W = [0.0, 2, -1, 3, 99]
MODEL = [W, [-x for x in W], W, W, W, W]
BATCH = rows([1.0, 0.0, NAN, 1.0, 1.0, 0.0], [0, 0, 0, 1, 1, 2], [4, 4, 4, 4, 2, 4])
MEANS, SINGLE = [0, 0.46212, 0.16514, 0.46212], [0, 0.76159, 0, 0.90515]


@pytest.mark.parametrize(("how", "wanted"), [("mean", MEANS), ("token", SINGLE), ("top", [0, 1, 0, 1])])
def test_a_right_and_a_wrong_response_by_hand(how, wanted):
    found = values(reward_of(MODEL, how=how).score(BATCH))
    for row in (0, 1):
        assert found[row].tolist() == pytest.approx([*wanted, 0], abs=5e-6)
    assert found[2:].isnan().all()


def test_after_the_token_the_other_reading_is_taken():
    """Minus the weights there: the right response looks wrong and weighs nothing, and so does the wrong one."""
    found = values(reward_of(MODEL, position="after").score(BATCH))
    assert not found[:2].any()
    single = values(reward_of(MODEL, position="after", how="token").score(BATCH))
    assert single[0].tolist() == single[1].tolist() == pytest.approx([0, 0, 0.46212, 0, 0], abs=5e-6)


def test_the_threshold_and_the_top_reach_the_weights():
    assert values(reward_of(MODEL, threshold=0.6).score(BATCH))[0, 1] == pytest.approx(0.32765, abs=5e-6)
    top = values(reward_of(MODEL, how="top", top=0.25).score(BATCH))
    assert top[0].tolist() == [0, 1, 0, 0, 0]


def test_one_cross_entropy_of_the_mean_for_each_response():
    """The mean is 1: -log s(1) = 0.31326 where it is right and 1.31326 where it is wrong; sklearn agrees."""
    batch = rows([1.0, 0.0], [0, 0], [4, 4])
    reward = reward_of([W, W])
    reward.assess(batch, RNG)
    ((taken, losses),) = reward.model.losses
    assert taken == [0, 1]
    assert losses == pytest.approx([0.31326 / 2, 1.31326 / 2], abs=5e-6)
    wanted = log_loss([1, 0], [sigmoid(1), sigmoid(1)])
    assert reward.metrics()["loss"] == pytest.approx(wanted, rel=1e-6)
    assert reward.metrics()["accuracy"] == 0.5


def test_the_gradient_is_of_the_mean_and_not_of_tokens():
    """(s(1) - l) / 2 rows / 4 tokens at every token alike, whatever its own logit; nothing beyond the response."""
    reward = reward_of([W, W], lr=1.0)
    reward.assess(rows([1.0, 0.0], [0, 0], [4, 2]), RNG)
    moved = reward.model.weights.detach() - torch.tensor([W, W])
    right, wrong = (sigmoid(1) - 1) / 8, sigmoid(1) / 4  # the wrong one has two tokens, 0 and 2: also a mean of 1
    wanted = [[-right] * 4 + [0.0], [-wrong] * 2 + [0.0] * 3]
    torch.testing.assert_close(moved, torch.tensor(wanted), rtol=0, atol=1e-6)
    told = reward.metrics()
    assert told["grad_norm"] == pytest.approx(math.sqrt(4 * right**2 + 2 * wrong**2), rel=1e-5)
    assert (told["steps"], told["tokens"]) == (1, 6)


def test_a_balanced_loss_gives_each_side_one_half():
    """One right and three wrong ones, all with a mean of 1."""
    batch = rows([1.0, 0.0, 0.0, 0.0], [0] * 4, [4] * 4)
    plain, balanced = (reward_of([W] * 4, balanced=balanced) for balanced in (False, True))
    for reward in (plain, balanced):
        reward.assess(batch, RNG)
    assert plain.model.losses[0][1] == pytest.approx([0.31326 / 4] + [1.31326 / 4] * 3, abs=5e-6)
    assert balanced.model.losses[0][1] == pytest.approx([0.31326 / 2] + [1.31326 / 6] * 3, abs=5e-6)


def test_it_reads_and_learns_from_the_rows_that_train_of_groups_with_both():
    """Rows 0, 3 of group 0; of group 1 only a right one trains; group 2 has no verdict on its wrong one."""
    batch = rows(
        [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, NAN],
        [0, 0, 0, 0, 1, 1, 2, 2],
        [2] * 8,
        train=[True, False, False, True, True, False, True, True],
    )
    reward = reward_of([[1.0, 1, 1]] * 8, lr=1.0)
    found = values(reward.assess(batch, RNG))
    assert reward.model.read == [[0, 3]]
    assert reward.model.losses[0][0] == [0, 3]
    assert found.isnan().all(dim=1).tolist() == [False, True, True, False, True, True, True, True]


def test_weights_are_taken_before_it_learns_and_score_is_pure():
    reward = reward_of(MODEL, lr=5.0)
    before = values(reward.score(BATCH))
    assert torch.equal(values(reward.score(BATCH))[:2], before[:2])
    first = values(reward.assess(BATCH, RNG))
    assert torch.equal(first[:2], before[:2])
    after = values(reward.score(BATCH))
    assert (after[:2, :4] >= first[:2, :4]).all()
    assert not torch.equal(after[:2], first[:2])
    assert isinstance(reward, LearningReward)
    assert isinstance(reward, Reporting)


def test_what_it_tells_by_hand():
    """Weights of the right response as above, of the wrong one only its first token: mean 1 says right."""
    reward = reward_of([W, [-2.0, 2, 3, 0, 0]])
    reward.assess(rows([1.0, 0.0], [0, 0], [4, 3]), RNG)
    told = reward.metrics()
    assert told["right"] == pytest.approx(sum(MEANS) / 4, abs=5e-6)
    assert told["wrong"] == pytest.approx(math.tanh(1) / 3, abs=5e-6)  # means -2, 0, 1
    assert told["accuracy"] == 0.5
    undecided = reward_of([[0.0] * 5] * 2)
    undecided.assess(rows([1.0, 0.0], [0, 0], [4, 3]), RNG)
    assert undecided.metrics()["accuracy"] == 0.5
    assert undecided.metrics()["loss"] == pytest.approx(math.log(2))


@pytest.mark.parametrize("outcome", [[NAN] * 2, [1.0, 1.0], [0.0, 0.0], [1.0, NAN]])
def test_an_all_filtered_batch_is_skipped(outcome):
    """Check 10: no pass, no step, and weights that nobody has."""
    reward = reward_of([W, W], lr=1.0)
    found = values(reward.assess(rows(outcome, [0, 0], [4, 4]), RNG))
    assert found.isnan().all()
    assert reward.model.losses == reward.model.read == []
    told = reward.metrics()
    assert (told["steps"], told["tokens"]) == (0, 0)
    assert all(math.isnan(told[name]) for name in ("loss", "accuracy", "right", "wrong"))


def test_the_weights_of_a_batch_reach_its_credit():
    streams = Sum({"right": Verifier(wrong=-1.0), "tokens": reward_of(MODEL)}).assess(BATCH, RNG)
    credit = Reshaped()(BATCH, streams)
    assert credit.weights[0].tolist() == pytest.approx([*MEANS, 1], abs=5e-6)
    assert credit.advantages[0].tolist() == [2, 2, 2, 2, 0]
    assert credit.advantages[1].tolist() == [-2, -2, -2, -2, 0]
    assert not credit.mask[2].any()


# With a language model

PROBLEMS = [Problem(id=str(i), prompt=f"{i}+1=", answer=str(i + 1)) for i in range(2)]
TEXTS, WHICH, RIGHT = ["1", "5,5", "2", "7"], [0, 0, 1, 1], [1.0, 0.0, 1.0, 0.0]
FAST = Optimization(lr=1e-2, weight_decay=0.01)


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_a_language_model_begins_at_0_and_learns_what_is_right(lora, position):
    """Check 4: at first every weight is exactly 0, whatever head the policy itself has."""
    policy = language_model(lora=lora)
    batch = answered(policy, PROBLEMS, TEXTS, group=WHICH, outcomes=RIGHT)
    reward = TokenOutcomeModel(policy, optimizer=FAST, position=position)
    weights = {name: x.clone() for name, x in policy.state_dict()["weights"].items()}
    assert torch.equal(values(reward.assess(batch, RNG)), torch.zeros(batch.seq.mask.shape))
    assert reward.metrics()["loss"] == pytest.approx(math.log(2))
    for step in range(30):
        reward.assess(batch, RNG.child(step))
    told = reward.metrics()
    assert told["loss"] < 0.2
    assert told["accuracy"] == 1
    assert min(told["right"], told["wrong"]) > 0.3
    assert all(torch.equal(x, weights[name]) for name, x in policy.state_dict()["weights"].items())
    assert (reward.model.network is policy.network) == (lora is not None)


def test_with_a_head_of_zeros_the_policy_gets_the_gradient_of_the_penalty_alone():
    """Check 4, through the policy's own update: at the reference nothing moves, away from it the penalty pulls."""
    policy = language_model(head=False, optimizer=Optimization(lr=1e-2, clip=None))
    batch = answered(policy, PROBLEMS, TEXTS, group=WHICH, outcomes=RIGHT)
    streams = Sum({"right": Verifier(wrong=-1.0), "tokens": TokenOutcomeModel(policy)}).assess(batch, RNG)
    credit = Reshaped()(batch, streams)
    parts = {"right": ClonePositives(), "wrong": WeightedNegatives()}
    penalty = KLPenalty(reference=policy.reference(), coef=0.01, average="tokens")
    told = policy.update(Objectives({**parts, "kl": penalty}), batch, credit, RNG)
    assert told["policy/grad_norm"] == pytest.approx(0, abs=1e-6)
    told = policy.update(Objectives(parts), batch, credit, RNG)
    assert (told["policy/steps"], told["policy/silent"]) == (0, 1)
    weightless = replace(credit, weights=torch.ones_like(credit.weights))
    assert policy.update(Objectives(parts), batch, weightless, RNG)["policy/grad_norm"] > 0.01


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_micro_batches_of_any_size_teach_the_same(lora):
    found = []
    for budget in (8, 1024):
        policy = language_model(lora=lora, tokens_per_batch=budget)
        batch = answered(policy, PROBLEMS, TEXTS, group=WHICH, outcomes=RIGHT)
        reward = TokenOutcomeModel(policy, optimizer=FAST, balanced=True)
        for step in range(3):
            reward.assess(batch, RNG.child(step))
        found.append(values(reward.score(batch)))
    assert found[0].any()
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_saved_and_loaded_it_goes_on_to_the_last_bit(lora):
    def made():
        policy = language_model(lora=lora)
        optimizer = Optimization(lr=1e-2, minibatches=2, epochs=2, weight_decay=0.1)
        return policy, Sum({"tokens": TokenOutcomeModel(policy, optimizer=optimizer)})

    def go(tree, batch, steps):
        return [tree.assess(batch, Rng((step,)))["tokens"].values for step in steps]

    policy, whole = made()
    batch = answered(policy, PROBLEMS, TEXTS, group=WHICH, outcomes=RIGHT)
    wanted = go(whole, batch, range(4))
    _, first = made()
    go(first, batch, range(2))
    state = first.state_dict()
    later_policy, again = made()
    later_policy.step(batch.seq, {"mask": batch.seq.mask.float()}, lambda o, c: -o.logprobs * c["mask"])
    again.load_state_dict(state)  # the policy has moved on by then: nothing of it may leak into the judge
    for one, other in zip(go(again, batch, range(2, 4)), wanted[2:], strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(wanted[1], wanted[3])
    assert whole.metrics()["reward/tokens/steps"] == 4


# Bad input


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"how": "cumulative"}, "`how` is 'cumulative'; it must be one of mean, token, top"),
        ({"position": "at"}, "`position` is 'at'"),
        ({"threshold": 1.0}, "`threshold` is 1.0"),
        ({"threshold": -0.1}, "`threshold` is -0.1"),
        ({"how": "top", "top": 0.0}, "`top` is 0.0"),
        ({"how": "top", "top": 1.5}, "`top` is 1.5"),
        ({"top": 0.25}, "`top` is not read with how='mean'. Leave it out"),
        ({"how": "top", "threshold": 0.6}, "`threshold` is not read with how='top'"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=f"token_outcome_model: {says}"):
        reward_of(MODEL, **settings)


def test_logits_that_are_not_finite_are_told():
    with pytest.raises(RunError, match=r"logits are not finite. Lower `optimizer.lr`"):
        reward_of([[NAN] * 5] * 6).assess(BATCH, RNG)


def test_another_tokenizer_is_refused():
    policy = language_model()
    batch = answered(policy, PROBLEMS, TEXTS, group=WHICH, outcomes=RIGHT)
    texts = replace(batch.rollouts, text=("other", "words", "than", "these"))
    with pytest.raises(InputError, match=r"token_outcome_model: .* another tokenizer"):
        TokenOutcomeModel(policy).score(replace(batch, rollouts=texts))
