"""The four domains of `Rules`: each draws a theory, a question, and everything that is true in it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_WOMEN = [
    "Ann",
    "Bea",
    "Cat",
    "Dot",
    "Eve",
    "Fay",
    "Gia",
    "Ida",
    "Joy",
    "Kim",
    "Lea",
    "Mia",
    "Nan",
    "Pia",
    "Una",
    "Zoe",
]
_MEN = ["Abe", "Ben", "Cal", "Dan", "Eli", "Fin", "Gus", "Hal", "Ian", "Jim", "Leo", "Max", "Ned", "Odo", "Ray", "Sam"]
_SYLLABLES = ["ba", "do", "fi", "gu", "ke", "lo", "mi", "nu", "pa", "re", "su", "ta", "vo", "zi"]

# What X is to Z when X is the first to Y and Y the second to Z, as far as that is certain among full siblings.
_COMPOSED = {
    ("parent", "parent"): "grandparent",
    ("child", "child"): "grandchild",
    ("sibling", "parent"): "uncle or aunt",
    ("child", "sibling"): "nephew or niece",
    ("parent", "sibling"): "parent",
    ("sibling", "child"): "child",
    ("sibling", "sibling"): "sibling",
    ("child", "parent"): "sibling",
    ("grandparent", "sibling"): "grandparent",
    ("uncle or aunt", "sibling"): "uncle or aunt",
    ("grandchild", "sibling"): "great-nephew or great-niece",
    ("grandparent", "parent"): "great-grandparent",
    ("grandchild", "child"): "great-grandchild",
    ("uncle or aunt", "parent"): "great-uncle or great-aunt",
    ("nephew or niece", "parent"): "cousin",
    ("nephew or niece", "child"): "grandchild",
}
_GENDERED = {
    "parent": ("mother", "father"),
    "child": ("daughter", "son"),
    "sibling": ("sister", "brother"),
    "grandparent": ("grandmother", "grandfather"),
    "grandchild": ("granddaughter", "grandson"),
    "uncle or aunt": ("aunt", "uncle"),
    "nephew or niece": ("niece", "nephew"),
    "great-grandparent": ("great-grandmother", "great-grandfather"),
    "great-grandchild": ("great-granddaughter", "great-grandson"),
    "great-uncle or great-aunt": ("great-aunt", "great-uncle"),
    "great-nephew or great-niece": ("great-niece", "great-nephew"),
    "cousin": ("cousin", "cousin"),
}


@dataclass(frozen=True, kw_only=True)
class Theory:
    """A question about a small world, and what holds in that world."""

    clues: tuple[str, ...]
    question: str
    options: tuple[str, ...]
    answer: str
    worked: tuple[str, ...]  # conclusions in order, each from the clues and the ones before
    true: tuple[str, ...]  # sentences that follow
    false: tuple[str, ...]  # sentences of the same form that do not


def _some(generator: np.random.Generator, pool: list[str], count: int) -> list[str]:
    return [pool[i] for i in generator.permutation(len(pool))[:count]]


def _predicates(generator: np.random.Generator, count: int) -> list[str]:
    words: list[str] = []
    while len(words) < count:
        word = "".join(_some(generator, _SYLLABLES, 2))
        if word not in words:
            words.append(word)
    return words


def forward_chaining(generator: np.random.Generator, hops: int) -> Theory:
    """Someone is p0; p0 makes p1, and so on; two rules lead elsewhere. Is someone (the last predicate)?

    True: the chain ends there. False: the last rule says "not". Unknown: only a rule whose condition nobody meets ends
    there. What does not follow is unknown, not false.
    """
    (name,) = _some(generator, _WOMEN + _MEN, 1)
    *chain, stray, goal = _predicates(generator, hops + 3)
    answer = ("True", "False", "Unknown")[int(generator.integers(3))]
    links = list(pairwise(chain))
    last = links[-1]
    negated = answer == "False"
    asked = goal if answer == "Unknown" else last[1]

    def says(predicate: str) -> str:
        return f"{name} is {'not ' if negated and predicate == last[1] else ''}{predicate}."

    rules = [(a, f"{'not ' if negated and (a, b) == last else ''}{b}") for a, b in links]
    distractors = [(stray, goal), (stray, chain[int(generator.integers(len(chain)))])]
    clues = [f"{name} is {chain[0]}.", *(f"Whoever is {a} is {b}." for a, b in [*rules, *distractors])]
    true = [says(predicate) for predicate in chain]
    statements = [f"{name} is {word}{p}." for p in [*chain, stray, goal] for word in ("", "not ")]
    return Theory(
        clues=tuple(dict.fromkeys(clues)),
        question=f"Is {name} {asked}?",
        options=("True", "False", "Unknown"),
        answer=answer,
        worked=tuple(true),
        true=tuple(true),
        false=tuple(statement for statement in statements if statement not in true),
    )


def kinship(generator: np.random.Generator, hops: int) -> Theory | None:
    """A chain of hops + 1 people, each parent, child or sibling of the next. What is the first to the last?

    With one hop the clue itself is the answer.
    """
    names = _some(generator, _WOMEN + _MEN, hops + 1)
    relations = [("parent", "child", "sibling")[i] for i in generator.integers(3, size=hops)]
    whole, worked = relations[0], []

    def says(relation: str, x: str, z: str) -> str:
        return f"{x} is the {_GENDERED[relation][x in _MEN]} of {z}."

    worked.append(says(whole, names[0], names[1]))
    for relation, name in zip(relations[1:], names[2:], strict=True):
        composed = _COMPOSED.get((whole, relation))
        if composed is None:
            return None
        whole = composed
        worked.append(says(whole, names[0], name))
    clues = [says(r, x, z) for r, (x, z) in zip(relations, pairwise(names), strict=True)]
    answer = _GENDERED[whole][names[0] in _MEN]
    options = list(dict.fromkeys(pair[names[0] in _MEN] for pair in _GENDERED.values()))
    true = [*clues, *worked]
    claims = [says(r, names[0], z) for r in _GENDERED for z in names[1:]]
    return Theory(
        clues=tuple(clues),
        question=f"What is {names[0]} to {names[-1]}?",
        options=tuple(options),
        answer=answer,
        worked=tuple(worked),
        true=tuple(true),
        false=tuple(claim for claim in claims if claim not in true),
    )


def ordering(generator: np.random.Generator, hops: int) -> Theory:
    """Hops + 2 people in a row by height, each compared with the next. Who is tallest or shortest?"""
    names = _some(generator, _WOMEN + _MEN, hops + 2)  # tallest first
    clues = [
        f"{a} is taller than {b}." if generator.random() < 0.5 else f"{b} is shorter than {a}."
        for a, b in pairwise(names)
    ]
    tallest = bool(generator.random() < 0.5)
    winner = names[0] if tallest else names[-1]
    others = names[1:] if tallest else names[-2::-1]
    word = "taller" if tallest else "shorter"
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return Theory(
        clues=tuple(clues),
        question=f"Who is the {'tallest' if tallest else 'shortest'}?",
        options=tuple(sorted(names)),
        answer=winner,
        worked=tuple(f"{winner} is {word} than {other}." for other in others),
        true=tuple(s for a, b in pairs for s in (f"{a} is taller than {b}.", f"{b} is shorter than {a}.")),
        false=tuple(s for a, b in pairs for s in (f"{b} is taller than {a}.", f"{a} is shorter than {b}.")),
    )


def logic(generator: np.random.Generator, hops: int) -> Theory:
    """Two named bits and an expression of `hops` operators. What is its value?"""
    letters = [chr(ord("a") + i) for i in generator.permutation(26)[:2]]
    bits = {letter: int(generator.integers(2)) for letter in letters}
    text = letters[int(generator.integers(2))]
    value = bits[text]
    worked, false = [], []
    for hop in range(hops):
        operator = ("not", "and", "or", "xor")[int(generator.integers(4))]
        inner = f"({text})" if hop else text
        if operator == "not":
            text, value = f"not {inner}", 1 - value
        else:
            other = letters[int(generator.integers(2))]
            results = {"and": value & bits[other], "or": value | bits[other], "xor": value ^ bits[other]}
            text, value = f"{inner} {operator} {other}", results[operator]
        worked.append(f"{text} = {value}")
        false.append(f"{text} = {1 - value}")
    return Theory(
        clues=tuple(f"{letter} is {bit}." for letter, bit in bits.items()),
        question=f"What is {text}?",
        options=("0", "1"),
        answer=str(value),
        worked=tuple(worked),
        true=tuple(worked),
        false=tuple(false),
    )
