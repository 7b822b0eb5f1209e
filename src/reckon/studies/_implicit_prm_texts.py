"""The world of the study implicit-prm-transformer: a small model that adds digits and errs, and what it wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from reckon.annotate import Drawing, Labels, label_prefixes
from reckon.evaluate import first_error
from reckon.fit import CachedReference, sft
from reckon.models import LanguageModel, Optimization, Sampling, tiny
from reckon.samplers import All, collect
from reckon.steps import Pattern
from reckon.studies._study import Settings
from reckon.tasks import ChainArithmetic
from reckon.types import Batch, Metrics, Problem, Rng, Rollouts, Seen, Verdict

PER = 8  # responses to each prompt that is learned from
CANDIDATES = 16  # responses to each prompt that is chosen among
WIDTH, LAYERS = 64, 2
BATCH = 32  # examples to a step of the reference's learning
SPLITTER = Pattern(r"[^,]+,?|,")  # cuts as `ChainArithmetic.steps` does
TOKENS, ROWS = 2048, 512  # computed and drawn at once; results do not depend on them


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a world is made of: two with the same numbers are the same."""

    operations: int  # digits to add, and so steps of a response
    error: float  # the generator's, at every step
    worked: int  # right solutions that the reference first learns from, without which it learns for very long
    passes: int  # over them
    examples: int  # solutions of the generator that it then learns to imitate, each once
    sft_lr: float
    pool: int  # prompts to learn judges from
    asked: int  # prompts of dev and test each
    uneven: bool = False  # the generator's error is that of adding a 5, and in proportion to the digit

    @classmethod
    def of(cls, settings: Settings) -> Size:
        """The part of an arm's settings that makes its world."""
        return cls(**{field.name: cast("Any", settings[field.name]) for field in fields(cls) if field.name in settings})


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """Responses to `asked` prompts, CANDIDATES to each, with the truth about them."""

    batch: Batch
    answers: tuple[str | None, ...]  # N
    known: NDArray[np.bool_]  # [N], whether every step can be judged: M responses
    valid: NDArray[np.float64]  # [M, H] of these, 1 = the step follows from the one before it, NaN = no step
    first: NDArray[np.int64]  # [M], the first step that is not valid, -1 = none

    @property
    def right(self) -> NDArray[np.float64]:
        """[N], 1 where the last digit is right; wrong steps may have canceled."""
        return self.batch.outcome.double().numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """All that the arms of a seed share."""

    size: Size
    seed: int
    task: ChainArithmetic
    start: LanguageModel  # the reference, from which every judge begins; it learns nothing more
    reference: CachedReference  # the same, what it said remembered
    train: Batch  # `pool` prompts with PER responses each
    dev: Written
    test: Written


@lru_cache(maxsize=1)  # every arm of a seed begins with it
def make_world(size: Size, seed: int) -> World:
    """Teaches the reference to add, then to err as the generator does, and has it answer."""
    rng = Rng((seed, "implicit-prm-transformer"))
    task = ChainArithmetic(
        seed=seed,
        operations=size.operations,
        train=size.worked + size.examples + size.pool,
        dev=size.asked,
        test=size.asked,
    )
    problems = task.problems("train")
    worked, shown = problems[: size.worked], problems[size.worked : size.worked + size.examples]
    err = uneven_solution if size.uneven else task.noisy_solution
    solutions = [err(problem, size.error, rng.child("solution", i)) for i, problem in enumerate(shown)]
    network = tiny.make_network(layers=LAYERS, width=WIDTH, context=64, seed=seed)
    start = LanguageModel(
        network,
        tiny.make_tokenizer(),
        sampling=Sampling(max_new_tokens=2 * size.operations + 2),  # digits, commas and the end, and one step to spare
        optimizer=Optimization(lr=size.sft_lr, warmup=20),
        dtype="float32",
        device="cpu",
        tokens_per_batch=TOKENS,
        rows_per_batch=ROWS,
    )
    sft(start, worked, list(map(task.solution, worked)), rng.child("add"), epochs=size.passes, batch=BATCH)
    sft(start, shown, solutions, rng.child("err"), batch=BATCH)
    return World(
        size=size,
        seed=seed,
        task=task,
        start=start,
        reference=CachedReference(start.reference()),
        train=answered(task, start, problems[size.worked + size.examples :], PER, rng.child("train")),
        dev=_written(task, answered(task, start, task.problems("dev")[:], CANDIDATES, rng.child("dev"))),
        test=_written(task, answered(task, start, task.problems("test")[:], CANDIDATES, rng.child("test"))),
    )


def uneven_solution(problem: Problem, error: float, rng: Rng) -> str:
    """As `ChainArithmetic.noisy_solution`, but that adding a large digit errs more often: `error` a fifth of the digit.

    Over digits from 1 to 9 the mean is `error` again, which is at most 5/9. Prompts then differ in how hard they are.
    """
    digits = [int(digit) for digit in re.findall(r"\d", problem.prompt_text)]
    generator = rng.numpy()
    value, written = digits[0], []
    for digit in digits[1:]:
        value = (value + digit) % 10
        if generator.random() < error * digit / 5:
            value = (value + int(generator.integers(1, 10))) % 10
        written.append(str(value))
    return ",".join(written)


@lru_cache(maxsize=1)
def make_labels(size: Size, seed: int, completions: int) -> Labels:
    """Math-Shepherd's labels of all responses of the pool, by the reference's own completions.

    A prefix that several responses to a prompt begin with is completed once for all of them, which is cheaper than the
    paper's way.
    """
    world = make_world(size, seed)
    drawing = Drawing(share=True, cut="checked", most_tokens=world.start.sampling.max_new_tokens, problems_per_chunk=50)
    rng = Rng((seed, "implicit-prm-transformer", "labels"))
    return label_prefixes(world.start, world.task, world.train.rollouts, SPLITTER, completions, rng, drawing=drawing)


def first_rows(prompts: int, responses: int) -> torch.Tensor:
    """[prompts * responses] int64: the first responses to each of the first prompts."""
    return (torch.arange(prompts)[:, None] * PER + torch.arange(responses)).flatten()


def tokens_of_prompts(world: World, labels: Labels) -> NDArray[np.int64]:
    """[pool] tokens sampled for the responses to each prompt and for their labels."""
    group = world.train.seq.group.numpy()
    tokens = np.bincount(group, weights=world.train.seq.mask.sum(dim=1).numpy())
    drawn = np.bincount(group[[label.trace for label in labels]], weights=[label.generated for label in labels])
    return (tokens + drawn).astype(np.int64)


@dataclass(frozen=True)
class _InOrder:
    """A sampler that poses the problems it was given, from the first on."""

    problems: Sequence[Problem]

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        return self.problems[:n]

    def learn(self, seen: Seen) -> Metrics:
        return {}


def answered(task: ChainArithmetic, policy: LanguageModel, problems: Sequence[Problem], k: int, rng: Rng) -> Batch:
    """What a policy writes to each of these problems, k times, judged; nothing is dropped."""

    def verify(rollouts: Rollouts) -> list[Verdict]:
        return [task.check(rollouts.problem(row), text) for row, text in enumerate(rollouts.text)]

    return collect(_InOrder(problems), policy, verify, All(), n=len(problems), k=k, rng=rng, step=0)


def _written(task: ChainArithmetic, batch: Batch) -> Written:
    rollouts = batch.rollouts
    steps = [task.steps(rollouts.problem(row), text) for row, text in enumerate(rollouts.text)]
    # A step of white space alone is none to the judges, who would count others.
    known = [
        bool(found) and not re.search(r"\s", text) and all(step.valid is not None for step in found)
        for found, text in zip(steps, rollouts.text, strict=True)
    ]
    judged = [found for found, all_known in zip(steps, known, strict=True) if all_known]
    valid = np.full((len(judged), max(map(len, judged), default=0)), np.nan)
    for row, found in enumerate(judged):
        valid[row, : len(found)] = [bool(step.valid) for step in found]
    return Written(
        batch=batch,
        answers=tuple(verdict.answer for verdict in batch.verdicts),
        known=np.array(known),
        valid=valid,
        first=first_error(valid, 0.5),
    )
