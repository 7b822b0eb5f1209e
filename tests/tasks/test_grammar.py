import time

import pytest

from reckon.tasks import is_answer

GOOD = [
    r"36",
    r"\frac{3}{2}",
    r"(0,\infty)",
    r"x=5",
    r"1, 3, 5",
    r"\{1,2\}",
    r"1\frac{1}{2}",
    r"5 \text{ cm}",
    r"\text{even}",
    r"A",
    r"[1, 3)",
    r"(1,2]",
    r"3 \leq x \leq 5",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
    r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}",
    r"\frac12",
    r"-\frac{1}{2}",
    r"(1, 2, 3)",
    r"\left(0, 1\right]",
    r"\sqrt{2}",
    r"2\sqrt[3]{5}",
    r"3.14",
    r"1,024",
    r"50\%",
    r"90^\circ",
    r"90^{\circ}",
    r"x \in [0, 1]",
    r"(-\infty, 2) \cup (3, \infty)",
    r"\text{(A)}",
    r"\pi r^2",
    r"e^{-x}",
    r"x^2 + 2x + 1",
    r"2^{10}",
    r"n!",
    r"\binom{5}{2}",
    r"\log_2 8",
    r"\sin x",
    r"f(x) = 2x",
    r"5 dollars",
    r"even",
    r"\$5",
    r"$36$",
    r"10:30",
    r"3 \text{ or } 5",
    r"1 and 2",
    r"\text{Monday}",
    r"x < 3",
    r"9**9**9",
    r"\emptyset",
    r"0.\overline{3}",
    r"-3",
    r"+4",
    r"a_1",
    r"y = -2x + 3",
    r"2 + 3i",
    r"\dfrac{\pi}{4}",
    r"\mathbb{R}",
    r"True",
    r"x=1,y=2",
    r"12 cm^2",
    r"3.",
    r"\sqrt2",
    r"1, 2, and 3",
    r"\{\}",
    r"xy",
    r"2ab",
    r"x \ne 0",
    r"\frac{x+1}{x-1}",
    r"\text{John Smith}",
    r"((1))",
    r"{1,2}",
    r"seventy-five",
    r"\{x | x > 0\}",
    "|x|",
    r"|x - 1| < 2",
]

BAD = [
    "",
    " ",
    "x +* 2",
    "(0,1",
    "the answer is 5",
    "hello world",
    "<b>5</b>",
    "import os",
    "__import__('os')",
    "5 +",
    r"\frac{1}",
    r"\boxed{5",
    "))",
    "1,,2",
    ",",
    "=5",
    "x = ",
    "[1",
    "{1,2",
    "I think 5",
    "5 is the answer",
    "no one knows",
    r"\text{the answer is five hundred}",
    "print(1);",
    "how many?",
    r"\foo{3}",
    "1 2 3 go on",
    "(1,2,3]",
    r"\begin{pmatrix}1\\2",
    r"\begin{document}1\end{document}",
    r"\begin{pmatrix}1\end{bmatrix}",
    "3 \\leq",
    "\x00",
    "½½?",
    "🙂",
    "1" + "0" * 500,
]


@pytest.mark.parametrize("text", GOOD)
def test_well_formed(text):
    assert is_answer(text)


@pytest.mark.parametrize("text", BAD)
def test_not_well_formed(text):
    assert not is_answer(text)


def test_reference_mode_reproduces_both_lists_of_the_released_code():
    valid = [r"36", r"\frac{3}{2}", r"(0,\infty)", "x=5", "1, 3, 5", r"\{1,2\}", r"1\frac{1}{2}", r"5 \text{ cm}"]
    valid += [r"\text{even}", "A", "haha", "hello world", "the answer is 5"]
    invalid = ["", "x +* 2", "(0,1", "[1, 3)", r"\begin{pmatrix}1\\2\end{pmatrix}", r"3 \leq x \leq 5"]
    assert [text for text in valid if not is_answer(text, reference=True)] == []
    assert [text for text in invalid if is_answer(text, reference=True)] == []


@pytest.mark.parametrize(
    "unit", ["(", "{", "\\frac{", "-", "\\sqrt", "|", "1,", "x ", "^", "\\text{a}", "\\begin{matrix}"]
)
@pytest.mark.parametrize("reference", [False, True])
def test_repetition_neither_hangs_nor_overflows(unit, reference):
    start = time.perf_counter()
    is_answer(unit * (500 // len(unit)), reference=reference)
    assert not is_answer(unit * 1_000_000, reference=reference)
    assert time.perf_counter() - start < 1.0


def test_a_bracket_pair_of_two_kinds_is_an_interval_of_two():
    assert is_answer("(1, 2]")
    assert not is_answer("(1]")
