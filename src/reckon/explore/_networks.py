"""Bonuses by networks that learn: random distillation (RND, NovelD), impact (RIDE), an adversary (AGAC).

Their formulas are `reckon.bonuses`. What is episodic in NovelD, RIDE and AGAC is a count: see `_presets.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from reckon import bonuses
from reckon.errors import InputError
from reckon.explore._features import read_rollout
from reckon.explore._learning import Learner, ObservationScale, check_learning, restore, saved
from reckon.explore._rollout import Features, Rollout
from reckon.types import Metrics, Rng, State


class RandomDistillation:
    """How badly a network that learns from all it has entered predicts what a random one says of a state (RND).

    Burda et al. 2018, arXiv:1810.12894. Both networks may stand on a random `encoder` that never learns, as in the
    released code of Henaff et al. 2023; everything random is saved with the run.

    Args:
        target: from observations [n, *O], or from what `encoder` makes of them, to [n, E]. Never learns.
        predictor: of the same shapes. Learns, and must not share weights with `target`.
        encoder: under both, or None.
        lr: of the predictor (Adam).
        squared: pay the squared distance, as the paper does; False pays the distance, as some released code does.
        scale_obs: in deviations from running means, which `score` takes note of first; needs what is flat to be read.
        share: of the states, drawn anew for each rollout, which the predictor learns from, in (0, 1]: a predictor
            that reads everything forgets less and fades faster.
        epochs, parts: how often it reads a rollout, and into how many steps each reading is cut.
    """

    def __init__(
        self,
        target: nn.Module,
        predictor: nn.Module,
        *,
        encoder: nn.Module | None = None,
        lr: float = 1e-4,
        squared: bool = True,
        scale_obs: bool = False,
        share: float = 1.0,
        epochs: int = 1,
        parts: int = 1,
    ) -> None:
        check_learning("random_distillation", epochs=epochs, parts=parts)
        if not 0 < share <= 1:
            raise InputError(f"random_distillation: `share` is {share}; it must be above 0 and at most 1.")
        self.squared, self.share, self.epochs, self.parts = squared, share, epochs, parts
        self._fixed = nn.ModuleDict({"target": target, "encoder": nn.Identity() if encoder is None else encoder})
        self._fixed.requires_grad_(False)
        self._learner = Learner("random_distillation", predictor, lr)
        self._scale = ObservationScale() if scale_obs else None

    def start(self, obs: Tensor, keys: Mapping[str, Tensor]) -> None:
        """Has no memory of episodes."""

    def score(self, rollout: Rollout) -> Tensor:
        """[T, N]; 0 where the state entered is not at hand."""
        before, final = self.errors(rollout)
        return torch.where(rollout.known(final), rollout.entered(before, final), 0.0).float()

    def errors(self, rollout: Rollout) -> tuple[Tensor, Tensor | None]:
        """The errors of all states of a rollout: [T + 1, N], and [M] of final observations where at hand."""
        if self._scale is not None:
            self._scale.join(rollout.obs[1:].flatten(0, 1))
        with torch.no_grad():
            error = self._error(rollout.obs.flatten(0, 1)).reshape(rollout.obs.shape[:2])
            final = None if rollout.final_obs is None else self._error(rollout.final_obs)
        if self.squared:
            return error, final
        return error.sqrt(), None if final is None else final.sqrt()

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """One or more readings of the states entered; `error` is their mean squared error before."""
        known = rollout.known(rollout.final_obs).flatten()
        drawn = torch.from_numpy(rng.child("share").numpy().random(len(known)) < self.share).to(known.device)
        rows = (known & drawn).nonzero().squeeze(1)
        states = rollout.entered(rollout.obs, rollout.final_obs).flatten(0, 1)

        def loss(part: Tensor) -> tuple[Tensor, Metrics]:
            error = self._error(states[part]).mean()
            return error, {"error": float(error.detach())}

        return self._learner.read(rows, loss, epochs=self.epochs, parts=self.parts, rng=rng)

    def state_dict(self) -> State:
        """All networks, the optimizer's moments and the observations'."""
        state: dict[str, State] = {"fixed": saved(self._fixed), "predictor": self._learner.state_dict()}
        return state if self._scale is None else {**state, "scale": self._scale.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            InputError: what was saved is of other networks or settings.
        """
        if ("scale" in state) != (self._scale is not None):
            raise InputError("random_distillation: it was saved with another `scale_obs`. Keep it as it was.")
        restore("random_distillation", self._fixed, cast("State", state["fixed"]))
        self._learner.load_state_dict(cast("State", state["predictor"]))
        if self._scale is not None:
            self._scale.load_state_dict(cast("State", state["scale"]))

    def _error(self, obs: Tensor) -> Tensor:
        """[n] squared distances, with gradient."""
        seen = self._fixed["encoder"](obs if self._scale is None else self._scale(obs))
        predicted, target = self._learner.network(seen), self._fixed["target"](seen)
        if predicted.shape != target.shape:
            raise InputError(
                f"random_distillation: the predictor gives {list(predicted.shape)} for {len(seen)} states, and the "
                f"target {list(target.shape)}. Build both with the same number of outputs."
            )
        return bonuses.distillation_error(predicted, target)


class NoveltyDifference:
    """[RND(s') - c RND(s)]_+: paid for crossing into what is less known (the global part of NovelD).

    Zhang et al. 2021, "NovelD". Times an `EpisodicCount` it is NovelD itself. c = 0 is random distillation.

    Args:
        distillation: whose errors; it belongs to this bonus, which lets it learn.
        c: at least 0. The authors' own code takes 0.5, Henaff et al. 2023 take 0.1.
    """

    def __init__(self, distillation: RandomDistillation, *, c: float = 0.1) -> None:
        if not 0 <= c < math.inf:
            raise InputError(f"novelty_difference: `c` is {c}; it must be 0 or more, and finite.")
        self.distillation, self.c = distillation, c

    def start(self, obs: Tensor, keys: Mapping[str, Tensor]) -> None:
        """Has no memory of episodes."""
        self.distillation.start(obs, keys)

    def score(self, rollout: Rollout) -> Tensor:
        """[T, N]; 0 where the state entered is not at hand."""
        before, final = self.distillation.errors(rollout)
        gain = bonuses.clipped_difference(rollout.entered(before, final), before[:-1], self.c)
        return torch.where(rollout.known(final), gain, 0.0).float()

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Lets the distillation learn."""
        return self.distillation.learn(rollout, rng)

    def state_dict(self) -> State:
        """The distillation's."""
        return self.distillation.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        self.distillation.load_state_dict(state)


class Impact:
    """|phi(s') - phi(s)|: how far an action moved the features (the part of RIDE that is no count).

    Raileanu and Rocktäschel 2020, arXiv:2002.12292, eq. 4. Times an `EpisodicCount(how="sqrt")` it is RIDE.

    Args:
        features: phi; they belong to this bonus, which lets them learn. RIDE's are of inverse and forward dynamics.
    """

    def __init__(self, features: Features) -> None:
        self.features = features

    def start(self, obs: Tensor, keys: Mapping[str, Tensor]) -> None:
        """Has no memory of episodes."""

    def score(self, rollout: Rollout) -> Tensor:
        """[T, N]; 0 where the state entered is not at hand."""
        found, final = read_rollout("impact", self.features, rollout)
        moved = bonuses.impact(rollout.entered(found, final), found[:-1])
        return torch.where(rollout.known(final), moved, 0.0).float()

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Lets the features learn."""
        return self.features.learn(rollout, rng)

    def state_dict(self) -> State:
        """The features'."""
        return self.features.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        self.features.load_state_dict(state)


class Adversary:
    """KL(policy || adversary) at the state acted on, where the adversary imitates the policy, late (AGAC).

    Flet-Berliac et al. 2021, arXiv:2102.04376: paid for acting in a way that its own past would not have told. Plus an
    `EpisodicCount(how="sqrt")` it is AGAC's bonus, as Henaff et al. 2023 take it.

    Args:
        network: from observations [n, *O] to logits [n, A]. It sees no more than that, whatever the policy remembers.
        lr: of it (Adam); lower than the policy's, or there is nothing to be paid for.
        epochs, parts: how often it reads a rollout, and into how many steps each reading is cut.
    """

    def __init__(self, network: nn.Module, *, lr: float = 1e-4, epochs: int = 1, parts: int = 1) -> None:
        check_learning("adversary", epochs=epochs, parts=parts)
        self.epochs, self.parts = epochs, parts
        self._learner = Learner("adversary", network, lr)

    def start(self, obs: Tensor, keys: Mapping[str, Tensor]) -> None:
        """Has no memory of episodes."""

    def score(self, rollout: Rollout) -> Tensor:
        """[T, N] nats."""
        logits = self._logits(rollout)
        with torch.no_grad():
            imitated = self._imitated(rollout.obs[:-1].flatten(0, 1), logits.shape[-1])
        return bonuses.categorical_kl(logits, imitated.reshape(logits.shape)).float()

    def learn(self, rollout: Rollout, rng: Rng) -> Metrics:
        """Imitates the policy: one or more steps down KL(policy || adversary). `kl` is its mean before."""
        logits, states = self._logits(rollout).flatten(0, 1), rollout.obs[:-1].flatten(0, 1)
        rows = torch.arange(len(states), device=states.device)

        def loss(part: Tensor) -> tuple[Tensor, Metrics]:
            kl = bonuses.categorical_kl(logits[part], self._imitated(states[part], logits.shape[-1])).mean()
            return kl, {"kl": float(kl.detach())}

        return self._learner.read(rows, loss, epochs=self.epochs, parts=self.parts, rng=rng)

    def state_dict(self) -> State:
        """The network and the optimizer's moments."""
        return self._learner.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        self._learner.load_state_dict(state)

    def _logits(self, rollout: Rollout) -> Tensor:
        if rollout.logits is None:
            raise InputError(
                "adversary: the rollout has no `logits`, and what is paid is how it differs from its imitation. "
                "Hand over the logits of the policy that acted."
            )
        return rollout.logits.detach()

    def _imitated(self, states: Tensor, actions: int) -> Tensor:
        found = cast("Tensor", self._learner.network(states))
        if found.shape[-1] != actions:
            raise InputError(
                f"adversary: its network gives {found.shape[-1]} logits, and the policy {actions}. Give it as many."
            )
        return found
