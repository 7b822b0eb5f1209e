"""Section 5 of the specification reward-transformation: Wang et al. 2024 (arXiv:2402.00742), the optimum being known.

Every prompt has a few hundred candidate answers, equally likely under the base policy, so the policy that maximizes
E u - gamma KL is pi0 exp(u / gamma) / Z, exactly. Transforms u of the same two rewards are compared where their optima
have the same mean KL, found by bisection on gamma. Some arms then train a table of logits towards that optimum with the
parts that train a language model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from reckon.studies._claims import ByArm, Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json, Problem, Rng, Split, Verdict

if TYPE_CHECKING:
    from torch import Tensor

BEST_OF = 16
GROUP = 64  # answers to each prompt in a step of the learner
RATES = (40.0, 1.0)  # of the learner: at the first and the last step, between them in proportion
AXIS = "mean KL in nats (learned arms: thousands of steps)"
BOTH, HACKED, DISTANCE = "both good", "mass on hacks", "learned arms: total variation to the optimum"


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """P prompts with C candidates each, and two properties of every one."""

    true: Tensor  # [2, P, C] float64
    rewards: Tensor  # [2, P, C] float64: as `true`, but for hacks
    hacks: Tensor  # [P, C] bool

    @property
    def good(self) -> Tensor:
        """[P, C] bool: both properties above the prompt's median."""
        middle = self.true.median(dim=2, keepdim=True).values
        return (self.true > middle).all(dim=0)


def world(seed: int, prompts: int, candidates: int, easy: bool) -> World:
    """Two properties at odds (correlation -0.5), of a scale and a level that differ by prompt, and 2% hacks.

    A hack has the prompt's lowest true first property and a first reward 4 above the prompt's mean. In the easy world
    there are no hacks, scales are equal and the properties independent.
    """
    import numpy as np
    import torch

    rng = Rng((seed, "reward-transformation", "world")).numpy()
    noise = rng.standard_normal((2, prompts, candidates))
    scale = 1.5 * np.exp(0.5 * rng.standard_normal((prompts, 1)))
    levels = 1.5 * rng.standard_normal((2, prompts, 1))
    chosen = rng.permuted([list(range(candidates))] * prompts, axis=1) < round(0.02 * candidates)
    correlation = 0.0 if easy else -0.5
    second = correlation * noise[0] + math.sqrt(1 - correlation**2) * noise[1]
    first = (1.5 if easy else scale) * noise[0]
    true = torch.from_numpy(np.stack([first + levels[0], 1.5 * second + levels[1]]))
    rewards, hacks = true.clone(), torch.from_numpy(chosen) & (not easy)
    lowest, mean = true[0].amin(dim=1, keepdim=True), true[0].mean(dim=1, keepdim=True)
    rewards[0] = torch.where(hacks, mean + 4.0, rewards[0])
    true[0] = torch.where(hacks, lowest, true[0])
    return World(true=true, rewards=rewards, hacks=hacks)


def transformed(rewards: Tensor, how: str) -> Tensor:
    """[P, C]: the number that an arm optimizes, of rewards [2, P, C]. References are over a prompt's candidates."""
    import torch

    from reckon import combinations

    flat = rewards.flatten(1)

    def above(references: Tensor) -> Tensor:
        return (rewards - references).flatten(1)

    def per_prompt(how: combinations.Level) -> Tensor:
        return torch.stack([combinations.level(row.T, how)[:, None] for row in rewards])

    prompts = rewards.shape[1]
    group = torch.arange(prompts).repeat_interleave(rewards.shape[2])
    arms: dict[str, Callable[[], Tensor]] = {
        "raw": lambda: combinations.linear(flat, torch.tensor([0.5, 0.5])),
        "zscore": lambda: combinations.normalize_then_sum(flat, group, eps=1e-12, whiten=False),
        "lsc-global": lambda: combinations.and_(above(combinations.level(flat.T, "quantile")[:, None, None])),
        "lsc-quantile": lambda: combinations.and_(above(per_prompt("quantile"))),
        "lsc-gaussian": lambda: combinations.and_(above(per_prompt("gaussian"))),
        "lsc-mean": lambda: combinations.and_(above(per_prompt("mean"))),
        "sigmoid": lambda: combinations.linear(above(per_prompt("mean")).sigmoid()),
        "min": lambda: combinations.min_(above(per_prompt("mean"))),
    }
    return arms[how]().reshape(prompts, -1)


def optimum(u: Tensor, gamma: float) -> Tensor:
    """[P, C]: pi0 exp(u / gamma) / Z with a uniform pi0."""
    return (u / gamma).softmax(dim=1)


def divergence(policy: Tensor) -> Tensor:
    """[P]: KL(policy || uniform) in nats."""
    import torch

    negative_entropy: Tensor = torch.special.xlogy(policy, policy).sum(dim=1)
    return math.log(policy.shape[1]) + negative_entropy


def gamma_at(u: Tensor, kl: float) -> float:
    """The gamma at which the optimum's KL is `kl` in the mean over prompts, by bisection: KL falls with gamma."""
    low, high = 1e-4, 1e4
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if float(divergence(optimum(u, middle)).mean()) > kl else (low, middle)
    return math.sqrt(low * high)


def best_of(u: Tensor, k: int) -> Tensor:
    """[P, C]: how likely each candidate is the best of k draws from the uniform base policy, exactly."""
    import torch

    count = u.shape[1]
    edges = (torch.arange(count + 1, dtype=torch.float64) / count) ** k
    return edges.diff()[u.argsort(dim=1).argsort(dim=1)]


def exact(settings: Settings, seed: int) -> Measured:
    """What the optimum of an arm is worth at several mean KLs, and best-of-16."""
    there = world(seed, cast("int", settings["prompts"]), cast("int", settings["candidates"]), bool(settings["easy"]))
    u = transformed(there.rewards, cast("str", settings["u"]))
    good, hacks = there.good.double(), there.hacks.double()
    base = good.mean(dim=1)
    metrics: dict[str, float] = {}
    curves = {AXIS: [0.0], BOTH: [float(base.mean())], HACKED: [float(hacks.mean())]}
    for kl in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0):
        policy = optimum(u, gamma_at(u, kl))
        both, hacked = (policy * good).sum(dim=1), (policy * hacks).sum(dim=1)
        curves[AXIS].append(kl)
        curves[BOTH].append(float(both.mean()))
        curves[HACKED].append(float(hacked.mean()))
        if kl in (1.0, 2.0, 3.0):
            metrics |= {
                f"both/{kl:.0f}": float(both.mean()),
                f"hacked/{kl:.0f}": float(hacked.mean()),
                f"improved/{kl:.0f}": float((both - base > 0.05).double().mean()),
                f"spread/{kl:.0f}": float(divergence(policy).std(unbiased=False)),
            }
    metrics["best-of-16"] = float((best_of(u, BEST_OF) * good).sum(dim=1).mean())
    return Measured(metrics=metrics, curves=curves)


class Candidates:
    """Prompts whose answers are numbered; nothing is checked, for the rewards know each answer's worth."""

    name = "candidates"

    def __init__(self, prompts: int) -> None:
        self.names = [f"prompt {i}" for i in range(prompts)]

    def problems(self, split: Split) -> list[Problem]:
        """One for each prompt."""
        return [Problem(id=str(i), prompt=name) for i, name in enumerate(self.names)]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Unknown, whatever the text."""
        del problem
        return Verdict(outcome=None, answer=text, reason="no reference")


def learned(settings: Settings, seed: int) -> Measured:
    """REINFORCE with KL in the reward on a table of logits; how far it stays from the closed form at mean KL 1."""
    import torch

    from reckon.credit import LeaveOneOut
    from reckon.losses import PolicyGradient
    from reckon.models.table import Action, TablePolicy
    from reckon.rewards import Function, KLReward, Sum
    from reckon.samplers import All, Uniform
    from reckon.train import take_step
    from reckon.types import Parts

    prompts, candidates = cast("int", settings["prompts"]), cast("int", settings["candidates"])
    u = transformed(world(seed, prompts, candidates, easy=False).rewards, cast("str", settings["u"]))
    gamma = gamma_at(u, 1.0)
    wanted = optimum(u, gamma)
    task, made = Candidates(prompts), list[torch.optim.Optimizer]()

    def optimizer(parameters: list[Tensor]) -> torch.optim.Optimizer:
        made.append(torch.optim.SGD(parameters, lr=RATES[0]))
        return made[-1]

    def worth(completions: list[str], id: list[str]) -> list[float]:  # noqa: A002 (the column's name)
        return [float(u[int(prompt), int(text)]) for prompt, text in zip(id, completions, strict=True)]

    learner = TablePolicy(
        [Action(text=str(i)) for i in range(candidates)],
        torch.zeros(prompts, candidates),
        optimizer=optimizer,
        contexts=task.names,
    )
    judges = Sum({"u": Function(worth), "kl": KLReward(policy=learner, reference=learner.reference(), coef=gamma)})
    parts = Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=judges,
        advantage=LeaveOneOut(),
        objective=PolicyGradient(average="constant", length=1),
    )
    steps = cast("int", settings["steps"])
    curves: dict[str, list[float]] = {AXIS: [], DISTANCE: []}
    for step in range(steps + 1):
        distance = 0.5 * (learner.probabilities().double() - wanted).abs().sum(dim=1).mean()
        if step % max(1, steps // 40) == 0:
            curves[AXIS].append(step / 1000)
            curves[DISTANCE].append(float(distance))
        if step == steps:
            break
        made[0].param_groups[0]["lr"] = RATES[0] * (RATES[1] / RATES[0]) ** (step / steps)
        rng = Rng((seed, "reward-transformation", step))
        take_step(learner, task, parts, rng, step=step, prompts=prompts, answers=GROUP)
    reached = divergence(learner.probabilities().double())
    return Measured(
        metrics={"start": curves[DISTANCE][0], "distance": curves[DISTANCE][-1], "kl": float(reached.mean())},
        curves=curves,
    )


def cell(settings: Settings, seed: int) -> Measured:
    """An arm: the closed form, or the learner on its way to it."""
    return learned(settings, seed) if settings.get("learner") else exact(settings, seed)


EXACT = {
    "both/1": "both good at KL 1",
    "both/2": "both good at KL 2",
    "hacked/1": "mass on hacks at KL 1",
    "improved/2": "prompts improved by over 0.05 at KL 2",
    "spread/2": "standard deviation of KL over prompts at mean KL 2",
    "best-of-16": "both good, best of 16",
    "both/3": "both good at KL 3",
    "hacked/3": "mass on hacks at KL 3",
}
LEARNED = {
    "start": "total variation to the optimum at the start",
    "distance": "total variation to the optimum at the end",
    "kl": "KL at the end, where the optimum has 1",
}
# Arm: its transform, and the pilot's numbers in the order of EXACT.
_HARD: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "raw mean": ("raw", ("0.334", "0.327", "0.186", "0.76", "0.75", "0.473")),
    "z-score sum": ("zscore", ("0.318", "0.317", "0.247", "0.69", "1.07", "0.543")),
    "LSC, global reference": ("lsc-global", ("0.417", "0.435", "0.177", "0.84", "0.88", "0.608")),
    "LSC, q = 0.85": ("lsc-quantile", ("0.490", "0.543", "0.135", "1.00", "0.52", "0.664")),
    "LSC, Gaussian 0.85": ("lsc-gaussian", ("0.489", "0.539", "0.139", "1.00", "0.48", "0.669")),
    "LSC, mean reference": ("lsc-mean", ("0.579", "0.654", "0.109", "1.00", "0.21", "0.774")),
    "sigmoid-centered": ("sigmoid", ("0.505", "0.552", "0.154", "0.98", "0.32", "0.717")),
    "min of centered": ("min", ("0.519", "0.556", "0.138", "0.91", "0.92", "0.853")),
}
_EASY: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "easy: raw mean": ("raw", {"both/1": "0.707", "best-of-16": "0.880"}),
    "easy: LSC, mean reference": ("lsc-mean", {"both/1": "0.807", "best-of-16": "0.978"}),
    "easy: min of centered": ("min", {"both/1": "0.776", "best-of-16": "0.990"}),
}
_LEARNERS: Mapping[str, str] = {
    "learned: raw mean": "raw",
    "learned: LSC, q = 0.85": "lsc-quantile",
    "learned: min of centered": "min",
}
_RAW, _QUANTILE, _MEAN, _MIN = "raw mean", "LSC, q = 0.85", "LSC, mean reference", "min of centered"
_GLOBAL, _GAUSSIAN = "LSC, global reference", "LSC, Gaussian 0.85"


def _settings(u: str, easy: bool) -> dict[str, Json]:
    return {"u": u, "easy": easy, "prompts": 200, "candidates": 400}


def _learner(u: str) -> dict[str, Json]:
    return {"u": u, "learner": True, "prompts": 8, "candidates": 50, "steps": 300}


def _less(arm: str, other: str, metric: str, least: float) -> Effect:
    return less(arm, other, metric, says=EXACT[metric], least=least)


def _gap(found: ByArm, prefix: str) -> float:
    return found[f"{prefix}{_MEAN}"]["both/1"] - found[f"{prefix}{_RAW}"]["both/1"]


def _loses(arm: str, found: ByArm) -> float:
    return found[arm]["both/2"] - found[arm]["both/3"]


STUDY = Study(
    name="reward-transformation",
    title="Transforming and combining rewards: log-sigmoid of centered rewards (LSC)",
    source="Wang et al. 2024, Transforming and Combining Rewards for Aligning Large Language Models, arXiv:2402.00742; "
    "optima in closed form on finite candidate sets.",
    arms={
        **{arm: _settings(u, easy=False) for arm, (u, _) in _HARD.items()},
        **{arm: _settings(u, easy=True) for arm, (u, _) in _EASY.items()},
        **{arm: _learner(u) for arm, u in _LEARNERS.items()},
    },
    seeds=(0, 1, 2, 3, 4),
    fast={"prompts": 4, "candidates": 50, "steps": 20},
    cell=cell,
    claims=(
        Claim(
            says="LSC with a reference for each prompt leaves both properties good more often than the raw mean",
            effects=tuple(
                _less(arm, _RAW, metric, 0.1)
                for arm in (_QUANTILE, _GAUSSIAN, _MEAN)
                for metric in ("both/1", "both/2")
            ),
        ),
        Claim(
            says="LSC puts less mass on hacks than the raw mean",
            effects=tuple(_less(_RAW, arm, "hacked/1", 0.02) for arm in (_QUANTILE, _GAUSSIAN, _MEAN)),
        ),
        Claim(
            says="LSC spends its KL more evenly over prompts than the raw mean",
            effects=tuple(_less(_RAW, arm, "spread/2", 0.1) for arm in (_QUANTILE, _GAUSSIAN, _MEAN)),
        ),
        Claim(
            says="A reference for each prompt is better than one for all",
            effects=tuple(_less(_QUANTILE, _GLOBAL, metric, 0.03) for metric in ("both/1", "both/2")),
        ),
        Claim(
            says="The minimum wins best-of-16: the measure is a threshold for each property",
            effects=tuple(_less(_MIN, arm, "best-of-16", 0.02) for arm in _HARD if arm != _MIN),
        ),
        Claim(
            says="At KL 3 every method loses ground: LSC slows hacking and does not stop it",
            effects=tuple(
                Effect(says=f"both good at KL 2 less KL 3: {arm}", of=partial(_loses, arm), least=0.0) for arm in _HARD
            ),
        ),
        Claim(
            says="Without hacks, with equal scales and independent properties, LSC's gain is smaller but there",
            effects=(
                Effect(
                    says=f"{EXACT['both/1']}: {_MEAN} less {_RAW}, easy world",
                    of=lambda found: _gap(found, "easy: "),
                    least=0.05,
                ),
                Effect(
                    says="the same in the hard world, less that",
                    of=lambda found: _gap(found, "") - _gap(found, "easy: "),
                    least=0.05,
                ),
            ),
        ),
        Claim(
            says="REINFORCE with KL comes within a total variation of 0.05 of the closed form",
            effects=tuple(
                Effect(
                    says=f"0.05 less the total variation at the end: {arm}",
                    of=lambda found, arm=arm: 0.05 - found[arm]["distance"],  # type: ignore[misc]
                    least=0.0,
                )
                for arm in _LEARNERS
            ),
        ),
        Claim(
            says="Win rates against KL as judged by people or models; fewer surface shortcuts in text",
            why="candidates here are numbers, and have no text",
        ),
    ),
    rows=(
        *(
            Row(arm=arm, metric=metric, says=says, pilot=pilot)
            for arm, (_, known) in _HARD.items()
            for (metric, says), pilot in zip(EXACT.items(), (*known, "", ""), strict=True)
        ),
        *(
            Row(arm=arm, metric=metric, says=EXACT[metric], pilot=pilot)
            for arm, (_, known) in _EASY.items()
            for metric, pilot in known.items()
        ),
        *(Row(arm=arm, metric=metric, says=says) for arm in _LEARNERS for metric, says in LEARNED.items()),
    ),
    axis=AXIS,
    notes=(
        "Arms are compared at equal KL, not at equal gamma: a transform changes the scale of u.",
        "Good is above the prompt's median, which suits the mean reference and the minimum of centered rewards: the "
        "first has its bar near there, the second is a threshold for each property as the measure is.",
        "Best-of-16 is exact: the chance of each rank to be the best of 16 draws.",
        "The learner has 8 prompts of 50 candidates drawn as in the hard world, 64 answers to each prompt a step; KL "
        "is in its reward (k1), its baseline is the mean of the siblings, and its rate falls from 40 to 1.",
        "A first run, with 3000 steps of the learner, took over a minute for each of its cells and was stopped after "
        "eight of them: total variation was 0.0001 to 0.0007 at the end. 300 steps show the same in a tenth of the "
        "time; the rule is as it was.",
        "Without hacks the numbers are the pilot's, to its rounding. With hacks most lie up to 0.02 beside them, "
        "always towards more hacking. The pilot does not say whether the mean that a hack's reward is 4 above is taken "
        "before or after hacks are put in; here it is before, which lifts them about 0.1 more.",
        "The pilot is a NumPy trial of ours with the same world. The rules were committed before the first run of this "
        "study, but after the pilot's table had been read and one other seed tried: they test that it repeats, not a "
        "guess made blind.",
    ),
)
