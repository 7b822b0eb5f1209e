"""SmolLM2's running sums as something to buy labels for: what a head reads of them, verdicts, and cheap labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from reckon.errors import MissingError
from reckon.labels import LabelData
from reckon.runs import Progress, Responses, label_responses, read_responses
from reckon.tasks import RunningSums

Floats: TypeAlias = NDArray[np.float64]

JUDGES = ("implicit", "outcome")  # columns of the responses; their labels are scores above the median
VOTE = "vote"  # a response is called right if its answer is the commonest of its problem's sixteen
TESTED = 60  # problems of 200
COMPONENTS = 64  # of the hidden states
_BALANCE, _SPLIT = 21, 22  # places of random numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """n responses, as many right ones as wrong ones."""

    hidden: Floats  # [n, 2 D] a model's last states: their mean over the response, and that at its last token
    shape: Floats  # [n, 4] tokens, lines, mean and least log-probability of a token when it was sampled
    right: Floats  # [n] the verdict, 0 or 1
    problem: NDArray[np.int64]  # [n]
    said: dict[str, Floats]  # [n] by source: scores of judges, 0 or 1 of the vote


@cache
def labeled_sums(path: str, model: str | None) -> Sums:
    """Reads the responses, and lets a model read them.

    Args:
        path: the table of results/signals-running-sums.
        model: whose hidden states a head is to read; None = none.

    Raises:
        MissingError: there is no such table.
    """
    if not Path(path).is_file():
        raise MissingError(
            f"there is no {path}. Run this study from the repository's folder, where the table is, or make the table "
            "with results/signals-running-sums/run.sh."
        )
    every = read_responses(path)
    right, wrong = np.flatnonzero(every.right == 1), np.flatnonzero(every.right == 0)
    few = np.random.default_rng(_BALANCE).permutation(wrong)[: len(right)]
    rows = np.sort(np.concatenate([right, few]))
    kept = every.take(rows)
    logprobs = [np.array(row) for row in kept.logprobs or ()]
    shape = [(len(one), text.count("\n"), one.mean(), one.min()) for one, text in zip(logprobs, kept.text, strict=True)]
    votes = agreement(every.group.tolist(), every.parsed)
    return Sums(
        hidden=np.empty((len(rows), 0)) if model is None else _hidden(kept, model),
        shape=np.array(shape, dtype=np.float64),
        right=kept.right,
        problem=every.group[rows],
        said={**{name: kept.streams[name].values for name in JUDGES}, VOTE: votes[rows]},
    )


def agreement(group: Sequence[int], answers: Sequence[str | None]) -> Floats:
    """1 for a response whose answer none of its group's is commoner than, 0 for another or without an answer: [N]."""
    counts: dict[int, Counter[str]] = {}
    for g, answer in zip(group, answers, strict=True):
        counts.setdefault(g, Counter()).update([] if answer is None else [answer])
    most = {g: max(found.values(), default=0) for g, found in counts.items()}
    return np.array(
        [float(a is not None and counts[g][a] == most[g]) for g, a in zip(group, answers, strict=True)],
        dtype=np.float64,
    )


def _hidden(responses: Responses, name: str) -> Floats:
    """A model's last hidden states of each response, problem by problem."""
    from reckon.models import load_model

    model, found = load_model(name), []
    posed = label_responses(responses, RunningSums(count=(5, 5), size=(1, 50)))  # the prompts as they were posed
    with Progress(len(posed.problems), unit="problem") as bar:
        for group in range(len(posed.problems)):
            part = posed.take(np.flatnonzero(posed.group == group))
            seq = model.tokenize_groups(
                part.problems, part.text, part.group.tolist(), [end != "length" for end in part.end]
            )
            states = model.outputs(seq, ("hidden",)).hidden
            assert states is not None
            for state, mask in zip(states.numpy(), seq.mask.numpy(), strict=True):
                found.append(np.concatenate([state[mask].mean(axis=0), state[mask][-1]]))
            bar.update(group + 1)
    return np.array(found, dtype=np.float64)


@cache
def _features(path: str, model: str | None, seed: int) -> tuple[Floats, NDArray[np.bool_]]:
    """What a head reads, [n, features], and whether a response's problem is one to test on, [n].

    Scales and components come from the pool alone, and no label is looked at.
    """
    sums = labeled_sums(path, model)
    problems = np.random.default_rng([seed, _SPLIT]).permutation(np.unique(sums.problem))
    tested = np.isin(sums.problem, problems[:TESTED])
    parts = [_scaled(sums.shape, ~tested), np.ones((len(tested), 1))]
    if model is not None:
        hidden = _scaled(sums.hidden, ~tested)
        axes = np.linalg.svd(hidden[~tested], full_matrices=False)[2][:COMPONENTS]
        first = hidden @ axes.T
        parts.append(first / np.sqrt(first[~tested].var(axis=0).mean()))
    return np.hstack(parts), tested


def sums_data(path: str, model: str | None, source: str, seed: int) -> LabelData:
    """The pool and the test problems of a seed's split, with the cheap labels of a source.

    Args:
        path: as of `labeled_sums`.
        model: as of `labeled_sums`.
        source: one of `JUDGES`, or `VOTE`.
        seed: of the split.
    """
    sums, (x, tested) = labeled_sums(path, model), _features(path, model, seed)
    said = sums.said[source]
    cheap = said if source == VOTE else (said > np.median(said[~tested])).astype(np.float64)
    return LabelData(
        x=x[~tested], weak=cheap[~tested], gold=sums.right[~tested], test_x=x[tested], test_y=sums.right[tested]
    )


def _scaled(x: Floats, rows: NDArray[np.bool_]) -> Floats:
    """Mean 0 and variance 1 over the rows."""
    return np.asarray((x - x[rows].mean(axis=0)) / (x[rows].std(axis=0) + 1e-9), dtype=np.float64)
