"""How any model learns from one batch of rollouts: cut, prepare, step."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from reckon.types import Batch, Columns, Credit, Metrics, Model, Objective, Rng, Sparse


def update(
    model: Model, objective: Objective, batch: Batch, credit: Credit, rng: Rng, *, epochs: int = 1, minibatches: int = 1
) -> Metrics:
    """Takes `epochs` passes over a batch in `minibatches` optimizer steps each.

    Mini-batches are cut between groups, so that a prompt is stored and computed once. Rows that train nothing are left
    out before the objective sees them, and those whose loss it knows to have no gradient after it has counted them
    (all advantages 0, as in a group of equal rewards): nothing is computed for them. A mini-batch without a row that
    learns makes no step, since even a gradient of zero would move the weights through momentum and decay.

    Args:
        model: what learns.
        objective: prepared once per mini-batch, before the first step, so old and reference log-probs stay fixed.
        batch: N rollouts.
        credit: of the same N rows.
        rng: decides which groups share a mini-batch and the order of the steps.
        epochs: passes over the batch, at least 1.
        minibatches: steps a pass, at least 1; at most the number of groups are made.

    Returns:
        Means over the steps of what `model.step` reports, "tokens/trained" (their sum), "policy/steps" and
        "policy/silent", the share of the rows that train which was left out for want of a gradient.
    """
    trains = credit.mask.any(dim=1)
    groups = batch.seq.group[trains].unique()
    if minibatches > 1:
        groups = groups[torch.from_numpy(rng.child("minibatches").numpy().permutation(len(groups)))]
    prepared = []
    tokens = silent = 0
    for chunk in groups.tensor_split(min(minibatches, max(len(groups), 1))):
        rows = (torch.isin(batch.seq.group, chunk) & trains).nonzero().squeeze(1)
        if len(rows):
            part, due = replace(batch.take(rows), on_policy=epochs * minibatches == 1), credit.take(rows)
            heard = _heard(objective, part, due)
            if len(heard) and not part.on_policy and "logprobs" in objective.want:
                part = _rescored(model, part, heard)
            columns = objective.prepare(part, due)
            silent += len(rows) - len(heard)
            tokens += int(due.mask[heard].sum())
            if len(heard):
                prepared.append((part.seq.take(heard), _kept(columns, heard, due.mask)))
    sums: dict[str, float] = {}
    steps = 0
    for epoch in range(epochs):
        for i in rng.child("epoch", epoch).numpy().permutation(len(prepared)).tolist():
            seq, columns = prepared[i]
            steps += 1
            for name, value in model.step(seq, columns, objective, objective.want).items():
                sums[name] = sums.get(name, 0.0) + value
    metrics = {name: value / steps for name, value in sums.items()}
    metrics["policy/steps"] = float(steps)
    metrics["policy/silent"] = silent / max(int(trains.sum()), 1)
    metrics["tokens/trained"] = float(tokens * epochs)
    return metrics


def _heard(objective: Objective, batch: Batch, credit: Credit) -> Tensor:
    """[n] int64: the rows whose loss has a gradient, as far as the objective can tell."""
    rows = torch.arange(len(credit.mask), device=credit.mask.device)
    return rows[~objective.silent(batch, credit)] if isinstance(objective, Sparse) else rows


def _rescored(model: Model, batch: Batch, rows: Tensor) -> Batch:
    """The batch with log-probs of the learner's own in some rows, and 0 in the others.

    A ratio compares two passes of the learner; the sampler's own log-probs would add the rounding of another kernel to
    it. And passes over the very rows that are learned from: in bfloat16 other company in the pack rounds otherwise, by
    more than GSPO clips at.
    """
    found = model.outputs(batch.seq.take(rows)).logprobs
    assert found is not None
    logprobs = torch.zeros_like(batch.rollouts.logprobs)
    logprobs[rows] = found
    return replace(batch, rollouts=replace(batch.rollouts, logprobs=logprobs))


def _kept(columns: Columns, rows: Tensor, trains: Tensor) -> Columns:
    """The columns of some rows, where what is reported is a mean over the tokens of these that train."""
    share = trains.sum() / trains[rows].sum().clamp(min=1)
    return {
        name: column[rows] * share if name.rpartition("/")[2] == "share" else column[rows]
        for name, column in columns.items()
    }
