"""RND, NovelD, RIDE, AGAC and inverse dynamics: numbers by hand, and that they learn what they should and no more."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from walks import Same, paid, path, random_walk

from reckon.errors import InputError
from reckon.explore import (
    Adversary,
    Combined,
    EpisodicCount,
    Impact,
    InverseDynamics,
    NoveltyDifference,
    PolicyFeatures,
    RandomDistillation,
    Rollout,
    mlp,
)
from reckon.explore._learning import ObservationScale
from reckon.types import Rng

RNG = Rng(("test",))


def linear(weights, bias=0.0):
    layer = nn.Linear(len(weights[0]), len(weights)).double()
    nn.init.constant_(layer.bias, bias)
    layer.weight.data = torch.tensor(weights, dtype=torch.float64)
    return layer


def doubled():
    """RND whose error at the number x is (2 x)^2: the target says (2 x, 0), the predictor nothing."""
    return {"target": linear([[2.0], [0.0]]), "predictor": linear([[0.0], [0.0]])}


def weights_of(bonus):
    return [weight.clone() for weight in bonus.state_dict()["weights"].values()]


# Random distillation


def test_the_error_is_squared_or_is_not():
    rollout = path([[5.0], [3.0], [-1.0]])
    assert paid(RandomDistillation(**doubled()), rollout) == pytest.approx([36, 4])
    assert paid(RandomDistillation(**doubled(), squared=False), rollout) == pytest.approx([6, 2])


def test_both_networks_stand_on_the_encoder():
    """Which says 10 x, so that the error is (20 x)^2."""
    bonus = RandomDistillation(**doubled(), encoder=linear([[10.0]]))
    assert paid(bonus, path([[5.0], [3.0]])) == pytest.approx([3600])


def test_a_last_state_is_paid_for_if_it_is_at_hand():
    """The episode ends at 1; the next begins at 7, which nobody is paid for."""
    steps = [[5.0], [7.0], [3.0]]
    assert paid(RandomDistillation(**doubled()), path(steps, ends=[0], final=[[1.0]])) == pytest.approx([4, 36])
    assert paid(RandomDistillation(**doubled()), path(steps, ends=[0])) == pytest.approx([0, 36])


def test_it_fades_where_it_has_been_and_only_there():
    torch.manual_seed(0)
    bonus = RandomDistillation(mlp([4, 32, 8], seed=1), mlp([4, 32, 8], seed=2), lr=1e-2, parts=2)
    here, there = path(np.eye(4)[[0, 0, 1, 0, 1]].tolist()), path(np.eye(4)[[0, 2, 3, 2, 3]].tolist())
    before = torch.tensor([paid(bonus, here), paid(bonus, there)])
    target = [weight.clone() for weight in bonus.state_dict()["fixed"].values()]
    first = bonus.learn(here, RNG)
    assert first["error"] == pytest.approx(before[0].mean().item(), rel=0.5)  # of its halves, one a step later
    for step in range(200):
        last = bonus.learn(here, RNG.child(step))
    after = torch.tensor([paid(bonus, here), paid(bonus, there)])
    assert last["error"] < 0.01 * first["error"]
    assert (after[0] < 0.01 * before[0]).all()
    assert (after[1] > 0.05 * before[1]).all()
    for weight, same in zip(bonus.state_dict()["fixed"].values(), target, strict=True):
        assert torch.equal(weight, same)


def test_it_learns_from_no_more_than_its_share():
    bonus = RandomDistillation(mlp([1, 2], seed=1), mlp([1, 2], seed=2), share=1e-9)
    rollout = path([[5.0], [3.0]])
    before = paid(bonus, rollout)
    assert bonus.learn(rollout, RNG) == {}
    assert paid(bonus, rollout) == before


def test_unknown_last_states_are_not_learned_from():
    bonus = RandomDistillation(**doubled())
    rollout = path([[5.0], [7.0]], ends=[0])
    assert bonus.learn(rollout, RNG) == {}


def test_observations_are_scaled_by_what_was_seen():
    """0 and 4 have mean 2 and deviation 2, so that 4 is 1 and its error (2 x 1)^2; a number that never varies is 0."""
    bonus = RandomDistillation(linear([[2.0, 9.0]]).float(), linear([[0.0, 0.0]]).float(), scale_obs=True)
    assert paid(bonus, path([[7.0, 3.0], [0.0, 3.0], [4.0, 3.0]])) == pytest.approx([4, 4])


def test_scales_by_chunks_are_those_of_everything():
    obs = torch.randn(30, 2, 3, generator=torch.Generator().manual_seed(0)).double() * 7 + 2
    scale = ObservationScale()
    for chunk in obs.split([1, 9, 20]):
        scale.join(chunk.flatten(1))
    rows = obs.flatten(1)
    wanted = (rows.numpy() - rows.numpy().mean(axis=0)) / rows.numpy().std(axis=0)
    assert scale(rows).numpy() == pytest.approx(wanted, abs=1e-5)
    assert scale(rows * 1e6).abs().max() == 5


# NovelD


def test_the_specification_s_differences():
    """RND 1.0 -> .4 -> .9 with c = .5: [.4 - .5]_+ and [.9 - .2]_+. The error at x is 4 x^2."""
    steps = [[math.sqrt(error / 4)] for error in (1.0, 0.4, 0.9)]
    assert paid(NoveltyDifference(RandomDistillation(**doubled()), c=0.5), path(steps)) == pytest.approx([0, 0.7])


def test_without_c_it_is_random_distillation():
    walk = random_walk(10, 2)
    networks = {"target": mlp([3, 4], seed=1), "predictor": mlp([3, 4], seed=2)}
    one, other = RandomDistillation(**networks), NoveltyDifference(RandomDistillation(**networks), c=0.0)
    assert torch.equal(one.score(walk.rollout()), other.score(walk.rollout()))


def test_a_difference_is_taken_to_the_last_state_of_its_own_episode():
    """From 1 (error 4) to 3 (36), which ends it; from 2 (16) to 1 (4): [36 - 2]_+, [4 - 8]_+ with c = .5."""
    rollout = path([[1.0], [2.0], [1.0]], ends=[0], final=[[3.0]])
    assert paid(NoveltyDifference(RandomDistillation(**doubled()), c=0.5), rollout) == pytest.approx([34, 0])


# RIDE


def test_impact_over_the_root_of_visits():
    """(0, 0) -> (3, 4) -> (0, 0): 5 and, at the second visit, 5 / sqrt(2)."""
    bonus = Combined({"episodic": EpisodicCount(how="sqrt"), "impact": Impact(Same(2))})
    found = paid(bonus, path([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]], keys=[0, 1, 0]))
    assert found == pytest.approx([5, 3.535534])


def test_impact_does_not_reach_across_episodes():
    rollout = path([[0.0], [100.0], [101.0]], ends=[0], final=[[2.0]])
    assert paid(Impact(Same(1)), rollout) == [2, 1]
    assert paid(Impact(Same(1)), path([[0.0], [100.0], [101.0]], ends=[0])) == [0, 1]


# AGAC


def test_divergence_from_the_adversary_by_hand():
    """p = (1/2, 1/2) and q = (3/4, 1/4): ln(2/3) / 2 + ln(2) / 2 = .143841. The adversary says (ln 3, 0) everywhere."""
    network = linear([[0.0], [0.0]])
    network.bias.data = torch.tensor([math.log(3.0), 0.0], dtype=torch.float64)
    rollout = path([[1.0], [2.0]], keys=[0, 1], logits=[[7.0, 7.0]])
    assert paid(Adversary(network), rollout) == pytest.approx([0.143841], abs=1e-6)
    both = {"global": Adversary(network), "episodic": EpisodicCount(how="sqrt")}
    assert paid(Combined(both, how="sum", weights={"episodic": 0.5}), rollout) == pytest.approx([0.643841], abs=1e-6)


def test_the_adversary_comes_to_imitate_the_policy():
    walk = random_walk(16, 4)
    walk.logits = 3 * walk.obs[:-1, :, :2]
    bonus, rollout = Adversary(mlp([3, 2], seed=0), lr=0.05, parts=2), walk.rollout()
    first = bonus.learn(rollout, RNG)["kl"]
    for step in range(150):
        last = bonus.learn(rollout, RNG.child(step))["kl"]
    assert last < 0.01 * first
    assert bonus.score(rollout).mean().item() == pytest.approx(last, abs=0.01 * first)


def test_an_adversary_without_logits_or_with_others_is_refused():
    with pytest.raises(InputError, match=r"the rollout has no `logits`.*Hand over the logits"):
        Adversary(mlp([1, 2], seed=0)).score(path([[0.0], [0.0]]))
    with pytest.raises(InputError, match="its network gives 3 logits, and the policy 2"):
        Adversary(mlp([1, 3], seed=0)).score(path([[0.0], [0.0]], logits=[[0.0, 0.0]]))


# Inverse dynamics


def moves(steps, count, seed):
    """Four actions: each moves by one along its own of four directions. The fifth number is noise."""
    walk = random_walk(steps, count, numbers=5, actions=4, ends=0.0, seed=seed)
    step = torch.nn.functional.one_hot(walk.action, 5).float()
    walk.obs[1:, :, :4] = (walk.obs[0] + step.cumsum(dim=0))[..., :4]
    return walk.rollout()


def test_it_learns_to_tell_actions_apart():
    features = InverseDynamics(mlp([5, 16], seed=0), size=16, actions=4, width=32, lr=1e-2, parts=4)
    first = features.learn(moves(32, 8, 0), RNG)
    for step in range(40):
        features.learn(moves(32, 8, step), RNG.child(step))
    last = features.learn(moves(32, 8, 1000), RNG)
    assert first["inverse/accuracy"] < 0.6
    assert last["inverse/accuracy"] > 0.95
    assert last["inverse/loss"] < first["inverse/loss"] / 3


def two_environments(second, *, done):
    """One step of two environments; the first stands at `second` after it."""
    return Rollout(
        obs=torch.tensor([[[1.0], [2.0]], [[second], [3.0]]]),
        action=torch.tensor([[0, 1]]),
        terminated=torch.tensor([[done, False]]),
        truncated=torch.zeros(1, 2, dtype=torch.bool),
    )


def test_pairs_across_the_end_of_an_episode_are_left_out():
    def learned(rollout):
        features = InverseDynamics(mlp([1, 4], seed=0), size=4, actions=2, lr=0.1, forward=1.0)
        features.learn(rollout, RNG)
        return weights_of(features)

    one, other = (learned(two_environments(second, done=True)) for second in (5.0, -50.0))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    one, other = (learned(two_environments(second, done=False)) for second in (5.0, -50.0))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_forward_model_changes_what_is_learned():
    def learned(forward):
        features = InverseDynamics(mlp([1, 4], seed=0), size=4, actions=2, lr=0.1, forward=forward)
        features.learn(two_environments(5.0, done=False), RNG)
        return features(torch.tensor([[1.0]]))

    assert not torch.equal(learned(0.0), learned(1.0))


def test_features_have_no_gradient_and_a_policy_s_are_its_layer_s():
    layer = nn.Linear(3, 2)
    features = PolicyFeatures(layer, size=2)
    obs = torch.ones(4, 3)
    assert torch.equal(features(obs), layer(obs))
    assert not features(obs).requires_grad
    assert not InverseDynamics(layer, size=2, actions=2)(obs).requires_grad


def test_actions_that_there_are_not_are_refused():
    features = InverseDynamics(mlp([1, 4], seed=0), size=4, actions=1)
    with pytest.raises(InputError, match="there are actions from 0 to 1, and `actions` is 1"):
        features.learn(two_environments(5.0, done=False), RNG)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomDistillation(**doubled(), lr=0.0), "random_distillation: `lr` is 0.0; it must be above 0"),
        (lambda: RandomDistillation(**doubled(), share=0.0), "`share` is 0.0; it must be above 0 and at most 1"),
        (lambda: RandomDistillation(**doubled(), parts=0), "`parts` is 0; it must be 1 or more"),
        (lambda: NoveltyDifference(RandomDistillation(**doubled()), c=-1.0), "`c` is -1.0; it must be 0 or more"),
        (lambda: InverseDynamics(mlp([1, 2], seed=0), size=2, actions=0), "`actions` is 0; it must be 1 or more"),
        (lambda: mlp([3], seed=0), r"`sizes` are \[3\]; give two or more"),
        (lambda: mlp([3, 2], seed=0, activation="elu"), "`activation` is 'elu'; it must be relu or tanh"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
