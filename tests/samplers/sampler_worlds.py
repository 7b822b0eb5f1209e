"""A task with domains, and what a step of it looks like to a sampler."""

import json

import torch

from reckon.types import Problem, Rng, Seen


class Domains:
    """As many problems as asked for in each domain; each with a difficulty, which is its number in the domain."""

    name = "domains"

    def __init__(self, **sizes):
        self.sizes = sizes

    def problems(self, split):
        return [
            Problem(id=f"{name}{i}", prompt="?", domain=name, columns={"difficulty": i})
            for name, size in self.sizes.items()
            for i in range(size)
        ]


def seen_of(problems, outcome):
    """A step in which every problem had one response."""
    n = len(problems)
    return Seen(
        problems=tuple(problems),
        outcome=torch.tensor(outcome, dtype=torch.float32),
        lengths=torch.ones(n, dtype=torch.int64),
        end=torch.zeros(n, dtype=torch.int64),
        rounds=1,
        wanted=n,
        kept=n,
    )


def seen_by_domain(**accuracies):
    """A step in which each domain has two responses with the given mean; a NaN is unknown, a domain left out absent."""
    problems = [Problem(id=f"{name}{i}", prompt="?", domain=name, columns={}) for name in accuracies for i in range(2)]
    return seen_of(problems, [value for value in accuracies.values() for _ in range(2)])


def ids(problems):
    return [problem.id for problem in problems]


def counts(problems, names):
    drawn = [problem.domain for problem in problems]
    return [drawn.count(name) for name in names]


def assert_resumes(make, accuracy, steps=6, n=7):
    """A sampler whose state goes through JSON at any step poses and says what one that was never stopped does.

    Args:
        make: gives a fresh sampler.
        accuracy: (problem, step) -> outcome.
        steps: how many.
        n: problems a step.
    """

    def step(sampler, at):
        problems = sampler.draw(n, Rng((3, at, "draw", 0)))
        return ids(problems), sampler.learn(seen_of(problems, [accuracy(p, at) for p in problems]))

    whole, going = [], make()
    states = []
    for at in range(steps):
        states.append(json.loads(json.dumps(going.state_dict())))
        whole.append(step(going, at))
    for stopped, state in enumerate(states):
        resumed = make()
        resumed.load_state_dict(state)
        assert [step(resumed, at) for at in range(stopped, steps)] == whole[stopped:]
    assert len({tuple(drawn) for drawn, _ in whole}) > 1
