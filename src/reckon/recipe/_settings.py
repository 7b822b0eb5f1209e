"""What may be set: the typed arguments of a class or function, and the check of a value against one of them."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pydantic
from pydantic.fields import FieldInfo

import reckon.types as nouns
from reckon.errors import InputError, MissingError
from reckon.recipe._document import Document, Keys, did_you_mean, nearest
from reckon.types import Json

_JSON = {"Json": pydantic.JsonValue}  # ours names itself in its own definition, which only a checker understands

Check: TypeAlias = Callable[[Document, Keys, Json, object], object]  # (document, keys, value, annotation) to the value

INJECTED = ("task", "policy", "reference", "critic", "tokenizer")  # given by the recipe, never written in it


class Required(enum.Enum):
    """Stands for the default of a setting that has none."""

    REQUIRED = enum.auto()


REQUIRED = Required.REQUIRED


@dataclass(frozen=True)
class Setting:
    """One argument of a part that a recipe may give."""

    name: str
    annotation: object
    default: object  # REQUIRED if there is none


@functools.cache
def arguments(target: Callable[..., object]) -> tuple[Setting, ...]:
    """Every named argument of a class or function, the injected ones too, with annotations resolved."""
    factories = {}
    inner = target.func if isinstance(target, functools.partial) else target
    if dataclasses.is_dataclass(inner):
        fields = dataclasses.fields(inner)
        factories = {f.name: f.default_factory for f in fields if f.default_factory is not dataclasses.MISSING}
    module = sys.modules.get(inner.__module__)
    names = {
        **vars(typing),
        **vars(nouns),
        "Path": Path,
        "Mapping": Mapping,
        "Sequence": Sequence,
        "Callable": Callable,
    }
    found = []
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        if name in factories:
            default = factories[name]()
        annotation = object if parameter.annotation is parameter.empty else parameter.annotation
        if name not in INJECTED:
            holder = types.SimpleNamespace(__annotations__={name: annotation})
            annotation = (
                typing.get_type_hints(holder, names | vars(module) | _JSON, {}, include_extras=True)[name]
                if module
                else annotation
            )
        found.append(Setting(name, annotation, default))
    return tuple(found)


def settings(target: Callable[..., object]) -> dict[str, Setting]:
    """The arguments of a class or function that a recipe may give."""
    return {s.name: s for s in arguments(target) if s.name not in INJECTED}


def known(document: Document, keys: Keys, given: Mapping[str, Json], choices: Sequence[str], owner: str) -> None:
    """Raises InputError at the first key of `given` that is not among `choices`."""
    for key in given:
        if key in INJECTED and key not in choices:
            raise document.error(
                (*keys, key), f"`{dotted((*keys, key))}` is given to {owner} by reckon, and cannot be set in a recipe."
            )
        if key not in choices:
            raise document.error(
                (*keys, key),
                f"`{dotted((*keys, key))}` is not a setting of {owner}. {did_you_mean(key, choices, 'settings')}",
            )


def mapping(document: Document, keys: Keys, value: Json, what: str) -> dict[str, Json]:
    """The value if it is a mapping; otherwise an InputError that says it must be."""
    if isinstance(value, dict):
        return value
    raise document.error(keys, f"`{dotted(keys)}` must be {what}, not {shown(value)}.")


def section(
    document: Document,
    keys: Keys,
    value: Json,
    target: Callable[..., object],
    owner: str,
    *,
    base: Mapping[str, object] | None = None,
    without: Sequence[str] = (),
    check: Check | None = None,
) -> dict[str, object]:
    """Checks a mapping against the arguments of `target`, those in `without` left out.

    What is not given comes from `base`, or is the default.

    Raises:
        InputError: a key is unknown, missing or of the wrong type; names its place.
    """
    base = base or {}
    choices = {name: setting for name, setting in settings(target).items() if name not in without}
    given = mapping(document, keys, value, f"a mapping of settings ({', '.join(choices)})")
    known(document, keys, given, list(choices), owner)
    out: dict[str, object] = {}
    for name, setting in choices.items():
        if name in given:
            out[name] = (check or typed)(document, (*keys, name), given[name], setting.annotation)
        elif name in base:
            out[name] = base[name]
        elif setting.default is REQUIRED:
            raise document.error(
                keys,
                f"`{dotted((*keys, name))}` is missing: {owner} needs it ({describe(setting.annotation)}).",
            )
        else:
            out[name] = setting.default
    return out


def construct(document: Document, keys: Keys, target: Callable[..., object], values: Mapping[str, object]) -> object:
    """Calls `target`; what it has against the values together is told with their place."""
    try:
        return target(**values)
    except MissingError as error:
        raise MissingError(f"{document.place(keys)}: `{dotted(keys)}`: {error}") from error
    except InputError as error:
        named = [
            name
            for name in values
            if re.search(rf"\b{re.escape(name)}\b", str(error)) and (*keys, name) in document.places
        ]
        raise document.error((*keys, *named[:1]), f"`{dotted(keys)}`: {error}") from error


def typed(document: Document, keys: Keys, value: Json, annotation: object) -> object:
    """The value as the annotation says, or an InputError that names the place, the type and what was given instead."""
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    data = [option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)]
    if data and isinstance(value, dict):
        return construct(document, keys, data[0], section(document, keys, value, data[0], f"`{dotted(keys)}`"))
    if data and len(options) == 1:
        raise document.error(keys, f"`{dotted(keys)}` must be {describe(annotation)}, not {shown(value)}.")
    if keys[-1] == "path" or Path in options:
        value = _located_all(document, value)
    if annotation is object:
        return value
    try:
        return _adapter(annotation).validate_json(json.dumps(value), strict=True)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
    if problem["type"] == "value_error":  # a check of the part's own
        raise document.error(keys, f"`{dotted(keys)}`: {problem['msg']}.")
    hint = ""
    choices = [
        str(c) for option in options for c in typing.get_args(option) if typing.get_origin(option) is typing.Literal
    ]
    if isinstance(value, str) and choices and (near := nearest(value, choices)):
        hint = f" Did you mean `{near}`?"
    raise document.error(keys, f"`{dotted(keys)}` must be {describe(annotation)}, not {shown(value)}.{hint}")


def located(document: Document, name: str) -> Path:
    """A path of a recipe: beside the recipe if it is there, else from where the command was given."""
    path = Path(name).expanduser()
    beside = document.folder / path
    return beside if beside.exists() else path


def _located_all(document: Document, value: Json) -> Json:
    """One path, or several by name."""
    if isinstance(value, dict):
        return {name: _located_all(document, inner) for name, inner in value.items()}
    if isinstance(value, str) and (path := located(document, value)).exists():
        return str(path.absolute())
    return value


def plain(value: object) -> Json:
    """A checked value as a recipe would write it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def dotted(keys: Keys) -> str:
    """("objective", "high") as a recipe's reader says it: objective.high."""
    return ".".join(keys) if keys else "the recipe"


def describe(annotation: object) -> str:
    """What a value of this type is called in messages and in lists of settings."""
    simple: dict[object, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Path: "a path",
        None: "null",
        type(None): "null",
        object: "any value",
        pydantic.JsonValue: "any value",
    }
    if annotation in simple:
        return simple[annotation]
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Callable:
        return "`file.py:name`"
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, inside))
    if _is_union(annotation):
        parts = list(dict.fromkeys(describe(option) for option in inside))
        return " or ".join(p for p in parts if not (p == "a path" and "text" in parts))
    if origin is typing.Annotated:
        return describe(inside[0]) + "".join(_bounds(extra) for extra in inside[1:])
    if origin in (list, tuple, Sequence, set, frozenset):
        if origin is tuple and Ellipsis not in inside:
            return f"a list of {len(inside)}: " + ", ".join(map(describe, inside))
        return f"a list of {describe(inside[0])}"
    if origin in (dict, Mapping):
        return f"a mapping of names to {describe(inside[1])}"
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return f"a mapping ({', '.join(settings(annotation))})"
    return f"a {getattr(annotation, '__name__', str(annotation))}"


def _bounds(extra: object) -> str:
    metadata = extra.metadata if isinstance(extra, FieldInfo) else (extra,)
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    return "".join(f" {word} {getattr(m, name)}" for m in metadata for name, word in words.items() if hasattr(m, name))


def shown(value: Json) -> str:
    """A value as it is quoted in a message: short, and with a word for its type."""
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    if value is None:
        return "null"
    text = json.dumps(value, ensure_ascii=False)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({words[type(value)]})"


def _is_union(annotation: object) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


@functools.cache
def _adapter(annotation: object) -> pydantic.TypeAdapter[object]:
    return pydantic.TypeAdapter[object](
        typing.cast("type[object]", annotation), config=pydantic.ConfigDict(arbitrary_types_allowed=True)
    )
