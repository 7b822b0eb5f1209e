"""Exploring by name: an environment and settings in, a run's folder out."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import gymnasium
from gymnasium.spaces import Box, Discrete, MultiBinary
from gymnasium.vector import AutoresetMode
from torch import nn

from reckon.errors import InputError, MissingError, ReckonError
from reckon.explore._album import Album, Drawn
from reckon.explore._collect import Collector, Vectors
from reckon.explore._combine import Normalized
from reckon.explore._environments import FiniteContexts
from reckon.explore._glyphs import Encoded, GlyphEncoder, GlyphLayout, glyph_encoder
from reckon.explore._loop import Plan, begin, explore
from reckon.explore._minihack import PREFIX, MiniHackVector
from reckon.explore._policies import FeedForward, Recurrent
from reckon.explore._ppo import PPO, Agent
from reckon.explore._presets import BONUSES, COUNTING, READ, BonusSettings, Novelty, flat_encoder, named_bonus
from reckon.explore._register import IDS
from reckon.explore._worlds import World
from reckon.runs import Run
from reckon.types import Json, Metrics, Rng

Show = Literal["auto", "bar", "lines", "nothing"]
_RECENT = 10  # updates whose episodes count for the result
_SEEDS = 100_000  # seeds of levels are drawn below this


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How `reckon explore` explores."""

    env: Mapping[str, Json] = field(default_factory=dict)  # arguments of the environment
    contexts: int | None = None  # how many different levels there are; None = as the environment has it
    bonus: str = "episodic_times_global_count"  # of `BONUSES`, or "none"
    key: str | None = None  # what counting bonuses count; None = pos
    novelty: Novelty = field(default_factory=Novelty)  # numbers of the bonus
    norm: Literal["std", "reference", "none"] = "std"  # what bonuses are divided by
    alpha: float = 0.1  # their weight
    clip: float | None = None  # of reward and bonus together
    network: Literal["feed_forward", "recurrent"] = "feed_forward"
    hidden: int = 64  # width of its layers
    ppo: PPO = field(default_factory=PPO)
    environments: int = 128  # that step at once
    steps: int = 64  # of each, an update
    frames: int = 700_000  # of all of them, in the whole run
    save_every: int = 20  # updates between checkpoints
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "environments", "steps", "frames", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` is {getattr(self, name)}, but must be at least 1.")
        for name, choices in (("network", ("feed_forward", "recurrent")), ("norm", ("std", "reference", "none"))):
            if getattr(self, name) not in choices:
                raise InputError(f"`{name}` is {getattr(self, name)!r}, but must be {', '.join(choices)}.")


@dataclass(frozen=True, kw_only=True)
class Explored:
    """What became of it."""

    folder: Path  # the run's
    finished: bool  # False = interrupted: resume it
    updates: int
    frames: int
    success: float  # share of the last updates' episodes with a return above 0; NaN = none ended


def run_explore(
    name: str, settings: Settings, out: str | Path, *, overwrite: bool = False, show: Show = "auto"
) -> Explored:
    """Explores an environment and writes a run's folder.

    Args:
        name: of an environment that Gymnasium knows; `module:name` imports the module first.
        settings: how.
        out: the folder.
        overwrite: delete the run that is there.
        show: how progress is shown, on stderr.

    Raises:
        InputError: an environment or a setting that cannot be used.
        MissingError: an environment that is not installed.
        RunError: a run is there already; no room.
    """
    plan, parts = _plan(settings, show), _parts(name, settings)
    begin(parts.collector, parts.bonus, settings.seed)  # what cannot be leaves no folder behind
    with Run.create(out, recipe=_recipe(name, settings), overwrite=overwrite, keep_last=1) as run:
        return _explored(parts, run, plan)


def resume_explore(name: str, settings: Settings, folder: str | Path, *, show: Show = "auto") -> Explored:
    """Goes on with an interrupted run, exactly where the environment's state was saved, as that of reckon's own are.

    Args:
        name: the environment's.
        settings: those of the run.
        folder: the run's.
        show: how progress is shown.

    Raises:
        InputError, MissingError, RunError: as `run_explore`; and RunError where the settings differ from the run's.
    """
    plan, parts = _plan(settings, show), _parts(name, settings)
    with Run.resume(folder, _recipe(name, settings), keep_last=1) as run:
        return _explored(parts, run, plan)


def make_environments(
    name: str,
    count: int,
    *,
    contexts: int | None = None,
    seed: int = 0,
    env: Mapping[str, Json] | None = None,
) -> Vectors:
    """Environments side by side, of a kind that Gymnasium knows, as `Collector` wants them.

    Args:
        name: registered with Gymnasium, or a task of MiniHack; `module:name` imports the module first.
        count: how many.
        contexts: of reckon's own, how many there are; of others, how many seeds episodes begin from. None = as it is.
        seed: which those are; of reckon's own `maps_seed`, unless `env` gives that.
        env: arguments of the environment.

    Raises:
        InputError: it is not known, cannot be made with these arguments, or a level is not fixed by its seed.
        MissingError: its module, or what it needs, is not installed.
    """
    module, _, id_ = name.rpartition(":")
    _import(module)
    given: dict[str, Any] = dict(env or {})
    if contexts is not None and "contexts" in given:
        raise InputError(f"{name}: contexts={contexts} and env.contexts={given['contexts']} are two. Give one of them.")
    if contexts is not None and id_ in IDS:
        given["contexts"] = contexts
    try:
        if id_.startswith(PREFIX):
            return MiniHackVector(count, id_, **{"contexts": contexts, **given}, seed=seed)
        if id_ in IDS:
            own = {"maps_seed": seed, **given}
            return gymnasium.make_vec(id_, count, vectorization_mode="vector_entry_point", **own)
        return gymnasium.make_vec(
            id_,
            count,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
            wrappers=_wrappers(id_, given, contexts, seed),
            **given,
        )
    except ReckonError:
        raise
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise MissingError(f"{name} needs a package that is not installed: {error}") from error
    except gymnasium.error.Error as error:
        raise InputError(f"{name}: {error} reckon's own are {', '.join(IDS)}.") from error
    except (TypeError, ValueError, LookupError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"{name} cannot be made with these arguments ({', '.join(given) or 'none'}): "
            f"{type(error).__name__}: {error}"
        ) from error


def _wrappers(
    name: str, given: Mapping[str, Any], contexts: int | None, seed: int
) -> list[Callable[[gymnasium.Env[Any, Any]], gymnasium.Wrapper[Any, Any, Any, Any]]]:
    """What an environment of others is put into: its observations flattened, its levels finite."""
    wrappers: list[Callable[[gymnasium.Env[Any, Any]], gymnasium.Wrapper[Any, Any, Any, Any]]] = []
    if contexts is not None:
        if not 0 < contexts <= _SEEDS:
            raise InputError(f"contexts is {contexts}; it must be in [1, {_SEEDS}], or null.")
        drawn = Rng((seed, "contexts")).numpy().choice(_SEEDS, contexts, replace=False)
        wrappers.append(partial(FiniteContexts, seeds=drawn.tolist()))
    probe = gymnasium.make(name, **given)
    if not isinstance(probe.observation_space, Box | Discrete | MultiBinary):
        wrappers.append(gymnasium.wrappers.FlattenObservation)
    probe.close()
    return wrappers


def _import(module: str) -> None:
    if not module:
        return
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise MissingError(
            f"the module `{module}`, which registers the environment, cannot be imported: {error}. Install it; a file "
            "of this folder is found with PYTHONPATH=. before the command."
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What a run is made of."""

    agent: Agent
    collector: Collector
    bonus: Normalized | None
    album: Album


def _recipe(name: str, settings: Settings) -> dict[str, Json]:
    """What the run's folder says of it: what is counted, or that nothing is."""
    given = cast("dict[str, Json]", json.loads(json.dumps(dataclasses.asdict(settings))))
    return {"explore": name, **given, "key": _key(settings) if settings.bonus in COUNTING else None}


def _key(settings: Settings) -> str:
    return "pos" if settings.key is None else settings.key


def _parts(name: str, settings: Settings) -> _Parts:
    envs = make_environments(
        name, settings.environments, contexts=settings.contexts, seed=settings.seed, env=settings.env
    )
    collector = Collector(envs)
    seed = Rng((settings.seed, "network")).integer()
    layout = layout_of(envs)
    encoder = None if layout is None else GlyphEncoder(layout, settings.hidden, seed=seed)
    network: nn.Module
    if settings.network == "recurrent":
        network = Recurrent(collector.size, collector.actions, hidden=settings.hidden, seed=seed, encoder=encoder)
    elif encoder is not None:
        network = Encoded(encoder, settings.hidden, collector.actions, seed=seed)
    else:
        network = FeedForward(collector.size, collector.actions, hidden=(settings.hidden,) * 2, seed=seed)
    return _Parts(
        agent=Agent(network, settings.ppo),
        collector=collector,
        bonus=_bonus(settings, collector, layout),
        album=Album(_drawn(envs)),
    )


def _bonus(settings: Settings, collector: Collector, layout: GlyphLayout | None) -> Normalized | None:
    if settings.key is not None and settings.bonus in ("none", *BONUSES) and settings.bonus not in COUNTING:
        raise InputError(
            f"`key` is {settings.key!r}, and the bonus {settings.bonus!r} counts nothing. Leave `key` out, or take a "
            f"bonus that counts: {', '.join(COUNTING)}."
        )
    numbers = dataclasses.asdict(settings.novelty)
    changed = [name for name, value in dataclasses.asdict(Novelty()).items() if numbers[name] != value]
    read = READ.get(settings.bonus, () if settings.bonus == "none" else tuple(numbers))
    if unread := [f"`novelty.{name}`" for name in changed if name not in read]:
        raise InputError(
            f"the bonus {settings.bonus!r} does not read {', '.join(unread)}. Leave it out; it reads "
            f"{', '.join(f'novelty.{name}' for name in read) or 'none of these numbers'}."
        )
    if settings.bonus == "none":
        plain = Settings()
        if unread := [f"`{name}`" for name in ("alpha", "norm") if getattr(settings, name) != getattr(plain, name)]:
            raise InputError(f"without a bonus nothing reads {', '.join(unread)}. Leave it out, or take a bonus.")
        return None
    built = BonusSettings(
        **numbers,
        encoder=flat_encoder(collector.size) if layout is None else glyph_encoder(layout),
        actions=collector.actions,
        key=_key(settings),
        seed=settings.seed,
    )
    return Normalized(named_bonus(settings.bonus, built), norm=settings.norm)


def world_of(envs: Vectors) -> World | None:
    """The world whose every number is known, if it is one."""
    return cast("World | None", getattr(envs.unwrapped, "world", None))


def _drawn(envs: Vectors) -> Drawn | None:
    """What has a picture that a path can be drawn over."""
    return cast("Drawn | None", world_of(envs) or (envs.unwrapped if hasattr(envs.unwrapped, "picture") else None))


def layout_of(envs: Vectors) -> GlyphLayout | None:
    """What the numbers of its observations are, if they are names of things."""
    return cast("GlyphLayout | None", getattr(envs.unwrapped, "layout", None))


def _plan(settings: Settings, show: Show) -> Plan:
    return Plan(
        updates=math.ceil(settings.frames / (settings.environments * settings.steps)),
        steps=settings.steps,
        alpha=settings.alpha,
        clip=settings.clip,
        seed=settings.seed,
        save_every=settings.save_every,
        show=show,
    )


def _explored(parts: _Parts, run: Run, plan: Plan) -> Explored:
    finished = explore(parts.agent, parts.collector, parts.bonus, run, plan, parts.album)
    updates = max(run.checkpoints, default=0)
    return Explored(
        folder=run.folder,
        finished=finished,
        updates=updates,
        frames=updates * plan.steps * parts.collector.count,
        success=success(run.metrics()[-_RECENT:]),
    )


def success(metrics: list[Metrics]) -> float:
    """The share of these updates' episodes with a return above 0; NaN if none ended."""
    ended = [(row["episode/count"], row["episode/success"]) for row in metrics if row.get("episode/count")]
    return sum(n * share for n, share in ended) / sum(n for n, _ in ended) if ended else math.nan
