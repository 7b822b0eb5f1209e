"""Rollouts: that they say what happened, go on from each other, and are of environments that can be used."""

import gymnasium
import numpy as np
import pytest
import torch
from explore_worlds import DOWN, RIGHT, UP, corner
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from reckon.errors import InputError
from reckon.explore import Collector, Recurrent, WorldVector
from reckon.explore._collect import encoder
from reckon.types import Rng

SAME = {"autoreset_mode": AutoresetMode.SAME_STEP}


class Script:
    """A network that makes these moves, [T, N], whatever it sees; and remembers how many it has made."""

    memory, actions = 1, 4

    def __init__(self, moves):
        self.moves, self.seen, self.starts = torch.tensor(moves), [], []

    def act(self, obs, memory, start):
        self.seen.append(obs.clone())
        self.starts.append(start.tolist())
        t = len(self.seen) - 1
        return 1e6 * torch.nn.functional.one_hot(self.moves[t], self.actions).float(), memory + 1


def test_a_rollout_says_what_happened():
    """Two rows: one reaches the goal and goes on; the other runs against a wall until time is up."""
    network = Script([[RIGHT, UP], [RIGHT, UP], [DOWN, UP], [DOWN, UP]])
    collector = Collector(WorldVector(2, corner(horizon=3)))
    assert collector.begin(Rng((0,)))
    assert not collector.begin(Rng((0,)))
    found = collector.collect(network, 4, Rng((1,)))
    rollout = found.rollout
    assert rollout.action.T.tolist() == [[RIGHT, RIGHT, DOWN, DOWN], [UP] * 4]
    assert rollout.keys["pos"].T.tolist() == [[6, 7, 6, 11, 6], [6, 6, 6, 6, 6]]
    assert rollout.keys["msg"].tolist() == [[0, 0]] * 5
    assert rollout.final_keys["pos"].tolist() == [8, 6, 16]  # by step: the goal, the wall, the lava
    assert found.rewards.T.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert rollout.terminated.T.tolist() == [[False, True, False, True], [False] * 4]
    assert rollout.truncated.T.tolist() == [[False] * 4, [False, False, True, False]]
    assert found.start.T.tolist() == [[True, False, True, False, True], [True, False, False, True, False]]
    assert network.starts == found.start[:4].tolist()
    assert (found.returns.tolist(), found.lengths.tolist()) == ([1, 0, 0], [2, 3, 2])
    assert found.place[:, 0].tolist() == [[1, 1], [2, 1], [1, 1], [1, 2], [1, 1]]
    assert found.final_place.tolist() == [[3, 1], [1, 1], [1, 3]]
    assert found.context.tolist() == [[0, 0]] * 5
    assert found.final_memory.flatten().tolist() == [2, 3, 4]  # what had been seen when the last observation came
    assert found.memory.flatten().tolist() == [0, 0]
    for t in range(4):
        assert torch.equal(network.seen[t], rollout.obs[t])
    column, row = rollout.final_obs[0, 27:32], rollout.final_obs[0, 32:]
    assert (column.argmax(), row.argmax()) == (3, 1)


def test_two_rollouts_are_one():
    def lived(parts):
        collector = Collector(WorldVector(5, "LavaTrail", contexts=3))
        network = Recurrent(collector.size, collector.actions, hidden=8)
        network.policy.weight.data *= 30
        collector.begin(Rng((0,)))
        return (
            [collector.collect(network, steps, Rng(("draws", i))) for i, steps in enumerate(parts)],
            collector,
            network,
        )

    (first, second), collector, network = lived([7, 5])
    assert torch.equal(first.rollout.obs[-1], second.rollout.obs[0])
    assert torch.equal(first.start[-1], second.start[0])
    assert torch.equal(collector.obs, second.rollout.obs[-1])
    assert torch.equal(collector.keys["pos"], second.rollout.keys["pos"][-1])
    again, other, _ = lived([7])
    fresh = Collector(WorldVector(5, "LavaTrail", contexts=3))
    fresh.load_state_dict(other.state_dict())
    assert not fresh.begin(Rng((9,)))
    third = fresh.collect(network, 5, Rng(("draws", 1)))
    assert torch.equal(again[0].rollout.obs, first.rollout.obs)
    for name in ("obs", "action", "terminated", "final_obs", "logits"):
        assert torch.equal(getattr(third.rollout, name), getattr(second.rollout, name)), name
    assert third.returns.tolist() == second.returns.tolist()
    assert third.lengths.tolist() == second.lengths.tolist()


def test_an_environment_without_a_state_begins_anew():
    lake = gymnasium.make_vec("FrozenLake-v1", 2, vectorization_mode="sync", vector_kwargs=SAME)
    collector = Collector(lake)
    collector.begin(Rng((0,)))
    assert collector.state_dict() == {}
    collector.load_state_dict({})
    assert collector.begin(Rng((0,)))


def test_whole_numbers_are_keys():
    lake = gymnasium.make_vec("FrozenLake-v1", 3, vectorization_mode="sync", vector_kwargs=SAME, is_slippery=False)
    collector = Collector(lake)
    collector.begin(Rng((0,)))
    found = collector.collect(Script([[2, 1, 0], [2, 1, 0], [1, 1, 0], [1, 2, 0]]), 4, Rng((0,)))
    # Right, right, down, down; down three times, right; left.  A hole is at 12.
    assert found.rollout.keys["obs"].T.tolist() == [[0, 1, 2, 6, 10], [0, 4, 8, 0, 1], [0] * 5]
    assert found.rollout.final_keys["obs"].tolist() == [12]
    assert found.rollout.obs[3].argmax(dim=1).tolist() == [6, 0, 0]
    assert found.place is None


def test_keys_of_ones_own():
    envs = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync", vector_kwargs=SAME)
    collector = Collector(envs, {"side": lambda seen: (seen[:, 0] > 0).astype(np.int64)})
    collector.begin(Rng((0,)))
    script = Script([[0, 1]] * 12)
    script.actions = 2
    found = collector.collect(script, 12, Rng((0,)))
    assert torch.equal(found.rollout.keys["side"], (found.rollout.obs[..., 0] > 0).long())
    assert found.rollout.done.sum() == len(found.rollout.final_keys["side"]) >= 2
    floats = Collector(envs, {"where": lambda seen: seen[:, 0]})
    with pytest.raises(InputError, match="where: an array of float32 has no keys"):
        floats.begin(Rng((0,)))


def test_draws_follow_the_logits():
    """Of 4,000 draws with chances 0.5, 0.3, 0.2 and 1e-9; three standard deviations are 0.024 at most."""

    class Fixed:
        memory, actions = 0, 4

        def act(self, obs, memory, start):
            return torch.tensor([0.5, 0.3, 0.2, 1e-9]).log().expand(len(obs), 4), memory

    collector = Collector(WorldVector(200, corner()))
    collector.begin(Rng((0,)))
    action = collector.collect(Fixed(), 20, Rng((3,))).rollout.action
    shares = torch.bincount(action.flatten(), minlength=4) / 4000
    assert (shares - torch.tensor([0.5, 0.3, 0.2, 0.0])).abs().max() < 0.024
    assert shares[3] == 0


class Broken(gymnasium.Env):
    """Walks well for two steps."""

    observation_space, action_space = Box(-1.0, 1.0, (2,), np.float32), Discrete(4)

    def __init__(self, obs=0.0, reward=0.0, info=None):
        self.obs, self.reward, self.info = obs, reward, info or {}

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(2, np.float32), dict(self.info)

    def step(self, action):
        self.time += 1
        bad = self.time == 3
        obs = np.array([0.0, self.obs if bad else 0.0], np.float32)
        return obs, self.reward if bad else 0.0, False, False, dict(self.info)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"obs": np.nan}, r"`obs`\[3, 0, 1\] is nan"),
        ({"obs": np.inf}, r"`obs`\[3, 0, 1\] is inf"),
        ({"reward": np.nan}, r"the reward of environment 0 is nan \(step 2 of the rollout\)"),
        ({"info": {"pos": 0.5}}, r"info\['pos'\] is float64, and must be whole"),
    ],
)
def test_what_is_not_a_number_is_told(broken, words):
    collector = Collector(SyncVectorEnv([lambda: Broken(**broken)], **SAME))
    collector.begin(Rng((0,)))
    with pytest.raises(InputError, match=words):
        collector.collect(Script([[0]] * 4), 4, Rng((0,)))


def test_a_key_that_only_some_environments_tell_is_no_key():
    """Gymnasium stands a 0 for what the other does not tell."""
    collector = Collector(SyncVectorEnv([lambda: Broken(info={"pos": 7}), Broken], **SAME))
    with pytest.raises(InputError, match=r"info\['pos'\] is there at one time and missing at another. Give it with"):
        collector.begin(Rng((0,)))


def test_environments_that_cannot_be_used():
    with pytest.raises(InputError, match=r"actions are Box.*only discrete ones"):
        Collector(gymnasium.make_vec("Pendulum-v1", 1, vectorization_mode="sync", vector_kwargs=SAME))
    with pytest.raises(InputError, match="do not begin anew in the step"):
        Collector(gymnasium.make_vec("CartPole-v1", 1, vectorization_mode="sync"))
    with pytest.raises(InputError, match=r"Call begin\(rng\) first"):
        Collector(WorldVector(1, corner())).collect(Script([[0]]), 1, Rng((0,)))


def test_observations_become_numbers():
    size, encode = encoder(Discrete(3, start=5))
    assert (size, encode(np.array([7, 5])).tolist()) == (3, [[0, 0, 1], [1, 0, 0]])
    size, encode = encoder(Box(0, 255, (2, 1), np.uint8))
    assert (size, encode(np.array([[[255], [51]]], dtype=np.uint8)).tolist()) == (2, [[1.0, pytest.approx(0.2)]])
    size, encode = encoder(Box(-9.0, 9.0, (2, 2), np.float64))
    found = encode(np.arange(8.0).reshape(2, 2, 2))
    assert (size, found.dtype, found.tolist()) == (4, np.float32, [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert encoder(MultiBinary(3))[1](np.array([[1, 0, 1]], dtype=np.int8)).tolist() == [[1, 0, 1]]
    with pytest.raises(InputError, match=r"no network is made here. Wrap it with"):
        encoder(Dict({"a": Discrete(2)}))
