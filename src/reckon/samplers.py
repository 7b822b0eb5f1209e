"""Which problems to pose, which answers to keep, and how both make a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import torch

from reckon.errors import InputError, RunError
from reckon.types import (
    Batch,
    End,
    Json,
    Keep,
    Metrics,
    Policy,
    Problem,
    Refill,
    Rng,
    Rollouts,
    Sampler,
    Seen,
    Sequences,
    Split,
    State,
    Task,
    Use,
    Verdict,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "AccuracyBand",
    "All",
    "Chain",
    "DropEqual",
    "DropTruncated",
    "Refill",
    "Uniform",
    "Verify",
    "collect",
    "collect_metrics",
    "concatenate",
]

Verify: TypeAlias = "Callable[[Rollouts], Sequence[Verdict]]"  # N, one for each response


class Uniform:
    """Poses every problem of a split once, in an order of chance, then all of them again in another.

    The order belongs to the random numbers of the first draw (hence to the run's seed) and the number of the pass, not
    to how many problems are drawn at a time. A draw may cross from one pass into the next.
    """

    def __init__(self, task: Task, *, split: Split = "train") -> None:
        self.split = split
        self._problems = task.problems(split)
        if not self._problems:
            raise InputError(f"the task {task.name!r} has no problem in its split {split!r}, so none can be posed.")
        self._rng: Rng | None = None
        self._position = 0  # problems drawn since the beginning, over all passes
        self._order: tuple[int, list[int]] | None = None  # a pass and its order, made when first needed

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """The next n problems. Of the random numbers only those of the first draw are used."""
        self._rng = self._rng or rng
        indices = [self._index(self._position + i, self._rng) for i in range(n)]
        self._position += n
        return [self._problems[i] for i in indices]

    def learn(self, seen: Seen) -> Metrics:
        """`sampler/passes`: how often the split has been gone through, with its fraction."""
        del seen  # every problem is as good as any other, however it went
        return {"sampler/passes": self._position / len(self._problems)}

    def state_dict(self) -> State:
        """Pass, position in it, the split's size, and the key of the order."""
        passes, position = divmod(self._position, len(self._problems))
        key: Json = None if self._rng is None else list(self._rng.key)
        return {"pass": passes, "position": position, "size": len(self._problems), "key": key}

    def load_state_dict(self, state: State) -> None:
        """Goes on with the very next problem.

        Raises:
            RunError: the split had another size when the state was saved.
        """
        size = cast("int", state["size"])
        if size != len(self._problems):
            raise RunError(
                f"the split had {size} problems when the run was saved and has {len(self._problems)} now."
                " Resume with the data the run was begun with."
            )
        key = cast("list[int | str] | None", state["key"])
        self._rng = None if key is None else Rng(tuple(key))
        self._position = cast("int", state["pass"]) * size + cast("int", state["position"])
        self._order = None

    def _index(self, position: int, rng: Rng) -> int:
        number, place = divmod(position, len(self._problems))
        if self._order is None or self._order[0] != number:
            order = rng.child("uniform", number).numpy().permutation(len(self._problems))
            self._order = number, order.tolist()
        return self._order[1][place]


@dataclass(frozen=True, kw_only=True)
class All:
    """Trains on every response."""

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64, `Use.TRAIN` throughout."""
        return torch.full_like(rollouts.end, Use.TRAIN)


@dataclass(frozen=True, kw_only=True)
class AccuracyBand:
    """Keeps the groups whose mean known outcome lies between `low` and `high` (PRIME's filter, arXiv:2502.01456).

    Unknown outcomes leave the mean; a group with none known has no accuracy and is dropped.
    """

    low: float = 0.2
    high: float = 0.8
    inclusive: bool = True  # whether a mean exactly on a bound is kept

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise InputError(
                f"accuracy_band: `low` ({self.low}) and `high` ({self.high}) must obey 0 <= low <= high <= 1."
            )

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64."""
        # Outcomes are float32 and the bounds are not: without some slack 0.8 would not be 0.8.
        slack = 1e-6 if self.inclusive else -1e-6
        values, group = outcome.cpu().double(), rollouts.seq.group.cpu()  # Metal has no float64
        known, zeros = ~values.isnan(), values.new_zeros(len(rollouts.problems))
        total = zeros.index_add(0, group, torch.where(known, values, 0.0))
        mean = total / zeros.index_add(0, group, known.to(values.dtype))  # NaN where none is known: in no band
        kept = (mean >= self.low - slack) & (mean <= self.high + slack)
        return _whole_groups(rollouts, kept.to(outcome.device))


@dataclass(frozen=True, kw_only=True)
class DropEqual:
    """Drops the groups whose known outcomes are all equal, which teach nothing (DAPO, arXiv:2503.14476, eq. 11).

    A group with one known outcome or none has no two that differ, and is dropped too.
    """

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64."""
        known, group = ~outcome.isnan(), rollouts.seq.group
        bounds = torch.full((len(rollouts.problems),), torch.inf, dtype=outcome.dtype, device=outcome.device)
        low = bounds.scatter_reduce(0, group, torch.where(known, outcome, torch.inf), "amin")
        high = (-bounds).scatter_reduce(0, group, torch.where(known, outcome, -torch.inf), "amax")
        return _whole_groups(rollouts, low < high)


@dataclass(frozen=True, kw_only=True)
class DropTruncated:
    """Drops the responses that ran into the limit, or the whole groups that have one."""

    whole_group: bool = False

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64."""
        cut = rollouts.end == End.LENGTH
        if not self.whole_group:
            return torch.where(cut, int(Use.DROP), int(Use.TRAIN))
        return _whole_groups(rollouts, ~_touched(rollouts, cut))


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Several rules one after another: each sees what those before it left, and none brings anything back."""

    rules: Sequence[Keep]

    def __post_init__(self) -> None:
        if not self.rules:
            raise InputError("chain: there is no rule in it. Name at least one, or take `all`.")

    def __call__(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """[N] int64: for each response the strictest of the rules that saw it."""
        use = torch.full_like(rollouts.end, Use.TRAIN)
        for number, rule in enumerate(self.rules):
            rows = (use != Use.DROP).nonzero().squeeze(1)
            if not len(rows):
                break
            decided = rule(rollouts.take(rows), outcome[rows], rng.child(number))
            use[rows] = torch.minimum(use[rows], decided)
        return use


@dataclass(frozen=True, kw_only=True, eq=False)
class _Round:
    rollouts: Rollouts
    verdicts: tuple[Verdict, ...]  # N
    outcome: Tensor  # [N] float32, the verdicts' outcomes, NaN = unknown
    use: Tensor  # [N]

    @property
    def kept(self) -> Tensor:
        """[groups kept] int64, ascending."""
        return _touched(self.rollouts, self.use == Use.TRAIN).nonzero().squeeze(1)


def collect(
    sampler: Sampler,
    policy: Policy,
    verify: Verify,
    keep: Keep,
    n: int,
    k: int,
    rng: Rng,
    *,
    step: int,
    refill: Refill | None = None,
) -> Batch:
    """A batch: draws n problems, has each answered k times, judges, and keeps what is worth training on.

    A group with no response left to train on is dropped whole. Further rounds of n problems follow until n groups are
    kept or the rounds are used up; the batch has the first n kept, in the order drawn. Two draws of one problem are two
    groups. Every response generated is in the batch's `seen`, kept or not.

    Args:
        sampler: gives the problems.
        policy: answers them.
        verify: judges each response.
        keep: decides what becomes of each response.
        n: groups wanted.
        k: responses in each.
        rng: this step's random numbers.
        step: the number of the step.
        refill: None = one round, and go on with what it left.

    Raises:
        RunError: too few groups were kept and `on_short` is "error". "fill" adds groups that the rule rejected, as they
            were sampled; so does "short" where none was kept, for a batch cannot be empty and a run that has nothing
            to learn for a step should go on.
    """
    if n < 1 or k < 1:
        raise InputError(f"collect: a batch of {n} problems with {k} answers each is empty; both must be 1 or more.")
    refill = refill or Refill()
    rounds: list[_Round] = []
    while len(rounds) < refill.rounds and sum(len(done.kept) for done in rounds) < n:
        rounds.append(_ask(sampler, policy, verify, keep, n, k, rng, len(rounds)))
    whole = _Round(
        rollouts=concatenate([done.rollouts for done in rounds]),
        verdicts=tuple(verdict for done in rounds for verdict in done.verdicts),
        outcome=torch.cat([done.outcome for done in rounds]),
        use=torch.cat([done.use for done in rounds]),
    )
    chosen, use = _choose(whole, n, refill, keep)
    rows = (torch.isin(whole.rollouts.seq.group, chosen) & (use != Use.DROP)).nonzero().squeeze(1)
    return Batch(
        rollouts=whole.rollouts.take(rows),
        outcome=whole.outcome[rows],
        train=use[rows] == Use.TRAIN,
        seen=_seen(whole, len(rounds), n),
        step=step,
        verdicts=tuple(whole.verdicts[row] for row in rows.tolist()),
    )


def collect_metrics(seen: Seen) -> Metrics:
    """What a step's sampling cost and how it went, over all that was generated, the dropped responses too.

    `outcome/mean` is the mean of the known outcomes, NaN where none is known; lengths are in tokens; `keep/share` is
    the share of the groups drawn that the rule kept.
    """
    outcome, lengths, cut = (x.cpu().double() for x in (seen.outcome, seen.lengths, seen.end == End.LENGTH))
    known = outcome[~outcome.isnan()]
    return {
        "tokens/generated": float(lengths.sum()),
        "outcome/mean": known.mean().item(),
        "outcome/unknown": 1 - len(known) / len(outcome),
        "length/mean": lengths.mean().item(),
        "length/truncated": cut.mean().item(),
        "keep/rounds": float(seen.rounds),
        "keep/share": seen.kept / (seen.wanted * seen.rounds),
    }


def concatenate(rollouts: Sequence[Rollouts]) -> Rollouts:
    """Rollouts behind one another, padded to the longest; their groups stay apart, also where they share a problem.

    Raises:
        ValueError: there is nothing to concatenate.
    """
    if not rollouts:
        raise ValueError("concatenate: there are no rollouts")
    width = max(part.seq.tokens.shape[1] for part in rollouts)
    starts = np.cumsum([0] + [len(part.problems) for part in rollouts]).tolist()
    seq = Sequences(
        prompts=tuple(prompt for part in rollouts for prompt in part.seq.prompts),
        group=torch.cat([part.seq.group + start for part, start in zip(rollouts, starts, strict=False)]),
        tokens=torch.cat([_padded(part.seq.tokens, width) for part in rollouts]),
        mask=torch.cat([_padded(part.seq.mask, width) for part in rollouts]),
    )
    return replace(
        rollouts[0],
        seq=seq,
        problems=tuple(problem for part in rollouts for problem in part.problems),
        text=tuple(text for part in rollouts for text in part.text),
        pieces=tuple(pieces for part in rollouts for pieces in part.pieces),
        logprobs=torch.cat([_padded(part.logprobs, width) for part in rollouts]),
        end=torch.cat([part.end for part in rollouts]),
        truncated=any(part.truncated for part in rollouts),
    )


def _ask(sampler: Sampler, policy: Policy, verify: Verify, keep: Keep, n: int, k: int, rng: Rng, number: int) -> _Round:
    """One round: n problems drawn, answered, judged and kept or not."""
    problems = sampler.draw(n, rng.child("draw", number))
    if not problems:
        raise RunError(f"the sampler gave no problem when {n} were asked for.")
    rollouts = policy.sample(problems, k, rng.child("sample", number))
    rows = len(rollouts.text)
    if rows != len(problems) * k:
        raise ValueError(f"the policy gave {rows} responses to {len(problems)} problems with {k} each")
    verdicts = tuple(verify(rollouts))
    if len(verdicts) != rows:
        raise ValueError(f"verify gave {len(verdicts)} verdicts on {rows} responses")
    outcome = torch.tensor([_outcome(rollouts, row, verdict) for row, verdict in enumerate(verdicts)])
    outcome = outcome.to(device=rollouts.logprobs.device, dtype=torch.float32)
    use = keep(rollouts, outcome, rng.child("keep", number))
    if not isinstance(use, torch.Tensor) or use.shape != (rows,):
        gave = f"decisions of shape {tuple(use.shape)}" if isinstance(use, torch.Tensor) else f"a {type(use).__name__}"
        raise InputError(
            f"the keep rule gave {gave} for {rows} responses. It must give a tensor of int64 with a `Use` for each."
        )
    return _Round(rollouts=rollouts, verdicts=verdicts, outcome=outcome, use=use)


def _outcome(rollouts: Rollouts, row: int, verdict: Verdict) -> float:
    if verdict.outcome is None:
        return math.nan
    if not 0 <= verdict.outcome <= 1:
        raise RunError(
            f"the checker gave {verdict.outcome} for a response to problem {rollouts.problem(row).id!r}."
            " An outcome lies between 0 and 1, or is None where it is unknown."
        )
    return float(verdict.outcome)


def _choose(whole: _Round, n: int, refill: Refill, keep: Keep) -> tuple[Tensor, Tensor]:
    """The groups that make the batch, and the `Use` of every row, which filling changes."""
    kept, group = whole.kept, whole.rollouts.seq.group
    if len(kept) >= n:
        return kept[:n], whole.use
    drawn = torch.arange(len(whole.rollouts.problems), device=group.device)
    if refill.on_short == "fill" or (refill.on_short == "short" and not len(kept)):
        spare = drawn[~torch.isin(drawn, kept)][: n - len(kept)]
        return torch.cat([kept, spare]), torch.where(torch.isin(group, spare), int(Use.TRAIN), whole.use)
    if refill.on_short == "error":
        name = getattr(keep, "__name__", type(keep).__name__)
        raise RunError(
            f"the keep rule {name} kept {len(kept)} of the {len(drawn)} groups drawn, and {n} were wanted"
            f" (refill: rounds {refill.rounds}, on_short {refill.on_short})."
            " Raise `rounds`, loosen the rule, choose problems that the model sometimes gets right, or set `on_short`"
            " to fill."
        )
    return kept, whole.use


def _seen(whole: _Round, rounds: int, n: int) -> Seen:
    rollouts = whole.rollouts
    return Seen(
        problems=tuple(rollouts.problems[g] for g in rollouts.seq.group.tolist()),
        outcome=whole.outcome,
        lengths=rollouts.seq.mask.sum(dim=1),
        end=rollouts.end,
        rounds=rounds,
        wanted=n,
        kept=len(whole.kept),
    )


def _touched(rollouts: Rollouts, rows: Tensor) -> Tensor:
    """[N] bool -> [G] bool: the groups that have one of the rows."""
    touched = torch.zeros(len(rollouts.problems), dtype=torch.bool, device=rows.device)
    touched[rollouts.seq.group[rows]] = True
    return touched


def _whole_groups(rollouts: Rollouts, kept: Tensor) -> Tensor:
    """[G] bool -> [N] int64."""
    return torch.where(kept[rollouts.seq.group], int(Use.TRAIN), int(Use.DROP))


def _padded(values: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))
