"""The loop of exploration: collect, pay, learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reckon.costs import Ledger, spending
from reckon.errors import InputError, RunError
from reckon.explore._album import Album
from reckon.explore._collect import Collected, Collector
from reckon.explore._ppo import Agent
from reckon.explore._rollout import Bonus
from reckon.runs import Progress, Run, interruptible, peak_memory
from reckon.types import Metrics, Rng


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to explore, and what a bonus is worth."""

    updates: int  # rollouts that are collected and learned from
    steps: int = 64  # of every environment, a rollout
    alpha: float = 0.1  # a bonus is added to the reward with this weight
    clip: float | None = None  # rewards and bonuses together are clipped to [-clip, clip]; None = not
    seed: int = 0
    save_every: int = 20  # updates between checkpoints
    show: Literal["auto", "bar", "lines", "nothing"] = "auto"  # progress, on stderr

    def __post_init__(self) -> None:
        for name in ("updates", "steps", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` is {getattr(self, name)}, but must be at least 1.")
        if not 0 <= self.alpha < float("inf") or (self.clip is not None and not self.clip > 0):
            raise InputError(f"alpha={self.alpha} must be 0 or more, and clip={self.clip} above 0, or null.")


def explore(agent: Agent, collector: Collector, bonus: Bonus | None, run: Run, plan: Plan, album: Album) -> bool:
    """Explores until the plan is done or somebody presses Ctrl-C, going on from the run's checkpoint.

    Args:
        agent: chooses and learns.
        collector: the environments.
        bonus: what novelty is paid; None = nothing.
        run: the folder that everything is written to; what it holds decides where exploring starts.
        plan: sizes, weights, seed.
        album: keeps what the report shows.

    Returns:
        True if the plan was finished, False if it was interrupted; the run is saved either way.
    """
    memory = {"agent": agent, "collector": collector, "bonus": bonus, "album": album}
    start = run.restore(memory)
    begin(collector, bonus, plan.seed, start)
    with interruptible() as stop, Progress(plan.updates, start, unit="update", show=plan.show) as bar:
        for step in range(start, plan.updates):
            with Ledger() as ledger:
                collected, paid, metrics = explore_step(
                    agent, collector, bonus, plan, Rng((plan.seed, "explore", step))
                )
            album.see(collected, paid, step + 1, plan.updates)
            run.log(step + 1, metrics | ledger.metrics() | {"memory/peak_mib": peak_memory()})
            bar.update(step + 1, _told(metrics))
            last = step + 1 == plan.updates
            if stop.requested or last or (step + 1) % plan.save_every == 0:
                album.write(run.folder)
                run.save(step + 1, memory)
            if stop.requested:
                return last
    return True


def begin(collector: Collector, bonus: Bonus | None, seed: int, start: int = 0) -> None:
    """Begins the first episodes, unless they have begun or were restored.

    Raises:
        InputError: what the environment shows is not what the bonus goes by.
    """
    if collector.begin(Rng((seed, "begin", start))) and bonus is not None:
        bonus.start(collector.obs, collector.keys)


def explore_step(
    agent: Agent, collector: Collector, bonus: Bonus | None, plan: Plan, rng: Rng
) -> tuple[Collected, Tensor, Metrics]:
    """One update, the body of `explore`, which keeps nothing: collect, pay, learn.

    Args:
        agent: chooses and learns.
        collector: the environments, which have begun.
        bonus: what novelty is paid, which was started; None = nothing.
        plan: `steps`, `alpha` and `clip` are read.
        rng: of this update.

    Returns:
        The rollout, the bonuses [T, N] before they were weighed, and what there is to log.

    Raises:
        InputError, RunError: what was lived through, or a bonus, is not finite.
    """
    with spending("sample"):
        collected = collector.collect(agent.network, plan.steps, rng.child("sample"))
    with spending("bonus"):
        paid = torch.zeros_like(collected.rewards) if bonus is None else bonus.score(collected.rollout)
        if not bool(paid.isfinite().all()):
            raise RunError(
                "a bonus is not finite any more, and nothing can be learned from that. Scale the observations to about "
                "1, or take a lower learning rate for the networks of the bonus."
            )
    rewards = total_rewards(collected.rewards, paid, plan.alpha, plan.clip)
    metrics = episode_metrics(collected) | bonus_metrics(collected.rewards, paid, rewards, plan)
    with spending("update"):
        metrics |= agent.learn(collected, rewards, rng.child("update"))
    if bonus is not None:
        with spending("bonus"):
            told = bonus.learn(collected.rollout, rng.child("bonus"))
            metrics |= {f"bonus/{name}": value for name, value in told.items()}
    return collected, paid, metrics


def total_rewards(rewards: Tensor, bonus: Tensor, alpha: float, clip: float | None) -> Tensor:
    """Rewards + alpha * bonus, clipped to [-clip, clip] unless that is None. All [T, N]."""
    total = rewards + alpha * bonus
    return total if clip is None else total.clamp(-clip, clip)


def episode_metrics(collected: Collected) -> Metrics:
    """Of the episodes that ended: how many, their mean return and length, and the share with a return above 0."""
    returns, found = collected.returns, {"frames": float(collected.rewards.numel())}
    found["episode/count"] = float(len(returns))
    if len(returns):
        found["episode/success"] = float((returns > 0).mean())
        found["episode/return"] = float(returns.mean())
        found["episode/length"] = float(collected.lengths.mean())
    return found


def bonus_metrics(rewards: Tensor, bonus: Tensor, total: Tensor, plan: Plan) -> Metrics:
    """Its mean as it is paid, its share of all that is paid, and how often the clip cut what was."""
    worth, earned = plan.alpha * bonus.abs().sum(), rewards.abs().sum()
    found = {"bonus/paid": plan.alpha * float(bonus.mean())}
    found["bonus/share"] = float(worth / (worth + earned)) if float(worth + earned) > 0 else 0.0
    if plan.clip is not None:
        found["bonus/clipped"] = float((total != rewards + plan.alpha * bonus).float().mean())
    return found


def _told(metrics: Metrics) -> str:
    if "episode/success" not in metrics:
        return "no episode ended"
    return f"success {metrics['episode/success']:.2f}, return {metrics['episode/return']:.2f}"
