"""Whole runs: what is logged and kept, Ctrl-C and going on exactly, and the commands."""

import json
import os
import signal
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from explore_worlds import corner

from reckon.cli import main
from reckon.errors import InputError, RunError
from reckon.explore import (
    BONUSES,
    PPO,
    Agent,
    Album,
    BonusSettings,
    Collector,
    Combined,
    EpisodicCount,
    FeedForward,
    GlobalCount,
    Normalized,
    Novelty,
    Plan,
    Recurrent,
    Settings,
    WorldVector,
    explore,
    flat_encoder,
    named_bonus,
    resume_explore,
    run_explore,
)
from reckon.explore._loop import total_rewards
from reckon.explore._presets import COUNTING, READ
from reckon.runs import Run

CLOCKS = ("seconds", "time/", "memory/")


def parts(network=FeedForward, world=None):
    world = world or corner(horizon=5)
    collector = Collector(WorldVector(4, world))
    made = network(collector.size, collector.actions, hidden=(8,) if network is FeedForward else 8)
    bonus = Normalized(Combined({"episodic": EpisodicCount(), "global": GlobalCount()}))
    return {"agent": Agent(made, PPO()), "collector": collector, "bonus": bonus, "album": Album(world)}


def plan(**changes):
    return Plan(**{"updates": 6, "steps": 7, "save_every": 2, "show": "nothing", **changes})


def logged(folder):
    """The metrics without what a clock says."""
    return [{k: v for k, v in row.items() if not k.startswith(CLOCKS)} for row in Run.open(folder).metrics()]


def same(one, other):
    """Two states, tensors and all."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


class Interrupting(Album):
    """Presses Ctrl-C in the third update."""

    def see(self, collected, bonus, step, total):
        super().see(collected, bonus, step, total)
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("network", [FeedForward, Recurrent])
def test_an_interrupted_run_goes_on_exactly(network, tmp_path):
    whole = parts(network)
    with Run.create(tmp_path / "whole", recipe={}) as run:
        assert explore(**whole, run=run, plan=plan())
    first = parts(network)
    first["album"] = Interrupting(corner())
    with Run.create(tmp_path / "cut", recipe={}) as run:
        assert not explore(**first, run=run, plan=plan())
        assert run.checkpoints[-1] == 3
    second = parts(network)
    with Run.resume(tmp_path / "cut") as run:
        assert explore(**second, run=run, plan=plan())
    assert len(logged(tmp_path / "whole")) == 6
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")
    for name in ("agent", "collector", "bonus", "album"):
        same(second[name].state_dict(), whole[name].state_dict())
    for kept in ("whole", "cut"):
        assert json.loads((tmp_path / kept / "explore" / "album.json").read_text())["episodes"][0]["step"] == 1


def test_what_a_run_logs(tmp_path):
    with Run.create(tmp_path / "run", recipe={}) as run:
        explore(**parts(), run=run, plan=plan(updates=2, clip=0.5))
    first, second = Run.open(tmp_path / "run").metrics()
    assert first["frames"] == 28
    for row in (first, second):
        assert row["episode/count"] * row["episode/length"] <= 28 * row["step"]
        assert 0 <= row["episode/success"] <= 1
        assert row["episode/return"] == row["episode/success"]  # one reward of 1 an episode at most
        assert 0 < row["bonus/share"] <= 1
        assert row["bonus/paid"] == pytest.approx(0.1 * row["bonus/mean"] / row["bonus/deviation"], rel=1e-4)
        assert 0 <= row["bonus/clipped"] < 1
        assert {"time/sample", "time/bonus", "time/update", "policy/loss", "value/loss", "seconds"} <= set(row)


def test_rewards_and_bonuses_are_added_and_clipped():
    rewards, bonus = torch.tensor([[1.0, 0.0, -3.0]]), torch.tensor([[2.0, 4.0, 0.0]])
    assert total_rewards(rewards, bonus, 0.5, None).tolist() == [[2.0, 2.0, -3.0]]
    assert total_rewards(rewards, bonus, 0.5, 1.5).tolist() == [[1.5, 1.5, -1.5]]
    assert total_rewards(rewards, bonus, 0.0, None).tolist() == rewards.tolist()


def test_without_a_bonus_nothing_is_paid(tmp_path):
    made = parts()
    with Run.create(tmp_path / "run", recipe={}) as run:
        explore(**{**made, "bonus": None}, run=run, plan=plan(updates=1))
    (row,) = Run.open(tmp_path / "run").metrics()
    assert row["bonus/paid"] == row["bonus/share"] == 0
    assert "bonus/mean" not in row


def test_the_album_counts_visits_and_keeps_episodes(tmp_path):
    made = parts()
    with Run.create(tmp_path / "run", recipe={}) as run:
        explore(**made, run=run, plan=plan(updates=10))
    found = json.loads((tmp_path / "run" / "explore" / "album.json").read_text())
    visits = np.array(found["visits"])
    assert visits.shape == (5, 4, 5)
    assert visits.sum(axis=(1, 2)).tolist() == [2 * 28] * 5  # two updates a fifth, every state that was entered
    assert visits[:, 0].sum() == 0  # nobody stands in the wall above
    assert [one["step"] for one in found["episodes"]] == [1, 2, 4, 6, 8, 10]
    for one in found["episodes"]:
        assert one["drawing"] == ["~###~", "~..G~", "~.~~~", "~~~~~"]
        assert one["path"][0] == [1, 1]
        assert len(one["path"]) == len(one["bonus"]) + 1 == len(one["rewards"]) + 1
        assert one["whole"]
        end = one["drawing"][one["path"][-1][1]][one["path"][-1][0]]
        assert (end == "G") == (one["rewards"][-1] == 1)
        assert end in "G~" or len(one["rewards"]) == 5
        assert min(one["bonus"]) >= 0
    assert max(max(one["bonus"]) for one in found["episodes"]) > 0


def test_plans_that_cannot_be():
    for changes, words in (
        ({"updates": 0}, "`updates` is 0"),
        ({"alpha": -1.0}, "alpha=-1.0 must be 0 or more"),
        ({"clip": 0.0}, "clip=0.0 above 0"),
    ):
        with pytest.raises(InputError, match=words):
            plan(**changes)


def test_settings_that_cannot_be():
    for changes, words in (
        ({"network": "lstm"}, "`network` is 'lstm', but must be feed_forward, recurrent"),
        ({"norm": "var", "bonus": "none"}, "`norm` is 'var', but must be std, reference, none"),
    ):
        with pytest.raises(InputError, match=words):
            Settings(**changes)


# By name


def short(**changes):
    return Settings(**{"environments": 4, "steps": 6, "frames": 72, "hidden": 8, "contexts": 2, **changes})


@pytest.mark.parametrize("bonus", ["none", "e3b_times_rnd"])
def test_a_run_by_name_goes_on_exactly(bonus, tmp_path):
    settings = short(bonus=bonus, save_every=2)
    done = run_explore("reckon/LavaTrail-v0", settings, tmp_path / "whole", show="nothing")
    assert (done.finished, done.updates, done.frames) == (True, 3, 72)
    again = resume_explore("reckon/LavaTrail-v0", settings, tmp_path / "whole", show="nothing")
    assert (again.finished, again.updates) == (True, 3)  # there is nothing left to do
    with pytest.raises(RunError, match="`bonus` was"):
        resume_explore("reckon/LavaTrail-v0", short(bonus="rnd", save_every=2), tmp_path / "whole", show="nothing")


def test_an_environment_of_others(tmp_path):
    settings = short(bonus="episodic_count", key="obs", contexts=None, network="recurrent")
    done = run_explore("FrozenLake-v1", settings, tmp_path / "lake", show="nothing")
    assert done.finished
    assert json.loads((tmp_path / "lake" / "explore" / "album.json").read_text())["episodes"][0]["path"] is None
    with pytest.raises(InputError, match=r"there are no keys 'pos' \(there are: none\)"):
        run_explore("CartPole-v1", short(bonus="episodic_count", contexts=None), tmp_path / "pole", show="nothing")
    assert not (tmp_path / "pole").exists()  # another bonus may be tried under the same name
    assert run_explore("CartPole-v1", short(bonus="rnd", contexts=None), tmp_path / "pole", show="nothing").finished


def test_the_recipe_says_what_is_counted_and_a_key_that_nobody_reads_is_refused(tmp_path):
    for bonus, key in (("global_count", "pos"), ("ride", "pos"), ("rnd", None), ("none", None)):
        run_explore("reckon/LavaTrail-v0", short(bonus=bonus, frames=24), tmp_path / bonus, show="nothing")
        assert Run.open(tmp_path / bonus).recipe["key"] == key
        with pytest.raises(InputError, match=r"counts nothing\. Leave `key` out") if key is None else nullcontext():
            given = short(bonus=bonus, key="msg", frames=24)
            run_explore("reckon/LavaTrail-v0", given, tmp_path / f"{bonus}-msg", show="nothing")


@pytest.mark.parametrize("name", BONUSES)
def test_which_bonuses_count(name):
    """Those that ask for keys."""
    settings = BonusSettings(encoder=flat_encoder(3), actions=2)
    with pytest.raises(InputError, match="there are no keys 'pos'") if name in COUNTING else nullcontext():
        named_bonus(name, settings).start(torch.zeros(2, 3), {})


class Watched(BonusSettings):
    """Remembers which of its numbers were read."""

    def __getattribute__(self, name):
        if name in vars(Novelty()):
            object.__getattribute__(self, "seen").add(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("name", BONUSES)
def test_the_numbers_that_a_bonus_reads(name):
    settings = object.__new__(Watched)
    object.__setattr__(settings, "seen", set())
    settings.__init__(encoder=flat_encoder(3), actions=2)
    named_bonus(name, settings)
    assert settings.seen == set(READ[name])


def test_numbers_of_a_bonus(tmp_path):
    def run(folder, **novelty):
        given = short(bonus="e3b_random_features", novelty=Novelty(**novelty), frames=24)
        run_explore("reckon/LavaTrail-v0", given, tmp_path / folder, show="nothing")
        return Run.open(tmp_path / folder)

    high, low = run("high", ridge=1.0), run("low", ridge=0.1)
    assert (high.recipe["novelty"]["ridge"], low.recipe["novelty"]["ridge"]) == (1.0, 0.1)
    # phi' (ridge I)^-1 phi falls with the ridge, and so does every later one.
    assert high.metrics()[0]["bonus/mean"] < 0.5 * low.metrics()[0]["bonus/mean"]
    with pytest.raises(InputError, match=r"'e3b_random_features' does not read `novelty.c`, `novelty.lr`\. Leave it"):
        run("other", c=0.5, lr=1e-4)
    with pytest.raises(InputError, match=r"`ridge` is 0\.0; it must be above 0"):
        run("zero", ridge=0.0)
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "zero").exists()


# Commands


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(["explore", *words])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


SMALL = ("environments=4", "steps=6", "frames=48", "hidden=8")


def test_explore_writes_a_run_and_its_report(command, tmp_path):
    code, out, err = command("reckon/Star-v0", *SMALL, "env.arms=3", "env.length=2", "ppo.lr=2e-3", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["run"], told["updates"], told["frames"]) == ("runs/explore-Star-v0", 2, 48)
    recipe = Run.open(tmp_path / told["run"]).recipe
    assert (recipe["explore"], recipe["env"], recipe["ppo"]["lr"]) == (
        "reckon/Star-v0", {"arms": 3, "length": 2}, 0.002
    )  # fmt: skip
    assert "Where the agents were" in (tmp_path / told["report"]).read_text()
    code, out, err = command("--resume", told["run"], "-q")
    assert (code, err) == (0, "")
    assert "2 updates, 48 frames, finished" in out
    code, out, err = command("run", "reckon/Star-v0", *SMALL, "-q")
    assert code == 2
    assert "holds a run already" in err


def test_a_run_in_which_no_episode_ended_says_so(command):
    code, out, err = command("reckon/Rooms-v0", "environments=2", "steps=1", "frames=2", "hidden=4", "-q")
    assert code == 0, err
    assert "Success in the last updates: no episode ended" in out


def test_diagnose_says_which_bonus_and_why(command):
    code, out, err = command("diagnose", "reckon/LavaTrail-v0", "contexts=5", "--json")
    assert code == 0, err
    found = {one["key"]: one for one in json.loads(out)["keys"]}
    assert (found["pos"]["favors"], found["msg"]["favors"]) == ("episodic", "global")
    assert found["msg"]["variance"] == pytest.approx(0.0, abs=1e-12)
    assert found["pos"]["exact"]
    code, out, err = command("diagnose", "reckon/Star-v0")
    assert "There is one context" in out
    code, out, err = command("diagnose", "FrozenLake-v1", "contexts=4", "frames=20000", "env.is_slippery=false")
    assert code == 0, err
    assert "estimated from 20,000 steps at random" in out
    code, out, err = command("diagnose", "FrozenLake-v1")
    assert (code, "does not tell its contexts" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("frames=48",), "Name an environment"),
        (("reckon/Star-v0", "bonus=e3c", *SMALL), "there is no bonus 'e3c'"),
        (
            ("reckon/Star-v0", "framse=48"),
            "`explore.framse` is not a setting of `reckon explore`. Did you mean `frames`",
        ),
        (("reckon/Star-v0", "frames=many"), "`explore.frames` must be a whole number"),
        (("reckon/Star-v0", "hidden=0"), "`hidden` is 0"),
        (("reckon/Star-v0", "alpha=-1", *SMALL), "alpha=-1.0 must be 0 or more"),
        (
            ("diagnose", "reckon/Star-v0", "bonus=e3b"),
            "A diagnosis does not read `bonus`. Leave it out: it reads contexts",
        ),
        (("diagnose", "reckon/Star-v0", "ppo.lr=0.1"), "A diagnosis does not read `ppo.lr`"),
        (("diagnose", "reckon/Star-v0", "frames=48"), "nobody walks, and `frames` is not read"),
        (("reckon/Star-v0", "bonus=none", "alpha=5", *SMALL), "without a bonus nothing reads `alpha`. Leave it out"),
        (("reckon/Star-v0", "bonus=none", "norm=none", *SMALL), "without a bonus nothing reads `norm`"),
        (("reckon/Stars-v0",), "reckon's own are"),
        (("Pendulum-v1", "-q"), "only discrete ones"),
        (("--resume", "nowhere"), "is not a run"),
        (("reckon/Star-v0", "--resume", "nowhere"), "Leave everything else out"),
    ],
)
def test_what_a_person_may_get_wrong(command, words, told, tmp_path):
    code, _, err = command(*words)
    assert code == 2
    assert told in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_a_run_of_another_kind_is_not_gone_on_with(command, tmp_path):
    Run.create(tmp_path / "other", recipe={"method": "grpo"}).close()
    code, _, err = command("--resume", "other")
    assert code == 2
    assert "other is no run of `reckon explore`" in err
