"""Labels of steps out of counts, confidences and outcomes. Pure functions on tensors, and rows for `fit`.

NaN = no label: behind a response's last step, or where no verdict is known.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reckon.annotate._records import Labels, PrefixLabel
from reckon.errors import InputError
from reckon.process import unbiased_best_of_k
from reckon.types import Json

LOST = 1e-5  # a confidence below this has no relative change worth the name


def hard_labels(correct: Tensor, n: Tensor) -> Tensor:
    """1 where any completion was right, else 0 (Math-Shepherd's hard estimation).

    Wang et al. 2023, arXiv:2312.08935, eq. 3. More completions make more labels 1: state n with every figure.

    Args:
        correct: right completions, any shape.
        n: completions with a known verdict, of the same shape.

    Returns:
        Float32 of that shape, NaN where n is 0.
    """
    _check_counts(correct, n)
    return torch.where(n > 0, (correct > 0).float(), torch.nan)


def soft_labels(correct: Tensor, n: Tensor) -> Tensor:
    """The share of right completions (Math-Shepherd's soft estimation).

    Wang et al. 2023, arXiv:2312.08935, eq. 4; arguments and result as `hard_labels`.
    """
    _check_counts(correct, n)
    return torch.where(n > 0, correct / n.clamp(min=1), torch.nan).float()


def best_of_k_labels(correct: Tensor, n: Tensor, k: int) -> Tensor:
    """Unbiased labels for the prover that keeps a right one of k completions: 1 - C(n - c, k) / C(n, k).

    Putting c / n into 1 - (1 - q)^k instead is biased low.

    Args:
        correct: c, right completions, any shape.
        n: completions with a known verdict, of the same shape.
        k: at least 1.

    Returns:
        Float32 of that shape, NaN where n is below k: from fewer than k completions there is no unbiased label.
    """
    _check_counts(correct, n)
    enough = n >= max(k, 1)
    labels = unbiased_best_of_k(torch.where(enough, correct, 0), torch.where(enough, n, max(k, 1)), k)
    return torch.where(enough, labels, torch.nan).float()


def confidence_labels(
    confidence: Tensor, *, threshold: float = -0.5, after: Literal["wrong", "own"] = "wrong"
) -> Tensor:
    """Labels of steps from how a verifier's confidence changes at them (AutoPSV; Lu et al. 2024, arXiv:2405.16802).

    A step is wrong if the confidence changes by less than `threshold` of what it was before: by default, if more than
    half of it is lost. The released code compares the first and the last token of a step; here, as the paper has it,
    the ends of two steps are compared. No label of a step and no completion is needed, only a verifier trained on
    outcomes; what it does not see is not labeled.

    Args:
        confidence: [N, H + 1] float in [0, 1], column 0 before the first step (NaN = not asked: the first step is then
            right), column h after step h, NaN behind a response's last step.
        threshold: in (-1, 0).
        after: the label of steps behind the first wrong one: "wrong", as in the released code, or their "own".

    Returns:
        [N, H] float32, 1 right and 0 wrong, NaN behind the last step. A confidence below 1e-5 is lost: its next step is
        wrong.
    """
    if not -1 < threshold < 0:
        raise InputError(f"`threshold` is {threshold}; it is a loss of confidence, so it must lie in (-1, 0).")
    if after not in ("wrong", "own"):
        raise InputError(f"`after` is {after!r}; it must be wrong or own.")
    if bool(((confidence < 0) | (confidence > 1)).any()):
        raise InputError("a confidence lies outside [0, 1]; a logit goes through a sigmoid first.")
    before, now = confidence[:, :-1], confidence[:, 1:]
    lost = (before < LOST) | ((now - before) / before.clamp(min=LOST) < threshold)  # False where NaN
    if after == "wrong":
        lost = lost.long().cumsum(dim=1) > 0
    return torch.where(now.isnan(), torch.nan, (~lost).float())


def outcome_labels(outcome: Tensor, count: Tensor) -> Tensor:
    """The outcome of a response as the label of each of its steps: cheap, and a strong baseline.

    Args:
        outcome: [N] float in [0, 1]; NaN = unknown.
        count: [N] int64, steps of each response.

    Returns:
        [N, H] float32, NaN behind the last step.
    """
    width = int(count.max()) if len(count) else 0
    inside = torch.arange(width, device=count.device) < count[:, None]
    return torch.where(inside, outcome[:, None].float(), torch.nan)


def step_rows(labels: Labels, kind: Literal["hard", "soft"] = "soft") -> list[dict[str, Json]]:
    """One row a trace in TRL's columns for stepwise supervision: `prompt`, `completions` (the steps), `labels`.

    The label of a step is the value after it: true if any completion was right ("hard"), or their share ("soft"). A
    trace with an unknown label, or without a step, gives no row. `truncated` is true where the row does not end as a
    response ends: at the limit, or at a pit.
    """
    if kind not in ("hard", "soft"):
        raise InputError(f"`kind` is {kind!r}; it must be hard or soft.")
    traces: dict[tuple[str, int], list[PrefixLabel]] = {}
    for record in labels:
        traces.setdefault((record.source, record.trace), []).append(record)
    rows: list[dict[str, Json]] = []
    for records in traces.values():
        steps = sorted((record for record in records if record.step), key=lambda record: record.step)
        if not steps or any(record.n_mc == 0 for record in steps):
            continue
        problem = steps[-1].problem
        values: list[Json] = [record.n_correct > 0 if kind == "hard" else record.q_hat for record in steps]
        rows.append(
            {
                "id": problem.id,
                "prompt": problem.prompt
                if isinstance(problem.prompt, str)
                else [dict(turn) for turn in problem.prompt],
                "answer": problem.answer,
                "completions": list(steps[-1].prefix),
                "labels": values,
                "truncated": not (steps[-1].ended and steps[-1].step == steps[-1].steps),
            }
        )
    return rows


def _check_counts(correct: Tensor, n: Tensor) -> None:
    if correct.shape != n.shape:
        raise ValueError(f"correct and n must be of one shape, not {tuple(correct.shape)} and {tuple(n.shape)}")
    if bool(((correct < 0) | (correct > n)).any()):
        raise ValueError("correct must lie in [0, n]")
