"""Our side: one GRPO step as `reckon.train` makes it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
import wire

from reckon.credit import GroupNormalized
from reckon.losses import ClippedRatio
from reckon.models import LanguageModel, Optimization, Sampling, load_model
from reckon.rewards import Sum
from reckon.samplers import All, collect
from reckon.types import Batch, Metrics, Parts, Problem, Rng, Rollouts, Seen, Stream, Verdict


class InOrder:
    """Poses the benchmark's prompts, each step its own."""

    def __init__(self, steps: Sequence[Sequence[str]]) -> None:
        self._problems = [Problem(id=f"{i}", prompt=text) for i, text in enumerate(chain.from_iterable(steps))]
        self._drawn = 0

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        self._drawn += n
        return self._problems[self._drawn - n : self._drawn]

    def learn(self, seen: Seen) -> Metrics:
        return {}


class Place:
    """Rewards a response for its place in its group: it differs within every group, and costs nothing."""

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        group = batch.seq.group
        first = torch.searchsorted(group, group)
        return {"place": Stream(values=(torch.arange(len(group), device=group.device) - first).float())}


@dataclass(frozen=True)
class Limited:
    """A policy whose answers have given lengths."""

    model: LanguageModel
    lengths: Sequence[int]

    def sample(self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: None = None) -> Rollouts:
        return self.model.sample(problems, k, rng, limits=torch.tensor(self.lengths))


def verify(rollouts: Rollouts) -> list[Verdict]:
    return [Verdict(outcome=0.0, answer=None, reason="wrong") for _ in rollouts.text]


def computed(model: LanguageModel) -> dict[str, int]:
    """Places the linear layers computed since the model was loaded, whatever they held, in "sample" and in "learn"."""
    return dict(getattr(model, "counters", {}))


def open_job(job: wire.Message) -> tuple[wire.Message, wire.Callable[[int], wire.Message]]:
    shape, learning = job["shape"], job["learning"]
    model = load_model(
        job["model"],
        sampling=Sampling(max_new_tokens=shape["limit"], ignore_eos=True),
        optimizer=Optimization(**learning),
    )
    parts = Parts(
        sampler=InOrder(job["prompts"]),
        keep=All(),
        reward=Sum({"place": Place()}),
        advantage=GroupNormalized(),
        objective=ClippedRatio(low=0.2, high=0.2, average="sequences"),
    )

    def step(number: int) -> wire.Message:
        rng, before = Rng((job["seed"], number)), computed(model)
        policy = Limited(model, job["lengths"][number]) if shape["ragged"] else model
        began = time.perf_counter()
        batch = collect(parts.sampler, policy, verify, parts.keep, shape["prompts"], shape["answers"], rng, step=number)
        sampled = time.perf_counter()
        streams = parts.reward.assess(batch, rng.child("reward"))
        credit = parts.advantage(batch, streams)
        metrics = model.update(parts.objective, batch, credit, rng.child("update"))
        ended = time.perf_counter()
        if metrics["policy/skipped"]:
            raise SystemExit("ours: a gradient was not finite, so a step was skipped and its time means nothing.")
        return {
            "seconds": ended - began,
            "sample": sampled - began,
            "learn": ended - sampled,
            "tokens": int(metrics["tokens/trained"]),
            "prompt": sorted({len(prompt) for prompt in batch.seq.prompts}),
            "spread": float(credit.advantages[:, 0].view(shape["prompts"], -1).std(dim=1).min()),
            "computed": {part: n - before.get(part, 0) for part, n in computed(model).items()},
        }

    parameters = sum(p.numel() for p in model.network.parameters())
    return {"dtype": str(model.dtype).removeprefix("torch."), "parameters": parameters}, step


if __name__ == "__main__":
    wire.serve(open_job)
