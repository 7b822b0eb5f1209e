"""Hugging Face's sequence-classification models as rewards, against transformers' own pipeline."""

import json
import pickle

import pytest
import torch
from judge_models import NAN, answered, batch_of, language_model
from transformers import BertConfig, BertForSequenceClassification, LlamaForSequenceClassification, pipeline

from reckon.errors import InputError, MissingError
from reckon.models import Sampling, tiny
from reckon.rewards import as_reward
from reckon.rewards._classifier import SequenceClassifier, conversation
from reckon.rewards._outcome import OutcomeModel
from reckon.rewards.adapters import Given
from reckon.rewards.adapters import batch_of as batch_of_library
from reckon.types import End, Problem

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ '\n' }}{% endfor %}"
CHAT = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "hello?"})
PROBLEMS = [Problem(id="a", prompt="1+2="), Problem(id="b", prompt=CHAT)]
TEXTS = ["3", "three, I would say", "", "hello"]
RENDERED = [
    "<user>1+2=\n<assistant>3\n",
    "<user>1+2=\n<assistant>three, I would say\n",
    "<system>be brief\n<user>hello?\n<assistant>\n",
    "<system>be brief\n<user>hello?\n<assistant>hello\n",
]


def save(folder, *, labels=1, template=TEMPLATE, context=256, pad=True):
    config = tiny.make_network(layers=1, width=16, heads=2, context=context).config
    config.num_labels = labels
    tokenizer = tiny.make_tokenizer()
    tokenizer.chat_template = template
    if not pad:
        config.pad_token_id = tokenizer.pad_token = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = LlamaForSequenceClassification(config)
    with torch.no_grad():
        network.score.weight.mul_(30)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def batch():
    return batch_of([[text] for text in TEXTS], group=[0, 0, 1, 1], problems=PROBLEMS)


def only(reward, batch):
    ((name, stream),) = reward.score(batch).items()
    assert name == "sequence_classifier"
    assert (stream.kind, stream.train, stream.values.dtype) == ("reward", True, torch.float32)
    assert not stream.values.requires_grad
    return stream.values


def piped(folder, texts, side="right", **settings):
    judge = pipeline("text-classification", model=str(folder), function_to_apply="none", device="cpu", **settings)
    judge.tokenizer.padding_side = side
    return [found["score"] for found in judge(texts, batch_size=4)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_it_says_what_transformers_own_pipeline_says(folder, batch, side):
    values = only(SequenceClassifier(folder), batch)
    assert values.tolist() == pytest.approx(piped(folder, RENDERED, side), abs=1e-5)
    assert len(set(values.tolist())) == 4


def test_the_three_lines_of_the_page(folder, batch):
    reward = as_reward(SequenceClassifier(folder))
    assert list(reward.score(batch)) == ["sequence_classifier"]


def test_without_a_template_prompt_and_response_are_joined_as_they_stand(tmp_path):
    folder = save(tmp_path, template=None)
    batch = batch_of([["3"], ["33"]], problems=[Problem(id="a", prompt="1+2=")])
    assert only(SequenceClassifier(folder), batch).tolist() == pytest.approx(
        piped(folder, ["1+2=3", "1+2=33"]), abs=1e-5
    )


@pytest.mark.parametrize(("budget", "passes"), [(188, 1), (187, 2), (90, 3), (1, 4)])
def test_no_pass_computes_more_tokens_than_it_may(folder, batch, budget, passes):
    """Rows of 24, 41, 47 and 42 tokens: 4 * 47 = 188, 3 * 47; 47, 2 * 42, 24; each alone."""
    judge = SequenceClassifier(folder, tokens_per_batch=budget)
    seen = []
    judge.network.register_forward_pre_hook(lambda _, __, said: seen.append(said["input_ids"].shape), with_kwargs=True)
    only(judge, batch)
    assert sum(rows for rows, _ in seen) == 4
    assert len(seen) == passes
    assert all(rows == 1 or rows * width <= budget for rows, width in seen)


def test_a_score_depends_neither_on_the_batch_s_size_nor_on_who_else_is_in_it(folder, batch):
    whole = only(SequenceClassifier(folder), batch)
    for budget in (1, 60, 90):
        assert torch.allclose(only(SequenceClassifier(folder, tokens_per_batch=budget), batch), whole, atol=1e-5)
    for row in range(4):
        assert only(SequenceClassifier(folder), batch.take(torch.tensor([row]))).item() == pytest.approx(
            whole[row].item(), abs=1e-5
        )


@pytest.mark.parametrize("pad", ["none", "end"])
def test_without_a_padding_token_or_with_the_end_token_as_one_the_last_token_is_read(tmp_path, pad):
    """The rows end in the end token: a reader that looks for the last token that is not padding stops before it."""
    folder = save(tmp_path, template=TEMPLATE + "{{ eos_token }}", pad=False)
    judge = SequenceClassifier(folder)
    if pad == "end":
        judge.network.config.pad_token_id = judge._own_pad = judge.tokenizer.eos_token_id
    batch = batch_of([[text] for text in TEXTS], group=[0, 0, 1, 1], problems=PROBLEMS)
    values = only(judge, batch)
    judge.network.config.pad_token_id = None
    for row, text in enumerate(RENDERED):
        ids = [*judge.tokenizer(text)["input_ids"], judge.tokenizer.eos_token_id]
        alone = judge.network(torch.tensor([ids])).logits[0, 0]
        assert values[row].item() == pytest.approx(alone.item(), abs=1e-5)


ASKED = TEMPLATE + "{% if add_generation_prompt %}<assistant>{% endif %}"
CLOSED = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def exported(tmp_path):
    """A model with a head, and its own export, under a chat template or none."""

    def make(template, system=None):
        model = language_model(sampling=Sampling(max_new_tokens=12, system=system))
        model.tokenizer.chat_template = template
        model.save_classifier(tmp_path)
        return model, SequenceClassifier(tmp_path, device="cpu")

    return make


@pytest.mark.parametrize("template", [None, ASKED, CLOSED])
def test_our_own_export_is_read_where_its_head_was_trained(exported, template):
    """Also behind a template that closes a turn with nothing, or with the end token and a newline."""
    model, judge = exported(template)
    problems = [Problem(id="a", prompt="1+2="), Problem(id="b", prompt="hello?" if template is None else CHAT)]
    batch = answered(model, problems, TEXTS, group=[0, 0, 1, 1])
    expected = next(iter(OutcomeModel(model).score(batch).values())).values
    torch.testing.assert_close(only(judge, batch), expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1


def test_our_own_export_reads_the_system_message_that_its_head_learned_behind(exported):
    """Before a prompt that brings none, and not before one that does."""
    model, judge = exported(ASKED, system="count in Roman numbers")
    batch = answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1])
    expected = next(iter(OutcomeModel(model).score(batch).values())).values
    torch.testing.assert_close(only(judge, batch), expected, atol=1e-4, rtol=0)
    judge._system = None
    moved = (only(judge, batch) - expected).abs()
    assert moved[:2].min() > 1e-3
    assert moved[2:].max() < 1e-4


def test_our_own_export_reads_no_end_token_behind_a_response_that_was_cut_off(exported):
    model, judge = exported(None)
    pieces, ends = [[*"33"], [*"33", ""]], [End.LENGTH, End.EOS]
    seq = model.tokenize_groups(PROBLEMS[:1], ["33", "33"], [0, 0], [False, True])
    scores = model.outputs(seq, ("scores",)).scores
    values = only(judge, batch_of(pieces, ends=ends, problems=PROBLEMS[:1]))
    assert values.tolist() == pytest.approx([scores[0, 1].item(), scores[1, 2].item()], abs=1e-4)
    assert abs(values[0] - values[1]) > 1e-2


def test_where_a_library_does_not_tell_how_a_response_ended_it_is_taken_to_have_ended_once(exported):
    model, judge = exported(None)
    end = model.tokenizer.eos_token
    batch = batch_of_library(Given(library="verl", texts=["33", "33" + end], prompts=["1+2=", "1+2="]))
    scores = model.outputs(model.tokenize(PROBLEMS[:1], ["33"]), ("scores",)).scores
    assert only(judge, batch).tolist() == pytest.approx([scores[0, 2].item()] * 2, abs=1e-4)


def test_our_own_export_takes_a_conversation_without_a_template_as_its_text(exported):
    _, judge = exported(None)
    talk, text = Problem(id="b", prompt=CHAT), Problem(id="b", prompt=PROBLEMS[1].prompt_text)
    values = [only(judge, batch_of([[*"ab", ""]], problems=[problem])).item() for problem in (talk, text)]
    assert values[0] == values[1]


def test_a_classifier_of_several_labels_is_asked_for_one_by_name(tmp_path):
    tokenizer, names = tiny.make_tokenizer(), ["bad", "good", "none"]
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, id2label=dict(enumerate(names)), label2id={"bad": 0, "good": 1, "none": 2},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = BertForSequenceClassification(config)
    with torch.no_grad():
        network.classifier.weight.mul_(20)
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    batch = batch_of([["3"], ["four!"]], problems=[Problem(id="a", prompt="1+2=")])
    texts = ["1+2=3", "1+2=four!"]
    judge = pipeline("text-classification", model=str(tmp_path), top_k=None, device="cpu")
    for output, function in (("logit", "none"), ("probability", "softmax")):
        found = [{each["label"]: each["score"] for each in row} for row in judge(texts, function_to_apply=function)]
        for label in ("good", 1):
            values = only(SequenceClassifier(tmp_path, label=label, output=output), batch)
            assert values.tolist() == pytest.approx([row["good"] for row in found], abs=1e-5)
    with pytest.raises(InputError, match=r"has 3 labels \('bad', 'good', 'none'\). Say which one is the reward"):
        SequenceClassifier(tmp_path)
    for label in ("fine", 3):
        with pytest.raises(InputError, match=rf"has no label {label!r}; it has 'bad', 'good', 'none'"):
            SequenceClassifier(tmp_path, label=label)


def test_of_one_label_the_probability_is_the_sigmoid(folder, batch):
    logits = only(SequenceClassifier(folder), batch)
    assert torch.allclose(only(SequenceClassifier(folder, output="probability"), batch), logits.sigmoid())


def test_it_never_scores_in_training_mode(tmp_path, batch):
    folder = save(tmp_path)
    judge = SequenceClassifier(folder)
    judge.network.model.layers[0].self_attn.attention_dropout = 0.9
    judge.network.train()  # as a trainer that owns the network might
    first = only(judge, batch)
    assert torch.equal(first, only(judge, batch))
    assert not judge.network.training


def test_a_text_longer_than_the_context_is_an_error_unknown_or_cut(tmp_path):
    folder = save(tmp_path, template=None, context=16)
    batch = batch_of([["x" * 12], ["x" * 13]], problems=[Problem(id="long", prompt="1+2=")])
    with pytest.raises(
        InputError, match=r"prompt and response of 'long' have 17 tokens, more than the judge's context of 16"
    ):
        SequenceClassifier(folder).score(batch)
    fits, over = only(SequenceClassifier(folder, too_long="unknown"), batch).tolist()
    assert [fits, over] == pytest.approx([fits, NAN], nan_ok=True)
    cut = only(SequenceClassifier(folder, too_long="cut"), batch).tolist()
    assert cut == pytest.approx([fits, fits], abs=1e-5)  # 1+2= and twelve x, both


def test_whole_texts_are_read_as_they_stand(folder):
    judge = SequenceClassifier(folder)
    assert judge.read(["one", "three"]).tolist() == pytest.approx(piped(folder, ["one", "three"]), abs=1e-5)
    with pytest.raises(InputError, match="there is nothing to read for 'text 1'"):
        judge.read(["one", ""])


def test_it_travels_in_a_pickle(folder, batch):
    judge = SequenceClassifier(folder)
    assert torch.equal(only(pickle.loads(pickle.dumps(judge)), batch), only(judge, batch))


def test_a_plain_language_model_is_no_judge(small_model):
    with pytest.raises(InputError, match=r"lack 'score.weight'\. Was .* and as a sequence-classification model\?"):
        SequenceClassifier(small_model, label=0)


def test_pickled_weights_are_never_opened(tmp_path):
    folder = save(tmp_path)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"are pickled, .* Convert them to safetensors"):
        SequenceClassifier(folder)


def test_damaged_weights_are_told_in_a_sentence(tmp_path):
    folder = save(tmp_path)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(MissingError, match="the model could not be opened from the folder"):
        SequenceClassifier(folder)


def test_an_encoder_decoder_is_refused_before_its_weights_are_read(tmp_path):
    folder = save(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "is_encoder_decoder": True}))
    with pytest.raises(InputError, match="is an encoder-decoder model"):
        SequenceClassifier(folder)


def test_a_folder_below_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "judge")
    assert SequenceClassifier("~/judge").label == 0


@pytest.mark.parametrize("name", ["./nowhere", "nowhere", "a/b/c"])
def test_a_model_that_is_not_there(name):
    with pytest.raises(MissingError, match=r"there is no model .* Give a folder, or a hub id such as 'org/name'"):
        SequenceClassifier(name)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"output": "score"}, r"`output` is 'score'; it must be one of logit, probability"),
        ({"too_long": "drop"}, r"`too_long` is 'drop'; it must be one of error, unknown, cut"),
        ({"dtype": "float16"}, r"`dtype` is 'float16'; it must be one of float32, bfloat16"),
        ({"tokens_per_batch": 0}, r"`tokens_per_batch` is 0; it must be at least 1"),
        ({"device": "abacus"}, r"`device` is 'abacus', which cannot be used here"),
    ],
)
def test_settings_that_cannot_be(folder, settings, says):
    with pytest.raises(InputError, match=says):
        SequenceClassifier(folder, **settings)


def test_a_template_that_refuses_a_prompt_names_the_problem():
    tokenizer = tiny.make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system messages') }}"
    with pytest.raises(InputError, match="refuses the prompt of problem 'b': no system messages"):
        conversation(tokenizer, PROBLEMS[1], "x")


def test_nothing_at_all_cannot_be_read():
    with pytest.raises(InputError, match="the prompt of problem 'e' is empty, and so is a response"):
        conversation(tiny.make_tokenizer(), Problem(id="e", prompt=""), "")
