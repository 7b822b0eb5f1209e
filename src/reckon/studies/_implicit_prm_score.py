"""Learners and scores of the study implicit-prm: tables of 900 cells, and what their scores are good for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from reckon.evaluate import find_threshold, first_error, first_error_f1
from reckon.preferences import dpo, kto, kto_kl, nca, outcome_ce, step_ce
from reckon.search import best_of_n, vote
from reckon.studies._implicit_prm_world import Traces
from reckon.types import Rng

BETA, LR = 0.05, 0.05


def fit_implicit(traces: Traces, start: Tensor, loss: str, steps: int, prompts: int, rng: Rng) -> tuple[Tensor, Tensor]:
    """A table that begins at the reference's, `start`, and learns from outcomes alone.

    Args:
        traces: what it learns from.
        start: [10, 9, 10] float64, the reference's log-probs.
        loss: "ce", "kto", "dpo" or "nca".
        steps: of Adam.
        prompts: to a step, each with all of its responses.
        rng: names the order of prompts.

    Returns:
        Log-probs and log-ratios of the 900 cells.
    """
    logits = start.clone().requires_grad_()
    # Through the same function as the policy's, so that at the start the log-ratios are 0 and not rounding: rounding
    # is not the same for right and wrong digits, and ranks them.
    ref = start.log_softmax(-1).flatten()
    cell, right = traces.cell, traces.right.to(start.dtype)
    generator = torch.Generator().manual_seed(rng.child("shuffle").integer())

    def batch_loss(rows: Tensor) -> Tensor | None:
        ratio_of = logits.log_softmax(-1).flatten() - ref
        if loss == "kto":  # neighbors answer the same prompt, so shuffle before shifting
            rows = rows[torch.randperm(len(rows), generator=generator)]
        ratio = ratio_of[cell[rows]].sum(dim=1)
        if loss == "ce":
            return outcome_ce(BETA * ratio, right[rows]).mean()
        if loss == "kto":
            mismatched = Traces(
                start=traces.start[rows],
                operand=traces.operand[rows],
                written=traces.written[rows].roll(-1, dims=0),
                per=1,
            )
            kl = kto_kl(ratio_of[mismatched.cell].sum(dim=1))
            return kto(ratio, right[rows], kl, BETA).mean()
        winners, losers = cross_pairs(right[rows].bool(), traces.per)
        if not len(winners):
            return None
        return (dpo if loss == "dpo" else nca)(ratio[winners], ratio[losers], BETA).mean()

    _descend(logits, batch_loss, _batches(traces, steps, prompts, rng))
    logprobs = logits.detach().log_softmax(-1).flatten()
    return logprobs, logprobs - ref


def fit_steps(traces: Traces, targets: Tensor, steps: int, prompts: int, rng: Rng, base: bool = False) -> Tensor:
    """[900] float64: a logit for each cell, learned from a target for every step.

    Logits begin at 0, or with `base` at the mean target's, so that a cell never seen does not pass for a good one.
    """
    begin = targets.mean().logit() if base else torch.zeros((), dtype=torch.float64)
    weight = begin.repeat(900).requires_grad_()
    cell, every = traces.cell, torch.ones_like(targets, dtype=torch.bool)

    def batch_loss(rows: Tensor) -> Tensor:
        return step_ce(weight[cell[rows]], targets[rows], every[rows]).mean()

    _descend(weight, batch_loss, _batches(traces, steps, prompts, rng))
    return weight.detach()


def cross_pairs(right: Tensor, per: int) -> tuple[Tensor, Tensor]:
    """Rows of every right and every wrong response to the same prompt; prompts without both give none."""
    of_prompt = right.reshape(-1, per)
    prompt, winner, loser = (of_prompt[:, :, None] & ~of_prompt[:, None, :]).nonzero(as_tuple=True)
    return prompt * per + winner, prompt * per + loser


def _batches(traces: Traces, steps: int, prompts: int, rng: Rng) -> Iterator[Tensor]:
    """Rows of each step: whole prompts, pass after pass over all of them in a new order."""
    generator = rng.child("batches").numpy()
    every = len(traces.start) // traces.per
    queue: list[int] = []
    for _ in range(steps):
        while len(queue) < prompts:
            queue += generator.permutation(every).tolist()
        chosen, queue = queue[:prompts], queue[prompts:]
        yield (torch.tensor(chosen)[:, None] * traces.per + torch.arange(traces.per)).flatten()


def _descend(parameter: Tensor, loss: Callable[[Tensor], Tensor | None], batches: Iterator[Tensor]) -> None:
    adam = torch.optim.Adam([parameter], lr=LR)
    for rows in batches:
        value = loss(rows)
        if value is None:  # no pair: a step would still move along Adam's momentum
            continue
        adam.zero_grad()
        value.backward()
        adam.step()


def area(scores: Tensor, good: Tensor) -> float:
    """The chance that a good one scores above a bad one, ties by half (area under the ROC curve)."""
    _, place, count = np.unique(scores.numpy(), return_inverse=True, return_counts=True)
    rank = (count.cumsum() - (count - 1) / 2)[place.reshape(-1)]
    goods = good.numpy().reshape(-1)
    n, m = int(goods.sum()), int((~goods).sum())
    return float((rank[goods].sum() - n * (n + 1) / 2) / (n * m))


def best_of(scores: Tensor, traces: Traces, n: int) -> float:
    """Share of prompts whose best among the first n candidates is right."""
    rows = zip(_by_prompt(scores, traces), _by_prompt(traces.right, traces), strict=True)
    return float(np.mean([right[best_of_n(score[:n])] for score, right in rows]))


def voted(weights: np.ndarray | None, traces: Traces, n: int) -> float:
    """Share of prompts whose answer with the largest sum of weights among the first n candidates is right."""
    answers = _by_prompt(traces.written[:, -1], traces).astype(str)
    wanted = _by_prompt((traces.start + traces.operand.sum(dim=1)) % 10, traces)[:, 0].astype(str)
    given = [None] * len(answers) if weights is None else list(weights.reshape(len(answers), -1)[:, :n])
    chosen = [vote(answer[:n].tolist(), weight) for answer, weight in zip(answers, given, strict=True)]
    return float(np.mean(np.array(chosen) == wanted))


def found_errors(held: Tensor, dev: Traces, asked: Tensor, test: Traces, accumulate: bool) -> float:
    """F1 of the first wrong step on `test`, with the threshold that is best on `dev`."""
    truth = [first_error(traces.valid.float(), 0.5) for traces in (dev, test)]
    threshold = find_threshold(held, truth[0], accumulate)
    return first_error_f1(first_error(asked, threshold, accumulate), truth[1]).f1


def _by_prompt(values: Tensor, traces: Traces) -> np.ndarray:
    rows: np.ndarray = values.reshape(-1, traces.per).numpy()
    return rows
