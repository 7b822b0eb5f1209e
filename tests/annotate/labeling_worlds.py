"""Policies and tasks whose every prefix has a known value, so that estimates can be held against the truth."""

from dataclasses import dataclass, field

import torch

from reckon.tasks import ChainArithmetic
from reckon.types import End, Problem, Rollouts, Sequences, Verdict


def rollouts_of(problems, k, rows, ends, given):
    """Rollouts from rows of characters; "" is the end token. `given`: tokens of each row that were not sampled."""
    width = max(len(row) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor([code(piece) for piece in row])
        mask[i, given[i] : len(row)] = True
    return Rollouts(
        seq=Sequences(
            prompts=tuple(torch.tensor([1]) for _ in problems),
            group=torch.arange(len(problems)).repeat_interleave(k),
            tokens=tokens,
            mask=mask,
        ),
        problems=tuple(problems),
        text=tuple("".join(row) for row in rows),
        pieces=tuple(tuple(row) for row in rows),
        logprobs=torch.zeros(len(rows), width),
        end=torch.tensor([int(end) for end in ends]),
    )


def code(piece):
    return ord(piece) if piece else 0


def piece(token):
    return chr(token) if token else ""


@dataclass
class ChainPolicy:
    """Adds digits modulo 10 and errs at each step with probability `error`, in any of nine ways."""

    error: float = 0.25
    calls: list = field(default_factory=list)

    def sample(self, problems, k, rng, prefixes=None):
        prefixes = prefixes or [()] * len(problems)
        self.calls.append((len(problems), k))
        rows, given = [], []
        for g, (problem, prefix) in enumerate(zip(problems, prefixes, strict=True)):
            for j in range(k):
                rows.append(self._continue(problem, [piece(t) for t in prefix], rng.child(g, j).numpy()))
                given.append(len(prefix))
        return rollouts_of(problems, k, rows, [End.EOS] * len(rows), given)

    def _continue(self, problem, row, generator):
        digits = [int(c) for c in problem.prompt if c.isdigit()]
        written = [int(c) for c in row if c.isdigit()]
        value = written[-1] if written else digits[0]
        row = list(row)
        for place in range(len(written) + 1, len(digits)):
            value = (value + digits[place]) % 10
            if generator.random() < self.error:
                value = (value + int(generator.integers(1, 10))) % 10
            row.append(str(value))
            if place < len(digits) - 1:
                row.append(",")
        return [*row, ""]

    def value(self, problem, text):
        """The exact chance that a continuation of `text` ends right."""
        digits = [int(c) for c in problem.prompt if c.isdigit()]
        written = [int(c) for c in text if c.isdigit()]
        left = len(digits) - 1 - len(written)
        now = written[-1] if written else digits[0]
        truth = sum(digits[: len(written) + 1]) % 10
        decay = (1 - 10 / 9 * self.error) ** left
        return 0.1 + 0.9 * decay if now == truth else 0.1 - 0.1 * decay


def chain(operations=3, train=64):
    return ChainArithmetic(operations=operations, train=train, dev=1, test=1)


@dataclass
class PitTask:
    """Right = `steps` good steps. A bad one cannot be made good: everything behind it has value 0."""

    steps: int = 6
    name: str = "pits"

    def problems(self, split):
        return [Problem(id=f"{split}-{i}", prompt=f"problem {i}", answer="g" * self.steps) for i in range(8)]

    def check(self, problem, text):
        if problem.answer is None:
            return Verdict(outcome=None, answer=None, reason="no reference")
        right = text.count("g") == self.steps and "b" not in text
        return Verdict(outcome=float(right), answer=text.replace("\n", ""), reason="right" if right else "wrong")


@dataclass
class PitPolicy:
    """Each step is bad with probability `error`; steps are lines of one letter."""

    error: float = 0.1
    steps: int = 6
    calls: list = field(default_factory=list)

    def sample(self, problems, k, rng, prefixes=None):
        prefixes = prefixes or [()] * len(problems)
        self.calls.append((len(problems), k))
        rows, given = [], []
        for g, prefix in enumerate(prefixes):
            for j in range(k):
                row, generator = [piece(t) for t in prefix], rng.child(g, j).numpy()
                while sum(p in ("g", "b") for p in row) < self.steps:
                    row += ["b" if generator.random() < self.error else "g", "\n"]
                rows.append([*row, ""])
                given.append(len(prefix))
        return rollouts_of(problems, k, rows, [End.EOS] * len(rows), given)

    def value(self, text):
        return 0.0 if "b" in text else (1 - self.error) ** (self.steps - text.count("g"))
