import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reckon.advantages import group_normalized
from reckon.errors import InputError
from reckon.rewards import CosineLength, Format, FormatLength, Gate, Length, OverlongPenalty, Sum
from reckon.types import End

NAN = float("nan")


def boxed(text):
    return "5" if "[5]" in text else None


def good(answer):
    return answer == "5"


def test_length_in_tokens_of_the_papers_limit(make_batch, values):
    lengths = [1, 256, 768, 1536, 2304, 3072]
    got = values(Length(l_max=3072), make_batch(["x"] * 6, lengths=lengths))
    assert got == pytest.approx([0.001302, 0.305556, 0.75, 1, 0.5, -1], abs=5e-7)


def test_length_counts_sampled_tokens_and_not_padding_or_characters(make_batch, values):
    batch = make_batch(["a long text, of many more characters than it has tokens", "b"], lengths=[2, 8])
    assert values(Length(l_max=8, shape="linear"), batch) == [0.25, 1.0]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("v1", [0.2, 0.7, 0.5, -0.6, -1]),
        ("v2", [0.2, 0.3, 0.5, 0.3, -0.5]),
        ("linear", [0.2, 0.3, 0.5, 0.6, 1]),
        ("v3", [0.64, 0.84, 1, 0.92, -1]),  # 1 - (1 - .4)^2, 1 - (1 - .6)^2, 1, 1 - 2 (.1/.5)^2, 1 - 2
    ],
)
def test_every_shape(make_batch, values, shape, expected):
    batch = make_batch(["x"] * 5, lengths=[2, 3, 5, 6, 10])
    assert values(Length(l_max=10, shape=shape), batch) == pytest.approx(expected)


def test_clip_decides_what_lies_beyond_the_limit(make_batch, values):
    batch = make_batch(["x"], lengths=[11])
    assert values(Length(l_max=10), batch) == [-1]
    assert values(Length(l_max=10, clip=False), batch) == pytest.approx([-1.88])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l_max": 0}, "`l_max` is 0"),
        ({"l_max": 8, "p": 0.0}, "`p` is 0.0"),
        ({"l_max": 8, "p": 1.0}, "`p` is 1.0"),
        ({"l_max": 8, "p": NAN}, "`p` is nan"),
        ({"l_max": 8, "shape": "v4"}, "must be v3, v1, v2 or linear"),
        ({"l_max": 8, "shape": "linear", "p": 0.3}, "shape linear has no `p`"),
    ],
)
def test_length_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        Length(**settings)


def test_format_length_at_known_points(make_batch, values):
    # x = .1, .25, .5, .75, .9, 1 of 20 tokens, once with an answer and once without
    lengths = [2, 5, 10, 15, 18, 20]
    part = FormatLength(l_max=20, extract=boxed, validate=good)
    with_answer = values(part, make_batch(["[5]"] * 6, lengths=lengths))
    without = values(part, make_batch(["5"] * 6, lengths=lengths))
    assert with_answer == pytest.approx([0.86, 1.25, 1.5, 1.0, 0.22, -0.5])
    assert without == pytest.approx([0, 0, 0, 0, -0.28, -1])


def test_every_setting_of_format_length_is_read(make_batch, values):
    batch = make_batch(["[5]"], lengths=[10], ends=[End.LENGTH])
    base = {"l_max": 20, "extract": boxed, "validate": good}
    assert values(FormatLength(**base), batch) == [0]  # cut off, so not formatted: min(0, 1)
    assert values(FormatLength(**base, require_eos=False), batch) == [1.5]
    assert values(FormatLength(**base, require_eos=False, weight=0.25), batch) == [1.25]
    # p = .25: 1 - 2 (.25/.75)^2 = 7/9, and 0.5 for the format
    assert values(FormatLength(**base, require_eos=False, p=0.25), batch) == pytest.approx([0.5 + 7 / 9])
    base["validate"] = lambda answer: False
    assert values(FormatLength(**base, require_eos=False), batch) == [0]


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from(list(End)))
def test_format_length_is_the_gate_it_is_said_to_be(make_batch, values, length, other, end):
    batch = make_batch(["[5]", "no"], lengths=[length, other], ends=[end, End.EOS])
    form = Format(extract=boxed, validate=good)
    gate = Gate(condition=form, then=Sum({"format": form, "length": Length(l_max=20)}))
    assert values(gate, batch) == pytest.approx(values(FormatLength(l_max=20, extract=boxed, validate=good), batch))


def test_format_length_refuses_what_its_halves_refuse():
    with pytest.raises(InputError, match="`p` is 1"):
        FormatLength(l_max=20, p=1)
    with pytest.raises(InputError, match="`weight` is 0"):
        FormatLength(l_max=20, weight=0)


def test_overlong_penalty(make_batch, values):
    batch = make_batch(["x"] * 4, lengths=[80, 90, 100, 120])
    assert values(OverlongPenalty(l_max=100, buffer=20), batch) == pytest.approx([0, -0.5, -1, -1])


@pytest.mark.parametrize("buffer", [0, 101])
def test_overlong_penalty_refuses(buffer):
    with pytest.raises(InputError, match=r"must lie in \[1, l_max = 100\]"):
        OverlongPenalty(l_max=100, buffer=buffer)


def test_cosine_length_by_verdict(make_batch, values):
    batch = make_batch(["x"] * 4, lengths=[50, 50, 100, 50], outcomes=[1, 0, 1, NAN])
    got = values(CosineLength(l_max=100), batch)
    assert got[:3] == pytest.approx([0.75, -0.75, 0.5])
    assert got[3] != got[3]
    assert values(CosineLength(l_max=1), make_batch(["x"], lengths=[1], outcomes=[0.5])) == [-0.5]  # half is not right
    ends = CosineLength(l_max=100, right_short=3, right_long=1, wrong_short=-5, wrong_long=-1)
    assert values(ends, batch)[:3] == pytest.approx([2, -3, 1])


@pytest.mark.parametrize("name", ["right_short", "right_long", "wrong_short", "wrong_long"])
def test_cosine_length_refuses_what_is_not_finite(name):
    with pytest.raises(InputError, match=f"`{name}` is nan; it must be finite"):
        CosineLength(l_max=8, **{name: NAN})


def test_a_positive_factor_on_the_format_leaves_standardized_advantages_alone(make_batch, values):
    batch = make_batch(["[5]", "no", "[5]", "no"])
    small, large = (
        torch.tensor(values(Format(weight=w, extract=boxed, validate=good), batch), dtype=torch.float64)
        for w in (0.5, 7.0)
    )

    group = torch.zeros(4, dtype=torch.int64)
    one, other = (group_normalized(rewards, group, eps=0.0) for rewards in (small, large))
    assert one.tolist() == pytest.approx(other.tolist(), rel=1e-12)
    assert one[0] > 0 > one[1]
    everyone = torch.tensor(values(Format(extract=boxed, validate=good), make_batch(["[5]"] * 4)))
    assert group_normalized(everyone, group).tolist() == [0, 0, 0, 0]
