"""Random walks of agents that see numbers, cut into rollouts as a test asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reckon.explore import Rollout


@dataclass
class Walk:
    """T steps of N environments; `last` and `last_keys` hold what an episode ends with, where it ends."""

    obs: Tensor  # [T + 1, N, D]
    last: Tensor  # [T, N, D]
    keys: Tensor  # [T + 1, N]
    last_keys: Tensor  # [T, N]
    action: Tensor
    terminated: Tensor
    truncated: Tensor
    logits: Tensor  # [T, N, A]

    def rollout(self, start=0, stop=None, *, order=None, final=True):
        """The steps in [start, stop), of the environments in `order`."""
        stop = len(self.action) if stop is None else stop
        rows = torch.arange(self.action.shape[1]) if order is None else order
        steps = slice(start, stop)
        terminated, truncated = self.terminated[steps][:, rows], self.truncated[steps][:, rows]
        done = terminated | truncated
        return Rollout(
            obs=self.obs[start : stop + 1][:, rows],
            action=self.action[steps][:, rows],
            terminated=terminated,
            truncated=truncated,
            keys={"pos": self.keys[start : stop + 1][:, rows]},
            final_obs=self.last[steps][:, rows][done] if final else None,
            final_keys={"pos": self.last_keys[steps][:, rows][done]} if final else {},
            logits=self.logits[steps][:, rows],
        )

    def start(self, bonus, order=None):
        """Starts a bonus with the first states."""
        rows = torch.arange(self.action.shape[1]) if order is None else order
        bonus.start(self.obs[0, rows], {"pos": self.keys[0, rows]})


def random_walk(steps, count, *, numbers=3, actions=2, keys=4, ends=0.2, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return torch.from_numpy(rng.normal(size=shape)).float()

    def integers(high, *shape):
        return torch.from_numpy(rng.integers(high, size=shape))

    over = torch.from_numpy(rng.random((steps, count)) < ends)
    why = torch.from_numpy(rng.random((steps, count)) < 0.5)
    return Walk(
        obs=normal(steps + 1, count, numbers),
        last=normal(steps, count, numbers),
        keys=integers(keys, steps + 1, count),
        last_keys=integers(keys, steps, count),
        action=integers(actions, steps, count),
        terminated=over & why,
        truncated=over & ~why,
        logits=normal(steps, count, actions),
    )


def path(features, *, keys=None, ends=(), final=(), final_keys=(), truncated=False, logits=None):
    """One environment that walks along `features` [T + 1, D]; episodes end with the steps `ends`."""
    obs = torch.tensor(features, dtype=torch.float64)[:, None]
    steps = len(obs) - 1
    done = torch.zeros(steps, 1, dtype=torch.bool)
    done[list(ends)] = True
    no = torch.zeros_like(done)
    return Rollout(
        obs=obs,
        action=torch.zeros(steps, 1, dtype=torch.int64),
        terminated=no if truncated else done,
        truncated=done if truncated else no,
        keys={} if keys is None else {"pos": torch.tensor(keys)[:, None]},
        final_obs=torch.tensor(final, dtype=torch.float64) if len(final) else (None if ends else obs[:0, 0]),
        final_keys={"pos": torch.tensor(final_keys)} if len(final_keys) else {},
        logits=None if logits is None else torch.tensor(logits)[:, None],
    )


def paid(bonus, rollout):
    """What the one environment of a `path` is paid."""
    bonus.start(rollout.obs[0], {name: keys[0] for name, keys in rollout.keys.items()})
    return bonus.score(rollout)[:, 0].tolist()


class Same:
    """Features that are the observations."""

    def __init__(self, size):
        self.size = size

    def __call__(self, obs):
        return obs.flatten(1).double()

    def learn(self, rollout, rng):
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
