"""The losses of pairs through prepare, the model and their call, against the same thing written out row by row."""

from __future__ import annotations

import pytest
import torch
from loss_values import check, ids, logprobs, moved, ratio, value
from torch.nn.functional import logsigmoid

from reckon.fit import CachedReference, Preference


@pytest.mark.parametrize("kind", ["dpo", "cdpo", "dpo_norm", "ipo", "nca", "simpo"])
def test_pair_losses(make, paired, kind):
    model, reference = moved(make)
    losses = []
    for row in paired:
        (won, n), (lost, m) = (
            (ratio(model, reference, row.problem, text, ended), len(ids(model, row.problem, text, ended)[1]))
            for text, ended in zip((row.chosen, row.rejected), row.ended, strict=True)
        )
        h = won - lost
        losses.append(
            {
                "dpo": lambda h=h: -logsigmoid(0.1 * h),
                "cdpo": lambda h=h: -0.9 * logsigmoid(0.1 * h) - 0.1 * logsigmoid(-0.1 * h),
                "dpo_norm": lambda a=won / n, b=lost / m: -logsigmoid(5 * (a - b)),
                "ipo": lambda h=h: (h - 5.0) ** 2,  # 1 / (2 * 0.1)
                "nca": lambda a=0.1 * won, b=0.1 * lost: -logsigmoid(a) - 0.5 * logsigmoid(-a) - 0.5 * logsigmoid(-b),
                "simpo": lambda row=row: (
                    -logsigmoid(
                        2 * logprobs(model, row.problem, row.chosen, row.ended[0]).mean()
                        - 2 * logprobs(model, row.problem, row.rejected, row.ended[1]).mean()
                        - 0.6
                    )
                ),
            }[kind]()
        )
    cached = CachedReference(reference)
    loss = {
        "dpo": Preference(reference=cached),
        "cdpo": Preference(reference=cached, smoothing=0.1),
        "dpo_norm": Preference(kind="dpo_norm", reference=cached, beta=5.0),
        "ipo": Preference(kind="ipo", reference=cached),
        "nca": Preference(kind="nca", reference=cached),
        "simpo": Preference(kind="simpo", beta=2.0, gamma=0.6),
    }[kind]
    check(value(model, loss, paired), torch.stack(losses).mean())


@pytest.mark.parametrize("kind", ["dpo", "dpo_norm", "simpo"])
def test_what_is_told_of_pairs_are_the_rewards_that_the_loss_compares(make, paired, kind):
    model, reference = moved(make)
    rewards = []
    for row in paired:
        for text, ended in zip((row.chosen, row.rejected), row.ended, strict=True):
            own = logprobs(model, row.problem, text, ended)
            total = own.sum() if kind == "simpo" else ratio(model, reference, row.problem, text, ended)
            rewards.append(2 * float(total.detach()) / (1 if kind == "dpo" else len(own)))
    won, lost = torch.tensor(rewards[0::2]), torch.tensor(rewards[1::2])
    loss = Preference(kind=kind, reference=None if kind == "simpo" else CachedReference(reference), beta=2.0)
    seq, columns = loss.prepare(model, paired)
    told = loss.diagnostics(model.outputs(seq, loss.want), columns)
    check(told["chosen"], won.mean())
    check(told["rejected"], lost.mean())
    check(told["margin"], (won - lost).mean())
    check(told["accuracy"], (won > lost).float().mean())


def test_pairs_of_one_prompt_stay_pairs_and_share_it(make, paired):
    """Rows 0 and 2 answer one prompt: four rows in a group, chosen and rejected in turn."""
    seq, _ = Preference().prepare(make(), paired)
    assert seq.group.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert seq.mask.sum(dim=1).tolist() == [2, 11, 4, 2, 3, 1, 12, 3]  # 2. / 3 and more. / two. / 9. / 4n5 / . / ...
