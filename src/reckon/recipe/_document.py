"""A recipe as it was written: plain values, and where each of them stands."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from reckon.errors import InputError, MissingError
from reckon.types import Json

Keys: TypeAlias = tuple[str, ...]  # the way to a value: ("objective", "high")

LARGEST = 1_000_000  # bytes; a recipe is written by a person


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2: 1e-4 is a number, and no, on and 1:30 are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own attribute)


for _tag, _pattern, _first in (
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+(?:_[0-9]+)*", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass
class Document:
    """The values of a recipe, with the place of each, for messages."""

    name: str  # what messages call it
    values: dict[str, Json]
    places: dict[Keys, str] = field(default_factory=dict)
    folder: Path = field(default_factory=Path)  # where relative paths begin

    def error(self, keys: Keys, sentence: str) -> InputError:
        """An error that begins with the place of `keys`, or of the nearest thing around it that was written down."""
        return InputError(f"{self.place(keys)}: {sentence}")

    def place(self, keys: Keys) -> str:
        """Where `keys`, or the nearest thing around it, was written down."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, self.name)

    def override(self, text: str) -> None:
        """Sets one value from `key.sub=value`; the value is read as YAML."""
        dotted, equals, written = text.partition("=")
        keys = tuple(dotted.strip().split("."))
        place = f"command line, `{text}`"
        if not equals or not all(keys):
            raise InputError(f"{place}: a setting is given as key=value, for example steps=20 or task.count=7.")
        try:
            node = yaml.compose(written, Loader=_Loader)
        except yaml.YAMLError as error:
            raise InputError(f"{place}: the value cannot be read as YAML ({_problem(error)}).") from None
        # As a document of its own: a fault in it stands on the command line, and in no line of the file.
        value = None if node is None else Document(name=place, values={})._value(node, (), ())
        inner = self.values
        for depth, key in enumerate(keys[:-1], start=1):
            below = inner.get(key)
            if isinstance(below, str):  # the short form of a part or a model
                below = {"name" if keys[:depth] == ("model",) else "kind": below}
            elif below is None:
                below = {}
            elif not isinstance(below, dict):
                raise InputError(f"{place}: `{'.'.join(keys[:depth])}` has no settings below it; set it as a whole.")
            inner[key] = below
            inner = below
            self.places.setdefault(keys[:depth], place)
        inner[keys[-1]] = value
        self.places = {at: where for at, where in self.places.items() if at[: len(keys)] != keys} | {keys: place}

    def _value(self, node: yaml.Node, keys: Keys, inside: tuple[yaml.Node, ...]) -> Json:
        """The plain value of a node, whose place is noted; `inside` are the nodes around it."""
        self.places[keys] = f"{self.name}, line {node.start_mark.line + 1}"
        if node in inside:
            raise self.error(keys, "the alias (`*`) refers to something it stands in. Write the values out.")
        inside = (*inside, node)
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in ("null", "bool", "int", "float", "str", "seq", "map"):
            raise self.error(keys, f"the tag `{node.tag}` is not allowed in a recipe. Write a plain value.")
        if isinstance(node, yaml.MappingNode):
            out: dict[str, Json] = {}
            for key_node, value_node in node.value:
                key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
                if key is None or key == "<<" or key in out:
                    fault = f"the key `{key}` stands here twice" if key in out else "a key must be plain text"
                    raise InputError(f"{self.name}, line {key_node.start_mark.line + 1}: {fault}.")
                out[key] = self._value(value_node, (*keys, key), inside)
                self.places[(*keys, key)] = f"{self.name}, line {key_node.start_mark.line + 1}"
            return out
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*keys, str(i)), inside) for i, item in enumerate(node.value)]
        try:
            return _scalar(kind, str(node.value))
        except ValueError:
            raise self.error(keys, f"`{node.value}` cannot be read as {kind}. Write a plain value.") from None


def _scalar(tag: str, text: str) -> Json:
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int":
        return int(text.replace("_", ""))
    if tag == "float":
        return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or "it is not YAML")


def read(path: Path) -> Document:
    """Reads a recipe's file.

    Raises:
        MissingError: There is no such file.
        InputError: It is a run's folder, not YAML, or not a mapping; names the line.
    """
    if (path / "recipe.yaml").is_file():
        raise InputError(
            f"{path} is a run. Go on with it: reckon train --resume {path}; or begin another with its recipe, "
            f"{path / 'recipe.yaml'}, and another `out`."
        )
    if not path.is_file():
        near = nearest(path.name, (p.name for p in path.parent.glob("*.y*ml"))) if path.parent.is_dir() else None
        hint = f" Did you mean {path.parent / near}?" if near else ""
        raise MissingError(f"There is no recipe {path}.{hint}")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: {path.stat().st_size} bytes are too many for a recipe.")
    try:
        return parse(path.read_text(encoding="utf-8"), name=path.name, folder=path.parent.absolute())
    except UnicodeDecodeError:
        raise InputError(f"{path}: a recipe is a text file (UTF-8) in YAML, and this is not.") from None


def parse(text: str, *, name: str, folder: Path | None = None) -> Document:
    """Reads a recipe's text; `name` is what messages call it."""
    document = Document(name=name, values={}, folder=folder or Path.cwd())
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{name}{line}: this is not YAML: {_problem(error)}.") from None
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{name}: a recipe is a mapping of settings (model: ..., task: ..., steps: ...).")
    values = document._value(node, (), ())
    assert isinstance(values, dict)
    document.values = values
    del document.places[()]  # what is missing from the whole stands on no line
    return document


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice a person who wrote `name` most likely meant."""
    found = difflib.get_close_matches(name.lower(), list(choices), n=1, cutoff=0.55)
    return found[0] if found else None


def did_you_mean(name: str, choices: Sequence[str], what: str) -> str:
    """The end of a message about an unknown name: the nearest one and the list of all."""
    near = nearest(name, choices)
    listed = ", ".join(sorted(choices)) if choices else "none"
    return (f"Did you mean `{near}`? " if near else "") + f"({what}: {listed})"
