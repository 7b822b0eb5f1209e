"""A staged head from rows with stages: solved on a frozen model's states, not learned step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from reckon.errors import InputError, RunError
from reckon.fit import _layout
from reckon.fit._likelihood import Diagnostics, only
from reckon.fit._loop import measure
from reckon.fit._read import Read
from reckon.fit._rows import Example, Staged
from reckon.rewards import StagedReward, StagedRewardHead, last_states, load_function, staged_log_probabilities
from reckon.runs import Run
from reckon.tasks import prompt_key
from reckon.types import Columns, Outputs, Sequences, Want

if TYPE_CHECKING:
    from reckon.fit._kinds import Settings
    from reckon.models import LanguageModel


@dataclass(frozen=True, kw_only=True)
class StagedOutcome:
    """How unlikely a head finds the stages that responses reached (PRESTO: Faletto and Bien, ICML 2023).

    Rows: `Staged`, with stages from 0 to K-1. The head reads the state after the last token.
    """

    head: StagedRewardHead | None = None  # None before `solved` has found it
    want: ClassVar[tuple[Want, ...]] = ("hidden",)

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """Where the last tokens stand, stages, and each response's share."""
        found = only(Staged, rows, self)
        seq, order = _layout.texts(model, [(row.problem, row.text, row.ended) for row in found])
        stages = torch.tensor([_counted(found[place]) for place in order], device=seq.mask.device)
        share = torch.full((len(order),), 1 / len(found), device=seq.mask.device)
        return seq, {"last": _layout.last(seq), "stage": stages, "share": share}

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n]."""
        return -staged_log_probabilities(self._scores(outputs, columns), columns["stage"]) * columns["share"]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """Of the last stage: its share, its mean probability, and the Brier score."""
        likely = torch.sigmoid(-self._scores(outputs, columns).detach()[:, -1])
        right = (columns["stage"] == self.known.psi.shape[0]).float()
        share = columns["share"]
        return {
            "right": (right * share).sum(),
            "mean": (likely * share).sum(),
            "brier": ((likely - right).square() * share).sum(),
        }

    @property
    def known(self) -> StagedRewardHead:
        """The head.

        Raises:
            RunError: it is not solved for yet.
        """
        if self.head is None:
            raise RunError("a staged head is solved for before it is asked: StagedOutcome(head=...).")
        return self.head

    def _scores(self, outputs: Outputs, columns: Columns) -> Tensor:
        assert outputs.hidden is not None
        rows = torch.arange(len(outputs.hidden), device=outputs.hidden.device)
        scores: Tensor = self.known(outputs.hidden[rows, columns["last"]])
        return scores


def counted(read: Read, names: Sequence[str], stage_of: str | None) -> tuple[Read, list[str]]:
    """The rows with stages as counts, and what there is to tell. Rows of an unknown stage are left out.

    Args:
        read: rows of `Staged`.
        names: the stages in their order, lowest first; none where the rows have counts.
        stage_of: `file.py:name`, a function of a problem and a text to a count, a name, or None = unknown; asked where
            a row has no stage.

    Raises:
        InputError: a stage that is none, or no row has one.
        RunError: the function raised.
    """
    function = None if stage_of is None else load_function(stage_of)
    found: list[Example] = []
    for row in _staged(read.rows):
        stage: object = row.stage
        if stage is None and function is not None:
            stage = _asked(str(stage_of), function, row)
        place = _place(row, stage, names)
        if place is not None:
            found.append(dataclasses.replace(row, stage=place))
    if not found:
        raise InputError(
            f"none of {len(read.rows)} rows has a stage. Give a column `stage`, or stage_of=file.py:name, a function "
            "of a problem and a text."
        )
    unknown = len(read.rows) - len(found)
    told = [f"{unknown} rows without a stage were left out."] if unknown else []
    return dataclasses.replace(read, rows=tuple(found)), told


def solved(model: LanguageModel, rows: Sequence[Example], dev: Sequence[Example], settings: Settings) -> StagedOutcome:
    """The loss with the head that is found for these rows, the penalty chosen with rows of one prompt kept together.

    Args:
        model: frozen.
        rows: `Staged`, counted.
        dev: rows that are only measured.
        settings: `stages`, without which there are as many as the rows show, `folds`, `seed` and `worth`.

    Raises:
        InputError: a stage without rows, or of too few for the folds; worths that are not one for each stage.
    """
    found = _staged(rows)
    stages = _stages(rows)
    count = len(settings.stages) or 1 + int(_stages([*rows, *dev]).max())
    seq, order = _layout.texts(model, [(row.problem, row.text, row.ended) for row in found])
    states = last_states(model, seq).cpu()
    head = StagedRewardHead(states.shape[1], count)
    StagedReward(model, head, worth=settings.worth)  # refuses what it could not score with
    groups = [prompt_key(found[place].problem.prompt) for place in order]
    head.fit(states, stages[order], groups=groups, folds=settings.folds, seed=settings.seed)
    return StagedOutcome(head=head.to(model.device))


def record(
    model: LanguageModel, loss: StagedOutcome, rows: Sequence[Example], dev: Sequence[Example], run: Run
) -> None:
    """Logs what rows held back say of a head that knows the stages' shares alone, and of the one that was found."""
    count, width = loss.known.psi.shape
    shares = StagedRewardHead(width, count + 1)
    stages = _stages(rows)
    with torch.no_grad():
        below = torch.bincount(stages, minlength=count + 1).double().cumsum(0)[:-1] / len(stages)
        shares.intercepts.copy_(below.logit())
    run.restore({})
    for step, head in enumerate((shares.to(model.device), loss.known)):
        run.log(step, measure(model, dev, StagedOutcome(head=head)) if dev else {})


def _asked(name: str, function: Callable[..., object], row: Staged) -> object:
    """What a user's function says of a row."""
    try:
        return function(row.problem, row.text)
    except Exception as error:
        raise RunError(
            f"`stage_of`, {name}, raised {type(error).__name__} on a response to problem {row.problem.id!r}: {error}"
        ) from error


def _place(row: Staged, stage: object, names: Sequence[str]) -> int | None:
    """A stage as a count."""
    if stage is None:
        return None
    if isinstance(stage, str):
        if stage in names:
            return list(names).index(stage)
        known = f"are {', '.join(names)}" if names else "have no names: give stages=[...], lowest first"
        raise InputError(f"problem {row.problem.id!r} has the stage {stage!r}, and the stages {known}.")
    if not isinstance(stage, Integral) or int(stage) < 0 or (names and int(stage) >= len(names)):
        most = f"from 0 to {len(names) - 1}" if names else "from 0"
        raise InputError(f"problem {row.problem.id!r} has the stage {stage!r}, but stages are counted {most}.")
    return int(stage)


def _staged(rows: Sequence[Example]) -> Sequence[Staged]:
    return only(Staged, rows, StagedOutcome())


def _stages(rows: Sequence[Example]) -> Tensor:
    """[n] int64."""
    return torch.tensor([_counted(row) for row in _staged(rows)])


def _counted(row: Staged) -> int:
    if not isinstance(row.stage, int):
        raise InputError(f"problem {row.problem.id!r} has the stage {row.stage!r}; give it as a count from 0.")
    return row.stage
