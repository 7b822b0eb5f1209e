"""Implicit rewards at the numbers of the paper's setting, by enumeration, and with a real little model."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from judge_models import NAN, Prefixes, Says, answered, batch_of, enumerated, language_model

from reckon.credit import LeaveOneOut
from reckon.errors import InputError
from reckon.models import Lora, Optimization, Sampling
from reckon.rewards import Sum
from reckon.rewards._implicit import ImplicitReward
from reckon.steps import Pattern
from reckon.types import Problem

LINES = Pattern()


def only(reward, batch):
    ((name, stream),) = reward.score(batch).items()
    assert name == "implicit_reward"
    assert (stream.kind, stream.train) == ("reward", True)
    assert stream.values.dtype == torch.float32
    return stream.values


# pi(a) = 0.8, pi(a|a) = 0.9, pi(a|b) = 0.3 and a uniform reference, beta 0.1; rows aa, ab, ba, bb
PI = [[0.8, 0.9], [0.8, 0.1], [0.2, 0.3], [0.2, 0.7]]


@pytest.fixture
def coins():
    """The four responses of two tokens, with the reward of the numbers above."""
    model = Says(logprobs=[[math.log(p) for p in row] + [-7.0] for row in PI])
    reference = Says(logprobs=[[math.log(0.5)] * 2 + [-9.0]] * 4)
    return batch_of([["a", "a"], ["a", "b"], ["b", "a"], ["b", "b"]]), model, reference


def test_q_values_and_rewards_of_two_tokens(coins):
    batch, model, reference = coins
    reward = ImplicitReward(model, reference=reference, beta=0.1)
    q = reward.q_values(batch)
    # 0.1 ln(0.8/0.5) = 0.1 ln 1.6; 0.1 ln(0.2/0.5) = 0.1 ln 0.4
    assert q[:, 0].tolist() == pytest.approx([0.0470004, 0.0470004, -0.0916291, -0.0916291], abs=1e-6)
    # + 0.1 ln 1.8, 0.1 ln 0.2, 0.1 ln 0.6, 0.1 ln 1.4
    assert q[:, 1].tolist() == pytest.approx([0.10578, -0.11394, -0.14271, -0.05798], abs=1e-5)
    assert (only(reward, batch)[:, 2] == 0).all()  # padding
    assert only(reward, batch)[:, :2].sum(1).tolist() == pytest.approx(q[:, 1].tolist(), abs=1e-7)
    # 1/4 (exp(1.0578) + exp(-1.1394) + exp(-1.4271) + exp(-0.5798)) = 1/4 (2.88 + 0.32 + 0.24 + 0.56)
    total = ImplicitReward(model, reference=reference, beta=0.1, per="response", how="sum")
    assert float((only(total, batch) / 0.1).exp().mean()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_the_mean_of_exp_of_the_reward_under_the_reference_is_one(seed, beta):
    """And q of every prefix is the soft maximum over its continuations: all 81 responses, nothing sampled."""
    batch, model, reference = enumerated(3, 4), Prefixes(seed), Prefixes(100 + seed)
    reward = ImplicitReward(model, reference=reference, beta=beta, per="response", how="sum")
    r = only(reward, batch).double()
    lengths = batch.seq.mask.sum(1)
    assert (lengths == 4).all()
    logprobs = reference.outputs(batch.seq).logprobs[:, :4].double()
    law = logprobs.sum(1).exp()
    assert float(law.sum()) == pytest.approx(1, abs=1e-6)
    assert float((law * (r / beta).exp()).sum()) == pytest.approx(1, abs=1e-6)
    q = reward.q_values(batch)
    for t in (1, 2, 3):
        rest = logprobs[:, t:].sum(1)
        for row in range(0, 81, 7):
            same = (batch.seq.tokens[:, :t] == batch.seq.tokens[row, :t]).all(1)
            soft = beta * torch.logsumexp(rest[same] + r[same] / beta, 0)
            assert float(q[row, t - 1]) == pytest.approx(float(soft), abs=1e-6)
            assert float((rest[same].exp() * r[same]).sum()) <= float(soft) + 1e-9 <= float(r[same].max()) + 2e-9


STEPS = [["a", "\n", "b", "c", ""], ["d", "\n", "", "", ""]]
RATIOS = [[1.0, 2.0, -4.0, 0.5, 3.0, 99.0], [-1.0, 0.5, 2.0, 99.0, 99.0, 99.0]]


@pytest.fixture
def two_rows():
    """a\\n|bc<end> and d\\n<end>, beta 1: token rewards 1 2 | -4 .5 3 and -1 .5 2."""
    return batch_of([STEPS[0], STEPS[1][:3]]), Says(logprobs=RATIOS)


def test_step_rewards_stand_on_the_steps_last_tokens_and_return_what_is_still_to_come(two_rows):
    batch, model = two_rows
    values = only(ImplicitReward(model, beta=1, splitter=LINES, per="step"), batch)
    # 1 + 2 = 3 on the line's end; -4 + 0.5 + 3 = -0.5 on the end token; -1 + 0.5 + 2 = 1.5
    assert values.tolist() == [[0, 3, 0, 0, -0.5, 0], [0, 0, 1.5, 0, 0, 0]]
    credit = LeaveOneOut()(
        batch, Sum({"implicit": ImplicitReward(model, beta=1, splitter=LINES, per="step")}).score(batch)
    )
    # returns 2.5 2.5 -.5 -.5 -.5 and 1.5 1.5 1.5, less the sibling's total 1.5 and 2.5
    assert credit.advantages.tolist() == [[1, 1, -2, -2, -2, 0], [-1, -1, -1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("min", [-0.5, 1.5]),
        ("sum", [2.5, 1.5]),
        ("mean", [1.25, 1.5]),
        ("last", [-0.5, 1.5]),
        ("accumulative_min", [2.5, 1.5]),  # q at the step ends: 3, 2.5
        ("product", [0.9525741 * 0.3775407, 0.8175745]),  # sigmoids of 3, -0.5; 1.5
    ],
)
def test_a_response_s_reward_out_of_its_steps(two_rows, how, expected):
    batch, model = two_rows
    reward = ImplicitReward(model, beta=1, splitter=LINES, per="response", how=how)
    assert only(reward, batch).tolist() == pytest.approx(expected, abs=1e-6)
    assert reward.step_rewards(batch).nan_to_num(7).tolist() == [[3, -0.5], [1.5, 7]]


def test_length_normalized_a_response_is_worth_the_mean_over_its_tokens(two_rows):
    batch, model = two_rows
    norm = {"beta": 2, "length_normalized": True}
    # twice 1 2 -4 .5 3 over five tokens, and twice -1 .5 2 over three
    tokens = [[0.4, 0.8, -1.6, 0.2, 1.2, 0], [-2 / 3, 1 / 3, 4 / 3, 0, 0, 0]]
    assert torch.allclose(only(ImplicitReward(model, **norm), batch), torch.tensor(tokens))
    assert only(ImplicitReward(model, **norm, per="response", how="sum"), batch).tolist() == pytest.approx([1, 1])
    steps = only(ImplicitReward(model, **norm, splitter=LINES, per="step"), batch)
    assert torch.allclose(steps, torch.tensor([[0, 1.2, 0, 0, -0.2, 0], [0, 0, 1, 0, 0, 0]]))
    given = batch_of([["a", "b"], ["a"]], given=[1, 1])  # what was given is no token of the mean
    found = only(ImplicitReward(Says(logprobs=[[9, 3, 9], [9, 9, 9]]), **norm, per="response", how="sum"), given)
    assert found[0] == 6
    assert found[1].isnan()


def test_two_splitters_cut_one_reward_in_two_ways(two_rows):
    batch, model = two_rows
    for splitter in (LINES, Pattern("[bd]"), lambda text: range(1, len(text) + 1), lambda _: []):
        reward = ImplicitReward(model, beta=0.5, splitter=splitter, per="step")
        assert only(reward, batch).sum(1).tolist() == pytest.approx([1.25, 0.75])
    fine = ImplicitReward(model, beta=0.5, splitter=lambda text: range(1, len(text) + 1), per="response")
    assert only(fine, batch)[0] < only(ImplicitReward(model, beta=0.5, splitter=LINES, per="response"), batch)[0]


def test_the_first_token_counts_and_a_given_prefix_does_not():
    batch = batch_of([["a", "\n", "b", "\n", ""]], given=[1])
    model = Says(logprobs=[[9.0, 1.0, 2.0, 3.0, 4.0, 9.0]])
    values = only(ImplicitReward(model, beta=1, splitter=LINES, per="step"), batch)
    assert values.tolist() == [[0, 1, 0, 0, 9, 0]]  # 1; 2 + 3 + 4
    assert only(ImplicitReward(model, beta=1, per="response", how="sum"), batch).tolist() == [10]


def test_an_empty_response_is_worth_its_end_token_and_nothing_sampled_is_unknown():
    batch = batch_of([[""], ["a", ""], ["a"]], given=[0, 0, 1])
    model = Says(logprobs=[[-2.0, 9, 9], [1.0, 1.0, 9], [9, 9, 9]])
    for how, expected in (("min", [-2.0, 2.0]), ("sum", [-2.0, 2.0]), ("last", [-2.0, 2.0])):
        values = only(ImplicitReward(model, beta=1, splitter=LINES, per="response", how=how), batch)
        assert values[:2].tolist() == expected
        assert values[2].isnan()
    assert only(ImplicitReward(model, beta=1, splitter=LINES, per="step"), batch)[:, 0].tolist() == [-2, 0, 0]


@given(st.floats(0.01, 10), st.integers(0, 2**32))
def test_beta_scales_and_ranks_alike_and_swapping_turns_every_sign(beta, seed):
    generator = torch.Generator().manual_seed(seed)
    one, two = (Says(logprobs=-torch.rand(2, 6, generator=generator)) for _ in range(2))
    batch = batch_of([STEPS[0], STEPS[1]])
    at = {"splitter": LINES, "per": "response"}
    plain = only(ImplicitReward(one, reference=two, beta=1, **at), batch)
    scaled = only(ImplicitReward(one, reference=two, beta=beta, **at), batch)
    assert torch.allclose(scaled, beta * plain, rtol=1e-5, atol=1e-6)
    assert scaled.argmax() == plain.argmax() or math.isclose(*plain.tolist(), abs_tol=1e-6)
    there = only(ImplicitReward(one, reference=two, beta=beta), batch)
    back = only(ImplicitReward(two, reference=one, beta=beta), batch)
    assert torch.equal(there, -back)


PROBLEMS = [Problem(id="a", prompt="1+2=", answer="3"), Problem(id="b", prompt="say it: ", answer="x")]
TEXTS = ["3", "3 or\nso", "", "x\ny\nz"]


def test_a_model_is_its_own_reference_until_it_learns():
    model = language_model(head=False, optimizer=Optimization(lr=1e-2))
    reference = model.reference()
    batch = answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1])
    reward = ImplicitReward(model, reference=reference)
    assert only(reward, batch).abs().max() == 0
    model.step(batch.seq, {}, lambda outputs, _: outputs.logprobs)
    values = only(reward, batch)
    assert values.abs().max() > 1e-3
    assert (values[~batch.seq.mask] == 0).all()
    assert not values.requires_grad


def test_with_lora_the_reference_is_the_model_without_its_adapter():
    model = language_model(head=False, optimizer=Optimization(lr=1e-2), lora=Lora(rank=2))
    base = language_model(head=False)
    batch = answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1])
    model.step(batch.seq, {}, lambda outputs, _: outputs.logprobs)
    shared = only(ImplicitReward(model, reference=model.reference()), batch)
    apart = only(ImplicitReward(model, reference=base), batch)
    assert shared.abs().max() > 1e-3
    assert torch.allclose(shared, apart, atol=1e-5)


def test_a_response_scores_the_same_whatever_stands_beside_it():
    model, reference = language_model(head=False), language_model(head=False, seed=1)
    reward = ImplicitReward(model, reference=reference, splitter=LINES, per="response")
    together = only(reward, answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1]))
    for row, (problem, text) in enumerate(zip([PROBLEMS[0]] * 2 + [PROBLEMS[1]] * 2, TEXTS, strict=True)):
        alone = only(reward, answered(model, [problem], [text]))
        assert alone.item() == pytest.approx(together[row].item(), abs=1e-5)
    assert together.isfinite().all()  # the empty one too


def test_dropout_is_off_while_it_scores():
    model = language_model(head=False)
    model.network.config.attention_dropout = 0.5
    for layer in model.network.model.layers:
        layer.self_attn.attention_dropout = 0.5
    batch = answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1])
    assert torch.equal(only(ImplicitReward(model), batch), only(ImplicitReward(model), batch))
    assert not model.network.training


def test_tokens_of_another_tokenizer_are_refused():
    model = language_model(head=False)
    batch = answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1])
    shifted = batch_of([[*text, ""] for text in TEXTS], tokens=torch.nn.functional.pad(batch.seq.tokens + 1, (0, 1)))
    with pytest.raises(InputError, match="the tokens of another tokenizer than the judge's"):
        ImplicitReward(model).score(shifted)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beta": 0}, r"`beta` is 0; it must be above 0"),
        ({"beta": NAN}, r"`beta` is nan"),
        ({"per": "word"}, r"`per` is 'word'; it must be token, step or response"),
        ({"per": "step"}, r"rewards of steps need a `splitter`"),
        ({"per": "response"}, r"rewards of steps need a `splitter`"),
        ({"per": "response", "how": "median", "splitter": LINES}, r"`how` is 'median'; it must be one of min, sum"),
        ({"how": "mean"}, r"per='token' has no `how`"),
        ({"splitter": "\n"}, r"implicit_reward: `splitter` is of type str; it must be a function"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        ImplicitReward(Says(), **settings)


def test_a_model_beside_itself_is_no_reference():
    model = Says()
    with pytest.raises(InputError, match="model and reference are one"):
        ImplicitReward(model, reference=model)
    with pytest.raises(InputError, match=r"temperature 1\.0, the reference's at 0\.7"):
        ImplicitReward(
            language_model(head=False), reference=language_model(head=False, sampling=Sampling(temperature=0.7))
        )


@pytest.mark.parametrize("ends", [[3, 1], [99], ["one"], [-1]])
def test_a_splitter_that_returns_nonsense_is_told(two_rows, ends):
    batch, model = two_rows
    with pytest.raises(InputError, match=r"response 0: the splitter gave the step ends"):
        ImplicitReward(model, splitter=lambda _: ends, per="step").score(batch)


def test_reading_steps_needs_a_splitter_whatever_it_scores_by(two_rows):
    batch, model = two_rows
    with pytest.raises(InputError, match="need a `splitter`"):
        ImplicitReward(model).step_rewards(batch)
