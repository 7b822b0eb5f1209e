"""Roles that several parts share: a reward is a sum of named rewards, an objective a sum of named objectives."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from reckon.recipe._document import Document, Keys, nearest
from reckon.recipe._kinds import KINDS, Target, find
from reckon.recipe._parts import Part, part_of, read_part
from reckon.recipe._settings import dotted, mapping, settings, typed
from reckon.types import Json, Judges, Objective, Reward

Shared: TypeAlias = Literal["reward", "objective"]


@dataclass(frozen=True, kw_only=True)
class Named:
    """One of the parts that share a role."""

    part: Part
    weight: float = 1.0  # of a reward: multiplies its stream
    watch: bool = False  # of a reward: only logged

    def plain(self) -> dict[str, Json]:
        """As a recipe would write it."""
        names = _extras("reward", self.part.target) if self.part.role == "reward" else []
        extra: dict[str, Json] = {name: getattr(self, name) for name in names if not (self.watch and name == "weight")}
        return self.part.plain() | extra


def read_many(
    document: Document, role: Shared, value: Json, preset: Mapping[str, Named], *, at: Keys | None = None
) -> dict[str, Named]:
    """Checks the parts of a shared role.

    One part may stand alone. A mapping of names to parts is the whole list as soon as one of them has a `kind`: what is
    not in it is not used, and an entry without a kind is the preset's of that name. Where none has a kind, the mapping
    changes settings of the preset's parts and keeps the rest. `at` is where the role stands, if not at the top.
    """
    keys: Keys = at or (role,)
    if value is None:
        return dict(preset)
    if isinstance(value, str) or (isinstance(value, dict) and "kind" in value):
        entry = _read(document, keys, role, value, None)
        return {entry.part.kind.rpartition(":")[2]: entry}
    given = mapping(document, keys, value, f"a kind of {role}, or a mapping of names to parts")
    if not given:
        raise document.error(keys, f"`{role}` is empty. Name at least one part, or leave the key out.")
    if not _names_parts(role, given, preset):
        if len(preset) > 1:
            name, key = next(iter(preset)), next(iter(given))
            raise document.error(
                (*keys, key),
                f"`{dotted((*keys, key))}` does not say whose it is, for the method has several: {', '.join(preset)}. "
                f"Write for example `{role}.{name}.{key}`.",
            )
        ((name, only),) = preset.items()
        return {name: _read(document, keys, role, value, only)}
    whole = any(isinstance(entry, str) or (isinstance(entry, dict) and "kind" in entry) for entry in given.values())
    read = {name: _read(document, (*keys, name), role, entry, preset.get(name)) for name, entry in given.items()}
    return read if whole else {**preset, **read}


def many_of(role: Shared, top: Judges | Objective) -> dict[str, Named]:
    """The recipe's view of what a preset made: a `Sum`, an `Objectives`, or a single objective."""
    parts = getattr(top, "parts", None)
    if parts is None:
        part = part_of(role, top, (role,))
        return {part.kind: Named(part=part)}
    weights: Mapping[str, float] = getattr(top, "weights", {})
    watch: tuple[str, ...] = tuple(getattr(top, "watch", ()))
    return {
        name: Named(part=part_of(role, part, (role, name)), weight=weights.get(name, 1.0), watch=name in watch)
        for name, part in parts.items()
    }


def build_reward(named: Mapping[str, Named], document: Document, given: Mapping[str, Callable[[], object]]) -> Judges:
    """The `Sum` of the rewards."""
    from reckon.rewards import Sum

    return Sum(
        {name: typing.cast("Reward", entry.part.build(document, given)) for name, entry in named.items()},
        weights={name: entry.weight for name, entry in named.items() if entry.weight != 1 and not entry.watch},
        watch=tuple(name for name, entry in named.items() if entry.watch),
    )


def build_objective(
    named: Mapping[str, Named], document: Document, given: Mapping[str, Callable[[], object]]
) -> Objective:
    """The objective, or the `Objectives` where there are several."""
    from reckon.losses import Objectives

    made = {name: typing.cast("Objective", entry.part.build(document, given)) for name, entry in named.items()}
    return next(iter(made.values())) if len(made) == 1 else Objectives(made)


def _read(document: Document, keys: Keys, role: Shared, value: Json, preset: Named | None) -> Named:
    if isinstance(value, str):
        value = {"kind": value}
    given = dict(mapping(document, keys, value, f"a kind of {role}, or a mapping with its `kind` and settings"))
    extras = _extras(role, _target(document, keys, role, given.get("kind"), preset))
    written = {name: given.pop(name) for name in extras if name in given}
    part = read_part(document, keys, role, given, preset.part if preset else None)
    weight = preset.weight if preset else 1.0
    watch = preset.watch if preset else False
    if "weight" in written:
        weight = typing.cast("float", typed(document, (*keys, "weight"), written["weight"], float))
    if "watch" in written:
        watch = typing.cast("bool", typed(document, (*keys, "watch"), written["watch"], bool))
    if watch and "weight" in written:
        raise document.error(
            (*keys, "weight"), f"`{dotted(keys)}` is only watched, so its `weight` is never used. Drop one of them."
        )
    return Named(part=part, weight=1.0 if watch else weight, watch=watch)


def _target(document: Document, keys: Keys, role: Shared, kind: Json, preset: Named | None) -> Target | None:
    """The class an entry is about; None where that is not said, or wrongly."""
    if isinstance(kind, str):
        return find(document, keys, role, kind)
    return preset.part.target if kind is None and preset is not None else None


def _extras(role: Shared, target: Target | None) -> list[str]:
    """Which of `weight` and `watch` an entry has beside the settings of its kind, which keeps a setting of its own."""
    if role != "reward":
        return []
    # A plain function's arguments are the batch's columns, not settings.
    own = {} if target is None or inspect.isfunction(target) else settings(target)
    return [name for name in ("weight", "watch") if name not in own]


def _names_parts(role: Shared, given: Mapping[str, Json], preset: Mapping[str, Named]) -> bool:
    """Whether a mapping without `kind` is one of names to parts, and not of settings to values.

    It is if every entry can be a part and one can be nothing else; a misspelt kind counts as what it was to be.
    """
    sure = [
        isinstance(entry, dict) or name in preset or (isinstance(entry, str) and _like_a_kind(role, entry))
        for name, entry in given.items()
    ]
    return any(sure) and all(
        is_sure or isinstance(entry, str) for is_sure, entry in zip(sure, given.values(), strict=True)
    )


def _like_a_kind(role: Shared, text: str) -> bool:
    return ":" in text or nearest(text, KINDS[role]) is not None
