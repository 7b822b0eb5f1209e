import functools
import math

import pytest

from reckon.errors import InputError
from reckon.rewards import Containment, Format, KeywordReward, RepetitionPenalty, StrictLayout, ThinkFormat
from reckon.tasks import is_answer
from reckon.types import End, Problem


def test_format_reads_the_last_box_and_nothing_else(make_batch, values):
    texts = [
        r"a \boxed{1} b \boxed{\frac{1}{2}}",
        r"\boxed{1} \boxed{2",  # the last box never closes
        r"<think>\boxed{1}</think> no",
        r"<answer>x \( 7 \)</answer>",
        r"so \boxed{7} and much more text",
        r"\boxed{}",
        r"\boxed{ }",
        "",
        "the answer is 7",
    ]
    batch = make_batch(texts)
    assert values(Format(), batch) == [0.5, 0, 0, 0.5, 0.5, 0, 0, 0, 0]


def test_format_asks_for_an_end_unless_told_not_to(make_batch, values):
    batch = make_batch([r"\boxed{7}"] * 3, ends=[End.EOS, End.STOP, End.LENGTH])
    assert values(Format(), batch) == [0.5, 0.5, 0]
    assert values(Format(require_eos=False, weight=2), batch) == [2, 2, 2]


def test_format_uses_the_given_extractor_and_judge(make_batch, values):
    batch = make_batch(["a:1", "a:x", "1"])
    extract = {"a:1": "1", "a:x": "x", "1": None}.get
    assert values(Format(extract=extract, validate=str.isdigit), batch) == [0.5, 0, 0]


def test_format_accepts_mathematics_and_refuses_sentences(make_batch, values):
    accepted = ["36", r"\frac{3}{2}", r"(0,\infty)", "[1, 3)", r"3 \leq x \leq 5", r"\{1,2\}", r"x=5"]
    accepted += [r"\begin{pmatrix}1\\2\end{pmatrix}", r"\text{even}", "A"]
    refused = ["hello world", "the answer is 5", "x +* 2", "(0,1"]
    batch = make_batch([rf"\boxed{{{answer}}}" for answer in accepted + refused])
    assert values(Format(weight=1), batch) == [1] * len(accepted) + [0] * len(refused)


REFERENCE_VALID = [
    *("36", r"\frac{3}{2}", r"(0,\infty)", "x=5", "1, 3, 5", r"\{1,2\}", r"1\frac{1}{2}", r"5 \text{ cm}"),
    *(r"\text{even}", "A", "haha", "hello world", "the answer is 5"),
]
REFERENCE_INVALID = ["", "x +* 2", "(0,1", "[1, 3)", r"\begin{pmatrix}1\\2\end{pmatrix}", r"3 \leq x \leq 5"]


def test_format_can_judge_as_the_released_code_did(make_batch, values):
    batch = make_batch(REFERENCE_VALID + REFERENCE_INVALID)
    part = Format(weight=1, extract=str, validate=functools.partial(is_answer, reference=True))
    assert values(part, batch) == [1] * len(REFERENCE_VALID) + [0] * len(REFERENCE_INVALID)


def test_format_refuses_a_weight_of_nothing():
    with pytest.raises(InputError, match="`weight` is 0"):
        Format(weight=0)


def test_think_format_and_strict_layout(make_batch, values):
    batch = make_batch(["<think>a</think><answer>1</answer>", "<think>a</think> 1", "1"])
    assert values(ThinkFormat(), batch) == [0.5, 0.5, 0]
    assert values(ThinkFormat(weight=3), batch) == [3, 3, 0]
    assert values(StrictLayout(), batch) == [2, 0, 0]
    assert values(StrictLayout(weight=1), batch) == [1, 0, 0]


def test_repetition_penalty_of_words(make_batch, values):
    batch = make_batch(["a b A b", "a b", "a", ""])  # bigrams ab ba ab, whatever the case; ab; none; none
    assert values(RepetitionPenalty(n=2, max_penalty=-0.3), batch) == pytest.approx([-0.1, 0, 0, 0])


def test_repetition_penalty_of_fewer_words_than_n_is_nothing(make_batch, values):
    assert values(RepetitionPenalty(), make_batch(["word " * 39, "word " * 42])) == pytest.approx([0, -0.05 * 2 / 3])


def test_repetition_penalty_of_tokens_leaves_padding_out(make_batch, values):
    batch = make_batch(["same"] * 2, lengths=[5, 5])
    batch.seq.tokens[0] = 5  # also where the padding is
    batch.seq.tokens[1] = batch.seq.tokens[1].new_tensor([1, 2, 3, 4, 6, 1])
    assert values(RepetitionPenalty(n=2, max_penalty=-1, unit="tokens"), batch) == pytest.approx([-0.75, 0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "`n` is 0"),
        ({"max_penalty": 0.1}, "0 or below"),
        ({"max_penalty": float("nan")}, "`max_penalty` is nan"),
        ({"unit": "x"}, "'x'"),
    ],
)
def test_repetition_penalty_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        RepetitionPenalty(**settings)


def test_keyword_reward(make_batch, values):
    batch = make_batch(["Wait, but however verify alternatively", "plain", "wait " * 30])
    assert values(KeywordReward(), batch) == pytest.approx([0.5 * 5 / 20, 0, 0.5])
    assert values(KeywordReward(words=["plain"], weight=1, cap=1), batch) == [0, 1, 0]


@pytest.mark.parametrize(("settings", "message"), [({"words": "wait"}, "a list of words"), ({"cap": 0}, "`cap` is 0")])
def test_keyword_reward_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        KeywordReward(**settings)


@pytest.mark.parametrize("kind", [ThinkFormat, StrictLayout, KeywordReward])
@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(kind, weight):
    with pytest.raises(InputError, match=f"`weight` is {weight}; it must be finite"):
        kind(weight=weight)


def test_containment_needs_a_reference(make_batch, values):
    problems = [Problem(id="a", prompt="?", answer="12"), Problem(id="b", prompt="?")]
    batch = make_batch(["12 cm", "13", "", "12"], group=[0, 0, 0, 1], problems=problems)
    got = values(Containment(extract=str), batch)
    assert got[:3] == [1, 0, 0]
    assert math.isnan(got[3])
    assert values(Containment(), make_batch([r"\boxed{12}", "12"], problems=problems[:1])) == [1, 0]
