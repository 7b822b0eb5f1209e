"""A value head on disk: read back by us, and as a sequence classifier by transformers itself."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from reckon.errors import InputError
from reckon.models import LanguageModel, Lora, Sampling, load_model, tiny

TEXTS = ["2", "a longer answer", ""]


def with_head(make, **settings):
    model = make(value_head=True, **settings)
    with torch.no_grad():
        model.head.weight.copy_(torch.randn(1, 32, generator=torch.Generator().manual_seed(2)) / 8)
    return model


def end_scores(model, problems):
    seq = model.tokenize(problems, TEXTS)
    scores = model.outputs(seq, ("scores",)).scores
    return scores[torch.arange(3), seq.mask.sum(dim=1) - 1]


def test_a_saved_head_is_read_back(make, problems, tmp_path):
    model = with_head(make)
    model.save_pretrained(tmp_path)
    again = load_model(str(tmp_path), value_head=True, dtype="float32", device="cpu")
    torch.testing.assert_close(end_scores(again, problems), end_scores(model, problems), atol=1e-6, rtol=0)
    assert load_model(str(tmp_path), dtype="float32", device="cpu").head is None


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("lora", "end_token"), [(None, True), (None, False), (Lora(rank=2), True)])
def test_the_exported_classifier_gives_our_scores(make, problems, tmp_path, side, lora, end_token):
    model = with_head(make, lora=lora)
    if lora is not None:
        with torch.no_grad():  # adapters that say something, so that leaving them out shows
            for name, parameter in model._trained.items():
                if "lora_B" in name:
                    parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(3))
    model.save_classifier(tmp_path, end_token=end_token)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, padding_side=side)
    assert classifier.config.num_labels == 1
    assert classifier.config.reckon_end_token is end_token
    whole = [problem.prompt + text + tokenizer.eos_token for problem, text in zip(problems, TEXTS, strict=True)]
    given = tokenizer(whole, return_tensors="pt", padding=True)
    given.pop("token_type_ids", None)
    with torch.no_grad():
        logits = classifier(**given).logits[:, 0]
    torch.testing.assert_close(logits, end_scores(model, problems), atol=1e-5, rtol=0)


def test_another_family_is_exported_too(problems, tmp_path):
    tokenizer = tiny.make_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64, eos_token_id=1)
    model = LanguageModel(GPT2LMHeadModel(config), tokenizer, value_head=True, dtype="float32", device="cpu")
    with torch.no_grad():
        model.head.weight.normal_()
    model.save_classifier(tmp_path)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[*tokenizer("1+1=2")["input_ids"], tokenizer.eos_token_id]])
    seq = model.tokenize(problems[:1], ["2"])
    with torch.no_grad():
        found = classifier(input_ids=ids).logits[0, 0]
    assert float(found) == pytest.approx(float(model.outputs(seq, ("scores",)).scores[0, 1]), abs=1e-5)


def test_a_model_without_a_head_is_no_classifier(make, tmp_path):
    with pytest.raises(InputError, match="value_head=True"):
        make().save_classifier(tmp_path)


def test_a_head_that_does_not_fit_or_is_damaged_is_named(make, tmp_path):
    model = with_head(make)
    model.save_pretrained(tmp_path)
    path = tmp_path / "value_head.safetensors"
    path.write_bytes(b"no such thing")
    with pytest.raises(InputError, match=r"value_head.safetensors cannot be read"):
        load_model(str(tmp_path), value_head=True, sampling=Sampling())
    other = LanguageModel(tiny.make_network(width=64), tiny.make_tokenizer(), value_head=True, dtype="float32")
    other.save_pretrained(tmp_path / "wide")
    (tmp_path / "wide" / "value_head.safetensors").rename(path)
    with pytest.raises(InputError, match=r"is of shape \(1, 64\), but this model needs \(1, 32\)"):
        load_model(str(tmp_path), value_head=True)
