"""Annotators that check each other."""

import asyncio
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_score, recall_score

from reckon.annotate import (
    AskedVerifier,
    TaskVerifier,
    Triple,
    against_gold,
    agreement,
    annotate,
    triples_of,
)
from reckon.annotate._calls import gather
from reckon.errors import InputError
from reckon.tasks import RunningSums
from reckon.types import Problem, Rng


def triples(n, gold=None):
    return [
        Triple(problem=Problem(id=str(i), prompt=f"{i}?", answer=str(i)), completion=str(i), gold=gold and gold[i])
        for i in range(n)
    ]


def fixed(verdicts):
    return lambda triple: verdicts[int(triple.problem.id)]


Y, N, A = True, False, None


@pytest.mark.parametrize(
    ("policy", "labels"),
    [
        # columns: YY  YN  NN  YA  NA  AA
        ("unanimous", [Y, A, N, A, A, A]),  # an abstention is no agreement
        ("majority", [Y, A, N, A, A, A]),  # of two, a majority is both
        ("any", [Y, Y, N, Y, N, A]),
    ],
)
def test_policies_for_two(policy, labels):
    first, second = [Y, Y, N, Y, N, A], [Y, N, N, A, A, A]
    kept, given_, report = annotate(triples(6), {"a": fixed(first), "b": fixed(second)}, policy)
    assert [int(triple.problem.id) for triple in kept] == [i for i, label in enumerate(labels) if label is not None]
    assert given_ == [label for label in labels if label is not None]
    (table,) = report.pairs
    assert (table.both, table.only_first, table.only_second, table.neither, table.abstained) == (1, 1, 0, 1, 3)
    assert (report.n, report.kept, report.accepted) == (6, len(given_), sum(given_))
    assert report.kept_rate == len(given_) / 6


def test_a_majority_of_three_counts_those_who_abstain():
    votes = {"a": [Y, Y, Y, N], "b": [Y, Y, A, N], "c": [N, A, A, A]}
    kept, labels, report = annotate(triples(4), {name: fixed(v) for name, v in votes.items()}, "majority")
    assert [triple.problem.id for triple in kept] == ["0", "1", "3"]
    assert labels == [Y, Y, N]
    assert len(report.pairs) == 3


def test_a_report_by_hand():
    """a and b agree on 3 of 4: chance = 0.75 * 0.5 + 0.25 * 0.5 = 0.5, kappa = (0.75 - 0.5) / 0.5 = 0.5.

    Gold Y Y N N: a accepts three, two of them right: precision 2/3, recall 1. The labels (both agree) are Y, Y, N for
    the first, second and fourth: precision 1, recall 1.
    """
    a, b, gold = [Y, Y, Y, N], [Y, Y, N, N], [Y, Y, N, N]
    _, labels, report = annotate(triples(4, gold), {"a": fixed(a), "b": fixed(b)})
    assert labels == [Y, Y, N]
    (table,) = report.pairs
    assert (table.rate, table.kappa) == (0.75, 0.5)
    assert report.tallies[0].gold.precision == pytest.approx(2 / 3)
    assert report.tallies[0].gold.recall == 1.0
    assert (report.labels_gold.precision, report.labels_gold.recall, report.labels_gold.n) == (1.0, 1.0, 3)
    assert report.labels_gold.kept_recall == 1.0
    assert report.labels_gold.abstained == 1
    text = str(report)
    assert "3 of 4 kept (75.0%), 2 of them labeled right" in text
    assert "agreement 0.750, kappa 0.500" in text
    assert "precision 0.667" in text


VERDICTS = st.lists(st.tuples(st.sampled_from([Y, N, A]), st.sampled_from([Y, N, A])), min_size=1, max_size=40)


@given(VERDICTS)
def test_against_scikit_learn(rows):
    first, second = [a for a, _ in rows], [b for _, b in rows]
    both = [(a, b) for a, b in rows if a is not None and b is not None]
    table, gold = agreement(first, second), against_gold(first, second)
    if not both:
        assert math.isnan(table.kappa)
        assert math.isnan(gold.accuracy)
        return
    a, b = [x for x, _ in both], [y for _, y in both]
    if len({*a, *b}) == 2:
        assert table.kappa == pytest.approx(cohen_kappa_score(a, b))
    else:
        assert math.isnan(table.kappa)
    assert gold.accuracy == pytest.approx(accuracy_score(b, a))
    assert gold.precision == pytest.approx(precision_score(b, a, zero_division=math.nan), nan_ok=True)
    assert gold.recall == pytest.approx(recall_score(b, a, zero_division=math.nan), nan_ok=True)
    known = [(x is True, y) for x, y in rows if y is not None]  # who abstains does not accept
    whole = recall_score([y for _, y in known], [x for x, _ in known], zero_division=math.nan)
    assert gold.kept_recall == pytest.approx(whole, nan_ok=True)


@given(VERDICTS)
def test_kappa_has_no_sides(rows):
    first, second = [a for a, _ in rows], [b for _, b in rows]
    here, there = agreement(first, second), agreement(second, first)
    assert here.kappa == pytest.approx(there.kappa, nan_ok=True)
    assert (here.only_first, here.n, here.abstained) == (there.only_second, there.n, there.abstained)


def test_failures_abstain_and_are_counted():
    def failing(triple):
        if triple.problem.id == "0":
            raise KeyError("no key")
        if triple.problem.id == "1":
            raise TimeoutError
        return None if triple.problem.id == "2" else True

    _, labels, report = annotate(triples(4), {"failing": failing, "all": lambda triple: True})
    assert labels == [True]
    tally = report.tallies[0]
    assert (tally.accepted, tally.rejected, tally.abstained, tally.raised, tally.timed_out) == (1, 0, 1, 1, 1)
    assert tally.first_error == "KeyError: 'no key'"
    assert "1 raised, 1 timed out" in str(report)


def test_what_hangs_is_left_behind():
    release = threading.Event()

    def hanging(triple):
        if triple.problem.id == "1":
            release.wait(30)
        return True

    began = time.monotonic()
    _, labels, report = annotate(triples(4), [hanging], seconds=0.3, workers=2)
    release.set()
    assert time.monotonic() - began < 10
    assert labels == [True] * 3
    assert report.tallies[0].timed_out == 1
    assert report.tallies[0].name == "hanging"


def test_coroutines_are_awaited_and_canceled():
    async def slow(triple):
        await asyncio.sleep(30 if triple.problem.id == "1" else 0.0)
        return True

    _, labels, report = annotate(triples(3), [slow], seconds=0.5, workers=3)
    assert labels == [True, True]
    assert report.tallies[0].timed_out == 1

    async def inside():  # as in a notebook, where a loop is running already
        return annotate(triples(2), [lambda triple: asyncio.sleep(0, True)])[1]

    assert asyncio.run(inside()) == [True, True]


def test_order_is_kept_and_no_more_than_the_workers_run_at_a_time():
    lock, now, most = threading.Lock(), [0], [0]

    def busy(number):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01 * (5 - number % 5))
        with lock:
            now[0] -= 1
        return number

    assert [called.value for called in gather(busy, range(20), workers=4)] == list(range(20))
    assert 1 < most[0] <= 4


def test_a_task_is_a_verifier():
    task = RunningSums(train=3, dev=1, test=1)
    (problem, *_) = task.problems("train")
    rows = [
        Triple(problem=problem, completion=task.solution(problem)),
        Triple(problem=problem, completion="Total: 1"),
        Triple(problem=Problem(id="x", prompt="?"), completion="Total: 1"),
    ]
    assert [TaskVerifier(task)(row) for row in rows] == [True, False, None]


def test_a_language_model_is_a_verifier():
    seen = []

    async def ask(prompt):
        seen.append(prompt)
        return {"0": "I think yes. So: YES", "1": "no", "2": "maybe"}[prompt.split("Reference answer:\n")[1][0]]

    _, labels, report = annotate(triples(3), {"model": AskedVerifier(ask)}, workers=3)
    assert labels == [True, False]
    assert report.tallies[0].abstained == 1
    assert any("Question:\n0?" in prompt for prompt in seen)
    plain = AskedVerifier(lambda prompt: prompt, template=r"\frac{1}{2} {completion} yes")
    assert annotate(triples(1), {"plain": plain})[1] == [True]


def test_a_completion_cannot_smuggle_a_field_into_the_prompt():
    seen = []
    row = Triple(problem=Problem(id="p", prompt="q {reference}", answer="secret"), completion="{question}")
    annotate(
        [row], {"m": AskedVerifier(lambda prompt: seen.append(prompt) or "yes", template="{question}|{completion}")}
    )
    assert seen == ["q {reference}|{question}"]


def test_rollouts_become_triples():
    from labeling_worlds import ChainPolicy, chain

    rollouts = ChainPolicy().sample(chain().problems("train")[:2], 2, Rng((0,)))
    rows = triples_of(rollouts)
    assert [row.completion for row in rows] == list(rollouts.text)
    assert [row.problem.id for row in rows] == [rollouts.problem(i).id for i in range(4)]


def test_bad_input_is_told():
    with pytest.raises(InputError, match="there is no verifier"):
        annotate(triples(1), [])
    with pytest.raises(InputError, match="`policy` is 'most'"):
        annotate(triples(1), [TaskVerifier], "most")
    with pytest.raises(InputError, match="two verifiers are called '<lambda>'"):
        annotate(triples(1), [lambda triple: True, lambda triple: False])
    with pytest.raises(InputError, match=r"the verifier 'a' gave 0\.5 for triple 0"):
        annotate(triples(1), {"a": lambda triple: 0.5})
    with pytest.raises(InputError, match=r"the template names \{answer\}"):
        AskedVerifier(lambda prompt: "yes", template="{answer}")
    with pytest.raises(InputError, match="`workers` is 0"):
        annotate(triples(1), {"a": fixed([Y])}, workers=0)
    with pytest.raises(InputError, match="`seconds` is 0"):
        annotate(triples(1), {"a": fixed([Y])}, seconds=0)
    with pytest.raises(InputError, match="first gave 1 verdicts and second 2"):
        agreement([Y], [Y, N])
    assert annotate([], {"a": fixed([])})[2].kept_rate == 0.0
