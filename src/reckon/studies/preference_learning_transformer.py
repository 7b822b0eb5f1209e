"""Section 5, E3, of the specification preference-learning: a small transformer that copies, sorts and reverses digits.

Ivison et al. 2024 (arXiv:2406.09279) find fine-grained labels (the mean of several aspects' scores) better than one
score for all, and data more telling than the choice between DPO and PPO. Here four data sets meet both algorithms, on
text: pairs fitted by `reckon.fit`, PPO by a recipe in the one loop, paid by a reward model learned from the same pairs.

Tuning: on seed 100, which the study does not use, on dev prompts, with fine labels alone. At a rate of 3e-4 both went
too far within the 128 steps and lost gold again, DPO at 3e-5 had not arrived; both have 1e-4, at which PPO was not
looked at, and both a price of divergence of 0.1, DPO's beta and PPO's kl, which was not tuned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from reckon.studies._claims import ByArm, Claim, Effect, less
from reckon.studies._digit_texts import ASPECTS
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.studies.preference_learning_grid import (
    LEVELS,
    at_divergence,
    at_equal_divergence,
    spread_at_equal_divergence,
)
from reckon.types import Json, Split

if TYPE_CHECKING:
    from reckon.models import LanguageModel

STEPS = 128
LOOKS = 4  # points of a curve beside the first


def cell(settings: Settings, seed: int) -> Measured:
    """One arm: pairs, what is learned from them, and what the responses to other prompts are worth on the way."""
    from reckon.studies import _digit_learn as learn

    size = learn.Size(**{name: cast("int", settings[name]) for name in ("shown", "passes", "pairs", "asked")})
    world, split = learn.make_world(size, seed), cast("Split", settings["split"])
    pairs = learn.draw_preferences(world, cast("learn.Data", settings["data"]))
    steps, price, rate = (cast("float", settings[name]) for name in ("steps", "price", "rate"))
    looks = sorted({max(1, int(steps * (i + 1) / LOOKS)) for i in range(LOOKS)})
    points = [{"step": 0.0, **learn.measure(world, world.reference, split)}]

    def look(model: LanguageModel, step: int) -> None:
        points.append({"step": float(step), **learn.measure(world, model, split)})

    metrics: dict[str, float] = {}
    if settings["algorithm"] == "dpo":
        learn.learn_by_dpo(world, pairs, price, rate, looks, look)
    else:
        judge = learn.learn_reward(world, pairs)
        learn.learn_by_ppo(world, judge, price, rate, cast("int", settings["prompts"]), looks, look)
        metrics["accuracy"] = learn.judge_accuracy(world, judge, split)
    names = ("gold", *ASPECTS, "KL", "length")
    metrics |= {name: points[-1][name] for name in names}
    metrics |= {f"{name} at first": points[0][name] for name in names if name != "KL"}
    metrics |= {f"gold at {level:g} nats": at_divergence(points, level) for level in LEVELS}
    return Measured(metrics=metrics, curves={name: [point[name] for point in points] for name in ("step", *names)})


_DPO, _PPO = "DPO", "PPO"
DATA = ("fine", "overall", "off-policy", "flipped")
_FINE, _OVERALL, _OFF, _FLIPPED = DATA


def _arm(algorithm: str, data: str) -> dict[str, Json]:
    world: dict[str, Json] = {"shown": 6000, "passes": 4, "pairs": 1024, "asked": 200, "prompts": 32, "split": "test"}
    return {"algorithm": algorithm, "data": data, "price": 0.1, "rate": 1e-4, "steps": STEPS, **world}


def _name(algorithm: str, data: str) -> str:
    return f"{algorithm}, {data}"


ARMS = {_name(algorithm, data): _arm(algorithm.lower(), data) for algorithm in (_DPO, _PPO) for data in DATA}

METRICS = {
    "gold": f"gold score after {STEPS} steps",
    "order": "order",
    "content": "content",
    "format": "format",
    "brevity": "brevity",
    "KL": "KL, nats a response",
    "length": "tokens a response",
    "accuracy": "accuracy of the reward model",
}


def _less(arm: str, other: str, least: float = 0.0, metric: str = "gold") -> Effect:
    return less(arm, other, metric, says=METRICS[metric], least=least)


def _both(data: str, other: str, least: float) -> tuple[Effect, ...]:
    return tuple(_less(_name(algorithm, data), _name(algorithm, other), least) for algorithm in (_DPO, _PPO))


def _gains(arm: str) -> Effect:
    return Effect(
        says=f"{METRICS['gold']} less that at first: {arm}",
        of=lambda found: found[arm]["gold"] - found[arm]["gold at first"],
        least=0.03,
    )


def spread_of_data(found: ByArm) -> float:
    """Best less worst data set in gold, the mean of both algorithms."""
    golds = [[found[_name(algorithm, data)]["gold"] for data in DATA] for algorithm in (_DPO, _PPO)]
    return sum(max(own) - min(own) for own in golds) / 2


def gap(found: ByArm) -> float:
    """PPO less DPO in gold, the mean over the data sets."""
    return sum(found[_name(_PPO, data)]["gold"] - found[_name(_DPO, data)]["gold"] for data in DATA) / len(DATA)


def gap_at_equal_divergence(found: ByArm) -> float:
    """The same at the largest divergence that both reach."""
    return sum(at_equal_divergence(found, _name(_PPO, data), _name(_DPO, data)) for data in DATA) / len(DATA)


CLAIMS = (
    Claim(
        says="Both algorithms learn from fine-grained labels",
        effects=(_gains(_name(_DPO, _FINE)), _gains(_name(_PPO, _FINE))),
    ),
    Claim(
        says="Fine-grained labels, the mean of four scores, beat one noisy score",
        effects=(*_both(_FINE, _OVERALL, 0.01), _less(_name(_PPO, _FINE), _name(_PPO, _OVERALL), 0.02, "accuracy")),
    ),
    Claim(says="They beat the same labels with 30% turned round", effects=_both(_FINE, _FLIPPED, 0.02)),
    Claim(says="Pairs of the policy's own responses beat pairs of somebody else's", effects=_both(_FINE, _OFF, 0.01)),
    Claim(
        says="Data matter three times as much as the choice between DPO and PPO",
        effects=(
            Effect(
                says="spread over data sets less 3 times the distance of PPO and DPO, at equal steps",
                of=lambda found: spread_of_data(found) - 3 * abs(gap(found)),
            ),
            Effect(
                says="the same, at equal divergence",
                of=lambda found: (
                    spread_at_equal_divergence(found, [[_name(of, data) for data in DATA] for of in (_DPO, _PPO)])
                    - 3 * abs(gap_at_equal_divergence(found))
                ),
            ),
        ),
    ),
    Claim(
        says="PPO beats DPO, most in what can be checked, such as code",
        why="three seeds of one task of four aspects cannot carry a sign; the table has both",
    ),
)


STUDY = Study(
    name="preference-learning-transformer",
    title="Preference learning, E3: four data sets, DPO and PPO, on digits as text",
    source="Ivison et al. 2024, Unpacking DPO and PPO, arXiv:2406.09279; the tiny language model of its specification.",
    arms=ARMS,
    seeds=(0, 1, 2),
    fast={"shown": 256, "passes": 1, "pairs": 32, "asked": 8, "prompts": 2, "steps": 1},
    cell=cell,
    claims=CLAIMS,
    rows=(
        *(
            Row(arm=_name(_DPO, _FINE), metric=f"{metric} at first", says=f"{says}, at first")
            for metric, says in {**METRICS, "gold": "gold score"}.items()
            if metric not in ("KL", "accuracy")
        ),
        *(
            Row(arm=arm, metric=metric, says=says)
            for metric, says in METRICS.items()
            for arm in ARMS
            if metric != "accuracy" or arm.startswith(_PPO)
        ),
    ),
    notes=(
        "The gold score is the mean of order, content, format and brevity, each in [0, 1]: 200 test prompts, four "
        "responses each at temperature 1. KL is a mean log-ratio over the same responses. All arms of a seed share "
        "prompts, start, and the numbers behind responses, noise and flips.",
        "Both algorithms make 128 steps: DPO of 32 pairs, PPO of 32 prompts with four responses each, which are the "
        "pairs' prompts. PPO's reward model is the start with a head, its critic a copy of the start that learns "
        "beside it; the paper's critic begins as the reward model.",
        "`Fine`: the mean of four scores, one an aspect, each with a noise of 0.1. `Overall`: one score with a noise "
        "of 0.3. `Off-policy`: fine labels of responses that a rule wrote which errs more often than what the start "
        "learned from. `Flipped`: fine labels, 30% of the pairs turned round.",
        "At equal divergence means: at the largest multiple of 0.1 nats that both reach, each where it first does, "
        "between two looks in proportion; of data sets, that all four reach.",
        "The specification has no pilot of this part. The rules were committed before the run. On seed 100 the start "
        "had a gold score of 0.73, DPO from fine labels 0.84 after 128 steps and 0.85 after 96, at 3.7 and 1.8 nats; "
        "PPO at three times the rate 0.82 after 64 steps and 0.76 after 128. So DPO was looked at with three rates and "
        "PPO with one, and at the rate it has here, 1e-4, with none. One rule was mended after the run: the spread at "
        "equal divergence was taken at equal steps, and the effect came to -0.003. No verdict changed.",
    ),
)
