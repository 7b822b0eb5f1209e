"""A judge that is shown the reference answer: its one text, its cut, and what it says of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from judge_models import NAN, answered, batch_of, language_model
from test_classifier import save

from reckon.errors import InputError
from reckon.rewards import as_reward
from reckon.rewards._classifier import SequenceClassifier
from reckon.rewards._judges_reading import sequences_of, text_tokens
from reckon.rewards._reference_based import COOPER_CUT, ReferenceBased, cut_middle, format_reference_based, question_of
from reckon.types import Problem


def test_the_one_text_it_reads():
    text = format_reference_based("1+2?", "3", "it is 3")
    assert text == (
        "<question>1+2?</question>\n<reference_answer>3</reference_answer>\n<completion>it is 3</completion>"
    )
    assert format_reference_based("1+2?", None, "") == "<question>1+2?</question>\n<completion></completion>"


def test_what_a_problem_asks():
    user, system = {"role": "user", "content": "1+2?"}, {"role": "system", "content": "add"}
    assert question_of(Problem(id="s", prompt="1+2?")) == "1+2?"
    assert question_of(Problem(id="s", prompt=(user,))) == "1+2?"
    assert question_of(Problem(id="s", prompt=(system, user))) == "system: add\n\nuser: 1+2?"


def test_a_text_of_1500_characters_stays_and_one_of_1501_loses_its_middle():
    whole = "a" * 500 + "b" * 1000
    assert cut_middle(whole, COOPER_CUT) == whole
    longer = "a" * 500 + "x" + "b" * 1000
    assert cut_middle(longer, COOPER_CUT) == whole
    assert cut_middle(longer, None) == longer
    text = format_reference_based("x" * 2000, longer, longer, keep=COOPER_CUT)
    assert text.count("x") == 2000  # a question is never cut
    assert text.count("a" * 500 + "b" * 1000) == 2


@given(st.text(max_size=30), st.integers(0, 9), st.integers(0, 9))
def test_a_cut_text_has_its_beginning_and_its_end(text, first, last):
    cut = cut_middle(text, (first, last))
    assert len(cut) == min(len(text), first + last)
    assert text.startswith(cut[:first])
    assert text.endswith(cut[len(cut) - min(last, len(cut)) :])


PROBLEMS = [
    Problem(id="a", prompt="1+2=", answer="3"),
    Problem(id="b", prompt="say it: ", answer=None),
    Problem(id="c", prompt=({"role": "user", "content": "2+2="},), answer="4"),
]
TEXTS = ["3", "three", "it", "", "4."]
GROUP = [0, 0, 1, 2, 2]
SHOWN = [
    "<question>1+2=</question>\n<reference_answer>3</reference_answer>\n<completion>3</completion>",
    "<question>1+2=</question>\n<reference_answer>3</reference_answer>\n<completion>three</completion>",
    None,
    "<question>2+2=</question>\n<reference_answer>4</reference_answer>\n<completion></completion>",
    "<question>2+2=</question>\n<reference_answer>4</reference_answer>\n<completion>4.</completion>",
]
HIDDEN = [
    "<question>1+2=</question>\n<completion>3</completion>",
    "<question>1+2=</question>\n<completion>three</completion>",
    "<question>say it: </question>\n<completion>it</completion>",
    "<question>2+2=</question>\n<completion></completion>",
    "<question>2+2=</question>\n<completion>4.</completion>",
]


@pytest.fixture
def batch():
    return batch_of([[text] for text in TEXTS], group=GROUP, problems=PROBLEMS)


def only(reward, batch):
    ((name, stream),) = reward.score(batch).items()
    assert name == "reference_based"
    assert (stream.kind, stream.train, stream.values.dtype) == ("reward", True, torch.float32)
    assert not stream.values.requires_grad
    return stream.values


def alone(model, text):
    """The head at the last token of a text by itself."""
    if text is None:
        return NAN
    with torch.no_grad():
        hidden = model.network.base_model(torch.tensor([model.tokenizer(text)["input_ids"]]))[0][0, -1]
        return float(hidden @ model.head.weight[0])


@pytest.mark.parametrize(("reference", "texts"), [(True, SHOWN), (False, HIDDEN)])
def test_a_language_model_with_a_head_reads_each_text_as_if_alone(batch, reference, texts):
    model = language_model()
    values = only(ReferenceBased(model, reference=reference, output="logit"), batch)
    assert values.tolist() == pytest.approx([alone(model, text) for text in texts], abs=1e-5, nan_ok=True)
    assert not model.network.training
    for row in range(5):
        single = only(ReferenceBased(model, reference=reference, output="logit"), batch.take(torch.tensor([row])))
        assert single.item() == pytest.approx(values[row].item(), abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("sign", [1, -1])
def test_probability_logit_and_verdict_are_one_judgment(batch, sign):
    model = language_model()
    with torch.no_grad():
        model.head.weight.mul_(sign * 0.05)  # logits on one side of 0 and then the other, none of them beyond 0.5
    logits = only(ReferenceBased(model, output="logit"), batch)
    assert torch.allclose(only(ReferenceBased(model), batch), logits.sigmoid(), equal_nan=True)
    known = [0, 1, 3, 4]
    assert logits[known].abs().max() < 0.5
    binary = only(ReferenceBased(model, output="binary"), batch)
    assert binary[known].tolist() == [1.0 if logits[row] > 0 else 0.0 for row in known]
    assert binary[2].isnan()


def test_the_center_is_where_the_probability_is_one_half(batch):
    model = language_model()
    logits = only(ReferenceBased(model, output="logit"), batch)
    center = float(logits[0])
    moved = only(ReferenceBased(model, output="logit", center=center), batch)
    assert torch.allclose(moved, logits - center, equal_nan=True)
    assert only(ReferenceBased(model, center=center), batch)[0] == 0.5


def test_without_any_reference_nothing_is_read():
    batch = batch_of([["x"]], problems=[Problem(id="a", prompt="q")])
    assert only(ReferenceBased(language_model()), batch).isnan().all()


def test_a_sequence_classifier_reads_the_same_texts(tmp_path, batch):
    judge = SequenceClassifier(save(tmp_path))
    values = only(ReferenceBased(judge, output="logit"), batch)
    known = [text for text in SHOWN if text is not None]
    assert values[[0, 1, 3, 4]].tolist() == pytest.approx(judge.read(known).tolist(), abs=1e-5)
    assert values[2].isnan()
    assert list(as_reward(ReferenceBased(judge)).score(batch)) == ["reference_based"]


def test_a_text_longer_than_the_context_is_an_error_unknown_or_cut():
    model = language_model(context=96)
    problem = Problem(id="long", prompt="q", answer="a")
    batch = batch_of([["x"], ["x" * 40]], problems=[problem])
    with pytest.raises(InputError, match=r"reference_based: prompt and response of 'long' have 127 tokens"):
        ReferenceBased(model).score(batch)  # 85 of tags and line ends, 1, 1 and 40
    fits, over = only(ReferenceBased(model, too_long="unknown"), batch).tolist()
    assert [fits, over] == pytest.approx([fits, NAN], nan_ok=True)
    assert only(ReferenceBased(model, too_long="cut"), batch).isfinite().all()
    kept = only(ReferenceBased(model, keep=(2, 4)), batch)
    short = batch_of([["x"], ["x" * 6]], problems=[problem])
    assert kept.tolist() == pytest.approx(only(ReferenceBased(model), short).tolist(), abs=1e-6)


def test_texts_that_begin_alike_share_their_beginning():
    seq = sequences_of([[1, 2, 3], [1, 2, 4, 5], [7, 8], [7, 8, 9], [1, 2], [2, 3]], [3, 3, 5, 5, 6, 6], "cpu")
    assert [prompt.tolist() for prompt in seq.prompts] == [[1, 2], [7], [1], [2]]
    assert seq.tokens.tolist() == [[3, 0], [4, 5], [8, 0], [8, 9], [2, 0], [3, 0]]
    assert seq.mask.tolist() == [[True, token > 0] for _, token in seq.tokens.tolist()]
    assert seq.group.tolist() == [0, 0, 1, 1, 2, 3]
    with pytest.raises(ValueError, match="fewer than two tokens"):
        sequences_of([[1, 2], [1]], [0, 0], "cpu")


def test_a_judge_can_be_trained_on_the_tokens_it_reads():
    model = language_model()
    texts = [text for text in SHOWN if text is not None]
    seq = sequences_of(text_tokens("judge", model, texts, texts, "error"), range(len(texts)), model.device)
    read = model.outputs(seq, ("scores",)).scores[seq.mask]
    assert read.tolist() == pytest.approx([alone(model, text) for text in SHOWN if text is not None], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"output": "score"}, r"`output` is 'score'; it must be probability, logit or binary"),
        ({"too_long": "drop"}, r"`too_long` is 'drop'; it must be error, unknown or cut"),
        ({"keep": (0, 0)}, r"`keep` is \(0, 0\); it must be two counts, such as \(500, 1000\)"),
        ({"keep": (5, -1)}, r"`keep` is \(5, -1\)"),
        ({"center": NAN}, "`center` is nan; it must be finite"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        ReferenceBased(language_model(), **settings)


def test_a_model_that_cannot_judge(tmp_path):
    with pytest.raises(InputError, match="reference_based: its model has no value head"):
        ReferenceBased(language_model(head=False))
    with pytest.raises(InputError, match="its SequenceClassifier must have one label, and output='logit'"):
        ReferenceBased(SequenceClassifier(save(tmp_path), output="probability"))


def test_it_takes_no_notice_of_the_policy_s_tokens():
    """It reads text: the same responses in another model's tokens score alike."""
    model = language_model()
    plain = [*PROBLEMS[:2], Problem(id="c", prompt="2+2=", answer="4")]
    own = answered(model, plain, TEXTS, group=GROUP)
    other = batch_of([[*text, ""] for text in TEXTS], group=GROUP, problems=PROBLEMS)
    assert torch.equal(only(ReferenceBased(model), own).nan_to_num(9), only(ReferenceBased(model), other).nan_to_num(9))
