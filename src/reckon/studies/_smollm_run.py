"""One arm of the study: a run through the one loop that ends when its tokens are spent, examined where they are."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from reckon.errors import RunError
from reckon.recipe import Recipe
from reckon.rewards import Sum
from reckon.runs import Run
from reckon.stopping import stop_after_step, stoppable
from reckon.studies import _smollm_exam as exam
from reckon.studies._smollm_start import HOME, TRAINED, Start, digest
from reckon.studies._study import Settings, slug
from reckon.train import Plan, train
from reckon.types import Advantage, Batch, Credit, Json, Keep, Metrics, Parts, Policy, Rng, Rollouts, State, Stream

if TYPE_CHECKING:
    from torch import Tensor

    from reckon.models import LanguageModel, Optimization, Sampling
    from reckon.rewards import HasTwin, OnlineImplicitReward

GENERATED, LEARNED = "generated", "trained"  # what is counted, and so where a run is examined
BUDGETS = (GENERATED, LEARNED)
_START = "start:"


@dataclass
class Metered:
    """An advantage that counts what its run has spent: tokens generated, and tokens of the responses that train.

    A response whose advantage is 0 trains too, as far as this count goes: its method has chosen it. Stands for the keep
    rule as well (`chosen`), for it alone sees what is dropped.
    """

    advantage: Advantage
    keep: Keep
    spent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUDGETS, 0))
    before: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUDGETS, 0))  # the last step
    entropy: float = math.nan  # of the last step: mean -log p of a drawn token, kept or not, in nats

    def chosen(self, rollouts: Rollouts, outcome: Tensor, rng: Rng) -> Tensor:
        """The keep rule's decisions, unchanged."""
        self.entropy = -float(rollouts.logprobs[rollouts.seq.mask].mean())
        return self.keep(rollouts, outcome, rng)

    def __call__(self, batch: Batch, streams: Mapping[str, Stream]) -> Credit:
        """The advantage's credit, unchanged."""
        credit = self.advantage(batch, streams)
        self.before = dict(self.spent)
        self.spent[GENERATED] += int(batch.seen.lengths.sum())
        self.spent[LEARNED] += int(credit.mask.sum())
        return credit

    def passed(self, budgets: Mapping[str, int]) -> list[str]:
        """The budgets that the last step has used up."""
        return [name for name, most in budgets.items() if self.before[name] < most <= self.spent[name]]

    def metrics(self) -> Metrics:
        """`spent/generated` and `spent/trained` since the run's first step; `entropy` of the last one."""
        return {**{f"spent/{name}": float(value) for name, value in self.spent.items()}, "entropy": self.entropy}

    def state_dict(self) -> State:
        """What was spent."""
        return {"spent": dict(self.spent)}

    def load_state_dict(self, state: State) -> None:
        """Goes on counting."""
        self.spent = {name: int(cast("Mapping[str, int]", state["spent"])[name]) for name in BUDGETS}


@dataclass(frozen=True, kw_only=True)
class Begun:
    """Stands where a judge asks for the policy that it begins as: it then begins as a model of the start."""

    folder: Path
    sampling: Sampling

    def twin(self, optimizer: Optimization, *, value_head: bool = False) -> LanguageModel:
        """The model in the folder, with the head that was saved with it."""
        from reckon.models import load_model

        return load_model(
            str(self.folder), sampling=self.sampling, optimizer=optimizer, value_head=value_head, dtype="float32"
        )


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """Sits the exams when a budget is spent, and ends the run when both are."""

    settings: Settings
    start: Start
    run: Run
    meter: Metered
    budgets: Mapping[str, int]

    def __call__(self, policy: Policy, step: int) -> Metrics:
        """The marks of the budgets that this step has used up, as `BUDGET/EXAM/MARK`."""
        if step == 0:  # the start has sat all exams: a report finds its answers as those before training
            for name in exam.EXAMS:
                self.run.evaluation(name, 0, self.start.sat(name).columns(0))
            return {}
        found: Metrics = {}
        for budget in self.meter.passed(self.budgets):
            for name in exam.EXAMS if budget == GENERATED else (exam.HELD_OUT,):
                found |= {f"{budget}/{name}/{mark}": value for mark, value in self._sit(policy, budget, name, step)}
            found |= {f"{budget}/spent/{name}": float(value) for name, value in self.meter.spent.items()}
        if all(self.meter.spent[name] >= most for name, most in self.budgets.items()):
            stop_after_step("both budgets are spent")
        return found

    def _sit(self, policy: Policy, budget: str, name: str, step: int) -> list[tuple[str, float]]:
        task = exam.exam_task(self.settings, name)
        samples = cast("int", self.settings["samples" if budget == GENERATED else "samples_trained"])
        found = exam.sit(cast("LanguageModel", policy), task, samples)
        if budget == GENERATED:
            self.run.evaluation(name, step, found.columns(step))
        gain = exam.gained(self.start.sat(name), found, samples)
        return [*exam.marks(found, task).items(), ("gain", gain.mean), ("gain error", gain.error)]


def run_folder(settings: Settings, seed: int) -> Path:
    """Where the run of an arm is kept."""
    return (HOME / f"{slug(cast('str', settings['arm']))}-seed-{seed}-{digest(settings)}").absolute()


def run_arm(settings: Settings, seed: int) -> tuple[Path, list[Metrics]]:
    """Trains an arm until both budgets are spent, or goes on with a run of it that was interrupted.

    Returns:
        The run's folder and what it logged, step by step.

    Raises:
        RunError: the most steps allowed were not enough.
        KeyboardInterrupt: on Ctrl-C, after the step is saved.
    """
    start = Start.of(settings)
    folder = run_folder(settings, seed)
    if (folder / "finished").exists():
        return folder, Run.open(folder).metrics()
    recipe = arm_recipe(settings, start, seed, folder)
    policy = recipe.load_policy()
    parts, meter = arm_parts(recipe, policy, settings, start)
    for name in exam.EXAMS:
        start.sat(name)  # made before the run begins, whose seconds are its own
    budgets = {name: cast("int", settings[name]) for name in BUDGETS}
    plan = Plan(
        steps=recipe.frame.steps,
        prompts=recipe.frame.prompts,
        answers=recipe.frame.answers,
        seed=seed,
        save_every=recipe.frame.save.every,
        show="nothing",
    )
    there = (folder / "recipe.yaml").exists()
    opened = Run.resume(folder, recipe.resolved(), keep_last=1) if there else _new(folder, recipe)
    with stoppable(), opened as run:
        examiner = Examiner(settings=settings, start=start, run=run, meter=meter, budgets=budgets)
        ended = train(policy, recipe.made_task, parts, run, plan, examiner)
        lines = run.metrics()
    if any(meter.spent[name] < most for name, most in budgets.items()):
        if not ended:
            raise KeyboardInterrupt
        raise RunError(
            f"{folder}: {plan.steps} steps have spent {meter.spent} tokens, less than {budgets}. Raise `most`."
        )
    (folder / "finished").touch()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # gigabytes, and nobody goes on from here
    return folder, lines


def arm_recipe(settings: Settings, start: Start, seed: int, folder: Path) -> Recipe:
    """The recipe of an arm: what all have in common, its own method, and `start:NAME` filled in."""
    common: dict[str, Json] = {
        "model": {"name": str(start.policy), "dtype": "float32"},
        "task": {
            "kind": "running_sums",
            **cast("dict[str, Json]", settings["sums"]),
            "seed": TRAINED,
            "train": settings["problems"],
            "dev": 0,
            "test": 0,
        },
        "sampling": {"max_new_tokens": settings["limit"]},
        "refill": {"rounds": 1},  # every arm is posed the same problems, and draws no others for those it drops
        "optimizer": {"lr": settings["lr"]},
        "steps": settings["most"],
        "prompts": settings["prompts"],
        "answers": settings["group"],
        "seed": seed,
        "evaluate": None,
        "save": {"every": settings["save"], "keep": 1},
        "out": str(folder),
    }
    text = json.dumps({**common, **cast("dict[str, Json]", _filled(settings["recipe"], start))})
    recipe = Recipe.parse(text, name=f"{slug(cast('str', settings['arm']))}.yaml")
    recipe.check_training()
    return recipe


def arm_parts(recipe: Recipe, policy: LanguageModel, settings: Settings, start: Start) -> tuple[Parts, Metered]:
    """The recipe's parts, with judges that begin where the start has them, and a meter around the advantage."""
    parts = recipe.build(policy)
    reward = cast("Sum", parts.reward)
    for name, piece in cast("Mapping[str, str]", settings["begin"]).items():
        begun = Begun(folder=Path(cast("str", start.give(piece))), sampling=policy.sampling)
        judge = cast("OnlineImplicitReward", reward.parts[name])  # or another that asks for a policy
        reward = replace(reward, parts={**reward.parts, name: replace(judge, policy=cast("HasTwin", begun))})
    meter = Metered(parts.advantage, parts.keep)
    return replace(parts, reward=reward, advantage=meter, keep=meter.chosen), meter


def windows(lines: Sequence[Metrics], value: str, most: int, count: int) -> list[float]:
    """A quantity that each step logs, averaged over equal windows of generated tokens.

    A step that lies in several windows counts in each with the tokens that it generated there.

    Args:
        lines: of the run's log.
        value: what they log.
        most: tokens; what was generated after them is left out.
        count: windows.
    """
    steps = [line for line in lines if "tokens/generated" in line]
    ends = np.cumsum([line["tokens/generated"] for line in steps])
    starts = ends - np.array([line["tokens/generated"] for line in steps])
    edges = np.linspace(0, most, count + 1)
    found = []
    for low, high in pairwise(edges):
        weight = np.clip(np.minimum(ends, high) - np.maximum(starts, low), 0, None)
        found.append(float(np.average([line[value] for line in steps], weights=weight)))
    return found


def minutes(lines: Sequence[Metrics], most: int, count: int) -> list[float]:
    """Wall time of the steps alone, without exams and saving, by the end of each window of generated tokens."""
    steps = [line for line in lines if "tokens/generated" in line]
    tokens = np.cumsum([0.0, *(line["tokens/generated"] for line in steps)])
    seconds = np.cumsum([0.0, *(step_seconds(line) for line in steps)])
    return [float(x) / 60 for x in np.interp(np.linspace(0, most, count + 1)[1:], tokens, seconds)]


def step_seconds(line: Metrics) -> float:
    """What a step took, all its parts together."""
    return sum(value for name, value in line.items() if name.startswith("time/"))


def _new(folder: Path, recipe: Recipe) -> Run:
    return Run.create(folder, recipe=recipe.resolved(), keep_last=1)


def _filled(value: Json, start: Start) -> Json:
    """The value with `start:NAME` replaced by what the start gives."""
    if isinstance(value, str) and value.startswith(_START):
        return start.give(value.removeprefix(_START))
    if isinstance(value, dict):
        return {name: _filled(inner, start) for name, inner in value.items()}
    return [_filled(inner, start) for inner in value] if isinstance(value, list) else value
