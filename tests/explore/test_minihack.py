"""MiniHack: what needs no game by hand, the loop with a game of our own, and the games themselves where installed."""

import runpy
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reckon.errors import InputError, MissingError
from reckon.explore import Album, Collector, Recurrent, key_of, make_environments
from reckon.explore import _minihack as minihack
from reckon.explore._command import _drawn
from reckon.explore._glyphs import GLYPHS, WORDS, Encoded, GlyphEncoder, GlyphLayout, glyph_encoder
from reckon.types import Rng

SMALL = GlyphLayout(rows=3, columns=3)
INSTALLED = find_spec("minihack") is not None
games = pytest.mark.skipif(not INSTALLED, reason="needs the extra minihack, in an environment of its own")

# What a network reads


def test_a_row_of_numbers_by_hand():
    stats = np.zeros(27, dtype=np.int64)
    stats[:3] = 5, -1, 0
    row = SMALL.row(np.arange(9).reshape(3, 3) + 2000, stats, message=WORDS + 7)
    assert (row.shape, row.dtype, SMALL.size) == ((37,), np.float32, 37)
    assert row[:9].tolist() == [2000, 2001, 2002, 2003, 2004, 2005, 2006, 2007, 2008]
    assert row[9:12].tolist() == pytest.approx([np.log(6), -np.log(2), 0.0], rel=1e-6)
    assert row[-1] == 7
    assert SMALL.row(np.zeros((3, 3)), stats, message=-1)[-1] == WORDS - 1  # keys may be negative


def drawn(count):
    rng = np.random.default_rng(0)
    rows = [SMALL.row(rng.integers(GLYPHS, size=(3, 3)), rng.integers(9, size=27), 3 * i) for i in range(count)]
    return torch.from_numpy(np.stack(rows))


def test_an_encoder_tells_glyphs_and_messages_apart():
    encoder = GlyphEncoder(SMALL, 5, seed=0)
    obs = drawn(4)
    found = encoder(obs)
    assert found.shape == (4, 5)
    assert torch.equal(encoder(obs.reshape(2, 2, -1)).flatten(0, 1), found)
    for place in (0, 8, SMALL.size - 1):  # the first cell, the last one, the message
        other = obs.clone()
        other[0, place] += 1
        changed = (encoder(other) != found).any(dim=1).tolist()
        assert changed == [True, False, False, False]
    assert torch.equal(GlyphEncoder(SMALL, 5, seed=0)(obs), found)
    assert not torch.equal(glyph_encoder(SMALL)(5, 1)(obs), found)


def test_an_encoder_of_another_layout_says_so():
    with pytest.raises(InputError, match="the observations have 37 numbers, and the layout 109"):
        GlyphEncoder(GlyphLayout(), 5, seed=0)(drawn(1))
    with pytest.raises(InputError, match="size=0 and width=128 cannot be"):
        GlyphEncoder(SMALL, 0, seed=0)


def test_networks_on_an_encoder():
    network = Encoded(GlyphEncoder(SMALL, 6, seed=0), 6, 4)
    obs, start = drawn(8).reshape(4, 2, -1), torch.zeros(4, 2, dtype=torch.bool)
    logits, values = network.sequence(obs, torch.zeros(2, 0), start)
    assert (logits.shape, values.shape) == ((4, 2, 4), (4, 2))
    assert torch.allclose(network.act(obs[1], torch.zeros(2, 0), start[1])[0], logits[1])
    assert logits.abs().max() < 0.1  # the first choice is open
    recurrent = Recurrent(SMALL.size, 4, hidden=6, encoder=GlyphEncoder(SMALL, 6, seed=0))
    assert recurrent.sequence(obs, torch.zeros(2, recurrent.memory), start)[0].shape == (4, 2, 4)


# Compiled levels


def test_compiled_levels_are_kept_and_never_written_through_a_link(tmp_path):
    shared = tmp_path / "shared"
    shared.write_bytes(b"of all games")
    compiled = []

    def game(name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "nhdat").symlink_to(shared)

        def patch(description):
            compiled.append(description)
            (folder / "nhdat").unlink(missing_ok=True)
            (folder / "nhdat").write_bytes(f"level {description}".encode())

        return SimpleNamespace(nethack=SimpleNamespace(_vardir=str(folder)), _patch_nhdat=patch)

    one, other = game("one"), game("other")
    minihack.share_levels([one, other], most=2)
    for played, description in ((one, "a"), (other, "a"), (one, "b"), (one, "a"), (one, "c"), (one, "b")):
        played._patch_nhdat(description)
        assert (Path(played.nethack._vardir) / "nhdat").read_bytes() == f"level {description}".encode()
    assert compiled == ["a", "b", "c", "b"]  # two are kept: b was the one not asked for the longest
    assert shared.read_bytes() == b"of all games"
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["nhdat"]


# The loop, with a game whose every step is known


class Walk:
    """Action 1 leads a column on from where the level's seed says; two steps are a win, three are too many."""

    obs_crop_h = obs_crop_w = 3
    _max_episode_steps = 3
    action_space = SimpleNamespace(n=2)
    nethack = SimpleNamespace(_vardir="")

    def __init__(self, seeded=True, tells_the_end=True):
        self.seeded, self.tells_the_end, self.noise = seeded, tells_the_end, np.random.default_rng(0)

    def seed(self, core, disp, reseed):
        assert core == disp
        assert not reseed
        self.level = core

    def reset(self):
        self.time, self.moved = 0, 0
        self.first = 1 + (self.level if self.seeded else int(self.noise.integers(50))) % 50
        return self._seen(), {}

    def step(self, action):
        self.time += 1
        self.moved += action
        won = self.moved == 2
        assert self._max_episode_steps > self.time  # or the game would be quit, and what was seen lost
        return self._seen(), float(won), won, False, {}

    def close(self):
        self.closed = True

    def _patch_nhdat(self, description): ...

    def _seen(self):
        stats = np.zeros(27, dtype=np.int64)
        if self.tells_the_end or self.moved < 2:
            stats[:2] = self.first + self.moved, 4
        text = f"You moved {self.moved}".encode()
        return {
            "glyphs": np.full((21, 79), self.first + self.moved),
            "glyphs_crop": np.full((3, 3), self.first + self.moved),
            "blstats": stats,
            "message": np.frombuffer(text + bytes(256 - len(text)), dtype=np.uint8),
        }


@pytest.fixture
def walks(monkeypatch):
    def make(count, seeded=True, tells_the_end=True, **options):
        monkeypatch.setattr(minihack, "make_game", lambda task, **settings: Walk(seeded, tells_the_end))
        return minihack.MiniHackVector(count, "MiniHack-Walk-v0", **options)

    return make


def test_games_step_by_step(walks):
    envs = walks(2)
    obs, infos = envs.reset(seed=5)
    first = obs[:, 0].astype(int)
    assert infos["pos"].tolist() == [4 * 79 + x for x in first]
    assert infos["place"].tolist() == [[x, 4] for x in first]
    assert infos["msg"][0] == infos["msg"][1]
    assert "context" not in infos
    assert infos["obs"].tolist() == key_of(
        np.array([[infos["glyphs"][row], infos["msg"][row], first[row], 4, *[0] * 25] for row in (0, 1)])
    ).tolist()  # fmt: skip
    _, rewards, terminated, truncated, infos = envs.step(np.array([1, 0]))
    assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == ([0, 0], [False] * 2, [False] * 2)
    assert infos["msg"][0] != infos["msg"][1]
    obs, rewards, terminated, truncated, infos = envs.step(np.array([1, 0]))
    assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == ([1, 0], [True, False], [False] * 2)
    assert infos["final_obs"][0, 0] == first[0] + 2  # what it ended with
    assert infos["final_info"]["pos"][0] == 4 * 79 + first[0] + 2
    assert infos["_final_obs"].tolist() == [True, False]
    assert obs[0, 0] == infos["pos"][0] - 4 * 79  # what the next one began with
    assert infos["msg"][0] == infos["msg"][1]  # both have not moved
    _, _, terminated, truncated, infos = envs.step(np.array([0, 0]))
    assert (terminated.tolist(), truncated.tolist()) == ([False] * 2, [False, True])  # time is up: not terminated


def test_a_game_that_is_over_is_nowhere(walks):
    envs = walks(1, tells_the_end=False)
    envs.reset(seed=5)
    envs.step(np.array([1]))
    infos = envs.step(np.array([1]))[4]
    assert infos["final_info"]["place"].tolist() == [[-1, -1]]
    assert infos["place"].min() > 0


def test_levels_depend_on_seed_row_and_number_alone(walks):
    def levels(envs, seed):
        found = [envs.reset(seed=seed)[1]["pos"].tolist()]
        for _ in range(6):
            found.append(envs.step(np.ones(envs.num_envs, dtype=np.int64))[4]["pos"].tolist())
        return np.array(found)

    three = levels(walks(3), 5)
    assert np.array_equal(three, levels(walks(3), 5))
    assert np.array_equal(three[:, :2], levels(walks(2), 5))
    assert not np.array_equal(three, levels(walks(3), 6))
    assert len(set(three[0])) > 1


def test_finitely_many_levels_come_again(walks):
    envs = walks(4, contexts=2, seed=1)
    starts = {}
    obs, infos = envs.reset(seed=0)
    for _ in range(12):
        for row in range(4):
            starts.setdefault(int(infos["context"][row]), set()).add(float(obs[row, 0]))
        for _ in range(2):
            obs, _, _, _, infos = envs.step(np.ones(4, dtype=np.int64))
    assert {context: len(found) for context, found in starts.items()} == {0: 1, 1: 1}


def test_levels_that_their_seeds_do_not_fix_are_refused(walks):
    with pytest.raises(InputError, match=r"the level of seed \d+ began in two different ways"):
        walks(1, seeded=False, contexts=2)


def test_a_collector_reads_its_keys(walks):
    collector = Collector(walks(3))
    collector.begin(Rng((0,)))
    network = Encoded(GlyphEncoder(collector.envs.layout, 6, seed=0), 6, collector.actions)
    found = collector.collect(network, 8, Rng((1,)))
    assert set(found.rollout.keys) == {"pos", "msg", "glyphs", "obs"}
    assert found.rollout.done.any()
    assert len(found.returns) == int(found.rollout.done.sum())
    moved = found.rollout.keys["pos"][1:] - found.rollout.keys["pos"][:-1]
    assert torch.equal(moved[~found.rollout.done], found.rollout.action[~found.rollout.done])
    assert collector.state_dict() == {}  # a game cannot be saved


def test_an_album_of_games(walks):
    """Where they stood, on a screen of which nothing is known beforehand."""
    envs = walks(3)
    collector, album = Collector(envs), Album(_drawn(envs))
    collector.begin(Rng((0,)))
    network = Encoded(GlyphEncoder(envs.layout, 6, seed=0), 6, collector.actions)
    found = collector.collect(network, 8, Rng((1,)))
    album.see(found, torch.zeros(8, 3), step=1, total=1)
    assert album.visits.shape == (5, 21, 79)
    assert album.visits.sum() == album.visits[0, 4].sum() == 24  # all in row 4
    assert album.episodes[0]["drawing"] == [" " * 79] * 21
    assert album.episodes[0]["path"][0][1] == 4


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda make: make(0), "num_envs is 0"),
        (lambda make: make(1, contexts=0), r"contexts is 0; it must be in \[1, 100000\]"),
        (lambda make: make(2).step(np.array([0, 2])), r"2 whole numbers in \[0, 1\]"),
        (lambda make: make(2).step(np.array([0.0, 1.0])), r"2 whole numbers in \[0, 1\]"),
        (lambda make: make(2).reset(options={"context": 1}), "one seed for all games, and no options"),
    ],
)
def test_what_cannot_be_done_is_refused(walks, act, words):
    with pytest.raises(InputError, match=words):
        act(walks)


def test_games_are_closed(walks):
    envs = walks(2)
    envs.close()
    assert all(game.closed for game in envs._games)


# What the script of runs reports


def test_the_best_updates_may_be_the_last():
    """Ten updates in which two of ten episodes won, and one in which all did: (9 x 2 + 10) of 100 in the last ten."""
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts/minihack_runs.py"))
    rows = [{"episode/count": 10.0, "episode/success": 0.2}] * 10 + [{"episode/count": 10.0, "episode/success": 1.0}]
    assert script["best"](rows) == script["share"](rows[-10:]) == pytest.approx(0.28)
    assert script["best"](rows[:3]) == pytest.approx(0.2)  # fewer than ten are one row of them
    assert script["best"]([{"episode/count": 0.0}] * 12) is None


# The games themselves


def test_the_papers_tasks():
    assert len(set(minihack.MINIHACK_TASKS)) == 16
    assert sum("Restricted" in task for task in minihack.MINIHACK_TASKS) == 7


@pytest.mark.skipif(INSTALLED, reason="it is installed")
def test_without_minihack_it_says_what_to_do():
    with pytest.raises(MissingError, match=r"needs nle, minihack, minigrid.*pip install 'reckon-rl\[minihack\]'"):
        make_environments(minihack.MINIHACK_TASKS[3], 1)


def trace(envs, steps=12, seed=3):
    """Observations and rewards of fixed actions."""
    rng = np.random.default_rng(0)
    found = [envs.reset(seed=seed)[0]]
    for _ in range(steps):
        obs, rewards, *_ = envs.step(rng.integers(envs.single_action_space.n, size=envs.num_envs))
        found += [obs, rewards]
    return found


@games
@pytest.mark.parametrize("task", minihack.MINIHACK_TASKS)
def test_every_task_of_the_paper_is_made_and_its_levels_are_fixed_by_seeds(task):
    first, again = minihack.MiniHackVector(1, task), minihack.MiniHackVector(1, task)
    for one, other in zip(trace(first), trace(again), strict=True):
        assert np.array_equal(one, other)
    if "Labyrinth" not in task:  # one fixed map
        starts = {first.reset(seed=seed)[1]["glyphs"][0] for seed in range(4)}
        assert len(starts) > 1
    first.close()
    again.close()


@games
def test_cached_levels_are_the_compiled_ones():
    task = "MiniHack-MultiRoom-N4-Locked-v0"
    games = [minihack.make_game(task) for _ in range(2)]
    plain = [minihack.begin(games[0], level)["glyphs"].copy() for level in (1, 2, 1)]
    minihack.share_levels(games)
    for game in (*games, games[0]):  # compiled, then from what is kept
        for level, expected in zip((1, 2, 1), plain, strict=True):
            assert np.array_equal(minihack.begin(game, level)["glyphs"], expected)


@games
def test_time_that_is_up_is_not_the_end_of_the_task():
    """And what was seen last is what is seen: the hero walks into a wall, and stands where he stood."""
    envs = minihack.MiniHackVector(1, "MiniHack-Labyrinth-Big-v0", max_episode_steps=5)
    _, infos = envs.reset(seed=0)
    north, first = np.zeros(1, dtype=np.int64), infos["pos"][0]
    for step in range(1, 6):
        obs, _, terminated, truncated, infos = envs.step(north)
        assert (bool(terminated[0]), bool(truncated[0])) == (False, step == 5)
        if step < 5:
            stood, before = infos["pos"][0], obs
    assert infos["final_info"]["pos"][0] == stood
    assert np.array_equal(infos["final_obs"][:, : envs.layout.cells], before[:, : envs.layout.cells])
    assert infos["pos"][0] == first  # it has begun anew, on its one map


@games
@pytest.mark.parametrize(
    ("settings", "words"), [({"task": "MiniHack-Rom-v0"}, "The tasks of the paper"), ({"obs_crop_h": 4}, "arguments")]
)
def test_games_that_cannot_be_made_say_why(settings, words):
    with pytest.raises(InputError, match=words):
        minihack.make_game(**{"task": "MiniHack-Room-5x5-v0", **settings})
