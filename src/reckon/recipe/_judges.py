"""Judges, verifiers, references and the settings of a fit as a command line names them."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from reckon.errors import InputError, MissingError
from reckon.recipe._document import Document, Keys, did_you_mean
from reckon.recipe._kinds import KINDS, Target, own_callable
from reckon.recipe._parts import Part, needs, read_part, with_inner
from reckon.recipe._settings import INJECTED, construct, dotted, section, typed
from reckon.types import Json, Reward, Task

if TYPE_CHECKING:
    from reckon.annotate import Verifier
    from reckon.fit import Settings
    from reckon.rewards import ReferenceStore
    from reckon.tasks import Checker

_NAMED = re.compile(r"(?P<name>[A-Za-z_][\w-]*)=(?P<what>[^,=]+)(?P<settings>(,.*)?)", re.DOTALL)


def open_judges(specs: Sequence[str], task: Task | None = None) -> dict[str, Reward]:
    """Rewards out of `[NAME=]WHAT[,KEY=VALUE...]`, everything checked before the first model is loaded.

    Args:
        specs: WHAT is a kind of reward (`format`, `length,l_max=100`), `file.py:name`, a folder that `reckon fit` has
            written, or the folder of a sequence-classification model. Without a NAME a judge is called after WHAT.
        task: for rewards that ask for one.

    Returns:
        The judges by name.

    Raises:
        InputError: a spec cannot be read, names no judge, or names one twice; a setting that is unknown or missing; a
            kind that needs a policy, which files of responses do not have.
        MissingError: there is no such file or folder.
    """
    document, values = _documented(specs, "judge", _kind)
    parts = {name: read_part(document, ("judge", name), "reward", value) for name, value in values.items()}
    there = {} if task is None else {"task": lambda: task}
    for name, part in parts.items():
        for wanted in INJECTED:
            if wanted not in there and needs(part, wanted):
                raise document.error(
                    ("judge", name),
                    f"{part.kind!r} needs a {wanted}, which is not there where responses are judged by themselves. "
                    + ("Name one with --task." if wanted == "task" else "Watch it in a run."),
                )
    # A classifier is loaded as it is made: by then every other judge has said what it has against its settings.
    made = {name: part.build(document, there) for name, part in sorted(parts.items(), key=lambda one: _loads(one[1]))}
    return {name: cast("Reward", made[name]) for name in parts}


def _loads(part: Part) -> bool:
    """Whether making the part opens a model."""
    return any(one.kind == "sequence_classifier" for one in with_inner(part))


def open_verifiers(specs: Sequence[str]) -> dict[str, Verifier]:
    """Verifiers out of `[NAME=]WHAT[,KEY=VALUE...]`.

    Args:
        specs: WHAT is a checker (`number`, `math,seconds=2`), a kind of task, whose checker it is, or `file.py:name`, a
            function of a `reckon.annotate.Triple`. Without a NAME a verifier is called after WHAT.

    Returns:
        The verifiers by name.

    Raises:
        InputError: a spec cannot be read, names no verifier, or names one twice; a setting that is unknown or missing.
        MissingError: there is no such file.
    """
    document, values = _documented(specs, "verifier", lambda what: {"kind": what})
    return {name: _verifier(document, ("verifier", name), cast("dict[str, Json]", values[name])) for name in values}


def _verifier(document: Document, keys: Keys, value: dict[str, Json]) -> Verifier:
    from reckon.annotate import CheckerVerifier, TaskVerifier
    from reckon.tasks import CHECKERS

    kind = str(value["kind"])
    given = {name: setting for name, setting in value.items() if name != "kind"}
    if kind in CHECKERS:
        return CheckerVerifier(cast("Checker", _plainly(document, keys, given, CHECKERS[kind], f"'{kind}'")))
    if kind in KINDS["task"]:
        return TaskVerifier(cast("Task", read_part(document, keys, "task", value).build(document, {})))
    if ":" not in kind:
        near = did_you_mean(kind, [*CHECKERS, *KINDS["task"]], "verifiers")
        raise document.error(keys, f"there is no verifier `{kind}`. {near} Your own is written `file.py:name`.")
    if given:
        raise document.error(keys, f"{kind!r} is a function, which has no settings here. Leave {', '.join(given)} out.")
    return cast("Verifier", own_callable(document, keys, kind))


def _documented(
    specs: Sequence[str], noun: str, read: Callable[[str], dict[str, Json]]
) -> tuple[Document, dict[str, Json]]:
    """Specs as the values of a document, by name under `noun`, each with its settings and its place."""
    document = Document(name="command line", folder=Path.cwd(), values={noun: {}})
    values = cast("dict[str, Json]", document.values[noun])
    for spec in specs:
        name, what, given = _parsed(spec, noun)
        if name in values:
            raise InputError(f"two {noun}s are called {name!r}. Name one of them: NAME={what}.")
        values[name] = read(what)
        document.places[noun, name] = f"command line, `{spec}`"
        for setting in given:
            document.override(f"{noun}.{name}.{setting}")
    return document, values


def _parsed(spec: str, noun: str) -> tuple[str, str, list[str]]:
    """Name, kind and settings of `[NAME=]WHAT[,KEY=VALUE...]`."""
    named = _NAMED.fullmatch(spec)
    what, *settings = (named["what"] + named["settings"] if named else spec).split(",")
    if not what:
        raise InputError(f"the {noun} {spec!r} says no kind. Write [NAME=]WHAT[,KEY=VALUE...].")
    if named:
        return named["name"], what, settings
    short = what.rpartition(":")[2] if ":" in what else Path(what).name
    return re.sub(r"\W", "_", short), what, settings


def _kind(what: str) -> dict[str, Json]:
    """A judge's part of a recipe."""
    path = Path(what).expanduser()
    if path.is_dir():
        from reckon.rewards import is_fitted

        if not is_fitted(path) and (path / "recipe.yaml").is_file():
            raise _no_judge(path)
        kind, setting = ("fitted", "folder") if is_fitted(path) else ("sequence_classifier", "name")
        return {"kind": kind, setting: str(path)}
    if "/" in what and ":" not in what:
        raise MissingError(f"the judge {what!r} is no folder here. Name one that `reckon fit` has written, or a kind.")
    return {"kind": what}


def _no_judge(folder: Path) -> InputError:
    """Why a run's folder is no judge, and what to do."""
    from reckon.fit import KINDS
    from reckon.runs import Run

    kind = Run.open(folder).recipe.get("fit")
    entry = next((entry for name, entry in KINDS.items() if name == kind), None)
    if entry is None:
        return InputError(f"{folder} is a run that trained a policy, which is no judge. Name a folder of `reckon fit`.")
    if entry.judge is None:
        return InputError(f"{folder} is a fit of {kind}, which makes no judge. Name one of another kind.")
    return InputError(
        f"the fit in {folder} is not finished, so it is no judge yet. Go on with it by the command that began it and "
        f"--resume: reckon fit {kind} ... --out {folder} --resume"
    )


def open_references(overrides: Iterable[str]) -> ReferenceStore:
    """An empty store of references with the settings of `KEY=VALUE` texts.

    Raises:
        InputError: a setting that is unknown or of the wrong type.
    """
    from reckon.rewards import ReferenceStore

    document = Document(name="command line", values={"level": {}})
    for override in overrides:
        document.override(f"level.{override.removeprefix('level.')}")
    settings = section(document, ("level",), document.values["level"], ReferenceStore, "references")
    return cast("ReferenceStore", construct(document, ("level",), ReferenceStore, settings))


def fit_settings(overrides: Iterable[str]) -> Settings:
    """The settings of a fit out of `KEY=VALUE` texts.

    Raises:
        InputError: a setting that is unknown or of the wrong type.
    """
    from reckon.fit import Settings

    document = Document(name="command line", values={"fit": {}})
    for override in overrides:
        document.override(f"fit.{override.removeprefix('fit.')}")
    given = cast("dict[str, Json]", document.values["fit"])
    return cast("Settings", _plainly(document, ("fit",), given, Settings, "a fit"))


def _plainly(document: Document, keys: Keys, given: dict[str, Json], target: Target, owner: str) -> object:
    """Makes something of settings that are not read as a part's: `reference` and `policy` may be among their names."""
    hints = typing.get_type_hints(target)
    values: dict[str, object] = {}
    for key, value in given.items():
        if key not in hints:
            near = did_you_mean(key, list(hints), "settings")
            raise document.error((*keys, key), f"`{dotted((*keys, key))}` is not a setting of {owner}. {near}")
        values[key] = typed(document, (*keys, key), value, hints[key])
    return construct(document, keys, target, values)
