"""Ground sets of different sizes in one tensor, and what was chosen from each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reckon.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Sets:
    """B ground sets, padded to n elements, and the subset of each that is to be found where it is known."""

    features: Tensor  # [B, n, ...] float32 (other real numbers become it); what stands in padding does not matter
    mask: Tensor  # [B, n] bool, True where there is an element
    chosen: Tensor | None = None  # [B, n] bool, True in the optimal subset, False in padding; None = not known

    def __post_init__(self) -> None:
        shape = tuple(self.features.shape[:2])
        if self.features.ndim < 3 or tuple(self.mask.shape) != shape or self.mask.dtype != torch.bool:
            raise InputError(
                f"sets: features are of shape {tuple(self.features.shape)} and the mask {self.mask.dtype} of "
                f"{tuple(self.mask.shape)}; give [B, n, ...] numbers and [B, n] bool."
            )
        if self.features.is_complex():
            raise InputError(f"sets: features are {self.features.dtype}; give real numbers.")
        # As `Sets.of` has it: networks take no other numbers.
        object.__setattr__(self, "features", self.features.to(torch.float32))
        if not shape[0]:
            raise InputError("sets: there is no set; give at least one.")
        empty = (~self.mask.any(dim=1)).nonzero()
        if len(empty):
            raise InputError(f"set {int(empty[0])} has no elements. Leave it out.")
        bad = (self.mask & ~self.features.flatten(2).isfinite().all(dim=2)).nonzero()
        if len(bad):
            i, j = bad[0].tolist()
            raise InputError(
                f"set {i}, element {j}: a feature is NaN or infinite as float32. Mend or scale it, or leave it out."
            )
        if self.chosen is None:
            return
        if tuple(self.chosen.shape) != shape or self.chosen.dtype != torch.bool:
            raise InputError(
                f"sets: chosen is {self.chosen.dtype} of {tuple(self.chosen.shape)}; give bool of {list(shape)}."
            )
        stray = (self.chosen & ~self.mask).nonzero()
        if len(stray):
            i, j = stray[0].tolist()
            raise InputError(f"set {i}: element {j} is chosen, but it is padding. Mend the mask or what is chosen.")

    @classmethod
    def of(cls, ground: Sequence[ArrayLike], chosen: Sequence[ArrayLike] | None = None) -> Sets:
        """Pads sets of different sizes.

        Args:
            ground: B arrays [n_b, ...] of finite numbers; the shape of an element is the same everywhere.
            chosen: B arrays [n_b] of 0 and 1 (or bool).

        Raises:
            InputError: names the set that cannot be used.
        """
        arrays = [_numbers(values, i) for i, values in enumerate(ground)]
        if not arrays:
            raise InputError("sets: there is no set; give at least one.")
        shape, most = arrays[0].shape[1:], max(len(array) for array in arrays)
        features = torch.zeros((len(arrays), most, *shape))
        mask = torch.zeros((len(arrays), most), dtype=torch.bool)
        for i, array in enumerate(arrays):
            if array.shape[1:] != shape:
                raise InputError(f"set {i}: its elements are of shape {array.shape[1:]}, those of set 0 of {shape}.")
            features[i, : len(array)] = torch.from_numpy(array)
            mask[i, : len(array)] = True
        if chosen is None:
            return cls(features=features, mask=mask)
        if len(chosen) != len(arrays):
            raise InputError(f"sets: {len(arrays)} sets and {len(chosen)} subsets; give one for each.")
        picked = torch.zeros_like(mask)
        for i, values in enumerate(chosen):
            picked[i, : len(arrays[i])] = torch.from_numpy(_choice(values, len(arrays[i]), i))
        return cls(features=features, mask=mask, chosen=picked)

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def sizes(self) -> Tensor:
        """[B] int64, elements of each set."""
        return self.mask.sum(dim=1)

    def optimal(self) -> Tensor:
        """[B, n] bool, what is to be found.

        Raises:
            InputError: it is not known.
        """
        if self.chosen is None:
            raise InputError("sets: the optimal subsets are not known; give `chosen`.")
        return self.chosen

    def take(self, rows: Tensor) -> Sets:
        """The sets at `rows` ([m] int64 or [B] bool), with no more padding than they need."""
        most = int(self.mask[rows].sum(dim=1).max()) if self._packed() else self.mask.shape[1]
        chosen = None if self.chosen is None else self.chosen[rows, :most]
        return Sets(features=self.features[rows, :most], mask=self.mask[rows, :most], chosen=chosen)

    def _packed(self) -> bool:
        """Whether all padding is on the right, so that columns can be cut off."""
        return bool((self.mask.long().diff(dim=1) <= 0).all())


def _numbers(values: ArrayLike, i: int) -> NDArray[np.float32]:
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"set {i}: its features are no array of numbers ({error}).") from error
    if array.ndim < 2:
        raise InputError(f"set {i}: its features are of shape {array.shape}; give [n, ...], one row an element.")
    if not len(array):
        raise InputError(f"set {i} has no elements. Leave it out.")
    return array


def _choice(values: ArrayLike, n: int, i: int) -> NDArray[np.bool_]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"set {i}: what is chosen is no array of 0 and 1 ({error}).") from error
    if array.shape != (n,) or not np.isin(array, (0, 1)).all():
        raise InputError(
            f"set {i}: what is chosen is of shape {array.shape}; it must be {n} numbers, 1 for an element of the "
            "optimal subset and 0 for any other."
        )
    return np.asarray(array == 1)
