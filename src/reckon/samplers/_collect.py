"""How problems, answers and a keep rule make a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from reckon.errors import InputError, RunError
from reckon.samplers._keep import touched
from reckon.types import (
    Batch,
    End,
    Keep,
    Metrics,
    Policy,
    Refill,
    Rng,
    Rollouts,
    Sampler,
    Seen,
    Sequences,
    Use,
    Verdict,
)

if TYPE_CHECKING:
    from torch import Tensor

Verify: TypeAlias = "Callable[[Rollouts], Sequence[Verdict]]"  # N, one for each response


@dataclass(frozen=True, kw_only=True, eq=False)
class _Round:
    rollouts: Rollouts
    verdicts: tuple[Verdict, ...]  # N
    outcome: Tensor  # [N] float32, the verdicts' outcomes, NaN = unknown
    use: Tensor  # [N]

    @property
    def kept(self) -> Tensor:
        """[groups kept] int64, ascending."""
        return touched(self.rollouts, self.use == Use.TRAIN).nonzero().squeeze(1)


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
            were sampled. Where none was kept "short" and "repeat" add them too, as context from which nobody learns:
            a batch cannot be empty, and a run that has nothing to learn for a step should go on.
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
    chosen, use = _choose(whole, n, refill, keep, rng.child("repeat"))
    parts = [(torch.isin(whole.rollouts.seq.group, part) & (use != Use.DROP)).nonzero().squeeze(1) for part in chosen]
    rows = torch.cat(parts)
    return Batch(
        rollouts=concatenate([whole.rollouts.take(part) for part in parts]),
        outcome=whole.outcome[rows],
        train=use[rows] == Use.TRAIN,
        seen=_seen(whole, len(rounds), n),
        step=step,
        verdicts=tuple(whole.verdicts[row] for row in rows.tolist()),
        rng=rng,
    )


def collect_metrics(seen: Seen) -> Metrics:
    """What a step's sampling cost and how it went, over all that was generated, the dropped responses too.

    `outcome/mean` is the mean of the known outcomes, NaN where none is known; lengths are in tokens; `keep/share` is
    the share of the groups drawn that the rule kept. `rollouts/wasted` are the responses of groups that it dropped, or
    kept beyond the number wanted.
    """
    outcome, lengths, cut = (x.cpu().double() for x in (seen.outcome, seen.lengths, seen.end == End.LENGTH))
    known = outcome[~outcome.isnan()]
    groups = seen.wanted * seen.rounds
    return {
        "tokens/generated": float(lengths.sum()),
        "rollouts/generated": float(len(outcome)),
        "rollouts/wasted": len(outcome) - len(outcome) * min(seen.kept, seen.wanted) / groups,
        "outcome/mean": known.mean().item(),
        "outcome/unknown": 1 - len(known) / len(outcome),
        "length/mean": lengths.mean().item(),
        "length/truncated": cut.mean().item(),
        "keep/rounds": float(seen.rounds),
        "keep/share": seen.kept / groups,
    }


def concatenate(rollouts: Sequence[Rollouts]) -> Rollouts:
    """Rollouts behind one another, padded to the longest; their groups stay apart, also where they share a problem.

    Raises:
        ValueError: there is nothing to concatenate.
    """
    if not rollouts:
        raise ValueError("concatenate: there are no rollouts")
    if len(rollouts) == 1:
        return rollouts[0]
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


def _choose(whole: _Round, n: int, refill: Refill, keep: Keep, rng: Rng) -> tuple[list[Tensor], Tensor]:
    """The groups that make the batch, in parts that hold none twice, and every row's `Use`, which filling changes."""
    kept, group = whole.kept, whole.rollouts.seq.group
    if len(kept) >= n:
        return [kept[:n]], whole.use
    drawn = torch.arange(len(whole.rollouts.problems), device=group.device)
    if refill.on_short == "error":
        name = getattr(keep, "__name__", type(keep).__name__)
        raise RunError(
            f"the keep rule {name} kept {len(kept)} of the {len(drawn)} groups drawn, and {n} were wanted"
            f" (refill: rounds {refill.rounds}, on_short {refill.on_short})."
            " Raise `rounds`, loosen the rule, choose problems that the model sometimes gets right, or set `on_short`"
            " to fill."
        )
    if refill.on_short == "fill" or not len(kept):
        spare = drawn[~torch.isin(drawn, kept)][: n - len(kept)]
        use = Use.TRAIN if refill.on_short == "fill" else Use.CONTEXT
        return [torch.cat([kept, spare])], torch.where(torch.isin(group, spare), int(use), whole.use)
    if refill.on_short == "repeat":
        order = torch.from_numpy(rng.numpy().permutation(len(kept))).to(kept.device)
        whole_times, more = divmod(n, len(kept))
        return [kept] * whole_times + [kept[order[:more].sort().values]] * (more > 0), whole.use
    return [kept], whole.use


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


def _padded(values: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))
