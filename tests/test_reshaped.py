"""Credit that treats right and wrong responses apart: the numbers of OREAL's specification, a loop, what is unknown."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.advantages import failure_rate, mixed, sides
from reckon.credit import GroupNormalized, LeaveOneOut, Reshaped
from reckon.errors import InputError
from reckon.types import Seen, Stream
from test_credit import batch_of, same

NAN = math.nan
RIGHT, WRONG = ("rloo", "grpo", "one"), ("rloo", "grpo", "failures", "one")


def judged(outcome, group, lengths=None, **settings):
    batch = batch_of(group, lengths or [1] * len(group), **settings)
    return replace(batch, outcome=torch.tensor(outcome, dtype=torch.float32))


def signed(batch, right=1.0, wrong=-1.0):
    """The verifier's stream for a batch."""
    return {"correct": Stream(values=torch.where(batch.outcome > 0.5, right, wrong).where(~batch.outcome.isnan(), NAN))}


def credit_of(outcome, group=None, **rules):
    batch = judged(outcome, [0] * len(outcome) if group is None else group)
    return Reshaped(**rules)(batch, signed(batch)).advantages[:, 0].tolist()


# Section 6, check 1


@pytest.mark.parametrize(
    ("k", "c", "right", "wrong"),
    [(4, 1, 2, -2 / 3), (4, 2, 4 / 3, -4 / 3), (4, 3, 2 / 3, -2), (16, 4, 1.6, -0.53333), (16, 1, 2, -0.13333)],
)
def test_the_codes_schedule_is_leave_one_out_of_plus_and_minus_one(k, c, right, wrong):
    found = credit_of([1.0] * c + [0.0] * (k - c))
    assert found == pytest.approx([right] * c + [wrong] * (k - c), abs=5e-6)
    assert sum(found) == pytest.approx(0, abs=1e-5)


def test_the_other_schedules_by_hand():
    """K = 4, c = 1: GRPO 1.5 and -0.5; the paper 1 and -(1 - 1/4); plain 1 and -1; one of each."""
    outcome = [0.0, 1.0, 0.0, 0.0]
    assert credit_of(outcome, right="grpo", wrong="grpo") == pytest.approx([-0.5, 1.5, -0.5, -0.5])
    assert credit_of(outcome, right="one", wrong="failures") == [-0.75, 1, -0.75, -0.75]
    assert credit_of(outcome, right="one", wrong="one") == [-1, 1, -1, -1]
    assert credit_of(outcome, right="one", wrong="rloo") == pytest.approx([-2 / 3, 1, -2 / 3, -2 / 3])


def test_paper_and_code_disagree_on_whom_to_punish():
    """On the hardest prompt (1 of 16) the paper's text punishes most, and the code least."""
    hard, easy = [1.0] + [0.0] * 15, [1.0] * 15 + [0.0]
    paper = [credit_of(o, right="one", wrong="failures")[-1] for o in (hard, easy)]
    code = [credit_of(o)[-1] for o in (hard, easy)]
    assert paper == pytest.approx([-15 / 16, -1 / 16])
    assert code == pytest.approx([-2 / 15, -2])


def test_the_scale_of_the_reward_is_the_verifiers():
    """With 0 and 1 leave-one-out halves, and a wrong response's own reward is 0: nothing is left to reshape."""
    batch = judged([1.0, 0.0, 0.0, 0.0], [0] * 4)
    halves = Reshaped()(batch, signed(batch, wrong=0.0)).advantages[:, 0]
    same(halves, [1, -1 / 3, -1 / 3, -1 / 3])
    nothing = Reshaped(right="one", wrong="failures")(batch, signed(batch, wrong=0.0)).advantages[:, 0]
    same(nothing, [1, 0, 0, 0])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0, 0.3, 0.8, NAN])), min_size=1, max_size=12),
    st.sampled_from(RIGHT),
    st.sampled_from(WRONG),
)
def test_every_pair_of_rules_against_a_loop(rows, right, wrong):
    rows = sorted(rows, key=lambda row: row[0])
    groups = sorted({group for group, _ in rows})
    group, outcome = [groups.index(g) for g, _ in rows], [o for _, o in rows]
    batch = judged(outcome, group)
    streams = signed(batch)
    found = Reshaped(right=right, wrong=wrong)(batch, streams)
    reward = streams["correct"].values.tolist()
    for i, own in enumerate(outcome):
        peers = [j for j in range(len(rows)) if group[j] == group[i] and not math.isnan(outcome[j])]
        if math.isnan(own):
            assert not found.mask[i].any()
            continue
        assert found.mask[i].all()
        if len({outcome[j] > 0.5 for j in peers}) < 2:
            assert found.advantages[i, 0] == 0
            continue
        mean = sum(reward[j] for j in peers) / len(peers)
        if (rule := right if own > 0.5 else wrong) == "rloo":
            wanted = reward[i] - sum(reward[j] for j in peers if j != i) / (len(peers) - 1)
        elif rule == "grpo":
            deviation = math.sqrt(sum((reward[j] - mean) ** 2 for j in peers) / (len(peers) - 1))
            wanted = (reward[i] - mean) / deviation
        else:
            p = sum(outcome[j] for j in peers) / len(peers)
            wanted = reward[i] * (1 - p if rule == "failures" else 1)
        assert found.advantages[i, 0] == pytest.approx(wanted, abs=1e-5)


def test_it_is_leave_one_out_or_grpo_where_both_rules_are():
    outcome, group = [1.0, 0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 1, 1, 1]
    batch = judged(outcome, group)
    for rule, part in (("rloo", LeaveOneOut()), ("grpo", GroupNormalized(eps=1e-8))):
        found, wanted = Reshaped(right=rule, wrong=rule)(batch, signed(batch)), part(batch, signed(batch))
        assert torch.equal(found.advantages, wanted.advantages)
        assert torch.equal(found.mask, wanted.mask)


def test_context_counts_in_the_baseline_and_trains_nothing():
    """Check 7 of the pitfalls: filtered first, two responses would always have advantages 2 and -2."""
    batch = judged([1.0, 0.0, 0.0, 0.0], [0] * 4, train=[True, False, True, False])
    found = Reshaped()(batch, signed(batch))
    same(found.advantages[:, 0], [2, 0, -2 / 3, 0])
    assert found.mask[:, 0].tolist() == [True, False, True, False]


def test_groups_of_one_kind_and_unknown_ones_teach_nothing():
    """Check 10, also where a rule alone would: all right, all wrong, and right beside unknown."""
    outcome, group = [1.0, 1, 0, 0, 1, NAN, 1, 0], [0, 0, 1, 1, 2, 2, 3, 3]
    for right in RIGHT:
        for wrong in WRONG:
            found = credit_of(outcome, group, right=right, wrong=wrong)
            assert found[:6] == [0] * 6
            assert found[6] > 0 > found[7]


def test_rewards_of_tokens_are_credited_from_their_token_on():
    """Totals 3 and -1 against each other; rewards-to-go 3, 1 and -1, -1; p is 1/2."""
    batch = judged([1.0, 0.0], [0, 0], [2, 2])
    dense = {"steps": Stream(values=torch.tensor([[2.0, 1.0], [0.0, -1.0]]))}
    same(Reshaped(right="one", wrong="failures")(batch, dense).advantages, [[3, 1], [-0.5, -0.5]])
    same(Reshaped()(batch, dense).advantages, [[4, 2], [-4, -4]])


def test_weights_multiply_and_do_not_enter_the_advantages():
    batch = judged([1.0, 0.0], [0, 0], [2, 2])
    weights = torch.tensor([[0.5, 0.0], [NAN, 1.0]])
    found = Reshaped()(batch, signed(batch) | {"tokens": Stream(values=weights, kind="weight")})
    same(found.advantages, [[2, 2], [-2, -2]])
    same(found.weights, [[0.5, 0], [1, 1]])


def test_the_policy_waits_for_its_judges():
    batch = judged([1.0, 0.0], [0, 0], [2, 1])
    part = Reshaped(warmup=3)
    for step in (0, 2):
        found = part(replace(batch, step=step), signed(batch))
        assert not found.mask.any()
        assert not found.advantages.any()
    assert part(replace(batch, step=3), signed(batch)).mask.sum() == 3


# The functions below


def test_sides_are_cut_at_one_half_and_the_unknown_has_none():
    right, wrong = sides(torch.tensor([1.0, 0.51, 0.5, 0.0, NAN]))
    assert right.tolist() == [True, True, False, False, False]
    assert wrong.tolist() == [False, False, True, True, False]


def test_mixed_groups_and_rates_by_hand_in_any_order():
    outcome = torch.tensor([1.0, 0.0, NAN, 0.0, 1.0, NAN, 0.5])
    group = torch.tensor([7, 2, 7, 7, 2, 4, 9])
    assert mixed(outcome, group).tolist() == [True, True, True, True, True, False, False]
    assert failure_rate(outcome, group).tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5, NAN, 0.5], nan_ok=True)
    assert failure_rate(torch.tensor([1.0, 0.5, 0.0, 0.0]), torch.zeros(4).long()).tolist() == [0.625] * 4


# Bad input


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"right": "failures"}, "right is 'failures'; it must be one of rloo, grpo, one"),
        ({"wrong": "none"}, "wrong is 'none'; it must be one of rloo, grpo, failures, one"),
        ({"warmup": -1}, "warmup is -1"),
    ],
)
def test_settings_that_cannot_be(given, says):
    with pytest.raises(InputError, match=f"reshaped: {says}"):
        Reshaped(**given)


def test_one_answer_to_each_prompt_is_refused():
    batch = judged([1.0, 0.0], [0, 1])
    seen = Seen(
        problems=(), outcome=batch.outcome, lengths=batch.outcome, end=batch.outcome, rounds=1, wanted=2, kept=2
    )
    with pytest.raises(InputError, match=r"every prompt was answered once\. Ask for 2 answers"):
        Reshaped()(replace(batch, seen=seen), signed(batch))
