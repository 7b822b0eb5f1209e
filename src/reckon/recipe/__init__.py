"""A run as a YAML file: which parts, with which settings. Checked before anything is loaded."""

from reckon.recipe._exploring import explore_settings
from reckon.recipe._judges import fit_settings, open_judges, open_references, open_verifiers
from reckon.recipe._kinds import KINDS, Role, load_kind
from reckon.recipe._recipe import Recipe
from reckon.recipe._running import (
    Outcome,
    load_critic,
    load_run,
    read_evaluation,
    resume_run,
    run_recipe,
    task_of,
    warmed_policy,
    write_evaluation,
)
from reckon.recipe._settings import describe, settings
from reckon.recipe._single import Step, make_task, open_target
from reckon.recipe._tables import kinds_table, methods_table

__all__ = [
    "KINDS",
    "Outcome",
    "Recipe",
    "Role",
    "Step",
    "describe",
    "explore_settings",
    "fit_settings",
    "kinds_table",
    "load_critic",
    "load_kind",
    "load_run",
    "make_task",
    "methods_table",
    "open_judges",
    "open_references",
    "open_target",
    "open_verifiers",
    "read_evaluation",
    "resume_run",
    "run_recipe",
    "settings",
    "task_of",
    "warmed_policy",
    "write_evaluation",
]
