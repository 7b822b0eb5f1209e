"""Section 5, E1, of the specification preference-learning: one prompt, three responses, everything known.

Ivison et al. 2024 (arXiv:2406.09279) compare learning from preferences by DPO and by PPO. Where nothing has to
generalize the two are one: the policy that earns most, less its divergence from the reference, is the policy that
explains best which response is preferred. Here both losses, and PPO as the loop runs it, are held to that policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Literal, cast

from reckon.studies._claims import Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Columns, Json, Outputs, Parts, Problem, Rng, Sequences, Split, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.models.table import TablePolicy

TEXTS = ("good", "fair", "poor")
REWARD = (1.0, 0.0, -1.0)
REFERENCE = (0.5, 0.3, 0.2)
BETA = 0.5  # nats of divergence cost this much reward
GROUPS, ANSWERS = 4, 64  # a step of PPO
PAIRS = 2000  # where pairs are drawn
MANY = 4096  # equally likely responses: nearly the continuous case that the bound on best-of-N is of
SIZES = (1, 2, 4, 16)


def optimum() -> list[float]:
    """The policy that maximizes E[r] - beta KL: the reference times exp(r / beta), normalized."""
    weights = [p * math.exp(r / BETA) for p, r in zip(REFERENCE, REWARD, strict=True)]
    return [weight / sum(weights) for weight in weights]


def preferred(i: int, j: int) -> float:
    """How often response i is preferred to j: Bradley and Terry's law of the true rewards."""
    return 1 / (1 + math.exp(REWARD[j] - REWARD[i]))


class Question:
    """One problem, whose answers are worth 1, 1/2 and 0: (r + 1) / 2."""

    name = "question"

    def problems(self, split: Split) -> Sequence[Problem]:
        """The same in every split: what the policy earns is computed, not measured on held-out problems."""
        return [Problem(id=f"{split}-{i}", prompt="How are you?", answer=TEXTS[0]) for i in range(GROUPS)]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Looks the answer up."""
        reward = REWARD[TEXTS.index(text)]
        reason: Literal["right", "wrong", "partial"] = "right" if reward == 1 else "partial" if reward == 0 else "wrong"
        return Verdict(outcome=(reward + 1) / 2, answer=text, reason=reason)


def policy(rate: float, epochs: int = 1) -> TablePolicy:
    """The reference as a table that learns by gradient descent, with a critic's values."""
    import torch

    from reckon.models.table import Action, TablePolicy

    return TablePolicy(
        [Action(text=text) for text in TEXTS],
        torch.tensor(REFERENCE).log(),
        optimizer=partial(torch.optim.SGD, lr=rate),
        epochs=epochs,
        values=True,
    )


def cell(settings: Settings, seed: int) -> Measured:
    """One way to learn, from the reference on; what the policy is and earns at the end, computed exactly."""
    kind = cast("str", settings["kind"])
    if kind == "best-of-n":
        return Measured(metrics=best_of_n())
    steps = cast("int", settings["steps"])
    if kind == "ppo":
        learner, step = ppo_steps(settings, seed)
    else:
        learner = policy(cast("float", settings["rate"]))
        step = descent(learner, pair_loss(settings, seed) if kind in ("dpo", "ipo") else shortfall)
    seen = [state(learner.probabilities()[0].tolist())]
    for i in range(steps):
        step(i)
        seen.append(state(learner.probabilities()[0].tolist()))
    shown = range(0, steps + 1, max(1, steps // 50))
    curves = {name: [seen[i][name] for i in shown] for name in ("value", "kl", "distance")}
    return Measured(metrics=seen[-1], curves={"step": [float(i) for i in shown], **curves})


def state(law: Sequence[float]) -> dict[str, float]:
    """A policy's probabilities, what it earns, how far it is from the reference and from the optimum."""
    kl = sum(p * math.log(p / q) for p, q in zip(law, REFERENCE, strict=True) if p > 0)
    earned = sum(p * r for p, r in zip(law, REWARD, strict=True))
    return {
        **{f"p/{text}": p for text, p in zip(TEXTS, law, strict=True)},
        "reward": earned,
        "kl": kl,
        "value": earned - BETA * kl,
        "distance": max(abs(p - q) for p, q in zip(law, optimum(), strict=True)),
    }


# Losses over all responses, every expectation exact


def descent(learner: TablePolicy, loss: Callable[[Outputs, Columns], Tensor]) -> Callable[[int], object]:
    """A step of gradient descent on a loss of the three responses."""
    import torch

    seq = Sequences(
        prompts=(torch.zeros(1, dtype=torch.int64),),
        group=torch.zeros(3, dtype=torch.int64),
        tokens=torch.arange(3)[:, None],
        mask=torch.ones(3, 1, dtype=torch.bool),
    )
    columns = {"ref_logprobs": torch.tensor(REFERENCE).log()}
    return lambda i: learner.step(seq, columns, loss)


def shortfall(outputs: Outputs, columns: Columns) -> Tensor:
    """[3]: each response's share of -(E[r] - beta KL)."""
    import torch

    logprobs = cast("Tensor", outputs.logprobs)[:, 0]
    return -logprobs.exp() * (torch.tensor(REWARD) - BETA * (logprobs - columns["ref_logprobs"]))


def pair_loss(settings: Settings, seed: int) -> Callable[[Outputs, Columns], Tensor]:
    """The mean preference loss over pairs: all of them by their probabilities, or as many as were drawn."""
    import torch

    from reckon.preferences import dpo, ipo

    shares = drawn_shares(seed) if settings["pairs"] == "drawn" else population_shares()
    winners, losers = (torch.tensor(side) for side in zip(*shares, strict=True))
    weights = torch.tensor(list(shares.values()))

    def loss(outputs: Outputs, columns: Columns) -> Tensor:
        ratios = cast("Tensor", outputs.logprobs)[:, 0] - columns["ref_logprobs"]
        if settings["kind"] == "ipo":
            return weights * ipo(ratios[winners], ratios[losers], BETA)
        return weights * dpo(ratios[winners], ratios[losers], BETA, cast("float", settings["smoothing"]))

    return loss


def population_shares() -> dict[tuple[int, int], float]:
    """How often (i, j) is a pair in which i was preferred, the three pairs being equally frequent."""
    ordered = [pair for i, j in combinations(range(3), 2) for pair in ((i, j), (j, i))]
    return {(i, j): preferred(i, j) / 3 for i, j in ordered}


def drawn_shares(seed: int) -> dict[tuple[int, int], float]:
    """The same among `PAIRS` drawn ones."""
    population = population_shares()
    counts = Rng((seed, "preference-learning", "pairs")).numpy().multinomial(PAIRS, list(population.values()))
    return {pair: count / PAIRS for pair, count in zip(population, counts.tolist(), strict=True)}


# PPO, sampled


def ppo_steps(settings: Settings, seed: int) -> tuple[TablePolicy, Callable[[int], object]]:
    """The policy, and a step of the loop on it."""
    from reckon.train import take_step

    learner, task = policy(cast("float", settings["rate"]), epochs=4), Question()
    parts = ppo_parts(learner, task, settings)

    def step(i: int) -> None:
        rng = Rng((seed, "preference-learning", i))
        take_step(learner, task, parts, rng, step=i, prompts=GROUPS, answers=ANSWERS)

    return learner, step


def ppo_parts(learner: TablePolicy, task: Question, settings: Settings) -> Parts:
    """The method, with the verdict put back on the scale of the reward."""
    from reckon.methods import ppo
    from reckon.rewards import Sum, Verifier

    parts = ppo(
        task,
        kl=BETA,
        whiten="minibatch" if settings["whiten"] else None,
        old=cast("Literal['rollout', 'step']", settings["old"]),
        value_coef=1.0,
        policy=learner,
        reference=learner.reference(),
    )
    charge = cast("Sum", parts.reward).parts["kl"]
    return replace(parts, reward=Sum({"score": Verifier(right=1.0, wrong=-1.0), "kl": charge}))


# Choosing instead of learning


def best_of_n() -> dict[str, float]:
    """Reward and divergence of the best of N draws, here and among many responses, and the bound for each N."""
    worst_first = sorted(zip(REWARD, REFERENCE, strict=True))
    found = {}
    for n in SIZES:
        law = law_of_the_best([p for _, p in worst_first], n)
        found[f"reward/{n}"] = sum(p * r for p, (r, _) in zip(law, worst_first, strict=True))
        found[f"kl/{n}"] = divergence(law, [p for _, p in worst_first])
        found[f"kl of many/{n}"] = divergence(law_of_the_best([1 / MANY] * MANY, n), [1 / MANY] * MANY)
        found[f"bound/{n}"] = math.log(n) - (n - 1) / n
    return found


def law_of_the_best(law: Sequence[float], n: int) -> list[float]:
    """How often each response is the best of n draws; `law` runs from the worst response to the best."""
    below, best = 0.0, []
    for p in law:
        above = below + p
        best.append(above**n - below**n)
        below = above
    return best


def divergence(law: Sequence[float], reference: Sequence[float]) -> float:
    """KL(law || reference) in nats."""
    return sum(p * math.log(p / q) for p, q in zip(law, reference, strict=True) if p > 0)


# What must come out


def _within(arm: str, metric: str, wanted: float, within: float) -> Effect:
    return Effect(
        says=f"{METRICS.get(metric, metric)}, {arm}, less {wanted:.6f}",
        of=lambda found: found[arm][metric] - wanted,
        within=within,
    )


def _more(arm: str, other: str, metric: str, least: float) -> Effect:
    return less(arm, other, metric, says=METRICS[metric], least=least)


def _near(arm: str, within: float) -> Effect:
    return Effect(says=f"{METRICS['distance']}: {arm}", of=lambda found: found[arm]["distance"], within=within)


def _room(metric: str, n: int, within: float | None = None) -> Effect:
    """How far the divergence of the best of n stays below the bound."""
    where = "" if metric == "kl" else f" among {MANY} equally likely responses"
    return Effect(
        says=f"bound less KL{where}, N = {n}",
        of=lambda found: found[_BEST][f"bound/{n}"] - found[_BEST][f"{metric}/{n}"],
        within=within,
    )


def ipo_optimum() -> list[float]:
    """Where IPO's population loss is least: the wanted differences (2p - 1) / (2 beta), fitted by least squares."""
    ratios = [sum((2 * preferred(i, j) - 1) / (2 * BETA) for j in range(3) if j != i) / 3 for i in range(3)]
    weights = [p * math.exp(ratio) for p, ratio in zip(REFERENCE, ratios, strict=True)]
    return [weight / sum(weights) for weight in weights]


METRICS = {
    "p/good": "probability of the best response",
    "p/fair": "probability of the second",
    "p/poor": "probability of the worst",
    "value": "E[r] - beta KL",
    "kl": "KL from the reference",
    "distance": "largest distance of a probability from the optimum's",
}
_REWARD, _DPO, _CDPO, _IPO = "reward maximization", "DPO", "cDPO, smoothing 0.1", "IPO"
_DRAWN, _PPO, _WHITE, _STEP, _BEST = "DPO, 2,000 drawn pairs", "PPO", "PPO, whitened", "PPO, old = step", "best of N"


def _exact(kind: str, rate: float, **settings: Json) -> dict[str, Json]:
    return {"kind": kind, "rate": rate, "steps": 400, **settings}


def _ppo(*, whiten: bool, old: str) -> dict[str, Json]:
    return {"kind": "ppo", "rate": 0.5, "steps": 150, "whiten": whiten, "old": old}


ARMS: dict[str, dict[str, Json]] = {
    _REWARD: _exact("reward", 5.0),
    _DPO: _exact("dpo", 20.0, smoothing=0.0, pairs="all"),
    _CDPO: _exact("dpo", 20.0, smoothing=0.1, pairs="all"),
    _IPO: _exact("ipo", 0.1, pairs="all"),
    _DRAWN: _exact("dpo", 20.0, smoothing=0.0, pairs="drawn"),
    _PPO: _ppo(whiten=False, old="rollout"),
    _WHITE: _ppo(whiten=True, old="rollout"),
    _STEP: _ppo(whiten=False, old="step"),
    _BEST: {"kind": "best-of-n"},
}
_BEST_REWARD, _MOST = 0.695839, (0.918672, 0.074597, 0.006730)  # as the specification has them


STUDY = Study(
    name="preference-learning",
    title="Preference learning, E1: DPO and PPO on three responses",
    source="Ivison et al. 2024, Unpacking DPO and PPO, arXiv:2406.09279; the exact part of its specification.",
    arms=ARMS,
    seeds=(0, 1, 2, 3, 4),
    fast={"steps": 2},
    cell=cell,
    claims=(
        Claim(
            says="Maximizing the reward at a price for divergence reaches the policy known in closed form",
            effects=(
                *(_within(_REWARD, f"p/{text}", p, 1e-3) for text, p in zip(TEXTS, _MOST, strict=True)),
                _within(_REWARD, "value", _BEST_REWARD, 1e-3),
            ),
        ),
        Claim(
            says="DPO on all pairs reaches the same policy",
            effects=(
                *(_within(_DPO, f"p/{text}", p, 1e-3) for text, p in zip(TEXTS, _MOST, strict=True)),
                _within(_DPO, "value", _BEST_REWARD, 1e-3),
            ),
        ),
        Claim(says="DPO on drawn pairs comes near it", effects=(_near(_DRAWN, 0.05),)),
        Claim(
            says="PPO, sampled through the loop, reaches the same policy",
            effects=(_near(_PPO, 0.01), _within(_PPO, "value", _BEST_REWARD, 1e-3)),
        ),
        Claim(
            says="So it does when the ratio is to each step's own policy, four epochs a batch",
            effects=(_near(_STEP, 0.01), _within(_STEP, "value", _BEST_REWARD, 1e-3)),
        ),
        Claim(
            says="Whitened advantages keep PPO moving where nothing is left to learn",
            effects=(_more(_WHITE, _PPO, "distance", 0.005),),
        ),
        Claim(
            says="Conservative DPO stays nearer to the reference than DPO",
            effects=(_more(_DPO, _CDPO, "kl", 0.05), _more(_DPO, _CDPO, "p/good", 0.02)),
        ),
        Claim(
            says="IPO reaches a policy of its own, known in closed form, and not the optimum",
            effects=(
                *(_within(_IPO, f"p/{text}", p, 1e-3) for text, p in zip(TEXTS, ipo_optimum(), strict=True)),
                _more(_IPO, _DPO, "distance", 0.1),
            ),
        ),
        Claim(
            says="The best of N diverges by no more than log N - (N - 1) / N, and among many responses by as much",
            effects=(
                *(_room("kl", n) for n in SIZES[1:]),
                *(_room("kl of many", n, within=0.01) for n in SIZES),
            ),
        ),
        Claim(
            says="The paper's comparison of preference data, algorithms, reward models and prompts",
            why="with every response in the table and every expectation known, there is nothing to generalize",
        ),
    ),
    rows=(
        *(
            Row(arm=arm, metric=f"p/{text}", says=METRICS[f"p/{text}"], pilot=f"{p:.6f}")
            for arm in (_REWARD, _DPO)
            for text, p in zip(TEXTS, _MOST, strict=True)
        ),
        *(
            Row(
                arm=arm,
                metric="value",
                says=METRICS["value"],
                pilot=f"{_BEST_REWARD}" if arm in (_REWARD, _DPO) else "",
            )
            for arm in ARMS
            if arm != _BEST
        ),
        *(
            Row(arm=arm, metric=metric, says=METRICS[metric])
            for metric in ("kl", "distance")
            for arm in ARMS
            if arm != _BEST
        ),
        *(
            Row(
                arm=_BEST,
                metric=f"{metric}/{n}",
                says=f"{says}, N = {n}",
                pilot="1.835089" if (metric, n) == ("bound", 16) else "",
            )
            for n in SIZES
            for metric, says in (
                ("reward", "reward"),
                ("kl", "KL"),
                ("kl of many", f"KL among {MANY} responses"),
                ("bound", "bound"),
            )
        ),
    ),
    notes=(
        "The column pilot holds the specification's numbers, worked out by hand.",
        "Only the drawn pairs and PPO depend on chance; the other arms are the same in every seed, and their standard "
        "error is 0.",
        "The rules were committed before the first full run. That was stopped after 11 of 45 cells, which nobody had "
        "looked at, for it took too long: the exact arms now make 400 steps at larger rates instead of 2,000. Rules "
        "and sampled arms are as they were.",
    ),
)
