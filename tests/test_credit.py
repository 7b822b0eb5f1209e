import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_batches import batch_of, same, stream
from reckon.credit import BatchMean, GroupNormalized, LeaveOneOut, RunningMean, credit_metrics, earnings, spread
from reckon.errors import InputError
from reckon.types import Stateful, Stream

slow_start = settings(deadline=None)  # torch's first call takes longer than hypothesis allows an example
NAN = math.nan
PARTS = [GroupNormalized(), GroupNormalized(std=False), LeaveOneOut(), BatchMean(), RunningMean()]
every_part = pytest.mark.parametrize("part", PARTS, ids=repr)


# Where a reward goes


def test_a_reward_on_the_third_of_seven_tokens_reaches_the_first_three():
    """Two responses to one prompt: the first is rewarded with 1 on its third token, the second never.

    token         1  2  3  4  5  6  7     total   leave-one-out baseline
    rewards       0  0  1  0  0  0  0       1              0
    rewards       0  0  0  0  0  0  0       0              1
    """
    batch = batch_of([0, 0], [7, 7])
    dense = {"steps": stream([[0, 0, 1, 0, 0, 0, 0], [0] * 7])}
    same(LeaveOneOut()(batch, dense).advantages, [[1, 1, 1, 0, 0, 0, 0], [-1] * 7])
    # The group's mean is 1/2, for both.
    half = [[0.5, 0.5, 0.5, -0.5, -0.5, -0.5, -0.5], [-0.5] * 7]
    same(GroupNormalized(std=False)(batch, dense).advantages, half)
    same(BatchMean()(batch, dense).advantages, half)
    same(RunningMean()(batch, dense).advantages, half)
    # Its standard deviation sqrt(1/2).
    same(GroupNormalized()(batch, dense).advantages, torch.tensor(half) * math.sqrt(2), 1e-5)


@every_part
def test_moving_one_token_reward_changes_only_the_tokens_between(part):
    """From the third token to the fifth: the totals stay, so only tokens 4 and 5 hear of it."""
    batch = batch_of([0, 0, 0], [7, 7, 4])
    outcome = stream([1.0, 0.0, 2.0])

    def credited(token):
        dense = torch.zeros(3, 7)
        dense[0, token] = 0.5
        fresh = RunningMean() if isinstance(part, RunningMean) else part
        return fresh(batch, {"outcome": outcome, "dense": Stream(values=dense)}).advantages

    changed = credited(2) != credited(4)
    assert changed[0].tolist() == [False, False, False, True, True, False, False]
    assert not changed[1:].any()


def test_response_and_token_rewards_add_up():
    """Response 0: 1 + (0.5, 0.25); response 1: 0 + (0, 1, 4 in the padding). Totals 1.75 and 1."""
    batch = batch_of([0, 0], [3, 2])
    streams = {"right": stream([1.0, 0.0]), "steps": stream([[0.5, 0, 0.25], [0, 1, 4]])}
    earned = earnings(batch, streams)
    same(earned.totals, [1.75, 1])
    same(earned.returns[0], [1.75, 1.25, 1.25])
    same(earned.returns[1, :2], [1, 1])
    same(LeaveOneOut()(batch, streams).advantages, [[0.75, 0.25, 0.25], [-0.75, -0.75, 0]])


def test_an_outcome_reward_is_the_same_at_every_token():
    batch = batch_of([0, 0, 0, 0], [3, 1, 2, 2])
    found = GroupNormalized()(batch, {"right": stream([1.0, 0, 0, 0])})
    same(found.advantages, [[1.5, 1.5, 1.5], [-0.5, 0, 0], [-0.5, -0.5, 0], [-0.5, -0.5, 0]], 1e-5)
    assert torch.equal(found.mask, batch.seq.mask)
    assert torch.equal(found.weights, torch.ones(4, 3))


@every_part
def test_two_streams_count_as_their_sum(part):
    batch = batch_of([0, 0, 1, 1], [2, 2, 1, 2])
    two = {"a": stream([1.0, 0, 0.5, 0.25]), "b": stream([0.5, 0.25, 0, 1])}
    one = {"sum": stream([1.5, 0.25, 0.5, 1.25])}
    fresh = (RunningMean(), RunningMean()) if isinstance(part, RunningMean) else (part, part)
    assert torch.equal(fresh[0](batch, two).advantages, fresh[1](batch, one).advantages)


# Streams that are only watched, and other kinds


@every_part
@pytest.mark.parametrize("kind", ["reward", "advantage", "weight"])
@pytest.mark.parametrize("values", [[9.0, NAN, math.inf], [[9.0, NAN], [1, 2], [-math.inf, 3]]])
def test_a_watched_stream_changes_nothing_bit_for_bit(part, kind, values):
    batch = batch_of([0, 0, 1], [2, 2, 1])
    trained = {"right": stream([0.3, 0.1, 0.7]), "steps": stream([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])}
    fresh = (RunningMean(), RunningMean()) if isinstance(part, RunningMean) else (part, part)
    without = fresh[0](batch, trained)
    beside = fresh[1](batch, {"watched": stream(values, kind, train=False), **trained})
    assert torch.equal(without.advantages, beside.advantages)
    assert torch.equal(without.weights, beside.weights)
    assert torch.equal(without.mask, beside.mask)


def test_an_advantage_stream_is_added_to_its_own_tokens_after_normalization():
    """The rewards give (1, -1) by leave-one-out; the bonus does not enter any baseline, and NaN adds nothing."""
    batch = batch_of([0, 0], [3, 2])
    streams = {
        "right": stream([1.0, 0.0]),
        "steps": stream([[0, 0.5, NAN], [-0.25, 0, 8]], "advantage"),
        "novelty": stream([0.125, NAN], "advantage"),
    }
    same(LeaveOneOut()(batch, streams).advantages, [[1.125, 1.625, 1.125], [-1.25, -1, 0]])


def test_advantage_streams_can_teach_alone():
    batch = batch_of([0, 0], [2, 2])
    found = LeaveOneOut()(batch, {"steps": stream([[0.5, -0.5], [NAN, 1]], "advantage")})
    same(found.advantages, [[0.5, -0.5], [0, 1]])
    assert found.mask.all()


def test_weight_streams_multiply_and_nan_weighs_one():
    batch = batch_of([0, 0], [3, 2])
    streams = {
        "right": stream([1.0, 0.0]),
        "tokens": stream([[0.5, NAN, 2], [0, 1, 7]], "weight"),
        "response": stream([3.0, NAN], "weight"),
    }
    found = LeaveOneOut()(batch, streams)
    same(found.weights, [[1.5, 3, 6], [0, 1, 1]])
    same(found.advantages, [[1, 1, 1], [-1, -1, 0]])


# Unknown


def test_an_unknown_reward_leaves_the_baseline_and_trains_nothing():
    """Group 0 knows (1, 0): each is compared with the other. Group 1 knows one: nothing to compare with."""
    batch = batch_of([0, 0, 0, 1, 1], [2, 1, 2, 2, 2])
    streams = {"right": stream([1.0, NAN, 0.0, 1.0, NAN]), "bonus": stream([0.0, 5, 0, 0.5, 5], "advantage")}
    found = LeaveOneOut()(batch, streams)
    same(found.advantages, [[1, 1], [0, 0], [-1, -1], [0.5, 0.5], [0, 0]])
    same(found.mask, [[True, True], [False, False], [True, True], [True, True], [False, False]])


def test_a_stream_that_no_response_of_a_group_has_is_left_out_there():
    """Style does not apply to group 1, and is unknown for the last response of group 0. Nothing applies to group 2."""
    batch = batch_of([0, 0, 0, 1, 1, 2], [1] * 6)
    streams = {"right": stream([1.0, 0, 1, 1, 0, NAN]), "style": stream([0.5, 0.5, NAN, NAN, NAN, NAN])}
    found = LeaveOneOut()(batch, streams)
    assert found.mask[:, 0].tolist() == [True, True, False, True, True, False]
    same(found.advantages[:, 0], [1, -1, 0, 1, -1, 0])


def test_a_token_without_a_reward_earns_nothing_and_a_response_without_any_is_unknown():
    batch = batch_of([0, 0, 0, 1, 1], [2, 2, 2, 1, 1])
    streams = {"right": stream([1.0, 1, 1, 1, 0]), "steps": stream([[NAN, 1], [NAN, NAN], [0, NAN]] + [[NAN, 5]] * 2)}
    earned = earnings(batch, streams)
    same(earned.totals.nan_to_num(nan=-99), [2, -99, 1, 1, 0])
    found = GroupNormalized(std=False)(batch, streams)
    same(found.advantages, [[0.5, 0.5], [0, 0], [-0.5, -0.5], [0.5, 0], [-0.5, 0]])
    assert not found.mask[1].any()


def test_a_batch_of_which_nothing_is_known_trains_nothing():
    batch = batch_of([0, 0], [2, 2])
    for part in PARTS:
        found = part(batch, {"right": stream([NAN, NAN])})
        assert not found.mask.any()
        assert torch.equal(found.advantages, torch.zeros(2, 2))


def test_context_rows_count_in_the_baseline_and_train_nothing():
    """Totals (1, 0, 0, 1): the row that trains is compared with the mean of the other three, 1/3."""
    batch = batch_of([0, 0, 0, 0], [1, 1, 1, 1], train=[True, False, False, False])
    found = LeaveOneOut()(batch, {"right": stream([1.0, 0, 0, 1])})
    same(found.advantages[:, 0], [2 / 3, 0, 0, 0])  # 1 - (0 + 0 + 1) / 3
    assert found.mask[:, 0].tolist() == [True, False, False, False]


# The running mean


def test_running_mean_compares_with_earlier_batches():
    """Mean totals 0.5, 1, 0 with decay 1/2.

    Batch 1 has no past: its own 1/2. Batch 2: 1/2. Batch 3: weights 1/2 : 1 of (1/2, 1), so 5/6.
    """
    batch = batch_of([0, 0], [1, 1])
    part = RunningMean(decay=0.5)
    same(part(batch, {"r": stream([1.0, 0.0])}).advantages[:, 0], [0.5, -0.5])
    same(part(batch, {"r": stream([1.5, 0.5])}).advantages[:, 0], [1, 0])
    same(part(batch, {"r": stream([0.0, 0.0])}).advantages[:, 0], [-5 / 6, -5 / 6])


def test_running_mean_skips_what_is_unknown():
    batch = batch_of([0, 0], [1, 1])
    part = RunningMean(decay=0.5)
    part(batch, {"r": stream([3.0, NAN])})
    part(batch, {"r": stream([NAN, NAN])})
    found = part(batch, {"r": stream([4.0, NAN])})
    same(found.advantages[:, 0], [1, 0])
    assert found.mask[:, 0].tolist() == [True, False]


def test_running_mean_credits_tokens_with_what_follows():
    batch = batch_of([0], [3])
    part = RunningMean(decay=0.0)
    part(batch, {"r": stream([2.0])})
    same(part(batch, {"r": stream([[0.0, 5, 1]])}).advantages, [[4, 4, -1]])


def test_a_restored_running_mean_goes_on_exactly():
    batch, streams = batch_of([0, 0], [1, 1]), {"r": stream([0.1, 0.7])}
    part = RunningMean(decay=0.9)
    assert isinstance(part, Stateful)
    for _ in range(3):
        part(batch, streams)
    restored = RunningMean(decay=0.9)
    restored.load_state_dict(json.loads(json.dumps(part.state_dict())))
    later = {"r": stream([0.3, 0.9])}
    assert torch.equal(restored(batch, later).advantages, part(batch, later).advantages)
    assert restored.state_dict() == part.state_dict()


def test_a_state_of_something_else_is_refused():
    with pytest.raises(InputError, match="running_mean: the saved state must hold two numbers"):
        RunningMean().load_state_dict({"total": "0", "weight": 1.0})


# Invariances


@slow_start
@given(st.lists(st.integers(-8, 8), min_size=6, max_size=6), st.integers(0, 5), st.permutations(range(3)))
def test_padding_and_the_order_of_groups_change_nothing(eighths, extra, order):
    group, lengths = [0, 0, 1, 1, 2, 2], [3, 1, 2, 3, 1, 1]
    values, dense = torch.tensor(eighths) / 8, torch.arange(18.0).reshape(6, 3) / 4
    moved = torch.tensor([2 * g + i for g in order for i in range(2)])
    shuffled = batch_of(group, [lengths[i] for i in moved.tolist()], width=3 + extra)
    padding = torch.full((6, extra), NAN)
    for part in PARTS[:-1]:
        plain = part(batch_of(group, lengths), {"a": Stream(values=values), "b": Stream(values=dense)})
        padded = torch.cat([dense[moved], padding], dim=1)
        found = part(shuffled, {"a": Stream(values=values[moved]), "b": Stream(values=padded)})
        same(found.advantages[:, :3], plain.advantages[moved], 1e-5)
        assert torch.equal(found.mask[:, :3], plain.mask[moved])
        assert not found.mask[:, 3:].any()
        assert torch.equal(found.advantages[:, 3:], torch.zeros(6, extra))


@every_part
def test_float64_and_integer_streams_become_float32(part):
    batch = batch_of([0, 0], [2, 2])
    for dtype in (torch.float64, torch.int64):
        found = part(batch, {"r": Stream(values=torch.tensor([1, 0], dtype=dtype))})
        assert found.advantages.dtype == found.weights.dtype == torch.float32


# Metrics


def test_credit_metrics_by_hand():
    """Group 0: +-1 on 3 tokens; group 1: equal rewards; group 2: unknown. Mean over 3 + 2 tokens."""
    batch = batch_of([0, 0, 1, 1, 2, 2], [2, 1, 1, 1, 1, 1])
    credit = LeaveOneOut()(batch, {"r": stream([1.0, 0, 1, 1, NAN, NAN])})
    assert credit_metrics(credit, batch) == pytest.approx({"advantage/zero_groups": 2 / 3, "advantage/mean_abs": 3 / 5})


def test_a_group_teaches_if_one_of_its_trained_tokens_does():
    batch = batch_of([0, 0, 1, 1], [1, 1, 1, 1], train=[True, False, False, False])
    credit = LeaveOneOut()(batch, {"r": stream([1.0, 0, 1, 0])})
    assert credit_metrics(credit, batch) == {"advantage/zero_groups": 0.5, "advantage/mean_abs": 1.0}


def test_without_tokens_to_train_there_is_no_mean():
    batch = batch_of([0, 0], [1, 1])
    assert credit_metrics(LeaveOneOut()(batch, {"r": stream([NAN, NAN])}), batch) == {"advantage/zero_groups": 1.0}


# Bad input


def test_streams_of_which_none_trains_are_refused():
    batch = batch_of([0, 0], [2, 2])
    streams = {"right": stream([1.0, 0.0], train=False), "focus": stream([1.0, 1.0], "weight")}
    with pytest.raises(InputError, match=r"no reward to learn from: of the streams \['focus', 'right'\] none"):
        LeaveOneOut()(batch, streams)


@pytest.mark.parametrize("kind", ["reward", "advantage", "weight"])
@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 2), (2, 3)])
def test_a_stream_of_another_size_is_named(kind, shape):
    batch = batch_of([0, 0], [2, 2])
    streams = {"right": stream([1.0, 0.0]), "odd": Stream(values=torch.zeros(shape), kind=kind)}
    with pytest.raises(InputError, match=r"stream 'odd' is of shape .*but the batch has 2 responses of 2 tokens"):
        GroupNormalized()(batch, streams)


@pytest.mark.parametrize("kind", ["reward", "advantage", "weight"])
@pytest.mark.parametrize("values", [[0.0, math.inf], [[0.0, 0.0], [0.0, -math.inf]]])
def test_an_infinite_stream_is_named_with_its_row(kind, values):
    batch = batch_of([0, 0], [2, 2])
    with pytest.raises(InputError, match="stream 'odd' is infinite in row 1"):
        BatchMean()(batch, {"right": stream([1.0, 0.0]), "odd": stream(values, kind)})


def test_infinite_padding_is_nobodys_business():
    batch = batch_of([0, 0], [2, 1])
    found = BatchMean()(batch, {"steps": stream([[1.0, 0], [0, math.inf]])})
    same(found.advantages, [[0.5, -0.5], [-0.5, 0]])


@pytest.mark.parametrize("decay", [-0.1, 1.0, NAN])
def test_running_mean_refuses_a_decay_outside_its_range(decay):
    with pytest.raises(InputError, match="running_mean: decay is"):
        RunningMean(decay=decay)


@pytest.mark.parametrize("eps", [-1e-9, math.inf, NAN])
def test_group_normalized_refuses_a_bad_eps(eps):
    with pytest.raises(InputError, match="group_normalized: eps is"):
        GroupNormalized(eps=eps)


def test_spread_takes_anybodys_advantages():
    """An advantage of one's own: credit in, the rest (mask, kinds, unknown rows) is done here."""
    batch = batch_of([0, 0], [2, 1])
    found = spread(batch, {"w": stream([2.0, 1.0], "weight")}, torch.tensor([[1.0, 2.0], [NAN, NAN]]))
    same(found.advantages, [[1, 2], [0, 0]])
    same(found.weights, [[2, 2], [1, 1]])
    assert found.mask.tolist() == [[True, True], [False, False]]


# TRL


ORACLE = json.loads((Path(__file__).parent / "oracles" / "trl.json").read_text())


@pytest.mark.parametrize("rewards", ORACLE["advantages"])
@pytest.mark.parametrize(
    ("part", "name"),
    [
        (GroupNormalized(eps=1e-4), "grpo_group"),  # TRL's epsilon
        (GroupNormalized(std=False), "grpo_none"),
        (LeaveOneOut(), "rloo"),
    ],
)
def test_advantages_equal_those_of_trl(rewards, part, name):
    made = ORACLE["advantages"][rewards]
    values = torch.tensor([NAN if r is None else r for r in made["rewards"]])
    batch = batch_of(ORACLE["group"], [sum(row) for row in ORACLE["mask"]])
    found = part(batch, {"r": Stream(values=values)})
    same(found.advantages[:, 0], made[name], 1e-6)
    assert found.mask[:, 0].tolist() == (~values.isnan()).tolist()  # TRL counts the tokens of unknown rows; we do not
