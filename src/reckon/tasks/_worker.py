"""The far side of `Killable`: one function, called again and again with JSON, in a process nobody will miss."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence

HEAP = 4 << 30  # bytes of address space; a runaway power fails here and not in the machine's swap


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = HEAP if hard == resource.RLIM_INFINITY else min(HEAP, hard)
    for kind, limit in ((resource.RLIMIT_AS, most), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS refuses; the time limit still holds
            resource.setrlimit(kind, (limit, limit))


def serve(target: str, seconds: float, ahead: Sequence[str] = ()) -> None:
    """Answers requests on stdin, one JSON list of arguments a line, until stdin closes.

    Args:
        target: `module:function`, imported before the first answer.
        ahead: modules imported before it too.
        seconds: twice this long into one call the process ends itself, in case its parent is no longer there to do so.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which lets its step finish
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what the function prints must not look like a reply
    _limit_memory()
    for needed in ahead:
        importlib.import_module(needed)
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    replies.write(json.dumps({"ready": True}) + "\n")
    replies.flush()
    with open(os.devnull, "w") as silence:
        for line in sys.stdin:
            # faulthandler's watchdog is a C thread: it also fires while a big power holds the interpreter lock.
            faulthandler.dump_traceback_later(2 * seconds, exit=True, file=silence)
            try:
                reply = {"value": function(*json.loads(line))}
            except Exception as error:
                reply = {"error": f"{type(error).__name__}: {error}"[:500]}
            faulthandler.cancel_dump_traceback_later()
            replies.write(json.dumps(reply) + "\n")
            replies.flush()
