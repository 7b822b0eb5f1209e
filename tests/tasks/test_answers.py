import pytest

from reckon.tasks import answer_block, extract_answer, extract_boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"a \boxed{1} b \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} \boxed{2", ""),
        (r"<think>\boxed{1}</think> no", ""),
        (r"<answer>x \( 7 \)</answer>", " 7 "),
        (r"\boxed{\frac{\sqrt{2}}{3^{2}}} and so on", r"\frac{\sqrt{2}}{3^{2}}"),
        (r"\boxed {5}", "5"),
        (r"\boxed5", ""),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\{1}", r"\{1"),
        (r"\boxed{}", ""),
        ("\\boxed{\\", ""),
        ("<answer> yes </answer>", "yes"),
        (r"<answer>\boxed{1} \boxed{2}</answer> \boxed{3}", "2"),
        (r"<answer>\boxed{1</answer>", ""),
        ("<answer>1</answer> and <answer>2</answer>", "2"),
        ("<answer>1</answer> and <answer>2", "1"),
        ("<think><answer>1</answer></think> none", ""),
        ("<think>a</think><answer>2</answer>", "2"),
        (r"<answer>\(a\) or \(b\)</answer>", "b"),
        ("no mark 5", ""),
        ("", ""),
    ],
)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


def test_extract_boxed_tells_none_from_empty():
    assert extract_boxed("no box") is None
    assert extract_boxed(r"\boxed{") is None
    assert extract_boxed(r"\boxed{}") == ""


def test_extract_boxed_keeps_deep_nesting():
    inner = "{" * 5000 + "}" * 5000
    assert extract_boxed(r"\boxed{" + inner + "}") == inner


def test_answer_block_keeps_lines():
    assert answer_block("work\nAnswer:\n1 2\n3 4\n") == "1 2\n3 4"
    assert answer_block("<think>x</think>\n1 2\n3 4") == "1 2\n3 4"
    assert answer_block("<answer>a\nb</answer> tail") == "a\nb"
    assert answer_block(r"\boxed{") == ""
    assert answer_block("") == ""
