r"""Section 5 (a) and (b) of the specification oreal: Lyu et al. 2025 (arXiv:2502.06781), exact theory and token credit.

The parts are those that train a language model: the filter that trains on a pair, the model of tokens that learns
online, reshaped credit, cloned right and weighted wrong responses, the penalty. The policy is linear in features, its
chance of success exact, and every arm of a seed draws the same random numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from reckon.studies._claims import Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json, Objective, Rng

if TYPE_CHECKING:
    from reckon.credit import Reshaped
    from reckon.models import Optimization
    from reckon.rewards import TokenOutcomeModel
    from reckon.studies._oreal_world import CriticalTokens, FeaturePolicy
    from reckon.types import Keep, Reward

DRAWN, ANSWERS = 16, 16  # prompts a step, and responses to each
SLOW, FAST, LEARNER = 0.03, 0.1, 0.05  # Adam: the policy, the faster policy, the model of tokens
FROZEN = 10  # steps in which only the model of tokens learns, where there is one
EVERY = 5  # steps between two points of a curve


def cell(settings: Settings, seed: int) -> Measured:
    """One run; what the policy can do on the way, computed exactly. Or the identities of one random law."""
    if settings["theory"]:
        from reckon.studies._oreal_theory import largest_errors

        return Measured(metrics=largest_errors(seed))
    from reckon.rewards import Sum, Verifier
    from reckon.samplers import Uniform
    from reckon.train import take_step
    from reckon.types import Parts

    root = Rng((seed, "oreal"))
    task, policy = _world(root, cast("float", settings["rate"]))
    judge = _judge(settings, policy)
    rewards: dict[str, Reward] = {"correct": Verifier(right=1.0, wrong=-1.0)}
    parts = Parts(
        sampler=Uniform(task),
        keep=_keep(settings),
        reward=Sum(rewards if judge is None else rewards | {"tokens": judge}),
        advantage=_advantage(settings),
        objective=_objective(settings, policy),
    )
    success, weights = [task.chance_of_success(policy.law())], list[tuple[float, float]]()
    for step in range(cast("int", settings["steps"])):
        take_step(policy, task, parts, root.child(step), step=step, prompts=DRAWN, answers=ANSWERS)
        success.append(task.chance_of_success(policy.law()))
        if judge is not None:
            weights.append((judge.metrics()["right"], judge.metrics()["wrong"]))
    return _measured(settings, success, weights, judge, task)


def _measured(
    settings: Settings,
    success: list[float],
    weights: list[tuple[float, float]],
    judge: TokenOutcomeModel | None,
    task: CriticalTokens,
) -> Measured:
    import numpy as np

    found = {"start": success[0], "end": success[-1], "mean": float(np.mean(success[1:]))}
    if judge is not None:
        from reckon.studies._oreal_world import FeaturePolicy, localization, token_scores

        assert isinstance(judge.model, FeaturePolicy)
        found["auc"], found["top"] = localization(token_scores(judge.model), task)
        found["right"], found["wrong"] = (float(x) for x in np.nanmean(np.array(weights)[len(weights) // 2 :], axis=0))
    panel = cast("str", settings["panel"])
    return Measured(
        metrics=found, curves={"step": list(range(0, len(success), EVERY)), f"{panel}: success": success[::EVERY]}
    )


def _world(root: Rng, rate: float) -> tuple[CriticalTokens, FeaturePolicy]:
    from reckon.studies._oreal_world import CriticalTokens, start_policy

    task = CriticalTokens(root.child("world"))
    return task, start_policy(task, _adam(rate), root.child("world"))


def _judge(settings: Settings, policy: FeaturePolicy) -> TokenOutcomeModel | None:
    from reckon.rewards import TokenOutcomeModel

    if settings["weights"] is None:
        return None
    return TokenOutcomeModel(
        policy,
        optimizer=_adam(LEARNER),
        how=settings["weights"],  # type: ignore[arg-type]
        position="after",
        balanced=cast("bool", settings["balanced"]),
    )


def _keep(settings: Settings) -> Keep:
    from reckon.samplers import DropEqual, OnePair

    return OnePair() if settings["pairs"] else DropEqual()


def _advantage(settings: Settings) -> Reshaped:
    from reckon.credit import Reshaped

    warmup = 0 if settings["weights"] is None else FROZEN
    return Reshaped(right=settings["right"], wrong=settings["wrong"], warmup=warmup)  # type: ignore[arg-type]


def _objective(settings: Settings, policy: FeaturePolicy) -> Objective:
    from reckon.losses import ClonePositives, KLPenalty, Objectives, PolicyGradient, WeightedNegatives

    kl = KLPenalty(reference=policy.reference(), coef=0.01, average="tokens")
    if settings["negatives"] is None:
        return Objectives({"all": PolicyGradient(average="tokens"), "kl": kl})
    wrong = WeightedNegatives(coef=cast("float", settings["negatives"]))
    return Objectives({"right": ClonePositives(), "wrong": wrong, "kl": kl})


def _adam(rate: float) -> Optimization:
    from reckon.models import Optimization

    return Optimization(lr=rate, beta2=0.999, clip=None)


def _arm(rules: str, **changes: Json) -> dict[str, Json]:
    """The settings of an arm: rules as "right/wrong" of `Reshaped`, pairs, no token weights."""
    right, wrong = rules.split("/")
    return {
        "theory": False,
        "pairs": True,
        "right": right,
        "wrong": wrong,
        "negatives": 0.5,  # coefficient of wrong responses; None = one policy gradient for both
        "weights": None,  # how the model of tokens weighs them; None = without one
        "balanced": False,
        "rate": SLOW,
        "steps": 150,
        "panel": "one pair",
        **changes,
    }


PAPER, CODE = "one/failures", "rloo/rloo"
_ALL: dict[str, Json] = {"pairs": False, "panel": "all answers"}
_FASTER: dict[str, Json] = {"rate": FAST, "panel": "one pair, Adam 0.1"}
_THEORY = "exact theory"
_REINFORCE, _RLOO, _CLONE = "REINFORCE", "RLOO", "cloning only"
_P, _C, _PW, _CW, _CT = "paper", "code", "paper + weights", "code + weights", "code + weights of single tokens"
_TOP = "code + weights of the top half"
_RLOO_ALL, _P_ALL, _C_ALL = "RLOO, all answers", "paper, all answers", "code, all answers"
_PW_ALL, _CW_ALL = "paper + weights, all answers", "code + weights, all answers"
_PB_ALL, _CB_ALL = "paper + weights, balanced loss, all answers", "code + weights, balanced loss, all answers"
_P_FAST, _C_FAST, _CLONE_FAST = "paper, Adam 0.1", "code, Adam 0.1", "cloning only, Adam 0.1"
_PW_FAST, _CW_FAST = "paper + weights, Adam 0.1", "code + weights, Adam 0.1"

# Arm: its settings, and the pilot's success at step 150; "" = none.
_RUNS: dict[str, tuple[dict[str, Json], str]] = {
    _REINFORCE: (_arm("one/one", negatives=None), "0.43 ± 0.02"),
    _RLOO: (_arm(CODE, negatives=None), "0.45 ± 0.03"),
    _CLONE: (_arm("one/one", negatives=0.0), "0.44 ± 0.03"),
    _P: (_arm(PAPER), "0.45"),
    _C: (_arm(CODE), "0.43"),
    _PW: (_arm(PAPER, weights="mean"), "0.53 ± 0.02"),
    _CW: (_arm(CODE, weights="mean"), "0.52 ± 0.02"),
    _CT: (_arm(CODE, weights="token"), "0.61 ± 0.02 (coefficients not named)"),
    _TOP: (_arm(CODE, weights="top"), ""),
    _RLOO_ALL: (_arm(CODE, negatives=None, **_ALL), "0.71 ± 0.02"),
    _P_ALL: (_arm(PAPER, **_ALL), "0.58"),
    _C_ALL: (_arm(CODE, **_ALL), "0.54"),
    _PW_ALL: (_arm(PAPER, weights="mean", **_ALL), "0.18"),
    _CW_ALL: (_arm(CODE, weights="mean", **_ALL), "0.13"),
    _PB_ALL: (_arm(PAPER, weights="mean", balanced=True, **_ALL), "0.53 ± 0.04 (coefficients not named)"),
    _CB_ALL: (_arm(CODE, weights="mean", balanced=True, **_ALL), "0.53 ± 0.04 (coefficients not named)"),
    _CLONE_FAST: (_arm("one/one", negatives=0.0, **_FASTER), "0.74"),
    _P_FAST: (_arm(PAPER, **_FASTER), "0.78"),
    _C_FAST: (_arm(CODE, **_FASTER), "0.84"),
    _PW_FAST: (_arm(PAPER, weights="mean", **_FASTER), "0.63 (coefficients not named)"),
    _CW_FAST: (_arm(CODE, weights="mean", **_FASTER), "0.63 (coefficients not named)"),
}


def _more(arm: str, other: str, least: float, metric: str = "end") -> Effect:
    return less(arm, other, metric, least=least)


def _exact(identity: str) -> Effect:
    return Effect(says=f"largest error: {identity}", of=lambda found: found[_THEORY][identity], within=1e-9)


IDENTITIES = (
    "law of the best",
    "optimum under KL",
    "KL of the best",
    "gradient of the best",
    "reshaping",
    "sampled k3",
)

CLAIMS = (
    Claim(
        says="Best-of-n, its optimum under KL, the reshaped gradient and k3's pull are what the theory says",
        effects=tuple(_exact(identity) for identity in IDENTITIES),
    ),
    Claim(
        says="Token weights help where one right and one wrong answer are trained on",
        effects=(_more(_PW, _P, 0.04), _more(_CW, _C, 0.04)),
    ),
    Claim(
        says="Learned from unbalanced answers they nearly stop learning",
        effects=(
            _more(_P_ALL, _PW_ALL, 0.2),
            _more(_C_ALL, _CW_ALL, 0.2),
            Effect(
                says="weight of a token, wrong answers less right ones, second half: code + weights, all answers",
                of=lambda found: found[_CW_ALL]["wrong"] - found[_CW_ALL]["right"],
                least=0.05,
            ),
        ),
    ),
    Claim(
        says="A loss that is balanced by side mends that",
        effects=(_more(_PB_ALL, _PW_ALL, 0.2), _more(_CB_ALL, _CW_ALL, 0.2)),
    ),
    Claim(
        says="The model of tokens finds what matters without a label for any token",
        effects=(
            Effect(
                says="AUC of critical places less 0.5: code + weights",
                of=lambda found: found[_CW]["auc"] - 0.5,
                least=0.08,
            ),
            Effect(
                says="right word on top less chance: code + weights",
                of=lambda found: found[_CW]["top"] - 0.2,
                least=0.3,
            ),
        ),
    ),
    Claim(
        says="The single token's weight does better here than the mean so far",
        effects=(_more(_CT, _CW, 0.04),),
    ),
    Claim(
        says="At equal rollouts RLOO on all answers is ahead of all that trains on a pair",
        effects=(_more(_RLOO_ALL, _CW, 0.1), _more(_RLOO_ALL, _PW, 0.1), _more(_RLOO_ALL, _RLOO, 0.1)),
    ),
    Claim(
        says="With a policy three times as fast token weights do harm",
        effects=(_more(_P_FAST, _PW_FAST, 0.05), _more(_C_FAST, _CW_FAST, 0.05)),
    ),
    Claim(
        says="With a policy three times as fast the code's coefficients are ahead of the paper's, and these of cloning",
        effects=(_more(_C_FAST, _P_FAST, 0.02), _more(_P_FAST, _CLONE_FAST, 0.02)),
    ),
    Claim(
        says="REINFORCE, then reshaping, then cloning: each step of the paper's ablation adds",
        why="the pilot has all of them within noise on this task, and the paper reports no spread",
    ),
    Claim(
        says="+6 points of MATH-500 over the start, 7B parameters",
        why="figures of language models of 7B parameters",
    ),
)
_SAYS = {
    "end": "chance of success at step 150",
    "auc": "AUC of critical places by the spread of scores",
    "top": "critical places with the right word on top (chance 0.2)",
    "right": "mean weight of a token in right answers, second half",
    "wrong": "mean weight of a token in wrong answers, second half",
}


def _rows() -> tuple[Row, ...]:
    rows = [Row(arm=_RLOO, metric="start", says="chance of success at the start", pilot="0.071")]
    rows += [Row(arm=arm, metric="end", says=_SAYS["end"], pilot=pilot) for arm, (_, pilot) in _RUNS.items()]
    for arm in (_CW, _CT, _CW_ALL, _CB_ALL):
        rows.append(Row(arm=arm, metric="auc", says=_SAYS["auc"], pilot="0.61 to 0.70" if arm == _CW else ""))
        rows.append(Row(arm=arm, metric="top", says=_SAYS["top"], pilot="0.69 to 0.75" if arm == _CW else ""))
        rows += [Row(arm=arm, metric=side, says=_SAYS[side]) for side in ("right", "wrong")]
    rows += [Row(arm=_THEORY, metric=identity, says=f"largest error: {identity}") for identity in IDENTITIES]
    return tuple(rows)


STUDY = Study(
    name="oreal",
    title="OREAL: cloned right answers, reshaped wrong ones, token weights from outcomes",
    source="Lyu et al. 2025, Exploring the Limit of Outcome Reward for Learning Mathematical Reasoning, "
    "arXiv:2502.06781; texts of twelve tokens of which two decide, exact.",
    arms={_THEORY: {"theory": True, "steps": 0}} | {arm: settings for arm, (settings, _) in _RUNS.items()},
    seeds=(0, 1, 2, 3, 4, 5),
    fast={"steps": 12},
    cell=cell,
    claims=CLAIMS,
    rows=_rows(),
    notes=(
        "16 prompts with 16 answers a step in every arm; a pair is one right and one wrong answer of each prompt that "
        "has both, with baselines of all 16. One Adam step of the policy and one of the token model; KL 0.01 by k3.",
        "With token weights the first 10 of the 150 steps train the model of tokens alone; those arms make 140 steps "
        "of the policy, at equal rollouts.",
        "Features are N(0, 1 / 96), and the start is their least-squares fit to a chance of 0.45 of every critical "
        "word; the specification gives neither.",
        "REINFORCE and RLOO are one policy gradient over the tokens of all that trains; the other arms divide by the "
        "tokens of each side, and take wrong answers half.",
        "The pilot's ± is the standard deviation over 4 to 6 seeds of its own; here it is the standard error.",
        "Logits are read after their token, as in the paper; the released code reads them before it, where here they "
        "would know nothing of the token.",
        "The rules were committed before the first run, after the pilot's table had been read: they test that it "
        "repeats, not a guess made blind.",
    ),
)
