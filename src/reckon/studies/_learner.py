"""What a study's small network does as a model: it is asked, takes a step, and is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import nn

from reckon.types import Batch, Columns, Credit, Loss, Metrics, Objective, Outputs, Rng, Sequences, State, Want

Forward: TypeAlias = "Callable[[Sequences, tuple[Want, ...]], Outputs]"


class Learner:
    """A network under Adam, one step a batch. A policy takes these methods as its own."""

    def __init__(
        self, network: nn.Module, forward: Forward, optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    ) -> None:
        """Takes the network as it is.

        Args:
            network: what learns.
            forward: what it says about responses, with gradients.
            optimizer: makes the optimizer from its weights.
        """
        self._network, self._forward, self._make_optimizer = network, forward, optimizer
        self.renew()

    def renew(self) -> None:
        """Forgets the optimizer's moments."""
        self._optimizer = self._make_optimizer(self._network.parameters())

    def outputs(self, seq: Sequences, want: Iterable[Want] = ("logprobs",)) -> Outputs:
        """Log-probs and entropy, without gradients."""
        with torch.no_grad():
            return self._forward(seq, tuple(want))

    def step(self, seq: Sequences, columns: Columns, loss: Loss, want: Iterable[Want] = ("logprobs",)) -> Metrics:
        """One step on the sum of `loss` over all rows."""
        self._optimizer.zero_grad()
        value = loss(self._forward(seq, tuple(want)), columns).sum()
        value.backward()
        self._optimizer.step()
        return {"policy/loss": float(value.detach())}

    def update(self, objective: Objective, batch: Batch, credit: Credit, rng: Rng) -> Metrics:
        """Learns from a batch in one step."""
        del rng  # nothing is shuffled
        columns = objective.prepare(replace(batch, on_policy=True), credit)
        return self.step(batch.seq, columns, objective, objective.want)

    def state_dict(self) -> State:
        """The weights."""
        return {name: value.clone() for name, value in self._network.state_dict().items()}

    def load_state_dict(self, state: State) -> None:
        """Takes the weights up; the optimizer begins anew."""
        self._network.load_state_dict(dict(state))
        self.renew()
