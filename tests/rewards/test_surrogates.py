"""The mathematics, at the numbers of specs: surrogate rewards, section 6, and TRL's neighbours."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reckon.rewards import _surrogates as s


def f64(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize(
    ("p", "x", "expected"),
    [
        (0.5, [0, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 1], [0, 0.36, 0.75, 1, 0.92, 0.5, -0.28, -1]),
        # 1 - 2 (.25/.75)^2 = 7/9; 1 - 2 (.35/.75)^2 = .564444; 1 - 2 (.5/.75)^2 = 1/9; 1 - 2 (.65/.75)^2 = -.502222
        (0.25, [0, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 1], [0, 0.64, 1, 0.777778, 0.564444, 0.111111, -0.502222, -1]),
    ],
)
def test_peaked_length_at_known_points(p, x, expected):
    assert s.peaked_length(f64(*x), p).tolist() == pytest.approx(expected, abs=5e-7)


def test_peaked_length_beyond_the_limit_goes_on_falling():
    assert s.peaked_length(f64(1.1), 0.5).item() == pytest.approx(-1.88)  # 1 - 2 (0.6/0.5)^2


@given(st.floats(0.05, 0.95))
def test_peaked_length_is_continuous_flat_and_highest_at_p(p):
    h = 1e-6
    below, at, above = s.peaked_length(f64(p - h, p, p + h), p).tolist()
    assert at == 1
    # The second differences are 1/p^2 and 2/(1-p)^2, at most 800: a first-order slope would show as 1e-6 and more.
    assert 0 < 1 - below < 800 * h * h * 1.01
    assert 0 < 1 - above < 800 * h * h * 1.01


@given(st.floats(0.05, 0.95))
def test_peaked_length_rises_to_p_and_falls_after_it(p):
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    value = s.peaked_length(grid, p)
    rising, falling = value[grid < p], value[grid > p]
    assert (rising.diff() > 0).all()
    assert (falling.diff() < 0).all()
    zero = p + (1 - p) / math.sqrt(2)
    assert s.peaked_length(f64(zero), p).item() == pytest.approx(0, abs=1e-12)


def test_stepped_and_tent_variants():
    assert s.stepped_length(f64(0.2, 0.3, 0.5, 0.6, 1)).tolist() == pytest.approx([0.2, 0.7, 0.5, -0.6, -1])
    assert s.tent_length(f64(0.2, 0.3, 0.5, 0.6, 1)).tolist() == pytest.approx([0.2, 0.3, 0.5, 0.3, -0.5])


def test_format_length_at_known_points():
    length = s.peaked_length(f64(0, 0.1, 0.25, 0.5, 0.75, 0.9, 1), 0.5)
    yes, no = torch.ones(7, dtype=torch.bool), torch.zeros(7, dtype=torch.bool)
    assert s.format_length(yes, length, 0.5).tolist() == pytest.approx([0.5, 0.86, 1.25, 1.5, 1.0, 0.22, -0.5])
    assert s.format_length(no, length, 0.5).tolist() == pytest.approx([0, 0, 0, 0, 0, -0.28, -1])


@given(st.floats(0, 1), st.floats(0.05, 0.95), st.floats(0.01, 2))
def test_a_formatted_response_is_the_weight_ahead_at_equal_length(x, p, weight):
    length = s.peaked_length(f64(x, x), p)
    formatted, unformatted = s.format_length(torch.tensor([True, False]), length, weight).tolist()
    assert formatted - unformatted >= weight - 1e-12


def test_soft_overlong_equals_trl_and_hits_its_corners():
    # TRL: get_soft_overlong_punishment(100, 20) of 90 tokens is (100 - 20 - 90) / 20
    value = s.soft_overlong(torch.tensor([1, 80, 81, 90, 100, 101, 500]), l_max=100, buffer=20)
    assert value.tolist() == pytest.approx([0, 0, -0.05, -0.5, -1, -1, -1])


def test_cosine_equals_trl_half_way_and_reaches_both_ends():
    # TRL: get_cosine_scaled_reward(max_len=100) of 50 tokens: right 0.75, wrong -0.75
    x = f64(0, 0.5, 1, 2)
    right = s.cosine_scaled(x, short=f64(1.0), long=f64(0.5)).tolist()
    wrong = s.cosine_scaled(x, short=f64(-1.0), long=f64(-0.5)).tolist()
    assert right == pytest.approx([1.0, 0.75, 0.5, 0.5])
    assert wrong == pytest.approx([-1.0, -0.75, -0.5, -0.5])
    # a quarter of the way: 0.5 + 0.5 (1 + cos 45 degrees) / 2 = 0.5 + 0.25 (1 + 0.70710678)
    assert s.cosine_scaled(f64(0.25), f64(1.0), f64(0.5)).item() == pytest.approx(0.92677670)


@pytest.mark.parametrize(
    ("items", "n", "share"),
    [
        ("", 1, 0.0),
        ("ab", 3, 0.0),  # fewer than n: no n-gram, not an error
        ("abc", 3, 0.0),
        ("aaaaa", 2, 0.75),  # 4 bigrams, 1 of them new; TRL's example of token ids 5 5 5 5 5 gives -0.75
        ("abab", 2, 1 / 3),  # ab ba ab
        ("abcd", 1, 0.0),
    ],
)
def test_repeated_share(items, n, share):
    assert s.repeated_share(items, n) == pytest.approx(share)


@given(st.text("ab", max_size=20), st.integers(1, 4))
def test_repeated_share_against_counting_every_pair(text, n):
    grams = [text[i : i + n] for i in range(len(text)) if i + n <= len(text)]
    repeats = sum(any(grams[i] == grams[j] for j in range(i)) for i in range(len(grams)))
    assert s.repeated_share(text, n) == pytest.approx(repeats / len(grams) if grams else 0.0)


def test_keyword_share_counts_whole_words_up_to_its_cap():
    words = ("but", "wait")
    assert s.keyword_share("But wait, BUT no butter", words, cap=20) == pytest.approx(3 / 20)
    assert s.keyword_share("wait " * 50, words, cap=20) == 1
    assert s.keyword_share("", words, cap=20) == 0
    assert s.keyword_share("a.b axb", ("a.b",), cap=2) == 0.5  # a word is not a pattern


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<think>a\nb</think> 3", True),
        ("x <think></think>", True),
        ("</think> <think>", False),
        ("<think> 3", False),
        ("", False),
    ],
)
def test_has_think_block(text, found):
    assert s.has_think_block(text) is found


@pytest.mark.parametrize(
    ("text", "strict"),
    [
        ("<think>a</think><answer>3</answer>", True),
        (" <think>a</think>\n<answer>3</answer>\n", True),
        ("<think></think><answer></answer>", True),
        ("<think>a</think> so <answer>3</answer>", False),
        ("Hm <think>a</think><answer>3</answer>", False),
        ("<think>a</think><answer>3</answer> done", False),
        ("<think>a<think></think><answer>3</answer>", False),
        ("<think>a</think><answer>3</answer><answer>4</answer>", False),
        ("<think><answer>3</think></answer>", False),
        ("<answer>3</answer>", False),
        ("", False),
    ],
)
def test_is_strict_layout(text, strict):
    assert s.is_strict_layout(text) is strict


@pytest.mark.parametrize(
    ("answer", "reference", "inside"),
    [("12", "12 cm", True), ("x = 12", "12", True), ("A  B", "ab", True), ("13", "12", False), ("", "12", False)],
)
def test_contains(answer, reference, inside):
    assert s.contains(answer, reference) is inside


def test_ten_megabytes_are_read_in_time_linear_in_them():
    text = "<think>" * 1_400_000
    assert not s.has_think_block(text)
    assert not s.is_strict_layout(text)
    assert s.keyword_share(text, ("wait",), 5) == 0


def test_no_two_lengths_of_the_paper_s_limit_are_worth_the_same_before_the_peak():
    worth = s.peaked_length(torch.arange(1, 1537, dtype=torch.float64) / 3072, 0.5)
    assert all(a < b for a, b in itertools.pairwise(worth.tolist()))
