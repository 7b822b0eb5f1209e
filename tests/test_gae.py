"""The advantage part that asks a critic: what it credits, what it hands on, and a critic of its own that learns."""

import math
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch

from credit_batches import batch_of, same, stream
from reckon.credit import GAE, earnings
from reckon.errors import InputError
from reckon.losses import ClippedRatio, Objectives, ValueLoss
from reckon.models.table import Action, TablePolicy
from reckon.types import Batch, Outputs, Problem, Reporting, Rng, Seen, Stateful, Stream

NAN = math.nan
SGD = partial(torch.optim.SGD, lr=0.5)


@dataclass
class Fixed:
    """A critic that says the same about every batch, and notes what it is taught."""

    values: torch.Tensor
    taught: list[tuple] = field(default_factory=list)

    def outputs(self, seq, want=("logprobs",)):
        assert tuple(want) == ("values",)
        return Outputs(values=self.values)

    def update(self, objective, batch, credit, rng):
        self.taught.append((objective, credit, rng))
        self.values = self.values + 100
        return {"policy/loss": 0.5, "tokens/trained": 6.0}

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]


# What is credited


CHARGE = [[-0.01, 0.005, -0.02]]  # the KL (0.2, -0.1, 0.4), charged at 0.05
VALUES = torch.tensor([[0.5, 0.8, 1.0]])


def test_the_score_is_earned_by_the_last_token_and_the_charge_by_each():
    batch = batch_of([0], [3])
    credit = GAE(critic=Fixed(VALUES))(batch, {"score": stream([2.0]), "kl": stream(CHARGE)})
    same(credit.advantages, [[1.3692, 1.1360, 0.98]])
    same(credit.returns, [[1.8692, 1.9360, 1.98]])
    same(credit.values, VALUES)
    white = GAE(critic=Fixed(VALUES), whiten=True)(batch, {"score": stream([2.0]), "kl": stream(CHARGE)})
    same(white.advantages, [[1.05918, -0.13138, -0.92781]], 1e-5)
    same(white.returns, credit.returns)  # of the advantages before they were whitened
    to_go = GAE(critic=Fixed(VALUES), lam=1.0)(batch, {"score": stream([2.0]), "kl": stream(CHARGE)})
    same(to_go.advantages, [[1.475, 1.185, 0.98]])


def test_the_last_real_token_is_neither_padding_nor_a_given_prefix():
    batch = batch_of([0, 0], [3, 1], width=5, before=2)
    earned = earnings(batch, {"score": stream([2.0, 3.0])})
    assert earned.rewards.tolist() == [[0, 0, 0, 0, 2, 0, 0], [0, 0, 3, 0, 0, 0, 0]]


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("rubbish", [NAN, math.inf])
def test_padding_on_either_side_changes_nothing(before, after, rubbish):
    plain = batch_of([0, 0], [3, 2])
    wide = batch_of([0, 0], [3, 2], width=3 + after, before=before)
    values, charge = torch.tensor([[0.5, 0.8, 1.0], [0.1, 0.2, 9.0]]), torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 9.0]])
    streams = {"score": stream([2.0, -1.0]), "kl": Stream(values=charge)}
    wanted = GAE(critic=Fixed(values), whiten=True, whiten_rewards=True)(plain, streams)

    def widened(x):
        full = torch.nn.functional.pad(x, (before, after))
        return torch.where(wide.seq.mask, full, rubbish)

    found = GAE(critic=Fixed(widened(values)), whiten=True, whiten_rewards=True)(
        wide, {"score": streams["score"], "kl": Stream(values=widened(charge).nan_to_num(posinf=5.0))}
    )
    for name in ("advantages", "returns", "values"):
        part = getattr(found, name)
        same(part[:, before : before + 3], getattr(wanted, name))
        assert not part[~wide.seq.mask].any()


def test_the_order_of_rows_changes_nothing():
    """Groups 0 and 1 trade places, their rows with them."""
    order = torch.tensor([2, 3, 0, 1])
    lengths, values = torch.tensor([3, 1, 2, 3]), torch.arange(12.0).reshape(4, 3) / 8
    scores = torch.tensor([1.0, NAN, 0.5, 0.25])
    part = partial(GAE, whiten=True, whiten_rewards=True)
    one = part(critic=Fixed(values))(batch_of([0, 0, 1, 1], lengths.tolist()), {"r": Stream(values=scores)})
    other = part(critic=Fixed(values[order]))(
        batch_of([0, 0, 1, 1], lengths[order].tolist()), {"r": Stream(values=scores[order])}
    )
    for name in ("advantages", "returns", "values", "mask"):
        same(getattr(other, name), getattr(one, name)[order])


def test_unknown_rows_train_nothing_and_have_no_say_in_whitening():
    batch, values = batch_of([0, 0, 0], [2, 2, 2]), torch.zeros(3, 2)
    known = GAE(critic=Fixed(values[:2]), whiten=True)(batch_of([0, 0], [2, 2]), {"r": stream([1.0, 0.0])})
    found = GAE(critic=Fixed(values), whiten=True)(batch, {"r": stream([1.0, 0.0, NAN])})
    same(found.advantages[:2], known.advantages)
    assert not found.mask[2].any()
    assert not found.advantages[2].any()
    assert not found.returns[2].any()


def test_context_rows_have_a_say_in_whitening_and_train_nothing():
    """Returns 1 and 0 at single tokens: mean 1/2, variance 1/2."""
    batch = batch_of([0, 0], [1, 1], train=[True, False])
    found = GAE(critic=Fixed(torch.zeros(2, 1)), whiten=True)(batch, {"r": stream([1.0, 0.0])})
    same(found.advantages, [[1 / math.sqrt(2)], [0]], 1e-5)
    assert found.mask.tolist() == [[True], [False]]


def test_advantage_streams_are_added_after_whitening_and_weights_multiply():
    batch, critic = batch_of([0], [3]), Fixed(VALUES)
    streams = {"score": stream([2.0]), "kl": stream(CHARGE)}
    beside = {"bonus": stream([[0.0, 10.0, NAN]], "advantage"), "focus": stream([[1.0, 3.0, NAN]], "weight")}
    plain = GAE(critic=critic, whiten=True)(batch, streams)
    found = GAE(critic=critic, whiten=True)(batch, {**streams, **beside})
    same(found.advantages - plain.advantages, [[0, 10, 0]])
    same(found.weights, [[1, 3, 1]])
    same(found.returns, plain.returns)  # a bonus is no reward, so the critic does not hear of it


def test_a_watched_stream_changes_nothing():
    batch, streams = batch_of([0], [3]), {"score": stream([2.0])}
    plain = GAE(critic=Fixed(VALUES))(batch, streams)
    beside = GAE(critic=Fixed(VALUES))(batch, {**streams, "kl": stream([[9.0, NAN, math.inf]], train=False)})
    assert torch.equal(plain.advantages, beside.advantages)
    assert torch.equal(plain.returns, beside.returns)


def test_whitened_rewards_keep_their_mean():
    """Rewards 0, 0, 3 of one response: mean 1, deviation sqrt(3): 1 - 1/sqrt(3) twice, and 1 + 2/sqrt(3)."""
    found = GAE(critic=Fixed(torch.zeros(1, 3)), lam=0.0, whiten_rewards=True)(batch_of([0], [3]), {"r": stream([3.0])})
    low = 1 - 1 / math.sqrt(3)
    same(found.advantages, [[low, low, 1 + 2 / math.sqrt(3)]], 1e-5)


# A critic of its own


def test_it_learns_after_the_advantages_are_made():
    critic, objective = Fixed(VALUES), ValueLoss(coef=1.0)
    part = GAE(critic=critic, learn=objective)
    batch = replace(batch_of([0], [3], step=7), rng=Rng((3, 7)))
    streams = {"score": stream([2.0]), "kl": stream(CHARGE)}
    credit = part(batch, streams)
    same(credit.values, VALUES)
    ((taught, given, rng),) = critic.taught
    assert taught is objective
    assert rng == Rng((3, 7, "critic"))  # the run's seed and the step
    assert torch.equal(given.returns, credit.returns)
    assert torch.equal(given.values, credit.values)
    same(part(batch, streams).values, VALUES + 100)
    assert isinstance(part, Reporting)
    assert part.metrics().keys() == {"critic/explained_variance", "critic/loss", "critic/trained"}
    assert part.metrics()["critic/loss"] == 0.5


def test_while_it_warms_up_only_the_critic_learns():
    critic = Fixed(VALUES)
    part = GAE(critic=critic, learn=ValueLoss(coef=1.0), warmup=2)
    streams = {"score": stream([2.0]), "bonus": stream([5.0], "advantage")}
    for step, learns in ((0, False), (1, False), (2, True)):
        credit = part(batch_of([0], [3], step=step), streams)
        assert bool(credit.mask.any()) is bool(credit.advantages.any()) is learns
        assert critic.taught[-1][1].mask.all()
    assert len(critic.taught) == 3


def test_a_critic_of_its_own_is_saved_and_a_shared_one_is_not():
    own = GAE(critic=Fixed(VALUES), learn=ValueLoss(coef=1.0))
    assert isinstance(own, Stateful)
    fresh = GAE(critic=Fixed(torch.zeros(1, 3)), learn=ValueLoss(coef=1.0))
    fresh.load_state_dict(own.state_dict())
    assert torch.equal(fresh.critic.values, VALUES)
    shared = GAE(critic=Fixed(VALUES))
    assert shared.state_dict() == {}
    shared.load_state_dict({})
    for part, state in ((shared, own.state_dict()), (own, {})):
        with pytest.raises(InputError, match="gae: the saved state is of a run whose critic was not where"):
            part.load_state_dict(state)


def test_explained_variance_is_reported_where_there_is_any():
    part = GAE(critic=Fixed(torch.tensor([[1.0], [2.0]])))
    part(batch_of([0, 0], [1, 1]), {"r": stream([1.0, 3.0])})
    # Returns 1, 3: variance 1. Left 0, 1: variance 1/4.
    assert part.metrics() == pytest.approx({"critic/explained_variance": 0.75})
    part(batch_of([0, 0], [1, 1]), {"r": stream([1.0, 1.0])})
    assert part.metrics() == {}


def test_a_baseline_for_all_that_is_credited_expects_advantage_streams_too():
    """Returns 2 from every token on, and 0.1, 0.2, 0 of the token alone: no later one reaches earlier ones."""
    critic = Fixed(VALUES)
    streams = {"score": stream([2.0]), "progress": stream([[0.1, 0.2, NAN]], "advantage")}
    part = GAE(critic=critic, lam=1.0, expects="all", learn=ValueLoss(coef=1.0))
    credit = part(batch_of([0], [3]), streams)
    same(credit.returns, [[2.1, 2.2, 2.0]])
    same(credit.advantages, [[1.6, 1.4, 1.0]])
    ((_, given, _),) = critic.taught
    assert torch.equal(given.returns, credit.returns)
    plain = GAE(critic=Fixed(VALUES), lam=1.0)(batch_of([0], [3]), streams)
    same(plain.returns, [[2, 2, 2]])
    same(plain.advantages, credit.advantages)


def test_a_baseline_for_all_goes_with_returns_that_no_value_stands_in_for():
    for settings in ({}, {"lam": 1.0, "whiten": True}):
        with pytest.raises(InputError, match=r"expects='all' goes with lam=1 and whiten=False"):
            GAE(critic=Fixed(VALUES), expects="all", **settings)
    with pytest.raises(InputError, match="expects is 'some'"):
        GAE(critic=Fixed(VALUES), expects="some")


# Tables: the exact critic


def bandit(**settings):
    return TablePolicy(
        [Action(text="good", length=2), Action(text="bad", length=1)],
        torch.zeros(2),
        optimizer=SGD,
        values=True,
        **settings,
    )


def batch_from(policy, step=0, n=16):
    problem = Problem(id="0", prompt="?", answer="good")
    rollouts = policy.sample([problem], n, Rng((step,)))
    outcome = torch.tensor([float(text == "good") for text in rollouts.text])
    return Batch.given(rollouts, outcome, train=True, step=step)


def test_the_order_it_learns_in_is_the_steps_own():
    """Four mini-batches on one value: the run's seed decides which comes last, and with it where the value ends."""
    policy, problems = bandit(), tuple(Problem(id=str(i), prompt="?", answer="good") for i in range(4))
    rollouts = policy.sample(problems, 4, Rng((0,)))
    outcome = torch.tensor([float(text == "good") for text in rollouts.text]) * (1 + rollouts.seq.group)
    nothing = torch.zeros(0)
    seen = Seen(problems=(), outcome=nothing, lengths=nothing.long(), end=nothing.long(), rounds=1, wanted=4, kept=4)

    def taught(seed):
        critic = bandit(minibatches=4)
        batch = Batch(
            rollouts=rollouts,
            outcome=outcome,
            train=torch.ones(16, dtype=torch.bool),
            seen=seen,
            step=0,
            rng=Rng((seed, 0)),
        )
        GAE(critic=critic, learn=ValueLoss(coef=1.0))(batch, {"r": Stream(values=outcome)})
        return critic.values.tolist()

    found = [taught(seed) for seed in range(8)]
    assert found == [taught(seed) for seed in range(8)]
    assert len({str(values) for values in found}) > 2


def test_epochs_with_a_value_clip_stay_near_the_old_values():
    """Rate 1/2 and a gradient of V - R would halve the distance each epoch; the clip holds every value within 0.2."""
    critic = bandit(epochs=20)
    batch = batch_from(critic)
    part = GAE(critic=critic, lam=1.0, learn=ValueLoss(coef=1.0, clip=0.2, average="constant", length=1))
    credit = part(batch, {"r": Stream(values=batch.outcome)})
    assert not credit.values.any()
    assert 0.2 <= critic.values.detach().abs().max() < 0.45  # the last step before the clip acts may overshoot
    assert part.metrics()["critic/steps"] == 20
    assert part.metrics()["critic/value_clip_fraction"] > 0.3
    free = bandit(epochs=20)
    GAE(critic=free, lam=1.0, learn=ValueLoss(coef=1.0, average="constant", length=1))(
        batch, {"r": Stream(values=batch.outcome)}
    )
    share = float(batch.outcome.mean())
    same(free.values.detach(), [[share, 1.0, 0.0]], 2e-2)


@pytest.mark.parametrize("own", [False, True])
def test_ppo_learns_a_toy_task_with_a_table(own):
    policy = bandit(epochs=2)
    critic = bandit() if own else policy
    values = ValueLoss(coef=1.0, clip=0.5)
    part = GAE(critic=critic, learn=values if own else None)
    ratio = ClippedRatio(whiten=True, average="tokens")
    objective = ratio if own else Objectives({"ratio": ratio, "value": values})
    for step in range(30):
        batch = batch_from(policy, step)
        credit = part(batch, {"r": Stream(values=batch.outcome)})
        policy.update(objective, batch, credit, Rng(("update", step)))
    assert policy.probabilities()[0, 0] > 0.95
    if own:
        assert not policy.values.any()
    assert critic.values[0, 0] > 0.7
    assert critic.values[0, 1] > 0.9
    assert critic.values[0, 2] < 0.2


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 1.1}, "gae: gamma is 1.1; it must be at least 0 and at most 1"),
        ({"gamma": NAN}, "gae: gamma is nan"),
        ({"lam": -0.1}, "gae: lam is -0.1; it must be at least 0 and at most 1"),
        ({"warmup": -1}, "gae: warmup is -1"),
        ({"warmup": 1}, "gae: warmup is 1; it must be at least 0, and 0 without `learn`"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        GAE(critic=Fixed(VALUES), **settings)


def test_a_critic_without_values_is_named():
    class Silent(Fixed):
        def outputs(self, seq, want=("logprobs",)):
            return Outputs(logprobs=self.values)

    with pytest.raises(InputError, match="gae: its critic gives no values"):
        GAE(critic=Silent(VALUES))(batch_of([0], [3]), {"r": stream([1.0])})


def test_weights_of_streams_do_not_reach_the_critic():
    batch, values = batch_of([0], [3]), ValueLoss()
    credit = GAE(critic=Fixed(VALUES))(batch, {"r": stream([1.0])})
    heavy = replace(credit, weights=7 * credit.weights)
    found = [values(Outputs(values=VALUES + 1), values.prepare(batch, given)) for given in (credit, heavy)]
    assert torch.equal(*found)
