"""Offline learning: the one loop. What is learned, and from what, is the choice of a loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from reckon.errors import InputError
from reckon.fit._likelihood import FitLoss
from reckon.fit._reference import CachedReference
from reckon.fit._rows import Example
from reckon.runs import Progress, Run, interruptible, peak_memory
from reckon.types import Metrics, Rng

if TYPE_CHECKING:
    from reckon.models import LanguageModel

Order: TypeAlias = Callable[[Sequence[Example], Rng], Sequence[int]]  # rows of a pass, by place; any may come twice
_CHUNK = 64  # rows whose reference log-probs are computed at once


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to learn and on how much a step."""

    epochs: int = 1  # passes over the rows
    batch: int = 32  # rows, pairs or prefixes to an optimizer step
    seed: int = 0
    evaluate_every: int = 20  # steps between measurements on the dev rows; also before the first and after the last
    save_every: int = 100  # steps between checkpoints; a lower dev loss makes one too
    show: Literal["auto", "bar", "lines", "nothing"] = "auto"  # progress, on stderr

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` is {getattr(self, name)}, but must be at least 1.")


def shuffled(rows: Sequence[Example], rng: Rng) -> Sequence[int]:
    """Every row once, in an order of its own for each pass."""
    return [int(place) for place in rng.numpy().permutation(len(rows))]


def fit(
    model: LanguageModel,
    rows: Sequence[Example],
    loss: FitLoss,
    plan: Plan,
    run: Run | None = None,
    *,
    dev: Sequence[Example] = (),
    order: Order = shuffled,
) -> bool:
    """Fits `model` to rows until the plan is done or somebody presses Ctrl-C, going on from the run's checkpoint.

    Args:
        model: what learns; its own optimizer settings hold. Give a resumed run the model that it began with: a
            reference is made of that.
        rows: what to learn from; all of one kind, the loss's.
        loss: what is minimized.
        plan: sizes, seed and intervals.
        run: the folder everything is written to; what it holds decides where learning starts. None = leave no trace.
        dev: rows that are only measured; the lowest loss on them decides which checkpoint is the best.
        order: which rows a pass takes, in which order.

    Returns:
        True if the plan was finished, False if it was interrupted; a run is saved either way.

    Raises:
        InputError: there are no rows, fewer than the loss needs, or rows of a kind that is not the loss's, or that it
            cannot read.
    """
    batches = schedule(rows, plan, order, least=getattr(loss, "least", 1))
    check_rows(model, loss, rows, dev)
    remember(model, loss, [*rows, *dev])
    memory = {"model": model}
    start = run.restore(memory) if run is not None else 0
    with interruptible() as stop, Progress(len(batches), start, show=plan.show) as bar:
        if start == 0 and run is not None and dev:
            run.log(0, measure(model, dev, loss))
        for step in range(start, len(batches)):
            began = time.perf_counter()
            with torch.no_grad():
                seq, columns = loss.prepare(model, [rows[place] for place in batches[step]])
            metrics = renamed(model.step(seq, columns, loss, loss.want), "policy/", "fit/")
            metrics |= {"fit/tokens": float(seq.mask.sum()), "fit/rows": float(len(batches[step]))}
            metrics |= {"time/step": time.perf_counter() - began, "memory/peak_mib": peak_memory()}
            if dev and ((step + 1) % plan.evaluate_every == 0 or step + 1 == len(batches)):
                metrics |= measure(model, dev, loss)
            bar.update(step + 1, f"loss {metrics['fit/loss']:.3f}")
            if run is not None:
                run.log(step + 1, metrics)
                score = -metrics["dev/loss"] if "dev/loss" in metrics else None
                run.save_if_due(step + 1, len(batches), memory, every=plan.save_every, score=score, stop=stop.requested)
            if stop.requested:
                return step + 1 == len(batches)
    return True


def schedule(rows: Sequence[Example], plan: Plan, order: Order = shuffled, *, least: int = 1) -> list[list[int]]:
    """The rows of every step of a plan, by place: what a run will do is known before it begins.

    A last mini-batch of fewer than `least` rows joins the one before it.

    Raises:
        InputError: there are no rows, or fewer than `least`.
    """
    if len(rows) < max(least, 1):
        raise InputError(f"There are {len(rows)} rows to learn from, and at least {max(least, 1)} are needed.")
    if plan.batch < least:
        raise InputError(f"`batch` is {plan.batch}, but this loss needs at least {least} rows to a step.")
    batches: list[list[int]] = []
    for epoch in range(plan.epochs):
        places = list(order(rows, Rng((plan.seed, "fit", epoch))))
        cuts = [places[i : i + plan.batch] for i in range(0, len(places), plan.batch)]
        if len(cuts) > 1 and len(cuts[-1]) < least:
            cuts[-2:] = [cuts[-2] + cuts[-1]]
        batches += cuts
    return batches


def check_rows(model: LanguageModel, loss: FitLoss, rows: Sequence[Example], dev: Sequence[Example]) -> None:
    """What can be known of the rows before anything is learned, by the loss's own `check` where it has one.

    Raises:
        InputError: there are dev rows, but fewer than the loss needs, or the loss cannot read some row.
    """
    least = getattr(loss, "least", 1)
    if 0 < len(dev) < least:
        raise InputError(
            f"{len(dev)} row is held back to measure on, and this loss needs at least {least}. Hold back more rows, "
            "or none."
        )
    check = getattr(loss, "check", None)
    if check is not None:
        check(model, rows)
        check(model, dev)


def remember(model: LanguageModel, loss: FitLoss, rows: Sequence[Example]) -> None:
    """Computes the reference's log-probs of all rows, in their own order, before anything is learned.

    In this order they come out alike to the last bit whenever a run is taken up again. One that follows the model has
    nothing to remember.
    """
    reference = getattr(loss, "reference", None)
    if not isinstance(reference, CachedReference) or reference.follows:
        return
    read = getattr(loss, "remember", loss.prepare)  # KTO's `prepare` reads more than the rows
    for start in range(0, len(rows), _CHUNK):
        read(model, rows[start : start + _CHUNK])


def measure(model: LanguageModel, rows: Sequence[Example], loss: FitLoss) -> Metrics:
    """The loss and its diagnostics on rows that are not learned from, all of them as one mini-batch: "dev/..."."""
    with torch.no_grad():
        seq, columns = loss.prepare(model, rows)
        outputs = model.outputs(seq, loss.want)
        metrics = {"dev/loss": float(loss(outputs, columns).sum())}
        return metrics | {f"dev/{name}": float(value) for name, value in loss.diagnostics(outputs, columns).items()}


def renamed(metrics: Metrics, old: str, new: str) -> Metrics:
    """The metrics under another beginning of their names."""
    return {new + name.removeprefix(old) if name.startswith(old) else name: value for name, value in metrics.items()}
