r"""Section 5a of the specification surrogate-rewards: Xin et al. 2025 (arXiv:2505.19439) on a table of 16 actions.

An action is a way of answering: with a box or without, in one of eight lengths, each of which finds the right answer
with a probability of its own. Everything else is what trains a language model: GRPO on the rewards of `reckon.rewards`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from reckon.studies._claims import ByArm, Claim, Effect, less
from reckon.studies._study import Measured, Row, Settings, Study
from reckon.types import End, Json, Objective, Problem, Reward, Rng, Split, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.models.table import TablePolicy
    from reckon.rewards import Sum

LIMIT = 100  # tokens; the generation limit and the length reward's l_max
LENGTHS = (3, 10, 20, 30, 45, 60, 80, 100)  # x = length / LIMIT; the last one is cut off
ABILITY = (0.15, 0.35, 0.5, 0.58, 0.62, 0.62, 0.55, 0.0)  # chance of finding the right answer in that many tokens
START = (0.1, 0.15, 0.2, 0.15, 0.1, 0.08, 0.07, 0.15)  # the lengths at the start, in proportion
BOXED = 0.82  # share of responses with a box at the start
GROUPS, ANSWERS = 16, 8  # a step
EVERY = 5  # steps between two points of a curve


class Numbers:
    """Sixteen questions that differ in nothing but their answer: the policy's ability is in its actions."""

    name = "numbers"

    def problems(self, split: Split) -> Sequence[Problem]:
        """The same sixteen in every split: accuracy is computed from the table, not from answers to held-out ones."""
        return [Problem(id=f"{split}-{i}", prompt="Which number?", answer=str(i)) for i in range(GROUPS)]

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right if the last box holds the answer."""
        from reckon.tasks import extract_answer

        answer = extract_answer(text)
        if not answer:
            return Verdict(outcome=0.0, answer=None, reason="no answer")
        right = answer == problem.answer
        return Verdict(outcome=float(right), answer=answer, reason="right" if right else "wrong")


def policy() -> TablePolicy:
    """The table at the start: 70% well-formed, 33% right."""
    import torch

    from reckon.models.table import Action, TablePolicy

    actions, weights = [], []
    for boxed, share in ((False, 1 - BOXED), (True, BOXED)):
        for length, ability, weight in zip(LENGTHS, ABILITY, START, strict=True):
            end = End.LENGTH if length == LIMIT else End.EOS
            actions.append(Action(text=partial(_answer, boxed, ability), length=length, end=end))
            weights.append(share * weight)
    return TablePolicy(actions, torch.tensor(weights).log(), optimizer=partial(torch.optim.SGD, lr=0.5))


def _answer(boxed: bool, ability: float, problem: Problem, luck: float) -> str:
    found = problem.answer if luck < ability else "-1"
    return f"It is \\boxed{{{found}}}." if boxed else f"It is {found}."


def reward(kind: str, p: float) -> Sum:
    """The reward of an arm; `p` is where the length reward peaks, as a share of the limit."""
    from reckon.rewards import Format, FormatLength, Length, Sum, Verifier

    correct, formatted = Verifier(), Format(weight=0.5, require_eos=True)
    longer = Length(l_max=LIMIT, shape="linear")
    parts: dict[str, dict[str, Reward]] = {
        "correctness": {"correct": correct},
        "format": {"format": formatted},
        "format-length": {"format_length": FormatLength(l_max=LIMIT, p=p, weight=0.5, require_eos=True)},
        "length": {"length": Length(l_max=LIMIT, p=p)},
        "correctness+linear": {"correct": correct, "length": longer},
        "format+linear": {"format": formatted, "length": longer},
    }
    return Sum(parts[kind])


def cell(settings: Settings, seed: int) -> Measured:
    """GRPO for some steps; what the table holds on the way, computed exactly."""
    from reckon.credit import GroupNormalized
    from reckon.losses import ClippedRatio, KLPenalty, Objectives
    from reckon.samplers import All, Uniform
    from reckon.train import take_step
    from reckon.types import Parts

    learner, task = policy(), Numbers()
    judges = reward(cast("str", settings["reward"]), cast("float", settings["p"]))
    # Sums over tokens, so that an action's gradient does not depend on its length: a table has no tokens to average.
    terms: dict[str, Objective] = {
        "policy": ClippedRatio(low=0.2, high=0.2, average="constant", length=1),
        "kl": KLPenalty(reference=learner.reference(), coef=0.001, average="constant", length=1),
    }
    parts = Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=judges,
        advantage=GroupNormalized(eps=1e-6),
        objective=Objectives(terms),
    )

    steps = cast("int", settings["steps"])
    seen = [_state(learner.probabilities()[0])]
    for step in range(steps):
        rng = Rng((seed, "surrogate-rewards", step))
        take_step(learner, task, parts, rng, step=step, prompts=GROUPS, answers=ANSWERS)
        seen.append(_state(learner.probabilities()[0]))
    accuracy = [state["accuracy"] for state in seen]
    metrics = {f"accuracy/{at}": accuracy[min(at, steps)] for at in (0, 15, 50, 150)}
    metrics |= {"formatted/150": seen[-1]["formatted"], "x/150": seen[-1]["x"], "accuracy/low": min(accuracy[:51])}
    shown = range(0, steps + 1, EVERY)
    curves = {name: [seen[step][name] for step in shown] for name in ("accuracy", "formatted", "x")}
    return Measured(metrics=metrics, curves={"step": [float(step) for step in shown], **curves})


def _state(law: Tensor) -> dict[str, float]:
    """Accuracy, share of well-formed responses and mean length as a share of the limit, expected under the table."""
    probabilities = law.tolist()
    boxed = probabilities[len(LENGTHS) :]
    ended = [p if length < LIMIT else 0.0 for p, length in zip(boxed, LENGTHS, strict=True)]
    return {
        "accuracy": sum(p * ability for p, ability in zip(ended, ABILITY, strict=True)),
        "formatted": sum(ended),
        "x": sum(p * length / LIMIT for p, length in zip(probabilities, LENGTHS * 2, strict=True)),
    }


def _less(arm: str, other: str, metric: str, least: float = 0.0) -> Effect:
    return less(arm, other, metric, says=METRICS[metric], least=least)


def _longer(arm: str) -> Effect:
    return Effect(
        says=f"{METRICS['x/150']}: {arm} less 0.45, where the latent accuracy peaks",
        of=lambda found: found[arm]["x/150"] - 0.45,
        least=0.2,
    )


def _dips(arm: str) -> Effect:
    return Effect(
        says=f"accuracy at the start less the lowest of the first 50 steps: {arm}",
        of=lambda found: found[arm]["accuracy/0"] - found[arm]["accuracy/low"],
        least=0.005,
    )


METRICS = {
    "accuracy/15": "accuracy at step 15",
    "accuracy/50": "accuracy at step 50",
    "accuracy/150": "accuracy at step 150",
    "formatted/150": "formatted at step 150",
    "x/150": "mean x at step 150",
}
_SURROGATE, _CORRECT, _FORMAT = "format-length, p = 0.5", "correctness", "format only"
_CORRECT_LINEAR, _FORMAT_LINEAR = "correctness + linear length", "format + linear length"
# Arm: its reward, p, and the pilot's numbers in the order of METRICS.
_ARMS: dict[str, tuple[str, float, tuple[str, ...]]] = {
    _CORRECT: ("correctness", 0.5, ("0.39", "", "0.565", "0.98", "0.33")),
    _FORMAT: ("format", 0.5, ("0.40", "", "0.487", "0.99", "0.22")),
    _SURROGATE: ("format-length", 0.5, ("0.44", "", "0.619", "1.00", "0.45")),
    "length only": ("length", 0.5, ("0.42", "", "0.618", "1.00", "0.45")),
    _CORRECT_LINEAR: ("correctness+linear", 0.5, ("0.34", "0.385", "0.544", "0.99", "0.79")),
    _FORMAT_LINEAR: ("format+linear", 0.5, ("0.33", "", "0.549", "1.00", "0.80")),
    "format-length, p = 0.25": ("format-length", 0.25, ("0.43", "", "0.579", "1.00", "0.30")),
    "format-length, p = 0.1": ("format-length", 0.1, ("0.41", "", "0.350", "1.00", "0.10")),
    "format-length, p = 0.75": ("format-length", 0.75, ("0.43", "", "0.619", "1.00", "0.60")),
}


def _settings(kind: str, p: float) -> dict[str, Json]:
    return {"reward": kind, "p": p, "steps": 150}


STUDY = Study(
    name="surrogate-rewards",
    title="Surrogate rewards: format and length instead of answers",
    source="Xin et al. 2025, Surrogate Signals from Format and Length, arXiv:2505.19439; the tabular simulator.",
    arms={arm: _settings(kind, p) for arm, (kind, p, _) in _ARMS.items()},
    seeds=(0, 1, 2, 3, 4),
    fast={"steps": 2},
    cell=cell,
    claims=(
        Claim(
            says="Format only learns at least as fast as correctness at first",
            effects=(_less(_FORMAT, _CORRECT, "accuracy/15"),),
        ),
        Claim(
            says="Format only ends below correctness and drifts short",
            effects=(
                _less(_CORRECT, _FORMAT, "accuracy/150", 0.03),
                _less(_CORRECT, _FORMAT, "x/150", 0.05),
            ),
        ),
        Claim(
            says="Format-length ends above format only",
            effects=(_less(_SURROGATE, _FORMAT, "accuracy/150", 0.05),),
        ),
        Claim(
            says="A linear length reward drifts long",
            effects=(_longer(_CORRECT_LINEAR), _longer(_FORMAT_LINEAR)),
        ),
        Claim(
            says="A linear length reward makes accuracy dip at first",
            effects=(_dips(_CORRECT_LINEAR), _dips(_FORMAT_LINEAR)),
        ),
        Claim(
            says="With p = 0.1 almost all of the gain is lost",
            effects=(
                _less(_SURROGATE, "format-length, p = 0.1", "accuracy/150", 0.2),
                Effect(
                    says="a fifth of the gain of p = 0.5 less the gain of p = 0.1, from the start to step 150",
                    of=lambda found: 0.2 * _gain(found, _SURROGATE) - _gain(found, "format-length, p = 0.1"),
                ),
            ),
        ),
        Claim(
            says="Gains on competition mathematics, emergent reflection, transfer between model families",
            why="a table of 16 actions has none of them",
        ),
    ),
    rows=tuple(
        Row(arm=arm, metric=metric, says=says, pilot=number)
        for arm, (_, _, pilot) in _ARMS.items()
        for (metric, says), number in zip(METRICS.items(), pilot, strict=True)
    ),
    notes=(
        "Format-length wins here because p was put where the latent accuracy peaks (x = 0.45 to 0.6). The control "
        "p = 0.1, the same reward with another wanted length, stands beside it.",
        "The paper trains a language model of 7B parameters; none of its numbers is one of this simulator's.",
        "Accuracy, share of well-formed responses and length are computed from the table, not estimated from samples.",
        "The rules were committed before the first run of this study, but after the pilot's table had been read and "
        "the simulator tried in NumPy with three seeds: they test that it repeats, not a guess made blind.",
        "On the dip: the rule asks both linear arms to fall below their start in accuracy. Format + linear length "
        "does. Correctness + linear length does not: what dips there is the share of well-formed responses "
        "(curves.png), while the reward for correctness keeps accuracy just above its start, far behind that of "
        "correctness alone. The pilot's 0.34 at step 15 lies above its start, 0.332, too: its dip was this lag. The "
        "rule was written before the run and stays.",
        "Pilot and this run agree within the pilot's rounding, its spread over seeds (0.006) and two standard errors "
        "of this run. The largest distance is correctness + linear length at step 50: accuracy climbs steeply there, "
        "sooner in one seed than in another, and the pilot had three seeds.",
    ),
)


def _gain(found: ByArm, arm: str) -> float:
    return found[arm]["accuracy/150"] - found[arm]["accuracy/0"]
