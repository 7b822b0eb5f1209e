"""Tiny transformers for studies: taught once a seed, trained from there by recipes in the one loop, and examined."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from transformers.utils import logging

from reckon.errors import InputError
from reckon.evaluate import evaluate
from reckon.fit import sft
from reckon.models import LanguageModel, Optimization, Sampling, load_model, tiny
from reckon.recipe import Recipe
from reckon.runs import Run
from reckon.train import Plan, train
from reckon.types import Json, Metrics, Parts, Policy, Problem, Rng, Split, Task, Worked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LAYERS, WIDTH, CONTEXT = 2, 64, 64  # as the specifications have them; characters of a prompt and its response
BATCH = 32  # texts to a step of teaching
LOOK = 10  # steps of teaching between two questions whether it is enough
_OURS = ("model", "seed", "warmup", "evaluate", "save", "out")  # keys of a recipe that `run` fills in


class _Computing(TypedDict):
    dtype: Literal["float32"]
    device: str
    tokens_per_batch: int
    rows_per_batch: int


# How every model of a study computes: the same digits on machines with and without bfloat16.
COMPUTING: _Computing = {"dtype": "float32", "device": "cpu", "tokens_per_batch": 2048, "rows_per_batch": 512}

Examine: TypeAlias = "Callable[[LanguageModel, Parts, int], Metrics]"  # the policy, its parts and the steps made


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Texts that a model learns to write, and how often it is shown them."""

    problems: Sequence[Problem]
    texts: Sequence[str]  # one for each problem
    passes: int = 1
    ended: Sequence[bool] | None = None  # False: a text that is cut off, with no end token; left out, all end


class Start:
    """A taught model in a folder of its own, which all arms of a seed train from; gone with the object."""

    def __init__(self, model: LanguageModel) -> None:
        """Keeps the model as it is now."""
        self.folder = Path(tempfile.mkdtemp(prefix="reckon-start-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.sampling = model.sampling
        logging.disable_progress_bar()  # it is done in a moment
        model.save_pretrained(self.folder)

    def open(self, optimizer: Optimization | None = None, *, value_head: bool = False) -> LanguageModel:
        """The model, as new; what one does with it leaves the others alone."""
        return load_model(
            str(self.folder), sampling=self.sampling, optimizer=optimizer, value_head=value_head, **COMPUTING
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What a run left."""

    model: LanguageModel
    parts: Parts
    lines: tuple[Metrics, ...]  # of metrics.jsonl

    def curve(self, name: str) -> dict[int, float]:
        """What was logged under this name, by steps made.

        Raises:
            InputError: nothing was.
        """
        found = {int(line["step"]): line[name] for line in self.lines if name in line}
        if not found:
            known = ", ".join(sorted({key for line in self.lines for key in line}))
            raise InputError(f"no line of this run has {name!r}. There are: {known}.")
        return found

    def total(self, name: str = "tokens/generated") -> dict[int, float]:
        """The sum of what was logged under this name up to each step, 0 before the first."""
        sums = {0: 0.0}
        for step, value in self.curve(name).items():
            sums[step] = sums[max(sums)] + value
        return sums


def teach(
    lessons: Sequence[Lesson],
    rng: Rng,
    *,
    max_new_tokens: int,
    lr: float = 1e-3,
    enough: Callable[[LanguageModel], bool] | None = None,
    network: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Start:
    """A new transformer, of two layers and one token a character unless given, that imitates each lesson in turn.

    Args:
        lessons: in order.
        rng: names the weights it begins with and the order of the texts.
        max_new_tokens: most tokens of its responses, here and in training.
        lr: of AdamW, after 20 steps of warm-up.
        enough: asked every 10 steps whether teaching can end early. Never ask about test problems.
        network: begins as it is, instead of one with weights drawn from `rng`.
        tokenizer: the network's, where it has another than one token a character.

    Raises:
        InputError: no lesson, or a lesson without texts or with more or fewer than problems.
    """
    if not lessons:
        raise InputError("a model cannot be taught without a lesson. Give problems and their texts.")
    model = LanguageModel(
        network or tiny.make_network(layers=LAYERS, width=WIDTH, context=CONTEXT, seed=rng.child("weights").integer()),
        tokenizer or tiny.make_tokenizer(),
        sampling=Sampling(max_new_tokens=max_new_tokens),
        optimizer=Optimization(lr=lr, warmup=20),
        **COMPUTING,
    )
    for number, lesson in enumerate(lessons):
        if len(lesson.problems) != len(lesson.texts) or not lesson.texts:
            raise InputError(
                f"lesson {number} has {len(lesson.problems)} problems and {len(lesson.texts)} texts. Give one for each."
            )
        for done in range(lesson.passes):
            order = rng.child(number, done).numpy().permutation(len(lesson.texts)).tolist()
            for first in range(0, len(order), LOOK * BATCH):
                rows = order[first : first + LOOK * BATCH]
                problems, texts = [lesson.problems[i] for i in rows], [lesson.texts[i] for i in rows]
                ended = None if lesson.ended is None else [lesson.ended[i] for i in rows]
                sft(model, problems, texts, rng.child(number, done, first), batch=BATCH, ended=ended)
                if enough is not None and enough(model):
                    return Start(model)
    return Start(model)


def run(
    recipe: Mapping[str, Json],
    start: Start,
    seed: int,
    *,
    examine: Examine | None = None,
    every: int = 0,
    folder: Path | None = None,
) -> Trained:
    """A whole training run of a recipe that begins at `start`, through `reckon.train` and nothing else.

    Two recipes with the same seed are posed the same problems and draw the same numbers, as far as their parts ask for
    the same. A task or part of a study's own is written as `f"{__file__}:Name"`, as in anybody's recipe.

    Args:
        recipe: method, task, optimizer, steps, prompts, answers and what else it changes, as in a file.
        start: the model.
        seed: the run's.
        examine: called before the first step and after the last; what it returns is logged.
        every: steps between two more of these calls; 0 = no more.
        folder: where the run goes; left out, a folder that is deleted.

    Raises:
        InputError: the recipe cannot be used, or has a key that is filled in here.
        KeyboardInterrupt: somebody pressed Ctrl-C; half a run must not pass for one.
    """
    for key in _OURS:
        if key in recipe:
            raise InputError(f"the recipe of a study's run has `{key}`, which `run` fills in. Leave it out.")
    filled: dict[str, object] = {
        "sampling": {"max_new_tokens": start.sampling.max_new_tokens},
        **recipe,
        "model": {"name": str(start.folder), **COMPUTING},
        "seed": seed,
        "evaluate": None,
    }
    read = Recipe.parse(json.dumps(filled), name="recipe of a study")
    read.check_training()
    policy = read.load_policy()
    parts, frame = read.build(policy), read.frame
    plan = Plan(
        steps=frame.steps,
        prompts=frame.prompts,
        answers=frame.answers,
        seed=seed,
        save_every=frame.steps,
        show="nothing",
    )

    def look(_: Policy, step: int) -> Metrics:
        due = step in (0, frame.steps) or (every > 0 and step % every == 0)
        return examine(policy, parts, step) if due and examine is not None else {}

    home: AbstractContextManager[str] = nullcontext(str(folder))
    if folder is None:
        home = tempfile.TemporaryDirectory(prefix="reckon-run-")
    with home as place, Run.create(Path(place), recipe=read.resolved(), keep_last=1) as kept:
        finished = train(policy, read.made_task, parts, kept, plan, look)
        lines = tuple(kept.metrics())
    if not finished:
        raise KeyboardInterrupt
    return Trained(model=policy, parts=parts, lines=lines)


def exam(
    model: LanguageModel, task: Task, seed: int, *, split: Split = "test", n: int | None = None, k: int = 8
) -> Metrics:
    """How good a model is: the same problems and random numbers for every arm and step of a seed.

    Args:
        model: answers each problem once with the likeliest tokens and k times by drawing.
        task: poses the problems.
        seed: the study's.
        split: of the problems.
        n: how many; left out, all.
        k: samples to a problem, at least 2.

    Returns:
        "greedy" and "sampled", the shares that are right; "pass@k" for this k; "length" in tokens, "truncated" and
        "surprise" (mean -log-prob of a drawn token in nats, whose expectation is the entropy) of the samples; where the
        task can judge steps, "steps right", the share of the samples' judged steps that are valid.

    Raises:
        InputError: k below 2, or the split has too few problems.
    """
    if k < 2:
        raise InputError(f"an exam needs k of at least 2 samples to a problem, not {k}.")
    found = evaluate(model, task, rng=Rng((seed, "exam")), split=split, n=n, k=k)
    drawn = [response for response in found.responses if not response.greedy]
    lengths = [len(response.tokens) for response in drawn]
    metrics: Metrics = {
        "greedy": found.metrics["pass@1"],
        "sampled": found.metrics["sampled/pass@1"],
        f"pass@{k}": found.metrics[f"pass@{k}"],
        "length": sum(lengths) / len(lengths),
        "truncated": sum(response.end == "length" for response in drawn) / len(drawn),
        "surprise": -sum(sum(response.logprobs) for response in drawn) / sum(lengths),
    }
    if isinstance(task, Worked):
        problems = {problem.id: problem for problem in task.problems(split)}
        steps = [step for response in drawn for step in task.steps(problems[response.problem], response.text)]
        judged = [step.valid for step in steps if step.valid is not None]
        metrics["steps right"] = sum(judged) / len(judged) if judged else float("nan")
    return metrics
