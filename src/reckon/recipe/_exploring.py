"""The settings of an exploration as a command line, or a run's recipe, gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from reckon.recipe._document import Document
from reckon.recipe._settings import construct, section
from reckon.types import Json

if TYPE_CHECKING:
    from reckon.explore import Settings


def explore_settings(
    overrides: Iterable[str] = (), given: Mapping[str, Json] | None = None, *, name: str = "command line"
) -> Settings:
    """The settings of `reckon explore`, out of `KEY=VALUE` texts over those that are given.

    Args:
        overrides: such as `bonus=e3b`, `ppo.lr=3e-4` or `env.contexts=3`.
        given: of an earlier run.
        name: where they come from, for messages.

    Raises:
        InputError: a setting that is unknown or of the wrong type.
        MissingError: gymnasium is not installed.
    """
    from reckon.explore import Settings

    document = Document(name=name, values={"explore": dict(given or {})})
    for override in overrides:
        document.override(f"explore.{override.removeprefix('explore.')}")
    keys = ("explore",)
    values = section(document, keys, document.values["explore"], Settings, "`reckon explore`")
    return cast("Settings", construct(document, keys, Settings, values))
