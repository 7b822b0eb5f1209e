"""A judge that a study fitted, in a folder as `reckon fit` leaves one, for the parts of a recipe to open."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reckon.files import write_file
from reckon.types import Json

if TYPE_CHECKING:
    from reckon.models import LanguageModel


class SavedJudge:
    """A judge's folder; gone with the object."""

    def __init__(self, model: LanguageModel, about: Mapping[str, Json]) -> None:
        """Keeps the model as it is now.

        Args:
            model: with its value head.
            about: what judge.json says: the judge's kind and how it is read; see `reckon.rewards.load_judge`.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="reckon-judge-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        model.save_pretrained(self.folder)
        write_file(self.folder / "judge.json", json.dumps(dict(about)).encode())
