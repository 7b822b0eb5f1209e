"""Steps: which tokens are theirs, and who finds the first wrong one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reckon.errors import InputError
from reckon.evaluate import step_scores
from reckon.evaluate._signals_steps import step_view
from reckon.runs import Responses, Signal
from reckon.types import Problem, Rng, Step

RNG = Rng(("test",))


def steps_of(*ends, valid=None):
    starts = [0, *ends[:-1]]
    return tuple(
        Step(start=a, end=b, valid=None if valid is None else valid[i])
        for i, (a, b) in enumerate(zip(starts, ends, strict=True))
    )


def test_sums_over_steps_by_hand():
    r"""Text "ab\ncd": steps end at 3 and 5. Tokens: a | b\nc (begins in step 0) | "" (half a character) | d | end."""
    pieces, values = ("a", "b\nc", "", "d", ""), np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    steps = steps_of(3, 5)
    assert step_scores(pieces, values, steps).tolist() == [7, 24]  # 1 + 2 + 4; 8 + the end token's 16
    assert step_scores(pieces, values, steps, "accumulated").tolist() == [7, 31]


@pytest.mark.parametrize("kind", ["advantage", "weight"])
def test_what_stands_on_every_token_of_a_step_is_averaged(kind):
    """Three tokens of 0.5, two of 0.75 (a third is unknown), one of 2: a long step is no better for being long."""
    pieces, values = tuple("aaabbbc"), np.array([0.5, 0.5, 0.5, 0.75, math.nan, 0.75, 2.0])
    steps = steps_of(3, 6, 7)
    assert step_scores(pieces, values, steps, "single", kind).tolist() == [0.5, 0.75, 2]
    assert step_scores(pieces, -values, steps, "accumulated", kind).tolist() == [-0.5, -0.75, -2]
    assert step_scores(pieces, values, steps, "accumulated", kind).tolist() == [0.5, 0.5, 0.5]
    assert step_scores(pieces, values, steps, "single").tolist() == [1.5, 1.5, 2]  # a reward is summed


def test_text_between_steps_belongs_to_none():
    pieces, values = ("a", "-", "b"), np.array([1.0, 2.0, 4.0])
    steps = (Step(start=0, end=1, valid=True), Step(start=2, end=3, valid=False))
    assert step_scores(pieces, values, steps).tolist() == [1, 4]
    assert step_scores(pieces, values, steps, "accumulated").tolist() == [1, 7]


def test_a_step_without_tokens_has_no_score():
    found = step_scores(("abc",), np.array([1.0]), steps_of(1, 3))
    assert found[0] == 1
    assert math.isnan(found[1])  # the one token begins in the step before
    assert step_scores(("a", "b"), np.array([math.nan, 2.0]), steps_of(2)).tolist() == [2]
    with pytest.raises(InputError, match="1 pieces and 2 values"):
        step_scores(("a",), np.zeros(2), ())


@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=8), st.data())
def test_every_tokens_value_is_in_one_step(pieces, data):
    text = "".join(pieces)
    if not text:
        return
    ends = sorted({*data.draw(st.lists(st.integers(1, len(text)), max_size=3)), len(text)})
    values = np.arange(1.0, len(pieces) + 1)
    found = step_scores(pieces, values, steps_of(*ends))
    assert np.nansum(found) == values.sum()


def made(truths, scores, problems=None):
    """One-character steps, a token each, a problem each."""
    n = len(truths)
    texts = tuple("x" * len(row) for row in truths)
    return Responses(
        source="test",
        problems=tuple(Problem(id=str(i), prompt="?") for i in range(n)),
        group=np.arange(n),
        text=texts,
        outcome=np.array([float(all(row)) for row in truths]),
        parsed=(None,) * n,
        end=(None,) * n,
        row=np.arange(n),
        pieces=tuple(tuple(text) for text in texts),
        steps=tuple(steps_of(*range(1, len(row) + 1), valid=row) for row in truths),
        streams={"s": Signal.of_tokens([np.array(row, dtype=float) for row in scores])},
    )


def test_a_signal_that_knows_the_steps_finds_every_first_error():
    truths = [[True, False, False], [True, True], [False], [True, True, True]] * 6
    responses = made(truths, [[float(valid) for valid in row] for row in truths])
    view = step_view(responses, responses.streams["s"], "single", RNG)
    assert view.pairs.auc == 1
    assert view.pooled == 1
    assert (view.on_wrong, view.on_clean, view.f1) == (1, 1, 1)
    assert (view.responses, view.steps) == (24, 6 * 9)


def test_a_signal_that_knows_nothing_finds_no_better_than_either_extreme():
    rng = np.random.default_rng(0)
    truths = [[bool(v) for v in rng.integers(0, 2, 4)] for _ in range(80)]
    responses = made(truths, rng.normal(size=(80, 4)))
    view = step_view(responses, responses.streams["s"], "single", RNG)
    assert abs(view.pairs.auc - 0.5) < 0.15
    assert view.f1 < 0.6


def test_steps_of_a_judge_of_steps_are_read_as_they_are():
    truths = [[True, False], [True, True]] * 4
    responses = made(truths, [[0.0, 0.0]] * 8)
    signal = Signal.of_steps([np.array([0.9, 0.1]), np.array([0.8, 0.7])] * 4)
    assert signal.values.tolist() == [0.1, 0.7] * 4  # the worst step
    view = step_view(responses, signal, "single", RNG)
    assert view.pairs.auc == 1
    assert view.f1 == 1
    assert step_view(responses, signal, "accumulated", RNG).f1 == 1


def test_without_steps_or_scores_of_them_there_is_no_view():
    responses = made([[True, False]], [[1.0, 0.0]])
    assert step_view(responses, Signal(values=np.zeros(1)), "single", RNG) is None
    unknown = made([[None, None]], [[1.0, 0.0]])
    assert step_view(unknown, unknown.streams["s"], "single", RNG) is None
