"""Files that are whole or not there, and errors that name the path and the remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from reckon.errors import RunError

if TYPE_CHECKING:
    import pyarrow

TEMPORARY = ".tmp-"  # a name that begins so is half written, whoever finds it
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of the body into a RunError that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        why, then = error.strerror or str(error), "resume or start again: what was saved before is intact."
        if error.errno in _FULL:
            message = f"No room left to write {path} ({why}). Free some space, then {then}"
        elif error.errno in _FORBIDDEN:
            message = f"No permission to write {path} ({why}). Make it writable, or choose another folder."
        else:
            message = f"{path} could not be written ({why}). Mend that, then {then}"
        raise RunError(message) from error


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Puts `data` at `path`, whole or not at all; its folder is made if it is not there.

    Raises:
        RunError: no room, no permission.
    """
    temporary = path.parent / f"{TEMPORARY}{path.name}"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def write_table(path: Path, table: pyarrow.Table) -> None:
    """Writes Parquet, whole or not at all.

    Raises:
        RunError: no room, no permission.
    """
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    write_file(path, sink.getvalue().to_pybytes())
