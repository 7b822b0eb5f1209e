import logging
import os
import threading

import pytest

from reckon.errors import InputError
from reckon.tasks import Math
from reckon.tasks._math import compare


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """In the worker's process `compare` turns logging off for good; here it is called in ours."""
    yield
    logging.disable(logging.NOTSET)


RIGHT = [
    (r"\boxed{0.5}", r"\frac{1}{2}"),
    (r"\boxed{\frac{2}{4}}", "1/2"),
    (r"\boxed{[1,3)}", "[1, 3)"),
    (r"\boxed{x=3}", "3"),
    (r"\boxed{\{1,2\}}", r"\{2,1\}"),
    (r"\boxed{(1,2)}", "(1,2)"),
    (r"\boxed{2x+1}", "1+2x"),
    (r"\boxed{\sqrt{8}}", r"2\sqrt{2}"),
    (r"so $\begin{pmatrix}1\\2\end{pmatrix}$", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("The answer is 42.", "42"),
    ("I find \\(7\\) here", "7"),
    ("it must be 12", "12"),
    (r"\boxed{1} no, \boxed{2}", "2"),
    ("<answer>3</answer>", "3.0"),
    (r"\boxed{50\%}", r"50\%"),
    (r"\boxed{2}", r"So the total is $\boxed{2}$"),  # a reference may be a whole solution
]

WRONG = [
    (r"\boxed{(2,1)}", "(1,2)"),
    (r"\boxed{[1,3]}", "[1,3)"),
    (r"\boxed{0.5}", "0.51"),
    (r"\boxed{2} \boxed{", "2"),
    (r"\boxed{}", "2"),
    ("", "2"),
    ("words and words without any figure", "2"),
    (r"\boxed{" + "1+" * 300 + "1}", "301"),
    (r"\boxed{\foo\bar{{{}", "2"),
    (r"\boxed{__import__('os').system('touch evil')}", "0"),
    (r"\boxed{open('evil','w').write('x')}", "1"),
    ("<script>alert(2)</script>", "3"),
    ("<think>it may be 2", "2"),
]


@pytest.mark.parametrize(("text", "reference"), RIGHT)
def test_right(text, reference):
    verdict = Math()(text, reference)
    assert (verdict.outcome, verdict.reason) == (1.0, "right")


@pytest.mark.parametrize(("text", "reference"), WRONG)
def test_wrong(text, reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verdict = Math()(text, reference)
    assert verdict.outcome == 0.0
    assert verdict.reason in ("wrong", "no answer")
    assert os.listdir(tmp_path) == []


def test_a_hanging_comparison_is_unknown_and_the_next_one_works():
    check = Math(seconds=1.5)
    assert check(r"\boxed{2}", "2.0").outcome == 1.0
    verdict = check(r"\boxed{(10^{9})!}", "5")
    assert (verdict.outcome, verdict.reason) == (None, "timed out")
    assert check(r"\boxed{2}", "2.0").outcome == 1.0


def test_it_works_off_the_main_thread():
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(Math()(r"\boxed{0.5}", r"\frac12")))
    thread.start()
    thread.join()
    assert verdicts[0].outcome == 1.0


def test_unknown_without_a_readable_reference():
    assert Math()(r"\boxed{2}", None).reason == "no reference"
    assert Math()(r"\boxed{2}", r"\foo{").outcome is None
    assert Math()("", None).outcome is None


def test_strict_finds_two_boxes_ambiguous():
    assert Math(policy="strict")(r"\boxed{1} \boxed{2}", "2").reason == "ambiguous"


def test_agrees_with_math_verify_called_directly():
    verify = pytest.importorskip("math_verify")
    pairs = [(r"\frac{1}{3}", "0.333"), ("x^2-1", "(x-1)(x+1)"), (r"\pi", "3.14"), ("10", "10.0"), (r"\{1\}", r"\{2\}")]
    for gold, given in pairs:
        direct = verify.verify(verify.parse(f"${gold}$"), verify.parse(f"${given}$"))
        assert compare(gold, given) == ("right" if direct else "wrong")
        assert Math()(rf"\boxed{{{given}}}", gold).outcome == float(direct)


def test_bad_settings():
    with pytest.raises(InputError, match=r"Math: `seconds` must be above 0, not 0"):
        Math(seconds=0)
