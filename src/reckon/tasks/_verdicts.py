"""A task's verdict, or why it has none to give: its checker may be the user's own."""

from __future__ import annotations

import traceback
from pathlib import Path

from reckon.errors import ReckonError, RunError
from reckon.types import Problem, Task, Verdict


def verdict_on(task: Task, problem: Problem, text: str) -> Verdict:
    """What a task's checker says of a response; whoever asks a task of the user's asks it by this.

    Raises:
        RunError: the checker raised, or returned something else than a verdict.
    """
    who = f"the checker of the task {str(getattr(task, 'name', type(task).__name__))!r}"
    where = f"a response to problem {problem.id!r}"
    try:
        verdict: object = task.check(problem, text)
    except ReckonError:  # says what to do itself
        raise
    except Exception as error:
        raise RunError(
            f"{who} raised {type(error).__name__} on {where}: {str(error).removesuffix('.')}{_line(error)}. It may "
            "not raise, whatever a response holds: where it cannot tell, let it return Verdict(outcome=None, "
            "answer=None, reason=...)."
        ) from error
    if not isinstance(verdict, Verdict):
        raise RunError(
            f"{who} returned {str(verdict)[:80]!r} ({type(verdict).__name__}) on {where}. It must return a "
            "reckon.types.Verdict(outcome=..., answer=..., reason=...)."
        )
    return verdict


def _line(error: Exception) -> str:
    """The last line of the checker's file on the way to where it happened: below ours, above the libraries'."""
    package = Path(__file__).parents[1]
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if package not in Path(frame.filename).parents] or frames[-1:]
    at = [frame for frame in frames if frame.filename == theirs[0].filename][-1]
    return f" ({at.filename}, line {at.lineno})"
