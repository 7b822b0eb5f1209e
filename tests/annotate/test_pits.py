"""The first-pit strategy, in a world whose pits are the first bad steps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labeling_worlds import PitPolicy, PitTask, code, piece, rollouts_of

from reckon.annotate import Budget, Drawing, FirstPit, label_first_pits
from reckon.errors import InputError
from reckon.steps import Pattern
from reckon.types import End, Problem, Rng, Verdict

LINE = Pattern()


def pits(policy, task, *, n_cov=2, problems=4, n_mc=16, seed=0, **how):
    rollouts = policy.sample(task.problems("train")[:problems], n_cov, Rng((seed, "seeds")))
    return label_first_pits(policy, task, rollouts, LINE, n_mc, Rng((seed, "mc")), **how)


def traces(labels):
    found = {}
    for record in labels:
        found.setdefault(record.trace, []).append(record)
    return found.values()


@pytest.mark.parametrize("search", ["linear", "binary"])
def test_the_pit_is_the_first_bad_step(search):
    """A look of 64 completions misses a value of at least 0.9^6 = 0.53 with probability 0.47^64, that is never."""
    policy, task = PitPolicy(error=0.1, steps=6), PitTask(steps=6)
    labels = pits(policy, task, hunt=FirstPit(n_rough=64, per_state=3, search=search))
    assert len(traces(labels)) >= 20
    for records in traces(labels):
        assert [record.step for record in records] == list(range(len(records)))  # every prefix, nothing after the pit
        assert ["b" in record.text for record in records] == [False] * (len(records) - 1) + [True]
        assert records[-1].q_hat == 0.0
        assert all(record.q_hat > 0 for record in records[:-1])
        assert {record.source for record in records} == {"pit"}
        assert {record.outcome for record in records} == {0}
        assert {record.n_mc for record in records} == {16}


def test_linear_and_binary_agree_where_the_lost_stay_lost_and_binary_is_cheaper():
    policy, task = PitPolicy(error=0.05, steps=12), PitTask(steps=12)
    linear, binary = (
        pits(policy, task, problems=2, n_cov=1, hunt=FirstPit(n_rough=64, per_state=2, search=search))
        for search in ("linear", "binary")
    )
    assert [(r.trace, r.text) for r in linear] == [(r.trace, r.text) for r in binary]
    assert binary.cost.rollouts < linear.cost.rollouts


class Scripted:
    """Four lines; the value of a prefix is looked up by its letters, and completions are right in a fixed share."""

    def __init__(self, values):
        self.values = values

    def sample(self, problems, k, rng, prefixes=None):
        rows, given = [], []
        for prefix in prefixes or [()] * len(problems):
            text = "".join(map(piece, prefix))
            right = round(self.values.get(text.replace("\n", ""), 0) * k)
            for j in range(k):
                rest = "\n".join("aaaa" if j < right else "abcd")[len(text) :]
                rows.append([*map(piece, prefix), *rest, ""])
                given.append(len(prefix))
        return rollouts_of(problems, k, rows, [End.EOS] * len(rows), given)


class LastLetter:
    name = "last letter"

    def problems(self, split):
        return [Problem(id="p", prompt="?", answer="a")]

    def check(self, problem, text):
        right = text.endswith("a")
        return Verdict(outcome=float(right), answer=text[-1:], reason="right" if right else "wrong")


@pytest.mark.parametrize(("search", "pit"), [("linear", "a\n"), ("binary", "a\nb\nc\n")])
def test_a_binary_search_may_miss_a_pit_that_the_response_climbs_out_of(search, pit):
    """Along a, b, c, d the values are 0, 0.75, 0, 0, after hope (0.75) at the start.

    A linear scan stops after step 1. A binary one looks at (0 + 4) // 2 = 2 first, finds hope, and then at 3.
    """
    policy = Scripted({"": 0.75, "a": 0.0, "ab": 0.75, "abc": 0.0})
    rollouts = policy.sample(LastLetter().problems("train"), 1, Rng((0,)))
    hunt = FirstPit(n_rough=4, search=search)
    labels = label_first_pits(policy, LastLetter(), rollouts, LINE, 8, Rng((0,)), hunt=hunt)
    assert labels.records[-1].text == pit


class NoVerdictOnAba(LastLetter):
    def check(self, problem, text):
        if text.startswith("a\nb\na"):
            return Verdict(outcome=None, answer=None, reason="timed out")
        return super().check(problem, text)


def test_a_prefix_without_a_known_verdict_is_no_pit():
    """From a, b all completions are a, b, a, a, which nobody can judge; the pit is the next one, a, b, c."""
    policy = Scripted({"": 0.75, "ab": 1.0})
    rollouts = policy.sample(LastLetter().problems("train"), 1, Rng((0,)))
    policy.values["a"] = 0.75
    hunt = FirstPit(n_rough=4)
    labels = label_first_pits(policy, NoVerdictOnAba(), rollouts, LINE, 8, Rng((0,)), hunt=hunt)
    assert [(r.text, r.n_mc) for r in labels if r.trace == 0] == [
        ("", 8),
        ("a\n", 8),
        ("a\nb\n", 0),
        ("a\nb\nc\n", 8),
    ]


def test_costs_by_hand():
    """One seed a, a, a, a of values 0.75 everywhere: rough looks at 4 prefixes (the whole one is checked).

    Every look of 4 has one wrong completion, always a, b, c, d or what is left of it behind the prefix; from "" it is
    abcd, from "a" abcd again (the same trace, taken once), from "aa" aacd, from "aaa" aaad: 3 hunts. Their pits: abcd
    at "ab" (1 look, known hope after step 0), aacd: "aac" has value 0 (1 look), aaad: the last step, no look.
    abcd is hunted from step 0: looks at "a" (0.75) and at "ab" (0). So 1 + 4 * 4 + (2 + 1 + 0) * 4 = 29 rollouts, and
    labels of 8: abcd 3 prefixes, aacd 4, aaad 4 (its whole response is checked): 11 * 8 = 88. In all 117.
    """
    values = {"": 0.75, "a": 0.75, "aa": 0.75, "aaa": 0.75}
    policy, task = Scripted(values), LastLetter()
    seed = rollouts_of(task.problems("train"), 1, [["a", "\n", "a", "\n", "a", "\n", "a", ""]], [End.EOS], [0])
    labels = label_first_pits(policy, task, seed, LINE, 8, Rng((0,)), hunt=FirstPit(n_rough=4))
    assert [records[-1].text for records in traces(labels)] == ["a\nb\n", "a\na\nc\n", "a\na\na\nd"]
    assert labels.cost.rollouts == 117
    shared = label_first_pits(
        policy, task, seed, LINE, 8, Rng((0,)), hunt=FirstPit(n_rough=4), drawing=Drawing(share=True)
    )
    # "" and "a" are drawn once for three, "aa" once for two: 2 + 2 + 1 = 5 draws of 8 less.
    assert shared.cost.rollouts == 117 - 40
    assert len(shared) == len(labels)
    assert sum(r.n_drawn for r in shared) == 88 - 40


def test_nothing_promising_gives_no_labels():
    policy, task = PitPolicy(error=0.5, steps=6), PitTask(steps=6)
    labels = pits(policy, task, hunt=FirstPit(n_rough=32, tau_high=0.99))
    assert len(labels) == 0
    assert labels.left_out == 0
    assert labels.cost.rollouts > 8


class Unsure(PitTask):
    def check(self, problem, text):
        if "b" in text:
            return Verdict(outcome=None, answer=None, reason="timed out")
        return super().check(problem, text)


def test_what_is_unknown_is_neither_wrong_nor_a_pit():
    policy = PitPolicy(error=0.2, steps=6)
    assert len(pits(policy, Unsure(), hunt=FirstPit(n_rough=16))) == 0


@given(limit=st.integers(8, 400), n_mc=st.integers(1, 8), search=st.sampled_from(["linear", "binary"]))
@settings(max_examples=30)
def test_the_budget_is_never_exceeded(limit, n_mc, search):
    policy, task = PitPolicy(error=0.15, steps=6), PitTask(steps=6)
    hunt = FirstPit(n_rough=4, per_state=2, search=search)
    how = {"hunt": hunt, "drawing": Drawing(problems_per_chunk=2)}
    labels = pits(policy, task, n_mc=n_mc, budget=Budget(rollouts=limit), **how)
    assert labels.cost.rollouts <= limit
    free = pits(policy, task, n_mc=n_mc, **how)
    assert free.left_out == 0
    assert labels.left_out or labels.cost == free.cost


def test_resumed_equals_uninterrupted(tmp_path):
    policy, task = PitPolicy(error=0.15, steps=6), PitTask(steps=6)
    how = {"drawing": Drawing(problems_per_chunk=1)}
    straight = pits(policy, task, **how)
    pits(policy, task, folder=tmp_path, **how)
    (tmp_path / "labels-00002.parquet").unlink()
    policy.calls.clear()
    again = pits(policy, task, folder=tmp_path, **how)
    assert again.records == straight.records
    assert again.cost == straight.cost
    assert {groups for groups, _ in policy.calls[:1]} == {4}  # the four seeds' problems; then one chunk of work
    assert len(policy.calls) < 12
    with pytest.raises(InputError, match="another `search`"):
        pits(policy, task, folder=tmp_path, hunt=FirstPit(search="binary"), **how)


def test_bad_settings_are_told():
    with pytest.raises(InputError, match=r"`tau_high` is 1\.0; it must be at least 0 and below 1"):
        FirstPit(tau_high=1.0)
    with pytest.raises(InputError, match="`n_rough` is 0"):
        FirstPit(n_rough=0)
    with pytest.raises(InputError, match="`search` is 'ternary'"):
        FirstPit(search="ternary")


def test_codes_of_the_toy_alphabet_are_their_own_inverse():
    assert [piece(code(letter)) for letter in ("a", "\n", "")] == ["a", "\n", ""]
