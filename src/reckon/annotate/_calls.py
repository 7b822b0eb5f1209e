"""Calling what may fail, hang or wait for a network: bounded, in order, and with every failure counted."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, Literal, TypeAlias, TypeVar, cast

from reckon.errors import InputError

T = TypeVar("T")
R = TypeVar("R")
Failure: TypeAlias = Literal["raised", "timed out"]


@dataclass(frozen=True)
class Called(Generic[R]):
    """A result, or why there is none."""

    value: R | None
    failure: Failure | None = None
    error: str = ""


def gather(
    function: Callable[[T], R | Awaitable[R]],
    arguments: Sequence[T],
    *,
    workers: int = 1,
    seconds: float | None = None,
) -> list[Called[R]]:
    """Calls a function with each argument, and gives the results in their order.

    With one worker, no limit and a plain function, everything happens in the caller's thread; otherwise in threads of
    their own. A plain function that takes too long is left to itself, for a thread cannot be stopped; an `async def` is
    canceled. `TimeoutError` counts as timed out; whatever else is raised, except Ctrl-C and the like, as raised.

    Args:
        function: plain or `async def`.
        arguments: one for each call.
        workers: the most calls at a time.
        seconds: the most one call may take; None = no limit.

    Raises:
        InputError: a number is too small.
    """
    if workers < 1:
        raise InputError(f"`workers` is {workers}; at least 1 is needed.")
    if seconds is not None and not seconds > 0:
        raise InputError(f"`seconds` is {seconds}; it must be above 0, or None for no limit.")
    if workers == 1 and seconds is None and not _is_async(function):
        return [_call(function, argument, None) for argument in arguments]
    results: dict[int, Called[R]] = {}
    done: SimpleQueue[tuple[int, Called[R]]] = SimpleQueue()
    slots = threading.Semaphore(workers)

    def work(place: int) -> None:
        done.put((place, _call(function, arguments[place], seconds)))

    def one(place: int) -> None:
        # The call runs below this thread, so that a call that hangs gives its slot back when its time is up.
        inner = threading.Thread(target=work, args=(place,), daemon=True)
        inner.start()
        inner.join(seconds)
        if inner.is_alive():
            done.put((place, Called(None, "timed out", f"no result within {seconds:g} s")))
        slots.release()

    for place in range(len(arguments)):
        slots.acquire()
        threading.Thread(target=one, args=(place,), daemon=True).start()
    while len(results) < len(arguments):
        try:
            place, called = done.get(timeout=0.5)  # a bare wait could not be interrupted
        except Empty:
            continue
        results.setdefault(place, called)  # what comes after its time is up comes too late
    return [results[place] for place in range(len(arguments))]


def _call(function: Callable[[T], R | Awaitable[R]], argument: T, seconds: float | None) -> Called[R]:
    try:
        value = function(argument)
        if inspect.isawaitable(value):
            value = _run(value, seconds)
        return Called(cast("R", value))
    except TimeoutError as error:
        return Called(None, "timed out", str(error))
    except Exception as error:
        return Called(None, "raised", f"{type(error).__name__}: {error}")


def _run(value: Awaitable[R], seconds: float | None) -> R:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_wait(value, seconds))
    with ThreadPoolExecutor(1) as pool:  # in a notebook a loop is running already and cannot be entered twice
        return pool.submit(lambda: asyncio.run(_wait(value, seconds))).result()


async def _wait(value: Awaitable[R], seconds: float | None) -> R:
    return await asyncio.wait_for(value, seconds)


def _is_async(function: object) -> bool:
    inner = getattr(function, "func", function)  # functools.partial
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004
