"""Monte-Carlo labels: how often a policy succeeds when it goes on from each prefix of its own responses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

from reckon.annotate._cost import Budget, Cost, Purse
from reckon.annotate._draw import (
    Completion,
    Continues,
    Count,
    Drawer,
    Drawing,
    Trace,
    count,
    judged,
    make_trace,
    rows_of,
    sampled_tokens,
)
from reckon.annotate._records import Labels, PrefixLabel, Source
from reckon.annotate._store import Store
from reckon.annotate._told import tell_policy, tell_task
from reckon.errors import InputError
from reckon.steps import Splitter
from reckon.types import Json, Problem, Rng, Rollouts, Task

Tell: TypeAlias = Callable[[float, str], None]  # (problems done, what was spent): `runs.Progress.update` fits
Key: TypeAlias = "tuple[str, tuple[int, ...]]"  # a problem's id and a prefix


def label_prefixes(
    policy: Continues,
    task: Task,
    rollouts: Rollouts,
    splitter: Splitter,
    n_mc: int,
    rng: Rng,
    *,
    drawing: Drawing | None = None,
    budget: Budget | None = None,
    folder: str | Path | None = None,
    tell: Tell | None = None,
) -> Labels:
    """Labels every prefix of given seeds, the empty one included, by n_mc completions of the same policy.

    Setlur et al. 2024, arXiv:2410.08146, section 4.2 (random seeds); with hard or soft labels made of the counts it is
    Math-Shepherd (Wang et al. 2023, arXiv:2312.08935, section 3.3). Q-hat is unbiased, with variance q (1 - q) / n_mc.

    Args:
        policy: whose chance of success is estimated. It should also have drawn the seeds.
        task: checks answers.
        rollouts: the seeds, n_cov to each problem; drawn by `policy.sample(problems, n_cov, rng)`.
        splitter: says where steps end.
        n_mc: completions of each prefix.
        rng: names the random numbers.
        drawing: how completions are drawn and judged.
        budget: the most that may be spent, seeds included. Seeds are labeled in order as long as they fit as a whole.
        folder: where to keep each chunk as Parquet. If it holds chunks of the same plan, those are not made again; the
            plan tells tasks apart by their settings and verdicts on the seeds, and policies by their weights.
        tell: is told how far it is after each chunk.

    Returns:
        The labels, in order of seeds and steps, and what they cost: exactly `rollouts_needed(...)` rollouts, unless
        the budget left seeds out.

    Raises:
        InputError: a setting or a splitter's result cannot be, the budget does not even pay for the seeds, or the
            folder holds labels of another plan.
    """
    job = Job(policy, task, rollouts, splitter, rng, drawing or Drawing(), budget)
    check_count("n_mc", n_mc)

    def work(drawer: Drawer, traces: Sequence[Trace], rng: Rng) -> tuple[list[PrefixLabel], int]:
        table = Table(drawer, n_mc, rng.child("label"))
        taken = 0
        while taken < len(traces) and table.want(traces[taken], traces[taken].steps):
            taken += 1
        return table.labels("seed"), len(traces) - taken

    return job.run(work, {"strategy": "seeds", "n_mc": n_mc}, folder, tell, by_row=True)


def rollouts_needed(rollouts: Rollouts, splitter: Splitter, n_mc: int, drawing: Drawing | None = None) -> int:
    """How many rollouts `label_prefixes` takes for these seeds, the seeds included. Nothing is drawn.

    The sum of 1 + (H + 1) n_mc over the seeds, less n_mc for each that has ended and is only checked, and less what is
    shared.
    """
    drawing = drawing or Drawing()
    check_count("n_mc", n_mc)
    traces = traces_of(rollouts, splitter, drawing)
    drawn = [
        (group // drawing.problems_per_chunk, key)  # nothing is shared across chunks
        for trace, group in zip(traces, rollouts.seq.group.tolist(), strict=True)
        for key in keys_of(trace, trace.steps)
        if key is not None
    ]
    return len(traces) + n_mc * len(set(drawn) if drawing.share else drawn)


@dataclass(frozen=True)
class _Place:
    """One label to come: a step of a trace, and where its count is."""

    number: int  # of the trace
    trace: Trace
    step: int
    draw: int | None  # place among the prefixes drawn; None = the response has ended
    first: bool  # whether this label pays for the draw


class Table:
    """Prefixes to be drawn together, and the labels they give."""

    def __init__(self, drawer: Drawer, n_mc: int, rng: Rng) -> None:
        """Starts empty."""
        self.drawer, self.n_mc, self.rng = drawer, n_mc, rng
        self.share = drawer.drawing.share
        self._wanted: list[tuple[Problem, tuple[int, ...]]] = []
        self._known: dict[Key, int] = {}
        self._places: list[_Place] = []
        self._numbers = 0

    def want(self, trace: Trace, depth: int) -> bool:
        """Puts down every prefix up to step `depth`; False, and nothing is put down, if the purse cannot pay."""
        keys = keys_of(trace, depth)
        fresh = {key for key in keys if key is not None and not (self.share and key in self._known)}
        more = len(fresh) if self.share else sum(key is not None for key in keys)
        if not self.drawer.purse.affords((len(self._wanted) + more) * self.n_mc):
            return False
        for step, key in enumerate(keys):
            first = key is not None and not (self.share and key in self._known)
            if first:
                assert key is not None
                self._known[key] = len(self._wanted)
                self._wanted.append((trace.problem, key[1]))
            draw = None if key is None else self._known[key]
            self._places.append(_Place(self._numbers, trace, step, draw, first))
        self._numbers += 1
        return True

    def labels(self, source: Source, first: int = 0) -> list[PrefixLabel]:
        """Draws what was put down, in one call, and counts; traces are numbered from `first`."""
        drawn = self.drawer.complete(self._wanted, self.n_mc, self.rng)
        counts = [count(many, len(prefix)) for many, (_, prefix) in zip(drawn, self._wanted, strict=True)]
        return [
            replace(
                self._label(place, self._checked(place.trace) if place.draw is None else counts[place.draw]),
                source=source,
                trace=first + place.number,
            )
            for place in self._places
        ]

    def _checked(self, trace: Trace) -> Count:
        """A response that has ended: every completion of it is itself."""
        return Count(0, 0) if trace.outcome is None else Count(self.n_mc, self.n_mc * trace.outcome)

    def _label(self, place: _Place, found: Count) -> PrefixLabel:
        trace = place.trace
        return PrefixLabel(
            problem=trace.problem,
            prefix=trace.texts[: place.step],
            tokens=trace.prefix(place.step),
            n_mc=found.n,
            n_correct=found.correct,
            policy_id=self.drawer.drawing.policy_id,
            trace=0,
            steps=trace.steps,
            outcome=trace.outcome,
            ended=trace.ended,
            n_drawn=found.drawn if place.first else 0,
            generated=found.generated if place.first else 0,
        )


Work: TypeAlias = Callable[[Drawer, Sequence[Trace], Rng], tuple[list[PrefixLabel], int]]


class Job:
    """Seeds to be worked on chunk by chunk, whatever the strategy."""

    def __init__(
        self,
        policy: Continues,
        task: Task,
        rollouts: Rollouts,
        splitter: Splitter,
        rng: Rng,
        drawing: Drawing,
        budget: Budget | None,
    ) -> None:
        """Cuts the seeds into steps and charges them to the budget."""
        self.task, self.rollouts, self.rng, self.drawing, self.budget = task, rollouts, rng, drawing, budget
        self.traces = traces_of(rollouts, splitter, drawing)
        self.purse = Purse(budget, drawing.most_tokens)
        self.drawer = Drawer(policy, task, drawing, self.purse)
        for trace in self.traces:  # before anything is drawn, not in the chunk that has it
            for key in keys_of(trace, trace.steps):
                if key is not None:
                    self.drawer.check_room(trace.problem, key[1])
        self.lengths = sampled_tokens(rollouts)
        seeds = self._cost(range(len(self.traces)))
        if not self.purse.budget.allows(seeds):
            raise InputError(f"the seeds alone cost {seeds}, more than the budget. Draw fewer seeds, or raise it.")
        self.purse.spend(seeds)

    def run(
        self, work: Work, plan: dict[str, Json], folder: str | Path | None, tell: Tell | None, *, by_row: bool
    ) -> Labels:
        """Works on each chunk that is not there yet; `by_row`: a trace is numbered as its seed, else on and on."""
        verdicts = [judged(self.task, self.rollouts, row, self.drawing) for row in range(len(self.traces))]
        store = Store(folder, {} if folder is None else {**plan, **self._plan(verdicts)})
        parts: list[Labels] = []
        groups = self.rollouts.seq.group.tolist()
        problems = len(self.rollouts.problems)
        size = self.drawing.problems_per_chunk
        traces = 0
        for chunk, start in enumerate(range(0, problems, size)):
            rows = [row for row, group in enumerate(groups) if start <= group < start + size]
            part = store.load(chunk)
            if part is None:
                before = self.purse.spent
                seeds = [replace(self.traces[row], outcome=verdicts[row]) for row in rows]
                records, left_out = work(self.drawer, seeds, self.rng.child("chunk", chunk))
                spent = self.purse.spent - before
                first = rows[0] if by_row else traces
                numbered = tuple(replace(record, trace=record.trace + first) for record in records)
                part = Labels(records=numbered, cost=spent + self._cost(rows), left_out=left_out)
                store.save(chunk, part)
            else:
                self.purse.spend(part.cost - self._cost(rows))
            parts.append(part)
            traces = 1 + max((record.trace for record in part.records), default=traces - 1)
            if tell is not None:
                tell(float(min(start + size, problems)), f"{self.purse.spent.rollouts:,} rollouts")
        cost = Cost()
        for part in parts:
            cost = cost + part.cost
        every = tuple(record for part in parts for record in part.records)
        return Labels(records=every, cost=cost, left_out=sum(part.left_out for part in parts))

    def _cost(self, rows: Sequence[int]) -> Cost:
        return Cost(rollouts=len(rows), tokens=sum(self.lengths[row] for row in rows), checks=len(rows))

    def _plan(self, verdicts: Sequence[int | None]) -> dict[str, Json]:
        """What labels depend on, so that two plans are never mixed in one folder.

        Each of problems, seeds and steps tells of itself alone: where two plans differ, the first that does is named.
        """
        problems = [(problem.id, problem.answer) for problem in self.rollouts.problems]
        seeds = [(trace.problem.id, trace.tokens, trace.whole) for trace in self.traces]
        steps = [trace.ends for trace in self.traces]
        return {
            "problems": _counted(len(problems), problems),
            "seeds": _counted(len(seeds), seeds),
            "steps": _counted(sum(trace.steps for trace in self.traces), steps),
            "task": tell_task(self.task, verdicts),
            "policy": tell_policy(self.drawer.policy),
            "rng": list(self.rng.key),
            "budget": asdict(self.budget or Budget()),
            **asdict(self.drawing),
        }


def traces_of(rollouts: Rollouts, splitter: Splitter, drawing: Drawing) -> list[Trace]:
    """Seeds cut into steps, not judged yet."""
    tokens, ends = rows_of(rollouts), rollouts.end.tolist()
    return [
        make_trace(
            rollouts.problem(row),
            Completion(tokens[row], rollouts.pieces[row], int(ends[row]), None),
            splitter,
            drawing,
            where=f"seed {row}",
        )
        for row in range(len(tokens))
    ]


def _counted(count: int, parts: object) -> str:
    """How many there are, for people, and which, for comparing."""
    return f"{count}, {hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def keys_of(trace: Trace, depth: int) -> list[Key | None]:
    """What is to be drawn for each prefix up to step `depth`; None = nothing, since the response has ended there."""
    keys: list[Key | None] = []
    for step in range(depth + 1):
        over = 0 < step == trace.steps and trace.whole  # an empty response has ended too, its empty prefix has not
        keys.append(None if over else (trace.problem.id, trace.prefix(step)))
    return keys


def check_count(name: str, value: int) -> None:
    """Raises InputError for a number below 1."""
    if value < 1:
        raise InputError(f"`{name}` is {value}; it must be at least 1.")
