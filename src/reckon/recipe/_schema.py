"""The settings of a run that are no parts: how long, how much, how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from reckon.types import Split

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Target = Literal["tensorboard", "trackio", "wandb"]


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """Supervised fine-tuning on the task's worked solutions, before the first step."""

    examples: Count  # train problems whose solutions are shown
    epochs: Count = 1
    lr: Positive = 1e-4
    batch: Count = 16  # examples an optimizer step


@dataclass(frozen=True, kw_only=True)
class SyncReference:
    """How the reference follows the policy, for every part that compares with it (TR-DPO, arXiv:2404.09656)."""

    every: Count = 512  # optimizer steps
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.6  # the policy's share in the reference's new weights


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """When the policy is examined, and on what."""

    every: CountOrZero = 10  # steps; 0 = only before the first and after the last
    n: Count | None = 128  # problems; null = all
    k: Count = 1  # samples per problem
    greedy: bool = True  # pass@1 is that of the likeliest answer; else of samples
    split: Split = "dev"
    final: Split | None = "test"  # examined before the first step and after the last; null = not at all


@dataclass(frozen=True, kw_only=True)
class Save:
    """When a run is saved."""

    every: Count = 10  # steps
    keep: Count = 2  # checkpoints that stay, beside the best on the dev split


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The keys of a recipe that are neither parts nor the model's."""

    steps: Count = 100
    prompts: Count = 8  # problems a step
    answers: Count = 8  # responses to each
    seed: int = 0
    warmup: Warmup | None = None
    sync_reference: SyncReference | None = None  # null = it stays the policy as it was before training
    evaluate: Evaluate | None = Evaluate()
    save: Save = Save()
    out: str = "runs/{name}"  # the run's folder; {name} is the recipe's file name
    log: tuple[Target, ...] = ()  # where metrics go beside the run's folder
