"""Networks that bonuses are made of, and how they learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from reckon.errors import InputError
from reckon.types import Metrics, Rng, State


class Flat(nn.Module):
    """Observations [n, *O] of any dtype as [n, numbers] float32."""

    def forward(self, obs: Tensor) -> Tensor:
        """[n, numbers]."""
        return _rows(obs).float()


class ObservationScale:
    """Observations in deviations from their running mean, each number by itself, held in [-5, 5].

    As random distillation needs them (Burda et al. 2018, arXiv:1810.12894, section 2.4): a random network says nothing
    of numbers that are far too small or too large for it.
    """

    def __init__(self) -> None:
        self._count = 0.0
        self._mean = self._squares = torch.zeros(1, dtype=torch.float64)  # squares: summed squared distances from it

    def join(self, obs: Tensor) -> None:
        """Takes note of observations [n, *O], by Chan, Golub and LeVeque's update."""
        rows = _rows(obs).double()
        total, mean = self._count + len(rows), rows.mean(dim=0)
        off = mean - self._mean.to(mean.device)
        squares = (rows - mean).square().sum(dim=0) + off.square() * self._count * len(rows) / total
        self._squares = self._squares.to(mean.device) + squares
        self._mean = self._mean.to(mean.device) + off * len(rows) / total
        self._count = total

    def __call__(self, obs: Tensor) -> Tensor:
        """[n, numbers] float32; 0 for a number that never varied."""
        deviation = (self._squares / max(self._count, 1.0)).sqrt()
        scaled = (_rows(obs).double() - self._mean) / torch.where(deviation > 0, deviation, 1.0)
        return scaled.clamp(-5, 5).float()

    def state_dict(self) -> State:
        """The moments."""
        return {"count": self._count, "mean": self._mean.clone(), "squares": self._squares.clone()}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        self._count = cast("float", state["count"])
        self._mean, self._squares = (cast("Tensor", state[name]).clone() for name in ("mean", "squares"))


class Learner:
    """A network with its optimizer (Adam): it steps on losses, and saves and restores both."""

    def __init__(self, owner: str, network: nn.Module, lr: float) -> None:
        if not 0 < lr < float("inf"):
            raise InputError(f"{owner}: `lr` is {lr}; it must be above 0, and finite.")
        self.owner, self.network = owner, network
        self._weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        self._adam = torch.optim.Adam(self._weights.values(), lr=lr)

    def read(
        self, rows: Tensor, loss: Callable[[Tensor], tuple[Tensor, Metrics]], *, epochs: int, parts: int, rng: Rng
    ) -> Metrics:
        """Steps down the gradient of `loss`, for rows in a random order, `epochs` times over in `parts` steps each.

        Args:
            rows: [n] int64, what there is to learn from.
            loss: from some of the rows to what is minimized, and numbers worth logging: means over these rows.
            epochs: how often each row is read.
            parts: into how many steps of nearly equal size a reading is cut, at most.
            rng: of the orders.

        Returns:
            The numbers' means over the first reading, each taken before its step; empty without rows.
        """
        told: list[tuple[int, Metrics]] = []
        for epoch in range(epochs):
            order = torch.from_numpy(rng.child(epoch).numpy().permutation(len(rows))).to(rows.device)
            for part in (part for part in rows[order].tensor_split(parts) if len(part)):
                value, numbers = loss(part)
                self._adam.zero_grad()
                value.backward()
                self._adam.step()
                if epoch == 0:
                    told.append((len(part), numbers))
        names = told[0][1] if told else ()
        return {name: sum(size * numbers[name] for size, numbers in told) / len(rows) for name in names}

    def state_dict(self) -> State:
        """Weights and moments."""
        return {
            "weights": saved(self.network),
            "adam": {
                name: {key: moment.clone() for key, moment in self._adam.state[weight].items()}
                for name, weight in self._weights.items()
            },
        }

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            InputError: the saved weights are of another network.
        """
        restore(self.owner, self.network, cast("State", state["weights"]))
        adam = cast("Mapping[str, Mapping[str, Tensor]]", state["adam"])
        for name, weight in self._weights.items():
            self._adam.state[weight] = {key: moment.clone() for key, moment in adam[name].items()}


def saved(network: nn.Module) -> State:
    """The weights and buffers of a network."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def restore(owner: str, network: nn.Module, state: State) -> None:
    """Puts saved weights back.

    Raises:
        InputError: they are of another network.
    """
    try:
        network.load_state_dict(dict(cast("Mapping[str, Tensor]", state)))
    except RuntimeError as error:
        raise InputError(
            f"{owner}: the saved network is another one than this. Build it with the settings that the run was begun "
            f"with. ({' '.join(str(error).split())})"
        ) from error


def mlp(
    sizes: Sequence[int],
    *,
    seed: int,
    activation: Literal["relu", "tanh"] = "relu",
    layer_norm: bool = False,
) -> nn.Sequential:
    """A fully connected network for observations of any shape, which are flattened.

    Args:
        sizes: of its layers: numbers in an observation, hidden units, numbers that come out.
        seed: of its first weights; PyTorch's random numbers elsewhere are left as they are.
        activation: between layers.
        layer_norm: normalize what comes out to mean 0 and variance 1 in each row, without weights of its own.

    Raises:
        InputError: fewer than two sizes, one below 1, or another activation.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(f"mlp: `sizes` are {list(sizes)}; give two or more, each 1 or above.")
    if activation not in ("relu", "tanh"):
        raise InputError(f"mlp: `activation` is {activation!r}; it must be relu or tanh.")
    layers: list[nn.Module] = [Flat()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for place, (inner, outer) in enumerate(pairwise(sizes)):
            if place:
                layers.append(nn.ReLU() if activation == "relu" else nn.Tanh())
            layers.append(nn.Linear(inner, outer))
    if layer_norm:
        layers.append(nn.LayerNorm(sizes[-1], elementwise_affine=False))
    return nn.Sequential(*layers)


def _rows(obs: Tensor) -> Tensor:
    """[n, numbers], for no rows and for observations that are one number too."""
    return obs.reshape(len(obs), math.prod(obs.shape[1:]))


def check_learning(owner: str, **settings: int) -> None:
    """Raises InputError for a number that must be 1 or more and is not."""
    for name, value in settings.items():
        if value < 1:
            raise InputError(f"{owner}: `{name}` is {value}; it must be 1 or more.")
