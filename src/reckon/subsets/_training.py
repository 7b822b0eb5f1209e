"""How a model of subsets is trained."""

from __future__ import annotations

import math
import warnings
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from reckon.errors import InputError, RunError
from reckon.subsets._mean_field import Uniform
from reckon.subsets._metrics import jaccard, largest
from reckon.subsets._models import SubsetModel
from reckon.subsets._sets import Sets

TOGETHER = 64  # sets that are inferred at once: each takes some samples times its size squared
FLAT = 0.01  # a mean distance of psi from 0.5 below which nothing was learned


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how fast. The papers have lr 1e-4, batch 128, 100 epochs and patience 6, for larger networks.

    Raises:
        InputError: a setting is out of range.
    """

    epochs: int = 30
    batch: int = 32  # sets a step
    lr: float = 2e-3  # of Adam
    weight_decay: float = 1e-5
    clip: float = 10.0  # the gradient's norm, over all networks together
    patience: int = 6  # epochs without a better Jaccard index on validation sets before training stops

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.patience) < 1:
            raise InputError(
                f"Training: epochs {self.epochs}, batch {self.batch} and patience {self.patience} must be at least 1."
            )
        if not (0 < self.lr < math.inf and self.clip > 0 and self.weight_decay >= 0):
            raise InputError(
                f"Training: lr {self.lr} and clip {self.clip} must be above 0, weight_decay {self.weight_decay} at "
                "least 0."
            )


@dataclass(frozen=True, kw_only=True)
class History:
    """What training went through, epoch by epoch."""

    loss: list[float]  # mean over sets, before each step's own update
    jaccard: list[float]  # on validation sets; empty without them
    best: int  # the epoch, from 1, whose weights were kept


def train(
    model: nn.Module, sets: Sets, training: Training, generator: torch.Generator, validation: Sets | None = None
) -> History:
    """Trains a `SubsetModel` in place; with validation sets the weights of the best epoch are kept.

    Args:
        model: a `SubsetModel`.
        sets: to learn from; no subset is empty or all there is.
        training: how long and how fast.
        generator: for the order of the sets and the model's draws.
        validation: to choose the epoch by.

    Raises:
        RunError: the loss is no longer a finite number.
    """
    learner = cast("SubsetModel", model)

    def uniform(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=generator)

    adam = torch.optim.Adam(model.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    losses, found = list[float](), list[float]()
    best, weights = 0, None
    for epoch in range(1, training.epochs + 1):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(sets), generator=generator).split(training.batch):
            loss = learner.loss(sets.take(rows), uniform)
            adam.zero_grad()
            loss.mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), training.clip)
            adam.step()
            total += float(loss.detach().sum())
        if not math.isfinite(total):
            raise RunError(f"subsets: in epoch {epoch} the loss is {total}. Lower `lr`, or `scale` for large sets.")
        losses.append(total / len(sets))
        if validation is None:
            best = epoch
            continue
        found.append(mean_jaccard(model, validation))
        if found[-1] > max(found[:-1], default=-math.inf):
            best, weights = epoch, deepcopy(model.state_dict())
        elif epoch - best >= training.patience:
            break
    if weights is not None:
        model.load_state_dict(weights)
    return History(loss=losses, jaccard=found, best=best)


def warn_if_flat(model: nn.Module, sets: Sets, seed: int = 0) -> None:
    """Warns if psi is 0.5 for every element of the sets: the plateau on which a poor encoder stays."""
    if not cast("SubsetModel", model).marginals:
        return
    psi = infer(model, sets, seed)[sets.mask]
    if float((psi - 0.5).abs().mean()) < FLAT:
        warnings.warn(
            "SubsetSelector: psi is 0.5 for every element, so nothing was learned. Train for longer, raise `lr` or "
            "`scale`, or give an encoder that sees more (encoder='mlp' or a module of your own).",
            UserWarning,
            stacklevel=3,
        )


def infer(model: nn.Module, sets: Sets, seed: int = 0) -> Tensor:
    """Infers psi [B, n], the same for a set whatever it is padded to and whichever sets are beside it.

    Sets of a size are done some at a time, without their padding, and share the random numbers.
    """
    model.eval()
    psi = torch.zeros(sets.mask.shape)
    with torch.no_grad():
        sizes = sets.sizes
        for n in sizes.unique().tolist():
            for rows in (sizes == n).nonzero().squeeze(1).split(TOGETHER):
                mask = sets.mask[rows]
                features = sets.features[rows][mask].reshape(len(rows), n, *sets.features.shape[2:])
                whole = Sets(features=features, mask=torch.ones((len(rows), n), dtype=torch.bool))
                found = cast("SubsetModel", model).psi(whole, _shared(seed))
                there = torch.zeros(mask.shape)
                there[mask] = found.flatten()
                psi[rows] = there
    return psi


def _shared(seed: int) -> Uniform:
    """Uniform numbers that are the same for all sets of a batch, which are the first axis."""
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.rand((1, *shape[1:]), generator=generator).expand(shape)


def mean_jaccard(model: nn.Module, sets: Sets, seed: int = 0) -> float:
    """Mean Jaccard index of the subsets a model chooses, told how large the optimal ones are (the papers' MJC)."""
    chosen = sets.optimal()
    return float(jaccard(largest(infer(model, sets, seed), chosen.sum(dim=1), sets.mask), chosen).mean())
