"""The signal bench: which of several signals to trust, and where each is blind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reckon.errors import InputError
from reckon.evaluate._calibration import Calibration, calibration
from reckon.evaluate._probe import ProbeResult
from reckon.evaluate._signals_best import best_of_n, sizes, vote_of_n
from reckon.evaluate._signals_bootstrap import UNKNOWN, Estimate, bootstrap, harmonic
from reckon.evaluate._signals_ranking import auc, correlations, count_pairs, rank_products, spearman
from reckon.evaluate._signals_remarks import WORDS, Remark, Trust, reasons, remarks, trust
from reckon.evaluate._signals_steps import Reading, StepView, step_view
from reckon.runs import Responses, Signal
from reckon.types import Rng

SHOWN = 5  # disagreements kept of each signal
VERDICT = "verdict"  # the row of the correlation matrix that is the outcome itself


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What a signal knows of the steps."""

    reading: Reading
    auc: Estimate  # pairs of a right and a wrong step of one response
    pooled: float
    f1: Estimate  # of finding the first wrong step, harmonic mean of the next two
    on_wrong: float
    on_clean: float
    responses: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A right and a wrong answer to one prompt that the signal puts the wrong way round."""

    problem: str
    prompt: str
    reference: str | None
    right: str
    right_score: float
    wrong: str
    wrong_score: float


@dataclass(frozen=True, kw_only=True)
class SignalReport:
    """All that is known of one signal."""

    name: str
    level: str  # what it judges: "response", "step" or "token"
    known: int  # responses it has a value for
    unknown: float  # share of responses it has none for
    prompts: int  # with a right and a wrong answer to compare
    pairs: int
    ties: float  # share of the pairs with equal scores
    within: Estimate  # AUC within prompts
    pooled: float  # AUC over all answers at once
    alike: Estimate  # AUC within prompts among answers of like length
    alike_pairs: int
    ks: tuple[int, ...]  # samples to choose from
    curve: tuple[float, ...]  # the share right among the best of each of `ks`
    gain: Estimate  # best-of-n less pass@1
    over_vote: Estimate  # best-of-n less the majority vote
    fall: Estimate  # best-of-n less the best of the k where the curve is highest
    calibration: Calibration
    length: Estimate  # rank correlation with length, prompt and verdict held fixed
    format: Estimate  # among wrong answers to one prompt, the AUC of well-formed ones over the others
    steps: tuple[StepReport, ...]
    seconds: float  # for one response; NaN = not measured
    tokens: float  # read, for one response; NaN = not measured
    probes: tuple[ProbeResult, ...]  # empty = not probed
    worst: tuple[Disagreement, ...]
    is_verdict: bool  # every known value is the verdict

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What to know before using it, blind spots first."""
        return remarks(self)

    @property
    def trust(self) -> Trust:
        """Whether to trust it; see `reckon.evaluate.WORDS`."""
        return trust(self)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why `trust` is what it is, the majority vote's result among them."""
        return reasons(self)


@dataclass(frozen=True, kw_only=True)
class SignalBench:
    """Several signals on the same responses."""

    source: str
    responses: int
    prompts: int
    mixed: int  # prompts with both right and wrong answers: only they can rank anything
    unknown: float  # share of responses without a verdict, which leave everything
    unit: str  # of lengths
    rate: float  # pass@1 of the prompts that the curves are drawn for
    ks: tuple[int, ...]  # samples to choose from
    n: int  # the largest of them
    curve_prompts: int  # prompts with at least n verdicts
    vote: tuple[float, ...]  # majority vote at `ks`; empty where no answer could be read
    oracle: tuple[float, ...]  # pass@k: what a perfect signal would reach
    signals: tuple[SignalReport, ...]  # the most trusted first
    names: tuple[str, ...]  # of the correlation matrices, "verdict" first
    within: tuple[tuple[float, ...], ...]  # rank correlations within prompts
    pooled: tuple[tuple[float, ...], ...]  # over all responses at once


def signal_bench(
    responses: Responses,
    *,
    rng: Rng,
    signals: Sequence[str] | None = None,
    probes: Mapping[str, Sequence[ProbeResult]] | None = None,
    bins: int = 10,
) -> SignalBench:
    """Holds every signal of the responses against their verdicts.

    Intervals are of 95%, by 1,000 bootstrap draws of problems. Responses without a verdict are left out and counted.

    Args:
        responses: with verdicts and streams.
        rng: for the bootstrap, folds and subsets.
        signals: only these, by name.
        probes: what `probe` found, by signal.
        bins: of the reliability curves.

    Raises:
        InputError: there is no signal of such a name, no signal at all, or no verdict.
    """
    names = list(responses.streams) if signals is None else list(signals)
    for name in names:
        if name not in responses.streams:
            known = ", ".join(responses.streams) or "none"
            raise InputError(f"{responses.source}: there is no signal {name!r}. Signals: {known}.")
    if not names:
        raise InputError(
            f"{responses.source}: there is no signal. Add a column of numbers, call it stream/NAME, or let a judge "
            "score the responses first (reckon score)."
        )
    setting = _Setting.of(responses, rng)
    found = [
        _report(setting, name, responses.streams[name], tuple((probes or {}).get(name, ())), bins) for name in names
    ]
    order = list(WORDS)
    found.sort(key=lambda one: (order.index(one.trust), -one.within.value if math.isfinite(one.within.value) else 2.0))
    within, pooled = _matrices(setting, [one.name for one in found])
    return SignalBench(
        source=responses.source,
        responses=len(responses.text),
        prompts=len(responses.problems),
        mixed=setting.mixed,
        unknown=float(np.isnan(responses.outcome).mean()),
        unit=responses.unit,
        rate=setting.mean(setting.first),
        ks=tuple(setting.ks),
        n=setting.ks[-1],
        curve_prompts=len(setting.rows),
        vote=tuple(map(setting.mean, setting.votes)),
        oracle=tuple(
            setting.mean([best_of_n(setting.right[rows], setting.right[rows], k) for rows in setting.rows])
            for k in setting.ks
        ),
        signals=tuple(found),
        names=(VERDICT, *(one.name for one in found)),
        within=within,
        pooled=pooled,
    )


def check_verdicts(responses: Responses) -> None:
    """Raises InputError if no response has a verdict that a signal could be held against."""
    if np.isnan(responses.outcome).all():
        raise InputError(
            f"{responses.source}: no response has a verdict, so no signal can be held against one. Add a column "
            "outcome (true, false), or name a task that checks the answers."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Setting:
    """What all signals share."""

    responses: Responses
    rng: Rng
    right: np.ndarray  # [N]
    units: np.ndarray  # [G]
    mixed: int
    ks: list[int]
    rows: list[np.ndarray]  # of the prompts that curves are drawn for, their responses with a verdict
    groups: np.ndarray  # the groups of `rows`
    first: list[float]  # pass@1 of those
    votes: list[list[float]]  # for each k, of those prompts

    @classmethod
    def of(cls, responses: Responses, rng: Rng) -> _Setting:
        right, group = responses.right, responses.group
        check_verdicts(responses)
        known = np.flatnonzero(np.isfinite(right))
        count = np.bincount(group[known], minlength=len(responses.problems))
        good = np.bincount(group[known], weights=right[known], minlength=len(responses.problems))
        ks = sizes(count.tolist())
        members = np.split(known, np.flatnonzero(np.diff(group[known])) + 1)
        rows = [part for part in members if len(part) >= ks[-1]]
        votes = []
        if any(responses.parsed[i] is not None for i in known.tolist()):
            for k in ks:
                votes.append(
                    [
                        # Named as those of `best_of_n_table`, so that both say the same of one file.
                        vote_of_n(
                            [responses.parsed[i] for i in part.tolist()],
                            right[part],
                            k,
                            rng.child("vote", k, int(group[part[0]])),
                        )
                        for part in rows
                    ]
                )
        return cls(
            responses=responses,
            rng=rng,
            right=right,
            units=responses.units,
            mixed=int(((good > 0) & (good < count)).sum()),
            ks=ks,
            rows=rows,
            groups=np.array([group[part[0]] for part in rows], dtype=np.int64),
            first=[float(right[part].mean()) for part in rows],
            votes=votes,
        )

    def mean(self, values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else math.nan

    def of_prompts(self, values: Sequence[float], *names: str) -> Estimate:
        """The mean over the curve's prompts."""
        sums = np.stack([np.array(values, dtype=np.float64), np.ones(len(values))], axis=1)
        return bootstrap(sums, self.units[self.groups], self.rng.child("bootstrap", *names))


def _report(setting: _Setting, name: str, signal: Signal, probes: tuple[ProbeResult, ...], bins: int) -> SignalReport:
    responses, right, group = setting.responses, setting.right, setting.responses.group
    values, rng, groups = signal.values, setting.rng.child(name), len(setting.responses.problems)
    lengths = np.maximum(responses.lengths, 1)
    won = count_pairs(values, right, group, groups)
    alike = count_pairs(values, right, group, groups, lengths=lengths)
    best = [[best_of_n(values[rows], right[rows], k) for rows in setting.rows] for k in setting.ks]
    gain = [b - f for b, f in zip(best[-1], setting.first, strict=True)]
    peak = max(best, key=sum)
    fall = [b - p for b, p in zip(best[-1], peak, strict=True)]
    stratum = np.where(np.isfinite(right), 2 * group + np.nan_to_num(right).astype(np.int64), -1)
    products = rank_products(values, lengths.astype(np.float64), stratum, group, groups)
    formed = np.array([p is not None and e != "length" for p, e in zip(responses.parsed, responses.end, strict=True)])
    form = count_pairs(values, np.where(right == 0, formed.astype(np.float64), np.nan), group, groups)
    n, pairs = len(values), float(won.pairs.sum())
    known = int(np.isfinite(values).sum())
    measured = {
        "within": bootstrap(np.stack([won.wins, won.pairs], 1), setting.units, rng.child("within")),
        "alike": bootstrap(np.stack([alike.wins, alike.pairs], 1), setting.units, rng.child("alike")),
        "gain": setting.of_prompts(gain, name, "gain") if setting.ks[-1] > 1 else UNKNOWN,
        "over_vote": setting.of_prompts([b - v for b, v in zip(best[-1], setting.votes[-1], strict=True)], name, "vote")
        if setting.votes and setting.ks[-1] > 1
        else UNKNOWN,
        "fall": setting.of_prompts(fall, name, "fall") if setting.ks[-1] > 1 else UNKNOWN,
        "length": bootstrap(products, setting.units, rng.child("length"), correlations),
        "format": bootstrap(np.stack([form.wins, form.pairs], 1), setting.units, rng.child("format")),
    }
    both = np.isfinite(values) & np.isfinite(right)
    return SignalReport(
        name=name,
        level="token" if signal.tokens is not None else "step" if signal.steps is not None else "response",
        known=known,
        unknown=1 - known / n,
        prompts=int((won.pairs > 0).sum()),
        pairs=int(pairs),
        ties=float(won.ties.sum()) / pairs if pairs else math.nan,
        pooled=auc(values, right),
        alike_pairs=int(alike.pairs.sum()),
        ks=tuple(setting.ks),
        curve=tuple(map(setting.mean, best)),
        calibration=calibration(values, right, setting.units[group], rng.child("calibration"), bins),
        steps=_steps(setting, signal, rng.child("steps")),
        seconds=signal.seconds / n,
        tokens=signal.read / n,
        probes=probes,
        worst=_worst(setting, values),
        is_verdict=len(set(right[both].tolist())) == 2 and bool(np.array_equal(values[both], right[both])),
        **measured,
    )


def _steps(setting: _Setting, signal: Signal, rng: Rng) -> tuple[StepReport, ...]:
    readings: tuple[Reading, ...] = ("single", "accumulated")
    views = [view for reading in readings if (view := step_view(setting.responses, signal, reading, rng)) is not None]
    return tuple(_step_report(setting, view, rng) for view in views)


def _step_report(setting: _Setting, view: StepView, rng: Rng) -> StepReport:
    units = setting.units[setting.responses.group]
    judged = np.isfinite(view.hits)
    hits = np.where(judged, view.hits, 0.0)
    wrong, clean = judged & view.wrong, judged & ~view.wrong
    sums = np.stack([hits * wrong, wrong, hits * clean, clean], axis=1).astype(np.float64)
    return StepReport(
        reading=view.reading,
        auc=bootstrap(np.stack([view.pairs.wins, view.pairs.pairs], 1), units, rng.child("auc", view.reading)),
        pooled=view.pooled,
        f1=bootstrap(sums, units, rng.child("f1", view.reading), harmonic),
        on_wrong=view.on_wrong,
        on_clean=view.on_clean,
        responses=view.responses,
        steps=view.steps,
    )


def _worst(setting: _Setting, values: np.ndarray) -> tuple[Disagreement, ...]:
    """Of each prompt the right answer with the lowest and the wrong one with the highest score; the widest gaps."""
    responses, right, found = setting.responses, setting.right, []
    known = np.flatnonzero(np.isfinite(values) & np.isfinite(right))
    for rows in np.split(known, np.flatnonzero(np.diff(responses.group[known])) + 1) if len(known) else []:
        good, bad = rows[right[rows] == 1], rows[right[rows] == 0]
        if len(good) and len(bad):
            i, j = int(good[np.argmin(values[good])]), int(bad[np.argmax(values[bad])])
            if values[j] > values[i]:
                found.append((float(values[j] - values[i]), i, j))
    found.sort(key=lambda one: (-one[0], one[1]))
    picked: list[Disagreement] = []
    seen: set[str] = set()
    for _, i, j in found:
        problem = responses.problem(i)
        if problem.id not in seen and len(picked) < SHOWN:
            seen.add(problem.id)
            picked.append(
                Disagreement(
                    problem=problem.id,
                    prompt=problem.prompt_text,
                    reference=problem.answer,
                    right=responses.text[i],
                    right_score=float(values[i]),
                    wrong=responses.text[j],
                    wrong_score=float(values[j]),
                )
            )
    return tuple(picked)


def _matrices(
    setting: _Setting, names: Sequence[str]
) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """Rank correlations of the verdict and all signals, within prompts and over all responses."""
    responses = setting.responses
    columns = [setting.right, *(responses.streams[name].values for name in names)]
    size, groups = len(columns), len(responses.problems)
    within, pooled = np.ones((size, size)), np.ones((size, size))
    for a in range(size):
        for b in range(a):
            products = rank_products(columns[a], columns[b], responses.group, responses.group, groups)
            within[a, b] = within[b, a] = float(correlations(products.sum(axis=0)))
            pooled[a, b] = pooled[b, a] = spearman(columns[a], columns[b])
    return tuple(map(tuple, within.tolist())), tuple(map(tuple, pooled.tolist()))
