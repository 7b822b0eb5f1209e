"""A task or a model by itself, checked as a recipe is: for commands that need no whole recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from reckon.errors import InputError, MissingError
from reckon.recipe._document import Document, nearest
from reckon.recipe._parts import Part, read_part
from reckon.recipe._recipe import read_model
from reckon.recipe._running import load_run, recipe_of
from reckon.recipe._settings import known
from reckon.types import Task

if TYPE_CHECKING:
    from reckon.models import LanguageModel

Step = int | Literal["last", "best"]


def make_task(kind: str, overrides: Iterable[str] = ()) -> tuple[Part, Task]:
    """A task from its kind and `task.key=value` settings.

    Raises:
        InputError: no such kind or setting.
    """
    document = Document(name="command line", values={"task": {"kind": kind}}, folder=Path.cwd())
    for override in overrides:
        document.override(override)
    known(document, (), document.values, ["task"], "a task")
    part = read_part(document, ("task",), "task", document.values["task"])
    return part, cast("Task", part.build(document, {}))


def open_target(
    target: str, task: str | None, overrides: Iterable[str], step: Step
) -> tuple[Part | None, Task | None, Callable[[], LanguageModel]]:
    """A model or a run to examine, everything checked and nothing loaded.

    Args:
        target: a run's folder, or what `models.load_model` takes.
        task: a kind of task; left out, the run's own, or none for a model.
        overrides: `task.key=value`, `sampling.key=value`, `model.key=value`.
        step: which checkpoint of a run.

    Returns:
        The task as its recipe has it and as it is made, and a function that loads the policy.
    """
    given = list(overrides)
    of_task = [override for override in given if override.split("=")[0].split(".")[0] == "task"]
    of_model = [override for override in given if override not in of_task]
    path = Path(target) / "recipe.yaml"
    if path.is_file():
        recipe = recipe_of(target, of_model)
        if task is not None:
            part, made = make_task(task, of_task)
        else:
            posed = recipe_of(target, of_task)
            part, made = posed.task, posed.made_task
        return part, made, lambda: load_run(target, step, recipe)
    _check_is_no_run(Path(target))
    if task is None and of_task:
        raise InputError(f"command line, `{of_task[0]}`: there is no task to set this of. Name one with --task.")
    found = make_task(task, of_task) if task is not None else (None, None)
    return *found, read_model(target, of_model)


def _check_is_no_run(path: Path) -> None:
    """Raises MissingError for what can be no model: it is looked for on the hub otherwise, which takes long."""
    if path.exists():
        if not (path / "config.json").is_file():
            raise MissingError(f"{path} is neither a run (no recipe.yaml) nor a model's folder (no config.json).")
        return
    runs = [other.name for other in path.parent.glob("*") if (other / "recipe.yaml").is_file()]
    if path.parent != Path() and runs:
        near = nearest(path.name, runs)
        raise MissingError(f"There is no run {path}." + (f" Did you mean {path.parent / near}?" if near else ""))
