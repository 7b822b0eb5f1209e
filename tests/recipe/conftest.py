"""A recipe with parts of a user's own."""

import textwrap

import pytest

from reckon.recipe import Recipe

OWN = '''
from dataclasses import dataclass
from typing import Literal

from reckon.types import Problem, Verdict

@dataclass(frozen=True, kw_only=True)
class Copy:
    """Says the number again."""
    count: int = 3
    ratio: float = 0.5
    mode: Literal["easy", "hard"] = "easy"
    words: tuple[str, ...] = ()
    path: str = "data.txt"
    name = "copy"

    def problems(self, split):
        count = 0 if split == "test" else self.count
        return [Problem(id=f"{split}{i}", prompt=str(i), answer=str(i)) for i in range(count)]

    def check(self, problem, text):
        return Verdict(outcome=float(text == problem.answer), answer=text, reason="right")

class Half:
    def draw(self, n, rng):
        return []

def longest(rollouts, outcome, rng, *, least=3):
    return (rollouts.seq.mask.sum(1) >= least) * 2

def level(batch, streams):
    return "credit"

def score(completions):
    return [1.0] * len(completions)

def has_digit(text):
    return text.isdigit()

LIMIT = 3
'''

RECIPE = """\
model: tiny
task: {kind: "own.py:Copy"}
evaluate: {final: null}
"""


@pytest.fixture(scope="session")
def own():
    """The file `own.py` as text."""
    return OWN


@pytest.fixture(scope="session")
def plain():
    """The smallest recipe as text."""
    return RECIPE


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "data.txt").write_text("x")
    return tmp_path


@pytest.fixture
def load(folder):
    def loaded(text="", *overrides):
        path = folder / "r.yaml"
        path.write_text(RECIPE + textwrap.dedent(text))
        return Recipe.load(path, overrides)

    return loaded
