"""RuleReasoner's sampler as its released code computes it, faults included; for comparison only.

`bigai-nlco/RuleReasoner`: verl/trainer/ppo/ray_trainer.py (`compute_weights`, `fit`) and utils/dataset/rl_dataset.py
(`DomainSampler`). What a user would want of it is `reckon.samplers.DomainBuffer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from reckon.samplers import domain_counts
from reckon.types import Metrics, Problem, Rng, Seen, Task

BUFFER, EVERY = 4, 8  # as the released run sets them: batches in the buffer, steps between updates


def released_target(decay: Literal["harmonic", "geometric", "none"], size: int = BUFFER) -> float:
    """What an accuracy is compared with. Of `size` terms, though one batch is held; without decay it is that one's."""
    decays = {
        "harmonic": [1 / (i + 1) for i in range(size)],
        "geometric": [0.5**i for i in range(size)],
        "none": [1.0],
    }[decay]
    return sum(decays) / size


def released_weights(
    accuracy: Mapping[str, float],
    *,
    tau: float = 0.3,
    eps: float = 0.1,
    decay: Literal["harmonic", "geometric", "none"] = "harmonic",
) -> dict[str, float]:
    """The weights of the domains of one batch. eps stands inside the exponential, where it cancels."""
    value = np.maximum(0, released_target(decay) - np.array(list(accuracy.values())))
    unnormalized = np.exp((value + eps) / tau)
    return dict(zip(accuracy, (unnormalized / unnormalized.sum()).tolist(), strict=True))


class ReleasedSampler:
    """Equal weights until step 8; every 8th step new ones, from that step's accuracies alone.

    A domain of which that step had no problem has no weight any more, and never comes back. A domain's queue that
    holds fewer problems than are asked for is thrown away; one smaller than that gives all it has, and the batch is
    short.
    """

    def __init__(self, task: Task) -> None:
        self._problems: dict[str, list[Problem]] = {}
        for problem in task.problems("train"):
            self._problems.setdefault(problem.domain, []).append(problem)
        self._queues: dict[str, list[Problem]] = {name: [] for name in self._problems}
        self.weights = dict.fromkeys(self._problems, 1 / len(self._problems))
        self._steps = 0

    def draw(self, n: int, rng: Rng) -> Sequence[Problem]:
        """At most n problems."""
        drawn: list[Problem] = []
        counts = domain_counts(list(self.weights.values()), n)
        for name, count in zip(self.weights, counts, strict=True):
            if len(self._queues[name]) < count:
                order = rng.child("queue", name).numpy().permutation(len(self._problems[name]))
                self._queues[name] = [self._problems[name][i] for i in order]
            drawn += self._queues[name][:count]
            self._queues[name] = self._queues[name][count:]
        return [drawn[i] for i in rng.child("order").numpy().permutation(len(drawn))]

    def learn(self, seen: Seen) -> Metrics:
        """Forgets the step, unless it is one of those that change the weights."""
        self._steps += 1
        if self._steps % EVERY == 0:
            outcomes: dict[str, list[float]] = {name: [] for name in self.weights}
            for problem, outcome in zip(seen.problems, seen.outcome.tolist(), strict=True):
                outcomes[problem.domain].append(outcome)
            self.weights = released_weights({name: sum(own) / len(own) for name, own in outcomes.items() if own})
        return {}
