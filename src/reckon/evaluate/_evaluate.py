"""Poses the problems of a split to a policy and keeps what came back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Protocol, cast

from reckon.errors import InputError
from reckon.evaluate._summary import Response, summarize
from reckon.tasks import verdict_on
from reckon.types import Batch, End, Metrics, Problem, Reward, Rng, Rollouts, Split, Task, Verdict

CHUNK = 64  # answers asked for at a time, so that progress shows and memory stays bounded


_NAMES = tuple(field.name for field in fields(Response) if field.name != "streams")


class Answers(Protocol):
    """A policy that can be examined: it answers at its own temperature, or with the likeliest tokens."""

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Answers each problem k times."""
        ...

    def greedy(self, problems: Sequence[Problem]) -> Rollouts:
        """One response to each problem, each token the likeliest."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What a policy answered to the problems of a split, and what that amounts to."""

    responses: tuple[Response, ...]  # by problem; a problem's greedy answer, if any, before its samples

    @cached_property
    def metrics(self) -> Metrics:
        """Every score, by the names of `summarize`."""
        return summarize(self.responses)

    def columns(self, step: int = 0) -> dict[str, list[object]]:
        """The responses as columns of the schema `reckon.runs.EVALUATIONS`, for `Run.evaluation`."""
        found: dict[str, list[object]] = {"step": [step] * len(self.responses)}
        for name in _NAMES:
            found[name] = [getattr(response, name) for response in self.responses]
        for name in self.responses[0].streams if self.responses else ():
            found[f"stream/{name}"] = [response.streams[name] for response in self.responses]
        return found

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[object]]) -> Evaluation:
        """What `columns` gave, also after a detour through a file: `from_columns(table.to_pydict())`.

        Raises:
            InputError: if a column is missing, or the rows are of more than one step.
        """
        for name in _NAMES:
            if name not in columns:
                raise InputError(f"an evaluation has no column {name!r}; it must have {', '.join(_NAMES)}.")
        steps = sorted({str(step) for step in columns.get("step", ())})
        if len(steps) > 1:
            raise InputError(f"these are evaluations of steps {', '.join(steps)}; choose the rows of one step.")
        scored = {name[len("stream/") :]: values for name, values in columns.items() if name.startswith("stream/")}
        rows = zip(*(columns[name] for name in _NAMES), strict=True)
        return cls(
            responses=tuple(
                _response(
                    dict(zip(_NAMES, row, strict=True))
                    | {"streams": {name: values[place] for name, values in scored.items()}}
                )
                for place, row in enumerate(rows)
            )
        )

    def logged(self, split: Split) -> Metrics:
        """The metrics under the names a run's log gives them: "eval/<split>/pass@1" and so on."""
        return {f"eval/{split}/{name}": value for name, value in self.metrics.items()}

    def __str__(self) -> str:
        score = self.metrics
        known = int(score["items"] - score["items/unknown"])
        left = (
            f"; {int(score['items/unknown'])} problems left out, their verdict is unknown"
            if known < score["items"]
            else ""
        )
        if not known:
            return f"No verdict on any of {int(score['items'])} problems: nobody knows whether the answers are right"
        return (
            f"{score['pass@1']:.1%} of {known} problems right (95% interval {score['low']:.1%} to {score['high']:.1%}; "
            f"best constant answer {score['constant']:.1%}){left}"
        )


def evaluate(
    policy: Answers,
    task: Task,
    *,
    rng: Rng,
    split: Split = "test",
    n: int | None = None,
    k: int = 1,
    greedy: bool = True,
    reward: Reward | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Examines a policy on the problems of a split.

    Args:
        policy: answers.
        task: poses the problems and checks the answers.
        rng: for the samples; greedy answers need none.
        split: which problems.
        n: how many of them, at least 1; the same ones for every policy, step and `rng`, spread over the whole split.
            Left out, all.
        k: samples per problem. With `greedy` and k = 1 no sample is drawn: the greedy answer is the one answer.
        greedy: whether pass@1 is that of the likeliest answer; else it is that of the samples.
        reward: judges the answers as well; each stream's value stands beside the verdict. Nothing learns from it.
        progress: called with (problems done, problems in all) as it goes on.

    Raises:
        InputError: if the split has no problems or fewer than n, or k or n is below 1.
    """
    if k < 1:
        raise InputError(f"evaluate: k = {k} samples per problem; give at least 1.")
    problems = _choose(task, split, n)
    responses: list[Response] = []
    size = max(1, CHUNK // k)
    for start in range(0, len(problems), size):
        part = problems[start : start + size]
        if greedy:
            responses += _judged(task, policy.greedy(part), start, reward, greedy=True)
        if k > 1 or not greedy:
            responses += _judged(task, policy.sample(part, k, rng.child(split, start)), start, reward, greedy=False)
        if progress is not None:
            progress(min(start + size, len(problems)), len(problems))
    responses.sort(key=lambda response: response.group)
    return Evaluation(responses=tuple(replace(response, row=row) for row, response in enumerate(responses)))


def _choose(task: Task, split: Split, n: int | None) -> list[Problem]:
    problems = list(task.problems(split))
    if not problems:
        raise InputError(f"evaluate: split {split!r} of task {task.name!r} has no problems; choose another split.")
    if len({problem.id for problem in problems}) < len(problems):
        raise InputError(f"evaluate: split {split!r} of task {task.name!r} uses a problem id twice; make ids unique.")
    if n is None:
        return problems
    if not 1 <= n <= len(problems):
        raise InputError(
            f"evaluate: n = {n}, but split {split!r} of task {task.name!r} has {len(problems)} problems; "
            f"give 1 to {len(problems)}, or leave n out for all."
        )
    # Not the first n: a file may be sorted, by domain or by difficulty.
    chosen = Rng(("evaluate", task.name, split)).numpy().permutation(len(problems))[:n]
    return [problems[i] for i in sorted(chosen.tolist())]


def _judged(task: Task, rollouts: Rollouts, start: int, reward: Reward | None, *, greedy: bool) -> list[Response]:
    lengths, ends = rollouts.seq.mask.sum(dim=1).tolist(), rollouts.end.tolist()
    tokens, logprobs = rollouts.seq.tokens.tolist(), rollouts.logprobs.tolist()
    seen = [0] * len(rollouts.problems)
    verdicts = [verdict_on(task, rollouts.problem(row), text) for row, text in enumerate(rollouts.text)]
    streams = {} if reward is None else _scored(reward, rollouts, verdicts)
    judged = []
    for row, group in enumerate(rollouts.seq.group.tolist()):
        problem, text, length = rollouts.problems[group], rollouts.text[row], lengths[row]
        verdict = verdicts[row]
        judged.append(
            Response(
                row=row,
                group=start + group,
                problem=problem.id,
                domain=problem.domain,
                prompt=problem.prompt_text,
                answer=problem.answer,
                text=text,
                outcome=verdict.outcome,
                parsed=verdict.answer,
                reason=verdict.reason,
                end=End(ends[row]).name.lower(),
                tokens=tuple(tokens[row][:length]),
                pieces=rollouts.pieces[row],
                logprobs=tuple(logprobs[row][:length]),
                sample=seen[group],
                greedy=greedy,
                streams={name: values[row] for name, values in streams.items()},
            )
        )
        seen[group] += 1
    return judged


def _scored(reward: Reward, rollouts: Rollouts, verdicts: Sequence[Verdict]) -> dict[str, list[float | None]]:
    """Each stream as one number a response: a reward of tokens added up, an advantage or weight of them averaged."""
    import torch

    seq = rollouts.seq
    outcome = torch.tensor([math.nan if v.outcome is None else v.outcome for v in verdicts], device=seq.tokens.device)
    batch = Batch.given(rollouts, outcome, verdicts=tuple(verdicts))
    found: dict[str, list[float | None]] = {}
    for name, stream in reward.score(batch).items():
        values = stream.values
        if values.ndim == 2:
            given = seq.mask & ~values.isnan()
            total, count = torch.where(given, values, 0.0).sum(dim=1), given.sum(dim=1)
            values = torch.where(count > 0, total if stream.kind == "reward" else total / count, torch.nan)
        found[name] = [None if math.isnan(value) else value for value in values.tolist()]
    return found


def _response(row: dict[str, object]) -> Response:
    for name in ("tokens", "pieces", "logprobs"):
        row[name] = tuple(cast("list[object]", row[name]))
    return Response(**row)  # type: ignore[arg-type]  # the schema of the file is what holds the types
