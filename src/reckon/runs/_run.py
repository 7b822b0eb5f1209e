"""A run is a folder."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from reckon.errors import InputError, MissingError, RunError
from reckon.files import write_file, write_table, writing
from reckon.runs._checkpoints import Checkpoints
from reckon.runs._environment import changes, environment
from reckon.runs._folders import Lock, remove, tidy
from reckon.runs._metrics import MetricsFile, Target, check_target, open_targets, read_metrics
from reckon.runs._recipe import check_same, plain_recipe, read_recipe, write_recipe
from reckon.runs._tables import (
    EVALUATIONS,
    Cells,
    make_table,
    read_evaluations,
    read_rollouts,
    rollout_table,
    table_step,
)
from reckon.types import Batch, Credit, Json, Metrics, Stream, Verdict

if TYPE_CHECKING:
    import pyarrow

_OURS = (
    "recipe.yaml",
    "environment.json",
    "metrics.jsonl",
    "rollouts",
    "evals",
    "explore",
    "checkpoints",
    "tensorboard",
    "wandb",
)


class Run:
    """A run's folder: recipe, environment, metrics, rollouts, evaluations and checkpoints.

    Made by `create`, `resume` (both lock the folder) or `open` (for reading). Steps in files are counts of finished
    steps; step 0 is before training. All that belongs to a step is written before that step is saved: what is written
    after `save(s)` under step s would be missing if the process were killed between the two.
    """

    def __init__(self, folder: Path, lock: Lock | None, targets: Sequence[str], keep_last: int, ready: bool) -> None:
        """Not for callers: use `create`, `resume` or `open`."""
        self.folder = folder
        self.recipe: Mapping[str, Json] = read_recipe(folder)
        self._checkpoints = Checkpoints(folder / "checkpoints", keep_last)
        self._lock = lock
        self._metrics = MetricsFile(folder / "metrics.jsonl")
        self._names, self._targets = tuple(targets), list[Target]()
        self._ready = ready  # a resumed run must go back to a checkpoint before it writes
        self._start, self._began, self._before = 0, time.monotonic(), 0.0

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        recipe: Mapping[str, Json],
        overwrite: bool = False,
        targets: Sequence[str] = (),
        keep_last: int = 2,
    ) -> Run:
        """Begins a run.

        Args:
            folder: made if it is not there; files of others in it are left alone.
            recipe: resolved, all that is needed to make the run again.
            overwrite: delete the run that is there.
            targets: where metrics go beside metrics.jsonl: "tensorboard", "trackio", "wandb".
            keep_last: how many checkpoints to keep beside the best, at least 1.

        Raises:
            InputError: the recipe is not JSON, an unknown target, keep_last below 1.
            RunError: a run is there already or being written; no room; no permission.
        """
        folder, plain = Path(folder), plain_recipe(recipe)
        _check(targets, keep_last)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        now = environment()
        lock = Lock(folder, str(now["date"]))
        try:
            there = [name for name in _OURS if name != "environment.json" and (folder / name).exists()]
            if there and not overwrite:
                raise RunError(
                    f"{folder} holds a run already ({there[0]}). Resume it, choose another folder, or overwrite it: "
                    "commands that make runs have --resume, --out and --overwrite."
                )
            if there and "recipe.yaml" not in there:
                raise RunError(f"{folder} has {there[0]} but is no run of reckon, so it is left alone. Choose another.")
            with writing(folder):
                for name in reversed(_OURS):  # the recipe last: until then it is a run that can be overwritten
                    remove(folder / name)
            tidy(folder)
            write_file(folder / "environment.json", _json({**now, "resumed": []}))
            write_recipe(folder, plain)
            return cls(folder, lock, targets, keep_last, ready=True)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Opens a run for reading, also while it is being written.

        Raises:
            MissingError: there is no run.
        """
        return cls(_existing(folder), None, (), 1, ready=False)

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        recipe: Mapping[str, Json] | None = None,
        *,
        targets: Sequence[str] = (),
        keep_last: int = 2,
    ) -> Run:
        """Opens a run for going on; call `restore` next. Half-written files of a killed process are deleted.

        Args:
            folder: the run's.
            recipe: if given, must be the run's.
            targets: as in `create`.
            keep_last: as in `create`.

        Raises:
            MissingError: there is no run.
            RunError: another recipe (names the first key that differs), or the run is being written.
        """
        folder = _existing(folder)
        _check(targets, keep_last)
        if recipe is not None:
            check_same(folder, read_recipe(folder), plain_recipe(recipe))
        now = environment()
        lock = Lock(folder, str(now["date"]))
        try:
            for place in (folder, folder / "rollouts", folder / "evals", folder / "checkpoints"):
                tidy(place)
            run = cls(folder, lock, targets, keep_last, ready=False)
            run._checkpoints.clean()
            then = run.environment
            if different := changes(then, now):
                warnings.warn(f"{folder} goes on, but not bit for bit: {different}.", stacklevel=2)
            resumed = then.get("resumed")
            then["resumed"] = [*(resumed if isinstance(resumed, list) else []), now]
            write_file(folder / "environment.json", _json(then))
            return run
        except BaseException:
            lock.release()
            raise

    @property
    def environment(self) -> dict[str, Json]:
        """Where the run was made: versions, machine, threads, commit, command and date; "resumed" lists the later ones.

        Raises:
            RunError: environment.json is missing or damaged.
        """
        path = self.folder / "environment.json"
        try:
            return dict(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}). Restore it, or begin a new run.") from error

    @property
    def checkpoints(self) -> list[int]:
        """The steps that can be loaded, ascending."""
        return self._checkpoints.steps()

    @property
    def best(self) -> int | None:
        """The step of the checkpoint with the highest score, the first of equals; None if none was scored."""
        best = self._checkpoints.best()
        return None if best is None else best[0]

    def metrics(self) -> list[Metrics]:
        """See `read_metrics`."""
        return read_metrics(self.folder)

    def rollouts(self, *, columns: Sequence[str] | None = None) -> pyarrow.Table:
        """See `read_rollouts`."""
        return read_rollouts(self.folder, columns=columns)

    def evaluations(self, split: str, *, columns: Sequence[str] | None = None) -> pyarrow.Table:
        """See `read_evaluations`."""
        return read_evaluations(self.folder, split, columns=columns)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends a line to metrics.jsonl and tells the targets. "seconds" is the run's working time, pauses left out.

        Raises:
            InputError: a metric is not a number, or is called step or seconds.
            RunError: no room, or the run is not open for writing.
            MissingError: a target's package is not installed.
        """
        self._check_writing(step)
        numbers = self._metrics.append(step, self._before + time.monotonic() - self._began, metrics)
        if len(self._targets) < len(self._names):
            name = str(self.environment["id"])
            self._targets = open_targets(self._names, self.folder, self.recipe, name, self._start)
        for target in self._targets:
            target.log(step, numbers)

    def record(
        self,
        step: int,
        batch: Batch,
        streams: Mapping[str, Stream],
        credit: Credit | None = None,
        verdicts: Sequence[Verdict] | None = None,
    ) -> None:
        """Writes a step's rollouts to rollouts/step-XXXXXX.parquet. Arguments and errors: see `rollout_table`."""
        self._check_writing(step)
        table = rollout_table(step, batch, streams, credit, verdicts)
        write_table(self.folder / "rollouts" / f"step-{step:06}.parquet", table)

    def evaluation(self, split: str, step: int, columns: Cells | pyarrow.Table) -> None:
        """Writes an evaluation's responses to evals/SPLIT-step-XXXXXX.parquet.

        Args:
            split: a name without slashes.
            step: finished steps; 0 = before training.
            columns: of the schema `EVALUATIONS`, or a table of it.

        Raises:
            InputError: a column is missing, unknown or does not fit.
            RunError: no room, or the run is not open for writing.
        """
        self._check_writing(step)
        if not split or "/" in split or split.startswith("."):
            raise InputError(f"`{split}` cannot be the name of a split. Use a word, such as dev or test.")
        table = make_table(columns, EVALUATIONS) if isinstance(columns, Mapping) else columns
        write_table(self.folder / "evals" / f"{split}-step-{step:06}.parquet", table)

    def save(self, step: int, parts: Mapping[str, object], *, score: float | None = None) -> None:
        """Writes a checkpoint, then deletes those that are neither among the last few nor the best.

        Args:
            step: finished steps.
            parts: by name; those that are `Stateful` are saved.
            score: the higher the better, usually the dev split's; None or NaN = not measured, so never the best.

        Raises:
            InputError: a state holds something that cannot be saved.
            RunError: no room; the checkpoints before are intact.
        """
        self._check_writing(step)
        self._metrics.sync()  # a checkpoint must not know more than the metrics do
        self._checkpoints.save(step, parts, score)

    def save_if_due(
        self,
        step: int,
        total: int,
        parts: Mapping[str, object],
        *,
        every: int,
        score: float | None = None,
        stop: bool = False,
    ) -> bool:
        """Saves every `every` steps, at the end, when stopping, and when the score is better than any before.

        Returns:
            Whether it saved.
        """
        best = self._checkpoints.best()
        better = score is not None and not math.isnan(score) and (best is None or score > best[1])
        if not (stop or better or step >= total or (every > 0 and step % every == 0)):
            return False
        self.save(step, parts, score=score)
        return True

    def restore(self, parts: Mapping[str, object]) -> int:
        """Takes the parts back to the last checkpoint, and the files with them.

        Metrics, rollouts and evaluations of later steps are deleted, for they will be made again. Without a checkpoint,
        or with one of step 0, the run begins anew, with its first evaluation.

        Returns:
            The number of finished steps: the step to go on from; 0 in a new run.

        Raises:
            RunError: the parts' names are not those saved, or a file is damaged.
        """
        if self._lock is None:
            raise RunError(f"{self.folder} is open for reading. Use Run.resume to go on with it.")
        steps = self._checkpoints.steps()
        start = steps[-1] if steps else 0
        if steps:
            self._checkpoints.load(start, parts, every=True)
            self._checkpoints.rotate()
        last = start if start else -1
        self._before = self._metrics.cut(last)
        with writing(self.folder):
            for path in [*self.folder.glob("rollouts/*.parquet"), *self.folder.glob("evals/*.parquet")]:
                step = table_step(path)
                if step is not None and step > last:
                    path.unlink()
        self._start, self._began, self._ready = start, time.monotonic(), True
        return start

    def load(self, parts: Mapping[str, object], step: int | Literal["last", "best"] = "best") -> int:
        """Gives some parts the states of a checkpoint and leaves the files alone: for evaluation and sampling.

        Args:
            parts: any of those that were saved.
            step: a step of `checkpoints`, the last, or the best (the last where none was scored).

        Returns:
            The step.

        Raises:
            MissingError: no such checkpoint.
            RunError: it has no such part, or a file is damaged.
        """
        steps = self.checkpoints
        if isinstance(step, str):
            if not steps:
                raise MissingError(f"{self.folder} has no checkpoint yet. Let it train on, or save more often.")
            best = self.best
            step = best if step == "best" and best is not None else steps[-1]
        self._checkpoints.load(step, parts, every=False)
        return step

    def close(self) -> None:
        """Ends writing: sends what targets hold back and unlocks the folder."""
        self._metrics.close()
        for target in self._targets:
            target.close()
        self._targets, self._names = [], ()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_writing(self, step: int) -> None:
        if self._lock is None:
            raise RunError(f"{self.folder} is not open for writing. Use Run.create or Run.resume.")
        if not self._ready:
            raise RunError(f"{self.folder} was resumed and not restored. Call run.restore(parts) first.")
        if step < 0:
            raise InputError(f"A step cannot be {step}. Steps are counts of finished steps, from 0.")


def _check(targets: Sequence[str], keep_last: int) -> None:
    for name in targets:
        check_target(name)
    if keep_last < 1:
        raise InputError(f"keep_last must be at least 1, not {keep_last}: a run without a checkpoint cannot go on.")


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not (folder / "recipe.yaml").is_file():
        raise MissingError(f"{folder} is not a run: it has no recipe.yaml. Name the folder that training printed.")
    return folder


def _json(value: Mapping[str, Json]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
