"""How any model learns from one batch of rollouts: cut, prepare, step."""

from __future__ import annotations

from dataclasses import replace

import torch

from reckon.types import Batch, Credit, Metrics, Model, Objective, Rng


def update(
    model: Model, objective: Objective, batch: Batch, credit: Credit, rng: Rng, *, epochs: int = 1, minibatches: int = 1
) -> Metrics:
    """Takes `epochs` passes over a batch in `minibatches` optimizer steps each.

    Mini-batches are cut between groups, so that a prompt is stored and computed once. Rows that train nothing are left
    out before the objective sees them; a mini-batch in which no row trains makes no step, since even a gradient of zero
    would move the weights through momentum and decay.

    Args:
        model: what learns.
        objective: prepared once per mini-batch, before the first step, so old and reference log-probs stay fixed.
        batch: N rollouts.
        credit: of the same N rows.
        rng: decides which groups share a mini-batch and the order of the steps.
        epochs: passes over the batch, at least 1.
        minibatches: steps a pass, at least 1; at most the number of groups are made.

    Returns:
        Means over the steps of what `model.step` reports, "tokens/trained" (their sum) and "policy/steps".
    """
    trains = credit.mask.any(dim=1)
    groups = batch.seq.group[trains].unique()
    if minibatches > 1:
        groups = groups[torch.from_numpy(rng.child("minibatches").numpy().permutation(len(groups)))]
    prepared = []
    for chunk in groups.tensor_split(min(minibatches, max(len(groups), 1))):
        rows = (torch.isin(batch.seq.group, chunk) & trains).nonzero().squeeze(1)
        if len(rows):
            part = replace(batch.take(rows), on_policy=epochs * minibatches == 1)
            if not part.on_policy:
                # A ratio compares two passes of the learner; the sampler's own log-probs would add the rounding of
                # another kernel to it. And passes over these very rows: in bfloat16 other company in the pack rounds
                # otherwise, by more than GSPO clips at.
                logprobs = model.outputs(part.seq).logprobs
                assert logprobs is not None
                part = replace(part, rollouts=replace(part.rollouts, logprobs=logprobs))
            prepared.append((part.seq, objective.prepare(part, credit.take(rows))))
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
    metrics["tokens/trained"] = float(credit.mask.sum()) * epochs
    return metrics
