"""How a module of this room that is a command (`python -m reckon.studies.NAME`) ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from reckon.errors import ReckonError


def run_script(main: Callable[[], object]) -> None:
    """Runs it; what a person got wrong is one line on stderr and exit code 2, as of `reckon` itself."""
    try:
        main()
    except ReckonError as error:
        sys.stderr.write(f"reckon: {error}\n")
        sys.exit(2)
