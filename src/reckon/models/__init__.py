"""Language models that answer, score and learn; tables that do the same in milliseconds.

The language model is imported when it is first used: a table needs no transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from reckon.models._settings import Lora, Optimization, Sampling, check_sync
from reckon.models._store import BUILT_IN, cache_folder, fetch, listing, remove

if TYPE_CHECKING:
    from reckon.models._load import find_device, open_pretrained
    from reckon.models._open import load_model
    from reckon.models._reference import Reference
    from reckon.models._text import pieces
    from reckon.models.language import LanguageModel

__all__ = [
    "BUILT_IN",
    "LanguageModel",
    "Lora",
    "Optimization",
    "Reference",
    "Sampling",
    "cache_folder",
    "check_sync",
    "fetch",
    "find_device",
    "listing",
    "load_model",
    "open_pretrained",
    "pieces",
    "remove",
]
_LATE = {
    "LanguageModel": "language",
    "Reference": "_reference",
    "find_device": "_load",
    "load_model": "_open",
    "open_pretrained": "_load",
    "pieces": "_text",
}


def __getattr__(name: str) -> object:
    if name in _LATE:
        return getattr(import_module(f"reckon.models.{_LATE[name]}"), name)
    raise AttributeError(f"module 'reckon.models' has no attribute {name!r}")
