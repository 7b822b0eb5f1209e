"""The command `reckon`: reads arguments, calls a room, prints. Nothing is computed here.

Exit codes: 0 all went well; 1 a bug of reckon's, with a traceback; 2 something the user can mend, with a message on
stderr that names it; 130 interrupted by Ctrl-C, after what was done is saved.
"""

from reckon.cli import _annotating, _exploring, _judging, _planning  # noqa: F401  # their commands join the others
from reckon.cli._commands import app, main

__all__ = ["app", "main"]
