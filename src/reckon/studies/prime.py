r"""Section 5 A of the specification prime: Cui et al. 2025 (arXiv:2502.01456), chains of sums and a table of 900 cells.

Policy, reward model and reference are tables of logits; everything else is what trains a language model: the accuracy
band and its refills, the implicit reward that learns online, credit by stream, the clipped ratio. Chances of success
are exact, and every arm of a seed draws the same random numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

from reckon.studies._claims import ByArm, Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json, Reward, Rng, Rollouts, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.credit import Streamwise
    from reckon.models import Optimization
    from reckon.rewards import Sum
    from reckon.studies._prime_world import ChainPolicy, Chains

PROMPTS, ANSWERS = 32, 4  # a step, after the filter
ROUNDS = 8  # draws of 32 prompts for one batch, at most
POSED = 4000  # different prompts
SLOW, FAST, LEARNER = 0.02, 0.05, 0.05  # Adam: the policy, the faster policy, the reward model
BEFOREHAND = 100  # batches of 32 x 4 responses of the start that a pre-trained reward model has learned from
PROBED, EVERY = 64, 10  # prompts behind a measured AUC; steps between two of them
POINTS = 20  # of a curve


def cell(settings: Settings, seed: int) -> Measured:
    """One run; what the table can do on the way, computed exactly."""
    from reckon.losses import ClippedRatio
    from reckon.samplers import AccuracyBand, All, Uniform
    from reckon.studies._prime_world import chance_of_success
    from reckon.train import take_step
    from reckon.types import Parts, Refill

    operations, steps = cast("int", settings["operations"]), cast("int", settings["steps"])
    root = Rng((seed, "prime", operations))
    task, policy = _world(seed, operations, cast("float", settings["right"]), cast("float", settings["rate"]))
    judge = _process(settings, policy, seed)
    parts = Parts(
        sampler=Uniform(task),
        keep=AccuracyBand() if settings["filter"] else All(),
        reward=_reward(judge),
        advantage=_advantage(settings),
        objective=ClippedRatio(average="tokens"),
        refill=Refill(rounds=ROUNDS) if settings["filter"] else Refill(),
    )

    success, generated, auc, ratio = [chance_of_success(policy.logits, operations)], [0.0], list[float](), list[float]()
    for step in range(steps):
        if step % EVERY == 0:
            auc.append(_auc(judge, policy, task, root.child("probe", step)))
        done = take_step(policy, task, parts, root.child(step), step=step, prompts=PROMPTS, answers=ANSWERS)
        success.append(chance_of_success(policy.logits, operations))
        generated.append(generated[-1] + done.metrics["rollouts/generated"])
        ratio.append(done.metrics.get("reward/process/ratio", float("nan")))
    auc.append(_auc(judge, policy, task, root.child("probe", steps)))
    return _measured(settings, success, generated, auc, ratio)


def _measured(
    settings: Settings, success: list[float], generated: list[float], auc: list[float], ratio: list[float]
) -> Measured:
    import numpy as np

    steps = len(success) - 1
    budget = PROMPTS * ANSWERS * steps  # what a run without the filter generates
    every_step = [steps * i / POINTS for i in range(POINTS + 1)]
    by_update = np.interp(every_step, range(steps + 1), success)
    by_rollout = np.interp([budget * i / POINTS for i in range(POINTS + 1)], generated, success)
    panel = cast("str | None", settings["panel"])
    curves = {
        "percent of the updates, or of so many generated rollouts": [100 * i / POINTS for i in range(POINTS + 1)],
        f"{panel}: chance of success by updates": by_update.tolist(),
        f"{panel}: chance of success by generated rollouts": by_rollout.tolist(),
    }
    return Measured(
        metrics={
            "end": success[-1],
            "mean": float(np.mean(success[1:])),
            "at equal rollouts": float(by_rollout[-1]),
            "generated": generated[-1],
            "auc at first": auc[0],
            "auc at last": auc[-1],
            "ratio": float(np.mean(ratio)),
        },
        curves=curves if panel else {},
    )


def _process(settings: Settings, policy: ChainPolicy, seed: int) -> Reward | None:
    """The process reward of an arm."""
    from reckon.rewards import OnlineImplicitReward
    from reckon.studies._prime_world import ChainPolicy, ExactSteps

    kind = settings["process"]
    if kind == "nothing":
        return None
    if kind == "oracle":
        return ExactSteps()
    begins = policy
    if kind == "pre-trained":
        operations, right = cast("int", settings["operations"]), cast("float", settings["right"])
        begins = ChainPolicy(_pre_trained(seed, operations, right, cast("int", settings["beforehand"])), _adam(LEARNER))
    return OnlineImplicitReward(
        begins,
        policy.reference() if settings["against"] == "initial" else None,
        optimizer=_adam(LEARNER),
        update=settings["update"],  # type: ignore[arg-type]
        against=settings["against"],  # type: ignore[arg-type]
        normalize=settings["normalize"],  # type: ignore[arg-type]
    )


@lru_cache(maxsize=2)
def _pre_trained(seed: int, operations: int, right: float, batches: int) -> Tensor:
    """[10, 9, 10]: a reward model that has learned from responses of the start, drawn for it alone and not filtered."""
    from reckon.rewards import OnlineImplicitReward
    from reckon.samplers import All, Uniform, collect

    task, policy = _world(seed, operations, right, 0.0)
    reward, sampler = OnlineImplicitReward(policy, policy.reference(), optimizer=_adam(LEARNER)), Uniform(task)

    def verify(rollouts: Rollouts) -> tuple[Verdict, ...]:
        return tuple(task.check(rollouts.problem(row), text) for row, text in enumerate(rollouts.text))

    for number in range(batches):
        rng = Rng((seed, "prime", operations, "beforehand", number))
        batch = collect(sampler, policy, verify, All(), PROMPTS, ANSWERS, rng, step=number)
        reward.assess(batch, rng.child("reward"))
    return cast("ChainPolicy", reward.model).logits.detach()


@lru_cache(maxsize=2)
def _task(seed: int, operations: int) -> Chains:
    from reckon.studies._prime_world import Chains

    return Chains(seed, operations=operations, train=POSED, test=PROBED)


def _world(seed: int, operations: int, right: float, rate: float) -> tuple[Chains, ChainPolicy]:
    """The task, and the policy that training begins with."""
    from reckon.studies._prime_world import ChainPolicy, start_table

    return _task(seed, operations), ChainPolicy(
        start_table(right, Rng((seed, "prime", operations, "start"))), _adam(rate)
    )


def _reward(judge: Reward | None) -> Sum:
    from reckon.rewards import Sum, Verifier

    parts: dict[str, Reward] = {"correct": Verifier()}
    return Sum(parts if judge is None else parts | {"process": judge})


def _advantage(settings: Settings) -> Streamwise:
    from reckon.credit import Streamwise

    given = {"process": cast("float", settings["weight"])} if settings["process"] != "nothing" else {}
    own = {"form": settings["form"]} if settings["estimator"] == "rloo" else {}
    if settings["estimator"] == "grpo":
        own = {"token_std": settings["token_std"]}
    return Streamwise(estimator=settings["estimator"], weights=given, whiten=True, **own)  # type: ignore[arg-type]


def _auc(judge: Reward | None, policy: ChainPolicy, task: Chains, rng: Rng) -> float:
    """How well the model's log-ratios tell valid steps from others in responses the policy writes now."""
    from reckon.evaluate import auc
    from reckon.rewards import OnlineImplicitReward
    from reckon.studies._prime_world import valid_steps

    if not isinstance(judge, OnlineImplicitReward):
        return float("nan")
    seq = policy.sample(task.problems("test"), ANSWERS, rng).seq
    reference = judge.policy if judge.reference is None else judge.reference
    ours, theirs = judge.model.outputs(seq).logprobs, reference.outputs(seq).logprobs
    assert ours is not None
    assert theirs is not None
    return auc((ours - theirs).flatten().double().numpy(), valid_steps(seq).flatten().double().numpy())


def _adam(rate: float) -> Optimization:
    from reckon.models import Optimization

    return Optimization(lr=rate, beta2=0.999, clip=None)


def _arm(process: str = "nothing", **changes: Json) -> dict[str, Json]:
    """The settings of an arm of six operations."""
    return {
        "process": process,
        "operations": 6,
        "right": 0.75,
        "steps": 100,
        "rate": SLOW,
        "estimator": "rloo",
        "form": "code",
        "token_std": False,
        "weight": 1.0,
        "update": "before",
        "against": "initial",
        "normalize": "batch",
        "beforehand": BEFOREHAND,
        "filter": True,
        "panel": None,
        **changes,
    }


_RLOO, _ORACLE, _BEFORE, _AFTER = "RLOO, outcome only", "oracle step reward", "PRIME, before", "PRIME, after"
_PAPER, _POLICY, _RAW = "PRIME, paper's form", "PRIME, policy as reference", "PRIME, not normalized, weight 3"
_ONLINE, _FROZEN, _PRE_RAW = "pre-trained, online", "pre-trained, frozen", "pre-trained, not normalized, weight 3"
_GRPO, _GRPO_PRIME, _GRPO_STD = "GRPO, outcome only", "GRPO + PRIME", "GRPO + PRIME, std of tokens"
_REINFORCE, _REINFORCE_PRIME, _VALUE = "REINFORCE, outcome only", "REINFORCE + PRIME", "PRM as value"
_FAST_RLOO, _FAST_PRIME = "RLOO, faster policy", "PRIME, faster policy"
_ALL_RLOO, _ALL_PRIME = "RLOO, no filter", "PRIME, no filter"
_RAW_SETTINGS: dict[str, Json] = {"normalize": "none", "weight": 3.0}

# Arm: what it changes, and the pilot's numbers: difference to outcome only at the end and in the mean; "" = none.
_RUNS: dict[str, tuple[dict[str, Json], tuple[str, str]]] = {
    _RLOO: (_arm(panel="6 operations"), ("0.645", "0.408")),
    _ORACLE: (_arm("oracle", panel="6 operations"), ("+0.066", "+0.060")),
    _BEFORE: (_arm("online", panel="6 operations"), ("+0.035", "+0.017")),
    _AFTER: (_arm("online", update="after"), ("+0.034", "+0.013")),
    _PAPER: (_arm("online", form="paper"), ("+0.033", "+0.017")),
    _POLICY: (_arm("online", against="policy"), ("+0.026", "+0.009")),
    _RAW: (_arm("online", panel="6 operations", **_RAW_SETTINGS), ("+0.045", "+0.022")),
    _ONLINE: (_arm("pre-trained", panel="6 operations"), ("+0.037", "+0.026")),
    _FROZEN: (_arm("pre-trained", update="none", panel="6 operations"), ("+0.019", "+0.019")),
    _PRE_RAW: (_arm("pre-trained", panel="6 operations", **_RAW_SETTINGS), ("-0.097", "-0.035")),
    _GRPO: (_arm(estimator="grpo"), ("", "")),
    _GRPO_PRIME: (_arm("online", estimator="grpo"), ("+0.031 to GRPO", "")),
    _GRPO_STD: (_arm("online", estimator="grpo", token_std=True), ("+0.025 to GRPO", "")),
    _REINFORCE: (_arm(estimator="reinforce"), ("", "")),
    _REINFORCE_PRIME: (_arm("online", estimator="reinforce"), ("+0.031 to REINFORCE", "")),
    _VALUE: (_arm("online", estimator="value", normalize="none"), ("+0.002 to REINFORCE", "")),
    _FAST_RLOO: (_arm(rate=FAST), ("0.814", "0.501")),
    _FAST_PRIME: (_arm("online", rate=FAST), ("0.804", "0.507")),
    _ALL_RLOO: (_arm(filter=False, panel="6 operations"), ("0.588", "")),
    _ALL_PRIME: (_arm("online", filter=False, panel="6 operations"), ("", "")),
}
_LONG = {"operations": 12, "right": 0.85, "steps": 120, "panel": None}
_LONG_PILOT = {
    _RLOO: ("0.697", "0.419"),
    _ORACLE: ("+0.064", "+0.074"),
    _BEFORE: ("+0.032", "+0.017"),
    _AFTER: ("+0.028", "+0.010"),
    _POLICY: ("+0.018", "+0.003"),
    _RAW: ("+0.052", "+0.030"),
    _ONLINE: ("+0.041", "+0.032"),
    _FROZEN: ("+0.013", "+0.018"),
    _PRE_RAW: ("-0.221", "-0.098"),
}


def _long(arm: str) -> str:
    return f"12 operations: {arm}"


def _more(metric: str, arm: str, other: str, least: float) -> Effect:
    return less(arm, other, metric, least=least)


def _alike(metric: str, arm: str, other: str, within: float) -> Effect:
    return less(arm, other, metric, within=within)


def _gain(found: ByArm, arm: str, long: bool) -> float:
    arm, base = (_long(arm), _long(_RLOO)) if long else (arm, _RLOO)
    return found[arm]["end"] - found[base]["end"]


def _share_of_oracle(long: bool) -> tuple[Effect, Effect]:
    where = "12 operations" if long else "6 operations"
    return (
        Effect(
            says=f"{where}, end: gain of PRIME, before less a quarter of the oracle's",
            of=lambda found: _gain(found, _BEFORE, long) - 0.25 * _gain(found, _ORACLE, long),
        ),
        Effect(
            says=f"{where}, end: three quarters of the oracle's gain less that of PRIME, before",
            of=lambda found: 0.75 * _gain(found, _ORACLE, long) - _gain(found, _BEFORE, long),
        ),
    )


def _both(metric: str, arm: str, other: str, least: float) -> tuple[Effect, Effect]:
    return _more(metric, arm, other, least), _more(metric, _long(arm), _long(other), least)


CLAIMS = (
    Claim(
        says="The reward model that learns online beats the outcome alone",
        effects=(*_both("end", _BEFORE, _RLOO, 0.02), *_both("end", _AFTER, _RLOO, 0.02)),
    ),
    Claim(says="It does so on the way there too", effects=_both("mean", _BEFORE, _RLOO, 0.005)),
    Claim(
        says="With GRPO and REINFORCE as well",
        effects=(_more("end", _GRPO_PRIME, _GRPO, 0.02), _more("end", _REINFORCE_PRIME, _REINFORCE, 0.02)),
    ),
    Claim(
        says="It earns about half of what the true step errors would",
        effects=(*_share_of_oracle(False), *_share_of_oracle(True)),
    ),
    Claim(
        says="As a reward it does more than as a value",
        effects=(_more("end", _REINFORCE_PRIME, _VALUE, 0.01),),
    ),
    Claim(
        says="Online beats frozen",
        effects=_both("end", _ONLINE, _FROZEN, 0.01),
    ),
    Claim(
        says="Frozen, the reward model gets worse on what the policy writes; online it learns the steps from nothing",
        effects=(
            Effect(
                says="AUC of steps, first less last: pre-trained, frozen",
                of=lambda found: found[_FROZEN]["auc at first"] - found[_FROZEN]["auc at last"],
                least=0.02,
            ),
            Effect(
                says="AUC of steps at the end less 0.95: PRIME, before",
                of=lambda found: found[_BEFORE]["auc at last"] - 0.95,
            ),
        ),
    ),
    Claim(
        says="Before or after the scores are taken is about the same",
        effects=(_alike("end", _BEFORE, _AFTER, 0.02), _alike("end", _long(_BEFORE), _long(_AFTER), 0.02)),
    ),
    Claim(
        says="The paper's form and the code's are about the same",
        effects=(_alike("end", _PAPER, _BEFORE, 0.02),),
    ),
    Claim(
        says="The policy as its own reference still beats the outcome alone",
        effects=_both("end", _POLICY, _RLOO, 0.01),
    ),
    Claim(
        says="Not normalized it gains more while the model grows, and does harm where it is sure from the start",
        effects=(*_both("end", _RAW, _BEFORE, 0.005), *_both("end", _RLOO, _PRE_RAW, 0.05)),
    ),
    Claim(
        says="With a faster policy the gain is gone",
        effects=(_alike("end", _FAST_PRIME, _FAST_RLOO, 0.02),),
    ),
    Claim(
        says="At equal generated rollouts training without the filter is ahead",
        effects=(
            _more("at equal rollouts", _ALL_RLOO, _BEFORE, 0.05),
            _more("at equal rollouts", _ALL_PRIME, _BEFORE, 0.05),
        ),
    ),
    Claim(
        says="A reward is reached with 2.5 times fewer steps; 15 points in seven benchmarks of mathematics and code",
        why="figures of language models of 7B parameters",
    ),
)
_SAYS = {
    "end": "chance of success at the end",
    "mean": "mean chance of success on the way",
    "at equal rollouts": "chance of success at as many generated rollouts as a run without the filter has",
    "generated": "generated rollouts",
    "ratio": "size of a token's process return over that of an outcome, mean",
    "auc at first": "AUC of steps at first",
    "auc at last": "AUC of steps at the end",
}


def _rows() -> tuple[Row, ...]:
    rows = []
    pilots = {arm: pilot for arm, (_, pilot) in _RUNS.items()} | {_long(arm): p for arm, p in _LONG_PILOT.items()}
    for arm, (end, mean) in pilots.items():
        rows.append(Row(arm=arm, metric="end", says=_SAYS["end"], pilot=end))
        rows.append(Row(arm=arm, metric="mean", says=_SAYS["mean"], pilot=mean))
    for arm in (_RLOO, _BEFORE, _ALL_RLOO, _ALL_PRIME):
        rows += [Row(arm=arm, metric=name, says=_SAYS[name]) for name in ("at equal rollouts", "generated")]
    for arm, first, last in ((_BEFORE, "0.5", "> 0.97"), (_ONLINE, "", ""), (_FROZEN, "0.87", "0.83")):
        rows.append(Row(arm=arm, metric="auc at first", says=_SAYS["auc at first"], pilot=first))
        rows.append(Row(arm=arm, metric="auc at last", says=_SAYS["auc at last"], pilot=last))
    rows += [Row(arm=arm, metric="ratio", says=_SAYS["ratio"]) for arm in (_BEFORE, _RAW, _PRE_RAW, _long(_PRE_RAW))]
    return tuple(rows)


STUDY = Study(
    name="prime",
    title="PRIME: an implicit process reward that learns online",
    source="Cui et al. 2025, Process Reinforcement through Implicit Rewards, arXiv:2502.01456; chains of sums, exact.",
    arms={arm: settings for arm, (settings, _) in _RUNS.items()}
    | {_long(arm): {**_RUNS[arm][0], **_LONG} for arm in _LONG_PILOT},
    seeds=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    fast={"steps": 2, "beforehand": 2},
    cell=cell,
    claims=CLAIMS,
    rows=_rows(),
    axis="percent of the updates, or of so many generated rollouts",
    notes=(
        "Pilot numbers with a sign are differences to the outcome alone; here every arm stands with its own number.",
        "One policy step and one step of the reward model for each batch of 32 prompts with 4 responses; advantages "
        "are whitened in every arm; no step labels are used but by the oracle.",
        "The specification does not say how its pre-trained reward model was made. Here it has learned from "
        "100 batches of 32 x 4 responses of the start, without the filter.",
        "By generated rollouts, 100 percent are 128 for each update: what a run without the filter generates. Runs "
        "with it generate more for an update, so that they have made fewer updates there.",
        "Only the reward model's own log-ratios are measured by the AUC, on 64 x 4 fresh responses every 10 steps.",
        "The rules were committed before the first run, after the pilot's table had been read: they test that it "
        "repeats, not a guess made blind.",
    ),
)
