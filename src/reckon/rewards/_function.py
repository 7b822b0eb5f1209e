"""A reward function of one's own."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import inspect
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from reckon.errors import InputError, MissingError, RunError
from reckon.rewards._columns import Cells, columns, rewards_from
from reckon.types import Batch, Stream

Rewards: TypeAlias = "Sequence[float | None]"
RewardFunction: TypeAlias = "Callable[..., Rewards | Awaitable[Rewards]]"


@dataclass(frozen=True)
class Function:
    """A function of one's own as a reward, called as TRL calls it: by keyword, with lists of one value a response.

    It is handed what it names among `prompts`, `completions`, `completion_ids`, `answer` (or `answers`), `domain`, `id`
    and the data's other columns; with `**kwargs`, all of them. It returns one number for each completion, None where
    it does not apply. It may be `async def`. Where the prompt is a chat, prompts are lists of messages and completions
    `[{"role": "assistant", "content": text}]`.
    """

    function: RewardFunction
    timeout: float | None = None  # seconds for one call of an `async def`; one that never awaits cannot be stopped

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InputError(f"function: a {type(self.function).__name__} cannot be called.")
        if self.timeout is None:
            return
        if not self.timeout > 0:
            raise InputError(f"function: `timeout` is {self.timeout} seconds; it must be above 0.")
        if not _is_async(self.function):
            raise InputError(
                f"function: {self.name!r} is a plain function, which cannot be stopped, so `timeout` has no effect."
                " Make it `async def`, or drop the setting."
            )

    @property
    def name(self) -> str:
        """The function's own name, or its class's where it has none; `function` for a lambda."""
        inner = getattr(self.function, "func", self.function)  # functools.partial
        name = str(getattr(inner, "__name__", type(inner).__name__))
        return name if name.isidentifier() else "function"

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N], named after the function.

        Raises:
            RunError: the function asked for a column there is not, raised, took too long, or returned what is not one
                finite number or None for each completion.
        """
        who = f"the reward function {self.name!r}"
        arguments = self._arguments(who, columns(batch))
        try:
            result: object = self.function(**arguments)
            if inspect.isawaitable(result):
                result = _await(result, self.timeout)
        except _ExpiredError:
            raise RunError(f"{who} took longer than its `timeout` of {self.timeout} seconds.") from None
        except Exception as error:
            where = _where(error)
            said = str(error) if where else str(error).removesuffix(".")
            raise RunError(f"{who} raised {type(error).__name__}: {said}{where}.") from error
        return {self.name: Stream(values=rewards_from(who, result, batch))}

    def _arguments(self, who: str, table: Mapping[str, Cells]) -> dict[str, Cells]:
        every = {**table, "answers": table["answer"]}
        chosen: dict[str, Cells] = {}
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                return {**table, **chosen}
            if parameter.kind is parameter.VAR_POSITIONAL:
                continue
            if parameter.name in every and parameter.kind is not parameter.POSITIONAL_ONLY:
                chosen[parameter.name] = every[parameter.name]
            elif parameter.default is parameter.empty:
                raise RunError(
                    f"{who} asks for `{parameter.name}`, and there is no such column."
                    f" It may name {', '.join(sorted(every))}."
                )
        return chosen


def load_function(spec: str) -> RewardFunction:
    """The function that `file.py:name` names.

    The file is run, as an import would: name only files you trust.

    Args:
        spec: path and name, with the last colon between them; a relative path starts from the current folder.

    Raises:
        MissingError: there is no such file.
        InputError: the spec has no name, the file cannot be run, or what it names is not there or cannot be called.
    """
    file, colon, name = spec.rpartition(":")
    if not (colon and file.endswith(".py") and name.isidentifier()):
        raise InputError(f"{spec!r} does not name a function. Write it as `file.py:name`.")
    path = Path(file).resolve()
    if not path.is_file():
        raise MissingError(f"{path} is not there, and {spec!r} names a function in it.")
    module = _run(path)
    if name not in module:
        defined = sorted(key for key, value in module.items() if callable(value) and not key.startswith("_"))
        near = get_close_matches(name, defined, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(defined) or 'no function'}."
        raise InputError(f"{path} has no {name!r}. {hint}")
    function = module[name]
    if not callable(function):
        raise InputError(f"{name!r} in {path} is of type {type(function).__name__}; it must be a function.")
    return function


def _run(path: Path) -> dict[str, RewardFunction]:
    # A name of its own, for two files may share a stem, and in sys.modules, where dataclasses and pickle look it up.
    name = f"reckon_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{error.filename}, line {error.lineno}: {error.msg}.") from error
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise InputError(f"{path}{where}: importing it raised {type(error).__name__}: {error}.") from error
    return vars(module)


class _ExpiredError(Exception):
    """Our own time-out, told from a TimeoutError of the function's."""


def _await(result: Awaitable[object], timeout: float | None) -> object:
    async def wait() -> object:
        try:
            async with asyncio.timeout(timeout) as scope:
                return await result
        except TimeoutError:
            if scope.expired():
                raise _ExpiredError from None
            raise

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    # In a notebook a loop is running already and cannot be entered twice: wait in another thread.
    box: dict[str, object] = {}

    def target() -> None:
        try:
            box["result"] = asyncio.run(wait())
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join()
    if isinstance(error := box.get("error"), BaseException):
        raise error
    return box["result"]


def _is_async(function: object) -> bool:
    inner = getattr(function, "func", function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004


def _where(error: BaseException) -> str:
    """The line of the user's file where it happened: below ours, above the libraries'."""
    adapters = Path(__file__).parent / "adapters"  # a function of another library's is called through one of these
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    frames = [frame for frame in frames if adapters not in Path(frame.filename).parents]
    frames = [frame for frame in frames if "asyncio" not in Path(frame.filename).parts]
    return f" ({frames[0].filename}, line {frames[0].lineno})" if frames else ""
