"""How any model learns from one batch of rollouts: cut, prepare, step."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from reckon.types import Batch, Columns, Credit, Metrics, Model, Objective, Rng, Sequences, Sparse


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
            part = replace(batch.take(rows), on_policy=epochs * minibatches == 1)
            if not part.on_policy and "logprobs" in objective.want:
                # A ratio compares two passes of the learner; the sampler's own log-probs would add the rounding of
                # another kernel to it. And passes over these very rows: in bfloat16 other company in the pack rounds
                # otherwise, by more than GSPO clips at.
                logprobs = model.outputs(part.seq).logprobs
                assert logprobs is not None
                part = replace(part, rollouts=replace(part.rollouts, logprobs=logprobs))
            due = credit.take(rows)
            columns = objective.prepare(part, due)
            seq, columns, trained = _heard(objective, part.seq, columns, due.mask)
            silent += len(rows) - len(seq.tokens)
            tokens += trained
            if len(seq.tokens):
                prepared.append((seq, columns))
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


def _heard(objective: Objective, seq: Sequences, columns: Columns, trains: Tensor) -> tuple[Sequences, Columns, int]:
    """The rows whose loss has a gradient, as far as the objective can tell, and how many of their tokens train."""
    if not isinstance(objective, Sparse) or not (silent := objective.silent(columns)).any():
        return seq, columns, int(trains.sum())
    kept = (~silent).nonzero().squeeze(1)
    left = {name: column[kept] for name, column in columns.items()}
    tokens = int(trains[kept].sum())
    for name, column in left.items():
        if name.rpartition("/")[2] == "share":
            left[name] = column * (trains.sum() / max(tokens, 1))
    return seq.take(kept), left, tokens
