"""Sets whose optimal subsets are known, drawn at random (Ou et al. 2022 and Xie et al. 2024, and their code)."""

from __future__ import annotations

import importlib.util
import warnings
from math import ceil, pi, sqrt

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from reckon.errors import InputError, MissingError
from reckon.subsets._sets import Sets

Floats = NDArray[np.float64]
ROUNDING = 1e-9  # of an element: 0.07 * 100 and the like must not take one more


def nearest_sets(count: int, rng: np.random.Generator, *, n: int = 20, k: int = 4) -> Sets:
    """Points around a center of their own; wanted are the k nearest to the mean of all n.

    The center is uniform on [-2, 2]^2 and the points are normal around it, so no point is wanted by itself: the whole
    set decides.

    Args:
        count: sets to draw.
        rng: where from.
        n: elements of a set.
        k: elements that are wanted, fewer than n.

    Raises:
        InputError: unless count >= 1 and 1 <= k < n.
    """
    _check(count, n, k)
    points = rng.uniform(-2, 2, (count, 1, 2)) + rng.standard_normal((count, n, 2))
    far = np.square(points - points.mean(axis=1, keepdims=True)).sum(axis=-1)
    return _known(points, far.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable") < k)


def gaussian_mixture_sets(count: int, rng: np.random.Generator, *, n: int = 100, k: int = 10) -> Sets:
    """Draws k points of one of two Gaussians among n - k of the other; a coin says which, set by set.

    The centers are (1, 1) / sqrt 2 and its opposite, the standard deviation is 0.5 (released code, `n` 100 and `k` 10).
    Arguments and errors as of `nearest_sets`.
    """
    _check(count, n, k)
    center = np.full(2, 1 / sqrt(2)) * rng.choice((-1, 1), (count, 1, 1))  # of those that are wanted
    wanted = _positions(count, n, k, rng)
    points = np.where(wanted[..., None], center, -center) + 0.5 * rng.standard_normal((count, n, 2))
    return _known(points, wanted)


def two_moons_sets(count: int, rng: np.random.Generator, *, n: int = 100, k: int = 10, noise: float = 0.1) -> Sets:
    """Draws k points of one of two half circles among n - k of the other; a coin says which, set by set.

    scikit-learn's `make_moons` with this noise, times 2 and moved by (-1, -0.2), as in the released code. There the
    points are spread evenly along their moon; here each is uniform on it. Arguments and errors as of `nearest_sets`.
    """
    _check(count, n, k)
    wanted = _positions(count, n, k, rng)
    inner = wanted ^ (rng.random((count, 1)) < 0.5)
    angle = rng.uniform(0, pi, (count, n))
    outside = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    inside = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=-1)
    moons = np.where(inner[..., None], inside, outside) + noise * rng.standard_normal((count, n, 2))
    return _known(moons * 2 + np.array([-1.0, -0.2]), wanted)


def digit_pair_sets(
    count: int, rng: np.random.Generator, *, n: int = 20, least: int = 2, most: int = 5, part: int = 0, parts: int = 3
) -> Sets:
    """Pictures of two-digit numbers; wanted are those that show one and the same number, all others differ.

    A small Double MNIST, of scikit-learn's 8 x 8 digits in pairs: elements are [8, 16] in [0, 1].

    Args:
        count: sets to draw.
        rng: where from.
        n: elements of a set.
        least: how many are wanted at least; the number is drawn evenly from `least` to `most`.
        most: how many at most.
        part: which part of the digits' pictures to use; splits of their own share no picture.
        parts: into how many they are divided.

    Raises:
        InputError: unless 2 <= least <= most < n, n - least <= 99 and 0 <= part < parts <= 10.
        MissingError: scikit-learn is not installed.
    """
    _check(count, n, most)
    if not (2 <= least <= most and n - least <= 99 and 0 <= part < parts <= 10):
        raise InputError(
            f"digit_pair_sets: {least} to {most} of {n} elements, part {part} of {parts}; there are 100 numbers, at "
            "least 2 elements must be wanted, and parts are counted from 0, at most 10."
        )
    _need_sklearn("digit_pair_sets")
    from sklearn.datasets import load_digits

    pictures, digits = load_digits(return_X_y=True)
    pictures = pictures.reshape(-1, 8, 8) / 16
    by_digit = [np.flatnonzero(digits == digit)[part::parts] for digit in range(10)]
    features, wanted = np.zeros((count, n, 8, 16)), np.zeros((count, n), dtype=bool)
    for i in range(count):
        k = int(rng.integers(least, most + 1))
        wanted[i, rng.choice(n, k, replace=False)] = True
        numbers = rng.permutation(100)[: n - k + 1]
        shown = np.empty(n, dtype=np.int64)
        shown[wanted[i]], shown[~wanted[i]] = numbers[0], numbers[1:]
        for j, number in enumerate(shown.tolist()):
            pair = [pictures[rng.choice(by_digit[digit])] for digit in divmod(number, 10)]
            features[i, j] = np.concatenate(pair, axis=1)
    return _known(features, wanted)


def top_then_centers(features: ArrayLike, scores: ArrayLike, share: float = 1 / 3) -> NDArray[np.bool_]:
    """The best and yet different: the top share by score, clustered, of which the cluster centers are wanted.

    The papers' second filter of compounds (activity and diversity): affinity propagation (Frey and Dueck 2007), with
    minus the squared distance of features as similarity.

    Args:
        features: [n, f] finite numbers.
        scores: [n] finite numbers, the higher the better; ties to the first.
        share: of the elements that is clustered, in (0, 1]; rounded up to whole elements.

    Returns:
        [n] bool; at least one element. Where the clustering finds no centers it is the best alone.

    Raises:
        InputError: shapes that do not fit, a number that is not finite, or a share out of range.
        MissingError: scikit-learn is not installed.
    """
    points, worth = np.asarray(features, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if points.ndim != 2 or worth.shape != points.shape[:1] or not len(worth):
        raise InputError(
            f"top_then_centers: features are of shape {points.shape} and scores of {worth.shape}; give [n, f] and [n]."
        )
    if not (np.isfinite(points).all() and np.isfinite(worth).all()):
        raise InputError("top_then_centers: a feature or a score is NaN or infinite. Leave such elements out.")
    if not 0 < share <= 1:
        raise InputError(f"top_then_centers: share is {share}; it must lie in (0, 1].")
    taken = max(1, ceil(share * len(worth) - ROUNDING))
    best = np.argsort(-worth, kind="stable")[:taken]
    found = np.zeros(len(worth), dtype=bool)
    found[best[_centers(points[best])]] = True
    return found


def _centers(points: Floats) -> NDArray[np.intp]:
    """Places of the cluster centers; the first alone where there is nothing to cluster."""
    first = np.zeros(1, dtype=np.intp)
    _, places = np.unique(points, axis=0, return_index=True)
    if len(places) < 3:  # all clusterings tie, and the answer would be that of scikit-learn's tie-breaking noise
        return np.sort(places)
    _need_sklearn("top_then_centers")
    from sklearn.cluster import AffinityPropagation
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by the empty result
        found = AffinityPropagation(random_state=0, max_iter=1000).fit(points).cluster_centers_indices_
    return first if found is None or not len(found) else np.asarray(found, dtype=np.intp)


def _check(count: int, n: int, k: int) -> None:
    if count < 1 or not 1 <= k < n:
        raise InputError(f"{count} sets with {k} of {n} elements wanted: give count >= 1 and 1 <= k < n.")


def _positions(count: int, n: int, k: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """[count, n], k of each row, all choices alike."""
    return rng.random((count, n)).argsort(axis=1).argsort(axis=1) < k


def _known(features: Floats, wanted: NDArray[np.bool_]) -> Sets:
    return Sets(
        features=torch.from_numpy(features.astype(np.float32)),
        mask=torch.ones(wanted.shape, dtype=torch.bool),
        chosen=torch.from_numpy(wanted),
    )


def _need_sklearn(what: str) -> None:
    if importlib.util.find_spec("sklearn") is None:
        raise MissingError(f"{what} needs scikit-learn: pip install 'reckon-rl[subsets]'")
