"""Metrics as lines of JSON, and the other places that can be told of them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from reckon.errors import InputError, MissingError, RunError
from reckon.files import write_file, writing
from reckon.types import Json, Metrics


def read_metrics(folder: str | Path) -> list[Metrics]:
    """The lines of a run's metrics.jsonl, in order: "step", "seconds" and the metrics of each call of `Run.log`.

    One step may have several lines. A torn last line, of a run that is being written or was killed, is left out.

    Raises:
        RunError: a line in the middle is damaged; names the line.
    """
    return [_decode(line) for line in _lines(Path(folder) / "metrics.jsonl")]


class MetricsFile:
    """Appends to metrics.jsonl."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def append(self, step: int, seconds: float, metrics: Mapping[str, float]) -> dict[str, int | float]:
        """Adds one line and returns its metrics as Python numbers.

        Raises:
            InputError: a metric is not a number, or is called step or seconds.
            RunError: no room; the file is left as it was.
        """
        numbers = {name: _number(name, value) for name, value in metrics.items()}
        line: dict[str, Json] = {"step": step, "seconds": round(seconds, 3)}
        line.update({name: _encode(number) for name, number in numbers.items()})
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        with writing(self._path):
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            size = os.fstat(self._descriptor).st_size
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                with suppress(OSError):  # the first error is the one to tell
                    os.ftruncate(self._descriptor, size)
                raise
        return numbers

    def sync(self) -> None:
        """Waits until all lines are on the disk."""
        if self._descriptor is not None:
            with writing(self._path):
                os.fsync(self._descriptor)

    def cut(self, last: int) -> float:
        """Drops the lines of steps after `last` and a torn last line; returns the seconds of the last line kept."""
        self.close()
        if not self._path.exists():
            return 0.0
        lines = _lines(self._path)
        kept = [line for line in lines if int(_decode(line)["step"]) <= last]
        data = b"".join(line + b"\n" for line in kept)
        if len(data) != self._path.stat().st_size:
            write_file(self._path, data)
        return _decode(kept[-1])["seconds"] if kept else 0.0

    def close(self) -> None:
        """Ends writing; `append` opens the file again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _lines(path: Path) -> list[bytes]:
    """The whole lines, each known to be an object with a step."""
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            _decode(line)["step"]
        except (ValueError, KeyError, AttributeError, TypeError):
            raise RunError(f"{path}, line {number}: this is not a line of metrics. Delete it, and go on.") from None
    return lines


def _number(name: str, value: object) -> int | float:
    if name in ("step", "seconds"):
        raise InputError(f"A metric cannot be called `{name}`: each line has one already. Choose another name.")
    if not isinstance(value, int | float) and hasattr(value, "item"):
        value = value.item()  # of NumPy or torch
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise InputError(f"The metric `{name}` is a {type(value).__name__}, not a number. Log a number.")


def _encode(number: int | float) -> Json:
    """JSON has no words for what is not finite: null is NaN, and the infinities are strings."""
    if math.isfinite(number):
        return number
    return None if math.isnan(number) else str(number)


def _decode(line: bytes) -> Metrics:
    return {name: math.nan if value is None else float(value) for name, value in json.loads(line).items()}


class Target(Protocol):
    """Another place that is told of metrics."""

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Tells it."""
        ...

    def close(self) -> None:
        """Sends what is left."""
        ...


def open_targets(names: Sequence[str], folder: Path, recipe: Mapping[str, Json], name: str, start: int) -> list[Target]:
    """Opens log targets.

    Args:
        names: of "tensorboard", "trackio", "wandb".
        folder: the run's.
        recipe: kept with the run where the target can.
        name: unique, by which a resumed run finds itself again.
        start: the step the run goes on from; what was told of later steps is void.

    Raises:
        InputError: no such target.
        MissingError: its package is not installed; names the extra.
    """
    targets: list[Target] = []
    for target in names:
        check_target(target)
        try:
            targets.append(_TARGETS[target](folder, recipe, name, start))
        except ImportError as error:
            raise MissingError(
                f"The log target `{target}` needs a package that is not installed ({error}). "
                f"Run: pip install 'reckon-rl[{target}]'"
            ) from error
    return targets


def check_target(name: str) -> None:
    """Raises InputError unless there is such a target."""
    if name not in _TARGETS:
        raise InputError(f"`{name}` is not a log target. Choose from {', '.join(_TARGETS)}.")


class _TensorBoard:
    def __init__(self, folder: Path, recipe: Mapping[str, Json], name: str, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else 0)

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    def __init__(self, folder: Path, recipe: Mapping[str, Json], name: str, start: int) -> None:
        import trackio

        self._run = trackio.init(project="reckon", name=name, config=dict(recipe), resume="allow")

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class _WandB:
    def __init__(self, folder: Path, recipe: Mapping[str, Json], name: str, start: int) -> None:
        import wandb

        self._run = wandb.init(
            project="reckon", id=name, name=folder.name, dir=str(folder), config=dict(recipe), resume="allow"
        )
        # Its own counter never goes back, as a resumed run's steps may: ours is the axis instead.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        self._run.log({"step": step, **metrics})

    def close(self) -> None:
        self._run.finish()


_TARGETS: Mapping[str, Callable[[Path, Mapping[str, Json], str, int], Target]] = {
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
    "wandb": _WandB,
}
