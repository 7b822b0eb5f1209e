"""Holding a judge of steps against what it stands for: how far its advantages agree with counted ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, cast

import torch

from reckon.costs import spending
from reckon.errors import InputError, RunError
from reckon.rewards._combine_parts import check_reward
from reckon.rewards._provers import ExactAdvantage, MonteCarloAdvantage
from reckon.rewards._tree import assess, restore, states
from reckon.steps import Steps, at_ends, split_rollouts, spread, token_steps
from reckon.types import Batch, Metrics, Reporting, Reward, Rng, State, Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class AdvantageMonitor:
    """Watches a learned judge of steps by counting now and then what it has learned to foresee; changes nothing.

    A verifier (Setlur et al. 2024, arXiv:2410.08146) was fitted on prefixes of one policy, and the policy that learns
    from it comes to write others. So at every training step that is a multiple of `every`, `against` values the steps
    of a few of the responses just drawn, and the two are correlated over these. They should have the same prover: that
    policy, with the same `prover_k`, and no `refresh`.

    What `against` draws is counted under the part "advantage_check" of a step's costs, apart from the reward's own.
    """

    reward: Reward  # the judge: one stream of kind "advantage", with one value for all tokens of a step
    _: KW_ONLY
    against: Reward  # `MonteCarloAdvantage` or `ExactAdvantage`, cutting steps where the judge does
    every: int = 20  # steps
    responses: int = 8  # of a step, drawn at random

    def __post_init__(self) -> None:
        check_reward("advantage_monitor", "reward", self.reward)
        if not isinstance(self.against, MonteCarloAdvantage | ExactAdvantage):
            raise InputError(
                f"advantage_monitor: `against` is of type {type(self.against).__name__}; it must be a "
                "monte_carlo_advantage or an exact_advantage."
            )
        for name in ("every", "responses"):
            if getattr(self, name) < 1:
                raise InputError(f"advantage_monitor: `{name}` is {getattr(self, name)}; it must be 1 or more.")
        self._told: Metrics = {}

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """The judge's streams. Pure."""
        return self.reward.score(batch)

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """The judge's streams, once a step; some of them are then checked, if that is due.

        Raises:
            RunError: the judge gives no stream of advantages for tokens, or cuts steps elsewhere than `against`.
        """
        streams = assess(self.reward, batch, rng)
        self._told = {}
        if batch.step % self.every == 0:
            with spending("advantage_check"):
                self._check(batch, _advantages(streams), rng.child("against"))
        return streams

    def metrics(self) -> Metrics:
        """What the judge reports and, at steps that were checked, what was found.

        "check/correlation", Pearson's, of the judge's advantages and the counted ones, NaN where fewer than two steps
        have both or one of them is constant; "check/steps", of how many steps; and what `against` reports of its own
        draws: "check/noise" bounds the correlation, for chance alone keeps it below sqrt(1 - noise) or so.
        """
        return {**(self.reward.metrics() if isinstance(self.reward, Reporting) else {}), **self._told}

    def state_dict(self) -> State:
        """The memory of both, where they have one: the prover of `against` is the policy before training."""
        return states({"reward": self.reward, "against": self.against})

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        restore({"reward": self.reward, "against": self.against}, state)

    def _check(self, batch: Batch, said: Tensor, rng: Rng) -> None:
        count = len(batch.rollouts.text)
        rows = torch.from_numpy(rng.child("responses").numpy().permutation(count)[: self.responses]).sort().values
        part = batch.take(rows)
        against = cast("MonteCarloAdvantage | ExactAdvantage", self.against)
        counted = _advantages(assess(against, part, rng.child("values")))
        splitter = against.splitter
        steps = token_steps(part.seq.mask) if splitter is None else split_rollouts(part.rollouts, splitter)
        judged, counted = _by_step(said[rows.to(said.device)].float(), steps), at_ends(counted, steps)
        correlation, number = correlated(judged.cpu(), counted.cpu())
        self._told = {"check/correlation": correlation, "check/steps": float(number)}
        if isinstance(against, Reporting):
            self._told |= {f"check/{name}": value for name, value in against.metrics().items()}


def correlated(one: Tensor, other: Tensor) -> tuple[float, int]:
    """Pearson's correlation over the places where both are known, and how many these are.

    Args:
        one: any shape, float; NaN = unknown.
        other: of the same shape.

    Returns:
        NaN where there are fewer than two places, or one of the two is the same at all of them.
    """
    known = ~(one.isnan() | other.isnan())
    a, b = (values[known].double() for values in (one, other))
    if len(a) < 2:
        return float("nan"), len(a)
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()), len(a)


def _advantages(streams: Mapping[str, Stream]) -> Tensor:
    """[N, T]: the one stream of advantages."""
    found = [stream.values for stream in streams.values() if stream.kind == "advantage" and stream.values.ndim == 2]
    if len(found) != 1:
        raise RunError(
            f"advantage_monitor: of the streams {sorted(streams)} {len(found)} are advantages of tokens; it takes one. "
            "Put it around a judge of steps, such as what `reckon fit value` makes."
        )
    return found[0]


def _by_step(said: Tensor, steps: Steps) -> Tensor:
    """[n, H]: the judge's advantages at the ends of steps, NaN behind the last.

    Raises:
        RunError: they change within a step.
    """
    read = at_ends(said, steps)
    again = spread(read, steps)
    inside = steps.index >= 0
    same = (again == said) | (again.isnan() & said.isnan())
    if not bool(same[inside].all()):
        row = int((~same & inside).any(dim=1).nonzero()[0, 0])
        raise RunError(
            f"advantage_monitor: in response {row} of those checked the judge's advantage changes within a step of "
            "`against`, so they cut steps elsewhere. Give `against` the splitter that the judge was fitted with."
        )
    return read
