"""A task or a model by itself, checked as a recipe is: for commands that need no whole recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from reckon.errors import InputError
from reckon.recipe._document import Document
from reckon.recipe._parts import Part, read_part
from reckon.recipe._recipe import Recipe, read_model
from reckon.recipe._running import load_run
from reckon.recipe._settings import known
from reckon.runs import Run
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
        Run.open(target)
        recipe = Recipe.load(path, of_model)
        if task is not None:
            part, made = make_task(task, of_task)
        else:
            posed = Recipe.load(path, of_task)
            part, made = posed.task, posed.made_task
        return part, made, lambda: load_run(target, step, recipe)
    if task is None and of_task:
        raise InputError(f"command line, `{of_task[0]}`: there is no task to set this of. Name one with --task.")
    found = make_task(task, of_task) if task is not None else (None, None)
    return *found, read_model(target, of_model)
