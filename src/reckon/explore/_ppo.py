"""PPO for vectorized environments: what is learned from a rollout and its rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from reckon.advantages import explained_variance, gae, whiten
from reckon.errors import InputError
from reckon.explore._learning import restore
from reckon.explore._policies import Network
from reckon.objectives import clip_active, clipped_ratio, kl, token_ratio, value_error
from reckon.types import Metrics, Rng, State

if TYPE_CHECKING:
    from reckon.explore._collect import Collected
    from reckon.explore._rollout import Rollout


@dataclass(frozen=True, kw_only=True)
class PPO:
    """Settings of the agent (Schulman et al. 2017, arXiv:1707.06347)."""

    lr: float = 1e-3  # of Adam
    epochs: int = 3  # how often a rollout is read
    parts: int = 4  # minibatches of each reading
    gamma: float = 0.99
    lam: float = 0.95  # of the generalized advantage estimates
    clip: float = 0.2  # of the ratio, on either side
    entropy: float = 0.01
    value: float = 0.5  # weight of half the critic's squared error
    max_norm: float = 0.5  # of the gradient
    bootstrap: bool = True  # where only time was up, earn what the critic expects; False = time is part of the task

    def __post_init__(self) -> None:
        for name in ("epochs", "parts"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` is {getattr(self, name)}, but must be at least 1.")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"`{name}` is {getattr(self, name)}, but must be in [0, 1].")
        for name in ("lr", "clip", "max_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"`{name}` is {getattr(self, name)}, but must be above 0, and finite.")
        for name in ("entropy", "value"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"`{name}` is {getattr(self, name)}, but must be 0 or more, and finite.")


class Agent:
    """A network that learns by PPO.

    Args:
        network: an `nn.Module` that is a `Network`.
        settings: how it learns.
    """

    def __init__(self, network: nn.Module, settings: PPO | None = None) -> None:
        self.module, self.network = network, cast("Network", network)
        self.settings = settings or PPO()
        self._optimizer = torch.optim.Adam(network.parameters(), lr=self.settings.lr, eps=1e-5, fused=True)

    def learn(self, collected: Collected, rewards: Tensor, rng: Rng) -> Metrics:
        """Some steps on a rollout.

        Rollouts are cut into minibatches of single steps, or of whole environments where the network has a memory.

        Args:
            collected: T steps of N environments that this network chose.
            rewards: [T, N] float32, what each action earned, bonus and all.
            rng: of the minibatches.

        Returns:
            Means over the minibatches, and `value/explained_variance` of the critic before it learned.
        """
        batch, memory = self._batch(collected, rewards)
        width = batch["action"].shape[1]
        generator = torch.Generator().manual_seed(rng.integer())
        told: list[dict[str, Tensor]] = []
        for _ in range(self.settings.epochs):
            for columns in torch.randperm(width, generator=generator).chunk(self.settings.parts):
                piece = {name: values.index_select(1, columns) for name, values in batch.items()}
                told.append(self._step(piece, memory[columns]))
        counted = torch.ones_like(batch["returns"], dtype=torch.bool)
        means = {name: float(torch.stack([one[name] for one in told]).mean()) for name in told[0]}
        known = float(explained_variance(batch["values"], batch["returns"], counted))
        return means | {"value/explained_variance": known}

    def state_dict(self) -> State:
        """The network and the optimizer's moments."""
        return {"network": dict(self.module.state_dict()), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off.

        Raises:
            InputError: the saved network is another one.
        """
        restore("agent", self.module, cast("State", state["network"]))
        self._optimizer.load_state_dict(cast("dict[str, object]", state["optimizer"]))

    def _batch(self, collected: Collected, rewards: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Columns to cut minibatches from, [T, N, ...] or, without a memory, [1, T N, ...]; and a memory for each."""
        rollout, memory = collected.rollout, collected.memory
        with torch.no_grad():
            logits, values = self.network.sequence(rollout.obs, memory, collected.start)
            final = self._final_values(collected)
        advantages, returns = credit(rollout, rewards, values, final, gamma=self.settings.gamma, lam=self.settings.lam)
        batch = {
            "obs": rollout.obs[:-1],
            "start": collected.start[:-1],
            "action": rollout.action,
            "logprobs": chosen(logits[:-1].log_softmax(dim=2), rollout.action),
            "advantages": whiten(advantages, torch.ones_like(rollout.done)),
            "returns": returns,
            "values": values[:-1],
        }
        if self.network.memory == 0:
            batch = {name: column.reshape(1, -1, *column.shape[2:]) for name, column in batch.items()}
            memory = memory.new_zeros(batch["action"].shape[1], 0)
        return batch, memory

    def _final_values(self, collected: Collected) -> Tensor:
        """[M]: what the critic thinks of the last observations where only time was up; 0 of the others."""
        rollout = collected.rollout
        cut = (rollout.truncated & ~rollout.terminated)[rollout.done]
        values = collected.rewards.new_zeros(len(cut))
        if self.settings.bootstrap and rollout.final_obs is not None and bool(cut.any()):
            seen = rollout.final_obs[cut]
            start = torch.zeros(1, len(seen), dtype=torch.bool)
            values[cut] = self.network.sequence(seen[None], collected.final_memory[cut], start)[1][0]
        return values

    def _step(self, piece: Mapping[str, Tensor], memory: Tensor) -> dict[str, Tensor]:
        """One step of the optimizer on columns [T, n, ...]."""
        settings = self.settings
        logits, values = self.network.sequence(piece["obs"], memory, piece["start"])
        every = logits.log_softmax(dim=2)
        logprobs, counted = chosen(every, piece["action"]), torch.ones_like(piece["start"])
        policy = clipped_ratio(
            logprobs, piece["logprobs"], piece["advantages"], counted, low=settings.clip, high=settings.clip
        ).mean()
        critic = value_error(values, piece["returns"], counted).mean()
        entropy = -(every.exp() * every).sum(dim=2).mean()
        loss = policy + settings.value * critic - settings.entropy * entropy
        self._optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), settings.max_norm)
        skipped = not bool(norm.isfinite())
        if not skipped:
            self._optimizer.step()
        with torch.no_grad():
            ratio = token_ratio(logprobs, piece["logprobs"], counted)
            clipped = clip_active(ratio, piece["advantages"], low=settings.clip, high=settings.clip)
            moved = kl(piece["logprobs"], logprobs, counted).mean()
        return {
            "policy/loss": policy.detach(),
            "policy/entropy": entropy.detach(),
            "policy/kl_sampled": moved,
            "policy/clip_fraction": clipped.float().mean(),
            "policy/grad_norm": norm.detach(),
            "policy/skipped": torch.tensor(float(skipped)),
            "value/loss": critic.detach(),
        }


def chosen(logprobs: Tensor, action: Tensor) -> Tensor:
    """[T, n] log-probs of the actions that were taken, of [T, n, A] and [T, n] int64."""
    return logprobs.gather(2, action[..., None])[..., 0]


def credit(
    rollout: Rollout, rewards: Tensor, values: Tensor, final_values: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates over several episodes a row, and the critic's targets (`reckon.advantages.gae`).

    Where the task was over nothing follows. Where only time was up, and at the end of the rollout, the episode would
    have gone on: what the critic expects of the last observation is earned there too (Pardo et al. 2018,
    arXiv:1712.00378).

    Args:
        rollout: T steps of N environments, in which M episodes ended.
        rewards: [T, N] float, of each action.
        values: [T + 1, N] float, the critic's of `rollout.obs`.
        final_values: [M] float, of the observations that episodes ended with, in the order of `done.nonzero()`.
        gamma: discount.
        lam: see `reckon.advantages.gae`.

    Returns:
        Advantages and returns, [T, N] each.
    """
    done = rollout.done
    beyond = torch.zeros_like(rewards)
    beyond[-1] = torch.where(done[-1], 0.0, values[-1])
    beyond[done] = torch.where(rollout.terminated[done], 0.0, final_values)
    rows = (x.T.contiguous() for x in (rewards + gamma * beyond, values[:-1], torch.ones_like(done), done))
    earned, before, counted, ends = rows
    advantages, returns = gae(earned, before, counted, gamma=gamma, lam=lam, ends=ends)
    return advantages.T.contiguous(), returns.T.contiguous()
