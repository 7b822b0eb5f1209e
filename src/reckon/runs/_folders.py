"""A run's folders: written whole or not at all, cleaned up after a killed process, and locked."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from reckon.errors import RunError
from reckon.files import TEMPORARY, sync, writing

_held: set[str] = set()  # POSIX locks do not conflict within one process, so we remember our own


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Puts a folder at `path`, whole or not at all; one that was there is replaced.

    Args:
        path: where the folder shall be.
        fill: writes its files, without subfolders, into the folder it is given.

    Raises:
        RunError: no room, no permission.
    """
    temporary, old = path.parent / f"{TEMPORARY}{path.name}", _old(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)
        try:
            temporary.mkdir()
            fill(temporary)
            for file in temporary.iterdir():
                sync(file)
            sync(temporary)
            # A folder cannot be renamed onto another. Killed between the next two lines, `tidy` takes the old one back.
            if path.exists():
                path.rename(old)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(path.parent)
        remove(old)


def remove(path: Path) -> None:
    """Deletes a file or folder, if it is there; a folder is never seen half deleted."""
    if path.is_dir() and not path.is_symlink():
        doomed = path
        if not path.name.startswith(TEMPORARY):
            doomed = path.parent / f"{TEMPORARY}gone-{path.name}"
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
        shutil.rmtree(doomed)
    else:
        path.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Cleans up after a killed process: takes back folders being replaced, deletes what is half written."""
    if not folder.is_dir():
        return
    with writing(folder):
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".old-"):
                target = folder / path.name.removeprefix(".old-")
                if target.exists():
                    remove(path)
                else:
                    path.rename(target)
            elif path.name.startswith(TEMPORARY):
                remove(path)


def _old(path: Path) -> Path:
    return path.parent / f".old-{path.name}"


class Lock:
    """One writer a folder. The kernel lets go of the lock when its process ends, however it ends."""

    def __init__(self, folder: Path, date: str) -> None:
        import fcntl

        self._key = os.path.realpath(folder)
        if self._key in _held:
            raise RunError(f"{folder} is already open for writing in this process. Close that run first (run.close()).")
        path = folder / ".lock"
        with writing(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # A POSIX lock, not flock: a worker forked from a run that was killed must not keep the run locked.
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(self._descriptor)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise RunError(
                    f"{path} cannot be locked ({error.strerror}). Choose a folder on a local disk."
                ) from error
            raise RunError(
                f"{folder} is being written by {holder}. Wait until it has ended, stop it, or choose another folder."
            ) from None
        with writing(path):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()} since {date}\n".encode(), 0)
        _held.add(self._key)

    def release(self) -> None:
        """Lets the next one in. The file stays: deleting it would let two in."""
        if self._key in _held:
            _held.discard(self._key)
            os.close(self._descriptor)
