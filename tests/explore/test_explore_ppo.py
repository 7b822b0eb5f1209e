"""The agent: credit against a naive double loop, minibatches of what, and that it learns."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from explore_worlds import corner, maps_of
from hypothesis import given
from hypothesis import strategies as st

from reckon.advantages import gae
from reckon.errors import InputError
from reckon.explore import PPO, Agent, Collector, FeedForward, GridWorld, Recurrent, Rollout, WorldVector
from reckon.explore._ppo import credit
from reckon.types import Rng


def rollout_of(terminated, truncated):
    terminated, truncated = torch.tensor(terminated), torch.tensor(truncated)
    steps, count = terminated.shape
    return Rollout(
        obs=torch.zeros(steps + 1, count, 1),
        action=torch.zeros(steps, count, dtype=torch.int64),
        terminated=terminated,
        truncated=truncated,
        final_obs=torch.zeros(int((terminated | truncated).sum()), 1),
    )


def naive_credit(rollout, rewards, values, final, gamma, lam):
    """For each step the sum over all later ones of its episode, each looked up by itself."""
    steps, count = rewards.shape
    order = {tuple(place): i for i, place in enumerate(rollout.done.nonzero().tolist())}
    surprise = np.zeros((steps, count))
    for t in range(steps):
        for n in range(count):
            if rollout.terminated[t, n]:
                after = 0.0
            elif rollout.truncated[t, n]:
                after = float(final[order[t, n]])
            else:
                after = float(values[t + 1, n])
            surprise[t, n] = float(rewards[t, n]) + gamma * after - float(values[t, n])
    advantages = np.zeros((steps, count))
    for t in range(steps):
        for n in range(count):
            for k in range(t, steps):
                advantages[t, n] += (gamma * lam) ** (k - t) * surprise[k, n]
                if rollout.done[k, n]:
                    break
    return advantages


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 4), st.floats(0, 1), st.floats(0, 1))
def test_credit_is_that_of_a_double_loop(seed, steps, count, gamma, lam):
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((2, steps, count)) < 0.25
    rollout = rollout_of(terminated.tolist(), truncated.tolist())
    rewards, values = rng.normal(size=(steps, count)), rng.normal(size=(steps + 1, count))
    final = rng.normal(size=int(rollout.done.sum()))
    tensors = (torch.from_numpy(x) for x in (rewards, values, final))
    advantages, returns = credit(rollout, *tensors, gamma=gamma, lam=lam)
    expected = naive_credit(rollout, rewards, values, final, gamma, lam)
    np.testing.assert_allclose(advantages.numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(returns.numpy(), expected + values[:-1], rtol=1e-9, atol=1e-12)


def test_credit_at_each_kind_of_end_by_hand():
    """One environment, four steps of reward 1, V = 10, 20, 30, 40, 50; gamma 1/2, lambda 1/2."""
    values = torch.tensor([[10.0], [20], [30], [40], [50]])
    rewards, never = torch.ones(4, 1), [[False]] * 4
    # 1 + 10 - 10 = 1; 1 + 15 - 20 = -4; 1 + 20 - 30 = -9; 1 + 25 - 40 = -14, each plus a quarter of the next.
    found, _ = credit(rollout_of(never, never), rewards, values, torch.zeros(0), gamma=0.5, lam=0.5)
    assert found.flatten().tolist() == [-0.78125, -7.125, -12.5, -14.0]
    # The task is over at the second step: 1 - 20 = -19, and the first is 1 - 19/4.
    ended = [[False], [True], [False], [False]]
    found, returns = credit(rollout_of(ended, never), rewards, values, torch.tensor([8.0]), gamma=0.5, lam=0.5)
    assert found.flatten().tolist() == [-3.75, -19.0, -12.5, -14.0]
    assert returns.flatten().tolist() == [6.25, 1.0, 17.5, 26.0]
    # Time is up there, with a last observation worth 8 (and not the 30 of the next episode's first): 1 + 4 - 20 = -15.
    found, _ = credit(rollout_of(never, ended), rewards, values, torch.tensor([8.0]), gamma=0.5, lam=0.5)
    assert found.flatten().tolist() == [-2.75, -15.0, -12.5, -14.0]
    # Both at once: the task was over.
    found, _ = credit(rollout_of(ended, ended), rewards, values, torch.tensor([8.0]), gamma=0.5, lam=0.5)
    assert found.flatten().tolist() == [-3.75, -19.0, -12.5, -14.0]


def test_ends_of_gae_are_checked():
    row, mask = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="ends must be of shape"):
        gae(row, row, mask, ends=mask[:, :2])


def collected(network, steps=6, count=4, world=None, seed=0):
    collector = Collector(WorldVector(count, world or corner()))
    collector.begin(Rng((seed,)))
    return collector.collect(network, steps, Rng((seed, "sample")))


@pytest.mark.parametrize("make", [FeedForward, Recurrent])
def test_the_first_step_on_fresh_samples_has_no_ratio_and_one_epoch_reads_all(make):
    collector = Collector(WorldVector(8, corner()))
    network = make(collector.size, collector.actions)
    agent = Agent(network, PPO(epochs=1, parts=1, lr=1e-9))
    collector.begin(Rng((0,)))
    found = collector.collect(network, 10, Rng((1,)))
    told = agent.learn(found, found.rewards, Rng((2,)))
    assert told["policy/kl_sampled"] == pytest.approx(0.0, abs=1e-6)
    assert told["policy/clip_fraction"] == 0
    assert told["policy/loss"] == pytest.approx(0.0, abs=1e-4)  # the mean of whitened advantages
    assert told["policy/entropy"] == pytest.approx(math.log(4), abs=0.01)
    assert told["policy/skipped"] == 0


@pytest.mark.parametrize("make", [FeedForward, Recurrent])
def test_the_first_gradient_does_not_depend_on_how_a_rollout_is_cut(make):
    """With a step size near 0 the mean over minibatches is that over the whole, whatever they are cut from."""
    found = collected(make(36, 4))
    told = []
    for parts in (1, 2, 4):
        agent = Agent(make(36, 4, seed=5), PPO(epochs=1, parts=parts, lr=1e-12))
        told.append(agent.learn(found, found.rewards, Rng((2,))))
    for name in ("value/loss", "policy/entropy"):
        assert told[0][name] == pytest.approx(told[1][name], rel=1e-4) == pytest.approx(told[2][name], rel=1e-4)


def test_time_may_be_part_of_the_task():
    """Without bootstrapping what is truncated is learned from as if it were terminated, and not otherwise."""
    found = collected(FeedForward(36, 4), steps=30, world=corner(horizon=2))
    assert found.rollout.truncated.any()
    over = dataclasses.replace(found.rollout, terminated=found.rollout.done)
    ended = dataclasses.replace(found, rollout=over)
    told = {}
    for name, lived, bootstrap in (("cut", found, True), ("task", found, False), ("ended", ended, True)):
        agent = Agent(FeedForward(36, 4, seed=5), PPO(bootstrap=bootstrap))
        told[name] = agent.learn(lived, lived.rewards, Rng((2,)))
    assert told["task"] == told["ended"]
    assert told["task"]["value/loss"] != told["cut"]["value/loss"]


@pytest.mark.parametrize("make", [FeedForward, Recurrent])
def test_the_critic_is_asked_about_ends_where_only_time_was_up(make):
    """For each place the critic's value of the last observation by itself, or 0."""
    network = make(36, 4)
    found = collected(network, steps=30, world=corner(horizon=3))
    rollout = found.rollout
    kinds = list(zip(rollout.terminated[rollout.done].tolist(), rollout.truncated[rollout.done].tolist(), strict=True))
    assert {(True, False), (False, True)} <= set(kinds)
    with torch.no_grad():
        values = Agent(network)._final_values(found)
        for i, (over, late) in enumerate(kinds):
            seen, start = rollout.final_obs[i][None, None], torch.zeros(1, 1, dtype=torch.bool)
            alone = network.sequence(seen, found.final_memory[i][None], start)[1][0, 0]
            assert float(values[i]) == pytest.approx(float(alone) if late and not over else 0.0, abs=1e-5)
    assert not Agent(network, PPO(bootstrap=False))._final_values(found).any()


def test_an_agent_with_another_network_is_not_restored():
    saved = Agent(FeedForward(36, 4)).state_dict()
    with pytest.raises(InputError, match="agent: the saved network is another one than this"):
        Agent(FeedForward(36, 4, hidden=(5,))).load_state_dict(saved)


def test_a_loss_that_is_not_finite_is_not_stepped_on():
    network = FeedForward(36, 4)
    found, agent = collected(network), Agent(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    told = agent.learn(found, found.rewards + math.inf, Rng((2,)))
    assert told["policy/skipped"] == 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("make", [FeedForward, Recurrent])
def test_it_learns_a_short_way(make):
    world = corner(horizon=6)
    network = make(world.observation_size, world.actions, hidden=(16,) if make is FeedForward else 16)
    agent = Agent(network, PPO(lr=5e-3, entropy=0.003, epochs=4, parts=1))
    collector = Collector(WorldVector(32, world))
    collector.begin(Rng((0,)))
    first = last = 0.0
    for step in range(30):
        found = collector.collect(network, 16, Rng((1, step)))
        agent.learn(found, found.rewards, Rng((2, step)))
        last = float((found.returns > 0).mean())
        first = first or last
    assert first < 0.4  # three of four moves at the start do not lead on
    assert last > 0.95


def test_only_a_memory_finds_the_way_that_is_no_longer_seen():
    """The start tells which side the goal is on; then a corridor that looks the same for both, and a fork.

    The forks are dead ends of lava on either side. Position and planes are taken away, so that a network without a
    memory cannot do better than a coin.
    """
    world = GridWorld(maps_of("~~~~~ ~S..~ ~~~G~ ~~~~~ ~~~~~", "~~~~~ ~~~G~ ~S..~ ~~~~~ ~~~~~"), horizon=5)
    shares = {}
    for make in (FeedForward, Recurrent):
        network = make(3, 4, hidden=(16,) if make is FeedForward else 16)
        collector = Collector(Told(16, world))
        collector.begin(Rng((0,)))
        agent = Agent(network, PPO(lr=5e-3, entropy=0.01, epochs=4, parts=1))
        for step in range(50):
            found = collector.collect(network, 20, Rng((1, step)))
            agent.learn(found, found.rewards, Rng((2, step)))
        shares[make] = float((found.returns > 0).mean())
    assert shares[Recurrent] > 0.9
    assert shares[FeedForward] < 0.75


class Told(WorldVector):
    """Which context it is, in the first observation of an episode alone; then how far one has come."""

    def __init__(self, count, world):
        super().__init__(count, world)
        self.single_observation_space = type(self.single_observation_space)(-1.0, 1.0, (3,), np.float32)

    def reset(self, **options):
        _, infos = super().reset(**options)
        return self._said(), infos

    def step(self, actions):
        _, *others, infos = super().step(actions)
        if "final_obs" in infos:
            infos["final_obs"] = np.zeros((self.num_envs, 3), dtype=np.float32)
        return self._said(), *others, infos

    def _said(self):
        episodes = self._episodes
        first = (episodes.time == 0).astype(np.float32)
        return np.stack([first * (2 * episodes.context - 1), first, episodes.time / 5], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "`epochs` is 0, but must be at least 1"),
        ({"gamma": 1.5}, r"`gamma` is 1.5, but must be in \[0, 1\]"),
        ({"lr": 0.0}, "`lr` is 0.0, but must be above 0"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(InputError, match=words):
        PPO(**settings)
