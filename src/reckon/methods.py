"""The published methods, each as the parts it is made of. A variant is another sentence of the same words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from reckon.annotate import Positive
from reckon.credit import GAE, BatchMean, GroupNormalized, LeaveOneOut, Reshaped, RunningMean, Streamwise
from reckon.errors import InputError
from reckon.losses import (
    ClippedRatio,
    ClonePositives,
    KLPenalty,
    Objectives,
    PolicyGradient,
    ValueLoss,
    WeightedNegatives,
)
from reckon.models import Optimization
from reckon.rewards import (
    CanProve,
    EpisodicCount,
    GlobalCount,
    HackMonitor,
    HasHeadedTwin,
    HasTwin,
    KLReward,
    MonteCarloAdvantage,
    Novelty,
    OnlineImplicitReward,
    OnlineReferenceBased,
    OverlongPenalty,
    Sum,
    TokenOutcomeModel,
    Verifier,
)
from reckon.samplers import AccuracyBand, All, ByPassRate, DomainSampler, DropEqual, OnePair, Uniform
from reckon.types import Model, Objective, Parts, Policy, Refill, Task

__all__ = [
    "METHODS",
    "cooper",
    "dapo",
    "dr_grpo",
    "grpo",
    "gspo",
    "novelty",
    "oreal",
    "pav_rl",
    "ppo",
    "prime",
    "reinforce",
    "rloo",
    "rule_reasoner",
]


def grpo(task: Task, *, clip: float = 0.2, kl: float = 0.0, reference: Model | None = None) -> Parts:
    """GRPO (Shao et al. 2024, arXiv:2402.03300): rewards normalized in the group, a clipped ratio, mean by response.

    Args:
        task: poses the problems.
        clip: how far the ratio may move from 1.
        kl: coefficient of the k3 penalty against `reference`; the paper has 0.04, most later work 0.
        reference: the model before training; needed where kl is above 0.
    """
    ratio = ClippedRatio(low=clip, high=clip, average="sequences")
    return Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=Sum({"correct": Verifier()}),
        advantage=GroupNormalized(),
        objective=Objectives({"ratio": ratio, "kl": KLPenalty(reference=_needed(reference), coef=kl)}) if kl else ratio,
    )


def dr_grpo(task: Task, *, limit: int, clip: float = 0.2) -> Parts:
    """Dr. GRPO (Liu et al. 2025, arXiv:2503.20783): GRPO without the two divisions that bias it.

    Args:
        task: poses the problems.
        limit: most tokens of a response; every response's sum is divided by it and not by its own length.
        clip: how far the ratio may move from 1.
    """
    return Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=Sum({"correct": Verifier()}),
        advantage=GroupNormalized(std=False),
        objective=ClippedRatio(low=clip, high=clip, average="constant", length=limit),
    )


def dapo(task: Task, *, limit: int, buffer: int | None = None, low: float = 0.2, high: float = 0.28) -> Parts:
    """DAPO (Yu et al. 2025, arXiv:2503.14476): GRPO, but dynamic sampling, a wider upper clip, averaged over tokens.

    Args:
        task: poses the problems.
        limit: most tokens of a response, where the penalty for length is whole.
        buffer: over how many tokens before it the penalty sets in; left out, a fifth of it, as in the paper.
        low: how far the ratio may fall below 1.
        high: how far it may rise above 1.
    """
    buffer = max(1, limit // 5) if buffer is None else buffer
    return Parts(
        sampler=Uniform(task),
        keep=DropEqual(),
        reward=Sum({"correct": Verifier(), "overlong": OverlongPenalty(l_max=limit, buffer=buffer)}),
        advantage=GroupNormalized(),
        objective=ClippedRatio(low=low, high=high, average="tokens"),
        refill=Refill(rounds=8, on_short="fill"),
    )


def gspo(task: Task, *, low: float = 3e-4, high: float = 4e-4) -> Parts:
    """GSPO (Zheng et al. 2025, arXiv:2507.18071): GRPO with one ratio for a whole response, clipped closely.

    Args:
        task: poses the problems.
        low: how far a response's ratio may fall below 1.
        high: how far it may rise above 1.
    """
    return Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=Sum({"correct": Verifier()}),
        advantage=GroupNormalized(),
        objective=ClippedRatio(low=low, high=high, level="sequence", average="sequences"),
    )


def rloo(task: Task, *, kl: float = 0.0, policy: Model | None = None, reference: Model | None = None) -> Parts:
    """RLOO (Ahmadian et al. 2024, arXiv:2402.14740): REINFORCE whose baseline is the mean of the response's siblings.

    Args:
        task: poses the problems.
        kl: coefficient of the divergence from `reference`, charged in the reward.
        policy: what learns; needed where kl is above 0.
        reference: the model before training; needed where kl is above 0.
    """
    charge = {"kl": KLReward(policy=_needed(policy), reference=_needed(reference), coef=kl)} if kl else {}
    return Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=Sum({"correct": Verifier(), **charge}),
        advantage=LeaveOneOut(),
        objective=PolicyGradient(average="constant", length=1),  # a response's log-prob is the sum of its tokens'
    )


def reinforce(task: Task, *, decay: float | None = None) -> Parts:
    """REINFORCE (Williams 1992, doi:10.1007/BF00992696): each log-prob times the reward's excess over a baseline.

    Args:
        task: poses the problems.
        decay: weight of the past in a baseline that is the mean of the batches before; left out, the baseline is the
            mean of this batch.
    """
    return Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=Sum({"correct": Verifier()}),
        advantage=BatchMean() if decay is None else RunningMean(decay=decay),
        objective=PolicyGradient(average="constant", length=1),  # a response's log-prob is the sum of its tokens'
    )


def rule_reasoner(task: Task, *, clip: float = 0.2) -> Parts:
    """RuleReasoner (Liu, Li and Zheng 2026, arXiv:2506.08672): GRPO on more problems of the domains that go badly.

    Without a divergence and without an entropy bonus, as there. Its weights are the sampler's settings.

    Args:
        task: poses the problems, in several domains.
        clip: how far the ratio may move from 1.
    """
    return replace(grpo(task, clip=clip), sampler=DomainSampler(task))


def novelty(task: Task, *, alpha: float = 0.1, clip: float = 0.2) -> Parts:
    """Paying for new answers (Song et al. 2025, arXiv:2509.06941): GRPO with a bonus that is added after normalization.

    The bonus is the product of what is rare in the group and what is rare in the run, as Henaff et al. 2023,
    arXiv:2306.03236, have it: 1 / (copies of the answer in its group) times 1 / sqrt(its count for the problem so far),
    less its mean in the group. Where problems do not come again, the second is hardly more than the first.

    Args:
        task: poses the problems; its checker reads the answers.
        alpha: weight of the bonus beside advantages of about 1; 0 is GRPO.
        clip: how far the ratio may move from 1.
    """
    bonus = Novelty({"in_group": EpisodicCount(), "in_run": GlobalCount()})
    return replace(grpo(task, clip=clip), reward=Sum({"correct": Verifier(), "bonus": bonus}, weights={"bonus": alpha}))


def ppo(
    task: Task,
    *,
    kl: float = 0.05,
    gamma: float = 1.0,
    lam: float = 0.95,
    clip: float = 0.2,
    value_clip: float | None = 0.2,
    value_coef: float = 0.1,
    whiten: Literal["minibatch", "batch"] | None = "minibatch",
    old: Literal["rollout", "step"] = "rollout",
    policy: Policy | None = None,
    reference: Model | None = None,
    critic: Policy | None = None,
) -> Parts:
    """PPO (Schulman et al. 2017, arXiv:1707.06347): a critic at every token, a clipped ratio, a charge for leaving.

    With the defaults of Ivison et al. 2024, arXiv:2406.09279, for language models. Their code recomputes the old
    log-probs and values at every step, so that nothing is ever clipped: `old="step"` and `value_clip=None`.

    Args:
        task: poses the problems; its verdict is the reward, and a learned reward model can take its place.
        kl: coefficient of the divergence from `reference`, charged in the reward.
        gamma: discount.
        lam: how far advantages reach beyond the critic's next value.
        clip: how far the ratio may move from 1.
        value_clip: how far a value may move, in units of the reward; None = as far as it likes.
        value_coef: of the critic's loss.
        whiten: advantages over the tokens of a mini-batch (as the paper) or of the batch (as TRL), or not at all.
        old: what the ratio is to: the policy that sampled, or the one at each step.
        policy: what learns; always needed.
        reference: the model before training; needed where kl is above 0.
        critic: a model of its own that learns beside the policy; left out, the policy's own value head.
    """
    if whiten not in ("minibatch", "batch", None):
        raise InputError(f"ppo: `whiten` is {whiten!r}; it must be 'minibatch', 'batch' or None.")
    own = critic is not None and critic is not policy
    value = ValueLoss(clip=value_clip, coef=value_coef)
    ratio = ClippedRatio(low=clip, high=clip, average="tokens", whiten=whiten == "minibatch", old=old)
    objective: Objective = ratio if own else Objectives({"ratio": ratio, "value": value})
    charge = {"kl": KLReward(policy=_needed(policy), reference=_needed(reference), coef=kl)} if kl else {}
    return Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=Sum({"correct": Verifier(), **charge}),
        advantage=GAE(
            critic=_with_values(critic or policy),
            gamma=gamma,
            lam=lam,
            whiten=whiten == "batch",
            learn=value if own else None,
        ),
        objective=objective,
    )


def prime(
    task: Task,
    *,
    update: Literal["none", "after", "before"] = "after",
    lr: float = 1e-6,
    clip: float = 0.2,
    policy: HasTwin | None = None,
    reference: Model | None = None,
) -> Parts:
    """PRIME (Cui et al. 2025, arXiv:2502.01456): RLOO, and dense rewards of a model that learns from the same outcomes.

    With credit as in the released code, and whitened as there. In the paper the policy's rate is half of `lr`.

    Args:
        task: poses the problems; those of which all or hardly any answers are right are drawn anew.
        update: when the reward model learns: "none", "after" the scores are taken or "before".
        lr: of the reward model.
        clip: how far the ratio may move from 1.
        policy: what learns, and what the reward model begins as; always needed, as is the reference.
        reference: the model before training.
    """
    if policy is None or reference is None:
        raise InputError("prime makes its reward model of the `policy`. Give it, and `reference=policy.reference()`.")
    process = OnlineImplicitReward(policy, reference, optimizer=Optimization(lr=lr, clip=10.0), update=update)
    return Parts(
        sampler=Uniform(task),
        keep=AccuracyBand(),
        reward=Sum({"correct": Verifier(), "process": process}),
        advantage=Streamwise(form="code", whiten=True),
        objective=ClippedRatio(low=clip, high=clip, average="tokens"),
        refill=Refill(rounds=8),
    )


def pav_rl(
    task: Task,
    *,
    alpha: float = 3.0,
    n_mc: int = 8,
    prover_k: int = 4,
    refresh: int = 0,
    n_own: int = 0,
    kl: float = 0.001,
    policy: CanProve | None = None,
    reference: Model | None = None,
    critic: Policy | None = None,
) -> Parts:
    """PAV-RL (Setlur et al. 2024, arXiv:2410.08146): REINFORCE on the outcome and on what each step did for a prover.

    A step's advantage is added to the step's own tokens, never summed into a return, where it would cancel. Here the
    prover finishes every beginning itself; as a judge that `reckon fit value` made, it saves the rollouts.

    Args:
        task: poses the problems.
        alpha: weight of the step advantages; the paper has 5 and 3, and finds 0.5 to 6 useful. 0 is the outcome alone.
        n_mc: completions of each beginning of each response.
        prover_k: the prover is the best of so many completions of the policy before training. With 1 it is that policy
            itself, and at first gives no new direction.
        refresh: steps after which the policy as it is then proves; 0 = the one before training, as in the paper.
        n_own: completions of each beginning by the policy as it is. A step is then credited with what it did to the
            policy's own chance of success, counted in these, in place of its response's outcome (the paper's Q,
            estimated): the same direction in expectation, for (H + 1) n_own more rollouts. The verdict is only watched.
            0 = the outcome, as in the paper.
        kl: coefficient of the divergence from `reference`, charged in the reward.
        policy: what learns, and what the prover is a copy of; always needed.
        reference: the model before training; needed where kl is above 0.
        critic: a model of its own that learns what a token will be credited with, step advantages included, as in the
            paper; left out, the baseline is the mean outcome of a response's siblings.
    """
    if policy is None:
        raise InputError("pav_rl makes its prover of the `policy`. Give it.")
    if alpha < 0:
        raise InputError(f"pav_rl: `alpha` is {alpha}; it must be 0 or larger.")
    progress = MonteCarloAdvantage(policy, task, n_mc=n_mc, prover_k=prover_k, refresh=refresh)
    own = {"own": MonteCarloAdvantage(policy, task, n_mc=n_own, refresh=1)} if n_own else {}
    charge = {"kl": KLReward(policy=policy, reference=_needed(reference), coef=kl)} if kl else {}
    learned = None if critic is None else GAE(critic=critic, lam=1.0, learn=ValueLoss(coef=1.0), expects="all")
    return Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=Sum(
            {"correct": Verifier(), **charge, **own, "progress": progress},
            weights={"progress": alpha},
            watch=("correct",) if own else (),
        ),
        advantage=learned or LeaveOneOut(),
        objective=PolicyGradient(average="constant", length=1),  # a response's log-prob is the sum of its tokens'
    )


def oreal(
    task: Task,
    *,
    schedule: Literal["code", "paper", "grpo", "one"] = "code",
    negatives: float = 0.5,
    kl: float = 0.01,
    lr: float = 2e-6,
    warmup: int = 10,
    rates: str | Path | None = None,
    policy: HasHeadedTwin | None = None,
    reference: Model | None = None,
) -> Parts:
    """OREAL (Lyu et al. 2025, arXiv:2502.06781): clones right responses, pushes wrong ones, weighs their tokens.

    Trains on one right and one wrong response of each group that has both; baselines are of the whole group. Problems
    are drawn up to 8 times for a batch, where the released code draws once.

    Args:
        task: poses the problems.
        schedule: what right and wrong responses are credited with: the leave-one-out advantage ("code", the released
            one), 1 and minus the chance of going wrong ("paper"), GRPO's advantage, or 1 and -1.
        negatives: coefficient of the wrong responses; the paper does not give it, the code has 0.5.
        kl: coefficient of the k3 penalty against `reference`, over all tokens that train.
        lr: of the model that weighs tokens.
        warmup: steps in which only that model learns, for at first it weighs nothing.
        rates: a table of what the policy answered before training (`reckon eval --split train --sample --k 16 --out`).
            By it hard problems come several times and easy ones never, as in the paper; left out, all come alike.
        policy: what learns, and what the model of tokens begins as; always needed.
        reference: the model before training; needed where kl is above 0.
    """
    if policy is None:
        raise InputError("oreal makes the model that weighs tokens of the `policy`. Give it.")
    rules: Mapping[str, Reshaped] = {
        "code": Reshaped(right="rloo", wrong="rloo", warmup=warmup),
        "paper": Reshaped(right="one", wrong="failures", warmup=warmup),
        "grpo": Reshaped(right="grpo", wrong="grpo", warmup=warmup),
        "one": Reshaped(right="one", wrong="one", warmup=warmup),
    }
    if schedule not in rules:
        raise InputError(f"oreal: `schedule` is {schedule!r}; it must be one of {', '.join(rules)}.")
    tokens = TokenOutcomeModel(policy, optimizer=Optimization(lr=lr, weight_decay=0.01))
    penalty = {"kl": KLPenalty(reference=_needed(reference), coef=kl, average="tokens")} if kl else {}
    return Parts(
        sampler=Uniform(task) if rates is None else ByPassRate(task, rates=rates),
        keep=OnePair(),
        reward=Sum({"correct": Verifier(right=1.0, wrong=-1.0), "tokens": tokens}),
        advantage=rules[schedule],
        objective=Objectives({"right": ClonePositives(), "wrong": WeightedNegatives(coef=negatives), **penalty}),
        refill=Refill(rounds=8),
    )


def cooper(
    task: Task,
    *,
    judge: str | None = None,
    lr: float = 1e-5,
    positive: Positive = "first",
    clip: float = 0.2,
    kl: float = 0.001,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    policy: HasHeadedTwin | None = None,
    reference: Model | None = None,
) -> Parts:
    """Cooper (Hong et al. 2025, arXiv:2508.05613): GRPO on a reward model that learns from what a rule is sure of.

    The rule's verdict is never part of the reward. A monitor warns when the policy games the judge.

    Args:
        task: poses the problems, and its checker is the rule.
        judge: a folder in which `reckon fit` made a judge with `show_reference` (VerifyRM); left out, the judge begins
            as the policy with a head that says 1/2 of everything, and `lr` must be far larger.
        lr: of the judge. It must learn faster than the policy drifts.
        positive: which right response of a prompt the judge learns from, beside the same one made wrong.
        clip: how far the ratio may move from 1.
        kl: coefficient of the k3 penalty against `reference`, over all tokens that train.
        dtype: what a judge from a folder computes in; "auto" is bfloat16 where the machine has it.
        policy: what learns, and what the judge begins as without a folder; always needed.
        reference: the model before training; needed where kl is above 0.
    """
    if policy is None:
        raise InputError("cooper makes its judge of the `policy`, where it has no other. Give it.")
    optimizer = Optimization(lr=lr, weight_decay=0.01)
    online = OnlineReferenceBased(policy, task, folder=judge, optimizer=optimizer, positive=positive, dtype=dtype)
    ratio = ClippedRatio(low=clip, high=clip, average="tokens")
    penalty = {"kl": KLPenalty(reference=_needed(reference), coef=kl, average="tokens")} if kl else {}
    return Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=Sum({"judge": HackMonitor(online)}),
        advantage=GroupNormalized(),
        objective=Objectives({"ratio": ratio, **penalty}) if penalty else ratio,
    )


METHODS: Mapping[str, Callable[..., Parts]] = {
    method.__name__: method
    for method in (
        grpo,
        dr_grpo,
        dapo,
        gspo,
        rloo,
        reinforce,
        ppo,
        rule_reasoner,
        novelty,
        prime,
        pav_rl,
        oreal,
        cooper,
    )
}


def _needed(model: Model | None) -> Model:
    if model is None:
        raise InputError(
            "`kl` is above 0, which compares two models. Give `reference=policy.reference()` (and rloo and ppo the "
            "`policy`), or set kl to 0."
        )
    return model


def _with_values(critic: Policy | None) -> Policy:
    if critic is None:
        raise InputError("ppo asks a critic. Give the `policy`, loaded with value_head=True, or a `critic` of its own.")
    return critic
