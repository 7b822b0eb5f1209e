"""Corruptors: what they change, what they leave, and that chance is theirs by name."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.annotate import ChangeNumber, DeleteStep, Rewriter, SwapOperator, Then, answer_of
from reckon.annotate._calls import gather
from reckon.errors import InputError
from reckon.steps import Pattern
from reckon.tasks import RunningSums
from reckon.types import Problem, Rng

TASK = RunningSums(train=20, dev=1, test=1)
PROBLEM = Problem(id="p", prompt="Add these numbers step by step: 17, 48, 20", answer="85")
SOLUTION = "17 + 48 = 65\n65 + 20 = 85\nTotal: 85"


def many(corruptor, text=SOLUTION, n=60, problem=PROBLEM):
    return [corruptor(problem, text, Rng((i,))) for i in range(n)]


def test_the_final_number_is_another_one_of_the_same_length():
    changed = many(ChangeNumber())
    assert all(re.fullmatch(r"17 \+ 48 = 65\n65 \+ 20 = 85\nTotal: [1-9]\d", text) for text in changed)
    assert SOLUTION not in changed
    assert len(set(changed)) > 30


def test_every_other_number_is_equally_likely():
    """One digit: nine others. 900 draws, about 100 each, with a standard deviation below 10."""
    counts = {}
    for text in many(ChangeNumber(), "7", n=900):
        counts[text] = counts.get(text, 0) + 1
    assert sorted(counts) == list("012345689")
    assert all(60 < count < 140 for count in counts.values())


@given(
    st.from_regex(r"[1-9]\d{0,2}(,\d{3}){0,2}(\.\d{1,3})?|0|0\.\d{1,4}|\d{19,25}", fullmatch=True), st.integers(0, 99)
)
def test_shape_and_leading_digit_stay_and_the_value_changes(numeral, seed):
    new = ChangeNumber()(PROBLEM, f"It is {numeral}.", Rng((seed,))).removeprefix("It is ").removesuffix(".")
    assert re.sub(r"\d", "0", new) == re.sub(r"\d", "0", numeral)
    assert new != numeral
    assert not (new[0] == "0" and numeral[0] != "0" and len(re.split(r"\.", new)[0]) > 1)


def test_the_number_that_decides_the_answer_is_changed_not_the_last_one():
    read = answer_of(TASK)
    text = "17 + 48 = 65\nTotal: 85 (rule 3)"
    assert all(re.fullmatch(r"17 \+ 48 = 65\nTotal: \d\d \(rule 3\)", t) for t in many(ChangeNumber(read=read), text))
    assert {t[-2] for t in many(ChangeNumber(), text)} - {"3"}  # without a reader the last number is taken


def test_a_change_that_leaves_no_answer_is_none():
    """The answer is the first number, but only where the last one is 8: only the first may be changed."""

    def read(problem, text):
        first, last = text.split()
        return first if last == "8" else None

    assert all(re.fullmatch(r"\d 8", text) for text in many(ChangeNumber(read=read), "7 8"))


def test_one_digit_before_it_changes_too_if_asked():
    for text in many(ChangeNumber(intermediate=True)):
        head, total = text.rsplit("Total: ", 1)
        assert total != "85"
        differing = [(a, b) for a, b in zip(head, SOLUTION.rsplit("Total: ", 1)[0], strict=True) if a != b]
        assert len(differing) == 1
        assert all(a.isdigit() and b.isdigit() for a, b in differing)
    assert many(ChangeNumber(intermediate=True), "85", n=1)[0] != "85"  # nothing before it


def test_nothing_to_change():
    assert ChangeNumber()(PROBLEM, "no number here", Rng((0,))) is None
    assert ChangeNumber(read=lambda problem, text: "always")(PROBLEM, "1 2 3", Rng((0,))) is None
    assert DeleteStep(Pattern())(PROBLEM, "one line", Rng((0,))) is None
    assert SwapOperator()(PROBLEM, "Total: 85", Rng((0,))) is None
    assert Then([ChangeNumber(), DeleteStep(Pattern())])(PROBLEM, "85", Rng((0,))) is None


def test_a_step_is_left_out():
    lines = SOLUTION.split("\n")
    expected = {"\n".join(lines[:i] + lines[i + 1 :]) for i in range(3)}
    assert set(many(DeleteStep(Pattern()))) == expected


def test_a_swapped_operator_is_carried_to_the_end():
    """The first equation: 17 * 48 = 816, so 816 + 20 = 836 (17 - 48 is below 0, 17 / 48 no whole number).

    The second: 65 - 20 = 45, 65 * 20 = 1300 (65 / 20 is none).
    """
    assert set(many(SwapOperator())) == {
        "17 * 48 = 816\n816 + 20 = 836\nTotal: 836",
        "17 + 48 = 65\n65 - 20 = 45\nTotal: 45",
        "17 + 48 = 65\n65 * 20 = 1300\nTotal: 1300",
    }


def test_a_swapped_operator_alone():
    for text in many(SwapOperator(carry=False)):
        assert sum(a != b for a, b in zip(text, SOLUTION, strict=True)) == 1
        assert text.endswith("Total: 85")


def test_multiplication_comes_first_and_other_signs_are_read():
    """2 + 3 × 4 = 14. For +: 2 - 12 is below 0, 2 * 3 * 4 = 24. For ×: 2 + 3 + 4 = 9, 2 + 3 - 4 = 1. / gives none."""
    assert set(many(SwapOperator(), "2 + 3 × 4 = 14, so 14.")) == {
        "2 * 3 × 4 = 24, so 24.",
        "2 + 3 + 4 = 9, so 9.",
        "2 + 3 - 4 = 1, so 1.",
    }
    assert set(many(SwapOperator(), "6÷2 = 3")) == {"6+2 = 8", "6-2 = 4", "6*2 = 12"}
    assert many(SwapOperator(), "1 + 0 = 1", n=40).count("1 / 0 = 1") == 0


def test_numbers_that_only_contain_the_result_stay():
    text = "1 + 4 = 5. It is 5, not 55, 5.5 or 15."
    assert "1 * 4 = 4. It is 4, not 55, 5.5 or 15." in many(SwapOperator(), text)


def test_corrupted_solutions_of_a_task_are_wrong():
    """Whatever the problem: a carried swap and a changed total are wrong by the task's own checker."""
    for corruptor in (
        ChangeNumber(read=answer_of(TASK)),
        SwapOperator(),
        Then([DeleteStep(Pattern()), ChangeNumber()]),
    ):
        for problem in TASK.problems("train"):
            text = corruptor(problem, TASK.solution(problem), Rng((problem.id,)))
            assert TASK.check(problem, text).outcome == 0.0


@given(st.text(alphabet="0123456789+-*/= .,\n", max_size=200), st.integers(0, 9))
@settings(max_examples=200)
def test_any_text_is_survived_and_named_chance_decides(text, seed):
    for corruptor in (
        ChangeNumber(intermediate=True),
        DeleteStep(Pattern()),
        SwapOperator(),
        SwapOperator(carry=False),
        Then([ChangeNumber(), SwapOperator()]),
    ):
        assert corruptor(PROBLEM, text, Rng((seed,))) == corruptor(PROBLEM, text, Rng((seed,)))


def test_a_long_text_is_cheap():
    text = "1 + 1 = 2 " * 20_000 + "9" * 100_000
    began = time.process_time()
    for corruptor in (ChangeNumber(read=answer_of(TASK)), SwapOperator()):
        corruptor(PROBLEM, text, Rng((0,)))
    assert time.process_time() - began < 10  # a search that is quadratic in these 300,000 characters takes minutes


# A language model


def rewrite(rewriter):
    (called,) = gather(lambda rng: rewriter(PROBLEM, SOLUTION, rng), [Rng((0,))])
    return called


def test_a_language_model_rewrites():
    seen = {}

    async def ask(prompt, *, max_tokens, seed):
        seen.update(prompt=prompt, max_tokens=max_tokens, seed=seed)
        return " Total: 86\n"

    assert rewrite(Rewriter(ask=ask)).value == "Total: 86"
    assert seen["max_tokens"] == 12 + 500  # words of the solution: 5 + 5 + 2
    assert "17, 48, 20" in seen["prompt"]
    assert SOLUTION in seen["prompt"]
    assert 0 <= seen["seed"] < 2**31
    assert rewrite(Rewriter(ask=lambda prompt: "plain")).value == "plain"
    assert rewrite(Rewriter(ask=lambda prompt, **options: str(sorted(options)))).value == str(
        ["max_tokens", "seed", "temperature"]
    )


def test_it_tries_again_and_gives_up():
    calls = []

    def flaky(prompt, seed):
        calls.append(seed)
        if len(calls) < 3:
            raise ConnectionError("busy")
        return "Total: 86"

    assert rewrite(Rewriter(ask=flaky, pause=0.0)).value == "Total: 86"
    assert len(set(calls)) == 3
    calls.clear()
    called = rewrite(Rewriter(ask=flaky, pause=0.0, tries=2))
    assert (called.value, called.failure, called.error) == (None, "raised", "ConnectionError: busy")


def test_bad_settings_are_told():
    with pytest.raises(InputError, match="`tries` is 0"):
        Rewriter(ask=str, tries=0)
    with pytest.raises(InputError, match=r"the template names \{solution\}"):
        Rewriter(ask=str, template="{solution}")
    with pytest.raises(InputError, match="then: there is no corruptor"):
        Then([])
