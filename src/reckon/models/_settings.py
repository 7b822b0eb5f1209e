"""What a user may choose about a language model, as plain data that a recipe checks before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from reckon.errors import InputError

Dtype = Literal["auto", "float32", "bfloat16"]
Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a policy answers."""

    temperature: float = 1.0  # > 0; the log-probs that training uses are at this temperature too
    max_new_tokens: int = 256
    top_k: int | None = None  # draw among the k likeliest tokens only
    top_p: float | None = None  # ... among the fewest tokens that together hold this much probability
    min_p: float | None = None  # ... among tokens at least this likely relative to the likeliest
    stop: tuple[str, ...] = ()  # a response ends with the token that completes one of these
    stop_token_ids: tuple[int, ...] = ()  # ... or with one of these tokens
    ignore_eos: bool = False  # end tokens do not end a response: every one runs to its limit, as benchmarks need
    system: str | None = None  # system message put before every prompt; None leaves the chat template's own

    def __post_init__(self) -> None:
        for name, fits, must in (
            ("temperature", self.temperature > 0, "above 0 (greedy decoding is a choice of evaluation)"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "in (0, 1]"),
            ("stop", not isinstance(self.stop, str) and all(self.stop), "a list of texts, none of them empty"),
            ("stop_token_ids", min(self.stop_token_ids, default=0) >= 0, "token ids, at least 0"),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, "in [0, 1]"),
        ):
            if not fits:
                raise InputError(f"`sampling.{name}` is {getattr(self, name)}, but must be {must}.")

    @property
    def truncated(self) -> bool:
        """Whether some tokens can never be drawn."""
        return self.top_k is not None or (self.top_p or 1.0) < 1.0 or (self.min_p or 0.0) > 0.0


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How a model learns: AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), a schedule, a clipped gradient."""

    lr: float = 1e-6
    schedule: Schedule = "constant"  # after the warm-up; linear and cosine go down to 0 at `total`
    warmup: int = 0  # optimizer steps over which the rate rises linearly to `lr`
    total: int | None = None  # optimizer steps of the whole run, were none left out; needed by linear and cosine
    clip: float | None = 1.0  # largest norm of the gradient
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    epochs: int = 1  # passes over each batch of rollouts
    minibatches: int = 1  # optimizer steps a pass

    def __post_init__(self) -> None:
        for name, fits, must in (
            ("schedule", self.schedule in get_args(Schedule), f"one of {', '.join(get_args(Schedule))}"),
            ("lr", 0 <= self.lr < math.inf, "at least 0, and finite"),
            ("warmup", self.warmup >= 0, "at least 0"),
            ("clip", self.clip is None or self.clip > 0, "above 0"),
            ("beta1", 0 <= self.beta1 < 1, "in [0, 1)"),
            ("beta2", 0 <= self.beta2 < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0, and finite"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("minibatches", self.minibatches >= 1, "at least 1"),
            ("total", self.total is not None or self.schedule == "constant", f"given for schedule {self.schedule!r}"),
        ):
            if not fits:
                raise InputError(f"`optimizer.{name}` is {getattr(self, name)}, but must be {must}.")

    def rate(self, step: int, idle: int = 0) -> float:
        """The learning rate of optimizer step `step`, counted from 0.

        Args:
            step: how many were made before it.
            idle: how many were due before it and not made, as a batch that teaches nothing makes none. They bring the
                end nearer, which comes when the run's does; the warm-up waits for steps that are made.
        """
        peak = self.lr if step >= self.warmup else self.lr * (step + 1) / (self.warmup + 1)
        if self.schedule == "constant" or self.total is None:
            return peak
        done = min(1.0, max(0, step + idle - self.warmup) / max(1, self.total - self.warmup))
        return peak * (1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters instead of full weights (Hu et al. 2022, arXiv:2106.09685), by peft."""

    rank: int = 16
    alpha: int = 32  # the adapters' output is scaled by alpha / rank
    targets: str | tuple[str, ...] = "all-linear"  # names of the layers that get adapters

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"`lora.rank` is {self.rank}, but must be at least 1.")
        if self.alpha < 1:
            raise InputError(f"`lora.alpha` is {self.alpha}, but must be at least 1, or the adapters say nothing.")


def check_sync(every: int | None, alpha: float) -> None:
    """Raises InputError for settings by which no reference can follow its model: see `Reference`."""
    if every is not None and every < 1:
        raise InputError(f"`sync_every` is {every}; it must be 1 or more optimizer steps.")
    if not 0 < alpha <= 1:
        raise InputError(f"`sync_alpha` is {alpha}; it must be above 0 and at most 1.")
