"""Section 5 B of the specification prime: Cui et al. 2025 (arXiv:2502.01456) on a transformer of two layers.

The task of the study prime as text: six digits added modulo 10, one by one. A small language model is shown right
solutions until three steps of four that it writes are valid, and goes on from there by reinforcement, with rewards for
outcomes alone or with those that an implicit process reward model has for every token. Arms are recipes, and each is
trained by the one loop.

Equal effort of tuning: the policy's rate is the best of 1e-4, 3e-4 and 1e-3 for the outcome alone, and all arms have
it; the reward model's rate is the best of three for "PRIME, after" with that policy. Both were chosen by the mean
accuracy on dev on the way, with seed 100, which the study does not use. Weights and warm-ups are those of the
specification and of recipes/prime.yaml, as they stood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from reckon.studies._claims import Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import Json, Metrics

if TYPE_CHECKING:
    from reckon.models import LanguageModel
    from reckon.rewards import OnlineImplicitReward
    from reckon.studies._language_model import Trained
    from reckon.tasks import ChainArithmetic
    from reckon.types import Parts

EVERY = 10  # steps between two looks at dev problems
LOOKED, TESTED = 4, 8  # samples to a problem of dev and of test
PROBED = 64  # dev problems behind a measured AUC, with LOOKED responses each
POINTS = 12  # of a curve
POLICY, JUDGE = 3e-4, 3e-3  # rates


def cell(settings: Settings, seed: int) -> Measured:
    """Trains one arm by its recipe, with looks at dev on the way, and examines it on the test problems."""
    from reckon.studies import _chain_texts as chains
    from reckon.studies._language_model import exam, run

    task = chains.make_task(seed, cast("int", settings["operations"]), cast("int", settings["posed"]))
    start = chains.make_start(task, cast("int", settings["worked"]), cast("int", settings["passes"]))

    def look(model: LanguageModel, parts: Parts, step: int) -> Metrics:
        found = exam(model, task, seed, split="dev", n=cast("int", settings["looked"]), k=LOOKED)
        judge = judge_of(parts)
        known = {} if judge is None else {"auc": _auc(judge, model, task, seed, step)}
        return {f"dev/{name}": value for name, value in (found | known).items()}

    done = run(recipe_of(settings, task), start, seed, examine=look, every=EVERY)
    final = exam(done.model, task, seed, split="test", n=cast("int", settings["tested"]), k=TESTED)
    return _measured(settings, done, final)


def recipe_of(settings: Settings, task: ChainArithmetic) -> dict[str, Json]:
    """An arm as a recipe: PRIME's parts, of which only the process reward, the filter and the weight are changed."""
    from reckon.studies import _chain_texts as chains

    recipe: dict[str, Json] = {
        "method": {"kind": "prime", "update": settings["update"], "lr": settings["judge lr"]},
        "task": chains.task_settings(task),
        "optimizer": {"lr": settings["lr"]},
        **{name: settings[name] for name in ("steps", "prompts", "answers")},
    }
    if settings["process"] == "online":
        recipe["reward"] = {"process": {"normalize": settings["normalize"], "warmup": settings["warmup"]}}
    else:  # a mapping in which one has a kind is the whole list
        errors: dict[str, Json] = {"process": {"kind": f"{chains.__file__}:StepErrors"}}
        recipe["reward"] = {"correct": "verifier", **(errors if settings["process"] == "errors" else {})}
    if settings["process"] != "nothing":
        recipe["advantage"] = {"weights": {"process": settings["weight"]}}
    if not settings["filter"]:
        recipe |= {"keep": "all", "refill": {"rounds": 1}}
    return recipe


def judge_of(parts: Parts) -> OnlineImplicitReward | None:
    """The reward model of a run that has one."""
    from reckon.rewards import OnlineImplicitReward, Sum

    judge = cast("Sum", parts.reward).parts.get("process")
    return judge if isinstance(judge, OnlineImplicitReward) else None


def _auc(judge: OnlineImplicitReward, model: LanguageModel, task: ChainArithmetic, seed: int, step: int) -> float:
    """How well log-ratios where steps begin tell valid ones from others in what the policy writes now."""
    import numpy as np

    from reckon.evaluate import auc
    from reckon.studies._chain_texts import answers_of, judged_steps
    from reckon.types import Rng

    batch = answers_of(model, task, PROBED, LOOKED, Rng((seed, "probe", step)))
    assert judge.reference is not None
    ours, theirs = judge.model.outputs(batch.seq).logprobs, judge.reference.outputs(batch.seq).logprobs
    assert ours is not None
    assert theirs is not None
    steps = judged_steps(task, batch.rollouts)
    told = [float(ours[row, token] - theirs[row, token]) for row, token, _ in steps]
    return auc(np.array(told), np.array([float(valid) for _, _, valid in steps]))


def _measured(settings: Settings, done: Trained, final: Metrics) -> Measured:
    import numpy as np

    steps, batch = cast("int", settings["steps"]), cast("int", settings["prompts"]) * cast("int", settings["answers"])
    seen, spent = done.curve("dev/sampled"), done.total("tokens/generated")
    # Full responses of so many operations, end token included: what a run without the filter generates.
    budget = steps * batch * 2 * cast("int", settings["operations"])
    share = [i / POINTS for i in range(POINTS + 1)]
    looks, values = list(seen), list(seen.values())
    by_update = np.interp([steps * part for part in share], looks, values)
    by_token = np.interp([budget * part for part in share], [spent[step] for step in looks], values)
    computed = [value for line in done.lines for name, value in line.items() if name.startswith("computed/")]
    found = final | {
        "start": values[0],
        "mean": float(np.mean(values[1:])),
        "at equal tokens": float(by_token[-1]),
        "generated": spent[steps],
        "computed": sum(computed),
    }
    if settings["process"] == "online":
        ranked = done.curve("dev/auc")
        found |= {"auc at first": ranked[0], "auc at last": ranked[steps]}
    panel = "with the filter" if settings["filter"] else "without it"
    curves = {
        "percent of the updates, or of so many generated tokens": [100 * part for part in share],
        f"dev accuracy by updates, {panel}": by_update.tolist(),
        f"dev accuracy by generated tokens, {panel}": by_token.tolist(),
    }
    return Measured(metrics=found, curves=curves)


def _arm(process: str = "nothing", **changes: Json) -> dict[str, Json]:
    return {
        "process": process,
        "operations": 6,
        "posed": 4000,
        "worked": 2000,
        "passes": 10,
        "steps": 60,
        "prompts": 32,
        "answers": 4,
        "looked": 100,
        "tested": 300,
        "lr": POLICY,
        "judge lr": JUDGE,
        "update": "after",
        "normalize": "batch",
        "weight": 1.0,
        "warmup": 0,
        "filter": True,
        **changes,
    }


RLOO, ORACLE, AFTER, BEFORE = "RLOO, outcome only", "oracle step reward", "PRIME, after", "PRIME, before"
RAW, EASED = "PRIME, not normalized, weight 3", "PRIME, eased in, weight 0.3"
ALL_RLOO, ALL_PRIME = "RLOO, no filter", "PRIME, no filter"

ARMS: dict[str, dict[str, Json]] = {
    RLOO: _arm(),
    ORACLE: _arm("errors"),
    AFTER: _arm("online"),
    BEFORE: _arm("online", update="before"),
    RAW: _arm("online", normalize="none", weight=3.0),
    EASED: _arm("online", warmup=30, weight=0.3),
    ALL_RLOO: _arm(filter=False),
    ALL_PRIME: _arm("online", filter=False),
}


def _more(metric: str, arm: str, other: str, least: float) -> Effect:
    return less(arm, other, metric, least=least)


CLAIMS = (
    Claim(
        says="The reward model that learns online beats the outcome alone",
        effects=(_more("sampled", AFTER, RLOO, 0.02),),
    ),
    Claim(
        says="With an equal say from the first step, when it knows nothing, it ruins the policy (seen on seed 100)",
        effects=(_more("sampled", RLOO, AFTER, 0.1),),
    ),
    Claim(
        says="Eased in and with a smaller say it beats the outcome alone",
        effects=(_more("sampled", EASED, RLOO, 0.02),),
    ),
    Claim(says="It does so on the way there too", effects=(_more("mean", AFTER, RLOO, 0.01),)),
    Claim(
        says="True step errors as rewards beat the outcome alone, so that there is something to be had",
        effects=(_more("sampled", ORACLE, RLOO, 0.02), _more("mean", ORACLE, RLOO, 0.01)),
    ),
    Claim(
        says="The reward model learns which steps are valid, from nothing and without a label of a step",
        effects=(
            Effect(
                says=f"AUC of steps at first less 0.5: {AFTER}",
                of=lambda found: found[AFTER]["auc at first"] - 0.5,
                within=1e-9,
            ),
            Effect(
                says=f"AUC of steps at the end less 0.5: {AFTER}",
                of=lambda found: found[AFTER]["auc at last"] - 0.5,
                least=0.2,
            ),
        ),
    ),
    Claim(
        says="Before or after the scores are taken is about the same",
        effects=(
            Effect(
                says=f"sampled: {BEFORE} less {AFTER}",
                of=lambda found: found[BEFORE]["sampled"] - found[AFTER]["sampled"],
                within=0.05,
            ),
        ),
    ),
    Claim(
        says="Eased in and with a smaller say it does more, as recipes/prime.yaml found",
        effects=(_more("sampled", EASED, AFTER, 0.02),),
    ),
    Claim(
        says="Not normalized, so that it says the more the surer it is, it does more, as on the table",
        effects=(_more("sampled", RAW, AFTER, 0.005),),
    ),
    Claim(
        says="At equal generated tokens training without the filter is ahead, as on the table",
        effects=(
            _more("at equal tokens", ALL_RLOO, RLOO, 0.02),
            _more("at equal tokens", ALL_PRIME, AFTER, 0.02),
        ),
    ),
    Claim(
        says="For as many updates it passes at least a fifth more tokens through models (the paper: 24 % more time)",
        effects=(
            Effect(
                says=f"tokens computed: {AFTER} over {RLOO}, less 1",
                of=lambda found: found[AFTER]["computed"] / found[RLOO]["computed"] - 1,
                least=0.2,
            ),
        ),
    ),
    Claim(
        says="A reward is reached with 2.5 times fewer steps; 15 points in seven benchmarks of mathematics and code",
        why="figures of language models of 7B parameters",
    ),
)

_SAYS = {
    "start": "dev accuracy of samples before the first step",
    "sampled": "test accuracy of samples at the end",
    "greedy": "test accuracy of the likeliest answers at the end",
    f"pass@{TESTED}": f"test pass@{TESTED} at the end",
    "steps right": "share of valid steps in samples of the test problems",
    "mean": "mean dev accuracy of samples on the way",
    "at equal tokens": "dev accuracy at as many generated tokens as a run without the filter has",
    "generated": "tokens generated",
    "computed": "tokens passed through policy, reward model and reference",
    "surprise": "entropy of a token at the end, nats",
}
_JUDGED = {"auc at first": "AUC of steps at first", "auc at last": "AUC of steps at the end"}


def _rows() -> tuple[Row, ...]:
    rows = [Row(arm=RLOO, metric="start", says=_SAYS["start"])]
    rows += [Row(arm=arm, metric=name, says=says) for name, says in _SAYS.items() if name != "start" for arm in ARMS]
    online = [arm for arm, settings in ARMS.items() if settings["process"] == "online"]
    return (*rows, *(Row(arm=arm, metric=name, says=says) for name, says in _JUDGED.items() for arm in online))


STUDY = Study(
    name="prime-transformer",
    title="PRIME on a small transformer: an implicit process reward that learns online",
    source="Cui et al. 2025, Process Reinforcement through Implicit Rewards, arXiv:2502.01456; chains of sums as text.",
    arms=ARMS,
    seeds=(0, 1, 2),
    fast={
        "operations": 4,
        "posed": 320,
        "worked": 320,
        "passes": 10,
        "steps": 2,
        "prompts": 4,
        "answers": 4,
        "looked": 8,
        "tested": 8,
    },
    cell=cell,
    claims=CLAIMS,
    rows=_rows(),
    axis="percent of the updates, or of so many generated tokens",
    notes=(
        "All arms of a seed begin at the same weights, are posed the same problems and draw the same random numbers. "
        "The start imitates right solutions and is taken as soon as three of four steps that it samples for dev "
        "problems are valid, so that its errors are those of a model that has half understood, where the table's are "
        "noise.",
        "One policy step and one step of the reward model for each batch of 32 prompts with 4 responses; the filter "
        "keeps groups with 1, 2 or 3 of 4 right and draws up to 8 times for a batch. Advantages are whitened in every "
        "arm. No step labels are used but by the oracle, whose reward is -1 for every step that does not follow.",
        "Tuning, equal for both sides: the policy's rate is the best of 1e-4, 3e-4 and 1e-3 for the outcome alone and "
        "holds for all arms; the reward model's is the best of three for PRIME, after. By mean dev accuracy on the "
        "way, on seed 100, which the study does not use. Weight 3, warm-up 30 and weight 0.3 are as they were found.",
        "By generated tokens, 100 percent are 60 x 128 full responses, which is what a run without the filter "
        "generates. Runs with it generate more for an update, so that they have made fewer updates there.",
        "Rows and claims of accuracy on the way are of 100 dev problems with 4 samples each, every 10 steps; those at "
        "the end of 300 test problems with 8. The AUC is of log-ratios where steps begin, on 64 x 4 fresh responses.",
        "The rules were committed before the run, after the table's results were known and after the runs on seed 100 "
        "that chose the rates.",
    ),
)
