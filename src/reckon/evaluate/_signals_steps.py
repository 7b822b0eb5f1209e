"""Whether a signal of tokens or steps knows where a response goes wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reckon.errors import InputError
from reckon.evaluate._first_error import CLEAN, find_threshold, first_error, harmonic_mean
from reckon.evaluate._signals_ranking import Pairs, auc, count_pairs
from reckon.runs import Responses, Signal
from reckon.types import Kind, Rng, Step

Reading = Literal["single", "accumulated"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StepView:
    """How well a signal tells right steps from wrong ones, and finds the first wrong one."""

    # Each step's own score, or what is summed up to its end: of a judge of steps, or of advantages, their lowest
    reading: Reading
    pairs: Pairs  # of a right and a wrong step of one response
    pooled: float  # AUC over all steps at once
    responses: int
    steps: int  # with a known truth
    hits: np.ndarray  # [N] float64: 1 where the first wrong step (or that there is none) was found, NaN = not judged
    wrong: np.ndarray  # [N] bool, whether a step is wrong

    @property
    def on_wrong(self) -> float:
        """Share of responses with a wrong step whose first one was found."""
        return _mean(self.hits[self.wrong])

    @property
    def on_clean(self) -> float:
        """Share of responses without a wrong step that were left alone."""
        return _mean(self.hits[~self.wrong])

    @property
    def f1(self) -> float:
        """Harmonic mean of the two (ProcessBench, Zheng et al. 2024, arXiv:2412.06559, section 3); NaN if one is."""
        return harmonic_mean(self.on_wrong, self.on_clean)


def step_scores(
    pieces: Sequence[str],
    values: np.ndarray,
    steps: Sequence[Step],
    reading: Reading = "single",
    kind: Kind = "reward",
) -> np.ndarray:
    """Sums of a signal of tokens over each step, or over everything up to its end.

    An advantage or a weight stands on every token of its step, so that a sum would count the step's length: of these it
    is the mean over the step, and up to its end the lowest so far.

    A token belongs to the step in which its first character stands; one that adds no text (the end token) to the step
    of the token before. Text between steps belongs to none, and counts in what is accumulated.

    Args:
        pieces: the text each of T tokens added.
        values: [T] float64; a NaN counts nothing.
        steps: H stretches of the joined text.
        reading: which of the two.
        kind: what the values are.

    Returns:
        [H] float64; NaN for a step without tokens.

    Raises:
        InputError: there are not as many pieces as values.
    """
    if len(pieces) != len(values):
        raise InputError(f"step_scores: {len(pieces)} pieces and {len(values)} values; give one each a token.")
    sizes = np.array([len(piece) for piece in pieces], dtype=np.int64)
    first = np.cumsum(sizes) - sizes
    # An empty piece begins where the next one does, which would be one step too late: it goes with the one before.
    place = first[np.maximum(np.maximum.accumulate(np.where(sizes > 0, np.arange(len(sizes)), -1)), 0)]
    known = np.where(np.isnan(values), 0.0, values)
    found = np.full(len(steps), np.nan)
    for h, step in enumerate(steps):
        inside = (place >= step.start) & (place < step.end)
        if not inside.any():
            continue
        if kind != "reward":
            found[h] = known[inside].sum() / max(1, np.count_nonzero(~np.isnan(values[inside])))
        else:
            found[h] = known[inside].sum() if reading == "single" else known[: np.flatnonzero(inside)[-1] + 1].sum()
    return np.fmin.accumulate(found) if kind != "reward" and reading == "accumulated" else found


def step_view(responses: Responses, signal: Signal, reading: Reading, rng: Rng) -> StepView | None:
    """A signal's view of the steps; None where it has none, or no step's truth is known.

    The threshold of the first error is chosen on one half of the problems and used on the other, and the other way
    round (implicit PRM, arXiv:2412.01981, section 5, thresholds a held-out set).
    """
    if responses.steps is None:
        return None
    scores = [_scores(responses, signal, i, reading) for i in range(len(responses.text))]
    truth = [_truth(row) for row in responses.steps]
    judged = [i for i, s in enumerate(scores) if s is not None and np.isfinite(truth[i]).any()]
    if not judged:
        return None
    rows = np.concatenate([np.full(len(truth[i]), i) for i in judged])
    flat, valid = np.concatenate([scores[i] for i in judged]), np.concatenate([truth[i] for i in judged])
    pairs = count_pairs(flat, valid, rows, len(responses.text))
    wrong = np.array([bool((row == 0).any()) for row in truth])
    return StepView(
        reading=reading,
        pairs=pairs,
        pooled=auc(flat, valid),
        responses=len(judged),
        steps=int(np.isfinite(valid).sum()),
        hits=_hits(scores, truth, judged, responses.units[responses.group], rng),
        wrong=wrong,
    )


def _scores(responses: Responses, signal: Signal, row: int, reading: Reading) -> np.ndarray | None:
    steps = responses.steps[row] if responses.steps is not None else None
    if steps is None:
        return None
    if signal.steps is not None:
        own = signal.steps[row]
        if own is None or len(own) != len(steps):
            return None
        return own if reading == "single" else np.minimum.accumulate(own)
    tokens = None if signal.tokens is None else signal.tokens[row]
    if tokens is None or responses.pieces is None:
        return None
    pieces = responses.pieces[row]
    return step_scores(pieces, tokens, steps, reading, signal.kind) if len(pieces) == len(tokens) else None


def _truth(steps: Sequence[Step] | None) -> np.ndarray:
    return np.array([math.nan if step.valid is None else float(step.valid) for step in steps or ()])


def _hits(
    scores: Sequence[np.ndarray | None], truth: Sequence[np.ndarray], judged: Sequence[int], unit: np.ndarray, rng: Rng
) -> np.ndarray:
    """[N]: whether the first error was found, by a threshold fitted on the other half of the problems."""
    rows = np.array(judged)
    names = np.unique(unit[rows])
    half = rng.numpy().permutation(len(names)) % 2
    side = half[np.searchsorted(names, unit[rows])]
    own = _padded([row for i in judged if (row := scores[i]) is not None])  # a row that is judged has scores
    first = first_error(_padded([truth[i] for i in judged]), 0.5)
    hits = np.full(len(scores), np.nan)
    for part in (0, 1):
        here, fit = side == part, side != part
        if fit.any():
            hits[rows[here]] = first_error(own[here], _threshold(own[fit], first[fit])) == first[here]
    return hits


def _threshold(scores: np.ndarray, first: np.ndarray) -> float:
    """The threshold of the best F1 for scores [n, H]; one that names no step where that cannot be told."""
    clean = first == CLEAN
    return find_threshold(scores, first) if np.isfinite(scores).any() and clean.any() and not clean.all() else -math.inf


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """[n, H] of rows of different lengths, NaN behind them."""
    out = np.full((len(rows), max(len(row) for row in rows)), np.nan)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
