"""What choosing among N responses buys: one row a way to choose, one column an N. Only NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reckon.errors import InputError
from reckon.search._select import expected_best_of_n, expected_vote, vote_scale, vote_weights
from reckon.types import Json, Rng


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How often a way to choose is right, for each N of the table."""

    way: str  # "pass@1", "majority vote", "weighted vote", "best of N" or "oracle"
    signal: str | None  # the score that chooses; None for ways without one
    scale: float | None  # of the weighted vote; None where a vote weighs the score itself, and for all other ways
    accuracy: tuple[float, ...]  # means over problems
    error: tuple[float, ...]  # standard errors of the means; NaN for a single problem
    gain: tuple[float, ...]  # accuracy less that of pass@1 on the same problems
    gain_error: tuple[float, ...]  # standard error of the gain, problem by problem
    scored: float | None  # tokens the signal reads for one response; None = not told

    @property
    def name(self) -> str:
        """The way, and what chooses."""
        if self.signal is None:
            return self.way
        scale = "none" if self.scale is None else f"{self.scale:g}"
        return f"{self.way}: {self.signal}" + (f", scale {scale}" if self.way == "weighted vote" else "")


@dataclass(frozen=True, kw_only=True)
class BestOfN:
    """The table, with what it was made of."""

    n: tuple[int, ...]
    problems: tuple[int, ...]  # for each N: those with at least N responses of known outcome
    curves: tuple[Curve, ...]  # pass@1 first, oracle last
    responses: int  # of known outcome
    unknown: int  # responses left out, as nobody knows whether they are right
    missing: Mapping[str, float]  # share of the known responses that each signal has no score for
    generated: float | None  # tokens of one response; None = not told

    def to_json(self) -> dict[str, Json]:
        """All of it for a file; NaN is null."""
        curves: list[Json] = [
            {
                "way": curve.way,
                "signal": curve.signal,
                "scale": curve.scale,
                "accuracy": _numbers(curve.accuracy),
                "error": _numbers(curve.error),
                "gain": _numbers(curve.gain),
                "gain_error": _numbers(curve.gain_error),
                "scored_tokens": curve.scored,
            }
            for curve in self.curves
        ]
        return {
            "n": list(self.n),
            "problems": list(self.problems),
            "responses": self.responses,
            "unknown": self.unknown,
            "missing": dict(self.missing),
            "generated_tokens": self.generated,
            "curves": curves,
        }

    def markdown(self) -> str:
        """The table to read: accuracy ± standard error in percent, and the gain over pass@1 at the largest N."""
        last = self.n[-1]
        lines = [
            "| chosen by | " + " | ".join(f"N = {n}" for n in self.n) + f" | gain at N = {last} | scored tokens |",
            "|---|" + "---|" * (len(self.n) + 2),
        ]
        for curve in self.curves:
            cells = [_percent(a, e) for a, e in zip(curve.accuracy, curve.error, strict=True)]
            gain = "–" if curve.way == "pass@1" else _percent(curve.gain[-1], curve.gain_error[-1], sign=True)
            scored = "–" if curve.scored is None else f"{curve.scored * last:,.0f}"
            lines.append(f"| {curve.name} | {' | '.join(cells)} | {gain} | {scored} |")
        tokens = "–" if self.generated is None else None
        cells = [tokens or f"{(self.generated or 0.0) * n:,.0f}" for n in self.n]
        lines.append(f"| *generated tokens* | {' | '.join(cells)} | | |")
        lines.append(f"| *problems* | {' | '.join(map(str, self.problems))} | | |")
        notes = [f"{self.responses} responses; left out as unknown: {self.unknown}."]
        notes += [f"{name} has no score for {share:.1%} of them." for name, share in self.missing.items() if share]
        return "\n".join([*lines, "", " ".join(notes)]) + "\n"


def best_of_n_table(
    group: ArrayLike,
    outcome: ArrayLike,
    answers: Sequence[str | None],
    scores: Mapping[str, ArrayLike],
    *,
    scale: Mapping[str, float | None] | float | None = None,
    n: Sequence[int] | None = None,
    generated: ArrayLike | None = None,
    scored: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
    draws: int = 256,
) -> BestOfN:
    """pass@1, majority and weighted votes, best of N by each signal, and the oracle, over random N-subsets.

    Best of N and the oracle are exact over all subsets, so the oracle is never below any of them; votes are taken over
    at most `draws` subsets, the same for all signals. A response whose outcome is unknown is left out. For each N the
    problems with at least N known responses count, so look at `problems` before comparing columns.

    Args:
        group: [R] int, equal numbers answer the same problem.
        outcome: [R] float in [0, 1]; NaN = unknown.
        answers: [R], normalized; None = none could be read.
        scores: by signal [R] float; NaN = unknown, which is chosen last and votes for nothing.
        scale: of the weighted vote alone (see `vote_weights`), for all signals or by name, where None = its scores are
            probabilities. Left out, or for a signal that is not named: see `vote_scale`.
        n: ascending; left out, the powers of two up to the largest group, and that group's size.
        generated: [R] int, tokens of each response.
        scored: by signal [R] int, tokens it read to score each response.
        seed: of the subsets for votes.
        draws: subsets at most.

    Raises:
        InputError: lengths differ, no outcome is known, an N is above every group's size, or a scale or a signal's
            name does not fit.
    """
    rows = _Responses(group, outcome, answers, scores)
    sizes = _sizes(n, rows)
    given: dict[str, float | None] = {}
    if scale is not None:
        given |= scale if isinstance(scale, Mapping) else dict.fromkeys(scores, scale)
    for what, names in (("scale", given), ("scored", scored or {})):
        if stray := sorted(set(names) - set(scores)):
            raise InputError(f"best of N: `{what}` names {stray}, but the signals are {sorted(scores)}.")
    scales = {name: vote_scale(values) for name, values in rows.scores.items()} | given
    weights = {name: vote_weights(values, scales[name]) for name, values in rows.scores.items()}
    measured: dict[tuple[str, str | None], NDArray[np.float64]] = {}
    plain: list[tuple[str, str | None]] = [("pass@1", None), ("majority vote", None)]
    chosen = [(way, name) for way in ("weighted vote", "best of N") for name in scores]
    for key in [*plain, *chosen, ("oracle", None)]:
        measured[key] = rows.measure(key, sizes, weights, Rng((seed, "signals", "vote")), draws)
    base = measured["pass@1", None]
    curves = []
    for (way, name), values in measured.items():
        mean, error = _mean(values)
        gain, gain_error = _mean(values - base)
        read = (scored or {}).get(name) if name is not None else None
        curves.append(
            Curve(
                way=way,
                signal=name,
                scale=scales[name] if way == "weighted vote" and name is not None else None,
                accuracy=mean,
                error=error,
                gain=gain,
                gain_error=gain_error,
                scored=None if read is None else rows.mean_of(read, f"scored[{name!r}]"),
            )
        )
    return BestOfN(
        n=sizes,
        problems=tuple(int((~np.isnan(base[:, i])).sum()) for i in range(len(sizes))),
        curves=tuple(curves),
        responses=len(rows.outcome),
        unknown=rows.unknown,
        missing={name: float(np.isnan(values).mean()) for name, values in rows.scores.items()},
        generated=None if generated is None else rows.mean_of(generated, "generated"),
    )


def table_sizes(group: ArrayLike, outcome: ArrayLike, n: Sequence[int] | None = None) -> tuple[int, ...]:
    """The N that `best_of_n_table` would take, to be told what it refuses before anything is scored.

    Args:
        group: as of `best_of_n_table`.
        outcome: as of `best_of_n_table`.
        n: as of `best_of_n_table`.

    Raises:
        InputError: lengths differ, no outcome is known, or an N is above every group's size.
    """
    return _sizes(n, _Responses(group, outcome, [None] * len(np.asarray(outcome)), {}))


class _Responses:
    """The responses whose outcome is known, by problem."""

    def __init__(
        self, group: ArrayLike, outcome: ArrayLike, answers: Sequence[str | None], scores: Mapping[str, ArrayLike]
    ) -> None:
        groups, truth = np.asarray(group), np.asarray(outcome, dtype=np.float64)
        columns = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
        sizes = {"group": groups.shape, "outcome": truth.shape, "answers": (len(answers),)}
        sizes |= {f"scores[{name!r}]": values.shape for name, values in columns.items()}
        for name, shape in sizes.items():
            if shape != truth.shape or truth.ndim != 1:
                raise InputError(f"best of N: `{name}` is of shape {shape}, `outcome` of {truth.shape}; give [R] each.")
        self.known = ~np.isnan(truth)
        if not self.known.any():
            raise InputError(
                f"best of N: none of {len(truth)} responses has a known outcome, so nobody can say which choice is "
                "right. Score responses to problems with answers."
            )
        self.unknown = int((~self.known).sum())
        self.outcome = truth[self.known]
        self.answers = [answer for answer, known in zip(answers, self.known, strict=True) if known]
        self.scores = {name: values[self.known] for name, values in columns.items()}
        self.numbers, place = np.unique(groups[self.known], return_inverse=True)
        self.problems = [np.flatnonzero(place == g) for g in range(len(self.numbers))]

    def measure(
        self,
        key: tuple[str, str | None],
        sizes: Sequence[int],
        weights: Mapping[str, NDArray[np.float64]],
        rng: Rng,
        draws: int,
    ) -> NDArray[np.float64]:
        """[problems, N]: how often this way to choose is right; NaN where a problem has too few responses."""
        way, name = key
        found = np.full((len(self.problems), len(sizes)), np.nan)
        for g, rows in enumerate(self.problems):
            right = self.outcome[rows]
            answers = [self.answers[row] for row in rows.tolist()]
            for i, n in enumerate(sizes):
                if n > len(rows):
                    continue
                if way == "pass@1":
                    found[g, i] = right.mean()
                elif way == "oracle":
                    found[g, i] = expected_best_of_n(right, right, n)
                elif way == "best of N" and name is not None:
                    found[g, i] = expected_best_of_n(self.scores[name][rows], right, n)
                else:
                    heavy = None if name is None else weights[name][rows]
                    subsets = rng.child(n, int(self.numbers[g]))  # named as the signal bench does: one number of a file
                    found[g, i] = expected_vote(answers, right, n, subsets, heavy, draws)
        return found

    def mean_of(self, tokens: ArrayLike, name: str) -> float:
        counts = np.asarray(tokens, dtype=np.float64)
        if counts.shape != self.known.shape:
            raise InputError(f"best of N: `{name}` is of shape {counts.shape}, `outcome` of {self.known.shape}.")
        return float(counts[self.known].mean())


def _sizes(n: Sequence[int] | None, rows: _Responses) -> tuple[int, ...]:
    largest = max(len(problem) for problem in rows.problems)
    if n is None:
        powers = [1 << i for i in range(largest.bit_length()) if 1 << i <= largest]
        return tuple(powers if powers[-1] == largest else [*powers, largest])
    if not n or list(n) != sorted(set(n)) or n[0] < 1 or n[-1] > largest:
        raise InputError(
            f"best of N: N is {list(n)}; give ascending numbers from 1 to {largest}, the most responses of a problem."
        )
    return tuple(n)


def _mean(values: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means over problems and their standard errors, column by column, NaN left out."""
    means, errors = [], []
    for column in values.T:
        known = column[~np.isnan(column)]
        means.append(float(known.mean()))
        errors.append(float(known.std(ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else math.nan)
    return tuple(means), tuple(errors)


def _percent(value: float, error: float, sign: bool = False) -> str:
    number = f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"
    return number if math.isnan(error) else f"{number} ± {100 * error:.1f}"


def _numbers(values: Sequence[float]) -> list[Json]:
    return [value if math.isfinite(value) else None for value in values]
