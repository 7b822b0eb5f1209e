"""Features: the numbers that stand for a state in elliptical bonuses and in impact."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from reckon.errors import InputError, RunError
from reckon.explore._learning import Learner, check_learning, mlp, restore, saved
from reckon.explore._rollout import Features, Rollout
from reckon.types import Metrics, Rng, State


class RandomFeatures:
    """What a network that never learns says of a state; saved with the run, for its weights cannot be had again.

    Args:
        network: from observations [n, *O] to [n, size].
        size: D.
    """

    def __init__(self, network: nn.Module, *, size: int) -> None:
        self.network, self.size = network.requires_grad_(False), size

    def __call__(self, obs: Tensor) -> Tensor:
        """[n, D]."""
        with torch.no_grad():
            return cast("Tensor", self.network(obs))

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Does not."""
        return {}

    def state_dict(self) -> State:
        """The weights."""
        return saved(self.network)

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        restore("random_features", self.network, state)


class PolicyFeatures:
    """What a layer of the policy says of a state. The policy learns and is saved elsewhere.

    Args:
        function: from observations [n, *O] to [n, size], the policy's layers up to one.
        size: D.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], *, size: int) -> None:
        self.function, self.size = function, size

    def __call__(self, obs: Tensor) -> Tensor:
        """[n, D]."""
        with torch.no_grad():
            return self.function(obs)

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Does not: no gradient reaches the policy from here."""
        return {}

    def state_dict(self) -> State:
        """Nothing."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing."""


class InverseDynamics:
    """What an encoder says of a state that has learned to tell which action led from one state to the next.

    It learns what the actions can change, and leaves out what they cannot (Pathak et al. 2017, arXiv:1705.05363; as
    E3B's features: Henaff et al. 2022, arXiv:2210.05805, section 3). With `forward` above 0 the next state's features
    are predicted too, from the state's and the action (RIDE; Raileanu and Rocktäschel 2020, arXiv:2002.12292, eq. 2).
    Pairs across the end of an episode are left out, unless its last observation is at hand.

    Args:
        encoder: from observations [n, *O] to [n, size]. A layer normalization at its end keeps features from
            collapsing or exploding.
        size: D.
        actions: how many there are.
        width: hidden units of the networks on top of it.
        forward: the weight of half the squared error of the predicted features.
        lr: of all of them (Adam).
        epochs, parts: how often it reads a rollout, and into how many steps each reading is cut.
        seed: of the first weights of the networks on top.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        size: int,
        actions: int,
        width: int = 256,
        forward: float = 0.0,
        lr: float = 1e-4,
        epochs: int = 1,
        parts: int = 1,
        seed: int = 0,
    ) -> None:
        check_learning("inverse_dynamics", size=size, actions=actions, width=width, epochs=epochs, parts=parts)
        if not 0 <= forward < float("inf"):
            raise InputError(f"inverse_dynamics: `forward` is {forward}; it must be 0 or more, and finite.")
        self.size, self.actions, self.forward, self.epochs, self.parts = size, actions, forward, epochs, parts
        networks: dict[str, nn.Module] = {"encoder": encoder, "inverse": mlp([2 * size, width, actions], seed=seed)}
        if forward:
            networks["forward_model"] = mlp([size + actions, width, size], seed=seed + 1)
        self._networks = nn.ModuleDict(networks)
        self._learner = Learner("inverse_dynamics", self._networks, lr)

    def __call__(self, obs: Tensor) -> Tensor:
        """[n, D]."""
        with torch.no_grad():
            return cast("Tensor", self._networks["encoder"](obs))

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Reads a rollout; `inverse/loss` and `inverse/accuracy` are of the actions before it learned from them."""
        low, high = int(rollout.action.min()), int(rollout.action.max())
        if low < 0 or high >= self.actions:
            raise InputError(
                f"inverse_dynamics: there are actions from {low} to {high}, and `actions` is {self.actions}. They are "
                "numbered from 0; give the number that the environment has."
            )
        before, action = rollout.obs[:-1].flatten(0, 1), rollout.action.flatten()
        after = rollout.entered(rollout.obs, rollout.final_obs).flatten(0, 1)
        rows = rollout.known(rollout.final_obs).flatten().nonzero().squeeze(1)

        def loss(part: Tensor) -> tuple[Tensor, Metrics]:
            return self._loss(before[part], action[part], after[part])

        return self._learner.read(rows, loss, epochs=self.epochs, parts=self.parts, rng=rng)

    def state_dict(self) -> State:
        """All networks and the optimizer's moments."""
        return self._learner.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        self._learner.load_state_dict(state)

    def _loss(self, before: Tensor, action: Tensor, after: Tensor) -> tuple[Tensor, Metrics]:
        """What is minimized, and the cross-entropy of the actions and the share told right."""
        first, second = self._networks["encoder"](torch.cat([before, after])).chunk(2)
        logits = self._networks["inverse"](torch.cat([first, second], dim=1))
        inverse = cross_entropy(logits, action)
        loss = inverse
        if self.forward:
            taken = torch.cat([first, one_hot(action, self.actions).float()], dim=1)
            error = self._networks["forward_model"](taken) - second
            loss = inverse + self.forward * 0.5 * error.square().sum(dim=1).mean()
        right = (logits.argmax(dim=1) == action).float().mean()
        return loss, {"inverse/loss": float(inverse.detach()), "inverse/accuracy": float(right)}


def read(owner: str, features: Features, obs: Tensor) -> Tensor:
    """[n, D] of observations [n, *O], checked.

    Raises:
        InputError: the features have another size than they say.
        RunError: one is not finite.
    """
    found = features(obs).detach()
    if found.shape != (len(obs), features.size):
        raise InputError(
            f"{owner}: its features are {list(found.shape)} for {len(obs)} observations, and they say that they are "
            f"of size {features.size}. Give `size` the width of what comes out of the network."
        )
    if not bool(found.isfinite().all()):
        raise RunError(
            f"{owner}: its features are not finite any more. Put a layer normalization at the encoder's end, or take a "
            "lower `lr`."
        )
    return found


def read_rollout(owner: str, features: Features, rollout: Rollout) -> tuple[Tensor, Tensor | None]:
    """The features of all states of a rollout: [T + 1, N, D], and [M, D] of final observations where at hand."""
    steps, count = rollout.obs.shape[:2]
    found = read(owner, features, rollout.obs.flatten(0, 1)).reshape(steps, count, features.size)
    if rollout.final_obs is None or not len(rollout.final_obs):
        return found, None if rollout.final_obs is None else found.new_zeros(0, features.size)
    return found, read(owner, features, rollout.final_obs)
