"""Two worlds with cheap and trusted labels: a linear one with systematic errors, and digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from reckon.errors import MissingError
from reckon.labels import (
    EarlyStop,
    Kind,
    LabelData,
    Learner,
    LinearLearner,
    Loss,
    Offer,
    SequentialTrainer,
    Stage,
    accuracy,
    shuffled_errors,
    soft_cross_entropy,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEATURES = 256
SEEN = 0.6  # share of the features that the weak labeler sees
TAUGHT = 1500  # gold labels it learned from
TEST = 4000
DIGITS_TEST, DIGITS_TAUGHT, DIGITS_PIXELS, RELU = 400, 200, 4, 512
_WORLD, _SHUFFLE, _MIX = 11, 12, 13  # places of their random numbers


def linear_world(pool: int, seed: int, *, shuffled: bool = False) -> LabelData:
    """Gaussian features of falling variance, a random linear rule, and a weak labeler blind to four in ten of them.

    Args:
        pool: examples that labels can be bought for.
        seed: of everything.
        shuffled: let the weak labels' errors fall on other examples, so that they are no longer systematic.
    """
    rng = np.random.default_rng([seed, _WORLD])
    variance = np.arange(1, FEATURES + 1) ** -0.6
    spread = np.sqrt(variance / variance.mean())
    rule = rng.standard_normal(FEATURES + 1)
    blind = rng.permutation(FEATURES)[round(SEEN * FEATURES) :]

    def draw(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        x = np.hstack([rng.standard_normal((n, FEATURES)) * spread, np.ones((n, 1))])
        return x, (x @ rule > 0).astype(np.float64)

    test, taught, examples = draw(TEST), draw(TAUGHT), draw(pool)
    seen = np.setdiff1d(np.arange(FEATURES), blind)
    weak = _logistic(taught[0][:, seen], taught[1], examples[0][:, seen])
    if shuffled:
        weak = shuffled_errors(weak, examples[1], np.random.default_rng([seed, _SHUFFLE]))
    return LabelData(x=examples[0], weak=weak, gold=examples[1], test_x=test[0], test_y=test[1])


def digits_world(seed: int) -> LabelData:
    """scikit-learn's digits: is it 5 or more? The weak labeler sees 4 pixels of the image at half its resolution.

    Its labels are so poor beside what few gold ones teach that buying them is a mistake: a control.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingError(_SKLEARN) from error
    rng = np.random.default_rng([seed, _WORLD])
    images, digit = load_digits(return_X_y=True)
    order = rng.permutation(len(images))
    images, y = images[order] / 16, (digit[order] >= 5).astype(np.float64)
    coarse = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    part = coarse[:, rng.permutation(16)[:DIGITS_PIXELS]]
    hidden = np.maximum(0, images @ rng.standard_normal((64, RELU)) + rng.standard_normal(RELU))
    x = np.hstack([(hidden - hidden.mean(axis=0)) / (hidden.std(axis=0) + 1e-9), np.ones((len(hidden), 1))])
    test, pool = np.arange(DIGITS_TEST), np.arange(DIGITS_TEST, len(x))
    taught = pool[:DIGITS_TAUGHT]  # the labeler labels its own training part too, as in the paper
    weak = _logistic(part[taught], y[taught], part[pool])
    return LabelData(x=x[pool], weak=weak, gold=y[pool], test_x=x[test], test_y=y[test])


def weak_accuracy(data: LabelData) -> float:
    """Accuracy of the weak labels themselves, over the pool."""
    return accuracy(data.gold, data.weak - 0.5)


def sequential(
    features: int, steps: tuple[int, int], *, loss: Loss = soft_cross_entropy, choose_gold: str = "random"
) -> SequentialTrainer:
    """The specification's student: first weak labels, then gold ones at a lower rate.

    Args:
        features: columns of x.
        steps: the most of each stage; the specification has 600 and 400.
        loss: of weak labels; nothing else depends on it, so that arms which differ in it differ in nothing else.
        choose_gold: "random" or "uncertain".
    """
    weak = Stage("weak", loss, max_steps=steps[0])
    gold = Stage("gold", max_steps=steps[1], lr_after=0.02)
    if choose_gold == "uncertain":
        gold = Stage("gold", max_steps=steps[1], lr_after=0.02, choose="uncertain")
    return SequentialTrainer(lambda _: LinearLearner(features), [weak, gold], early_stop=EarlyStop())


class Mixing:
    """One stage on the shuffled union of both kinds of labels: the baseline that sequences are to beat."""

    def __init__(self, features: int, steps: int) -> None:
        stages = [Stage("gold", max_steps=steps)]
        self._trainer = SequentialTrainer(lambda _: LinearLearner(features), stages, early_stop=EarlyStop())

    def fit(self, offers: Mapping[Kind, Offer], seed: int) -> Learner:
        """Trains on all bought labels at once."""
        weak, gold = offers["weak"], offers["gold"]
        cheap = weak.rows[: weak.n]
        labels = gold.labels.copy()
        labels[cheap] = weak.labels[cheap]
        rows = np.concatenate([cheap, gold.rows[: gold.n]])
        rows = np.random.default_rng([seed, _MIX]).permutation(rows)
        return self._trainer.fit({"gold": Offer(x=gold.x, labels=labels, rows=rows, n=len(rows))}, seed)


def _logistic(x: NDArray[np.float64], y: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of class 1 for `other`, by logistic regression on x and y."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ModuleNotFoundError as error:
        raise MissingError(_SKLEARN) from error
    return np.asarray(LogisticRegression(max_iter=2000).fit(x, y).predict_proba(other)[:, 1], dtype=np.float64)


_SKLEARN = "the study label-budget needs scikit-learn: pip install 'reckon-rl[studies]'"
