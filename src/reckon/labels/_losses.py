"""Losses over soft labels. Each is cross-entropy with targets of its own, which carry no gradient.

So a loss is a function from labels to targets, and a learner, whatever it is made of, only descends cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from reckon.errors import InputError
from reckon.labels._measures import Floats

Loss: TypeAlias = Callable[[Floats, Floats, int], Floats]  # labels [n], probabilities [n], step -> targets [n]


def soft_cross_entropy(labels: Floats, probabilities: Floats, step: int) -> Floats:
    """The labels themselves: a weak label of 0.7 stays 0.7. Hardening it throws away what the labeler knew."""
    del probabilities, step
    return labels


@dataclass(frozen=True)
class LogConfidence:
    """Weak labels, bent toward what the model is sure of (Burns et al. 2023, arXiv:2312.09390, as in arXiv:2410.13215).

    The share of each class in a microbatch stays that of its labels: the model's own verdict is its rank there. A batch
    is cut into microbatches in its order, which is random; a last row that would be alone joins those before it.

    Raises:
        InputError: a coefficient outside [0, 1], a ramp below 1, a microbatch below 2; when called, a batch of one
            row, whose rank says nothing.
    """

    coefficient: float = 0.5  # of the model's own verdict, at the end of the ramp
    ramp: int = 200  # steps until it is reached
    microbatch: int = 8  # rows that are ranked among themselves, whatever the size of the batch

    def __post_init__(self) -> None:
        if not 0 <= self.coefficient <= 1 or self.ramp < 1 or self.microbatch < 2:
            raise InputError(
                f"LogConfidence: coefficient is {self.coefficient:g}, ramp {self.ramp} and microbatch "
                f"{self.microbatch}; the first lies in [0, 1], the second is 1 or more, the third 2 or more."
            )

    def __call__(self, labels: Floats, probabilities: Floats, step: int) -> Floats:
        """Targets, [n] in [0, 1]: probability of class 1.

        Args:
            labels: [n] in [0, 1].
            probabilities: [n], of class 1 by the model as it is.
            step: optimizer steps of this stage before this one.
        """
        if len(labels) < 2:
            raise InputError("LogConfidence got a batch of one row, which it cannot rank. Let batches have 8 or more.")
        share = self.coefficient * min(1.0, step / self.ramp)
        cuts = range(self.microbatch, len(labels) - 1, self.microbatch)
        parts = zip(np.split(labels, cuts), np.split(1 - probabilities, cuts), strict=True)
        own: Floats = np.concatenate([np.where(p0 >= np.quantile(p0, q.mean()), 0.0, 1.0) for q, p0 in parts])
        return (1 - share) * labels + share * own


def cross_entropy(targets: Floats, probabilities: Floats) -> Floats:
    """Cross-entropy in nats, [n], of targets in [0, 1] and probabilities of class 1 in [0, 1]."""
    tiny = np.finfo(np.float64).tiny
    p, q = np.maximum(probabilities, tiny), np.maximum(1 - probabilities, tiny)
    return np.asarray(-(targets * np.log(p) + (1 - targets) * np.log(q)), dtype=np.float64)
