"""Tables of what a recipe can name, made from the code: the documentation holds them, and a test holds it to them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args, get_origin

from reckon.recipe._kinds import KINDS, Role, load_kind
from reckon.recipe._many import Named, many_of
from reckon.recipe._parts import Later, Part, part_of
from reckon.recipe._settings import REQUIRED, arguments, plain, settings
from reckon.types import Parts, Problem, Split, Verdict


def methods_table() -> str:
    """Every method and the parts it is made of, as Markdown; settings that are not the part's defaults are shown."""
    from reckon.methods import METHODS

    lines = ["| method | sampler | keep | reward | advantage | objective |", "|---|---|---|---|---|---|"]
    for name, method in METHODS.items():
        given: dict[str, object] = {"limit": _LIMIT, "policy": Later(), "reference": Later()}
        wanted = {argument.name for argument in arguments(method)}
        parts: Parts = method(_Anything(), **{key: value for key, value in given.items() if key in wanted})
        cells = [
            f"`{name}`",
            _part(part_of("sampler", parts.sampler, ("sampler",))),
            _part(part_of("keep", parts.keep, ("keep",))),
            _named(many_of("reward", parts.reward)),
            _part(part_of("advantage", parts.advantage, ("advantage",))),
            _named(many_of("objective", parts.objective), single=True),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def kinds_table(role: Role) -> str:
    """Every kind of a role, what it does and its settings with their defaults, as Markdown."""
    lines = ["| kind | what it does | settings |", "|---|---|---|"]
    for kind in KINDS[role]:
        target = load_kind(role, kind)
        what = " ".join((inspect.getdoc(target) or "").split("\n\n")[0].split())
        lines.append(f"| `{kind}` | {_cell(what)} | {_cell(_settings(target))} |")
    return "\n".join(lines)


_LIMIT = 1000  # tokens, where a method asks for the limit


@dataclass(frozen=True)
class _Anything:
    """A task for methods that are only looked at."""

    name: str = "anything"

    def problems(self, split: Split) -> list[Problem]:
        return [Problem(id=split, prompt="")]

    def check(self, problem: Problem, text: str) -> Verdict:
        return Verdict(outcome=None, answer=None, reason="no reference")


def _part(part: Part) -> str:
    defaults = settings(part.target)
    changed = [f"{name} {_value(value)}" for name, value in part.settings.items() if value != defaults[name].default]
    return f"`{part.kind}`" + (f" ({', '.join(changed)})" if changed else "")


def _value(value: object) -> str:
    """A setting as the table has it: parts within a part as parts."""
    if isinstance(value, Part):
        return _part(value)
    if isinstance(value, Mapping) and any(isinstance(inner, Part) for inner in value.values()):
        return ", ".join(f"{name}: {_value(inner)}" for name, inner in value.items())
    return json.dumps(plain(value)).strip('"')


def _named(named: Mapping[str, Named], *, single: bool = False) -> str:
    if single and len(named) == 1:
        return _part(next(iter(named.values())).part)
    weights = {name: "" if entry.weight == 1 else f" times {entry.weight:g}" for name, entry in named.items()}
    return ", ".join(f"{name}: {_part(entry.part)}{weights[name]}" for name, entry in named.items())


def _settings(target: Callable[..., object]) -> str:
    found = []
    for name, setting in settings(target).items():
        choices = [c for option in (setting.annotation, *get_args(setting.annotation)) for c in _choices(option)]
        default = "(needed)" if setting.default is REQUIRED else json.dumps(plain(setting.default), ensure_ascii=False)
        found.append(f"`{name}` {default}" + (f" of {', '.join(choices)}" if choices else ""))
    return "; ".join(found)


def _choices(option: object) -> list[str]:
    return [str(choice) for choice in get_args(option)] if get_origin(option) is Literal else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
