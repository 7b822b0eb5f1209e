"""The rule tasks against solvers that read nothing but the prompt."""

import itertools
import re
from collections import Counter

from reckon.tasks import Rules

TASK = Rules(train=1200, dev=120, test=120)
PROBLEMS = list(TASK.problems("train"))


def of(domain):
    found = [p for p in PROBLEMS if p.domain == domain]
    assert len(found) > 200
    return found


def test_domains_and_hops_are_balanced():
    counts = Counter((p.domain, p.columns["hops"]) for p in PROBLEMS)
    assert len(counts) == 12
    assert min(counts.values()) > 60  # 100 expected, standard deviation 9.6


def test_forward_chaining_by_closure():
    for problem in of("forward_chaining"):
        facts = set(re.findall(r"(?:^|\. )([A-Z]\w+) is (\w+)\.", problem.prompt.split("Is ")[0]))
        ((name, fact),) = [f for f in facts if f[0] != "Whoever"]
        known = {fact}
        rules = re.findall(r"Whoever is (\w+) is ((?:not )?\w+)\.", problem.prompt)
        for _ in rules:
            known |= {then for condition, then in rules if condition in known}
        asked = re.search(rf"Is {name} (\w+)\?", problem.prompt)[1]
        expected = "True" if asked in known else "False" if f"not {asked}" in known else "Unknown"
        assert problem.answer == expected


def test_ordering_by_trying_every_order():
    for problem in of("ordering"):
        clues = re.findall(r"(\w+) is (taller|shorter) than (\w+)\.", problem.prompt)
        names = sorted({name for a, _, b in clues for name in (a, b)})
        assert len(names) == problem.columns["hops"] + 2
        fits = [
            order
            for order in itertools.permutations(names)
            if all((order.index(a) < order.index(b)) == (word == "taller") for a, word, b in clues)
        ]
        assert len(fits) == 1
        assert problem.answer == fits[0][0 if "tallest" in problem.prompt else -1]


def test_logic_by_a_truth_table():
    for problem in of("logic"):
        bits = dict(re.findall(r"\b([a-z]) is ([01])\.", problem.prompt))
        text = re.search(r"What is (.*)\? Answer", problem.prompt)[1]
        assert problem.answer == str(evaluate(text, bits))


def evaluate(text, bits):
    """Reads the nested form from the outside in: not X, or X op letter."""
    if text.startswith("(") and text.endswith(")") and balanced(text[1:-1]):
        return evaluate(text[1:-1], bits)
    if text in bits:
        return int(bits[text])
    match = re.fullmatch(r"(.*) (and|or|xor) ([a-z])", text)
    if match and balanced(match[1]):
        a, b = evaluate(match[1], bits), int(bits[match[3]])
        return {"and": a & b, "or": a | b, "xor": a ^ b}[match[2]]
    return 1 - evaluate(text.removeprefix("not "), bits)


def balanced(text):
    depth = 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if depth < 0:
            return False
    return depth == 0


def test_kinship_in_a_real_family():
    """A family tree in which every composition is looked up by walking it."""
    parents = {"b1": "a", "b2": "a", "c1": "b1", "c2": "b1", "c3": "b2", "c4": "b2", "d1": "c1", "d2": "c1", "d3": "c3"}
    people = ["a", *parents]

    def up(x):
        return [] if x not in parents else [parents[x], *up(parents[x])]

    def relation(x, z):
        above = dict(enumerate([z, *up(z)]))
        mine = [x, *up(x)]
        i, j = next((i, j) for i, y in enumerate(mine) for j in above if above[j] == y)
        return RELATIONS.get((i, j))

    answers = {}  # pattern of relations in the prompt -> what the task says
    for problem in of("kinship"):
        clues = re.findall(r"(\w+) is the ([\w-]+) of (\w+)\.", problem.prompt)
        last = re.search(r"What is (\w+) to (\w+)\?", problem.prompt)
        chain = [last[1]]
        while chain[-1] != last[2]:
            chain.append(next(c for a, _, c in clues if a == chain[-1]))
        wanted = [NEUTRAL[next(w for a, w, c in clues if (a, c) == pair)] for pair in itertools.pairwise(chain)]
        answers[tuple(wanted)] = NEUTRAL[problem.answer]
    found = set()
    for length in (2, 3, 4):
        for family in itertools.permutations(people, length):
            pattern = tuple(relation(x, z) for x, z in itertools.pairwise(family))
            if pattern in answers:
                assert relation(family[0], family[-1]) == answers[pattern], (pattern, family)
                found.add(pattern)
    assert len(found) > 20


RELATIONS = {  # generations up from the first, and from the second, to their first common ancestor
    (0, 1): "parent",
    (1, 0): "child",
    (1, 1): "sibling",
    (0, 2): "grandparent",
    (2, 0): "grandchild",
    (1, 2): "pibling",
    (2, 1): "nibling",
    (0, 3): "great-grandparent",
    (3, 0): "great-grandchild",
    (1, 3): "great-pibling",
    (3, 1): "great-nibling",
    (2, 2): "cousin",
}
NEUTRAL = {"cousin": "cousin"}
for _neutral, _pair in {
    "parent": "mother father",
    "child": "daughter son",
    "sibling": "sister brother",
    "grandparent": "grandmother grandfather",
    "grandchild": "granddaughter grandson",
    "pibling": "aunt uncle",
    "nibling": "niece nephew",
    "great-grandparent": "great-grandmother great-grandfather",
    "great-grandchild": "great-granddaughter great-grandson",
    "great-pibling": "great-aunt great-uncle",
    "great-nibling": "great-niece great-nephew",
}.items():
    NEUTRAL |= dict.fromkeys(_pair.split(), _neutral)


def test_steps_tell_what_follows():
    for problem in PROBLEMS[:300]:
        lines = [*problem.columns["worked"], f"Answer: {problem.answer}"]
        false = problem.columns["false"][0]
        text = "\n".join([false, "Hm.", *lines])
        steps = TASK.steps(problem, text)
        assert [step.valid for step in steps] == [False, None, *[True] * len(lines)]
        assert text[steps[0].start : steps[0].end] == false + "\n"
        assert not set(problem.columns["true"]) & set(problem.columns["false"])


def test_domains_and_hops_can_be_chosen():
    task = Rules(domains=("logic",), hops=(2, 2), train=50)
    assert {(p.domain, p.columns["hops"]) for p in task.problems("train")} == {("logic", 2)}
