"""What a cell of the exploration studies does: an agent explores a small world and is judged by the task alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from reckon.studies._study import Measured, Settings
from reckon.types import Json, Rng

if TYPE_CHECKING:
    from reckon.explore import Collector, Normalized

LAST = 10  # updates whose episodes count for the result
POINTS = 20  # of a curve
SOLVED = 0.5  # of the last episodes must succeed for a run to count as one that solved its task
COUNTED = (1, 3, 10, 100, 3000)  # maps over which values are compared
KEYS = ("pos", "msg")


def cell(settings: Settings, seed: int) -> Measured:
    """One run; the share of episodes that reached the goal. All arms of a seed have the same maps and first weights."""
    if settings["world"] == "values":
        return _values(cast("int", settings["contexts"]), seed)
    from reckon.explore import PPO, Agent, Collector, FeedForward, Plan, explore_step, make_environments

    root = Rng((seed, "exploration-bonuses"))
    environments, steps = (cast("int", settings[name]) for name in ("environments", "steps"))
    updates = math.ceil(cast("int", settings["frames"]) / (environments * steps))
    envs = make_environments(
        f"reckon/{settings['world']}-v0",
        environments,
        contexts=cast("int | None", settings["contexts"]),
        env={"maps_seed": seed},
    )
    collector = Collector(envs)
    network = FeedForward(collector.size, collector.actions, seed=root.child("network").integer())
    agent = Agent(network, PPO(entropy=cast("float", settings["entropy"]), bootstrap=False))
    bonus = _bonus(settings, collector, seed)
    plan = Plan(updates=updates, steps=steps, alpha=0.1)
    collector.begin(root.child("begin"))
    if bonus is not None:
        bonus.start(collector.obs, collector.keys)
    ended, won, length = ([0.0] * updates for _ in range(3))
    for update in range(updates):
        collected, _, _ = explore_step(agent, collector, bonus, plan, root.child("update", update))
        ended[update] = len(collected.returns)
        won[update], length[update] = float((collected.returns > 0).sum()), float(collected.lengths.sum())
    success = _share(won, ended, updates - LAST, updates)
    every = max(1, updates // POINTS)
    stops = range(every, updates + 1, every)
    return Measured(
        metrics={
            "success": success,
            "solved": float(success > SOLVED),
            "length": _share(length, ended, updates - LAST, updates),
        },
        curves={
            "frames": [float(stop * environments * steps) for stop in stops],
            cast("str", settings["panel"]): [_share(won, ended, stop - every, stop) for stop in stops],
        },
    )


def arm(world: str, bonus: str, panel: str, **changes: Json) -> dict[str, Json]:
    """The settings of an arm on `LavaTrail` or `Star`, as the specification has them."""
    trail = world == "LavaTrail"
    return {
        "world": world,
        "contexts": 1,  # maps; null = as good as infinitely many
        "bonus": bonus,  # of `reckon.explore.BONUSES`, or "none"
        "key": "pos",  # what is counted
        "size": 32,  # features of elliptical bonuses
        "entropy": 0.04 if trail else 0.003,
        "environments": 128 if trail else 64,
        "steps": 64 if trail else 32,
        "frames": 700_000 if trail else 200_000,
        "panel": panel,  # the curve's
        **changes,
    }


def variance(key: str, contexts: int) -> str:
    """The metric's name, of the arm of values."""
    return f"variance of {key} over {contexts}"


def _bonus(settings: Settings, collector: Collector, seed: int) -> Normalized | None:
    from reckon.explore import BonusSettings, Normalized, flat_encoder, named_bonus

    if settings["bonus"] == "none":
        return None
    built = BonusSettings(
        encoder=flat_encoder(collector.size),
        actions=collector.actions,
        key=cast("str", settings["key"]),
        size=cast("int", settings["size"]),
        seed=seed,
    )
    return Normalized(named_bonus(cast("str", settings["bonus"]), built))


def _share(part: list[float], whole: list[float], first: int, stop: int) -> float:
    """The sum of one over that of the other, in these updates; NaN where no episode ended."""
    first = max(first, 0)
    total = sum(whole[first:stop])
    return sum(part[first:stop]) / total if total else math.nan


def _values(contexts: int, seed: int) -> Measured:
    """How much what a state is worth varies over maps, exactly, for each kind of key and number of maps."""
    from reckon.explore import lava_trail, shared_structure

    # The first maps of a seed are the same in any number of them, so one table holds all the smaller ones.
    table = lava_trail(contexts, maps_seed=seed).table(0.99)
    found = {}
    for count in COUNTED:
        there = table.contexts < count
        for key in KEYS:
            structure = shared_structure(table.values[there], table.keys[key][there], table.contexts[there])
            found[variance(key, count)] = structure.mean
    return Measured(metrics=found)
