"""Purchases tried out: data in, a table of accuracies out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from reckon.errors import InputError
from reckon.labels._few_shot import FewShot
from reckon.labels._learner import Predictor
from reckon.labels._measures import Floats, accuracy, auroc
from reckon.labels._sources import LabelSource, Purchase, purchase_cost
from reckon.labels._trainer import Kind, Offer

_PURCHASE = 2  # place of the purchase's random numbers beside those of the stages, 0 and 1


class Trainer(Protocol):
    """Trains on bought labels; `SequentialTrainer` does."""

    def fit(self, offers: Mapping[Kind, Offer], seed: int) -> Predictor:
        """A trained model."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one purchase, trained on with one seed, reached."""

    n_weak: int
    n_gold: int
    seed: int
    accuracy: float  # in [0, 1], on labels nobody trained on
    auroc: float = float("nan")
    cost: float = float("nan")  # of all labels bought, also of those in front of every text


@dataclass(frozen=True, kw_only=True)
class LabelData:
    """A pool of examples with the labels that could be bought, and a test set.

    Raises:
        InputError: lists or objects of pandas in place of arrays, labels that are no numbers, NaN among the numbers to
            learn from, arrays of different lengths, labels outside [0, 1], a test set without both classes.
    """

    x: Any  # [n, ...] the pool: an array of numbers or texts
    weak: Floats  # [n] probability of class 1 by the weak source, soft; NaN = it has no label for this one
    gold: Floats  # [n] 0 or 1; NaN = cannot be bought
    test_x: Any  # [m, ...]
    test_y: Floats  # [m] 0 or 1

    def __post_init__(self) -> None:
        for name in ("x", "weak", "gold", "test_x", "test_y"):
            _check_array(name, getattr(self, name))
        sizes = {"x": len(self.x), "weak": len(self.weak), "gold": len(self.gold)}
        if len(set(sizes.values())) > 1 or len(self.test_x) != len(self.test_y):
            raise InputError(
                f"the pool has columns of different lengths: {sizes}; the test set {len(self.test_x)} rows and "
                f"{len(self.test_y)} labels. Give one label for each row, NaN where there is none."
            )
        known = self.weak[~np.isnan(self.weak)]
        if not ((known >= 0) & (known <= 1)).all():
            raise InputError("a weak label lies outside [0, 1]. Give the probability of class 1, or NaN.")
        if not np.isin(self.gold[~np.isnan(self.gold)], (0, 1)).all():
            raise InputError("a gold label is neither 0 nor 1. Give one of them, or NaN where none can be bought.")
        if set(np.unique(self.test_y).tolist()) != {0.0, 1.0}:
            raise InputError("the test labels must be 0 and 1, both of them: on one class any model can be perfect.")

    def offers(self, n_weak: int, n_gold: int, seed: int) -> dict[Kind, Offer]:
        """The labels of a purchase, by kind.

        Weak labels are taken from one end of a random order and gold ones from the other, so no example has both, and
        where every example has both to sell a seed's smaller purchases are parts of its larger ones. Gold labels that
        are not bought are offered too, for a stage that chooses.

        Raises:
            InputError: more labels than the pool has.
        """
        order = np.random.default_rng([seed, _PURCHASE]).permutation(len(self.x))
        golden = order[~np.isnan(self.gold[order])][::-1]
        weakly = order[~np.isnan(self.weak[order])]
        weakly = weakly[~np.isin(weakly, golden[:n_gold])][:n_weak]
        if len(golden) < n_gold or len(weakly) < n_weak:
            raise InputError(
                f"{n_weak} weak and {n_gold} gold labels are wanted of different examples, but the pool has "
                f"{len(self.x)} examples, {int((~np.isnan(self.weak)).sum())} with a weak and {len(golden)} with a "
                "gold label. Buy fewer, or enlarge the pool."
            )
        golden = golden[~np.isin(golden, weakly)]
        return {
            "weak": Offer(x=self.x, labels=self.weak, rows=weakly, n=n_weak),
            "gold": Offer(x=self.x, labels=self.gold, rows=golden, n=n_gold),
        }


def _check_array(name: str, values: Any) -> None:
    """Raises InputError for what cannot be cut by rows, for labels that are no numbers, and for NaN to learn from."""
    if isinstance(values, list | tuple):
        raise InputError(f"`{name}` is a {type(values).__name__}, which cannot be cut by rows. Make it an array.")
    if hasattr(values, "iloc"):
        # `x[rows]` would go by index label and `labels[rows]` by place: rows mispaired, without a word.
        raise InputError(
            f"`{name}` is a {type(values).__name__}, which is cut by index labels and not by place, so that rows "
            "could get the labels of others. Give its `.to_numpy()`."
        )
    if name in ("weak", "gold", "test_y"):
        _check_labels(name, values)
    elif isinstance(values, np.ndarray) and values.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
        if len(bad):
            raise InputError(f"`{name}` is NaN or infinite in row {bad[0]}. Mend it, or leave the row out.")


def _check_labels(name: str, values: Any) -> None:
    """Raises InputError unless the labels are numbers, one for each row."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" and values.ndim == 1:
        return
    given = f"is a {type(values).__name__}"
    if isinstance(values, np.ndarray):
        given = f"has dtype {values.dtype} and shape {values.shape}"
    raise InputError(f"`{name}` {given}, but labels are one number for each row. Make it a flat NumPy array of floats.")


def shuffled_errors(weak: Floats, gold: Floats, rng: np.random.Generator) -> Floats:
    """Weak labels whose errors are as large but fall on other examples: no longer systematic, so easier to learn from.

    Args:
        weak: [n] in [0, 1].
        gold: [n] 0 or 1.
        rng: for the permutation of |weak - gold|.
    """
    return np.asarray(np.abs(gold - rng.permutation(np.abs(weak - gold))), dtype=np.float64)


def run_grid(
    trainer: Trainer,
    data: LabelData,
    grid: Sequence[tuple[int, int]],
    seeds: Sequence[int],
    weak: LabelSource,
    gold: LabelSource,
    *,
    prefix: FewShot | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> list[Trial]:
    """Trains on every purchase with every seed. Purchases of a seed are nested, so compare them seed by seed.

    Args:
        trainer: trains.
        data: what labels there are, and the test set, which nothing but the last measurement sees.
        grid: (n_weak, n_gold).
        seeds: each once; of the purchase and of the training.
        weak: prices of weak labels.
        gold: prices of gold labels.
        prefix: examples in front of every text, paid for beside each purchase: give it to `budget_grid` as well. None =
            texts, or whatever `x` holds, as they are.
        progress: told the trials done and what was the last.

    Raises:
        InputError: an empty grid, seeds that are missing or given twice, more labels than the pool has, a prefix where
            there is no text.
    """
    if not grid or not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"run_grid: {len(grid)} purchases and seeds {list(seeds)}; give some of both, each seed once.")
    found = []
    for seed in seeds:
        for bought in grid:
            paid = Purchase(*bought) if prefix is None else prefix.beside(bought)
            offers, test_x = data.offers(*paid, seed), data.test_x
            if prefix is not None:
                offers, test_x = prefix.shown(offers, test_x, seed)
            scores = trainer.fit(offers, seed).log_odds(test_x)
            found.append(
                Trial(
                    n_weak=bought[0],
                    n_gold=bought[1],
                    seed=seed,
                    accuracy=accuracy(data.test_y, scores),
                    auroc=auroc(data.test_y, scores),
                    cost=purchase_cost(paid, weak, gold),
                )
            )
            if progress is not None:
                progress(len(found), f"{bought[0]} weak, {bought[1]} gold, seed {seed}")
    return found
