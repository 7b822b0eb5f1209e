"""A second opinion that knows no law: a Gaussian process over the pilot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reckon.labels._measures import Floats
from reckon.labels._trials import Trial

_LENGTHS = (0.5, 1.0, 2.0, 4.0)  # of log1p labels, after scaling to unit spread
_SIGNAL = (0.02, 0.05, 0.1, 0.2)  # standard deviation of accuracy
_NOISE = (0.005, 0.01, 0.02, 0.04)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Accuracy over (log1p n_weak, log1p n_gold) by a Gaussian process with a squared exponential kernel.

    Rasmussen & Williams 2006, algorithm 2.1. It says nothing outside the pilot, where it returns to the mean.
    """

    x: Floats  # [n, 2] the pilot's places, scaled
    scale: Floats  # [2]
    mean: float
    lengths: tuple[float, float]
    signal: float
    noise: float
    solved: Floats  # [n] the kernel's inverse times the centered accuracies
    lower: Floats  # [n, n] Cholesky factor of kernel and noise
    evidence: float  # log marginal likelihood

    def predict(self, n_weak: float, n_gold: float) -> tuple[float, float]:
        """Mean and standard deviation of the accuracy there, noise of a single trial not counted."""
        at = np.log1p([[n_weak, n_gold]]) / self.scale
        cross = _kernel(at, self.x, self.lengths, self.signal)[0]
        half = np.linalg.solve(self.lower, cross)
        return self.mean + float(cross @ self.solved), math.sqrt(max(0.0, self.signal**2 - float(half @ half)))


def fit_surface(trials: Sequence[Trial]) -> Surface:
    """The process whose kernel, of a small grid of kernels, makes the trials most likely.

    Args:
        trials: at least two different purchases, of which some have more than others of each kind.
    """
    raw = np.log1p([[trial.n_weak, trial.n_gold] for trial in trials])
    scale = np.maximum(raw.std(axis=0), 1e-9)
    y = np.array([trial.accuracy for trial in trials])
    kernels = itertools.product(itertools.product(_LENGTHS, _LENGTHS), _SIGNAL, _NOISE)
    tried = (surface_with(raw / scale, y, scale, *kernel) for kernel in kernels)
    return max(tried, key=lambda surface: surface.evidence)


def surface_with(
    x: Floats, y: Floats, scale: Floats, lengths: tuple[float, float], signal: float, noise: float
) -> Surface:
    """The process with this kernel, given scaled places [n, 2] and accuracies [n]."""
    mean = float(y.mean())
    lower = np.asarray(np.linalg.cholesky(_kernel(x, x, lengths, signal) + noise**2 * np.eye(len(x))), np.float64)
    solved = np.linalg.solve(lower.T, np.linalg.solve(lower, y - mean))
    evidence = -0.5 * (y - mean) @ solved - np.log(np.diag(lower)).sum() - 0.5 * len(y) * np.log(2 * np.pi)
    return Surface(
        x=x,
        scale=scale,
        mean=mean,
        lengths=lengths,
        signal=signal,
        noise=noise,
        solved=solved,
        lower=lower,
        evidence=float(evidence),
    )


def _kernel(a: Floats, b: Floats, lengths: tuple[float, float], signal: float) -> Floats:
    apart = (a[:, None, :] - b[None, :, :]) / np.array(lengths)
    return np.asarray(signal**2 * np.exp(-0.5 * (apart**2).sum(axis=2)))
