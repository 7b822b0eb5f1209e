"""Beam search over steps: go on from the most promising beginnings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from reckon.errors import InputError
from reckon.process import best_of_k
from reckon.types import End, Model, Problem, Rng, Rollouts, Sequences

# [n] float: the chance of success after all that each response holds so far, the response 0 tokens long included.
Values: TypeAlias = Callable[[Rollouts], Tensor]


class Continues(Protocol):
    """All that a search asks of a policy."""

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Draws k continuations of each of the G token `prefixes`; see `Policy.sample`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Beam:
    """How wide, how far, and what counts."""

    width: int  # beginnings that are gone on from, over all parents together
    samples: int = 3  # next steps drawn for each
    alpha: float = 0.0  # how much the prover's step advantage adds to the policy's Q
    max_steps: int = 64
    init: Literal["single", "fill"] = "single"  # draw `samples` first steps, or samples * width
    duplicates: bool = True  # False = of several beginnings with the same tokens the first alone is kept

    def __post_init__(self) -> None:
        for name in ("width", "samples", "max_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"beam search: `{name}` is {getattr(self, name)}, but must be at least 1.")
        if not 0 <= self.alpha < float("inf"):
            raise InputError(f"beam search: `alpha` is {self.alpha}; it must be at least 0 and finite.")
        if self.init not in ("single", "fill"):
            raise InputError(f"beam search: `init` is {self.init!r}; it must be 'single' or 'fill'.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Searched:
    """The response found for each of P problems, and what it cost."""

    rollouts: Rollouts  # P responses, one to each problem; every token is marked as sampled
    q: Tensor  # [P] float32, the policy's Q of the whole response
    finished: Tensor  # [P] bool; False = no trace of the last beam had ended after `max_steps`
    generated: Tensor  # [P] int64, tokens sampled for the problem, those thrown away included
    scored: Tensor  # [P] int64, tokens read by verifiers: prompt and response, anew for every beginning scored


@dataclass(frozen=True, kw_only=True)
class _Trace:
    """A beginning of a response, finished or not."""

    problem: int
    end: End = End.STOP
    tokens: tuple[int, ...] = ()
    pieces: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    before: float = 0.0  # the prover's value of the parent
    v: float = 0.0  # and of this
    q: float = 0.0
    score: float = 0.0  # Q + alpha * A

    @property
    def open(self) -> bool:
        return self.end == End.STOP


class HeadValues:
    """Chances of success from a model with a value head: the sigmoid of the head, read after the last token so far."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """[n] float32."""
        # A value is read where a token is predicted, before it is known: so one more token, whichever, reads the head
        # after the last, and after the prompt alone where there is none.
        seq = rollouts.seq
        last = seq.mask.sum(dim=1, keepdim=True)
        tokens = torch.nn.functional.pad(seq.tokens, (0, 1))
        mask = torch.arange(tokens.shape[1], device=last.device) <= last
        values = self.model.outputs(replace(seq, tokens=tokens, mask=mask), ("values",)).values
        assert values is not None
        return values.gather(1, last)[:, 0].sigmoid()


def beam_search(
    policy: Continues,
    problems: Sequence[Problem],
    values: Values,
    plan: Beam,
    rng: Rng,
    prover: Values | int = 1,
) -> Searched:
    r"""Searches for a response to each problem, step by step (Setlur et al. 2024, arXiv:2410.08146, section 4).

    In each round every unfinished trace of the beam is gone on with by `plan.samples` steps of the policy; all are
    scored by Q + alpha * A, A being the prover's value after the step less that before it; the best `plan.width` of
    all make the next beam, ties to the first. A finished trace keeps its last score, which the paper leaves open. Of
    the last beam the finished trace with the highest Q is returned, not the one with the highest score.

    The policy says where a step ends: what it samples must end with `End.STOP` there (a language model with
    `Sampling(stop=("\n",))`), and otherwise when the response is over. All problems advance together, so the draws
    for one depend on which others there are.

    Args:
        policy: draws steps, and continues prefixes.
        problems: P of them.
        values: the policy's own chance of success after a prefix.
        plan: width, samples, alpha.
        rng: names the random numbers.
        prover: the prover's chance of success after a prefix; or a number K, for the best of K completions of the
            policy, made of `values` without another verifier (1 is the policy itself).

    Raises:
        InputError: `values` or `prover` gave something other than a chance in [0, 1] for each response.
    """
    search = _Search(problems, values, plan, prover)
    beams = [[_Trace(problem=p)] for p in range(len(problems))]
    for step in range(plan.max_steps):
        asked = [trace for beam in beams for trace in beam if trace.open]
        if not asked:
            break
        k = plan.samples * (plan.width if step == 0 and plan.init == "fill" else 1)
        drawn = policy.sample(
            [problems[trace.problem] for trace in asked], k, rng.child(step), [trace.tokens for trace in asked]
        )
        if step == 0:  # only now are the prompts' tokens known
            search.prompts = drawn.seq.prompts
            asked = search.judge(asked)
        pools = [[trace for trace in beam if not trace.open] for beam in beams]
        for trace in search.judge(search.children(asked, drawn, k)):
            pools[trace.problem].append(trace)
        beams = [_best(pool, plan) for pool in pools]
    return search.result([_pick(beam) for beam in beams])


class _Search:
    """The problems of one search and what was spent on each."""

    def __init__(self, problems: Sequence[Problem], values: Values, plan: Beam, prover: Values | int) -> None:
        self.problems = problems
        self.values = values
        self.plan = plan
        self.prover = prover
        self.prompts: tuple[Tensor, ...] = ()
        self.generated = [0] * len(problems)
        self.scored = [0] * len(problems)

    def children(self, asked: Sequence[_Trace], drawn: Rollouts, k: int) -> list[_Trace]:
        """What the policy made of each trace it was asked to go on with, k times; counts the tokens."""
        places = torch.arange(1, drawn.seq.mask.shape[1] + 1, device=drawn.seq.mask.device)
        sizes = (drawn.seq.mask * places).amax(dim=1).tolist()
        tokens, logprobs, end = drawn.seq.tokens.tolist(), drawn.logprobs.tolist(), drawn.end.tolist()
        found = []
        for row, last in enumerate(sizes):
            parent = asked[row // k]
            begin = len(parent.tokens)
            size = max(last, begin)  # at the policy's limit nothing is sampled behind it
            self.generated[parent.problem] += size - begin
            child = _Trace(
                problem=parent.problem,
                end=End(end[row]),
                tokens=tuple(tokens[row][:size]),
                pieces=tuple(drawn.pieces[row]) if size > begin else parent.pieces,
                logprobs=(*parent.logprobs, *logprobs[row][begin:size]),
                before=parent.v,
            )
            found.append(child)
        return found

    def judge(self, traces: Sequence[_Trace]) -> list[_Trace]:
        """The same with their scores; counts what the verifiers read."""
        rollouts = self._rollouts(traces)
        q = self._read(self.values, rollouts, "values")
        own = isinstance(self.prover, int)
        v = best_of_k(q, self.prover) if isinstance(self.prover, int) else self._read(self.prover, rollouts, "prover")
        found = []
        for trace, q_now, v_now in zip(traces, q.tolist(), v.tolist(), strict=True):
            score = q_now + self.plan.alpha * (v_now - trace.before)
            self.scored[trace.problem] += (2 - own) * (len(trace.tokens) + len(self.prompts[trace.problem]))
            found.append(replace(trace, q=q_now, v=v_now, score=score))
        return found

    def result(self, picked: Sequence[_Trace]) -> Searched:
        return Searched(
            rollouts=self._rollouts(picked),
            q=torch.tensor([trace.q for trace in picked], dtype=torch.float32),
            finished=torch.tensor([not trace.open for trace in picked], dtype=torch.bool),
            generated=torch.tensor(self.generated, dtype=torch.int64),
            scored=torch.tensor(self.scored, dtype=torch.int64),
        )

    def _read(self, values: Values, rollouts: Rollouts, name: str) -> Tensor:
        """[n] float64."""
        read = values(rollouts)
        if tuple(read.shape) != (len(rollouts.text),) or not bool(((read >= 0) & (read <= 1)).all()):
            raise InputError(
                f"beam search: `{name}` must give a chance of success in [0, 1] for each of {len(rollouts.text)} "
                f"responses. It gave numbers of shape {tuple(read.shape)}; a logit goes through a sigmoid first."
            )
        return read.double().cpu()

    def _rollouts(self, traces: Sequence[_Trace]) -> Rollouts:
        """Traces, ascending by problem, as rollouts in which every token is sampled."""
        present, group = torch.tensor([t.problem for t in traces], dtype=torch.int64).unique(return_inverse=True)
        prompts = tuple(self.prompts[p] for p in present.tolist())
        device = prompts[0].device if prompts else None
        most = max((len(trace.tokens) for trace in traces), default=0)
        sizes = torch.tensor([len(trace.tokens) for trace in traces], dtype=torch.int64)
        # One tensor of all rows: a tensor for each would cost more than a small policy's own work.
        padded = [(*trace.tokens, *[0] * (most - len(trace.tokens))) for trace in traces]
        tokens = torch.tensor(padded, dtype=torch.int64).reshape(len(traces), most)
        spoken = [(*trace.logprobs, *[0.0] * (most - len(trace.tokens))) for trace in traces]
        logprobs = torch.tensor(spoken, dtype=torch.float32).reshape(len(traces), most)
        mask = torch.arange(most) < sizes[:, None]
        return Rollouts(
            seq=Sequences(prompts=prompts, group=group.to(device), tokens=tokens.to(device), mask=mask.to(device)),
            problems=tuple(self.problems[p] for p in present.tolist()),
            text=tuple("".join(trace.pieces) for trace in traces),
            pieces=tuple(trace.pieces for trace in traces),
            logprobs=logprobs.to(device),
            end=torch.tensor([int(trace.end) for trace in traces], dtype=torch.int64, device=device),
        )


def _best(pool: Sequence[_Trace], plan: Beam) -> list[_Trace]:
    """The next beam, best first; the sort keeps the order of equals."""
    if not plan.duplicates:
        first: dict[tuple[int, ...], _Trace] = {}
        for trace in pool:
            first.setdefault(trace.tokens, trace)
        pool = list(first.values())
    return sorted(pool, key=lambda trace: -trace.score)[: plan.width]


def _pick(beam: Sequence[_Trace]) -> _Trace:
    """The finished trace with the highest Q, or the highest of all if none has ended."""
    finished = [trace for trace in beam if not trace.open]
    return max(finished or beam, key=lambda trace: trace.q)
