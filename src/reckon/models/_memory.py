"""Keeps memory that a step has freed for the next one."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # the names of mallopt(3)


def keep_freed_memory() -> bool:
    """Has the C library keep large blocks that are freed, instead of handing them back to the system at once.

    A step of learning frees and takes the same gigabytes again and again, and every page that comes back is cleared
    anew: a tenth of the step on two cores, more on a virtual machine. The peak is the same. Only glibc can be asked;
    whoever has set its allocator's variables, or preloaded another allocator, has chosen already.

    Returns:
        Whether it will.
    """
    chosen = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in chosen):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
