"""Preferences on the factored bandit, and what is learned from them: policies by DPO and PPO, a reward model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from reckon.credit import earnings, spread
from reckon.losses import PolicyGradient
from reckon.preferences import bradley_terry, dpo
from reckon.rewards import KLReward, Sum
from reckon.samplers import All, Uniform
from reckon.studies._factored_bandit import (
    IS_NARROW,
    PLACES,
    WORDS,
    Bandit,
    BanditJudge,
    BanditPolicy,
    World,
    gold,
    minibatches,
    sequences,
)
from reckon.train import take_step
from reckon.types import Batch, Columns, Credit, Outputs, Parts, Split, Stream

PAIRS_A_STEP = 32  # of DPO
JUDGED, PASSES, JUDGE_RATE, DECAY = 64, 8, 2e-3, 1e-4  # of a reward model: pairs a step, passes, AdamW
PROMPTS_A_STEP = 64  # of PPO, each answered once
MOST = 8000  # pairs that are drawn in every arm, so that fewer are the first of more
CANDIDATES = 16

Responses: TypeAlias = Literal["policy", "uniform"]
Prompts: TypeAlias = Literal["own", "broad", "narrow"]
Look: TypeAlias = Callable[[BanditPolicy, int], None]  # the policy, and the steps it has made


@dataclass(frozen=True, kw_only=True, eq=False)
class Preferences:
    """n pairs of responses to n prompts, with a label each."""

    numbers: Tensor  # [n] int64
    tokens: Tensor  # [n, 2, PLACES] int64, the chosen one first


def draw_preferences(world: World, n: int, responses: Responses, sharpness: float, flipped: float) -> Preferences:
    """Pairs of prompts of the train split, drawn with replacement, labeled by Bradley and Terry's law of gold scores.

    Whatever the settings, the prompts are the same, and so are the numbers behind responses, labels and flips.

    Args:
        world: the seed's.
        n: pairs, at most 8,000.
        responses: of the policy that everybody begins as, or of uniform tokens.
        sharpness: the first response is chosen with probability s(sharpness * difference of right tokens).
        flipped: share of pairs that are then turned round, in [0, 1].
    """
    if not 1 <= n <= MOST:
        raise ValueError(f"there are {MOST} pairs, and {n} were asked for")
    rng, train = world.rng.child("pairs"), world.numbers("train")
    numbers = train[torch.from_numpy(rng.child("prompts").numpy().integers(len(train), size=MOST))]
    if responses == "policy":
        tokens = world.start.draw(numbers, 2, rng.child("responses"))
    else:
        tokens = torch.from_numpy(rng.child("responses").numpy().integers(WORDS, size=(MOST, 2, PLACES)))
    right = gold(numbers, tokens)
    first = torch.sigmoid(sharpness * (right[:, 0] - right[:, 1]).double())
    chosen = torch.from_numpy(rng.child("labels").numpy().random(MOST)) < first
    chosen ^= torch.from_numpy(rng.child("flips").numpy().random(MOST)) < flipped
    ordered = torch.where(chosen[:, None, None], tokens, tokens.flip(1))
    return Preferences(numbers=numbers[:n], tokens=ordered[:n])


def learn_by_dpo(world: World, pairs: Preferences, beta: float, steps: int, look: Look) -> BanditPolicy:
    """DPO from the start on, which is the reference too; `look` sees the policy before every step and at the end."""
    policy = world.start.copy()

    def loss(outputs: Outputs, columns: Columns) -> Tensor:
        assert outputs.logprobs is not None
        ratios = (outputs.logprobs - columns["ref_logprobs"]).sum(dim=1)
        return dpo(ratios[0::2], ratios[1::2], beta) / PAIRS_A_STEP

    for step, rows in enumerate(minibatches(len(pairs.numbers), PAIRS_A_STEP, steps, world.rng.child("dpo"))):
        look(policy, step)
        seq = sequences(pairs.numbers[rows], pairs.tokens[rows])
        reference = world.start.outputs(seq).logprobs
        assert reference is not None
        policy.step(seq, {"ref_logprobs": reference}, loss)
    look(policy, steps)
    return policy


def learn_reward(world: World, pairs: Preferences, width: int) -> BanditJudge:
    """A reward model from pairs, by Bradley and Terry's loss."""
    rng = world.rng.child("reward model")
    judge = BanditJudge(width, rng.child("weights").integer() % 2**31)
    adamw = torch.optim.AdamW(judge.network.parameters(), lr=JUDGE_RATE, betas=(0.9, 0.95), weight_decay=DECAY)
    n = len(pairs.numbers)
    for rows in minibatches(n, JUDGED, PASSES * (n // JUDGED), rng):
        adamw.zero_grad()
        scores = judge.scores(pairs.numbers[rows], pairs.tokens[rows])
        bradley_terry(scores[:, 0], scores[:, 1]).mean().backward()
        adamw.step()
    return judge


def judge_quality(world: World, judge: BanditJudge, split: Split) -> dict[str, float]:
    """What a reward model makes of the start's responses to the prompts of a split.

    Returns:
        "accuracy": of the first two responses to a prompt, how often the one with more right tokens has the higher
        score, ties in gold left out. "best of 16": the gold score of the best by its scores; "oracle of 16", by gold.
        "spread": the standard deviation of its scores.
    """
    numbers = world.numbers(split)
    tokens = world.start.draw(numbers, CANDIDATES, world.rng.child("candidates"))
    with torch.no_grad():
        scores = judge.scores(numbers, tokens)
    right = gold(numbers, tokens)
    more = right[:, 0] - right[:, 1]
    agrees = (more * (scores[:, 0] - scores[:, 1]) > 0)[more != 0]
    best = right.gather(1, scores.argmax(dim=1, keepdim=True))
    return {
        "accuracy": float(agrees.double().mean()),
        "best of 16": float(best.double().mean()) / PLACES,
        "oracle of 16": float(right.max(dim=1).values.double().mean()) / PLACES,
        "spread": float(scores.double().std()),
    }


def learn_by_ppo(world: World, judge: BanditJudge, prompts: Tensor, kl: float, steps: int, look: Look) -> BanditPolicy:
    """PPO as its released code runs it, ratio 1 and without a critic, by the loop's own parts.

    Args:
        world: the seed's; its start is the reference.
        judge: pays for whole responses.
        prompts: [n] int64, posed in passes of an order of chance each.
        kl: what a nat of divergence costs, charged token by token.
        steps: of 64 prompts.
        look: sees the policy before every step and at the end.
    """
    policy, root = world.start.copy(), world.rng.child("ppo")
    task = Bandit(numbers={"train": prompts.tolist()})
    parts = Parts(
        sampler=Uniform(task),
        keep=All(),
        reward=Sum({"score": judge, "kl": KLReward(policy=policy, reference=world.start, coef=kl)}),
        advantage=less_mean_at_place,
        objective=PolicyGradient(average="tokens"),
    )
    for step in range(steps):
        look(policy, step)
        take_step(policy, task, parts, root.child(step), step=step, prompts=PROMPTS_A_STEP, answers=1)
    look(policy, steps)
    return policy


def less_mean_at_place(batch: Batch, streams: Mapping[str, Stream]) -> Credit:
    """Credits each token with what is earned from it on, less the batch's mean of that at its place."""
    returns = earnings(batch, streams).returns
    return spread(batch, streams, returns - returns.mean(dim=0))


def posed(world: World, pairs: Preferences, which: Prompts) -> Tensor:
    """[n] int64: the prompts that PPO is given.

    "own" are those the reward model has seen, "broad" all of the train split, "narrow" its prompts of the narrow set.
    """
    if which == "own":
        own: Tensor = pairs.numbers.unique()
        return own
    train = world.numbers("train")
    return train if which == "broad" else train[IS_NARROW[train]]
