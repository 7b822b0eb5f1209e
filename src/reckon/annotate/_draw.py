"""Responses cut into prefixes, and completions of prefixes, drawn many at a time and judged."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from reckon.annotate._cost import Cost, Purse
from reckon.errors import InputError
from reckon.steps import Splitter, step_ends, token_ends
from reckon.tasks import verdict_on
from reckon.types import End, Problem, Rng, Rollouts, Task


class Continues(Protocol):
    """What labels are drawn from: the part of a `Policy` that answers."""

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Draws k responses to each problem, continuing the token `prefixes` where given."""
        ...


class _Limited(Protocol):
    """A policy that can be told how many tokens each response may still have."""

    def sample(
        self,
        problems: Sequence[Problem],
        k: int,
        rng: Rng,
        prefixes: Sequence[Sequence[int]] | None = None,
        limits: Sequence[int] | None = None,
    ) -> Rollouts: ...


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How completions are drawn and judged.

    Args:
        policy_id: a name for the policy, kept with every label: values of two policies are never mixed.
        ended: "check": nothing can follow a whole response, so its value is its verdict, exactly and for nothing.
            "draw": it too is continued, from before its end token, as the paper's count of rollouts has it.
        share: True = a prefix that several traces of a problem begin with is drawn once for all of them.
        cut: "wrong": a response that ran into the limit is wrong, as in the paper. "checked": it is judged by its text,
            as the outcome of a training batch is. What cannot be checked stays unknown either way.
        most_tokens: the most tokens of a response, its prefix included, so that a completion is cut where the policy's
            own response would be. The policy's `sample` must take `limits`. None = as the policy does by itself.
        problems_per_chunk: how many problems are worked on at a time. Random numbers belong to the chunk, so another
            size gives other, equally good labels.
    """

    policy_id: str = "policy"
    ended: Literal["check", "draw"] = "check"
    share: bool = False
    cut: Literal["wrong", "checked"] = "wrong"
    most_tokens: int | None = None
    problems_per_chunk: int = 8

    def __post_init__(self) -> None:
        for name, allowed in (("ended", ("check", "draw")), ("cut", ("wrong", "checked"))):
            if getattr(self, name) not in allowed:
                raise InputError(f"drawing: `{name}` is {getattr(self, name)!r}; it must be {' or '.join(allowed)}.")
        for name in ("most_tokens", "problems_per_chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"drawing: `{name}` is {value}; it must be at least 1.")


@dataclass(frozen=True)
class Trace:
    """A response cut into steps."""

    problem: Problem
    tokens: tuple[int, ...]
    ends: tuple[int, ...]  # the index of each step's last token
    texts: tuple[str, ...]  # of each step
    whole: bool  # nothing can follow its last token
    trailing: int  # end or stop tokens behind the text: 0 or 1
    ended: bool  # by itself, not at the limit
    outcome: int | None = None  # 1 right, 0 wrong, None unknown

    @property
    def steps(self) -> int:
        """H."""
        return len(self.ends)

    def prefix(self, step: int) -> tuple[int, ...]:
        """The tokens up to the end of a step; 0 = the empty prefix. A whole response is without its end token.

        A value is that of a text: a verifier is read before the end token, and nothing is gone on from behind it.
        """
        if step == 0:
            return ()
        return self.tokens[: self.ends[step - 1] + 1 - (self.trailing if step == self.steps else 0)]


@dataclass(frozen=True)
class Count:
    """How the completions of one prefix went."""

    n: int  # with a known verdict
    correct: int
    drawn: int = 0
    generated: int = 0


@dataclass(frozen=True)
class Completion:
    """One completion, its prefix included."""

    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    end: int
    outcome: int | None


def make_trace(problem: Problem, completion: Completion, splitter: Splitter, drawing: Drawing, *, where: str) -> Trace:
    """Cuts a response into steps.

    Raises:
        InputError: the splitter gave what cannot be; names the response.
    """
    tokens = completion.tokens
    pieces = (*completion.pieces, *[""] * (len(tokens) - len(completion.pieces)))
    try:
        ends = token_ends(pieces, step_ends("".join(pieces), splitter))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    starts = [0, *[end + 1 for end in ends]]
    full = drawing.most_tokens is not None and len(tokens) >= drawing.most_tokens
    return Trace(
        problem=problem,
        tokens=tokens,
        ends=tuple(ends),
        texts=tuple("".join(pieces[start : end + 1]) for start, end in zip(starts, ends, strict=False)),
        whole=full or drawing.ended == "check",
        trailing=int(completion.end != End.LENGTH and bool(pieces) and not pieces[-1]),
        ended=completion.end != End.LENGTH,
        outcome=completion.outcome,
    )


def judged(task: Task, rollouts: Rollouts, row: int, drawing: Drawing) -> int | None:
    """1 if a response is right, 0 if not, None if nobody knows. Partial credit is not right."""
    outcome = verdict_on(task, rollouts.problem(row), rollouts.text[row]).outcome
    if outcome is None:
        return None
    if drawing.cut == "wrong" and int(rollouts.end[row]) == End.LENGTH:
        return 0
    return int(outcome == 1)


def sampled_tokens(rollouts: Rollouts) -> list[int]:
    """Of each response; those of a given prefix do not count."""
    return [int(count) for count in rollouts.seq.mask.sum(dim=1).tolist()]


def rows_of(rollouts: Rollouts) -> list[tuple[int, ...]]:
    """The tokens of each response up to the last one sampled, its given prefix included."""
    tokens, mask = rollouts.seq.tokens.tolist(), rollouts.seq.mask.tolist()
    return [
        tuple(row[: max((t + 1 for t, on in enumerate(here) if on), default=0)])
        for row, here in zip(tokens, mask, strict=True)
    ]


class Drawer:
    """A policy, a checker and a purse."""

    def __init__(self, policy: Continues, task: Task, drawing: Drawing, purse: Purse) -> None:
        """Asks nothing of the policy yet."""
        self.policy, self.task, self.drawing, self.purse = policy, task, drawing, purse
        if drawing.most_tokens is not None and "limits" not in inspect.signature(policy.sample).parameters:
            raise InputError(
                f"drawing: `most_tokens` is {drawing.most_tokens}, but the policy's `sample` takes no `limits`. "
                "Leave it out, and set the policy's own limit."
            )

    def check_room(self, problem: Problem, prefix: Sequence[int]) -> None:
        """Raises InputError for a prefix that no token may follow."""
        most = self.drawing.most_tokens
        if most is not None and len(prefix) >= most:
            raise InputError(
                f"problem {problem.id!r} has a prefix of {len(prefix)} tokens and `most_tokens` is {most}: nothing can "
                "follow. Raise it, or draw the seeds with this limit."
            )

    def complete(self, wanted: Sequence[tuple[Problem, tuple[int, ...]]], n: int, rng: Rng) -> list[list[Completion]]:
        """Draws n completions of each prefix in one call, and judges them.

        Args:
            wanted: problems and prefixes.
            n: completions of each, at least 1.
            rng: names the random numbers.

        Returns:
            The n completions of each prefix.

        Raises:
            InputError: a prefix is as long as a response may be.
        """
        if not wanted:
            return []
        assert self.purse.affords(len(wanted) * n)
        for problem, prefix in wanted:
            self.check_room(problem, prefix)
        problems, prefixes = [problem for problem, _ in wanted], [prefix for _, prefix in wanted]
        if self.drawing.most_tokens is None:
            rollouts = self.policy.sample(problems, n, rng, prefixes=prefixes)
        else:
            limits = [self.drawing.most_tokens - len(prefix) for prefix in prefixes for _ in range(n)]
            rollouts = cast("_Limited", self.policy).sample(problems, n, rng, prefixes=prefixes, limits=limits)
        tokens, ends = rows_of(rollouts), rollouts.end.tolist()
        verdicts = [judged(self.task, rollouts, row, self.drawing) for row in range(len(tokens))]
        done = [
            # Of a prefix that is at the policy's own limit nothing is sampled: its completion is itself.
            Completion(tokens[row] or prefixes[row // n], rollouts.pieces[row], int(ends[row]), verdict)
            for row, verdict in enumerate(verdicts)
        ]
        self.purse.spend(Cost(rollouts=len(done), tokens=sum(sampled_tokens(rollouts)), checks=len(done)))
        return [done[place * n : place * n + n] for place in range(len(wanted))]


def count(completions: Sequence[Completion], given: int) -> Count:
    """Counts the verdicts; unknown ones leave count and mean.

    Args:
        completions: of one prefix.
        given: how many tokens it has.
    """
    known = [one.outcome for one in completions if one.outcome is not None]
    return Count(
        n=len(known),
        correct=sum(known),
        drawn=len(completions),
        generated=sum(len(one.tokens) - given for one in completions),
    )
