"""The first-pit strategy: spend completions on where a promising response is lost, and nothing on what comes after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from reckon.annotate._cost import Budget
from reckon.annotate._draw import Completion, Continues, Drawer, Drawing, Trace, count, make_trace
from reckon.annotate._prefixes import Job, Key, Table, Tell, check_count, keys_of
from reckon.annotate._records import Labels, PrefixLabel
from reckon.errors import InputError
from reckon.steps import Splitter
from reckon.types import Problem, Rng, Rollouts, Task

Search: TypeAlias = Literal["linear", "binary"]


@dataclass(frozen=True, kw_only=True)
class FirstPit:
    """How the pits are sought.

    Args:
        n_rough: completions for a first look at each prefix of a seed.
        tau_high: a prefix is promising if more than this share of them is right. The paper does not give it.
        per_state: wrong completions to follow from each promising prefix.
        n_scan: completions of each prefix looked at along them; None = as `n_rough`.
        search: "linear" looks at step after step and is exact up to chance; "binary" takes the logarithm of the steps,
            but supposes that a response once lost stays lost.
    """

    n_rough: int = 4
    tau_high: float = 0.5
    per_state: int = 1
    n_scan: int | None = None
    search: Search = "linear"

    def __post_init__(self) -> None:
        for name in ("n_rough", "per_state"):
            check_count(name, getattr(self, name))
        check_count("n_scan", self.looks)
        if not 0 <= self.tau_high < 1:
            raise InputError(f"`tau_high` is {self.tau_high}; it must be at least 0 and below 1.")
        if self.search not in ("linear", "binary"):
            raise InputError(f"`search` is {self.search!r}; it must be linear or binary.")

    @property
    def looks(self) -> int:
        """Completions of each prefix looked at along a wrong completion."""
        return self.n_rough if self.n_scan is None else self.n_scan


@dataclass
class _Hunt:
    """A wrong completion and where its pit may be: after step `low` there is hope, after step `high` there is none."""

    trace: Trace
    low: int
    high: int
    next: int = field(default=0)


def label_first_pits(
    policy: Continues,
    task: Task,
    rollouts: Rollouts,
    splitter: Splitter,
    n_mc: int,
    rng: Rng,
    *,
    hunt: FirstPit | None = None,
    drawing: Drawing | None = None,
    budget: Budget | None = None,
    folder: str | Path | None = None,
    tell: Tell | None = None,
) -> Labels:
    """Labels the prefixes of wrong completions up to the first one from which nothing went right.

    Setlur et al. 2024, arXiv:2410.08146, section 4.2 and appendix: rough values of the seeds' prefixes find promising
    ones; of their completions those that ended wrong are followed to their pit, the first prefix whose rough value is
    0; every prefix up to the pit gets n_mc completions of its own, and none after it. Prefixes that several traces of a
    problem share are drawn once in the rough look, and in the labels if `drawing.share`.

    The cost depends on what is found. A seed, or a wrong completion, is begun only if its worst case fits the budget.

    Args:
        policy: whose chance of success is estimated.
        task: checks answers.
        rollouts: the seeds.
        splitter: says where steps end.
        n_mc: completions of each prefix that is labeled; the rough ones are not among them, for they were chosen by
            their result.
        rng: names the random numbers.
        hunt: how the pits are sought.
        drawing: how completions are drawn and judged.
        budget: the most that may be spent, seeds included.
        folder: where to keep each chunk as Parquet. If it holds chunks of the same plan, those are not made again.
        tell: is told how far it is after each chunk.

    Returns:
        Labels of source "pit"; `left_out` counts the seeds and wrong completions the budget did not reach.

    Raises:
        InputError: as `label_prefixes`.
    """
    job = Job(policy, task, rollouts, splitter, rng, drawing or Drawing(), budget)
    seek = hunt or FirstPit()
    check_count("n_mc", n_mc)

    def work(drawer: Drawer, traces: Sequence[Trace], rng: Rng) -> tuple[list[PrefixLabel], int]:
        hunts, unread = _promising(drawer, traces, splitter, seek, rng.child("rough"))
        records: list[PrefixLabel] = []
        waiting = list(hunts)
        for wave in range(len(hunts)):
            taken = _affordable(drawer, waiting, seek, n_mc)
            if not taken:
                break
            waiting = waiting[len(taken) :]
            _find_pits(drawer, taken, seek, rng.child("scan", wave))
            table = Table(drawer, n_mc, rng.child("label", wave))
            for one in taken:
                assert table.want(one.trace, one.high)  # its worst case was set aside
            first = 1 + max((record.trace for record in records), default=-1)
            records += table.labels("pit", first)
        return records, unread + len(waiting)

    plan = {"strategy": "first_pit", "n_mc": n_mc, **vars(seek)}
    return job.run(work, plan, folder, tell, by_row=False)


def _promising(
    drawer: Drawer, traces: Sequence[Trace], splitter: Splitter, seek: FirstPit, rng: Rng
) -> tuple[list[_Hunt], int]:
    """Wrong completions of promising prefixes, and how many seeds could not be paid for."""
    wanted: dict[Key, Problem] = {}
    unread = 0
    for place, trace in enumerate(traces):
        keys = {key for key in keys_of(trace, trace.steps) if key is not None}
        if not drawer.purse.affords(len(keys | set(wanted)) * seek.n_rough):
            unread = len(traces) - place
            break
        for key in keys_of(trace, trace.steps):
            if key is not None:
                wanted.setdefault(key, trace.problem)
    asked = [(problem, prefix) for (_, prefix), problem in wanted.items()]
    hunts: dict[Key, _Hunt] = {}
    for many, (problem, prefix) in zip(drawer.complete(asked, seek.n_rough, rng), asked, strict=True):
        found = count(many, len(prefix))
        if found.n == 0 or found.correct / found.n <= seek.tau_high:
            continue
        for one in [one for one in many if one.outcome == 0][: seek.per_state]:
            hunt = _hunt(problem, one, len(prefix), splitter, drawer.drawing)
            if hunt is not None:
                hunts.setdefault((problem.id, one.tokens), hunt)
    return list(hunts.values()), unread


def _hunt(problem: Problem, wrong: Completion, given: int, splitter: Splitter, drawing: Drawing) -> _Hunt | None:
    """A wrong completion to follow from a prefix of `given` tokens; None if it has no step behind that."""
    trace = make_trace(problem, wrong, splitter, drawing, where=f"a completion of problem {problem.id!r}")
    low = sum(end + 1 <= given for end in trace.ends)
    return _Hunt(trace, low, trace.steps) if trace.steps > low else None


def _affordable(drawer: Drawer, hunts: Sequence[_Hunt], seek: FirstPit, n_mc: int) -> list[_Hunt]:
    """The first of the hunts, as many as can be paid for at their worst."""
    worst = 0
    taken: list[_Hunt] = []
    for hunt in hunts:
        between = hunt.high - hunt.low - 1  # the last prefix is known to be lost: the response ended wrong
        looks = between if seek.search == "linear" else math.ceil(math.log2(between + 1))
        labels = sum(key is not None for key in keys_of(hunt.trace, hunt.high))
        worst += looks * seek.looks + labels * n_mc
        if not drawer.purse.affords(worst):
            break
        taken.append(hunt)
    return taken


def _find_pits(drawer: Drawer, hunts: Sequence[_Hunt], seek: FirstPit, rng: Rng) -> None:
    """Narrows each hunt until `high` is the pit, one prefix of each at a time, all of them in one call."""
    look = 0
    while live := [hunt for hunt in hunts if hunt.high - hunt.low > 1]:
        for hunt in live:
            hunt.next = hunt.low + 1 if seek.search == "linear" else (hunt.low + hunt.high) // 2
        asked = [(hunt.trace.problem, hunt.trace.prefix(hunt.next)) for hunt in live]
        drawn = drawer.complete(asked, seek.looks, rng.child(look))
        for hunt, many in zip(live, drawn, strict=True):
            found = count(many, 0)
            if found.n and found.correct == 0:  # no known verdict is no evidence of a pit
                hunt.high = hunt.next
            else:
                hunt.low = hunt.next
        look += 1
