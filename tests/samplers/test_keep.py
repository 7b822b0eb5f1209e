"""Which responses and groups are trained on."""

import math

import pytest
import torch
from letters import NAN, RNG, make

from reckon.errors import InputError
from reckon.samplers import AccuracyBand, All, Chain, DropEqual, DropTruncated
from reckon.types import Rng, Use


def outcomes(rows):
    return torch.tensor([value for group in rows for value in group], dtype=torch.float32)


def kept_groups(rule, rows):
    use = rule(make([["x"] * len(group) for group in rows]), outcomes(rows), RNG)
    assert use.dtype == torch.int64
    by_group, start = [], 0
    for group in rows:
        (one,) = set(use[start : start + len(group)].tolist())  # rules on groups decide for all their rows
        by_group.append(one == Use.TRAIN)
        start += len(group)
    return by_group


def test_all_keeps_all():
    assert kept_groups(All(), [[NAN, NAN], [0, 0]]) == [True, True]


@pytest.mark.parametrize(("k", "right"), [(4, [1, 2, 3]), (8, [2, 3, 4, 5, 6]), (16, list(range(4, 13)))])
def test_accuracy_band_keeps_what_the_paper_s_band_keeps(k, right):
    rows = [[1.0] * r + [0.0] * (k - r) for r in range(k + 1)]
    assert [r for r, kept in enumerate(kept_groups(AccuracyBand(), rows)) if kept] == right


def test_accuracy_band_on_its_bounds():
    rows = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [0.8, 0.8], [0.2, 0.2]]
    assert kept_groups(AccuracyBand(), rows) == [True] * 5
    assert kept_groups(AccuracyBand(inclusive=False), rows) == [False, True, False, False, False]


def test_accuracy_band_takes_the_mean_of_the_known():
    rows = [[1, 0, NAN, NAN], [1, NAN, NAN, NAN], [NAN] * 4]
    assert kept_groups(AccuracyBand(low=0.5, high=0.5), rows) == [True, False, False]
    assert kept_groups(AccuracyBand(low=0, high=1), rows) == [True, True, False]


@pytest.mark.parametrize("band", [(-0.1, 0.5), (0.5, 1.1), (0.6, 0.5), (NAN, 0.5)])
def test_accuracy_band_refuses(band):
    with pytest.raises(InputError, match="must obey 0 <= low <= high <= 1"):
        AccuracyBand(low=band[0], high=band[1])


def test_drop_equal_looks_at_the_known():
    rows = [[1, 1], [0, 0], [1, 0], [0.5, 0.25], [NAN, 1, 0], [NAN, 1, 1], [1, NAN], [NAN, NAN], [1]]
    assert kept_groups(DropEqual(), rows) == [False, False, True, True, True, False, False, False, False]


@pytest.mark.parametrize(("accuracy", "k", "share"), [(0.05, 8, 0.3366), (0.05, 64, 0.9625), (0.5, 4, 0.875)])
def test_drop_equal_keeps_the_share_that_chance_predicts(accuracy, k, share):
    assert 1 - accuracy**k - (1 - accuracy) ** k == pytest.approx(share, abs=5e-5)
    groups = 4000
    drawn = torch.from_numpy(Rng((1, k)).numpy().random((groups, k)) < accuracy).float()
    use = DropEqual()(make([["x"] * k] * groups, width=1), drawn.flatten(), RNG)
    seen = (use == Use.TRAIN).double().mean().item()
    assert abs(seen - share) < 4 * math.sqrt(share * (1 - share) / groups)


def test_drop_truncated_drops_the_response_or_its_group():
    rollouts = make([["a", "b"], ["c", "d"], ["e", "f"]], end=[0, 2, 1, 0, 2, 2])
    nothing = torch.full((6,), NAN)
    assert DropTruncated()(rollouts, nothing, RNG).tolist() == [2, 0, 2, 2, 0, 0]
    assert DropTruncated(whole_group=True)(rollouts, nothing, RNG).tolist() == [0, 0, 2, 2, 0, 0]


def test_chain_shows_each_rule_what_the_others_left():
    # without its truncated wrong answer the first group is all right, and so teaches nothing
    rollouts = make([["a", "b", "c"], ["d", "e", "f"]], end=[0, 0, 2, 0, 0, 0])
    judged = torch.tensor([1.0, 1, 0, 1, 1, 0])
    assert Chain(rules=[DropTruncated(), DropEqual()])(rollouts, judged, RNG).tolist() == [0, 0, 0, 2, 2, 2]
    assert Chain(rules=[DropEqual(), DropTruncated()])(rollouts, judged, RNG).tolist() == [2, 2, 0, 2, 2, 2]


def test_chain_brings_nothing_back_and_gives_each_rule_its_own_numbers():
    keys = []

    def context(rollouts, outcome, rng):
        keys.append((rng.key, len(rollouts.text)))
        return torch.full((len(rollouts.text),), int(Use.CONTEXT))

    everything_cut = make([["a", "b"]], end=[2, 2])
    assert Chain(rules=[DropTruncated(), context])(everything_cut, torch.zeros(2), RNG).tolist() == [0, 0]
    one_cut = make([["a", "b"]], end=[0, 2])
    assert Chain(rules=[context, DropTruncated(), All(), context])(one_cut, torch.zeros(2), RNG).tolist() == [1, 0]
    assert keys == [((*RNG.key, 0), 2), ((*RNG.key, 3), 1)]


def test_chain_refuses_to_be_empty():
    with pytest.raises(InputError, match="no rule in it"):
        Chain(rules=[])
