"""A run as a YAML file: which parts, with which settings. Checked before anything is loaded."""

from reckon.recipe._kinds import KINDS, Role, load_kind, snake_case
from reckon.recipe._recipe import Recipe
from reckon.recipe._settings import describe, settings

__all__ = ["KINDS", "Recipe", "Role", "describe", "load_kind", "settings", "snake_case"]
