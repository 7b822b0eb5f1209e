"""Settings that are one of a few words: Python does not look at `Literal`."""

from __future__ import annotations

from typing import get_args

from reckon.errors import InputError


def check_choice(name: str, value: object, choices: object) -> None:
    """Raises InputError unless `value` is one of `choices`, a `Literal`."""
    if value not in get_args(choices):
        raise InputError(f"`{name}` is {value!r}, but must be one of: {', '.join(map(str, get_args(choices)))}.")
