"""A part as a recipe names it, checked and not yet made."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import reckon.types as nouns
from reckon.recipe._document import Document, Keys
from reckon.recipe._kinds import KINDS, Role, Target, find, load_kind, own_callable, own_kind
from reckon.recipe._settings import (
    INJECTED,
    arguments,
    construct,
    dotted,
    mapping,
    plain,
    section,
    settings,
    shown,
    typed,
)
from reckon.types import Json

_ROLE_OF: Mapping[object, Role] = {
    nouns.Task: "task",
    nouns.Sampler: "sampler",
    nouns.Keep: "keep",
    nouns.Reward: "reward",
    nouns.LearningReward: "reward",
    nouns.Advantage: "advantage",
    nouns.Objective: "objective",
}


# What the loop asks of a part: tried as soon as the part is made, so that one of the user's own fails early.
_MUST_HAVE: Mapping[Role, tuple[str, ...]] = {
    "task": ("name", "problems", "check"),
    "sampler": ("draw", "learn"),
    "keep": ("__call__",),
    "reward": ("score",),
    "advantage": ("__call__",),
    "objective": ("want", "prepare", "__call__"),
}
# Where a plain function may itself be the part: so many arguments are what it is called with, the others settings.
_CALLED_WITH: Mapping[Role, int] = {"keep": 3, "advantage": 2}


class NotYet(Exception):  # noqa: N818 (a signal, not an error)
    """A part looked at something that only exists once the model is loaded."""


class Later:
    """Stands for a model that is not loaded yet, so that settings can be tried before it is."""

    def __getattr__(self, name: str) -> object:
        raise NotYet(name)


@dataclass(frozen=True)
class Own:
    """A function of the user's as the value of a setting."""

    spec: str  # `file.py:name`
    function: Target


@dataclass(frozen=True)
class Part:
    """A kind and its settings, every default filled in."""

    role: Role
    kind: str
    target: Target
    settings: Mapping[str, object]
    keys: Keys  # where in the recipe it stands

    def plain(self) -> dict[str, Json]:
        """As a recipe would write it."""
        return {"kind": self.kind} | {name: plain_with_parts(value) for name, value in self.settings.items()}

    def build(self, document: Document, injected: Mapping[str, Callable[[], object]]) -> object:
        """Makes the part.

        Raises:
            InputError: it refuses its settings; names the place in the recipe.
        """
        values = {name: _built(value, document, injected) for name, value in self.settings.items()}
        for argument in arguments(self.target):
            if argument.name in INJECTED:
                values[argument.name] = injected[argument.name]()
        if self.is_function():
            return partial(self.target, **values) if values else self.target
        made = construct(document, self.keys, self.target, values)
        for name in _MUST_HAVE[self.role]:
            if not hasattr(made, name):
                lacks = f"{type(made).__name__} has no `{name}`, which every {self.role} must have."
                raise document.error((*self.keys, "kind"), f"`{dotted(self.keys)}`: {lacks}")
        return made

    def is_function(self) -> bool:
        """Whether the user's plain function is itself the part, as the protocols of keep rules and advantages allow."""
        return inspect.isfunction(self.target) and self.role in _CALLED_WITH


def read_part(document: Document, keys: Keys, role: Role, value: Json, preset: Part | None = None) -> Part:
    """Checks one part; settings without a `kind` change those of the preset's part.

    Raises:
        InputError: no such kind, or a setting that is unknown, missing or of the wrong type.
    """
    if isinstance(value, str):
        value = {"kind": value}
    given = dict(mapping(document, keys, value, f"a kind of {role}, or a mapping with its `kind` and settings"))
    kind = given.pop("kind", None)
    if kind is None:
        if preset is None:
            raise document.error(
                keys, f"`{dotted(keys)}` needs a `kind`: {', '.join(KINDS[role])}, or your own as `file.py:name`."
            )
        target, kind, base = preset.target, preset.kind, preset.settings
    elif isinstance(kind, str):
        target, base = find(document, keys, role, kind), {}
        kind = own_kind(document, kind)
        if role == "reward" and inspect.isfunction(target):
            from reckon.rewards import Function

            target = partial(Function, target)
    else:
        raise document.error((*keys, "kind"), f"`{dotted(keys)}.kind` must be text, not {shown(kind)}.")
    given_later = list(settings(target))[: _CALLED_WITH.get(role, 0)] if inspect.isfunction(target) else ()
    check = partial(_part_or_typed, base=base)
    checked = section(document, keys, given, target, f"'{kind}'", base=base, without=given_later, check=check)
    return Part(role=role, kind=kind, target=target, settings=checked, keys=keys)


def part_of(role: Role, instance: object, keys: Keys) -> Part:
    """The recipe's view of a part that a preset made: its kind and its settings, read off its attributes."""
    kind = nouns.snake_case(type(instance).__name__)
    target = load_kind(role, kind)
    # A part that is no dataclass may keep a setting under another name; presets leave those at their defaults.
    values = {
        name: _described(getattr(instance, name, s.default), s.annotation, keys) for name, s in settings(target).items()
    }
    return Part(role=role, kind=kind, target=target, settings=values, keys=keys)


def try_out(part: Part, document: Document, task: object) -> None:
    """Makes the part and drops it, so that a value it refuses is told before anything is loaded."""
    later = Later()
    injected: dict[str, Callable[[], object]] = {name: (lambda: later) for name in INJECTED}
    try:
        part.build(document, injected | {"task": lambda: task})
    except NotYet:
        return  # it will be checked again when the model is there


def needs(part: Part, injected: str) -> bool:
    """Whether the part, or one inside it, is given this."""
    return any(argument.name == injected for one in with_inner(part) for argument in arguments(one.target))


def with_inner(part: Part) -> list[Part]:
    """The part and all that are inside it."""
    inner = [x for v in part.settings.values() for x in (v.values() if isinstance(v, dict) else _listed(v))]
    return [part, *(one for x in inner if isinstance(x, Part) for one in with_inner(x))]


def plain_with_parts(value: object) -> Json:
    """As `plain`, for values that hold parts."""
    if isinstance(value, Part):
        return value.plain()
    if isinstance(value, Own):
        return value.spec
    if isinstance(value, Mapping):
        return {str(name): plain_with_parts(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_with_parts(inner) for inner in value]
    return plain(value)


def _part_or_typed(
    document: Document, keys: Keys, value: Json, annotation: object, *, base: Mapping[str, object]
) -> object:
    """A setting that is itself a part (or several, by name or in a list), or a plain value.

    A single part is the preset's where it has no `kind`; `base` holds what the settings beside it are there.
    """
    role, shape = _role(annotation)
    if role is None and isinstance(value, str) and ":" in value and _takes_function(annotation):
        return Own(own_kind(document, value), own_callable(document, keys, value))
    if role is None:
        return typed(document, keys, value, annotation)
    if value is None and type(None) in typing.get_args(annotation):
        return None
    if shape is Mapping:
        named = mapping(document, keys, value, f"a mapping of names to parts ({role})")
        return {name: read_part(document, (*keys, name), role, inner) for name, inner in named.items()}
    if shape is list:
        if not isinstance(value, list):
            raise document.error(keys, f"`{dotted(keys)}` must be a list of parts ({role}), not {shown(value)}.")
        return [read_part(document, (*keys, str(i)), role, inner) for i, inner in enumerate(value)]
    preset = base.get(keys[-1])
    return read_part(document, keys, role, value, preset if isinstance(preset, Part) else None)


def _role(annotation: object) -> tuple[Role | None, type | None]:
    """Which role a setting of this type plays, and whether it holds one part, a mapping or a list of them."""
    if annotation in _ROLE_OF:
        return _ROLE_OF[annotation], None
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin not in (None, typing.Literal, Callable):
        for option in inside:
            role, shape = _role(option) if option is not Ellipsis else (None, None)
            if role is not None:
                if isinstance(origin, type) and issubclass(origin, Mapping):
                    return role, Mapping
                return role, (
                    list if origin in (list, tuple) or getattr(origin, "__name__", "") == "Sequence" else shape
                )
    return None, None


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _takes_function(annotation: object) -> bool:
    return any(typing.get_origin(option) is Callable for option in (annotation, *typing.get_args(annotation)))


def _described(value: object, annotation: object, keys: Keys) -> object:
    role, _ = _role(annotation)
    if role is None or value is None:
        return value
    if isinstance(value, Mapping):
        return {name: part_of(role, inner, (*keys, str(name))) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [part_of(role, inner, (*keys, str(i))) for i, inner in enumerate(value)]
    return part_of(role, value, keys)


def _built(value: object, document: Document, injected: Mapping[str, Callable[[], object]]) -> object:
    if isinstance(value, Part):
        return value.build(document, injected)
    if isinstance(value, Own):
        return value.function
    if isinstance(value, dict) and any(isinstance(inner, Part) for inner in value.values()):
        return {name: _built(inner, document, injected) for name, inner in value.items()}
    if isinstance(value, list) and any(isinstance(inner, Part) for inner in value):
        return tuple(_built(inner, document, injected) for inner in value)
    return value
