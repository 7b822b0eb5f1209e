"""Preferences over a small transformer's digits, and what is learned from them: a policy, a reward model, both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import torch

from reckon.fit import BradleyTerry, CachedReference, FitLoss, Paired, Plan, Preference, fit
from reckon.models import LanguageModel, Optimization
from reckon.studies import _digit_texts
from reckon.studies._digit_texts import ASPECTS, LONGEST, DigitTexts, aspects, gold, sloppy
from reckon.studies._language_model import Lesson, Start, run, teach
from reckon.studies._saved_judge import SavedJudge
from reckon.types import End, Json, Metrics, Parts, Problem, Rng, Split

SLIP, OFF_SLIP = 0.3, 0.4  # of the texts that are shown, and of responses that are not the policy's
FINE, OVERALL, FLIPPED = 0.1, 0.3, 0.3  # noise of each aspect's score, of one score for all, and share of flips
PAIRS_A_STEP = 32
ANSWERS = 4  # to each prompt of a step of PPO
JUDGE_PASSES, JUDGE_RATE, HEAD_RATE = 4, 1e-3, 1e-2
CRITIC: dict[str, Json] = {"optimizer": {"lr": 1e-3, "epochs": 2}}
DRAWN = 4  # responses to each prompt that a policy is measured by

Data: TypeAlias = Literal["fine", "overall", "off-policy", "flipped"]
Look: TypeAlias = Callable[[LanguageModel, int], None]  # the policy, and the steps it has made


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a world is made of: two with the same numbers are the same."""

    shown: int  # problems of which texts are shown before anything else
    passes: int  # over them
    pairs: int  # problems, each of one pair
    asked: int  # problems of dev, and of test


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """What the arms of a seed share."""

    size: Size
    seed: int
    rng: Rng
    task: DigitTexts  # its train split holds the problems of the pairs
    start: Start
    reference: LanguageModel  # the start again, which learns nothing
    own: Sequence[tuple[str, str]]  # two responses of the start to each problem of the train split
    ended: Sequence[tuple[bool, bool]]  # whether they ended by themselves


@lru_cache(maxsize=1)  # every arm of a seed begins with it
def make_world(size: Size, seed: int) -> World:
    """Teaches a transformer to answer as somebody does who errs, and has it answer each problem of the pairs twice."""
    rng = Rng((seed, "preference-learning-transformer"))
    whole = DigitTexts(seed=seed, train=size.shown + size.pairs, dev=size.asked, test=size.asked)
    shown = whole.problems("train")[: size.shown]
    texts = [sloppy(problem, SLIP, rng.child("shown", i)) for i, problem in enumerate(shown)]
    start = teach([Lesson(problems=shown, texts=texts, passes=size.passes)], rng.child("teach"), max_new_tokens=LONGEST)
    task = DigitTexts(seed=seed, train=whole.train, dev=size.asked, test=size.asked, skip=size.shown)
    reference = start.open()
    drawn = reference.sample(task.problems("train"), 2, rng.child("responses"))
    over = [end != End.LENGTH for end in drawn.end.tolist()]
    return World(
        size=size,
        seed=seed,
        rng=rng,
        task=task,
        start=start,
        reference=reference,
        own=list(zip(drawn.text[0::2], drawn.text[1::2], strict=True)),
        ended=list(zip(over[0::2], over[1::2], strict=True)),
    )


def draw_preferences(world: World, data: Data) -> list[Paired]:
    """A pair for each problem of the train split; the numbers behind noise and flips are the same for all data.

    "fine": the better mean of four scores, one an aspect, each with a noise of 0.1. "overall": the better of one gold
    score with a noise of 0.3. "off-policy": as fine, of responses that somebody else wrote. "flipped": as fine, 30% of
    the pairs turned round.
    """
    problems = world.task.problems("train")
    noise = world.rng.child("noise").numpy().normal(size=(len(problems), 2, len(ASPECTS)))
    flips = world.rng.child("flips").numpy().random(len(problems)) < (FLIPPED if data == "flipped" else 0.0)
    pairs = []
    for i, problem in enumerate(problems):
        texts, ended = world.own[i], world.ended[i]
        if data == "off-policy":
            one, other = (sloppy(problem, OFF_SLIP, world.rng.child("others", i, side)) for side in range(2))
            texts, ended = (one, other), (True, True)
        scores = [labeled(problem, text, own, data) for text, own in zip(texts, noise[i], strict=True)]
        best = int(scores[1] > scores[0]) ^ int(flips[i])
        pairs.append(
            Paired(
                problem=problem,
                chosen=texts[best],
                rejected=texts[1 - best],
                ended=(ended[best], ended[1 - best]),
            )
        )
    return pairs


def labeled(problem: Problem, text: str, noise: np.ndarray, data: Data) -> float:
    """The score that a label compares; `noise` is [4], standard normal."""
    if data == "overall":
        return gold(problem, text) + OVERALL * float(noise[0])
    return gold(problem, text) + FINE * float(noise.mean())


def learn_by_dpo(
    world: World, pairs: Sequence[Paired], beta: float, lr: float, looks: Sequence[int], look: Look
) -> None:
    """DPO from the start on, 32 pairs a step; `look` is shown the policy after each of these numbers of steps."""
    model = world.start.open(Optimization(lr=lr))
    loss = Preference(reference=CachedReference(model.reference()), beta=beta)
    _fit(model, pairs, loss, looks, world.rng.child("dpo"), look)


def learn_reward(world: World, pairs: Sequence[Paired]) -> LanguageModel:
    """A reward model from pairs: the start with a head of its own, by Bradley and Terry's loss."""
    start = world.start.open()
    model = LanguageModel(
        start.network,
        start.tokenizer,
        sampling=start.sampling,
        optimizer=Optimization(lr=JUDGE_RATE, warmup=5),
        dtype="float32",
        device="cpu",
        tokens_per_batch=start.tokens_per_batch,
        value_head=True,
        head_lr=HEAD_RATE,
    )
    steps = JUDGE_PASSES * (len(pairs) // PAIRS_A_STEP)
    _fit(model, pairs, BradleyTerry(), [steps], world.rng.child("reward model"), lambda *_: None)
    return model


def _fit(
    model: LanguageModel, pairs: Sequence[Paired], loss: FitLoss, looks: Sequence[int], rng: Rng, look: Look
) -> None:
    """Steps of 32 pairs, in passes of an order of chance each."""
    places = list[int]()
    for number in range(-(-looks[-1] * PAIRS_A_STEP // len(pairs))):
        places += rng.child(number).numpy().permutation(len(pairs)).tolist()
    for begun, until in zip((0, *looks), looks, strict=False):
        part = places[begun * PAIRS_A_STEP : until * PAIRS_A_STEP]
        if part and not fit(model, pairs, loss, Plan(batch=PAIRS_A_STEP, show="nothing"), order=_given(part)):
            raise KeyboardInterrupt  # `fit` stops in good order; half a model must not pass for one
        look(model, until)


def _given(places: Sequence[int]) -> Callable[[Sequence[object], Rng], Sequence[int]]:
    return lambda _rows, _rng: places


def learn_by_ppo(
    world: World, judge: LanguageModel, kl: float, lr: float, prompts: int, looks: Sequence[int], look: Look
) -> None:
    """PPO of the recipe's kind on the problems of the pairs, paid by a reward model, with a critic of its own."""

    def examine(model: LanguageModel, parts: Parts, step: int) -> Metrics:
        if step in looks:
            look(model, step)
        return {}

    saved = SavedJudge(judge, {"kind": "outcome_model"})
    recipe: dict[str, Json] = {
        "method": {"kind": "ppo", "kl": kl},
        "critic": CRITIC,
        "task": {
            "kind": f"{_digit_texts.__file__}:DigitTexts",
            **{name: getattr(world.task, name) for name in ("seed", "train", "dev", "test", "skip")},
        },
        "reward": {"score": {"kind": "fitted", "folder": str(saved.folder), "device": "cpu"}, "kl": {}},
        "optimizer": {"lr": lr},
        "steps": looks[-1],
        "prompts": prompts,
        "answers": ANSWERS,
    }
    run(recipe, world.start, world.seed, examine=examine, every=1)


def measure(world: World, policy: LanguageModel, split: Split) -> dict[str, float]:
    """What a policy's responses to the problems of a split are worth, and how far it is from the start.

    The same problems and random numbers for every arm and step of a seed.

    Returns:
        "gold" and each aspect, means over responses; "KL", the mean log-ratio to the start in nats a response, an
        estimate without bias; "length", tokens.
    """
    problems = world.task.problems(split)
    drawn = policy.sample(problems, DRAWN, world.rng.child("measured"))
    found = [aspects(drawn.problem(row), text) for row, text in enumerate(drawn.text)]
    means = {name: sum(one[name] for one in found) / len(found) for name in ASPECTS}
    own, before = (model.outputs(drawn.seq).logprobs for model in (policy, world.reference))
    assert own is not None
    assert before is not None
    return {
        "gold": sum(means.values()) / len(ASPECTS),
        **means,
        "KL": float((own - before).sum(dim=1).mean()),
        "length": float(drawn.seq.mask.sum(dim=1).double().mean()),
    }


def judge_accuracy(world: World, judge: LanguageModel, split: Split) -> float:
    """Of two responses of the start to each problem, how often the one of more gold has the higher score; ties out."""
    problems = world.task.problems(split)
    drawn = world.reference.sample(problems, 2, world.rng.child("compared"))
    scores = judge.outputs(drawn.seq, ("scores",)).scores
    assert scores is not None
    last = drawn.seq.mask.sum(dim=1, keepdim=True) - 1
    read = scores.gather(1, last)[:, 0].double()
    worth = torch.tensor([gold(drawn.problem(row), text) for row, text in enumerate(drawn.text)], dtype=torch.float64)
    more = worth[0::2] - worth[1::2]
    return float((more * (read[0::2] - read[1::2]) > 0)[more != 0].double().mean())
