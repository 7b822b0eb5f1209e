"""Numbers to log about rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from reckon.types import Batch, Metrics, Stream

if TYPE_CHECKING:
    from torch import Tensor


def reward_metrics(streams: Mapping[str, Stream], batch: Batch) -> Metrics:
    """`reward/<name>/mean`, `/std` and `/unknown` for every stream, watched or trained.

    A stream of tokens is first made one number a response: a reward's tokens are added up, those of an advantage or a
    weight averaged. `/unknown` is the share of responses without a value; the others give the mean and the population's
    standard deviation, NaN where there is none.
    """
    metrics: Metrics = {}
    for name, stream in streams.items():
        values = per_response(stream, batch).cpu().double()  # Metal has no float64
        known = values[~values.isnan()]
        metrics[f"reward/{name}/mean"] = known.mean().item()
        metrics[f"reward/{name}/std"] = (known - known.mean()).square().mean().sqrt().item()
        metrics[f"reward/{name}/unknown"] = 1 - len(known) / len(values)
    return metrics


def per_response(stream: Stream, batch: Batch) -> Tensor:
    """[N]: the stream as one number a response: tokens of a reward added up, those of another kind averaged."""
    if stream.values.ndim == 1:
        return stream.values
    counts = batch.seq.mask & ~stream.values.isnan()
    total = torch.where(counts, stream.values, 0.0).sum(dim=1)
    number = counts.sum(dim=1)
    per_response = total if stream.kind == "reward" else total / number
    return torch.where(number > 0, per_response, torch.nan)
