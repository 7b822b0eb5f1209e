"""Judges as `reckon fit` leaves them: a model's folder and judge.json."""

import json
from dataclasses import replace

import pytest
import torch
from judge_models import answered, batch_of, language_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as models_of_tokens
from transformers import PreTrainedTokenizerFast

from reckon.errors import InputError, MissingError
from reckon.fit import Settings, fit_command
from reckon.models import tiny
from reckon.rewards._classifier import SequenceClassifier
from reckon.rewards._implicit import ImplicitReward
from reckon.rewards._judges import KEYS, load_judge
from reckon.rewards._judges_reading import Calibrated, check_tokens
from reckon.rewards._outcome import OutcomeModel
from reckon.rewards._process_models import StepAdvantage, StepModel
from reckon.rewards._reference_based import ReferenceBased
from reckon.rewards._staged import StagedReward, StagedRewardHead
from reckon.steps import Pattern
from reckon.types import Problem

PROBLEMS = [Problem(id="a", prompt="1+2=", answer="3"), Problem(id="b", prompt="say it: ", answer="x")]
TEXTS = ["3", "3 or\nso", "", "x;y;\nz"]


def staged_head():
    head = StagedRewardHead(32, 3)
    with torch.no_grad():
        head.psi.copy_(torch.randn(2, 32, generator=torch.Generator().manual_seed(0)))
    return head


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A fitted model with heads of both kinds, and the reference it came from."""
    folder = tmp_path_factory.mktemp("judges")
    model, reference = language_model(), language_model(head=False, seed=1)
    model.save_pretrained(folder / "judge")
    staged_head().save(folder / "judge")
    reference.save_pretrained(folder / "start")
    batch = answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1])
    return folder / "judge", model, reference, batch


def values(reward, batch):
    return next(iter(reward.score(batch).values())).values.nan_to_num(9)


def say(folder, **about):
    (folder / "judge.json").write_text(json.dumps(about))
    return folder


CASES = [
    (
        {"kind": "implicit_reward", "beta": 0.5, "reference": "../start", "splitter": ";"},
        {"per": "response", "how": "mean"},
        lambda model, reference: ImplicitReward(
            model, reference=reference, beta=0.5, splitter=Pattern(";"), per="response", how="mean"
        ),
    ),
    (
        {"kind": "implicit_reward", "length_normalized": True},
        {},
        lambda model, _: ImplicitReward(model, length_normalized=True),
    ),
    ({"kind": "implicit_reward", "reference": None}, {}, lambda model, _: ImplicitReward(model, beta=0.05)),
    ({"kind": "outcome_model", "center": 0.5}, {}, lambda model, _: OutcomeModel(model, center=0.5)),
    (
        {"kind": "step_model", "end_token": False, "about": {"rows": 7}},
        {"per": "step"},
        lambda model, _: StepModel(model, splitter=Pattern(), end_token=False, per="step"),
    ),
    (
        {"kind": "step_advantage", "splitter": ";", "temperature": 2.0, "bias": -1},
        {},
        lambda model, _: StepAdvantage(Calibrated(model, temperature=2, bias=-1), splitter=Pattern(";")),
    ),
    (
        {"kind": "reference_based", "show_reference": False, "keep": [1, 1], "center": 0.5},
        {},
        lambda model, _: ReferenceBased(model, reference=False, keep=(1, 1), center=0.5),
    ),
    (
        {"kind": "staged_reward", "worth": [0, 1, 5]},
        {},
        lambda model, _: StagedReward(model, staged_head(), worth=(0.0, 1.0, 5.0)),
    ),
]


@pytest.mark.parametrize(
    ("about", "choices", "same"), CASES, ids=[case[0]["kind"] + str(i) for i, case in enumerate(CASES)]
)
def test_a_judge_opens_as_it_was_trained(models, about, choices, same):
    folder, model, reference, batch = models
    judge = load_judge(say(folder, **about), **choices, device="cpu", dtype="float32")
    by_hand = same(model, reference)
    assert type(judge) is type(by_hand)
    assert torch.allclose(values(judge, batch), values(by_hand, batch), atol=1e-5)
    assert values(judge, batch).abs().max() > 0


def test_more_can_be_set_when_it_is_open(models):
    folder, *_, batch = models
    judge = replace(load_judge(say(folder, kind="step_advantage"), device="cpu"), prover_k=4, rank=True)
    assert list(judge.score(batch)) == ["step_advantage", "value"]


def test_a_calibrated_model_is_read_as_logit_over_temperature_plus_bias(models):
    _, model, _, batch = models
    plain = OutcomeModel(model).logits(batch)
    assert torch.allclose(OutcomeModel(Calibrated(model, temperature=4, bias=0.25)).logits(batch), plain / 4 + 0.25)
    for wrong in ({"temperature": 0}, {"temperature": float("inf")}, {"bias": float("nan")}):
        with pytest.raises(InputError, match="both must be finite, and the temperature above 0"):
            Calibrated(model, **wrong)
    with pytest.raises(InputError, match="calibrated: its model has no value head"):
        Calibrated(language_model(head=False))


@pytest.mark.parametrize(
    ("about", "says"),
    [
        (
            {"kind": "oracle"},
            r"judge.json: `kind` is 'oracle', which is no judge here. There are implicit_reward, outcome",
        ),
        ({}, r"`kind` is None"),
        ({"kind": ["implicit_reward"]}, r"`kind` is \['implicit_reward'\]"),
        (
            {"kind": "implicit_reward", "betta": 1},
            r"`betta` is not a setting of 'implicit_reward'. Did you mean `beta`\?",
        ),
        ({"kind": "outcome_model", "keep": None}, r"`keep` is not a setting of 'outcome_model'. It has center, temp"),
        ({"kind": "implicit_reward", "beta": "x"}, r"`beta` is 'x'; it must be a number"),
        ({"kind": "implicit_reward", "beta": True}, r"`beta` is True; it must be a number"),
        ({"kind": "implicit_reward", "beta": -1}, r"`beta` is -1.0; it must be above 0"),
        ({"kind": "implicit_reward", "reference": 3}, r"`reference` is 3; it must be text"),
        ({"kind": "implicit_reward", "splitter": "("}, r"'\(' that ends a step is no regular expression"),
        ({"kind": "step_model", "end_token": 1}, r"`end_token` is 1; it must be true or false"),
        ({"kind": "reference_based", "keep": [1]}, r"`keep` is \[1\]; it must be two whole numbers, or null"),
    ],
)
def test_a_damaged_description_is_one_sentence(models, about, says):
    folder, *_ = models
    with pytest.raises(InputError, match=says):
        load_judge(say(folder, **about), device="cpu")


def test_a_file_that_is_no_json_and_a_list_that_is_no_description(models):
    folder, *_ = models
    (folder / "judge.json").write_text("{")
    with pytest.raises(InputError, match=r"judge.json is damaged: .* Fit the judge again"):
        load_judge(folder)
    (folder / "judge.json").write_text("[]")
    with pytest.raises(InputError, match="`kind` is None"):
        load_judge(folder)


def test_a_folder_without_a_description_or_none_at_all(models, tmp_path):
    with pytest.raises(MissingError, match=r"has no judge.json, so nobody knows what judge its model is"):
        load_judge(tmp_path)
    with pytest.raises(MissingError, match=r"it is no folder\. Name one that `reckon fit` has written"):
        load_judge(tmp_path / "nowhere")


def test_a_choice_it_does_not_have(models):
    folder, *_ = models
    with pytest.raises(InputError, match="of kind 'outcome_model', which has no `per`"):
        load_judge(say(folder, kind="outcome_model"), per="step", device="cpu")


def test_a_model_saved_without_its_head(models, tmp_path):
    language_model(head=False).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no value head, or one that never learned"):
        load_judge(say(tmp_path, kind="outcome_model"), device="cpu")
    assert isinstance(load_judge(say(tmp_path, kind="implicit_reward"), device="cpu"), ImplicitReward)


def test_without_safetensors_nothing_is_opened(models, tmp_path):
    language_model().save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "value_head.safetensors").unlink()
    with pytest.raises(InputError, match="pickled"):
        load_judge(say(tmp_path, kind="outcome_model"))


def test_every_kind_has_a_case():
    assert {about["kind"] for about, _, _ in CASES} == set(KEYS)


ROWS = [
    {"prompt": prompt, "answer": answer, "completion": text, "label": label}
    for prompt, answer, pairs in (
        ("1+2=", "3", (("3", True), ("it is\n3", True), ("4\nno 5", False), ("", False))),
        ("2+2=", "4", (("4", True), ("5", False), ("so\n4", True))),
    )
    for text, label in pairs
]
STEPS = [
    {"prompt": "1+2=", "completions": ["one", "two"], "labels": [True, False]},
    {"prompt": "2+2=", "completions": ["two", "four"], "labels": [True, True]},
]
PREFIXES = [
    {"prompt": "1+2=", "prefix": text, "q_hat": q} for text, q in (("", 0.4), ("so\n", 0.5), ("so\n3", 1.0), ("4", 0.0))
]


@pytest.mark.parametrize(
    ("kind", "rows", "settings", "judge"),
    [
        ("implicit-ce", ROWS, {"beta": 0.2}, ImplicitReward),
        ("nca", ROWS, {}, ImplicitReward),
        ("outcome-bt", ROWS, {}, OutcomeModel),
        ("outcome-bce", ROWS, {}, OutcomeModel),
        ("outcome-bt", ROWS, {"show_reference": True}, ReferenceBased),
        ("outcome-bce", ROWS, {"show_reference": True}, ReferenceBased),
        ("outcome-steps", ROWS, {"splitter": "s"}, StepModel),
        ("process", STEPS, {}, StepModel),
        ("value", PREFIXES, {}, StepAdvantage),
    ],
)
def test_what_is_fitted_opens_as_the_judge_it_was_trained_to_be(models, tmp_path, kind, rows, settings, judge):
    how = Settings(dev=0, lr=1e-2, batch=4, dtype="float32", device="cpu", **settings)
    fit_command(kind, rows, str(models[0].parent / "start"), tmp_path / "run", how, show="nothing")
    opened = load_judge(tmp_path / "run", device="cpu", dtype="float32")
    assert type(opened) is judge
    model = getattr(opened, "verifier", None) or opened.model
    batch = answered(model, PROBLEMS, TEXTS, group=[0, 0, 1, 1])
    found = values(opened, batch)
    assert found.isfinite().all()
    assert found.abs().max() > 0
    if judge is ImplicitReward:
        assert opened.beta == settings.get("beta", 0.1)
    if kind == "outcome-steps":
        assert opened.splitter == Pattern("s")


@pytest.mark.parametrize("kind", ["dpo", "dpo-norm"])
def test_a_judge_of_pairs_rewards_what_its_loss_compared(models, tmp_path, kind):
    """Sums over tokens of dpo, means of dpo-norm: the fit's own numbers of rows of many lengths, from the judge."""
    rows = [
        {"prompt": problem.prompt, "chosen": right, "rejected": wrong}
        for problem, right, wrong in zip(PROBLEMS, ("3", "x\ny and z"), ("so\nit is 4", ""), strict=True)
    ]
    how = Settings(dev=0, lr=1e-2, batch=2, dtype="float32", device="cpu")
    fit_command(kind, rows, str(models[0].parent / "start"), tmp_path / "run", how, dev_data=rows, show="nothing")
    dev = json.loads((tmp_path / "run" / "fitted.json").read_text())["dev"]
    opened = load_judge(tmp_path / "run", per="response", how="sum", device="cpu", dtype="float32")
    texts = [row[side] for row in rows for side in ("chosen", "rejected")]
    found = values(opened, answered(opened.model, PROBLEMS, texts, group=[0, 0, 1, 1]))
    assert float(found[0::2].mean()) == pytest.approx(dev["chosen"], abs=1e-5)
    assert float(found[1::2].mean()) == pytest.approx(dev["rejected"], abs=1e-5)
    assert abs(dev["margin"]) > 0.01


@pytest.mark.parametrize("kind", ["outcome-bt", "outcome-bce"])
def test_a_judge_that_is_shown_the_answer_says_what_its_classifier_says(models, tmp_path, kind):
    """Pairs leave the level of the logits open: it is 0 at the mean of the rows that are measured on."""
    how = Settings(dev=0, lr=1e-2, batch=4, dtype="float32", device="cpu", show_reference=True)
    fit_command(kind, ROWS, str(models[0].parent / "start"), tmp_path / "run", how, dev_data=ROWS, show="nothing")
    dev = json.loads((tmp_path / "run" / "fitted.json").read_text())["dev"]
    opened = load_judge(tmp_path / "run", device="cpu", dtype="float32")
    assert (opened.center != 0) == (kind == "outcome-bt")
    if kind == "outcome-bt":
        assert opened.center == pytest.approx((dev["chosen"] + dev["rejected"]) / 2)
    batch = answered(opened.model, PROBLEMS, TEXTS, group=[0, 0, 1, 1])
    classifier = SequenceClassifier(tmp_path / "run" / "classifier", device="cpu")
    by_classifier = values(ReferenceBased(classifier, center=opened.center), batch)
    assert torch.allclose(values(opened, batch), by_classifier, atol=1e-5)
    with pytest.raises(InputError, match=r"learned from whole texts.*Ask it through ReferenceBased"):
        classifier.score(batch)


class Reader:
    """A judge of which only the tokenizer matters."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer


def in_tokens(texts, rows):
    """A batch of these texts whose tokens are `rows`; the first piece of a row is its whole text."""
    width = max(len(row) for row in rows) + 1
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    pieces = [[text, *[""] * (len(row) - 1)] for text, row in zip(texts, rows, strict=True)]
    return batch_of(pieces, tokens=tokens)


def test_a_response_of_digits_is_no_proof_that_two_tokenizers_agree():
    tokenizer = tiny.make_tokenizer()
    texts = ["3", "abc", "42"]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    check_tokens("judge", Reader(tokenizer), in_tokens(texts, rows))
    rows[1] = tokenizer("bcd")["input_ids"]
    with pytest.raises(InputError, match="judge: the responses are in the tokens of another tokenizer"):
        check_tokens("judge", Reader(tokenizer), in_tokens(texts, rows))


def test_half_a_character_at_the_end_is_not_compared():
    names = {name: i for i, name in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    core = Tokenizer(models_of_tokens.BPE(names, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    half = tokenizer("3é")["input_ids"][:2]
    check_tokens("judge", Reader(tokenizer), in_tokens(["3", "3\ufffd"], [half, half]))
    with pytest.raises(InputError, match="another tokenizer"):
        check_tokens("judge", Reader(tokenizer), in_tokens(["3", "4\ufffd"], [half, half]))


def test_a_tokenizer_that_is_not_faithful_agrees_with_itself():
    """One that tidies spaces decodes "a ." as "a."; one that knows no é reads it as unknown."""
    tokenizer = tiny.make_tokenizer()
    unknown = tokenizer("aéb")["input_ids"]
    check_tokens("judge", Reader(tokenizer), in_tokens(["aéb"], [unknown]))
    tokenizer.clean_up_tokenization_spaces = True
    row = tokenizer("a .")["input_ids"]
    assert tokenizer.decode(row) == "a."
    check_tokens("judge", Reader(tokenizer), in_tokens(["a ."], [row]))
