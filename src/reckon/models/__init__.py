"""Language models that answer, score and learn; tables and small nets that do the same in milliseconds."""

from reckon.models._settings import Lora, Optimization, Sampling
from reckon.models._store import BUILT_IN, cache_folder, fetch, listing, remove
from reckon.models.language import LanguageModel, Reference, load_model

__all__ = [
    "BUILT_IN",
    "LanguageModel",
    "Lora",
    "Optimization",
    "Reference",
    "Sampling",
    "cache_folder",
    "fetch",
    "listing",
    "load_model",
    "remove",
]
