"""Labelled responses that a judge is shown again while it learns from others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from reckon.annotate import Triple, read_triples
from reckon.errors import InputError
from reckon.rewards._judges_reading import last_tokens, sequences_of
from reckon.types import Columns, Metrics, Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.models import LanguageModel


def read_replay(path: str, *, reference: bool) -> list[Triple]:
    """The labelled responses of a file, as `reckon annotate` writes them and `read_triples` reads them.

    Args:
        path: a .jsonl, .parquet or .csv file.
        reference: the judge is shown reference answers, so every row must have one.

    Raises:
        MissingError: there is no such file.
        InputError: a row has no label, or no reference answer where one is needed.
    """
    rows = read_triples(path)
    for number, row in enumerate(rows, start=1):
        lacks = "label" if row.gold is None else "answer" if reference and row.problem.answer is None else None
        if lacks is not None:
            raise InputError(
                f"{path}, row {number}: `replay` needs the column `{lacks}`, which is empty. Fill it, or drop the row."
            )
    return rows


@dataclass(frozen=True)
class LabelLoss:
    """Binary cross-entropy of scores at last tokens against labels, each row times its share."""

    def __call__(self, outputs: Outputs, columns: Columns) -> Tensor:
        """[n], each row's share of the mean."""
        return (
            binary_cross_entropy_with_logits(_last(outputs, columns), columns["label"], reduction="none")
            * (columns["share"])
        )

    def diagnostics(self, outputs: Outputs, columns: Columns) -> dict[str, Tensor]:
        """`accuracy`: the share of rows on whose side of 1/2 the probability lies."""
        right = (_last(outputs, columns) > 0) == (columns["label"] > 0.5)
        return {"accuracy": (right * columns["share"]).sum().detach()}


def step_on_labels(model: LanguageModel, rows: Sequence[tuple[Sequence[int], bool]], center: float) -> Metrics:
    """One optimizer step on the mean cross-entropy of labelled texts in tokens; `center` is taken off their scores."""
    seq = sequences_of([tokens for tokens, _ in rows], range(len(rows)), model.device)
    device = seq.mask.device
    columns = {
        "last": last_tokens(seq.mask),
        "label": torch.tensor([float(label) for _, label in rows], device=device),
        "center": torch.full((len(rows),), center, device=device),
        "share": torch.full((len(rows),), 1 / len(rows), device=device),
    }
    return model.step(seq, columns, LabelLoss(), ("scores",))


def _last(outputs: Outputs, columns: Columns) -> Tensor:
    """[n]: the logits."""
    assert outputs.scores is not None
    return outputs.scores.gather(1, columns["last"][:, None])[:, 0] - columns["center"]
