"""Losses on the scores of a value head: outcome models, process models, verifiers of prefixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from reckon import preferences
from reckon.errors import InputError
from reckon.fit import _layout
from reckon.fit._likelihood import Diagnostics, labels_of, only, pair_numbers, paired, sides
from reckon.fit._rows import Example, Paired, Prefix, Stepwise, Unpaired
from reckon.steps import Pattern, Splitter
from reckon.types import Columns, Outputs, Problem, Sequences, Want

if TYPE_CHECKING:
    from reckon.models import LanguageModel

SCORES: tuple[Want, ...] = ("scores",)


@dataclass(frozen=True, kw_only=True)
class BradleyTerry:
    """An outcome model from pairs: the better response's last token gets the higher score (Ouyang et al. 2022).

    Rows: `Paired`, with their margins where they have them. Scores are known up to a constant; `center` holds the sum
    of a pair's near 0, 0.01 being usual (Eisenstein et al. 2023, arXiv:2312.09244). With `read`, the model is shown one
    text made of problem and response, as by `OutcomeBCE`: the pair loss of Cooper (arXiv:2508.05613).
    """

    center: float = 0.0
    read: Callable[[Problem, str], str] | None = None
    want: ClassVar[tuple[Want, ...]] = SCORES
    whole_groups: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.center < 0:
            raise InputError(f"BradleyTerry: `center` is {self.center}, but must be at least 0.")

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """Where the last tokens stand, margins and each pair's share.

        Raises:
            InputError: `read` begins the texts of a pair with different tokens.
        """
        found = only(Paired, rows, self)
        seq, order = paired(model, found) if self.read is None else _read_pairs(model, self.read, found)
        margins = torch.tensor([found[place // 2].margin or 0.0 for place in order], device=seq.mask.device)
        share = torch.full((len(order),), 1 / len(found), device=seq.mask.device)
        return seq, {"last": _layout.last(seq), "margin": margins, "share": share}

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n / 2], one for each pair."""
        chosen, rejected = sides(_at(outputs.scores, columns["last"]))
        loss = preferences.bradley_terry(chosen, rejected, columns["margin"][0::2], self.center)
        return loss * columns["share"][0::2]

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """Mean scores of both sides, their margin, how often the chosen one's is higher, and the scores' mean square.

        The mean square, with the means, is the spread of the scores: what a penalty for KL must be chosen by.
        """
        scores = _at(outputs.scores, columns["last"]).detach()
        square = (scores.square() * columns["share"]).sum() / 2
        return {**pair_numbers(scores, columns["share"]), "square": square}


@dataclass(frozen=True, kw_only=True)
class OutcomeBCE:
    """An outcome model from right and wrong responses: the last token's score is the logit of being right.

    Rows: `Unpaired` with labels (Cobbe et al. 2021, arXiv:2110.14168). With `read`, the model is shown one text made of
    problem and response, without a chat template: `reckon.rewards.format_reference_based` for VerifyRM
    (arXiv:2508.05613).
    """

    read: Callable[[Problem, str], str] | None = None
    want: ClassVar[tuple[Want, ...]] = SCORES

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """One labelled token for each response: its last."""
        found = only(Unpaired, rows, self)
        labels = labels_of(found, self)
        if self.read is not None:
            seq, order = _layout.whole_texts(model, self.read, [(row.problem, row.text) for row in found])
        else:
            seq, order = _layout.texts(model, [(row.problem, row.text, row.ended) for row in found])
        ends = _layout.last(seq).tolist()
        return seq, _targets(seq, [[(end, labels[place])] for end, place in zip(ends, order, strict=True)])

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T], 0 but at labelled tokens."""
        return _cross_entropy(outputs.scores, columns)

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """How often the score's sign agrees with the label, and the Brier score."""
        return _label_numbers(outputs.scores, columns)


@dataclass(frozen=True, kw_only=True)
class OutcomeSteps:
    """A step model from outcomes alone: the response's label stands at each of its steps. Cheap, and often strong.

    Rows: `Unpaired` with labels.
    """

    splitter: Splitter = field(default_factory=Pattern)
    want: ClassVar[tuple[Want, ...]] = SCORES

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """The label at the last token of every step."""
        found = only(Unpaired, rows, self)
        labels = labels_of(found, self)
        seq, order, ends = _layout.steps_by_text(model, found, self.splitter)
        places = [[(end, labels[place]) for end in row] for row, place in zip(ends, order, strict=True)]
        return seq, _targets(seq, places)

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T], 0 but at labelled tokens."""
        return _cross_entropy(outputs.scores, columns)

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """As `OutcomeBCE`, over steps."""
        return _label_numbers(outputs.scores, columns)


@dataclass(frozen=True, kw_only=True)
class StepLabels:
    """An explicit process model: each step's last token is scored with the step's own label, hard or soft.

    Rows: `Stepwise` (Lightman et al. 2023, arXiv:2305.20050; Wang et al. 2023, arXiv:2312.08935, eq. 2).
    """

    want: ClassVar[tuple[Want, ...]] = SCORES

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """The labels at the last tokens of their steps; a step without a label counts nothing."""
        seq, _, steps = _layout.given_steps(model, only(Stepwise, rows, self))
        return seq, _targets(seq, [[(end, label) for end, label in row if label is not None] for row in steps])

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T], 0 but at labelled tokens."""
        return _cross_entropy(outputs.scores, columns)

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """As `OutcomeBCE`, over steps."""
        return _label_numbers(outputs.scores, columns)


@dataclass(frozen=True, kw_only=True)
class PrefixValues:
    """The chance of being right in the end, after every prefix, the empty one included: a PAV's verifier.

    Rows: `Prefix`, with soft labels (Setlur et al. 2024, arXiv:2410.08146, section 4). Draw them with `by_buckets`
    where most are near 0, and undo its tilt with `recalibrate`: an advantage is a difference of these values.
    """

    want: ClassVar[tuple[Want, ...]] = ("values",)

    def prepare(self, model: LanguageModel, rows: Sequence[Example]) -> tuple[Sequences, Columns]:
        """A prefix of t tokens is read where token t is predicted."""
        seq, places = _layout.prefixes(model, only(Prefix, rows, self))
        return seq, _targets(seq, places)

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n, T], 0 but where a prefix is read."""
        return _cross_entropy(outputs.values, columns)

    def diagnostics(self, outputs: Outputs, columns: Columns) -> Diagnostics:
        """As `OutcomeBCE`, over prefixes."""
        return _label_numbers(outputs.values, columns)


def _read_pairs(
    model: LanguageModel, read: Callable[[Problem, str], str], rows: Sequence[Paired]
) -> tuple[Sequences, list[int]]:
    """As `paired`, of the texts that `read` makes."""
    seq, order = _layout.whole_texts(
        model, read, [(row.problem, text) for row in rows for text in (row.chosen, row.rejected)]
    )
    if not torch.equal(*sides(seq.group)):  # a micro-batch could part them
        raise InputError(
            "BradleyTerry: the two texts that `read` makes of a pair must begin alike. Have it put the problem before "
            "the response."
        )
    return seq, order


def _targets(seq: Sequences, places: Sequence[Sequence[tuple[int, float]]]) -> dict[str, Tensor]:
    """Columns [N, T] of targets and shares. Labels at one token become their mean, with the weight of all of them."""
    count, total = torch.zeros(seq.mask.shape), torch.zeros(seq.mask.shape)
    for n, row in enumerate(places):
        for token, label in row:
            count[n, token] += 1
            total[n, token] += label
    target, share = total / count.clamp(min=1), count / count.sum().clamp(min=1)
    return {"target": target.to(seq.mask.device), "share": share.to(seq.mask.device)}


def _at(scores: Tensor | None, last: Tensor) -> Tensor:
    assert scores is not None
    return scores.gather(1, last[:, None])[:, 0]


def _cross_entropy(logits: Tensor | None, columns: Columns) -> Tensor:
    assert logits is not None
    return preferences.step_ce(logits, columns["target"], columns["share"] > 0) * columns["share"]


def _label_numbers(logits: Tensor | None, columns: Columns) -> Diagnostics:
    assert logits is not None
    share, target = columns["share"], columns["target"]
    found = logits.detach().sigmoid()
    return {
        "accuracy": (((found >= 0.5) == (target >= 0.5)) * share).sum(),
        "brier": ((found - target).square() * share).sum(),
        "mean": (found * share).sum(),
    }
