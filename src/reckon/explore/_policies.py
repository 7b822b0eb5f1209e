"""Networks of an agent: from observations to the chances of actions and to values, with or without a memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from reckon.errors import InputError


class Network(Protocol):
    """An actor and a critic. What they remember of an episode is a row of `memory` numbers, none for most."""

    memory: int
    actions: int

    def act(self, obs: Tensor, memory: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, A] of observations [n, D], and the memory after them. `start` [n] bool forgets first."""
        ...

    def sequence(self, obs: Tensor, memory: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Of observations [T, n, D]: logits [T, n, A], values [T, n]. `memory` is from before, `start` [T, n] bool."""
        ...


class FeedForward(nn.Module):
    """Two separate networks of tanh layers, an actor's and a critic's, computed side by side.

    The critic's weights stand beside the actor's in one tensor for each layer, which halves the calls: nothing of one
    reaches the other.

    Args:
        inputs: D, numbers of an observation.
        actions: A.
        hidden: widths of the layers of either network, at least one.
        seed: of the first weights: orthogonal, as PPO's implementations have them (Huang et al. 2022).
    """

    memory = 0

    def __init__(self, inputs: int, actions: int, *, hidden: Sequence[int] = (64, 64), seed: int = 0) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise InputError(f"hidden is {list(hidden)}; it must be widths of at least 1, and there must be one.")
        self.inputs, self.actions = inputs, actions
        sizes = [inputs, *hidden]
        shapes = list(pairwise(sizes))
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.ParameterList(
            torch.stack([_orthogonal(rows, columns, math.sqrt(2), generator) for _ in range(2)])
            for rows, columns in shapes
        )  # [2, in, out] each: of the actor and of the critic
        self.biases = nn.ParameterList(torch.zeros(2, 1, columns) for _, columns in shapes)
        self.policy, self.value = _heads(sizes[-1], actions, generator)

    def act(self, obs: Tensor, memory: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """See `Network`. The critic is not asked."""
        _check_inputs(self.inputs, obs)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            obs = tanh_(torch.addmm(bias[0], obs, weight[0]))
        return cast("Tensor", self.policy(obs)), memory

    def sequence(self, obs: Tensor, memory: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """See `Network`."""
        steps, count = obs.shape[:2]
        x = obs.reshape(1, steps * count, -1)
        first, bias = self.weights[0], self.biases[0]
        # Both read the same observations, so the first layer is one product.
        wide = tanh_(torch.addmm(bias.reshape(-1), x[0], first.transpose(0, 1).reshape(first.shape[1], -1)))
        x = wide.reshape(len(wide), 2, -1).transpose(0, 1)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            x = tanh_(torch.baddbmm(bias, x, weight))
        actor, critic = x.unbind(0)  # not x[0] and x[1], each of which has a gradient of its own full of zeros
        return self.policy(actor).reshape(steps, count, -1), self.value(critic).reshape(steps, count)


class Recurrent(nn.Module):
    """A tanh layer, an LSTM over it, and two heads. What it remembers is forgotten where an episode begins.

    Args:
        inputs: D, numbers of an observation.
        actions: A.
        hidden: width of the layer and of the LSTM.
        seed: of the first weights.
        encoder: from [..., D] to [..., hidden] in place of the first layer, with weights of its own.
    """

    def __init__(
        self, inputs: int, actions: int, *, hidden: int = 64, seed: int = 0, encoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        if hidden < 1:
            raise InputError(f"hidden is {hidden}; it must be at least 1.")
        self.inputs, self.actions, self.memory = inputs, actions, 2 * hidden
        generator = torch.Generator().manual_seed(seed)
        self.encoder = nn.Linear(inputs, hidden) if encoder is None else encoder
        self.lstm = nn.LSTM(hidden, hidden)
        with torch.no_grad():
            if isinstance(self.encoder, nn.Linear):
                self.encoder.weight.copy_(_orthogonal(inputs, hidden, math.sqrt(2), generator).T)
                self.encoder.bias.zero_()
            for name, parameter in self.lstm.named_parameters():
                if name.startswith("bias"):
                    parameter.zero_()
                else:
                    parameter.copy_(torch.cat([_orthogonal(hidden, hidden, 1.0, generator) for _ in range(4)]))
        self.policy, self.value = _heads(hidden, actions, generator)

    def act(self, obs: Tensor, memory: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """See `Network`."""
        _check_inputs(self.inputs, obs)
        kept = torch.where(start[:, None], 0.0, memory)
        hidden, cell = (half[None].contiguous() for half in kept.chunk(2, dim=1))
        out, (hidden, cell) = self.lstm(self.encoder(obs).tanh()[None], (hidden, cell))
        return cast("Tensor", self.policy(out[0])), torch.cat([hidden[0], cell[0]], dim=1)

    def sequence(self, obs: Tensor, memory: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """See `Network`. Stretches between beginnings of episodes are packed: the LSTM runs over all at once."""
        steps, count = start.shape
        stretches = _Stretches(start)
        seen = self.encoder(obs).tanh().flatten(0, 1)
        hidden, cell = (half[None].contiguous() for half in stretches.memories(memory).chunk(2, dim=1))
        packed = PackedSequence(seen[stretches.order], stretches.sizes)
        out = self.lstm(packed, (hidden, cell))[0].data[stretches.place].reshape(steps, count, -1)
        return self.policy(out), self.value(out)[..., 0]


class _Tanh(torch.autograd.Function):
    """See `tanh_`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """In place."""
        x.mul_(2).sigmoid_().mul_(2).sub_(1)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """1 - tanh^2 of it."""
        return cast("Tensor", torch.ops.aten.tanh_backward(gradient, *ctx.saved_tensors))


def tanh_(x: Tensor) -> Tensor:
    """The tanh, as 2 sigmoid(2 x) - 1 in place, within 2e-7.

    Torch's own takes twice as long on a processor, and was a fifth of a PPO update of two small networks.
    """
    return cast("Tensor", _Tanh.apply(x))  # type: ignore[no-untyped-call]


class _Stretches:
    """[T, n] steps cut where episodes begin, in the order in which a packed sequence holds them: the longest first."""

    def __init__(self, start: Tensor) -> None:
        steps, count = start.shape
        time = torch.arange(steps)[:, None].expand(steps, count)
        first = start.clone()
        first[0] = True  # a stretch that goes on from before
        begun = torch.where(first, time, 0).cummax(dim=0).values
        age = (time - begun).flatten()
        name = (begun * count + torch.arange(count)).flatten()
        names, inverse, lengths = torch.unique(name, return_inverse=True, return_counts=True)
        longest = torch.argsort(lengths, descending=True, stable=True)
        rank = torch.empty_like(longest)
        rank[longest] = torch.arange(len(longest))
        self.order = torch.argsort(age * len(names) + rank[inverse])  # [T n]: which step stands at each place
        self.place = torch.empty_like(self.order)  # [T n]: where each step stands
        self.place[self.order] = torch.arange(len(self.order))
        self.sizes = torch.bincount(age)  # how many stretches are longer than 0, 1, ...
        heads = names[longest]
        self._column = heads % count
        self._goes_on = (heads < count) & ~start.flatten()[heads]

    def memories(self, memory: Tensor) -> Tensor:
        """[S, memory]: what each stretch begins with, nothing where an episode does."""
        return torch.where(self._goes_on[:, None], memory[self._column], 0.0)


def _heads(inputs: int, actions: int, generator: torch.Generator) -> tuple[nn.Linear, nn.Linear]:
    """Of the actor, nearly uniform at first, and of the critic."""
    policy, value = nn.Linear(inputs, actions), nn.Linear(inputs, 1)
    with torch.no_grad():
        for head, gain in ((policy, 0.01), (value, 1.0)):
            head.weight.copy_(_orthogonal(inputs, head.out_features, gain, generator).T)
            head.bias.zero_()
    return policy, value


def _orthogonal(rows: int, columns: int, gain: float, generator: torch.Generator) -> Tensor:
    """[rows, columns] with orthonormal columns or, where they are more than the rows, orthonormal rows; times gain."""
    drawn = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q, r = torch.linalg.qr(drawn)
    q = q * r.diagonal().sign()  # or the distribution is not uniform (Mezzadri 2007, math-ph/0609050)
    scaled: Tensor = gain * (q if rows >= columns else q.T)
    return scaled


def _check_inputs(inputs: int, obs: Tensor) -> None:
    """Raises InputError for observations [n, D] of another size than the network was built for."""
    if obs.shape[1] != inputs:
        raise InputError(
            f"the network reads {inputs} numbers, and an observation has {obs.shape[1]}. Build it with collector.size."
        )
