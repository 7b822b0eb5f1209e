"""The recipe a run was made with, and whether another one is the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from reckon.errors import InputError, RunError
from reckon.files import write_file
from reckon.types import Json

# 1e5, 0E0 and 08 are numbers in YAML 1.2 and text in 1.1.
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def read_recipe(folder: Path) -> dict[str, Json]:
    """The recipe of a run.

    Raises:
        RunError: recipe.yaml is missing or damaged.
    """
    path = folder / "recipe.yaml"
    try:
        recipe = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read ({error}). Restore it, or begin a new run.") from error
    if not isinstance(recipe, dict):
        raise RunError(f"{path} is not a mapping. Restore it, or begin a new run.")
    return recipe


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which also quotes text that YAML 1.2 alone takes for a number."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if _NUMBER.fullmatch(text) else None)


_Dumper.add_representer(str, _text)


def recipe_text(recipe: Mapping[str, Json]) -> str:
    """A recipe as YAML that says the same in YAML 1.1, as PyYAML reads it, and in 1.2, as `reckon.recipe` does."""
    # PyYAML writes some characters that it does not read back (U+0085); with any such in it, all but ASCII is escaped.
    readable = json.dumps(recipe, ensure_ascii=False).isprintable()
    return yaml.dump(dict(recipe), Dumper=_Dumper, sort_keys=False, allow_unicode=readable, width=100)


def write_recipe(folder: Path, recipe: Mapping[str, Json]) -> None:
    """Writes recipe.yaml, whole or not at all."""
    write_file(folder / "recipe.yaml", recipe_text(recipe).encode())


def plain_recipe(recipe: Mapping[str, Json]) -> dict[str, Json]:
    """The recipe as JSON gives it back: tuples are lists, keys are strings.

    Raises:
        InputError: something in it has no place in JSON.
    """
    try:
        return dict(json.loads(json.dumps(dict(recipe))))
    except (TypeError, ValueError) as error:
        raise InputError(f"The recipe cannot be written: {error}. Use numbers, strings, lists and mappings.") from error


def check_same(folder: Path, then: Json, now: Json, key: str = "") -> None:
    """Raises RunError at the first key in which two recipes differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in [*then, *(name for name in now if name not in then)]:
            inner = f"{key}.{name}" if key else name
            if name not in then or name not in now:
                then_text = repr(then[name]) if name in then else "not set"
                now_text = repr(now[name]) if name in now else "not set"
                raise _another(folder, inner, then_text, now_text)
            check_same(folder, then[name], now[name], inner)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (old, new) in enumerate(zip(then, now, strict=True)):
            check_same(folder, old, new, f"{key}[{index}]")
    elif repr(then) != repr(now) and (
        then != now or isinstance(then, bool) != isinstance(now, bool)
    ):  # nan is nan, 1 is 1.0
        raise _another(folder, key, repr(then), repr(now))


def _another(folder: Path, key: str, then: str, now: str) -> RunError:
    return RunError(
        f"{folder} was made with another recipe: `{key}` was {then} and is now {now}. "
        "Resume without a recipe, give it the old value, or begin a new run in another folder."
    )
