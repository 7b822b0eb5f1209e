"""How new a response is to a network that has learned from every response before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from reckon import bonuses
from reckon.errors import InputError
from reckon.rewards._judges_reading import Scorer
from reckon.rewards._novelty import check_decay, deviation, joined, mean_hidden
from reckon.types import Batch, Metrics, Rng, State, Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class RandomDistillation:
    """How badly a network that learns from every response predicts what a random one says of it (RND).

    Burda et al. 2018, arXiv:1810.12894: the squared error over its standard deviation so far, not centered. Both
    networks read a response's mean last hidden state in the model before training, layer-normalized: what is new is
    then the response, and not its reader. The predictor learns from a batch after that was paid.
    """

    reference: Scorer  # whose hidden states
    width: int = 64  # hidden units of both networks
    size: int = 16  # numbers that are predicted
    lr: float = 1e-3  # of the predictor (Adam)
    steps: int = 1  # of the predictor on each batch
    decay: float = 1.0  # what the past still counts in the deviation after a step, in (0, 1]
    seed: int = 0  # of both networks' first weights

    def __post_init__(self) -> None:
        for name in ("width", "size", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"random_distillation: `{name}` is {getattr(self, name)}; it must be 1 or more.")
        if not 0 < self.lr < float("inf"):
            raise InputError(f"random_distillation: `lr` is {self.lr}; it must be above 0, and finite.")
        check_decay("random_distillation", self.decay)
        self._target: dict[str, Tensor] = {}  # made when it is known how many features there are
        self._predictor: dict[str, Tensor] = {}
        self._adam: torch.optim.Adam | None = None
        self._statistics = {"count": 0.0, "mean": 0.0, "squares": 0.0}
        self._metrics: Metrics = {}

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N] of at least 0, NaN where nothing was sampled; before any step the error itself. Pure."""
        return self._stream(self._errors(self._features(batch)), batch)

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """As `score`, once a step, the batch's errors in the deviation; then the predictor learns."""
        features = self._features(batch)
        errors = self._errors(features)
        self._statistics = joined(self._statistics, errors, self.decay)
        known = ~errors.isnan()
        if known.any():
            self._learn(features[known])
            self._metrics = {"error": float(errors[known].mean()), "deviation": deviation(self._statistics)}
        return self._stream(errors, batch)

    def metrics(self) -> Metrics:
        """`error`, the last batch's mean before it was learned from, and `deviation`, what it is divided by."""
        return dict(self._metrics)

    def state_dict(self) -> State:
        """Both networks, the predictor's moments and the errors' statistics."""
        if self._adam is None:
            return {}
        return {
            "target": dict(self._target),
            "predictor": {name: weight.detach().clone() for name, weight in self._predictor.items()},
            "adam": {
                name: {key: moment.clone() for key, moment in self._adam.state[weight].items()}
                for name, weight in self._predictor.items()
            },
            "statistics": dict(self._statistics),
        }

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            InputError: the saved networks are of other sizes.
        """
        if not state:
            return
        saved = cast("Mapping[str, Mapping[str, Tensor]]", state)
        sizes = [tuple(saved["target"][name].shape) for name in ("inner", "outer")]
        if sizes != [(self.width, sizes[0][1]), (self.size, self.width)]:
            raise InputError(
                f"random_distillation: the saved networks are of sizes {sizes}, and not of width {self.width} and size "
                f"{self.size}. Use the run's own recipe."
            )
        self._target = dict(saved["target"])
        self._predictor = {name: weight.clone().requires_grad_() for name, weight in saved["predictor"].items()}
        self._adam = torch.optim.Adam(self._predictor.values(), lr=self.lr)
        for name, weight in self._predictor.items():
            moments = cast("Mapping[str, Tensor]", saved["adam"][name])
            self._adam.state[weight] = {key: moment.clone() for key, moment in moments.items()}
        self._statistics = dict(cast("Mapping[str, float]", state["statistics"]))

    def _features(self, batch: Batch) -> Tensor:
        """[N, D] float32, of mean 0 and variance 1 in each row, NaN where nothing was sampled; makes the networks."""
        unit = mean_hidden("random_distillation", self.reference, batch)
        width = unit.shape[1]
        if self._adam is None:
            rng = Rng(("random_distillation", self.seed))
            self._target, self._predictor = (
                _network(width, self.width, self.size, rng.child(name)) for name in ("target", "predictor")
            )
            self._adam = torch.optim.Adam([w.requires_grad_() for w in self._predictor.values()], lr=self.lr)
        return (unit * math.sqrt(width)).float()

    def _errors(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            return bonuses.distillation_error(_says(self._predictor, features), _says(self._target, features))

    def _learn(self, features: Tensor) -> None:
        assert self._adam is not None
        target = _says(self._target, features)
        for _ in range(self.steps):
            self._adam.zero_grad()
            bonuses.distillation_error(_says(self._predictor, features), target).mean().backward()
            self._adam.step()

    def _stream(self, errors: Tensor, batch: Batch) -> dict[str, Stream]:
        bonus = bonuses.in_deviations(errors, deviation(self._statistics))
        return {"random_distillation": Stream(values=bonus.to(batch.outcome.device))}


def _network(features: int, width: int, size: int, rng: Rng) -> dict[str, Tensor]:
    """Random weights of a network with one hidden layer; what goes through keeps its size (He et al. 2015)."""
    inner, outer = (rng.child(layer).numpy() for layer in ("inner", "outer"))
    return {
        "inner": torch.from_numpy(inner.normal(0, (2 / features) ** 0.5, (width, features))).float(),
        "inner_bias": torch.zeros(width),
        "outer": torch.from_numpy(outer.normal(0, width**-0.5, (size, width))).float(),
        "outer_bias": torch.zeros(size),
    }


def _says(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """[N, size] of features [N, D]."""
    hidden = torch.relu(features @ weights["inner"].T + weights["inner_bias"])
    return hidden @ weights["outer"].T + weights["outer_bias"]
