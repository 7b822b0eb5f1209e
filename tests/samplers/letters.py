"""Rollouts spelled out letter by letter, and a policy and a checker that go by the letters."""

import torch

from reckon.samplers import DropEqual, Uniform, collect
from reckon.types import End, Problem, Rng, Rollouts, Sequences, Verdict

NAN = float("nan")
RNG = Rng((0, "test"))


class Task:
    name = "numbers"

    def __init__(self, size=10):
        self.size = size

    def problems(self, split):
        first = {"train": 0, "dev": 1000, "test": 2000}[split]
        return [Problem(id=f"{split}-{first + i}", prompt=f"{first + i}?") for i in range(self.size)]


def make(texts_of_groups, *, end=None, width=4, fill=0):
    """Rollouts whose responses have as many tokens as their texts have letters."""
    texts = [text for texts in texts_of_groups for text in texts]
    lengths = torch.tensor([len(text) for text in texts])
    mask = torch.arange(width)[None, :] < lengths[:, None]
    return Rollouts(
        seq=Sequences(
            prompts=tuple(torch.tensor([g]) for g in range(len(texts_of_groups))),
            group=torch.tensor([g for g, inside in enumerate(texts_of_groups) for _ in inside]),
            tokens=torch.where(mask, torch.arange(1, len(texts) + 1)[:, None], fill),
            mask=mask,
        ),
        problems=tuple(Problem(id=f"p{g}", prompt="?") for g in range(len(texts_of_groups))),
        text=tuple(texts),
        pieces=tuple(tuple(text) for text in texts),
        logprobs=torch.where(mask, -1.0, 0.0),
        end=torch.tensor([End.EOS] * len(texts) if end is None else end),
    )


class Answers:
    """A policy that answers each problem with the texts it is given, in the order of the draws."""

    def __init__(self, *groups):
        self.groups, self.keys = list(groups), []

    def sample(self, problems, k, rng, prefixes=None):
        self.keys.append(rng.key)
        texts = [self.groups.pop(0) for _ in problems]
        rollouts = make(texts, width=max(len(text) for inside in texts for text in inside))
        object.__setattr__(rollouts, "problems", tuple(problems))
        return rollouts


def verify(rollouts):
    """r is right, w is wrong, u is unknown, h is half right."""
    worth = {"r": 1.0, "w": 0.0, "u": None, "h": 0.5}
    return tuple(Verdict(outcome=worth[text[0]], answer=text, reason="right") for text in rollouts.text)


def gather(*groups, keep=None, n=2, refill=None, size=10):
    return collect(
        Uniform(Task(size)),
        Answers(*groups),
        verify,
        keep or DropEqual(),
        n,
        len(groups[0]),
        RNG,
        step=3,
        refill=refill,
    )
