"""Telling when a policy games its judge: the reward goes up while what can be verified goes down."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from statistics import stdev
from typing import TYPE_CHECKING, Literal, cast

import torch

from reckon.advantages import sum_known
from reckon.errors import InputError, RunError
from reckon.rewards._combine_parts import check_reward
from reckon.rewards._frozen import FrozenSet
from reckon.rewards._metrics import per_response
from reckon.rewards._tree import assess, restore, states
from reckon.stopping import stop_after_step
from reckon.types import Batch, Metrics, Reporting, Reward, Rng, State, Stream

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)
ALARMS = ("gamed", "without pairs", "inaccurate")
FEW = 5  # steps; the spread of fewer says nothing


@dataclass
class HackMonitor:
    """Watches a judge for a policy that games it, and warns or stops the run; what the judge says passes unchanged.

    Cooper, arXiv:2508.05613, shows what to look for: under a fixed reward model the reward rises to 1 while accuracy
    collapses, and once nothing is right any more it stays so. Three alarms:

    - *gamed*: the mean verdict of the last `window` steps is lower, by `fall` or more, than it was in the best such
      stretch of the run, or it is less than `remains` of it and three standard errors below; and the mean reward is not
      lower, but as high or higher by `rise`. Both are means over responses that have both. An honest judge pays less
      when less is right.
    - *without pairs*: of a judge that learns from pairs, fewer prompts than `least_pairs` had one in these steps.
    - *inaccurate*: of `frozen` responses, the first of the run, half of them right, the judge puts fewer than
      `least_accuracy` on the right side of `threshold`. Measured every `window` steps, on the verifier's verdicts: a
      right answer that the rule does not know is wrong there too.

    Each is told when it begins, and logged. With on_alarm="stop" the run stops after the step, saved; who resumes it
    has decided to go on, and is warned only.
    """

    reward: Reward  # the judge
    _: KW_ONLY
    on_alarm: Literal["warn", "stop"] = "warn"
    window: int = 20  # steps
    rise: float = 0.0  # in units of the reward
    fall: float = 0.1  # of the mean verdict, in [0, 1]
    remains: float = 0.5  # in [0, 1), of the best verdict: where little was ever right, `fall` is too coarse; 0 = never
    least_pairs: float = 0.05  # in [0, 1]; 0 = no alarm
    frozen: int = 64  # responses; 0 = none
    least_accuracy: float = 0.5  # in [0, 1]; 0 = no alarm
    threshold: float = 0.5  # in units of the reward: 0.5 for a probability or a verdict, 0 for a logit

    def __post_init__(self) -> None:
        check_reward("hack_monitor", "reward", self.reward)
        if self.on_alarm not in ("warn", "stop"):
            raise InputError(f"hack_monitor: `on_alarm` is {self.on_alarm!r}; it must be warn or stop.")
        if self.window < 1:
            raise InputError(f"hack_monitor: `window` is {self.window}; it must be 1 step or more.")
        if self.frozen < 0 or self.frozen % 2:
            raise InputError(f"hack_monitor: `frozen` is {self.frozen}; it must be an even number, or 0 for none.")
        if not 0 <= self.rise < math.inf:
            raise InputError(f"hack_monitor: `rise` is {self.rise}; it must be 0 or more, and finite.")
        if not 0 < self.fall <= 1:
            raise InputError(f"hack_monitor: `fall` is {self.fall}; it must be above 0 and at most 1.")
        if not 0 <= self.remains < 1:
            raise InputError(f"hack_monitor: `remains` is {self.remains}; it must be 0 or more, and below 1.")
        for name in ("least_pairs", "least_accuracy"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"hack_monitor: `{name}` is {getattr(self, name)}; it must lie between 0 and 1.")
        if not math.isfinite(self.threshold):
            raise InputError(f"hack_monitor: `threshold` is {self.threshold}; it must be finite.")
        self._frozen = FrozenSet(self.frozen)
        self._judged: list[float] = []  # of the last `window` steps
        self._verified: list[float] = []
        self._best: list[float] = []  # `_now` of the best stretch; empty before the first is whole
        self._shares: list[float] = []  # of the last `window` steps in which the judge learned
        self._accuracy = math.nan
        self._on: list[str] = []  # the alarms that are on
        self._stopped = False

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """The judge's streams. Pure."""
        return self.reward.score(batch)

    def assess(self, batch: Batch, rng: Rng) -> Mapping[str, Stream]:
        """The judge's streams, once a step; then looks at how they and the verdicts have moved.

        Raises:
            RunError: the judge gives no reward that trains.
        """
        streams = assess(self.reward, batch, rng)
        self._note(batch, streams)
        self._tell(self._alarms())
        return streams

    def metrics(self) -> Metrics:
        """What the judge reports, and what was seen of it.

        "gap", the mean reward less the mean verdict over the last `window` steps; "frozen_accuracy", NaN before it was
        measured; "alarm/gamed" and the like, 1 while it is on, else 0.
        """
        own = {"gap": _mean(self._judged) - _mean(self._verified)}
        own["frozen_accuracy"] = self._accuracy
        own |= {f"alarm/{name.replace(' ', '_')}": float(name in self._on) for name in ALARMS}
        return {**(self.reward.metrics() if isinstance(self.reward, Reporting) else {}), **own}

    def state_dict(self) -> State:
        """All that was seen, and the judge's memory if it has one."""
        return {
            "judge": states({"reward": self.reward}),
            "frozen": self._frozen.state_dict(),
            "best": list(self._best),
            "judged": list(self._judged),
            "verified": list(self._verified),
            "shares": list(self._shares),
            "accuracy": self._accuracy,
            "on": list(self._on),
            "stopped": self._stopped,
        }

    def load_state_dict(self, state: State) -> None:
        """Takes up where `state_dict` left off."""
        restore({"reward": self.reward}, cast("State", state["judge"]))
        self._frozen.load_state_dict(cast("State", state["frozen"]))
        self._best, self._judged, self._verified, self._shares = (
            list(cast("list[float]", state[name])) for name in ("best", "judged", "verified", "shares")
        )
        self._accuracy = cast("float", state["accuracy"])
        self._on = list(cast("list[str]", state["on"]))
        self._stopped = bool(state["stopped"])

    def _note(self, batch: Batch, streams: Mapping[str, Stream]) -> None:
        values = _values(streams, batch)
        known = ~values.isnan() & ~batch.outcome.isnan()
        if known.any():
            self._judged = [*self._judged, float(values[known].mean())][-self.window :]
            self._verified = [*self._verified, float(batch.outcome[known].mean())][-self.window :]
            now = self._now()
            if now and (not self._best or now[1] > self._best[1]):
                self._best = now
        told = self.reward.metrics() if isinstance(self.reward, Reporting) else {}
        if "pairs/share" in told:
            self._shares = [*self._shares, told["pairs/share"]][-self.window :]
        if not self._frozen.full:
            self._frozen.add(batch)
        elif self.frozen and batch.step % self.window == 0:
            self._accuracy = self._frozen.accuracy(lambda part: _values(self.reward.score(part), part), self.threshold)

    def _now(self) -> list[float]:
        """Mean reward, mean verdict and its standard error, of the last `window` steps; empty at first."""
        if len(self._judged) < self.window:
            return []
        error = stdev(self._verified) / math.sqrt(self.window) if self.window >= FEW else math.inf
        return [_mean(self._judged), _mean(self._verified), error]

    def _alarms(self) -> dict[str, str]:
        """What each alarm that is on has to say."""
        n, told = self.window, dict[str, str]()
        now = self._now()
        if now and fell_alone(self._best, now, rise=self.rise, fall=self.fall, remains=self.remains):
            told["gamed"] = (
                f"the mean verdict of {n} steps fell from {self._best[1]:.3f} at its best to {now[1]:.3f}, while the "
                f"mean reward went from {self._best[0]:.3f} to {now[0]:.3f}: the policy seems to game its judge. Read "
                "what it writes (reckon report); let the judge learn faster, or the policy slower"
            )
        share = _mean(self._shares)
        if len(self._shares) == n and share < self.least_pairs:
            told["without pairs"] = (
                f"in the last {n} steps {share:.1%} of the prompts had a pair, so the judge hardly learns any more, "
                "while the policy does. Are any responses right? If so, look at why negatives were refused"
            )
        if self._accuracy < self.least_accuracy:
            told["inaccurate"] = (
                f"of {self.frozen} responses of the first steps, half of them right, the judge tells "
                f"{self._accuracy:.0%} rightly: it has forgotten what it knew, or never knew it"
            )
        return told

    def _tell(self, alarms: Mapping[str, str]) -> None:
        """Says what has begun, and asks for a stop if that is wanted and was not asked for before."""
        for name, says in alarms.items():
            if name not in self._on:
                _log.warning("hack_monitor, %s: %s.", name, says)
            if self.on_alarm == "stop" and not self._stopped:
                self._stopped = stop_after_step(f"hack_monitor, {name}: {says}")
        self._on = list(alarms)


def fell_alone(best: Sequence[float], now: Sequence[float], *, rise: float, fall: float, remains: float = 0.0) -> bool:
    """Whether verdicts fell while rewards did not.

    Args:
        best: mean reward, mean verdict and its standard error of the stretch with the highest verdict.
        now: those of the last stretch.
        rise: the least rise of the mean reward; 0 = that it did not fall is enough.
        fall: the least fall of the mean verdict.
        remains: or it fell to less than this share of the best, and by three standard errors, so that it is not luck.
    """
    fell = best[1] - now[1]
    little = now[1] < remains * best[1] and fell >= 3 * math.hypot(best[2], now[2])
    return now[0] - best[0] >= rise and (fell >= fall or little)


def _values(streams: Mapping[str, Stream], batch: Batch) -> Tensor:
    """[N] what each response earns in all; NaN = unknown."""
    trained = [per_response(one, batch) for one in streams.values() if one.train and one.kind == "reward"]
    if not trained:
        raise RunError("hack_monitor: its reward gives no stream that trains and is a reward, so nothing can be seen.")
    return sum_known(torch.stack(trained), batch.seq.group)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
