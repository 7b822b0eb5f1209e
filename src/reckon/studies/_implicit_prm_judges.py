"""Learners of the study implicit-prm-transformer, and what their scores are good for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from reckon.annotate import Labels, step_rows
from reckon.evaluate import auc, find_threshold, first_error, first_error_f1
from reckon.fit import (
    KTO,
    Example,
    FitLoss,
    ImplicitCE,
    OutcomeBCE,
    OutcomeSteps,
    Plan,
    Preference,
    StepLabels,
    Unpaired,
    balanced,
    by_problem,
    by_prompt,
    fit,
    pairs,
    read_examples,
    shuffled,
)
from reckon.models import LanguageModel, Optimization
from reckon.search import expected_best_of_n, expected_vote
from reckon.studies._implicit_prm_texts import CANDIDATES, SPLITTER, World, Written, first_rows
from reckon.types import End, Rng

BETA = 0.05
RESPONSES = 64  # to a step of an optimizer; pairs are two
HEAD = 10  # times the rate of the weights: a head begins at zero
WARMUP = 5  # steps
PICKED = (2, 4, 8, 16)  # candidates a judge chooses among where its steps are decided
CLEAN = -1  # no step is wrong
DRAWS = 16  # subsets of the candidates that a vote of fewer than all is taken over

Method: TypeAlias = Literal["ce", "dpo", "nca", "kto", "orm", "copied", "soft"]
Balance: TypeAlias = Literal["none", "dataset"]
PAIRED: tuple[Method, ...] = ("dpo", "nca")
IMPLICIT: tuple[Method, ...] = ("ce", "dpo", "nca", "kto")


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A judge as it was when it was best."""

    model: LanguageModel
    steps: int  # that it had learned for then; 0 = not at all
    dev: float  # how well it then chose among the dev responses; NaN where it has learned nothing


def learn(
    world: World,
    method: Method,
    rows: Sequence[Example],
    looks: Sequence[int],
    lr: float,
    score: Callable[[LanguageModel], ArrayLike],
) -> Learned:
    """A judge that begins at the reference, learns, and is kept as it was at its best look on the dev responses.

    Without rows, as where there is no pair, it stays what it was.

    Args:
        world: the reference and the dev responses.
        method: the loss.
        rows: what is learned from. The rows of a prompt come together, so that it is computed once; pairs, of which a
            prompt may have as many as a mini-batch, do not.
        looks: after how many steps it is looked at, ascending; there are no more steps than the last.
        lr: of the weights.
        score: what a judge says of each of the dev responses.
    """
    model = LanguageModel(
        copy.deepcopy(world.start.network),
        world.start.tokenizer,
        sampling=world.start.sampling,
        optimizer=Optimization(lr=lr, warmup=WARMUP),
        dtype="float32",
        device="cpu",
        tokens_per_batch=world.start.tokens_per_batch,
        value_head=method not in IMPLICIT,
        head_lr=None if method in IMPLICIT else HEAD * lr,
    )
    if not rows or not looks:
        return Learned(model=model, steps=0, dev=math.nan)
    batch, order = (RESPONSES // 2, shuffled) if method in PAIRED else (RESPONSES, by_prompt)
    rng, places = Rng((world.seed, "learn")), list[int]()
    while len(places) < looks[-1] * batch:
        places += order(rows, rng.child(len(places)))
    best, steps, kept = -math.inf, 0, model.state_dict()
    for begun, until in zip((0, *looks), looks, strict=False):
        part = places[begun * batch : until * batch]
        if not fit(model, rows, _loss(world, method), Plan(batch=batch, show="nothing"), order=_given(part)):
            raise KeyboardInterrupt  # `fit` stops in good order; half a judge must not pass for one
        found = picking(score(model), world.dev)
        if found > best:
            best, steps, kept = found, until, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return Learned(model=model, steps=steps, dev=best)


def _given(places: Sequence[int]) -> Callable[[Sequence[Example], Rng], Sequence[int]]:
    return lambda _rows, _rng: places


def _loss(world: World, method: Method) -> FitLoss:
    match method:
        case "ce":
            return ImplicitCE(reference=world.reference, beta=BETA)
        case "dpo" | "nca":
            return Preference(kind=method, reference=world.reference, beta=BETA)
        case "kto":
            return KTO(reference=world.reference, beta=BETA)
        case "orm":
            return OutcomeBCE()
        case "copied":
            return OutcomeSteps(splitter=SPLITTER)
        case "soft":
            return StepLabels()


def outcome_rows(
    world: World, method: Method, prompts: int, responses: int, balance: Balance = "none"
) -> Sequence[Example]:
    """The first responses to the first prompts with their verdicts; losses on pairs get all of right and wrong."""
    batch = world.train.take(first_rows(prompts, responses))
    rows = [
        Unpaired(
            problem=batch.rollouts.problem(row),
            text=text,
            label=float(batch.outcome[row]),
            ended=int(batch.rollouts.end[row]) != End.LENGTH,
        )
        for row, text in enumerate(batch.rollouts.text)
    ]
    if method not in PAIRED:
        return balanced(rows, balance, Rng((world.seed, "balance")))
    return pairs(by_problem(rows), Rng((world.seed, "pairs")), higher_is_better=True)


def labeled_rows(labels: Labels, traces: int) -> Sequence[Example]:
    """The first responses, each step labeled with the share of its completions that are right."""
    records = tuple(label for label in labels if label.trace < traces)
    return read_examples(step_rows(replace(labels, records=records), "soft"), "stepwise", separator="").rows


def choosing(scores: ArrayLike, written: Written, sizes: Sequence[int]) -> dict[str, float]:
    """Share of prompts whose best-scored response among n is right, over all n-subsets of the candidates."""
    values, groups = np.asarray(scores, dtype=np.float64), _by_prompt(written)
    return {
        f"best/{n}": float(np.mean([expected_best_of_n(values[rows], written.right[rows], n) for rows in groups]))
        for n in sizes
    }


def picking(scores: ArrayLike, written: Written, sizes: Sequence[int] = PICKED) -> float:
    """The mean of `choosing` over these sizes, which varies less by luck than the largest alone."""
    return float(np.mean(list(choosing(scores, written, sizes).values())))


def voting(weights: ArrayLike | None, written: Written, sizes: Sequence[int] = (CANDIDATES,)) -> dict[str, float]:
    """Share of prompts whose answer with the largest sum of weights among n responses is right, over n-subsets."""
    groups = _by_prompt(written)
    heavy = np.ones(len(written.answers)) if weights is None else np.asarray(weights, dtype=np.float64)
    found = {}
    for n in sizes:
        shares = [
            expected_vote(
                [written.answers[row] for row in rows], written.right[rows], n, Rng((g, "vote", n)), heavy[rows], DRAWS
            )
            for g, rows in enumerate(groups)
        ]
        found[f"vote/{n}"] = float(np.mean(shares))
    return found


def step_auc(scores: torch.Tensor, written: Written) -> float:
    """The chance that a valid step scores above one that is not, over all steps at once, ties by half."""
    return auc(_of_known(scores, written).ravel(), written.valid.ravel())


def found_errors(held: torch.Tensor, dev: Written, asked: torch.Tensor, test: Written, accumulate: bool) -> float:
    """F1 of the first wrong step on `test`, with the threshold that is best on `dev`; NaN where `dev` has none."""
    if not (dev.first == CLEAN).any() or (dev.first == CLEAN).all():
        return math.nan
    threshold = find_threshold(_of_known(held, dev), dev.first, accumulate)
    return first_error_f1(first_error(_of_known(asked, test), threshold, accumulate), test.first).f1


def _of_known(scores: torch.Tensor, written: Written) -> NDArray[np.float64]:
    """[M, H] scores [N, H] of the responses whose steps can all be judged."""
    found: NDArray[np.float64] = scores.double().numpy()[written.known, : written.valid.shape[1]]
    return found


def _by_prompt(written: Written) -> list[NDArray[np.int64]]:
    group = written.batch.seq.group.numpy()
    return np.split(np.arange(len(group)), np.flatnonzero(np.diff(group)) + 1)
