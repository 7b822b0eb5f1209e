"""The bonuses of the literature, by name: each a sentence whose words are parts."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from reckon.errors import InputError
from reckon.explore._combine import Combined
from reckon.explore._counts import EpisodicCount, GlobalCount
from reckon.explore._elliptical import Elliptical
from reckon.explore._features import InverseDynamics, RandomFeatures
from reckon.explore._learning import mlp
from reckon.explore._networks import Adversary, Impact, NoveltyDifference, RandomDistillation
from reckon.explore._rollout import Bonus
from reckon.types import Rng

Encoder: TypeAlias = Callable[[int, int], nn.Module]  # (size, seed) to a network from [n, *O] to [n, size]


@dataclass(frozen=True, kw_only=True)
class Novelty:
    """The numbers of named bonuses. Each reads what `READ` says; the parts say which values cannot be."""

    size: int = 32  # features of elliptical bonuses and impact
    error_size: int = 16  # numbers that random distillation predicts
    ridge: float = 0.1  # of elliptical bonuses
    c: float = 0.1  # of NovelD
    weight: float = 1.0  # of the second part of sums
    lr: float = 1e-3  # of all networks
    epochs: int = 1  # how often they read a rollout
    parts: int = 4  # into how many steps each reading is cut


@dataclass(frozen=True, kw_only=True)
class BonusSettings(Novelty):
    """What named bonuses are built with: their numbers, and what the environment decides."""

    encoder: Encoder  # makes every network that reads observations
    actions: int  # how many there are
    key: str = "pos"  # the name of the keys that are counted
    seed: int = 0  # of all first weights


def flat_encoder(numbers: int, *, width: int = 64) -> Encoder:
    """Networks with one hidden layer for observations of so many numbers, which are flattened."""
    return lambda size, seed: mlp([numbers, width, size], seed=seed)


def named_bonus(name: str, settings: BonusSettings) -> Bonus:
    """A bonus of `BONUSES`, on its own scale; `Normalized` puts it on one that can be added to rewards.

    Raises:
        InputError: there is none of this name.
    """
    if name not in _NAMED:
        near = difflib.get_close_matches(name, BONUSES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"there is no bonus {name!r}.{hint} (bonuses: {', '.join(BONUSES)})")
    return _NAMED[name](settings)


def _seed(s: BonusSettings, network: str) -> int:
    return Rng(("bonus", s.seed, network)).integer()


def _rnd(s: BonusSettings) -> RandomDistillation:
    target, predictor = (s.encoder(s.error_size, _seed(s, name)) for name in ("target", "predictor"))
    return RandomDistillation(target, predictor, lr=s.lr, epochs=s.epochs, parts=s.parts)


def _inverse(s: BonusSettings, forward: float = 0.0) -> InverseDynamics:
    return InverseDynamics(
        s.encoder(s.size, _seed(s, "features")),
        size=s.size,
        actions=s.actions,
        width=2 * s.size,
        forward=forward,
        lr=s.lr,
        epochs=s.epochs,
        parts=s.parts,
        seed=_seed(s, "inverse"),
    )


def _random(s: BonusSettings) -> RandomFeatures:
    return RandomFeatures(s.encoder(s.size, _seed(s, "features")), size=s.size)


def _e3b(s: BonusSettings) -> Elliptical:
    return Elliptical(_inverse(s), ridge=s.ridge)


def _difference(s: BonusSettings) -> NoveltyDifference:
    return NoveltyDifference(_rnd(s), c=s.c)


def _adversary(s: BonusSettings) -> Adversary:
    return Adversary(s.encoder(s.actions, _seed(s, "adversary")), lr=s.lr, epochs=s.epochs, parts=s.parts)


def _times(episodic: Bonus, overall: Bonus) -> Bonus:
    return Combined({"episodic": episodic, "global": overall})


def _plus(episodic: Bonus, overall: Bonus, weight: float) -> Bonus:
    return Combined({"episodic": episodic, "global": overall}, how="sum", weights={"global": weight})


_NAMED: dict[str, Callable[[BonusSettings], Bonus]] = {
    "global_count": lambda s: GlobalCount(key=s.key),
    "episodic_count": lambda s: EpisodicCount(key=s.key),
    "episodic_times_global_count": lambda s: _times(EpisodicCount(key=s.key), GlobalCount(key=s.key)),
    "episodic_plus_global_count": lambda s: _plus(EpisodicCount(key=s.key), GlobalCount(key=s.key), s.weight),
    "rnd": _rnd,
    "noveld": lambda s: _times(EpisodicCount(key=s.key), _difference(s)),
    "ride": lambda s: _times(EpisodicCount(key=s.key, how="sqrt"), Impact(_inverse(s, forward=1.0))),
    "agac": lambda s: Combined(
        {"global": _adversary(s), "episodic": EpisodicCount(key=s.key, how="sqrt")},
        how="sum",
        weights={"episodic": s.weight},
    ),
    "e3b": _e3b,
    "e3b_random_features": lambda s: Elliptical(_random(s), ridge=s.ridge),
    "e3b_lifelong": lambda s: Elliptical(_inverse(s), ridge=s.ridge, memory="run"),
    "e3b_times_rnd": lambda s: _times(_e3b(s), _rnd(s)),
    "e3b_times_noveld": lambda s: _times(_e3b(s), _difference(s)),
    "e3b_times_agac": lambda s: _times(_e3b(s), _adversary(s)),
    "e3b_plus_rnd": lambda s: _plus(_e3b(s), _rnd(s), s.weight),
    "e3b_plus_noveld": lambda s: _plus(_e3b(s), _difference(s), s.weight),
    "e3b_plus_agac": lambda s: _plus(_e3b(s), _adversary(s), s.weight),
}
BONUSES = tuple(_NAMED)
_LEARNED = ("lr", "epochs", "parts")
_E3B = ("size", "ridge", *_LEARNED)
_RND, _NOVELD = ("error_size", *_LEARNED), ("error_size", "c", *_LEARNED)
_COUNTS = ("global_count", "episodic_count", "episodic_times_global_count")
# The numbers of `Novelty` that each bonus reads.
READ: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_COUNTS, ()),
    "episodic_plus_global_count": ("weight",),
    "rnd": _RND,
    "noveld": _NOVELD,
    "ride": ("size", *_LEARNED),
    "agac": ("weight", *_LEARNED),
    "e3b": _E3B,
    "e3b_random_features": ("size", "ridge"),
    "e3b_lifelong": _E3B,
    "e3b_times_rnd": (*_E3B, "error_size"),
    "e3b_times_noveld": (*_E3B, "error_size", "c"),
    "e3b_times_agac": _E3B,
    "e3b_plus_rnd": (*_E3B, "error_size", "weight"),
    "e3b_plus_noveld": (*_E3B, "error_size", "c", "weight"),
    "e3b_plus_agac": (*_E3B, "weight"),
}
COUNTING = tuple(name for name in BONUSES if name.endswith("_count") or name in ("noveld", "ride", "agac"))
