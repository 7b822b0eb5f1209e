"""Online learning: the one loop. A method is the choice of its parts, never a loop of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from reckon.costs import Ledger, spending
from reckon.credit import credit_metrics
from reckon.errors import InputError
from reckon.rewards import reward_metrics
from reckon.runs import Progress, Run, interruptible, peak_memory
from reckon.samplers import collect, collect_metrics
from reckon.tasks import verdict_on
from reckon.types import (
    Batch,
    Credit,
    Metrics,
    Parts,
    Policy,
    Reporting,
    Rng,
    Rollouts,
    Stateful,
    Stream,
    Task,
    Verdict,
)

Evaluate = Callable[[Policy, int], Metrics]  # the policy and the steps it has made; called between steps


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to train and on how much a step."""

    steps: int
    prompts: int = 8  # problems a step
    answers: int = 8  # responses to each
    seed: int = 0
    save_every: int = 10  # steps between checkpoints; a better score on the dev split makes one too
    show: Literal["auto", "bar", "lines", "nothing"] = "auto"  # progress, on stderr

    def __post_init__(self) -> None:
        for name in ("steps", "prompts", "answers", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` is {getattr(self, name)}, but must be at least 1.")


def train(policy: Policy, task: Task, parts: Parts, run: Run, plan: Plan, evaluate: Evaluate | None = None) -> bool:
    """Trains `policy` on `task` until the plan is done or somebody presses Ctrl-C, going on from the run's checkpoint.

    Args:
        policy: what learns.
        task: poses problems through `parts.sampler` and checks the answers.
        parts: the method.
        run: the folder that everything is written to; what it holds decides where training starts.
        plan: sizes, seed and intervals.
        evaluate: called before the first step and after every step; returns {} where nothing is due. Its
            "eval/dev/pass@1" decides which checkpoint is the best.

    Returns:
        True if the plan was finished, False if it was interrupted; the run is saved either way.
    """
    memory = {"policy": policy} | {name: part for name, part in vars(parts).items() if isinstance(part, Stateful)}
    start = run.restore(memory)
    with interruptible() as stop, Progress(plan.steps, start, show=plan.show) as bar:
        if start == 0 and evaluate is not None:
            run.log(0, evaluate(policy, 0))
        for step in range(start, plan.steps):
            rng = Rng((plan.seed, step))
            done = take_step(policy, task, parts, rng, step=step, prompts=plan.prompts, answers=plan.answers)
            metrics = done.metrics | {"memory/peak_mib": peak_memory()}
            if evaluate is not None:
                metrics |= evaluate(policy, step + 1)
            run.record(step + 1, done.batch, done.streams, done.credit, done.batch.verdicts)
            run.log(step + 1, metrics)
            bar.update(step + 1, f"outcome {metrics['outcome/mean']:.2f}, {metrics['length/mean']:.0f} tokens")
            score = metrics.get("eval/dev/pass@1")
            run.save_if_due(step + 1, plan.steps, memory, every=plan.save_every, score=score, stop=stop.requested)
            if stop.requested:
                return step + 1 == plan.steps
    return True


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step drew, what it was worth, and what can be told of it."""

    batch: Batch
    streams: Mapping[str, Stream]
    credit: Credit
    metrics: Metrics  # of every part, with its seconds and tokens


def take_step(policy: Policy, task: Task, parts: Parts, rng: Rng, *, step: int, prompts: int, answers: int) -> Step:
    """One step of the loop, without a folder: draws, checks, rewards, credits and learns.

    Args:
        policy: what learns.
        task: checks the answers.
        parts: the method; its sampler and its rewards learn as well.
        rng: of this step.
        step: its number, from 0.
        prompts: problems that are posed.
        answers: responses to each.
    """

    def verify(rollouts: Rollouts) -> tuple[Verdict, ...]:
        with spending("verify"):
            return tuple(verdict_on(task, rollouts.problem(row), text) for row, text in enumerate(rollouts.text))

    with Ledger() as ledger:
        with spending("sample"):
            batch = collect(
                parts.sampler, policy, verify, parts.keep, prompts, answers, rng, step=step, refill=parts.refill
            )
        with spending("reward"):
            streams = parts.reward.assess(batch, rng.child("reward"))
        with spending("advantage"):
            credit = parts.advantage(batch, streams)
        metrics = collect_metrics(batch.seen) | reward_metrics(streams, batch) | credit_metrics(credit, batch)
        with spending("update"):
            metrics |= policy.update(parts.objective, batch, credit, rng.child("update"))
        metrics |= parts.sampler.learn(batch.seen)
    metrics |= ledger.metrics() | _told(parts)
    return Step(batch=batch, streams=streams, credit=credit, metrics=metrics)


def _told(parts: Parts) -> Metrics:
    """What the parts of a method have to say of their last step."""
    return {
        name: value
        for part in vars(parts).values()
        if isinstance(part, Reporting)
        for name, value in part.metrics().items()
    }
