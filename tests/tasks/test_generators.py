"""Gold answers, splits, distributions and steps of the generated tasks."""

import itertools
import math
import re
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reckon.errors import InputError
from reckon.tasks import (
    ChainArithmetic,
    DistinctLetters,
    Largest,
    LetterCount,
    Rules,
    RunningSums,
    Substring,
    WordLength,
    split_of,
)
from reckon.types import Rng

TASKS = [
    LetterCount(train=600, dev=150, test=150),
    LetterCount(count="natural", mode="direct", train=600, dev=150, test=150),
    WordLength(train=600, dev=150, test=150),
    DistinctLetters(train=600, dev=150, test=150),
    DistinctLetters(count="natural", train=600, dev=150, test=150),
    Substring(train=600, dev=150, test=150),
    Substring(negatives="edit", mode="direct", train=600, dev=150, test=150),
    ChainArithmetic(train=600, dev=150, test=150),
    RunningSums(train=600, dev=150, test=150),
    RunningSums(count=(2, 7), size=(0, 2000), train=600, dev=150, test=150),
    Largest(train=600, dev=150, test=150),
    Rules(train=600, dev=150, test=150),
]
each = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


@each
def test_gold_solutions_earn_the_full_reward_and_their_steps_are_valid(task):
    for problem in itertools.chain(*(task.problems(split) for split in ("train", "dev", "test"))):
        solution = task.solution(problem)
        verdict = task.check(problem, solution)
        assert (verdict.outcome, verdict.reason) == (1.0, "right")
        assert all(step.valid for step in task.steps(problem, solution))


@each
def test_no_prompt_twice_and_no_split_shares_one(task):
    prompts = [p.prompt for split in ("train", "dev", "test") for p in task.problems(split)]
    assert len(set(prompts)) == len(prompts) == 900
    ids = [p.id for p in task.problems("train")]
    assert len(set(ids)) == len(ids)


@each
def test_another_seed_gives_other_problems_but_never_crosses_splits(task):
    other = type(task)(**{**task.__dict__, "seed": 1})
    assert [p.prompt for p in other.problems("dev")] != [p.prompt for p in task.problems("dev")]
    ours = {p.prompt for p in task.problems("train")}
    assert not ours & {p.prompt for split in ("dev", "test") for p in other.problems(split)}


@each
def test_same_seed_same_problems_in_any_order_of_asking(task):
    first, second = task.problems("dev"), type(task).problems.__wrapped__(task, "dev")
    assert second is not first
    assert second[149] == first[149]
    assert list(first) == list(second)
    assert first[-1] == first[149]
    assert list(first[3:6]) == [first[3], first[4], first[5]]
    with pytest.raises(IndexError):
        first[150]


@each
def test_tasks_with_the_same_settings_share_their_problems(task):
    problems = task.problems("dev")
    assert type(task)(**task.__dict__).problems("dev") is problems
    assert task.problems("test") is not problems
    for other in ({"seed": 5}, {"seed": False}, {"dev": 7}):  # False == 0, and names other random numbers
        assert type(task)(**{**task.__dict__, **other}).problems("dev") is not problems


def test_settings_may_be_lists():
    """As somebody writes them in Python; they cannot be hashed."""
    one, other = RunningSums(count=[2, 3]), RunningSums(count=[2, 4])
    assert one.problems("dev") is RunningSums(count=[2, 3]).problems("dev")
    assert one.problems("dev") is not other.problems("dev")


@each
def test_prompts_are_plain_ascii(task):
    assert all(p.prompt.isascii() and "\n" not in p.prompt for p in task.problems("train"))


def test_no_word_of_training_is_in_any_counting_test():
    train = {p.columns["word"] for task in TASKS[:7] for p in task.problems("train")}
    test = {p.columns["word"] for task in TASKS[:7] for p in task.problems("test")}
    assert not train & test


@pytest.mark.parametrize("task", [TASKS[8], TASKS[10]], ids=lambda task: task.name)
def test_the_order_of_numbers_does_not_cross_splits(task):
    def contents(split):
        return {tuple(sorted(re.findall(r"\d+", p.prompt))) for p in task.problems(split)}

    assert not contents("train") & (contents("dev") | contents("test"))


@pytest.mark.parametrize(
    ("task", "answers"),
    [
        (LetterCount(train=3000), [str(n) for n in range(5)]),
        (WordLength(train=3000), [str(n) for n in range(4, 13)]),
        (DistinctLetters(train=3000), [str(n) for n in range(2, 11)]),
        (Substring(train=3000), ["Yes", "No"]),
        (ChainArithmetic(train=3000), [str(n) for n in range(10)]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_uniform_answers_are_uniform(task, answers):
    counts = Counter(p.answer for p in task.problems("train"))
    assert set(counts) == set(answers)
    assert stats.chisquare([counts[answer] for answer in answers]).pvalue > 0.001


def test_a_natural_count_is_mostly_one_and_never_zero():
    counts = Counter(p.answer for p in LetterCount(count="natural", train=2000).problems("train"))
    assert counts["0"] == 0
    assert counts["1"] / 2000 > 0.7


def test_exact_templates():
    word = LetterCount().problems("train")[0]
    assert re.fullmatch(r"How many [a-z]'s in the word \"[a-z]{4,10}\"\?", word.prompt)
    direct = WordLength(mode="direct").problems("train")[0].prompt
    assert re.fullmatch(r'How many characters in the word "[a-z]+"\? Directly answer the number\.', direct)
    assert re.fullmatch(
        r'How many distinct characters in the word "[a-z]+"\?', DistinctLetters().problems("train")[0].prompt
    )
    assert re.fullmatch(
        r'Is substring "[a-z]{2,3}" part of the word "[a-z]+"\?', Substring().problems("train")[0].prompt
    )
    numbers = Largest().problems("train")[0].prompt
    assert re.fullmatch(
        r"Which of these numbers is the largest: \d\d(, \d\d){4}\? Reply with the number only\.", numbers
    )
    assert re.fullmatch(r"Add these numbers step by step: \d\d(, \d\d){4}", RunningSums().problems("train")[0].prompt)


def test_counting_answers_follow_from_the_prompt_alone():
    """Recomputed from the prompt with str methods, never from what the generator knew."""
    for task in TASKS[:7]:
        for problem in task.problems("dev"):
            quoted = re.findall(r'"([^"]*)"', problem.prompt)
            if task.name == "letter_count":
                expected = str(quoted[0].count(problem.prompt[9]))
            elif task.name == "word_length":
                expected = str(len(quoted[0]))
            elif task.name == "distinct_letters":
                expected = str(len(set(quoted[0])))
            else:
                expected = "Yes" if quoted[0] in quoted[1] else "No"
            assert problem.answer == expected


def test_negatives():
    for problem in Substring(negatives="edit", train=300).problems("train"):
        part, word = problem.columns["part"], problem.columns["word"]
        if problem.answer == "No":
            slices = [word[i : i + len(part)] for i in range(len(word) - len(part) + 1)]
            assert min(sum(a != b for a, b in zip(part, one, strict=True)) for one in slices) == 1
            assert part not in word
    for problem in Substring(negatives="hard", train=300).problems("train"):
        part, word = problem.columns["part"], problem.columns["word"]
        assert not Counter(part) - Counter(word)  # letters alone never tell
        assert (part in word) == (problem.answer == "Yes")


def worked(task, word, letter=""):
    base = task.problems("train")[0]
    columns = {"word": word, "letter": letter}
    return type(base)(id="x", prompt="?", answer="?", columns=columns)


@pytest.mark.parametrize(
    ("word", "letter", "count", "length", "distinct"),
    [
        ("strawberry", "r", 3, 10, 8),
        ("Mississippi", "s", 4, 11, 4),
        ("Anna", "a", 1, 4, 3),
        ("aaaa", "a", 4, 4, 1),
    ],
)
def test_known_golds(word, letter, count, length, distinct):
    for task, gold in ((LetterCount(), count), (WordLength(), length), (DistinctLetters(), distinct)):
        assert task.solution(worked(task, word, letter)).endswith(f"\nAnswer: {gold}")


@given(st.text(alphabet="abcXYZ", min_size=1, max_size=12))
def test_counts_add_up_to_length_and_distinct(word):
    def answer(task, letter=""):
        return int(task.solution(worked(task, word, letter)).rsplit(" ", 1)[1])

    golds = [answer(LETTERS, letter) for letter in sorted(set(word))]
    assert sum(golds) == answer(LENGTHS)
    assert sum(gold > 0 for gold in golds) == answer(DISTINCT)
    reversed_word = word[::-1]
    assert answer(DISTINCT) == int(DISTINCT.solution(worked(DISTINCT, reversed_word)).rsplit(" ", 1)[1])


LETTERS, LENGTHS, DISTINCT = LetterCount(train=1), WordLength(train=1), DistinctLetters(train=1)


def flags(task, problem, text):
    steps = task.steps(problem, text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(steps))
    assert all(0 <= step.start < step.end <= len(text) for step in steps)
    return [step.valid for step in steps]


def test_scratchpad_steps_are_judged_one_by_one():
    problem = worked(LETTERS, "aab", "a")
    assert flags(LETTERS, problem, "a 1\na 2\nb 2\nAnswer: 2") == [True] * 4
    # the second count is wrong; the third follows from it; the answer repeats it
    assert flags(LETTERS, problem, "a 1\na 1\nb 1\nAnswer: 1") == [True, False, True, True]
    # a letter left out: b is not the second letter, the answer comes too early
    assert flags(LETTERS, problem, "a 1\nb 1\nAnswer: 1") == [True, False, False]
    assert flags(LETTERS, problem, "let me see\na 1") == [None, True]
    assert flags(DISTINCT, problem, "a 1\na 1\nb 2\nAnswer: 2") == [True] * 4
    assert flags(LENGTHS, problem, "a 1\na 2\nb 3\nc 4\nAnswer: 3") == [True, True, True, False, False]


def test_chain_arithmetic_by_hand():
    task = ChainArithmetic()
    problem = type(task.problems("dev")[0])(id="x", prompt="3+4+8+5=", answer="0")
    assert task.solution(problem) == "7,5,0"  # 7, 15, 20
    assert flags(task, problem, "7,5,0") == [True, True, True]
    assert [(s.start, s.end) for s in task.steps(problem, "7,5,0")] == [(0, 2), (2, 4), (4, 5)]
    assert flags(task, problem, "7,6,1") == [True, False, True]  # 6 + 5 = 11: right from what was written
    assert flags(task, problem, "7,5,0,0") == [True, True, True, False]
    assert flags(task, problem, "7,x,0") == [True, None, None]
    assert flags(task, problem, "7,15,0") == [True, None, None]
    assert flags(task, problem, "") == []
    assert flags(task, problem, "7") == [True]
    assert flags(task, problem, ",") == [None]
    for text, outcome in [("7,5,0", 1.0), ("0", 1.0), ("7,6,1", 0.0), ("7,5,", 0.0), ("", 0.0), ("7,5,10", 0.0)]:
        assert task.check(problem, text).outcome == outcome


def test_a_chain_fits_a_tiny_context():
    task = ChainArithmetic(operations=8)
    assert {len(p.prompt) + len(task.solution(p)) for p in task.problems("dev")} == {33}


def test_noisy_chains_are_right_as_often_as_the_closed_form_says():
    """0.1 + 0.9 (1 - 10/9 * 0.25)^8 = 0.1666; 3 standard errors of 2,000 draws are 0.025."""
    task = ChainArithmetic(train=2000)
    right = valid = 0
    for i, problem in enumerate(task.problems("train")):
        text = task.noisy_solution(problem, 0.25, Rng((5, i)))
        right += task.check(problem, text).outcome
        valid += sum(step.valid for step in task.steps(problem, text))
    expected = 0.1 + 0.9 * (1 - 10 / 9 * 0.25) ** 8
    assert abs(right / 2000 - expected) < 3 * math.sqrt(expected * (1 - expected) / 2000)
    assert abs(valid / 16000 - 0.75) < 3 * math.sqrt(0.75 * 0.25 / 16000)


def test_running_sums_by_hand():
    task = RunningSums()
    prompt = "Add these numbers step by step: 17, 48, 20, 32, 17"
    problem = type(task.problems("dev")[0])(id="x", prompt=prompt, answer="134")
    solution = "17 + 48 = 65\n65 + 20 = 85\n85 + 32 = 117\n117 + 17 = 134\nTotal: 134"
    assert task.solution(problem) == solution
    assert flags(task, problem, solution) == [True] * 5
    # 65 written as 66; what follows builds on 66 rightly; the total repeats it
    wrong = "17 + 48 = 66\n66 + 20 = 86\n86 + 32 = 118\n118 + 17 = 135\nTotal: 135"
    assert flags(task, problem, wrong) == [False, True, True, True, True]
    # back to the true sum: 65 is not what was written
    assert flags(task, problem, "17 + 48 = 66\n65 + 20 = 85") == [False, False]
    assert flags(task, problem, "17 + 20 = 37") == [False]  # 48 left out
    assert flags(task, problem, "17 + 48 + 20 = 85\n85 + 32 + 17 = 134\nTotal: 134") == [True] * 3
    assert flags(task, problem, "17 + 48 = 65\nTotal: 65") == [True, False]  # too early
    assert flags(task, problem, "Sure!\n\nFirst, 17 + 48 = 65.") == [None, True]
    one_line = "17 + 48 = 65, 65 + 20 = 85; Total: 85"
    assert flags(task, problem, one_line) == [True, True, False]
    assert [one_line[s.start : s.end] for s in task.steps(problem, one_line)][:2] == ["17 + 48 = 65", ", 65 + 20 = 85"]
    assert flags(task, problem, "The total is 134") == [False]
    assert task.check(problem, "Total: 134 of 5 numbers").outcome == 1.0
    assert task.check(problem, "117 + 17 = 134\nTotal:").outcome == 0.0


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789+=,.\n Totalx\\{}()-", max_size=80))
def test_checks_and_steps_never_raise_and_spans_stay_in_order(text):
    for task in TASKS:
        problem = task.problems("dev")[0]
        flags(task, problem, text)
        assert task.check(problem, text).outcome in (0.0, 1.0)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_long_text_is_cheap(task):
    """Up to 200,000 characters. Time that grows with the square of the length would be minutes."""
    problem = task.problems("dev")[0]
    for unit in ("1 + ", "a 1\n", "1,", "total "):
        text = unit * 50_000
        began = time.process_time()
        steps = task.steps(problem, text)
        assert time.process_time() - began < 5
        spans = [(step.start, step.end) for step in steps]
        assert spans == sorted(spans)
        assert all(0 <= start < end <= len(text) for start, end in spans)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LetterCount(length=(5, 4)), r"LetterCount: `length` must be two numbers"),
        (lambda: LetterCount(most=11), r"`most` must be from 1 to the longest length, 10, not 11"),
        (lambda: LetterCount(alphabet="a"), r"`alphabet` must be two or more different visible ASCII"),
        (lambda: LetterCount(alphabet='ab"'), r"without the double quote"),
        (lambda: WordLength(alphabet="aab"), r"not 'aab'"),
        (lambda: WordLength(train=-1), r"WordLength: `train` must be 0 or more, not -1"),
        (lambda: WordLength(mode="loud"), r"`mode` must be one of open, direct, not 'loud'"),
        (lambda: DistinctLetters(length=(1, 1)), r"must reach 2"),
        (lambda: Substring(size=(2, 4)), r"`size` must stay below the shortest length, 4, not reach 4"),
        (lambda: Substring(negatives="soft"), r"`negatives` must be one of edit, hard"),
        (lambda: ChainArithmetic(operations=0), r"`operations` must be 1 or more, not 0"),
        (lambda: RunningSums(count=(1, 3)), r"RunningSums: `count` must be two numbers, low and high, with 2 <= low"),
        (lambda: Largest(count=1), r"Largest: at least 2 numbers"),
        (lambda: Rules(domains=("law",)), r"`domains` must be one or more different ones of forward_chaining"),
        (lambda: Rules(hops=(1, 4)), r"`hops` must not go beyond 3"),
        (lambda: ChainArithmetic().problems("eval"), r"'eval' is not a split. Choose one of: train, dev, test"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "task",
    [
        Largest(count=200, size=(0, 10**6)),
        RunningSums(count=(200, 200)),
        ChainArithmetic(operations=400),
        WordLength(length=(300, 300)),
        LetterCount(length=(4, 300)),
        DistinctLetters(length=(4, 1100)),
        Substring(length=(10, 300)),
    ],
    ids=lambda task: task.name,
)
def test_more_problems_than_a_float_counts(task):
    assert len(task.problems("train")[0].prompt) > 0  # 10**6 to the power of 200 is no float


def test_too_small_a_space_is_an_error_at_once():
    task = WordLength(length=(1, 2), alphabet="ab", train=100)
    with pytest.raises(
        InputError, match=r"Only \d+ different problems were found for split 'train', which should have 100"
    ):
        task.problems("train")
    with pytest.raises(InputError, match=r"Use more `operations`, or ask for fewer"):
        ChainArithmetic(operations=1, dev=50).problems("dev")


def test_split_of_is_pinned():
    """These places must never change: old training sets would leak into new test sets."""
    places = {"train": "w0 w1 w2 w3 w4 w6 w10 w11", "dev": "w5 w9", "test": "w7 w8"}
    for split, words in places.items():
        assert {split_of(f"word {word}") for word in words.split()} == {split}
    shares = Counter(split_of(f"key {i}") for i in range(5000))
    assert abs(shares["train"] / 5000 - 0.8) < 0.02
