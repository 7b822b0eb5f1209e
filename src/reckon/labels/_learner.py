"""What is trained: anything that gives log-odds, and a linear one that is ready."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from reckon.errors import InputError
from reckon.labels._measures import Floats, sigmoid


class Predictor(Protocol):
    """Gives log-odds of class 1."""

    def log_odds(self, x: Any) -> Floats:
        """Of each row of `x`, [n] float64."""


class Learner(Predictor, Protocol):
    """A two-class model that descends cross-entropy: a linear one, a network's head, a reward model with LoRA.

    `x` is what the user's pool holds, cut by rows: numbers, texts, anything NumPy can index.
    """

    def new_optimizer(self) -> None:
        """Forgets the optimizer's state, not the weights."""

    def step(self, x: Any, targets: Floats, lr: float) -> None:
        """One optimizer step on mean cross-entropy with targets in [0, 1], [n], probabilities of class 1."""

    def weights(self) -> Any:
        """A copy of the weights, for `restore`."""

    def restore(self, weights: Any) -> None:
        """Takes weights back."""


class LinearLearner:
    """Log-odds linear in features, by AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), from weights of 0.

    For features of one's own, or the embeddings of a frozen model. A constant column is the user's to add.

    Raises:
        InputError: no feature.
    """

    def __init__(
        self, features: int, *, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.01, eps: float = 1e-8
    ) -> None:
        if features < 1:
            raise InputError(f"LinearLearner has {features} features, but needs at least 1.")
        self._w = np.zeros(features)
        self._betas, self._decay, self._eps = betas, weight_decay, eps
        self.new_optimizer()

    def log_odds(self, x: Any) -> Floats:
        """[n] float64 of `x`, [n, features]."""
        return np.asarray(x @ self._w, dtype=np.float64)

    def new_optimizer(self) -> None:
        """Sets Adam's moments and its count of steps to 0."""
        self._mean, self._square, self._steps = np.zeros_like(self._w), np.zeros_like(self._w), 0

    def step(self, x: Any, targets: Floats, lr: float) -> None:
        """One step of AdamW on mean cross-entropy."""
        gradient = (sigmoid(self.log_odds(x)) - targets) @ x / len(targets)
        one, two = self._betas
        self._steps += 1
        self._mean = one * self._mean + (1 - one) * gradient
        self._square = two * self._square + (1 - two) * gradient**2
        mean, square = self._mean / (1 - one**self._steps), self._square / (1 - two**self._steps)
        self._w = self._w * (1 - lr * self._decay) - lr * mean / (np.sqrt(square) + self._eps)

    def weights(self) -> Floats:
        """[features], a copy."""
        return self._w.copy()

    def restore(self, weights: Any) -> None:
        """Takes [features] back."""
        self._w = np.array(weights, dtype=np.float64)
