"""Judges of steps: probabilities after each, and provers' advantages that are never summed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from judge_models import NAN, Says, answered, batch_of, language_model

from reckon.credit import LeaveOneOut
from reckon.errors import InputError
from reckon.rewards import ConfidenceRows, Sum, Verifier
from reckon.rewards._process_models import StepAdvantage, StepModel
from reckon.steps import Pattern
from reckon.types import End, Problem

LINES = Pattern()


def logit(p):
    return math.log(p / (1 - p))


# a\n | b<end> ; c<end> ; <end> alone, and padding; a response cut off has no end token
PIECES = [["a", "\n", "b", ""], ["c", ""], [""]]
AFTER = [[0.9, 0.2, 0.5, 0.6, 0.9], [0.8, 0.7, 0.9, 0.9, 0.9], [0.3, 0.9, 0.9, 0.9, 0.9]]  # after each token
BEFORE = [0.1, 0.4, 0.4]


@pytest.fixture
def batch():
    return batch_of(PIECES, outcomes=[1, 0, 0], group=[0, 0, 1])


def verifier(after=AFTER, before=BEFORE):
    scores = torch.tensor([[logit(p) for p in row] for row in after])
    first = torch.tensor([[logit(p)] for p in before])
    return Says(scores=scores, values=torch.cat([first, scores[:, :-1]], 1))


def only(reward, batch, name):
    ((found, stream),) = reward.score(batch).items()
    assert found == name
    assert stream.train
    return stream.values


@pytest.mark.parametrize(
    ("how", "behind", "before"),
    [
        ("min", [0.2, 0.7, 0.3], [0.2, 0.8, 0.4]),
        ("mean", [0.4, 0.7, 0.3], [0.35, 0.8, 0.4]),
        ("last", [0.6, 0.7, 0.3], [0.5, 0.8, 0.4]),
        ("product", [0.12, 0.7, 0.3], [0.1, 0.8, 0.4]),  # 0.2 * 0.6, 0.2 * 0.5
        ("sum", [0.8, 0.7, 0.3], [0.7, 0.8, 0.4]),
    ],
)
def test_a_response_out_of_the_probabilities_after_its_steps(batch, how, behind, before):
    values = only(StepModel(verifier(), splitter=LINES, how=how), batch, "step_model")
    assert values.tolist() == pytest.approx(behind, abs=1e-6)
    values = only(StepModel(verifier(), splitter=LINES, how=how, end_token=False), batch, "step_model")
    assert values.tolist() == pytest.approx(before, abs=1e-6)


def test_probabilities_stand_on_the_steps_last_tokens(batch):
    model = StepModel(verifier(), splitter=LINES, per="step")
    values = only(model, batch, "step_model")
    expected = torch.tensor([[0, 0.2, 0, 0.6, 0], [0, 0.7, 0, 0, 0], [0.3, 0, 0, 0, 0]])
    assert torch.allclose(values, expected, atol=1e-6)
    assert torch.allclose(model.probabilities(batch).nan_to_num(7), torch.tensor([[0.2, 0.6], [0.7, 7], [0.3, 7]]))


def test_rows_of_steps_labeled_by_confidence(batch):
    """From 0.8 to 0.3 five eighths are lost: wrong by the default of a half, right by 0.7."""
    falling = verifier(after=[[0.9, 0.8, 0.5, 0.3, 0.9], *AFTER[1:]])
    found = ConfidenceRows(StepModel(falling, splitter=LINES))
    streams = found.score(batch)
    assert torch.equal(
        streams["step_model"].values, StepModel(falling, splitter=LINES).score(batch)["step_model"].values
    )
    rows = [(row["completions"], row["labels"], row["truncated"]) for row in found.rows]
    assert rows == [(["a\n", "b"], [True, False], False), (["c"], [True], False)]  # one without text has no row
    assert [row["id"] for row in found.rows] == [batch.rollouts.problem(i).id for i in (0, 1)]
    lenient = ConfidenceRows(StepModel(falling, splitter=LINES), threshold=-0.7)
    lenient.score(batch)
    assert lenient.rows[0]["labels"] == [True, True]
    with pytest.raises(InputError, match=r"`threshold` is 0\.5"):
        ConfidenceRows(StepModel(falling, splitter=LINES), threshold=0.5).score(batch)


def test_each_step_s_advantage_is_spread_on_its_own_tokens(batch):
    advantage = StepAdvantage(verifier(), splitter=LINES, alpha=2)
    ((name, stream),) = advantage.score(batch).items()
    assert (name, stream.kind, stream.train) == ("step_advantage", "advantage", True)
    # 0.2 - 0.1, 0.5 - 0.2; 0.8 - 0.4; a response without text has no step
    expected = torch.tensor([[0.2, 0.2, 0.6, 0.6, 0], [0.8, 0.8, 0, 0, 0], [0, 0, 0, 0, 0]])
    assert torch.allclose(stream.values, expected, atol=1e-6)
    assert torch.allclose(
        advantage.values(batch).nan_to_num(7), torch.tensor([[0.1, 0.2, 0.5], [0.4, 0.8, 7], [0.4, 7, 7]]), atol=1e-6
    )


def test_an_advantage_is_added_to_its_own_tokens_and_never_returned(batch):
    pav = StepAdvantage(verifier(), splitter=LINES)
    streams = Sum({"right": Verifier(), "progress": pav}).score(batch)
    assert sorted(streams) == ["progress", "right"]
    credit = LeaveOneOut()(batch, streams)
    # outcome less the sibling's: 1 and -1; plus 0.1 and 0.3, plus 0.4. Nothing of a later step reaches an earlier one.
    assert torch.allclose(credit.advantages[0], torch.tensor([1.1, 1.1, 1.3, 1.3, 0]), atol=1e-6)
    assert torch.allclose(credit.advantages[1], torch.tensor([-0.6, -0.6, 0, 0, 0]), atol=1e-6)


def test_best_of_k_provers_in_closed_form():
    batch = batch_of([["a", "\n", "b"]], ends=[End.LENGTH])
    model = verifier(after=[[0.9, 0.2, 0.5, 0.9]], before=[0.1])
    for k, values in ((1, [0.1, 0.2, 0.5]), (4, [0.3439, 0.5904, 0.9375])):  # 1 - 0.9^4, 1 - 0.8^4, 1 - 0.5^4
        pav = StepAdvantage(model, splitter=LINES, prover_k=k)
        assert pav.advantages(batch).tolist()[0] == pytest.approx(
            [values[1] - values[0], values[2] - values[1]], abs=1e-6
        )
        assert pav.values(batch).tolist()[0] == pytest.approx([0.1, 0.2, 0.5], abs=1e-6)  # the policy's own stay


def test_another_model_as_prover_gives_both_ends_of_a_difference(batch):
    mu = verifier(after=[[0.5, 0.6, 0.9, 0.5, 0.5], [0.3, 0.5, 0.5, 0.5, 0.5], [0.5] * 5], before=[0.5, 0.5, 0.5])
    pav = StepAdvantage(verifier(), splitter=LINES, prover=mu)
    assert torch.allclose(pav.advantages(batch).nan_to_num(7), torch.tensor([[0.1, 0.3], [-0.2, 7], [7, 7]]), atol=1e-6)


@pytest.mark.parametrize("k", [1, 4])
def test_with_the_exact_outcome_last_the_advantages_telescope(batch, k):
    pav = StepAdvantage(verifier(), splitter=LINES, prover_k=k, exact_last=True)
    start = [1 - (1 - p) ** k for p in BEFORE]
    sums = pav.advantages(batch).nansum(1)
    assert sums.tolist() == pytest.approx([1 - start[0], 0 - start[1], 0], abs=1e-6)  # no step: an empty sum


def test_an_unknown_outcome_leaves_the_verifier_s_own_last_value():
    batch = batch_of(PIECES, outcomes=[NAN, 0, 0], group=[0, 0, 1])
    pav = StepAdvantage(verifier(), splitter=LINES, exact_last=True)
    assert pav.advantages(batch)[0].tolist() == pytest.approx([0.1, 0.3], abs=1e-6)


def test_the_value_of_the_whole_response_can_be_watched_for_ranking(batch):
    streams = StepAdvantage(verifier(), splitter=LINES, rank=True, prover_k=4, alpha=0.5).score(batch)
    assert list(streams) == ["step_advantage", "value"]
    value = streams["value"]
    assert (value.kind, value.train) == ("reward", False)
    assert value.values.tolist() == pytest.approx(
        [0.5, 0.8, NAN], abs=1e-6, nan_ok=True
    )  # the policy's, not the prover's


def test_a_given_prefix_is_where_the_first_step_begins():
    """a\\n was given: the first sampled step is b, from 0.2 after the prefix to 0.5."""
    batch = batch_of([["a", "\n", "b", ""]], given=[2])
    pav = StepAdvantage(verifier(after=AFTER[:1], before=BEFORE[:1]), splitter=LINES)
    assert pav.advantages(batch).tolist()[0] == pytest.approx([0.3], abs=1e-6)
    assert pav.score(batch)["step_advantage"].values.tolist()[0] == pytest.approx([0, 0, 0.3, 0.3, 0], abs=1e-6)


@given(
    st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6),
    st.integers(1, 32),
    st.integers(0, 2**32),
)
def test_under_the_policy_a_best_of_k_prover_s_advantages_are_never_positive_on_average(q, k, seed):
    """Jensen: 1 - (1 - q)^K is concave, and the policy's own value is the mean of its actions' (spec, section 6)."""
    law = torch.rand(len(q), generator=torch.Generator().manual_seed(seed)).softmax(0).tolist()
    value = sum(p * each for p, each in zip(law, q, strict=True))
    batch = batch_of([["a"]] * len(q))
    pav = StepAdvantage(
        verifier(after=[[each, 0.5] for each in q], before=[value] * len(q)), splitter=LINES, prover_k=k
    )
    mean = sum(p * a for p, a in zip(law, pav.advantages(batch)[:, 0].tolist(), strict=True))
    assert mean <= 2e-6
    if k == 1:
        assert mean == pytest.approx(0, abs=2e-6)


PROBLEMS = [Problem(id="a", prompt="1+2=", answer="3"), Problem(id="b", prompt="say it: ", answer="x")]
TEXTS = ["3", "3 or\nso", "", "x\ny\nz"]


def test_values_are_those_of_the_prefixes_each_read_alone():
    model = language_model()
    batch = answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1], outcomes=[1.0, 0, 0, 1])
    values = StepAdvantage(model, splitter=LINES).values(batch)
    prefixes = {1: ["", "3 or\n", "3 or\nso"], 3: ["", "x\n", "x\ny\n", "x\ny\nz"]}
    for row, texts in prefixes.items():
        for column, text in enumerate(texts):
            ids = model.tokenizer(PROBLEMS[row // 2].prompt + text)["input_ids"]
            with torch.no_grad():
                hidden = model.network.base_model(torch.tensor([ids]))[0][0, -1]
                alone = float(torch.sigmoid(hidden @ model.head.weight[0]))
            assert values[row, column].item() == pytest.approx(alone, abs=1e-5)
    chosen = StepModel(model, splitter=LINES, end_token=False).score(batch)["step_model"].values
    assert chosen.isfinite().all()
    assert chosen[3].item() == pytest.approx(values[3, 1:].min().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: StepModel(Says(), splitter=r"\n"), r"step_model: `splitter` is of type str; it must be a function"),
        (lambda: StepModel(Says(), splitter=LINES, per="token"), r"`per` is 'token'; it must be response or step"),
        (lambda: StepModel(Says(), splitter=LINES, how="accumulative_min"), r"`how` is 'accumulative_min'"),
        (lambda: StepModel(Says(), splitter=LINES, per="step", how="mean"), r"per='step' has no `how`"),
        (lambda: StepAdvantage(Says(), splitter=None), r"step_advantage: `splitter` is of type NoneType"),
        (lambda: StepAdvantage(Says(), splitter=LINES, prover_k=0), r"`prover_k` is 0; it must be 1 or more"),
        (lambda: StepAdvantage(Says(), splitter=LINES, alpha=-1), r"`alpha` is -1; it must be 0 or larger"),
        (lambda: StepModel(language_model(head=False), splitter=LINES), r"step_model: its model has no value head"),
        (
            lambda: StepAdvantage(Says(), splitter=LINES, prover=language_model(head=False)),
            r"step_advantage: its model has no value head",
        ),
    ],
)
def test_settings_that_cannot_be(make, says):
    with pytest.raises(InputError, match=says):
        make()


def test_a_verifier_beside_itself_is_no_prover():
    model = Says()
    with pytest.raises(InputError, match="`prover` is the verifier itself"):
        StepAdvantage(model, splitter=LINES, prover=model)
