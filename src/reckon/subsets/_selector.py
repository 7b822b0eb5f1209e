"""Learns to choose subsets from examples of optimal ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from reckon.errors import InputError
from reckon.subsets._metrics import largest
from reckon.subsets._models import EnergyBased, Makes, SubsetModel
from reckon.subsets._sets import Sets
from reckon.subsets._training import History, Training, infer, mean_jaccard, train, warn_if_flat

Pairs: TypeAlias = Sequence[tuple[ArrayLike, ArrayLike]]  # features [n, ...] and a mask [n] of 0 and 1


class SubsetSelector:
    """Learns which subset of a set is wanted, from pairs of a set and its optimal subset.

    By default an energy that sees the rest of the set (INSET, Xie et al., ICLR 2024), trained by mean-field inference
    (EquiVSet, Ou et al., NeurIPS 2022). Other models stand beside it: `Greedy`, `Scorer`, or one's own.

    Args:
        model: makes the model, such as `EnergyBased(context="none")`; left out, `EnergyBased()`.
        training: how long and how fast; left out, `Training()`.
        uninformative: what to do with examples whose subset is empty or the whole set, which have no loss of interest:
            "error", or "skip".
        seed: of first weights, of the order of examples and of all draws, those of `predict` included.

    Attributes:
        model_: the trained module.
        history_: loss and validation Jaccard index of every epoch.
        skipped_: examples left out as uninformative.
    """

    def __init__(
        self,
        model: Makes | None = None,
        *,
        training: Training | None = None,
        uninformative: Literal["error", "skip"] = "error",
        seed: int = 0,
    ) -> None:
        self.model = model
        self.training = training
        self.uninformative = uninformative
        self.seed = seed

    def fit(self, sets: Sets | Pairs, validation: Sets | Pairs | None = None) -> SubsetSelector:
        """Learns from examples; what an earlier call learned is forgotten.

        Args:
            sets: examples, padded or as pairs (V [n, ...], mask [n]) of any sizes.
            validation: more of them, to stop by and to choose the epoch; without them all epochs are made.

        Raises:
            InputError: names the example that cannot be used; a setting is out of range.
            RunError: the loss is no longer a finite number.
        """
        if self.uninformative not in ("error", "skip"):
            raise InputError(f"SubsetSelector: uninformative is {self.uninformative!r}; it must be 'error' or 'skip'.")
        known, self.skipped_ = self._informative(_sets(sets))
        judged = None if validation is None else _sets(validation)
        shape = tuple(known.features.shape[2:])
        if judged is not None and tuple(judged.features.shape[2:]) != shape:
            raise InputError(
                f"SubsetSelector: elements are of shape {shape}, those of validation of "
                f"{tuple(judged.features.shape[2:])}."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.model_ = (self.model or EnergyBased())(shape)
        generator = torch.Generator().manual_seed(self.seed)
        self.history_: History = train(self.model_, known, self.training or Training(), generator, judged)
        self.shape_ = shape
        warn_if_flat(self.model_, known, self.seed)
        return self

    def predict(
        self,
        V: ArrayLike | Sets,  # noqa: N803
        size: int | Sequence[int] | None = None,
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Chooses a subset.

        Args:
            V: one set [n, ...], several of a size [B, n, ...], or padded `Sets`.
            size: how many elements to choose, one number or one for each set: those with the largest psi, ties to the
                first. None = those whose psi is above 0.5.

        Returns:
            mask [n] or [B, n] bool, and psi [n] or [B, n] float32 in [0, 1]; False and 0 in padding. A set has the same
            whatever it is padded to and whichever sets are beside it.

        Raises:
            InputError: nothing is fitted, an element has another shape than those seen in `fit`, a feature is NaN,
                `size` is no whole number or larger than a set, or it is None and the model's psi are no probabilities.
        """
        sets, single = self._ground(V)
        psi = infer(self.model_, sets, self.seed)
        if size is None:
            if not cast("SubsetModel", self.model_).marginals:
                raise InputError("SubsetSelector: this model has no probabilities to cut at 0.5; give `size`.")
            mask = psi > 0.5
        else:
            mask = largest(psi, _sizes(size, sets), sets.mask)
        if single:
            mask, psi = mask[0], psi[0]
        return mask.numpy(), psi.numpy()

    def score(self, sets: Sets | Pairs) -> float:
        """The mean Jaccard index on examples, told how large their optimal subsets are, as in the papers.

        Raises:
            InputError: nothing is fitted, or an example cannot be used.
        """
        known = _sets(sets)
        self._ground(known)
        return mean_jaccard(self.model_, known, self.seed)

    def _ground(self, given: ArrayLike | Sets) -> tuple[Sets, bool]:
        if not hasattr(self, "shape_"):
            raise InputError("SubsetSelector: nothing is fitted yet; call `fit` first.")
        single = False
        if isinstance(given, Sets):
            sets = given
        else:
            try:
                array = np.asarray(given, dtype=np.float32)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"SubsetSelector: V is no array of numbers ({error}). Sets of different sizes go in as `Sets.of`."
                ) from error
            single = array.ndim == len(self.shape_) + 1
            sets = Sets.of([array] if single else list(array))
        if tuple(sets.features.shape[2:]) != self.shape_:
            raise InputError(
                f"SubsetSelector: elements are of shape {tuple(sets.features.shape[2:])}, and {self.shape_} in `fit`."
            )
        return sets, single

    def _informative(self, sets: Sets) -> tuple[Sets, int]:
        """The sets from which something can be learned, and how many others there were."""
        chosen = sets.optimal().sum(dim=1)
        bad = (chosen == 0) | (chosen == sets.sizes)
        if not bool(bad.any()):
            return sets, 0
        if self.uninformative == "error" or bool(bad.all()):
            first = int(bad.nonzero()[0])
            what = "empty" if chosen[first] == 0 else "the whole set"
            remedy = "Give others." if bool(bad.all()) else "Leave it out, or set uninformative='skip'."
            raise InputError(f"set {first}: its optimal subset is {what}, from which nothing can be learned. {remedy}")
        return sets.take(~bad), int(bad.sum())


def _sets(given: Sets | Pairs) -> Sets:
    if isinstance(given, Sets):
        given.optimal()
        return given
    pairs = list(given)
    if any(len(pair) != 2 for pair in pairs):
        raise InputError("SubsetSelector: each example must be a pair, the set's features and its subset's mask.")
    return Sets.of([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def _sizes(size: int | Sequence[int], sets: Sets) -> torch.Tensor:
    told = f"SubsetSelector: size is {size!r}; give a whole number, or one for each of {len(sets)} sets."
    try:
        wanted = torch.as_tensor(size)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # torch has one for each kind of oddity
        raise InputError(told) from error
    odd = wanted.is_floating_point() or wanted.is_complex() or wanted.dtype == torch.bool
    if odd or wanted.ndim > 1 or (wanted.ndim == 1 and len(wanted) != len(sets)):
        raise InputError(told)
    wanted = wanted.expand(len(sets))
    bad = ((wanted < 0) | (wanted > sets.sizes)).nonzero()
    if len(bad):
        i = int(bad[0])
        raise InputError(f"set {i}: {int(wanted[i])} elements of {int(sets.sizes[i])} cannot be chosen.")
    return wanted
