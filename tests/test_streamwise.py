"""Streams credited each by itself: the numbers of PRIME worked by hand, and a double loop for every form."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from credit_batches import batch_of, same, stream
from reckon import advantages
from reckon.credit import LeaveOneOut, Streamwise
from reckon.errors import InputError
from reckon.types import Stream

NAN = math.nan
slow_start = hypothesis_settings(deadline=None)
NAMES = ("rloo paper", "rloo code", "grpo", "grpo std", "reinforce", "value")


def part_of(name, **more):
    kind, _, rest = name.partition(" ")
    own = {"paper": {"form": "paper"}, "code": {"form": "code"}, "std": {"token_std": True}, "": {}}[rest]
    return Streamwise(estimator=kind, **own, **more)


# Two responses to one prompt: rewards of tokens, outcomes 1 and 0, nothing normalized, no discount
SCORES = [[0.3, 0.0, -0.3], [0.2, 0.4, 99.0]]


@pytest.fixture
def two():
    return batch_of([0, 0], [3, 2]), {"right": stream([1.0, 0.0]), "process": stream(SCORES)}


def test_leave_one_out_of_tokens_by_hand(two):
    """Token means 0 and 0.3. Paper: s_1t - 0.3 = 0, -0.3, -0.6 from the end -0.6, -0.9, -0.9; s_2t - 0 = 0.2, 0.4.

    Code: 2 s - (0 + 0.3) = 0.3, -0.3, -0.9, from the end -0.9, -1.2, -0.9; 0.1, 0.5, from the end 0.5, 0.6.
    """
    batch, streams = two
    scores = streams["process"].values
    arguments = (scores, batch.seq.group, batch.seq.mask)
    paper = advantages.token_leave_one_out(*arguments)
    same(paper[0], [-0.9, -0.9, -0.6])
    same(paper[1, :2], [0.6, 0.4])
    code = advantages.token_leave_one_out(*arguments, form="code")
    same(code[0], [-0.9, -1.2, -0.9])
    same(code[1, :2], [0.6, 0.5])
    same(Streamwise()(batch, streams).advantages, [[0.1, 0.1, 0.4], [-0.4, -0.6, 0]])
    same(Streamwise(form="code")(batch, streams).advantages, [[0.1, -0.2, 0.1], [-0.4, -0.5, 0]])


def test_whitened_by_hand(two):
    """Mean of 0.1, -0.2, 0.1, -0.4, -0.5: -0.18; squares 0.0784 * 2 + 0.0004 + 0.0484 + 0.1024 = 0.308, over 4."""
    found = Streamwise(form="code", whiten=True)(*two)
    same(found.advantages, [[1.00905, -0.07207, 1.00905], [-0.79282, -1.15320, 0]], 1e-5)
    assert float(found.advantages[found.mask].mean()) == pytest.approx(0, abs=1e-6)


def test_the_largest_return_is_1(two):
    batch, streams = two
    mask = batch.seq.mask
    returns = advantages.returns_to_go(streams["process"].values, mask)
    same(returns[0], [0, -0.3, -0.3])
    same(returns[1, :2], [0.6, 0.4])
    found = advantages.unit_returns(streams["process"].values, mask)
    same(found, [[0.3 / 0.600001, 0, -0.3 / 0.600001], [0.2 / 0.600001, 0.4 / 0.600001, 0]], 1e-7)


def test_rewards_of_0_stay_0_and_leave_the_outcome_alone(two):
    batch, streams = two
    nothing = torch.zeros(2, 3)
    assert torch.equal(advantages.unit_returns(nothing, batch.seq.mask), nothing)
    outcome = {"right": streams["right"]}
    for name in NAMES:
        both = part_of(name)(batch, outcome | {"process": Stream(values=nothing)})
        assert torch.equal(both.advantages, part_of(name)(batch, outcome).advantages)


def test_grpo_of_tokens_by_hand(two):
    """Mean of the means 0.15, so 0.15, -0.15, -0.45 and 0.05, 0.25; their deviation sqrt(2 * 0.15^2) = 0.212132."""
    batch, streams = two
    only = {"process": streams["process"]}
    plain = Streamwise(estimator="grpo")(batch, only).advantages
    same(plain, [[-0.45, -0.6, -0.45], [0.3, 0.25, 0]])
    scaled = Streamwise(estimator="grpo", token_std=True, eps=0.1)(batch, only).advantages
    same(scaled, plain / 0.312132, 1e-5)
    # of outcomes 1 and 0: distances +-0.5 over sqrt(0.5)
    outcome = Streamwise(estimator="grpo")(batch, {"right": streams["right"]}).advantages
    same(outcome, [[0.707106] * 3, [-0.707106] * 2 + [0]], 1e-5)


def test_reinforce_and_value_by_hand(two):
    same(Streamwise(estimator="reinforce")(*two).advantages, [[1, 0.7, 0.7], [0.6, 0.4, 0]])
    # outcome less what came before: 1 - 0, 1 - 0.3, 1 - 0.3; 0 - 0, 0 - 0.2
    same(Streamwise(estimator="value")(*two).advantages, [[1, 0.7, 0.7], [0, -0.2, 0]])


def test_smoothing_by_hand():
    """Half of what follows: 1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4; with an outcome of 10 the last is 10 - 3 = 7."""
    rewards, mask = torch.tensor([[1.0, 2, 4, NAN]]), torch.tensor([[True, True, True, False]])
    same(advantages.smoothed(rewards, mask, 0.5), [[3, 4, 4, 0]])
    same(advantages.smoothed(rewards, mask, 0.5, torch.tensor([10.0])), [[1 + 1 + 7 / 4, 2 + 3.5, 7, 0]])
    same(advantages.smoothed(rewards, mask, 0.0, torch.tensor([10.0])), [[1, 2, 7, 0]])
    same(advantages.smoothed(rewards, mask, 0.0, torch.tensor([NAN])), [[1, 2, 4, 0]])
    same(advantages.smoothed(rewards, mask, 0.0), [[1, 2, 4, 0]])


# Against a double loop


@st.composite
def batches(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    group = [g for g, size in enumerate(sizes) for _ in range(size)]
    lengths = [draw(st.integers(1, 5)) for _ in group]
    number = st.integers(-8, 8).map(lambda n: n / 4)
    scores = [[draw(number) for _ in range(5)] for _ in group]
    outcome = [draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in group]
    return group, lengths, scores, outcome, draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])), draw(number)


def naive(name, group, lengths, scores, outcome, gamma, weight):
    """Section 2.7 of the specification, one token at a time: process part, outcome part."""
    n = len(group)
    mu = [sum(scores[i][: lengths[i]]) / lengths[i] for i in range(n)]
    found = []
    for i in range(n):
        mine = [j for j in range(n) if group[j] == group[i]]
        others = [j for j in mine if j != i]
        k = len(mine)
        mean, outcome_mean = sum(mu[j] for j in mine) / k, sum(outcome[j] for j in mine) / k
        row = []
        for t in range(lengths[i]):
            dense = 0.0
            for u in range(t, lengths[i]):
                s, decay = scores[i][u], gamma ** (u - t)
                if name == "rloo paper":
                    dense += decay * (s - sum(mu[j] for j in others) / (k - 1)) if others else 0.0
                elif name == "rloo code":
                    dense += decay * (k / (k - 1) * s - sum(mu[j] for j in mine) / (k - 1)) if others else 0.0
                elif name.startswith("grpo"):
                    scale = 1.0
                    if name == "grpo std":
                        deviation = math.sqrt(sum((mu[j] - mean) ** 2 for j in mine) / max(k - 1, 1))
                        scale = deviation + 1e-6 if deviation > 1e-12 else math.inf
                    dense += decay * (s - mean) / scale if others else 0.0
                elif name == "reinforce":
                    dense += decay * s
            if name == "value":
                dense = -sum(scores[i][:t])
            r = outcome[i]
            if name.startswith("rloo"):
                whole = r - sum(outcome[j] for j in others) / (k - 1) if others else 0.0
            elif name.startswith("grpo"):
                deviation = math.sqrt(sum((outcome[j] - outcome_mean) ** 2 for j in mine) / max(k - 1, 1))
                whole = (r - outcome_mean) / (deviation + 1e-6) if deviation else 0.0
            else:
                whole = r
            row.append(whole + weight * dense)
        found.append(row)
    return found


def whitened(rows):
    every = [x for row in rows for x in row]
    mean = sum(every) / len(every)
    variance = sum((x - mean) ** 2 for x in every) / (len(every) - 1) if len(every) > 1 else 0.0
    return [[(x - mean) / math.sqrt(variance + 1e-8) if variance else 0.0 for x in row] for row in rows]


@slow_start
@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("name", NAMES)
@given(drawn=batches())
def test_every_form_is_its_double_loop(name, whiten, drawn):
    group, lengths, scores, outcome, gamma, weight = drawn
    gammas = {} if name == "value" else {"process": gamma}
    gamma = 1.0 if name == "value" else gamma
    batch = batch_of(group, lengths, width=5)
    credit = part_of(name, gammas=gammas, weights={"process": weight}, whiten=whiten)(
        batch, {"right": stream(outcome), "process": stream(scores)}
    )
    wanted = naive(name, group, lengths, scores, outcome, gamma, weight)
    size = max(1.0, *(abs(x) for row in wanted for x in row))
    spread = max(x for row in wanted for x in row) - min(x for row in wanted for x in row)
    if whiten and spread < 1e-3:
        return  # all equal but for rounding, which whitening would blow up
    wanted = whitened(wanted) if whiten else wanted
    for row, values in enumerate(wanted):
        rounding = 3e-6 * (size / min(spread, 1.0) if whiten else size)
        assert credit.advantages[row, : len(values)].tolist() == pytest.approx(values, abs=rounding)
        assert (credit.advantages[row, len(values) :] == 0).all()


# What must not matter


@slow_start
@given(drawn=batches(), filler=st.sampled_from([0.0, 99.0, NAN]), more=st.integers(0, 3), seed=st.integers(0, 99))
def test_padding_and_the_order_of_groups_do_not_matter(drawn, filler, more, seed):
    group, lengths, scores, outcome, _, _ = drawn
    n = len(group)

    def credited(order, group, width, fill):
        values = torch.full((n, width), fill)
        for place, row in enumerate(order):
            values[place, : lengths[row]] = torch.tensor(scores[row][: lengths[row]])
        batch = batch_of(group, [lengths[row] for row in order], width=width)
        streams = {"right": stream([outcome[row] for row in order]), "process": Stream(values=values)}
        return [part_of(name)(batch, streams).advantages for name in NAMES]

    last = max(group)
    order = sorted(range(n), key=lambda row: (last - group[row], row))
    for one, other in zip(
        credited(range(n), group, 5, 0.0),
        credited(order, [last - group[row] for row in order], 5 + more, filler),
        strict=True,
    ):
        same(other[:, :5], one[torch.tensor(order)], 1e-6)
        assert (other[:, 5:] == 0).all()


@slow_start
@given(drawn=batches(), shift=st.integers(-16, 16).map(lambda n: n / 4))
def test_what_all_tokens_of_a_group_share_does_not_matter(drawn, shift):
    """Both forms; a length in which a mean of equal numbers is exact, or it differs by rounding."""
    group, lengths, scores, _, gamma, _ = drawn
    batch = batch_of(group, lengths, width=5)
    plain, moved = torch.tensor(scores), torch.tensor(scores) + shift * (torch.tensor(group)[:, None] == 0)
    for form in ("paper", "code"):
        for one, other in [
            [
                advantages.token_leave_one_out(x, batch.seq.group, batch.seq.mask, gamma=gamma, form=form)
                for x in (plain, moved)
            ]
        ]:
            same(other[batch.seq.mask], one[batch.seq.mask], 3e-5)


@slow_start
@given(drawn=batches())
def test_the_forms_agree_at_the_first_token_and_outcomes_sum_to_nothing(drawn):
    """Without discount; there the code's form is T (m_i - mean of the siblings' m). Equal outcomes give exactly 0."""
    group, lengths, scores, outcome, _, _ = drawn
    batch = batch_of(group, lengths, width=5)
    values, g = torch.tensor(scores), batch.seq.group
    paper, code = (
        advantages.token_leave_one_out(values, g, batch.seq.mask, form=form)[:, 0] for form in ("paper", "code")
    )
    same(code, paper, 3e-5)
    mu = advantages.token_means(values, batch.seq.mask)
    for row in range(len(group)):
        others = [j for j in range(len(group)) if group[j] == group[row] and j != row]
        wanted = lengths[row] * (mu[row] - sum(mu[j] for j in others) / len(others)) if others else 0.0
        assert float(code[row]) == pytest.approx(float(wanted), abs=3e-5)
    right = Streamwise()(batch, {"right": stream(outcome)}).advantages[:, 0]
    for number in set(group):
        rows = [row for row in range(len(group)) if group[row] == number]
        assert float(right[rows].sum()) == pytest.approx(0, abs=1e-5)
        if len({outcome[row] for row in rows}) == 1:
            assert (right[rows] == 0).all()


# Weights, and what is unknown


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_weight_0_is_no_stream_at_all_bit_for_bit(name, whiten):
    generator = torch.Generator().manual_seed(0)
    batch = batch_of([0, 0, 0, 1, 1, 1], [3, 5, 4, 1, 2, 5])
    right = stream([1.0, 0, 0.3, 0, 1, 1])
    wild = Stream(values=1e4 * torch.randn(6, 5, generator=generator) - torch.tensor([[0.0] * 4 + [NAN]]))
    part, off = part_of(name, whiten=whiten), part_of(name, whiten=whiten, weights={"process": 0.0})
    alone = part(batch, {"right": right}).advantages
    assert torch.equal(off(batch, {"right": right, "process": wild}).advantages, alone)
    watched = Stream(values=wild.values, train=False)  # as `Sum` gives a part of weight 0
    assert torch.equal(part(batch, {"right": right, "process": watched}).advantages, alone)
    assert not torch.equal(part(batch, {"right": right, "process": wild}).advantages, alone)
    if name.startswith("rloo") and not whiten:
        assert torch.equal(alone, LeaveOneOut()(batch, {"right": right}).advantages)


def test_a_weight_multiplies_after_the_deviation(two):
    batch, streams = two
    one, three = (
        Streamwise(estimator="grpo", weights={"right": w})(batch, {"right": streams["right"]}) for w in (1.0, 3.0)
    )
    same(three.advantages, 3 * one.advantages)


def test_each_stream_has_its_own_discount():
    """One token of 1 at the end of three, alone in a batch of two prompts: gamma^2, gamma, 1, and the outcome whole."""
    batch = batch_of([0, 1], [3, 3])
    streams = {"right": stream([1.0, 1.0]), "a": stream([[0, 0, 1.0]] * 2), "b": stream([[0, 0, 1.0]] * 2)}
    found = Streamwise(estimator="reinforce", gammas={"a": 0.5, "b": 0.1}, weights={"b": 10.0})(batch, streams)
    same(found.advantages[0], [1 + 0.25 + 0.1, 1 + 0.5 + 1, 1 + 1 + 10])


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_response_trains_nothing_and_is_in_no_baseline(name):
    part = part_of(name)
    three = batch_of([0, 0, 0], [3, 2, 3])
    scores = [*SCORES, [5.0, 5.0, 5.0]]
    found = part(three, {"right": stream([1.0, 0.0, NAN]), "process": stream(scores)})
    pair = part(batch_of([0, 0], [3, 2]), {"right": stream([1.0, 0.0]), "process": stream(SCORES)})
    same(found.advantages[:2], pair.advantages)
    assert not found.mask[2].any()
    other = part(three, {"right": stream([1.0, 0.0, 1.0]), "process": stream([*SCORES, [NAN] * 3])})
    same(other.advantages[:2], pair.advantages)
    assert not other.mask[2].any()


def test_a_group_without_a_stream_goes_by_the_others(two):
    batch = batch_of([0, 0, 1, 1], [3, 2, 1, 1])
    right = stream([1.0, 0.0, NAN, NAN])
    process = stream([*SCORES, [0.5, 0, 0], [0.1, 0, 0]])
    found = Streamwise()(batch, {"right": right, "process": process}).advantages
    same(found[:2], Streamwise()(*two).advantages)
    same(found[2:, 0], [0.4, -0.4])  # 0.5 - 0.1, 0.1 - 0.5


def test_a_token_without_a_reward_is_left_out_of_its_mean():
    """Means 0.4 of one token and 0.1: 0.4 - 0.1, counted once; 0 - 0.4, 0.2 - 0.4 from the end."""
    batch = batch_of([0, 0], [2, 2])
    found = Streamwise()(batch, {"process": stream([[NAN, 0.4], [0.0, 0.2]])}).advantages
    same(found, [[0.3, 0.3], [-0.6, -0.2]])


def test_advantages_of_streams_are_added_after_whitening(two):
    batch, streams = two
    plain = Streamwise(whiten=True)(batch, streams).advantages
    step = Stream(values=torch.tensor([[10.0, 0, 0], [0, 0, 0]]), kind="advantage")
    found = Streamwise(whiten=True)(batch, {**streams, "step": step}).advantages
    same(found - plain, [[10, 0, 0], [0, 0, 0]], 1e-5)


# Bad input


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"estimator": "ppo"}, "estimator is 'ppo'"),
        ({"form": "eq5"}, "form is 'eq5'"),
        ({"eps": -1.0, "estimator": "grpo"}, "eps is -1.0"),
        ({"form": "code", "estimator": "grpo"}, "form is read by estimator='rloo' alone"),
        ({"token_std": True}, "token_std is read by estimator='grpo' alone"),
        ({"weights": {"a": NAN}}, "the weight of 'a' is nan"),
        ({"gammas": {"a": 1.1}}, "the gamma of 'a' is 1.1"),
        ({"gammas": {"a": 0.9}, "estimator": "value"}, "a value has none"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        Streamwise(**settings)


def test_streams_that_cannot_be(two):
    batch, streams = two
    for settings, says in (
        ({"weights": {"proces": 2.0}}, r"weights names 'proces', which is no stream; there are \['right', 'process'\]"),
        ({"gammas": {"right": 0.9}}, "'right' is one number for a response, which is not discounted"),
        ({"weights": {"right": 0.0, "process": 0.0}}, "no reward stream trains with a weight other than 0"),
    ):
        with pytest.raises(InputError, match=says):
            Streamwise(**settings)(batch, streams)


def test_of_outcomes_alone_it_is_trls_rloo():
    """tests/oracles/trl.json was made by TRL's own trainer."""
    oracle = json.loads((Path(__file__).parent / "oracles" / "trl.json").read_text())
    for found in oracle["advantages"].values():
        batch = batch_of(oracle["group"], [sum(row) for row in oracle["mask"]])
        for form in ("paper", "code"):
            right = stream([NAN if r is None else float(r) for r in found["rewards"]])
            same(Streamwise(form=form)(batch, {"right": right}).advantages[:, 0], found["rloo"])
