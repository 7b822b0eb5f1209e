"""How near a learned verifier's values and step advantages come to the exact ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from reckon.evaluate import spearman
from reckon.process import step_advantages, with_outcome
from reckon.studies._planted import END, FOUND, LENGTH, states
from reckon.types import Batch, Reward, Rollouts, Stream


class Values(Protocol):
    """What says after each token how likely success is."""

    def values(self, tokens: Tensor) -> Tensor:
        """[n, T + 1] for tokens [n, T]."""
        ...


def quality(verifier: Values, v: Tensor, rollouts: Rollouts) -> dict[str, float]:
    """Errors and rank correlations on the prefixes and steps of some responses.

    A value counts where the response could still go on. An advantage counts at every step, with the verdict as the last
    value on both sides. Low and high are the exact value below 0.5 and from there on: of the prefix, or after the step.
    A prefix is high here if it is right already, so all exact values there are 1 and have no ranks.

    Args:
        verifier: is asked.
        v: [LENGTH + 1, 6] float64, the prover's exact values.
        rollouts: from their first token on.

    Returns:
        "values, low: error" (mean squared), "... rank", "... share" (the error as a share of the exact ones' variance),
        the same of "advantages" and of "high", and of the steps taken while nothing was right yet: "advantages, rank".
    """
    tokens, size = rollouts.seq.tokens, rollouts.seq.mask.sum(dim=1)
    k, at = states(tokens), torch.arange(tokens.shape[1] + 1)
    exact = torch.where(k == FOUND, 1.0, v[at, k])
    outcome = (k.gather(1, size[:, None])[:, 0] == FOUND).double()
    ended = (tokens.gather(1, (size - 1)[:, None])[:, 0] == END).long()
    open_at = (at <= (size - ended)[:, None]) & (at < LENGTH)
    inside = at <= size[:, None]
    said = verifier.values(tokens).double()
    gains = [step_advantages(with_outcome(torch.where(inside, x, torch.nan), outcome)) for x in (said, exact)]
    after = with_outcome(torch.where(inside, exact, torch.nan), outcome)[:, 1:]
    steps = inside[:, 1:]
    found: dict[str, float] = {}
    for name, x, y, worth, here in (
        ("values", said, exact, exact, open_at),
        ("advantages", gains[0], gains[1], after, steps),
    ):
        for bucket, rows in (("low", here & (worth < 0.5)), ("high", here & (worth >= 0.5))):
            error, variance = (x[rows] - y[rows]).square().mean(), (y[rows] - y[rows].mean()).square().mean()
            found |= {
                f"{name}, {bucket}: error": float(error),
                f"{name}, {bucket}: share": float(error / variance),
                f"{name}, {bucket}: rank": _rank(x[rows], y[rows]),
            }
    undecided = steps & (k[:, :-1] != FOUND)
    return found | {"advantages, rank": _rank(gains[0][undecided], gains[1][undecided])}


def agreement(batch: Batch, streams: Mapping[str, Stream], exact: Reward) -> float:
    """Rank correlation of a judge's step advantages with the exact ones, on a policy's own tokens not yet right."""
    rows = batch.seq.mask & (states(batch.seq.tokens)[:, :-1] != FOUND)
    return _rank(streams["step"].values[rows], exact.score(batch)["step"].values[rows])


def _rank(x: Tensor, y: Tensor) -> float:
    return spearman(x.double().numpy(), y.double().numpy())
