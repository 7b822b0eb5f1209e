"""Gymnasium's faces of the worlds: its own checker, one against many, states that are saved, and what is refused."""

import gymnasium
import numpy as np
import pytest
from explore_worlds import RIGHT, corner
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from reckon.errors import InputError, MissingError
from reckon.explore import FiniteContexts, WorldEnv, WorldVector, make_environments

IDS = ["reckon/LavaTrail-v0", "reckon/Star-v0", "reckon/Rooms-v0"]


@pytest.mark.parametrize("id_", IDS)
@pytest.mark.filterwarnings("error")
def test_gymnasiums_checker_has_nothing_against_it(id_):
    check_env(gymnasium.make(id_, contexts=3).unwrapped)


@pytest.mark.parametrize("id_", IDS)
def test_many_are_one_each_step_by_step(id_):
    """300 steps of 5 rows against Gymnasium's own vector of 5 single ones, episodes that end and begin included."""
    ours = gymnasium.make_vec(id_, 5, vectorization_mode="vector_entry_point", contexts=7)
    theirs = gymnasium.make_vec(
        id_, 5, vectorization_mode="sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}, contexts=7
    )
    assert isinstance(ours, WorldVector)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    (seen, told), (their_seen, their_told) = ours.reset(seed=11), theirs.reset(seed=11)
    names = [name for name in ("pos", "msg", "context", "place") if name in told]
    rng, ended = np.random.default_rng(0), 0
    for _ in range(300):
        assert (seen == their_seen).all()
        assert all((told[name] == their_told[name]).all() for name in names)
        actions = rng.integers(ours.single_action_space.n, size=5)
        seen, reward, terminated, truncated, told = ours.step(actions)
        their_seen, *others, their_told = theirs.step(actions)
        assert all((a == b).all() for a, b in zip((reward, terminated, truncated), others, strict=True))
        rows = np.flatnonzero(terminated | truncated)
        assert ("final_obs" in told) == ("final_obs" in their_told) == bool(len(rows))
        for row in rows:
            ended += 1
            assert (told["final_obs"][row] == their_told["final_obs"][row]).all()
            for name in names:
                assert (told["final_info"][name][row] == their_told["final_info"][name][row]).all()
        if len(rows):
            assert told["_final_obs"].tolist() == (terminated | truncated).tolist()
    assert ended > 20


def test_an_episode_that_ends_is_begun_anew_in_the_same_step():
    envs = WorldVector(2, corner())
    first, _ = envs.reset(seed=0)
    envs.step(np.array([RIGHT, 0]))
    seen, reward, terminated, truncated, infos = envs.step(np.array([RIGHT, 0]))
    assert (reward.tolist(), terminated.tolist(), truncated.tolist()) == ([1.0, 0.0], [True, False], [False, False])
    assert (seen[0] == first[0]).all()
    assert infos["pos"].tolist() == [6, 6]
    assert infos["final_info"]["pos"].tolist() == [8, 6]  # of rows that did not end it says where they are
    assert infos["_final_obs"].tolist() == [True, False]
    assert infos["final_obs"][0, 27:].tolist() == [0, 0, 0, 1, 0, 0, 1, 0, 0]  # column 3, row 1: the goal
    assert seen.dtype == infos["final_obs"].dtype == np.float32


def test_a_saved_state_goes_on_with_the_same_numbers():
    envs, other = (WorldVector(6, "LavaTrail", contexts=9) for _ in range(2))
    envs.reset(seed=4)
    rng = np.random.default_rng(1)
    for _ in range(17):
        envs.step(rng.integers(4, size=6))
    other.load_state_dict(envs.state_dict())
    for _ in range(60):
        actions = rng.integers(4, size=6)
        for mine, its in zip(envs.step(actions)[:4], other.step(actions)[:4], strict=True):
            assert (mine == its).all()


def test_a_state_of_another_number_of_environments_is_refused():
    envs = WorldVector(2, corner())
    with pytest.raises(InputError, match=r"the saved `seeds` is \[2\] and ours is \[3\]"):
        WorldVector(3, corner()).load_state_dict(envs.state_dict())


def test_seeds_and_contexts_can_be_chosen():
    envs = WorldVector(3, "Star", contexts=5)
    assert envs.reset(seed=[1, 1, 2])[1]["context"].tolist()[0] == envs.reset(seed=[1, 1, 2])[1]["context"].tolist()[1]
    assert envs.reset(options={"context": [4, 0, 2]})[1]["context"].tolist() == [4, 0, 2]
    single = WorldEnv("Star", contexts=5)
    assert single.reset(seed=3, options={"context": 2})[1]["context"] == 2
    contexts = [single.reset()[1]["context"] for _ in range(30)]
    assert len(set(contexts)) == 5
    single.reset(seed=3)
    single.reset()
    assert [single.reset()[1]["context"] for _ in range(29)] == contexts[1:]  # a seed counts from the first again


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda envs: envs.step(np.array([0, 4])), r"in \[0, 4\]; they must be 2 whole numbers in \[0, 3\]"),
        (lambda envs: envs.step(np.array([0.5, 1.0])), "whole numbers"),
        (lambda envs: envs.step(np.array([0])), r"int64 \[1\]"),
        (lambda envs: envs.reset(options={"level": 1}), "`level` is no option"),
        (lambda envs: envs.reset(options={"context": 1}), r"a whole number in \[0, 0\], or 2 of them"),
        (lambda envs: envs.reset(options={"context": [0, 0, 0]}), r"a whole number in \[0, 0\], or 2 of them"),
        (lambda envs: envs.reset(seed=[1, 2, 3]), "3 seeds were given for 2 environments"),
    ],
)
def test_what_cannot_be_done_is_refused(act, words):
    envs = WorldVector(2, corner())
    envs.reset(seed=0)
    with pytest.raises(InputError, match=words):
        act(envs)


def test_many_that_have_not_begun_are_not_stepped():
    """They would stand in a corner of the border, where nobody can come to."""
    with pytest.raises(InputError, match=r"no episode has begun. Call reset\(\)"):
        WorldVector(2, corner()).step(np.array([RIGHT, RIGHT]))


def test_an_episode_that_is_over_is_not_stepped():
    env = WorldEnv(corner(horizon=1))
    env.reset(seed=0)
    assert env.step(0)[3]
    with pytest.raises(InputError, match=r"the episode is over. Call reset\(\)"):
        env.step(0)


def test_a_world_that_is_not_there_or_has_no_such_setting():
    with pytest.raises(InputError, match=r"'Lava' is no world. There are: LavaTrail, Star, Rooms"):
        WorldEnv("Lava")
    with pytest.raises(InputError, match="unexpected keyword argument 'lenght'"):
        WorldEnv("LavaTrail", lenght=3)
    with pytest.raises(InputError, match="a world has its settings already, so contexts cannot be given"):
        WorldEnv(corner(), contexts=3)
    with pytest.raises(InputError, match="num_envs is 0"):
        WorldVector(0, corner())


# Environments of others


class Level(gymnasium.Env):
    """One step; where it begins is drawn from its seed, or from nothing if it is unseeded."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, seeded=True):
        self.seeded = seeded

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed if self.seeded else None)
        return self.np_random.random(2), {}

    def step(self, action):
        return np.zeros(2), 0.0, True, False, {}


def test_finitely_many_contexts_come_again():
    env = FiniteContexts(Level(), [3, 5])
    env.reset(seed=0)
    found = {}
    for _ in range(40):
        seen, info = env.reset()
        found.setdefault(info["context"], set()).add(tuple(seen))
        assert env.step(0)[4]["context"] == info["context"]
    assert {context: len(seen) for context, seen in found.items()} == {0: 1, 1: 1}
    assert found[0] != found[1]
    again = FiniteContexts(Level(), [3, 5])
    contexts = [[one.reset(seed=s)[1]["context"] for s in range(12)] for one in (env, again)]
    assert contexts[0] == contexts[1]


def test_contexts_need_an_environment_that_minds_its_seed():
    with pytest.raises(InputError, match="the level of seed 3 began in two different ways"):
        FiniteContexts(Level(seeded=False), [3, 5])
    for seeds in ([], [1, 1]):
        with pytest.raises(InputError, match="at least one seed, and all must differ"):
            FiniteContexts(Level(), seeds)


class Parts(Level):
    """As `Level`, but what it sees is in two parts, as in many environments of others."""

    observation_space = gymnasium.spaces.Dict(
        {"level": Level.observation_space, "pair": gymnasium.spaces.Tuple([Level.observation_space] * 2)}
    )

    def reset(self, *, seed=None, options=None):
        seen, info = super().reset(seed=seed)
        return {"level": seen, "pair": (np.zeros(2), seen)}, info


def test_contexts_of_an_environment_that_sees_several_arrays():
    env = FiniteContexts(Parts(), [3, 5])
    starts = {tuple(env.reset(seed=s)[0]["pair"][1]) for s in range(12)}
    assert len(starts) == 2
    with pytest.raises(InputError, match="the level of seed 3 began in two different ways"):
        FiniteContexts(Parts(seeded=False), [3, 5])


def test_environments_are_made_by_name():
    envs = make_environments("reckon/LavaTrail-v0", 3, contexts=2, env={"length": 8})
    assert isinstance(envs, WorldVector)
    assert (envs.num_envs, envs.world.contexts) == (3, 2)
    lake = make_environments("FrozenLake-v1", 2, contexts=3, seed=1)
    assert lake.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert lake.reset(seed=0)[1]["context"].shape == (2,)
    jack = make_environments("Blackjack-v1", 2)  # a tuple of three numbers: flattened
    assert jack.single_observation_space.shape == (32 + 11 + 2,)


@pytest.mark.parametrize("name", ["LavaTrail", "Rooms", "Star"])
def test_the_seed_is_that_of_the_maps(name):
    """Two seeds have two worlds, and `env.maps_seed` goes before the seed."""

    def values(seed, **env):
        return (
            make_environments(f"reckon/{name}-v0", 1, contexts=3, seed=seed, env=env).world.table(0.9).values.tolist()
        )

    assert values(0) == values(0)
    assert values(0) != values(1)
    assert values(1) == values(0, maps_seed=1)
    assert values(1, maps_seed=0) == values(0)


@pytest.mark.parametrize(
    ("error", "make", "words"),
    [
        (InputError, lambda: make_environments("reckon/LavaTral-v0", 1), "reckon's own are reckon/LavaTrail-v0"),
        (
            InputError,
            lambda: make_environments("FrozenLake-v1", 1, env={"size": 3}),
            r"these arguments \(size\): TypeError",
        ),
        (
            InputError,
            lambda: make_environments("FrozenLake-v1", 1, env={"map_name": "5x5"}),
            r"\(map_name\): KeyError: '5x5'",
        ),
        (
            InputError,
            lambda: make_environments("reckon/Rooms-v0", 1, env={"maps_seed": -1}),
            "maps_seed is -1; it must be",
        ),
        (
            InputError,
            lambda: make_environments("reckon/Star-v0", 1, contexts=3, env={"contexts": 5}),
            "contexts=3 and env.contexts=5 are two. Give one of them",
        ),
        (
            InputError,
            lambda: make_environments("MiniHack-Room-5x5-v0", 1, env={"seed": 5}),
            r"\(seed\): TypeError: .*seed",
        ),
        (InputError, lambda: make_environments("FrozenLake-v1", 1, contexts=0), r"must be in \[1, 100000\]"),
        (InputError, lambda: make_environments("reckon/LavaTrail-v0", 1, env={"sise": 3}), "'sise'"),
        (MissingError, lambda: make_environments("no_such_module:A-v0", 1), "the module `no_such_module`"),
    ],
)
def test_an_environment_that_cannot_be_made_says_why(error, make, words):
    with pytest.raises(error, match=words):
        make()
