"""Where a run was made."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reckon.types import Json

EXACT = ("torch", "numpy", "cpu", "threads")  # what must be the same for the same numbers, bit for bit


def environment() -> dict[str, Json]:
    """This process: versions, machine, threads, commit of the working folder, command line and date (UTC)."""
    from reckon import __version__

    return {
        "id": uuid.uuid4().hex,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "commit": _commit(),
        "reckon": __version__,
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": _threads(),
    }


def peak_memory() -> float:
    """The most memory this process has held so far, in MiB: on the GPU where one was used, else in main memory."""
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def changes(before: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    """What differs and keeps numbers from being the same bit for bit; empty if nothing does."""
    return ", ".join(
        f"{key} was {before[key]} and is {now[key]}"
        for key in EXACT
        if before.get(key) is not None and now.get(key) is not None and before[key] != now[key]
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _threads() -> int | None:
    try:
        import torch
    except ImportError:
        return None  # nothing that runs here depends on it
    return torch.get_num_threads()


def _commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
