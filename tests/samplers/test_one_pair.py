"""One right and one wrong response of each group: who is chosen, how evenly, and what becomes of the others."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import gather, make

from reckon.samplers import Chain, DropTruncated, OnePair, Refill
from reckon.types import End, Rng, Use

NAN = float("nan")
DROP, CONTEXT, TRAIN = int(Use.DROP), int(Use.CONTEXT), int(Use.TRAIN)


def decide(outcomes, key=0, **made):
    """Of groups of outcomes, what becomes of each response."""
    rollouts = make([["x"] * len(group) for group in outcomes], **made)
    flat = torch.tensor([value for group in outcomes for value in group])
    found = OnePair()(rollouts, flat, Rng((key, "keep"))).tolist()
    return [[found.pop(0) for _ in group] for group in outcomes]


def test_one_of_each_kind_trains_and_the_rest_is_context():
    mixed, wrong, right, unknown = decide([[1.0, 0, 0, NAN], [0.0, 0], [1.0, 1], [1.0, NAN]])
    assert mixed[0] == TRAIN
    assert sorted(mixed[1:3]) == [CONTEXT, TRAIN]
    assert mixed[3] == CONTEXT
    assert wrong == right == unknown == [DROP, DROP]


def test_right_is_above_one_half():
    assert decide([[0.5, 0.6]]) == [[TRAIN, TRAIN]]
    assert decide([[0.6, 1.0]]) == [[DROP, DROP]]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=1, max_size=6), min_size=1, max_size=5),
    st.integers(0, 99),
)
def test_every_kept_group_has_exactly_one_pair(outcomes, key):
    for group, use in zip(outcomes, decide(outcomes, key), strict=True):
        if {0.0, 1.0} <= set(group):
            trained = [value for value, one in zip(group, use, strict=True) if one == TRAIN]
            assert sorted(trained) == [0.0, 1.0]
            assert use.count(CONTEXT) == len(group) - 2
        else:
            assert set(use) == {DROP}
    again = decide(outcomes, key)
    assert decide(outcomes, key) == again


def test_every_right_one_and_every_wrong_one_is_as_likely():
    """Check 12: 3 right by 5 wrong ones, 3000 draws; chi-squared with 14 degrees is below 36.1 with p = .999."""
    group = [1.0, 0, 0, 1, 0, 1, 0, 0]
    counts: dict[tuple[int, int], int] = {}
    for key in range(3000):
        (use,) = decide([group], key)
        first, second = (i for i, one in enumerate(use) if one == TRAIN)
        counts[first, second] = counts.get((first, second), 0) + 1
    assert len(counts) == 15
    assert sum((found - 200) ** 2 / 200 for found in counts.values()) < 36.1


def test_in_a_batch_the_others_count_in_the_baseline():
    batch = gather(["r", "w", "w", "w"], ["w", "w", "w", "w"], ["r", "r", "w", "u"], keep=OnePair(), n=3)
    assert batch.outcome.tolist() == pytest.approx([1, 0, 0, 0, 1, 1, 0, NAN], nan_ok=True)
    assert batch.train.sum() == 4
    assert batch.train[0]
    assert batch.train[6]
    assert batch.seen.kept == 2


def test_after_another_rule_it_chooses_among_what_is_left():
    cut = [End.LENGTH, End.EOS, End.LENGTH, End.EOS]
    rollouts = make([["x"] * 4], end=cut)
    chain = Chain(rules=[DropTruncated(), OnePair()])
    assert chain(rollouts, torch.tensor([1.0, 1, 0, 0]), Rng((0,))).tolist() == [DROP, TRAIN, DROP, TRAIN]
    assert chain(rollouts, torch.tensor([1.0, 0, 1, 0]), Rng((0,))).tolist() == [DROP] * 4


def test_where_no_group_has_both_nothing_trains_and_the_run_goes_on():
    batch = gather(["w", "w"], ["r", "r"], keep=OnePair(), refill=Refill())
    assert not batch.train.any()
    assert batch.seen.kept == 0
    assert not math.isnan(float(batch.outcome.sum()))
