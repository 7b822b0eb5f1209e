"""What a person may get wrong with environments, networks and keys: one clear error, before anything is learned."""

import gymnasium
import numpy as np
import pytest
import torch
from explore_worlds import corner
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from reckon.cli import main
from reckon.errors import InputError, ReckonError
from reckon.explore import (
    PPO,
    Collector,
    Elliptical,
    FeedForward,
    Impact,
    InverseDynamics,
    RandomDistillation,
    Recurrent,
    Rollout,
    WorldVector,
    mlp,
)
from reckon.types import Rng

SAME = {"autoreset_mode": AutoresetMode.SAME_STEP}

# Environments by name, as a person has them in a file of their own
SPOILED = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Spoiled(gymnasium.Env):
    observation_space, action_space = Box(-1.0, 1.0, (2,), np.float32), Discrete(2)

    def __init__(self, first=0.0, later=0.0, seeded=True, pos=0, told=99):
        self.first, self.later, self.seeded, self.pos, self.told = first, later, seeded, pos, told

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed if self.seeded else None)
        self.time = 0
        return np.array([self.first, self.np_random.random()], np.float32), self.info()

    def step(self, action):
        self.time += 1
        return np.array([0.0, self.later], np.float32), 0.0, self.time > 2, False, self.info()

    def info(self):
        return {"pos": self.pos} if self.time < self.told else {}


gymnasium.register("Spoiled-v0", entry_point=Spoiled)
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    (tmp_path / "spoiled_levels.py").write_text(SPOILED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(["explore", *words])
        return code, capsys.readouterr().err

    return run


SMALL = ("environments=2", "steps=4", "frames=16", "hidden=4", "-q")
OURS = "spoiled_levels:Spoiled-v0"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((OURS, "env.first=.nan", "bonus=none"), "environment 0 begins with an observation whose number 0 is nan"),
        ((OURS, "env.first=.nan", "bonus=e3b"), "environment 0 begins with an observation whose number 0 is nan"),
        ((OURS, "env.later=.inf", "bonus=none"), "`obs`[1, 0, 1] is inf"),
        ((OURS, "env.seeded=false", "contexts=3"), "began in two different ways"),
        ((OURS, "env.pos=0.5"), "info['pos'] is float64, and must be whole numbers"),
        ((OURS, "key=msg"), "there are no keys 'msg' (there are: pos)"),
        ((OURS, "env.told=1"), "info['pos'] is there at one time and missing at another"),
        ((OURS, "env.told=3"), "info['pos'] is there at one time and missing at another"),  # where an episode ends
        ((OURS, "env.later=1e25", "bonus=rnd"), "a bonus is not finite any more"),
        (("Pendulum-v1",), "only discrete ones"),
        ((OURS, "ppo.entropy=-1"), "`entropy` is -1.0, but must be 0 or more"),
    ],
)
def test_an_exploration_that_cannot_be_says_why(command, words, told):
    code, err = command(*words, *SMALL)
    assert code != 0
    assert told in err
    assert "Traceback" not in err


def test_a_diagnosis_that_cannot_be_says_why(command):
    for words, told in (
        (("Pendulum-v1",), "only discrete ones"),
        ((OURS, "contexts=3", "env.seeded=false"), "began in two different ways"),
    ):
        code, err = command("diagnose", *words)
        assert code != 0
        assert told in err


# Networks and features of other sizes


def collector():
    made = Collector(WorldVector(2, corner()))
    made.begin(Rng((0,)))
    return made


@pytest.mark.parametrize("make", [FeedForward, Recurrent])
def test_a_network_of_another_size_is_refused(make):
    with pytest.raises(InputError, match="the network reads 35 numbers, and an observation has 36"):
        collector().collect(make(35, 4), 1, Rng((0,)))
    with pytest.raises(InputError, match="the network chooses among 5 actions, and the environments have 4"):
        collector().collect(make(36, 5), 1, Rng((0,)))


def walk():
    return Rollout(
        obs=torch.zeros(3, 2, 3),
        action=torch.zeros(2, 2, dtype=torch.int64),
        terminated=torch.zeros(2, 2, dtype=torch.bool),
        truncated=torch.zeros(2, 2, dtype=torch.bool),
    )


@pytest.mark.parametrize("owner", [Impact, Elliptical])
def test_features_of_another_size_than_they_say_are_refused(owner):
    bonus = owner(InverseDynamics(mlp([3, 4], seed=0), size=5, actions=2))
    with pytest.raises(InputError, match=r"its features are \[\d, 4\] for \d observations.*of size 5. Give `size`"):
        bonus.score(walk()) if owner is Impact else bonus.start(torch.zeros(2, 3), {})


@pytest.mark.parametrize("predicted", [1, 2, 4])
def test_a_predictor_of_another_size_than_its_target_is_refused(predicted):
    """Of one number it would be compared with each of the target's, unseen."""
    bonus = RandomDistillation(mlp([3, 5], seed=0), mlp([3, predicted], seed=1))
    with pytest.raises(
        InputError, match=rf"the predictor gives \[6, {predicted}\] for 6 states, and the target \[6, 5\]"
    ):
        bonus.score(walk())


# Environments that are not for agents of this room


class Many(gymnasium.Env):
    observation_space, action_space = Box(0.0, 1.0, (1,), np.float32), gymnasium.spaces.MultiDiscrete([2, 3])


class Told(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Text(3), Discrete(2)


@pytest.mark.parametrize(
    ("kind", "words"), [(Many, "actions are MultiDiscrete.*only discrete ones"), (Told, "of which no network is made")]
)
def test_spaces_that_cannot_be(kind, words):
    with pytest.raises(InputError, match=words):
        Collector(SyncVectorEnv([kind], **SAME))


def test_every_error_is_one_of_ours_and_a_value_error():
    for settings in ({"entropy": float("nan")}, {"value": -1.0}, {"lr": float("inf")}):
        with pytest.raises(ValueError, match="must be") as told:
            PPO(**settings)
        assert isinstance(told.value, ReckonError)
