"""Pairs of a right response and the same one made wrong."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.annotate import (
    ChangeNumber,
    SwapOperator,
    answer_of,
    build_pairs,
    choose_positives,
    pairs_of,
    rejected_pairs,
    why_refused,
)
from reckon.errors import InputError
from reckon.tasks import Number, RunningSums
from reckon.types import Batch, End, Problem, Rng, Rollouts, Seen, Sequences, Verdict

NAN = float("nan")
TASK = RunningSums(train=20, dev=1, test=1)


class Numbers:
    """Any number is judged by the reference."""

    name = "numbers"

    def problems(self, split):
        return []

    def check(self, problem, text):
        return Number()(text, problem.answer)


def rollouts(rows):
    """`rows`: one list of texts for each prompt; the right answer is 85."""
    texts = [text for row in rows for text in row]
    n = len(texts)
    problems = tuple(Problem(id=f"p{g}", prompt=f"sum {g}?", answer="85") for g in range(len(rows)))
    return Rollouts(
        seq=Sequences(
            prompts=tuple(torch.tensor([1]) for _ in rows),
            group=torch.tensor([g for g, row in enumerate(rows) for _ in row]),
            tokens=torch.ones(n, 1, dtype=torch.int64),
            mask=torch.ones(n, 1, dtype=torch.bool),
        ),
        problems=problems,
        text=tuple(texts),
        pieces=tuple((text,) for text in texts),
        logprobs=torch.zeros(n, 1),
        end=torch.zeros(n, dtype=torch.int64),
    )


WRONG = lambda problem, text, rng: "Total: 91"  # noqa: E731


def test_the_first_right_response_of_each_prompt_in_batch_order():
    """Verdicts [0, 1, 1] choose the second row; [0, 0] gives no pair; NaN is not right."""
    given_ = rollouts([["a 1", "b Total: 85", "c Total: 85"], ["d 2", "e 3"], ["f 4", "g Total: 85"]])
    outcome = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, NAN, 1.0])
    pairs = build_pairs(given_, outcome, Numbers(), WRONG, Rng((0,)))
    assert [(pair.row, pair.problem.id, pair.chosen, pair.rejected) for pair in pairs.pairs] == [
        (1, "p0", "b Total: 85", "Total: 91"),
        (6, "p2", "g Total: 85", "Total: 91"),
    ]
    assert pairs.valid == (True, False, True)
    assert pairs.positive == (True, False, True)
    assert pairs.share == pytest.approx(2 / 3)
    assert pairs.metrics() == {
        "pairs/share": pytest.approx(2 / 3),
        "pairs/positive_share": pytest.approx(2 / 3),
        "pairs/n": 2.0,
    }


def test_which_positive():
    given_ = rollouts([["1", "85", "85.0", "Total: 85"], ["85"]])
    outcome = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0])
    scores = torch.tensor([-9.0, 0.5, NAN, -0.5, 0.0])

    def chosen(seed=0, **how):
        return choose_positives(given_, outcome, Rng((seed,)), **how)

    assert chosen() == [1, 4]
    assert chosen(positive="all") == [1, 2, 3, 4]
    assert chosen(positive="lowest_score", scores=scores) == [
        3,
        4,
    ]  # not the wrong row, and not the one without a score
    draws = [chosen(seed, positive="random")[0] for seed in range(200)]
    assert all(draws.count(row) > 40 for row in (1, 2, 3))
    assert chosen(7, positive="random") == chosen(7, positive="random")
    with pytest.raises(InputError, match="belong together"):
        chosen(positive="lowest_score")
    with pytest.raises(InputError, match="belong together"):
        chosen(scores=scores)
    with pytest.raises(InputError, match="`positive` is 'best'"):
        chosen(positive="best")
    with pytest.raises(InputError, match="one value for each of the 5 responses"):
        choose_positives(given_, outcome[:2], Rng((0,)))


@pytest.mark.parametrize(
    ("corruptor", "reason"),
    [
        (lambda problem, text, rng: text, "right"),
        (lambda problem, text, rng: "", "no answer"),  # the reference code takes it
        (lambda problem, text, rng: "I do not know", "no answer"),  # as well
        (lambda problem, text, rng: "Total: 85.0", "right"),
        (lambda problem, text, rng: None, "nothing"),
        (lambda problem, text, rng: 1 / 0, "failed"),
    ],
)
def test_what_is_no_negative_gives_a_valid_rate_of_0(corruptor, reason):
    given_ = rollouts([["Total: 85"], ["Total: 85"]])
    pairs = build_pairs(given_, torch.ones(2), Numbers(), corruptor, Rng((0,)), tries=3)
    assert pairs.share == 0.0
    assert pairs.pairs == ()
    assert pairs.positive == (True, True)
    assert pairs.refused == {reason: 6}
    assert pairs.metrics()[f"pairs/refused/{reason.replace(' ', '_')}"] == 6.0


class Gullible(Numbers):
    """Knows one form of the reference only, as rule verifiers do: everything else is wrong."""

    def check(self, problem, text):
        found = Number()(text, problem.answer)
        if problem.answer == "85" and found.outcome == 1 and not text.startswith("Total"):
            return Verdict(outcome=0.0, answer=found.answer, reason="wrong")
        return found


class Fractions(Numbers):
    """Reads answers as they stand, and compares their values."""

    def check(self, problem, text):
        found = Number()(text, problem.answer)
        return Verdict(outcome=found.outcome, answer=text or None, reason=found.reason)


class Slow(Numbers):
    def check(self, problem, text):
        if text == "slow":
            return Verdict(outcome=None, answer="9", reason="timed out")
        return super().check(problem, text)


def test_a_negative_is_compared_with_the_reference_and_the_positive():
    problem = Problem(id="p", prompt="?", answer="85")
    assert why_refused(Numbers(), problem, "Total: 85", "Total: 91") is None
    assert why_refused(Gullible(), problem, "Total: 85", "it is 85") == "same answer"  # wrong by the rule alone
    # The positive says 1/2 (the rule may be mistaken), the negative 0.5: other letters, the same answer.
    assert why_refused(Fractions(), problem, "1/2", "0.5") == "same answer"
    assert why_refused(Fractions(), problem, "1/2", "0.6") is None
    assert why_refused(Slow(), problem, "Total: 85", "slow") == "unknown"
    assert why_refused(Numbers(), problem, "no number", "Total: 91") == "positive unread"
    assert why_refused(Numbers(), Problem(id="p", prompt="?"), "85", "91") == "unknown"  # no reference


def test_it_tries_again_with_other_chances_and_only_where_needed():
    asked = []

    def second(problem, text, rng):
        asked.append((problem.id, rng))
        return "Total: 91" if problem.id == "p0" or rng.key[-1] == 1 else text

    given_ = rollouts([["Total: 85"], ["Total: 85"], ["Total: 1"]])
    pairs = build_pairs(given_, torch.tensor([1.0, 1.0, 0.0]), Numbers(), second, Rng((0,)))
    assert [name for name, _ in asked] == ["p0", "p1", "p1"]  # never for a prompt without a positive
    assert len({rng for _, rng in asked}) == 3
    assert pairs.valid == (True, True, False)
    assert pairs.refused == {"right": 1}


def solved(problems=6):
    found = list(TASK.problems("train")[:problems])
    given_ = rollouts([[TASK.solution(problem), "Total: 3"] for problem in found])
    return Rollouts(**{**vars(given_), "problems": tuple(found)}), torch.tensor([1.0, 0.0] * problems)


@given(workers=st.integers(1, 5), seed=st.integers(0, 5))
@settings(max_examples=15)
def test_pairs_do_not_depend_on_how_many_work_on_them(workers, seed):
    given_, outcome = solved()

    def corrupt(problem, text, rng):
        time.sleep(0.001 * (hash(problem.id) % 3))
        return ChangeNumber(read=answer_of(TASK))(problem, text, rng)

    alone = build_pairs(given_, outcome, TASK, corrupt, Rng((seed,)))
    together = build_pairs(given_, outcome, TASK, corrupt, Rng((seed,)), workers=workers)
    assert alone == together
    assert alone.share == 1.0
    assert [pair.row for pair in alone.pairs] == [0, 2, 4, 6, 8, 10]


def test_a_prompt_s_negative_does_not_depend_on_the_others():
    given_, outcome = solved()
    corruptor = SwapOperator()
    whole = build_pairs(given_, outcome, TASK, corruptor, Rng((0,)))
    outcome[0] = 0.0
    less = build_pairs(given_, outcome, TASK, corruptor, Rng((0,)))
    assert whole.pairs[1:] == less.pairs


def test_coroutines_and_time_limits():
    import asyncio

    async def slow(problem, text, rng):
        await asyncio.sleep(30 if problem.id == "p1" else 0)
        return "Total: 91"

    given_ = rollouts([["Total: 85"], ["Total: 85"], ["Total: 85"]])
    pairs = build_pairs(given_, torch.ones(3), Numbers(), slow, Rng((0,)), workers=3, seconds=0.5, tries=1)
    assert pairs.valid == (True, False, True)
    assert pairs.refused == {"failed": 1}


def test_pairs_of_a_batch():
    given_, outcome = solved()
    n = len(outcome)
    seen = Seen(
        problems=tuple(given_.problem(i) for i in range(n)),
        outcome=outcome,
        lengths=torch.ones(n, dtype=torch.int64),
        end=torch.full((n,), int(End.EOS)),
        rounds=1,
        wanted=6,
        kept=6,
    )
    batch = Batch(rollouts=given_, outcome=outcome, train=torch.ones(n, dtype=torch.bool), seen=seen, step=1)
    for how in ({}, {"positive": "lowest_score", "scores": -torch.arange(float(n))}, {"workers": 2, "seconds": 60}):
        made = pairs_of(batch, TASK, SwapOperator(), Rng((0,)), **how)
        assert made == build_pairs(given_, outcome, TASK, SwapOperator(), Rng((0,)), **how)
        assert made.share == 1.0


def test_rejected_rollouts_as_negatives():
    given_ = rollouts([["1", "85", "2"], ["85"], ["3"]])
    pairs = rejected_pairs(given_, torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]))
    assert [(pair.row, pair.chosen, pair.rejected) for pair in pairs.pairs] == [(1, "85", "1")]
    assert (pairs.valid, pairs.positive) == ((True, False, False), (True, True, False))


def test_bad_input_is_told():
    given_ = rollouts([["85"]])
    with pytest.raises(InputError, match="`tries` is 0"):
        build_pairs(given_, torch.ones(1), Numbers(), WRONG, Rng((0,)), tries=0)
    empty = build_pairs(rollouts([["1"]]), torch.zeros(1), Numbers(), WRONG, Rng((0,)))
    assert (empty.share, empty.refused) == (0.0, {})
