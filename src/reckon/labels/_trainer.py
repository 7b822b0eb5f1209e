"""Sequential training: first on many weak labels, then on few gold ones, with the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reckon.errors import InputError
from reckon.labels._choosing import choose_by_entropy
from reckon.labels._learner import Learner
from reckon.labels._losses import Loss, soft_cross_entropy
from reckon.labels._measures import Floats, auroc, sigmoid

Kind: TypeAlias = Literal["weak", "gold"]
KINDS: tuple[Kind, ...] = ("weak", "gold")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Labels of one kind that may be bought: the first `n` of `rows`, unless a stage chooses among them."""

    x: Any  # [pool, ...] the whole pool, which is cut by rows when it is trained on
    labels: Floats  # [pool] in [0, 1], probability of class 1; those that are not bought are never read
    rows: NDArray[np.int64]  # [m] places in the pool, in the order of buying
    n: int  # to buy, at most m


@dataclass(frozen=True)
class Stage:
    """Training on labels of one kind, with an optimizer of its own: new state, new warm-up, new schedule.

    Raises:
        InputError: a setting out of its range.
    """

    kind: Kind
    loss: Loss = soft_cross_entropy
    lr: float = 0.05
    lr_after: float | None = None  # instead, where another stage came before; None = the same
    batch: int = 32
    max_steps: int | None = None
    choose: Literal["random", "uncertain"] = "random"  # uncertain needs a stage before, and is random without
    temperature: float = 0.25  # of the choice; 0 = the most uncertain ones
    keep_optimizer: bool = False  # go on with the moments of the stage before, to see what that costs

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"a stage is of kind {self.kind!r}, but must be 'weak' or 'gold'.")
        if self.choose not in ("random", "uncertain") or not self.temperature >= 0:
            raise InputError(
                f"stage {self.kind!r}: choose is {self.choose!r} and temperature {self.temperature:g}; the first must "
                "be 'random' or 'uncertain', the second 0 or more."
            )
        given = [self.batch, self.lr, *(one for one in (self.lr_after, self.max_steps) if one is not None)]
        if not all(0 < one < math.inf for one in given):
            raise InputError(
                f"stage {self.kind!r}: batch {self.batch}, lr {self.lr:g}, lr_after {self.lr_after} and max_steps "
                f"{self.max_steps} must be above 0."
            )


@dataclass(frozen=True)
class EarlyStop:
    """Stopping on labels of the stage itself, which were bought like all others: never gold ones for a weak stage."""

    share: float = 0.2  # of the stage's labels, at least 2
    every: int = 50  # steps between evaluations, at most an epoch
    patience: int = 4  # evaluations without a gain
    gain: float = 0.01  # of validation AUROC

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.every < 1 or self.patience < 1 or not self.gain >= 0:
            raise InputError(
                f"EarlyStop: share {self.share:g} must lie between 0 and 1; every {self.every} and patience "
                f"{self.patience} must be 1 or more, gain {self.gain:g} 0 or more."
            )


class SequentialTrainer:
    """Fine-tunes one learner stage by stage (Mallen & Belrose 2024, arXiv:2410.13215, "sequential SFT").

    A stage without labels is left out, so that one kind alone is plain fine-tuning, bit for bit. Its steps are those of
    `examples` examples, one epoch at least, under a linear warm-up of 40 steps and a cosine to 0. Where a stage has
    fewer than 3 labels, or its validation labels are all of one class, nothing can be validated: it takes
    `blind_steps` steps and keeps the last weights.

    Args:
        make: a fresh learner from a seed.
        stages: in the order of training; each kind at most once.
        early_stop: None = the last weights of each stage, and no label goes to validation.
        examples: that a stage sees, as in the paper.
        blind_steps: of a stage that cannot be validated.

    Raises:
        InputError: no stage, a kind twice, or a number below 1.
    """

    def __init__(
        self,
        make: Callable[[int], Learner],
        stages: Sequence[Stage],
        *,
        early_stop: EarlyStop | None = EarlyStop(),
        examples: int = 30_000,
        blind_steps: int = 50,
    ) -> None:
        kinds = [stage.kind for stage in stages]
        if not kinds or len(set(kinds)) < len(kinds):
            raise InputError(f"the stages are {kinds}; give at least one, and each kind once.")
        if examples < 1 or blind_steps < 1:
            raise InputError(f"examples is {examples} and blind_steps {blind_steps}; both must be 1 or more.")
        self._make, self._stages, self._stop = make, tuple(stages), early_stop
        self._examples, self._blind = examples, blind_steps

    def fit(self, offers: Mapping[Kind, Offer], seed: int) -> Learner:
        """Trains a fresh learner.

        Random numbers come from (seed, kind), so a stage draws the same ones whatever came before it.

        Args:
            offers: by kind; a kind that is not there, or of which 0 are to be bought, is left out.
            seed: 0 or more.

        Raises:
            InputError: nothing is bought; labels of a kind that no stage trains on; labels outside [0, 1].
        """
        bought = {kind: offer for kind, offer in offers.items() if offer.n}
        idle = [kind for kind in bought if kind not in {stage.kind for stage in self._stages}]
        if idle or not bought:
            what = "no label is bought"
            if idle:
                what = f"labels of kind {idle[0]!r} are bought, but no stage trains on them"
            raise InputError(f"{what}. Mend the purchase or the stages.")
        learner, first = self._make(seed), True
        for stage in self._stages:
            if stage.kind in bought:
                rng = np.random.default_rng([seed, KINDS.index(stage.kind)])
                self._run(learner, stage, bought[stage.kind], rng, first)
                first = False
        return learner

    def _run(self, learner: Learner, stage: Stage, offer: Offer, rng: np.random.Generator, first: bool) -> None:
        rows = _bought(learner, stage, offer, rng, first)
        labels = np.asarray(offer.labels[rows], dtype=np.float64)
        if not ((labels >= 0) & (labels <= 1)).all():
            raise InputError(f"a {stage.kind} label is not a number between 0 and 1, the probability of class 1.")
        validation, training = _split(labels, self._stop)
        if first or not stage.keep_optimizer:
            learner.new_optimizer()
        lr = stage.lr if first or stage.lr_after is None else stage.lr_after
        size = min(stage.batch, len(training))
        epoch = math.ceil(len(training) / size)
        steps = math.ceil(max(self._examples / len(training), 1) * epoch)
        watch = None
        if self._stop is not None and len(validation):
            watch = _Watch(self._stop, min(self._stop.every, epoch), offer.x[rows[validation]], labels[validation])
        elif self._stop is not None:
            steps = self._blind
        steps = min(steps, stage.max_steps or steps)
        batches = _batches(len(training), size, rng)
        for step in range(steps):
            batch = training[next(batches)]
            x, y = offer.x[rows[batch]], labels[batch]
            targets = y if stage.loss is soft_cross_entropy else stage.loss(y, sigmoid(learner.log_odds(x)), step)
            learner.step(x, targets, lr * schedule(step, steps, epoch))
            if watch and watch.stop(learner, step + 1, steps):
                break
        if watch:
            learner.restore(watch.best)


def schedule(step: int, steps: int, epoch: int) -> float:
    """What the learning rate is multiplied by: linear warm-up over 40 steps (2 to an epoch's), then a cosine to 0."""
    warm = min(40, max(2, epoch))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class _Watch:
    """The best weights so far by validation AUROC, and how long there was no gain."""

    def __init__(self, settings: EarlyStop, every: int, x: Any, labels: Floats) -> None:
        self._settings, self._every, self._x, self._labels = settings, every, x, (labels >= 0.5).astype(np.float64)
        self._highest, self._mark, self._stale = -1.0, -1.0, 0
        self.best: Any = None

    def stop(self, learner: Learner, done: int, steps: int) -> bool:
        """Whether to stop after `done` of `steps`; evaluates every so many of them, and after the last."""
        if done % self._every and done < steps:
            return False
        found = auroc(self._labels, learner.log_odds(self._x))
        if found > self._highest:
            self._highest, self.best = found, learner.weights()
        if found >= self._mark + self._settings.gain:
            self._mark, self._stale = found, 0
        else:
            self._stale += 1
        return self._stale >= self._settings.patience


def _bought(learner: Learner, stage: Stage, offer: Offer, rng: np.random.Generator, first: bool) -> NDArray[np.int64]:
    """Places in the pool of the labels that are bought."""
    if not 0 < offer.n <= len(offer.rows):
        raise InputError(f"{offer.n} {stage.kind} labels are to be bought, but {len(offer.rows)} are offered.")
    if stage.choose == "uncertain" and not first:
        predicted = sigmoid(learner.log_odds(offer.x[offer.rows]))
        return offer.rows[choose_by_entropy(predicted, offer.n, rng, temperature=stage.temperature)]
    return offer.rows[: offer.n]


def _split(labels: Floats, stop: EarlyStop | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of validation and of training labels. The order is random already, since the purchase was."""
    places = np.arange(len(labels))
    if stop is None or len(labels) < 3:
        return places[:0], places
    held = min(max(int(stop.share * len(labels)), 2), len(labels) - 1)
    hard = labels[:held] >= 0.5
    if hard.all() or not hard.any():
        return places[:0], places
    return places[:held], places[held:]


def _batches(n: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Places of one batch after the other: permutations end to end, so that every batch is full."""
    queue = np.empty(0, dtype=np.int64)
    while True:
        while len(queue) < size:
            queue = np.concatenate([queue, rng.permutation(n)])
        yield queue[:size]
        queue = queue[size:]
