"""Worlds of rare last classes, what estimates of their probability are worth, and the methods that make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from reckon.ordinal import PrestoClassifier, PrestoClassifierCV
from reckon.types import Rng

Floats: TypeAlias = NDArray[np.float64]
Design: TypeAlias = Literal["sparse", "dense"]
Rare: TypeAlias = Callable[[Floats], Floats]  # features [n, p] to the probability of the last class [n]
People: TypeAlias = NDArray[np.intp] | None  # whose row each is [n]; None: each is somebody else's


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Rows to learn from and rows to be asked about, with the true probability of the last class."""

    x: Floats  # [n, p]
    y: NDArray[np.intp]  # [n], 0 to K-1
    true: Floats  # [n]
    fresh_x: Floats  # [m, p]
    fresh_true: Floats  # [m]


def draw_world(
    rng: Rng, *, design: Design, share: float, intercepts: Floats, rows: int, features: int, fresh: int
) -> World:
    """Section 4's simulation: features uniform in (-1, 1), and slopes of their own for each boundary.

    Sparse: first slopes are 0.5 with chance `share`, differences +-0.5 with chance `share`, else 0. Dense: all are
    uniform in (-0.5, 0.5). A draw with a negative class probability among its rows is thrown away whole, and so is one
    with a class of fewer than two rows, which no folds can be made of (the paper: with an absent class).
    """
    numbers = rng.numpy()
    boundaries = len(intercepts)
    while True:
        x = numbers.uniform(-1, 1, (rows, features))
        chosen = numbers.uniform(size=(boundaries, features)) < share
        signs = np.where(numbers.uniform(size=(boundaries, features)) < 0.5, -0.5, 0.5)
        signs[0] = 0.5
        psi = chosen * signs if design == "sparse" else numbers.uniform(-0.5, 0.5, (boundaries, features))
        slopes = psi.cumsum(axis=0).T
        scores = intercepts + x @ slopes
        y = (numbers.uniform(size=(rows, 1)) > _sigmoid(scores)).sum(axis=1)
        if (np.diff(scores, axis=1) >= 0).all() and (np.bincount(y, minlength=boundaries + 1) >= 2).all():
            break
    fresh_x = numbers.uniform(-1, 1, (fresh, features))
    last = intercepts[-1] + fresh_x @ slopes[:, -1]
    return World(x=x, y=y, true=_sigmoid(-scores[:, -1]), fresh_x=fresh_x, fresh_true=_sigmoid(-last))


def expected_auc(scores: Floats, true: Floats) -> float:
    """The chance that a random member of the class outranks a random other row, over all labels the truth may give.

    Args:
        scores: [n] what ranks.
        true: [n] each row's chance to belong to the class.
    """
    _, place = np.unique(scores, return_inverse=True)
    members, others = np.bincount(place, weights=true), np.bincount(place, weights=1 - true)
    below = others.cumsum() - others / 2  # ties count half
    return float(members @ below / (members.sum() * others.sum()))


def fit_rare(method: str, x: Floats, y: NDArray[np.intp], people: People = None) -> Rare:
    """The probability of the last class as a method has learned it; no fold that chooses a penalty splits a person."""
    return METHODS[method](x, y, people)


def _stages(model: PrestoClassifier | PrestoClassifierCV, x: Floats, y: NDArray[np.intp], people: People) -> Rare:
    fresh = clone(model)
    if isinstance(model, PrestoClassifierCV):
        # A row's own person among a fold's training rows would make too small a penalty look good.
        fresh.fit(x, y, groups=people)
    else:
        fresh.fit(x, y)
    rare: Rare = fresh.predict_rare
    return rare


def _binary(model: PrestoClassifier | PrestoClassifierCV, x: Floats, y: NDArray[np.intp], people: People) -> Rare:
    return _stages(model, x, (y == y.max()).astype(np.intp), people)


def _constant(x: Floats, y: NDArray[np.intp], people: People) -> Rare:
    share = float((y == y.max()).mean())
    return lambda fresh: np.full(len(fresh), share)


def _ridge() -> PrestoClassifierCV:
    # A ridge's best penalty lies further below its largest than a lasso's does.
    return PrestoClassifierCV(PrestoClassifier(l1_ratio=0.0), n_lambdas=30, min_ratio=1e-4)


METHODS: Mapping[str, Callable[[Floats, NDArray[np.intp], People], Rare]] = {
    "presto": partial(_stages, PrestoClassifierCV()),
    "presto, free base": partial(_stages, PrestoClassifierCV(PrestoClassifier(base_penalty=0.0))),
    "presto, ridge": partial(_stages, _ridge()),
    "presto, as released": partial(_stages, PrestoClassifierCV(PrestoClassifier(released_faults=True))),
    "proportional odds": partial(_stages, PrestoClassifier(lam=1e3, base_penalty=0.0)),
    "logit": partial(_binary, PrestoClassifier(lam=0.0)),
    "logit, ridge": partial(_binary, _ridge()),
    "logit, lasso": partial(_binary, PrestoClassifierCV()),
    "constant": _constant,
}


def _sigmoid(scores: Floats) -> Floats:
    probabilities: Floats = 1 / (1 + np.exp(-scores))
    return probabilities
