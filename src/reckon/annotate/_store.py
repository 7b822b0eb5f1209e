"""Chunks of labels on disk, so that what was made is not made again."""

from __future__ import annotations

import json
from pathlib import Path

from reckon.annotate._records import Labels, read_part, write_labels
from reckon.errors import InputError, RunError
from reckon.files import write_file
from reckon.types import Json


class Store:
    """A folder with one file a chunk and the plan they were made by; without a folder nothing is kept."""

    def __init__(self, folder: str | Path | None, plan: dict[str, Json]) -> None:
        """Opens a folder, or makes it.

        Raises:
            InputError: it holds labels of another plan; names what differs.
            RunError: the plan cannot be read or written.
        """
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        path = self.folder / "plan.json"
        told = json.dumps(plan, indent=2, sort_keys=True) + "\n"
        if not path.is_file():
            if any(self.folder.glob("labels-*.parquet")):
                raise InputError(f"{self.folder} holds labels, but no plan.json they were made by; choose another one.")
            write_file(path, told.encode())
            return
        try:
            known = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}). Choose another folder.") from error
        for name, value in json.loads(told).items():
            if known.get(name) != value:
                raise InputError(
                    f"{self.folder} holds labels made with another `{name}` ({_short(known.get(name))}, now "
                    f"{_short(value)}). Ask for the same, or choose another folder."
                )

    def load(self, chunk: int) -> Labels | None:
        """What was made of a chunk; None = nothing yet."""
        path = self._path(chunk)
        return read_part(path) if path is not None and path.is_file() else None

    def save(self, chunk: int, labels: Labels) -> None:
        """Keeps a chunk."""
        path = self._path(chunk)
        if path is not None:
            write_labels(path, labels)

    def _path(self, chunk: int) -> Path | None:
        return None if self.folder is None else self.folder / f"labels-{chunk:05}.parquet"


def _short(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
