"""Rare events from ordered stages."""

from reckon.errors import MissingError

try:
    from reckon.ordinal._cv import PrestoClassifierCV
    from reckon.ordinal._presto import PrestoClassifier
except ModuleNotFoundError as error:
    raise MissingError(
        f"reckon.ordinal needs {error.name}, which is not installed. Run: pip install 'reckon-rl[ordinal]'"
    ) from error

__all__ = ["PrestoClassifier", "PrestoClassifierCV"]
