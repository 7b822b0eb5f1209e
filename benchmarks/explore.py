"""Speed of reckon.explore: environment steps, whole agents, and one PPO update beside other implementations.

python benchmarks/explore.py [--repeats 5] [--without-sb3]

Times are the processor's, of one thread, so that what else runs on the machine hardly counts; updates are timed in
turns. Stable-Baselines3 is timed if it is installed (pip install stable-baselines3). "CleanRL-style" is the update as
the single file ppo.py of CleanRL has it, written here again: two networks, a loop over minibatches, plain Adam.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from reckon.explore import PPO, Agent, Collector, FeedForward, Recurrent, WorldVector
from reckon.types import Rng

ROWS, STEPS, EPOCHS, PARTS = 128, 64, 3, 4


def median(act: Callable[[], object], repeats: int) -> float:
    """Seconds of a call, the median; the first call does not count."""
    act()
    return statistics.median(seconds(act) for _ in range(repeats))


def seconds(act: Callable[[], object]) -> float:
    """Of the processor."""
    began = time.process_time()
    act()
    return time.process_time() - began


def environments(repeats: int) -> None:
    for world in ("LavaTrail", "Rooms", "Star"):
        for count in (128, 4096):
            envs = WorldVector(count, world)
            envs.reset(seed=0)
            actions = np.random.default_rng(0).integers(envs.world.actions, size=(50, count))

            def act(envs: WorldVector = envs, actions: np.ndarray = actions) -> None:
                for row in actions:
                    envs.step(row)

            print(f"{world:10} {count:5} at once: {50 * count / median(act, repeats) / 1e6:5.2f} M steps/s")


def agents(repeats: int) -> None:
    for make in (FeedForward, Recurrent):
        collector = Collector(WorldVector(ROWS, "LavaTrail"))
        network = make(collector.size, collector.actions)
        agent = Agent(network, PPO(epochs=EPOCHS, parts=PARTS))
        collector.begin(Rng((0,)))
        found = collector.collect(network, STEPS, Rng((1,)))
        sample = median(lambda c=collector, n=network: c.collect(n, STEPS, Rng((1,))), repeats)
        update = median(lambda a=agent, f=found: a.learn(f, f.rewards, Rng((2,))), repeats)
        frames = ROWS * STEPS
        print(
            f"{make.__name__:12} collect {1e3 * sample:6.1f} ms, update {1e3 * update:6.1f} ms, "
            f"{frames / (sample + update):9,.0f} frames/s"
        )


class Plain(nn.Module):
    """CleanRL's agent: an actor and a critic of two tanh layers each."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        self.actor = nn.Sequential(
            nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, actions)
        )


def cleanrl_style(found, inputs: int, actions: int) -> Callable[[], None]:
    agent = Plain(inputs, actions)
    adam = torch.optim.Adam(agent.parameters(), lr=1e-3, eps=1e-5)
    rollout = found.rollout

    def update() -> None:
        with torch.no_grad():
            values = agent.critic(rollout.obs).squeeze(-1)
            old = torch.distributions.Categorical(logits=agent.actor(rollout.obs[:-1])).log_prob(rollout.action)
            advantages, last = torch.zeros_like(found.rewards), torch.zeros(ROWS)
            for t in reversed(range(STEPS)):
                going = 1.0 - rollout.done[t].float()
                surprise = found.rewards[t] + 0.99 * values[t + 1] * going - values[t]
                advantages[t] = last = surprise + 0.99 * 0.95 * going * last
            returns = advantages + values[:-1]
        obs, action = rollout.obs[:-1].reshape(-1, inputs), rollout.action.reshape(-1)
        old, adv, ret = old.reshape(-1), advantages.reshape(-1), returns.reshape(-1)
        size, order = len(action) // PARTS, np.arange(len(action))
        for _ in range(EPOCHS):
            np.random.shuffle(order)
            for first in range(0, len(order), size):
                rows = order[first : first + size]
                chance = torch.distributions.Categorical(logits=agent.actor(obs[rows]))
                ratio = (chance.log_prob(action[rows]) - old[rows]).exp()
                with torch.no_grad():
                    ((ratio - 1) - ratio.log()).mean()
                    ((ratio - 1.0).abs() > 0.2).float().mean().item()
                one = (adv[rows] - adv[rows].mean()) / (adv[rows].std() + 1e-8)
                policy = torch.max(-one * ratio, -one * ratio.clamp(0.8, 1.2)).mean()
                critic = 0.5 * ((agent.critic(obs[rows]).view(-1) - ret[rows]) ** 2).mean()
                loss = policy - 0.01 * chance.entropy().mean() + 0.5 * critic
                adam.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                adam.step()

    return update


def stable_baselines(found, inputs: int, actions: int) -> Callable[[], None] | None:
    try:
        import gymnasium
        import stable_baselines3
        from stable_baselines3.common.logger import configure
    except ImportError:
        return None

    class Stub(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0.0, 1.0, (inputs,), np.float32)
        action_space = gymnasium.spaces.Discrete(actions)

        def reset(self, *, seed=None, options=None):
            return np.zeros(inputs, np.float32), {}

        def step(self, action):
            return np.zeros(inputs, np.float32), 0.0, False, False, {}

    from stable_baselines3.common.vec_env import DummyVecEnv

    model = stable_baselines3.PPO(
        "MlpPolicy", DummyVecEnv([Stub] * ROWS), n_steps=STEPS, batch_size=ROWS * STEPS // PARTS, n_epochs=EPOCHS,
        learning_rate=1e-3, ent_coef=0.01, device="cpu",
    )  # fmt: skip
    model.set_logger(configure(None, []))
    buffer, rollout = model.rollout_buffer, found.rollout

    def update() -> None:
        buffer.reset()
        with torch.no_grad():
            values, old, _ = model.policy.evaluate_actions(
                rollout.obs[:-1].reshape(-1, inputs), rollout.action.reshape(-1)
            )
        values, old = values.reshape(STEPS, ROWS), old.reshape(STEPS, ROWS)
        for t in range(STEPS):
            buffer.add(
                rollout.obs[t].numpy(), rollout.action[t].numpy()[:, None], found.rewards[t].numpy(),
                found.start[t].numpy(), values[t], old[t],
            )  # fmt: skip
        buffer.compute_returns_and_advantage(last_values=values[-1], dones=rollout.done[-1].numpy())
        model.train()

    return update


def updates(repeats: int, without: bool) -> None:
    collector = Collector(WorldVector(ROWS, "LavaTrail"))
    network = FeedForward(collector.size, collector.actions)
    agent = Agent(network, PPO(epochs=EPOCHS, parts=PARTS))
    collector.begin(Rng((0,)))
    found = collector.collect(network, STEPS, Rng((1,)))
    acts = {
        "reckon": lambda: agent.learn(found, found.rewards, Rng((2,))),
        "CleanRL-style": cleanrl_style(found, collector.size, collector.actions),
        "Stable-Baselines3": None if without else stable_baselines(found, collector.size, collector.actions),
    }
    there = {name: act for name, act in acts.items() if act is not None}
    for act in there.values():
        act()
    turns = [{name: seconds(act) for name, act in there.items()} for _ in range(repeats)]
    for name in acts:
        if name not in there:
            print(f"{name:18} not installed")
            continue
        spent = statistics.median(turn[name] for turn in turns)
        ratio = statistics.median(turn[name] / turn["reckon"] for turn in turns)
        print(f"{name:18} {1e3 * spent:7.1f} ms an update of {ROWS * STEPS:,} frames, {ratio:.2f} times ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--without-sb3", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    environments(asked.repeats)
    agents(asked.repeats)
    updates(asked.repeats, asked.without_sb3)


if __name__ == "__main__":
    main()
