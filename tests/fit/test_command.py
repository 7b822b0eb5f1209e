"""Fitting by name: every kind end to end on a one-layer model, resumed exactly, and refused in one sentence."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from reckon.errors import InputError, MissingError, ReckonError, RunError
from reckon.fit import (
    KINDS,
    CachedReference,
    ImplicitCE,
    OutcomeBCE,
    Settings,
    by_prompt,
    fit_command,
    read_examples,
)
from reckon.models import Lora, load_model, tiny
from reckon.rewards import SequenceClassifier, is_fitted, load_judge
from reckon.runs import read_metrics
from reckon.types import Problem, Rng, snake_case

QUICK = {"batch": 4, "dev": 0.3, "lr": 1e-3, "dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a model of one layer."""
    folder = tmp_path_factory.mktemp("small")
    tiny.make_network(layers=1, width=32).save_pretrained(folder)
    tiny.make_tokenizer().save_pretrained(folder)
    return str(folder)


def rows_of(shape):
    prompts = [f"{i}+{i}=" for i in range(8)]
    if shape in ("imitation", "unpaired"):
        return [
            {"prompt": p, "completion": f"{2 * i + wrong}\n!", "label": 1 - wrong, "answer": str(2 * i)}
            for i, p in enumerate(prompts)
            for wrong in (0, 1)
        ]
    if shape == "paired":
        return [
            {"prompt": p, "chosen": f"{2 * i}", "rejected": f"{2 * i + 1}", "margin": 0.5}
            for i, p in enumerate(prompts)
        ]
    if shape == "stepwise":
        return [{"prompt": p, "completions": ["a", f"{2 * i}"], "labels": [1, i % 2]} for i, p in enumerate(prompts)]
    return [
        {"prompt": p, "prefix": prefix, "q_hat": q}
        for i, p in enumerate(prompts)
        for prefix, q in (("", 0.25), ("a\n", (i % 4) / 4))
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_kind_knows_how_many_rows_its_loss_needs(kind):
    reference = CachedReference(None)
    assert KINDS[kind].least == getattr(KINDS[kind].loss(Settings(), reference), "least", 1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].solved])
def test_every_kind_fits_and_says_what_it_made(kind, small, tmp_path):
    data = write(tmp_path / "data.jsonl", rows_of(KINDS[kind].shape))
    found = fit_command(kind, data, small, tmp_path / "out", Settings(**QUICK), show="nothing")
    assert found.finished
    assert found.rows > found.dev_rows > 0
    about = json.loads((tmp_path / "out" / "fitted.json").read_text())
    entry, path = KINDS[kind], tmp_path / "out" / "model" / "judge.json"
    assert (about["fit"], about["base"], about["rows"]) == (kind, small, found.rows)
    assert len(about["data_sha256"]) == len(about["model_sha256"]) == 64
    assert about["dev"]["loss"] == found.metrics["dev/loss"]
    assert path.exists() == (entry.judge is not None)
    if entry.judge is not None:
        judge = json.loads(path.read_text())
        assert judge["kind"] == entry.judge
        assert judge["about"] == about
        assert judge.get("reference") == (small if "reference" in entry.reads else None)
        assert judge.get("beta") == (entry.beta or None)
        assert entry.judge == snake_case(type(load_judge(path.parent, device="cpu")).__name__)
    lines = read_metrics(tmp_path / "out")
    assert [line["step"] for line in lines] == list(range(found.steps + 1))
    assert min(line["dev/loss"] for line in lines[1:] if "dev/loss" in line) == pytest.approx(found.metrics["dev/loss"])
    AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    assert (tmp_path / "out" / "model" / "value_head.safetensors").exists() == entry.head
    assert (tmp_path / "out" / "classifier").exists() == (entry.judge == "outcome_model")


def test_the_model_and_the_classifier_are_the_best_checkpoint(small, tmp_path):
    found = fit_command(
        "outcome-bce", rows_of("unpaired"), small, tmp_path / "out", Settings(**QUICK, epochs=3), show="nothing"
    )
    model = load_model(str(tmp_path / "out" / "model"), value_head=True, dtype="float32", device="cpu")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "classifier").eval()
    saved = load_file(tmp_path / "out" / "checkpoints" / f"step-{found.best:06}" / "model.safetensors")
    (name,) = (
        name for name in saved if name.endswith("weights/value_head.weight") or name == "weights.value_head.weight"
    )
    assert torch.equal(saved[name], model.head.weight)
    ids = model.tokenizer("1+1=2")["input_ids"] + [model.tokenizer.eos_token_id]
    seq = model.tokenize([Problem(id="0", prompt="1+1=")], ["2"])
    with torch.no_grad():
        logit = classifier(input_ids=torch.tensor([ids])).logits[0, 0]
    assert float(logit) == pytest.approx(float(model.outputs(seq, ("scores",)).scores[0, 1]), abs=1e-5)


def test_a_resumed_fit_is_the_uninterrupted_one(small, tmp_path, monkeypatch):
    data = write(tmp_path / "data.jsonl", rows_of("unpaired"))
    settings = Settings(**QUICK, epochs=3)
    fit_command("implicit-ce", data, small, tmp_path / "whole", settings, show="nothing")
    prepare, calls = ImplicitCE.prepare, []

    def interrupting(self, model, rows):
        calls.append(len(rows))
        if len(calls) == 5:  # the reference's pass and the dev rows come first
            os.kill(os.getpid(), signal.SIGINT)
        return prepare(self, model, rows)

    monkeypatch.setattr(ImplicitCE, "prepare", interrupting)
    first = fit_command("implicit-ce", data, small, tmp_path / "cut", settings, show="nothing")
    monkeypatch.undo()
    assert not first.finished
    assert not (tmp_path / "cut" / "model").exists()
    fit_command("implicit-ce", data, small, tmp_path / "cut", settings, resume=True, show="nothing")
    whole, cut = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    other = write(tmp_path / "data.jsonl", rows_of("unpaired")[1:])
    with pytest.raises(RunError, match="data_sha256"):
        fit_command("implicit-ce", other, small, tmp_path / "cut", settings, resume=True, show="nothing")


def test_the_system_message_of_a_fit_goes_with_its_judge(small, tmp_path):
    chat = tiny.make_tokenizer()
    chat.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    load_model(small).network.save_pretrained(tmp_path / "chat")
    chat.save_pretrained(tmp_path / "chat")
    rows, model = rows_of("unpaired"), str(tmp_path / "chat")
    for kind, system in (("outcome-bce", "be brief"), ("implicit-ce", "be brief"), ("outcome-bce", None)):
        out = tmp_path / f"{kind} {system}"
        fit_command(kind, rows, model, out, Settings(**QUICK, system=system), show="nothing")
        assert load_judge(out).model.sampling.system == system
        if kind == "outcome-bce":
            assert SequenceClassifier(out / "classifier")._system == system
    settings = Settings(**QUICK, system="be brief", show_reference=True)
    with pytest.raises(InputError, match="`system` stands before prompts, and with `show_reference` texts are read"):
        fit_command("outcome-bce", rows, model, tmp_path / "no", settings, show="nothing")


@pytest.mark.parametrize(("kind", "steps"), [("kto", 2), ("outcome-bce", 3)])
def test_the_rate_goes_down_to_nothing_over_the_steps_that_are_taken(kind, steps, small, tmp_path):
    """Nine rows, four to a step: KTO's ninth joins the second step, and the rate is 1 then 1/2 of `lr`."""
    settings = Settings(**{**QUICK, "dev": 0.0}, warmup=0.0)
    fit_command(kind, rows_of("unpaired")[:9], small, tmp_path / "out", settings, show="nothing")
    rates = [line["fit/lr"] for line in read_metrics(tmp_path / "out") if "fit/lr" in line]
    assert rates == pytest.approx([1e-3 * (1 - step / steps) for step in range(steps)])


def test_a_value_head_has_the_rate_it_is_given(small, tmp_path):
    """Adam's first step is the rate: the head, zero at first, then stands at plus or minus it."""
    settings = Settings(**{**QUICK, "batch": 16, "dev": 0.0}, warmup=0.0, head_lr=0.25)
    fit_command("outcome-bce", rows_of("unpaired"), small, tmp_path / "out", settings, show="nothing")
    head = load_file(tmp_path / "out" / "model" / "value_head.safetensors")["weight"]
    torch.testing.assert_close(head.abs(), torch.full_like(head, 0.25), atol=1e-3, rtol=0)
    with pytest.raises(InputError, match="`head_lr` is not a setting of 'sft', but of outcome-bt, outcome-bce"):
        fit_command("sft", rows_of("imitation"), small, tmp_path / "no", settings, show="nothing")
    with pytest.raises(InputError, match=r"`head_lr` is -1, but must be at least 0"):
        Settings(head_lr=-1)


def test_pairs_are_made_of_labelled_responses(small, tmp_path):
    found = fit_command("dpo", rows_of("unpaired"), small, tmp_path / "out", Settings(**QUICK), show="nothing")
    assert found.rows + found.dev_rows == 8
    assert "8 pairs were made of 16 responses to 8 prompts." in found.told


def test_rows_together_are_learned_prompt_by_prompt(small, tmp_path, monkeypatch):
    """Eight prompts of two rows, four rows to a step: prompts in an order of chance, each with both its rows."""
    prepare, steps = OutcomeBCE.prepare, []

    def noting(self, model, rows):
        steps.append([(row.problem.prompt, row.label) for row in rows])
        return prepare(self, model, rows)

    monkeypatch.setattr(OutcomeBCE, "prepare", noting)
    settings = Settings(**{**QUICK, "dev": 0.0}, together=True)
    fit_command("outcome-bce", rows_of("unpaired"), small, tmp_path / "together", settings, show="nothing")
    assert [[f"{prompt[0]}{'-+'[int(label)]}" for prompt, label in step] for step in steps] == [
        ["6+", "6-", "1+", "1-"],
        ["7+", "7-", "4+", "4-"],
        ["5-", "5+", "0-", "0+"],
        ["2+", "2-", "3+", "3-"],
    ]
    rows = read_examples(rows_of("unpaired"), "unpaired").rows
    by_step = [place for step in steps for place in step]
    assert by_step == [(rows[place].problem.prompt, rows[place].label) for place in by_prompt(rows, Rng((0, "fit", 0)))]


def test_adapters_share_the_reference_and_are_merged(small, tmp_path):
    settings = Settings(**QUICK, lora=Lora(rank=2))
    fit_command("dpo", rows_of("paired"), small, tmp_path / "out", settings, show="nothing")
    before, after = load_file(f"{small}/model.safetensors"), load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert set(before) == set(after)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_another_model_may_be_the_reference(small, tmp_path):
    base = tmp_path / "base"
    tiny.make_network(layers=1, width=64).save_pretrained(base)
    tiny.make_tokenizer().save_pretrained(base)
    settings = Settings(**QUICK, reference=str(base))
    fit_command("implicit-steps", rows_of("stepwise"), small, tmp_path / "out", settings, show="nothing")
    assert json.loads((tmp_path / "out" / "model" / "judge.json").read_text())["reference"] == str(base)


def test_values_are_calibrated_on_the_rows_held_back(small, tmp_path):
    rows = [
        {"prompt": f"{i}=", "prefix": "y" if i % 3 == 0 else "n", "q_hat": 1.0 if i % 3 == 0 else 0.1}
        for i in range(60)
    ]
    settings = Settings(**{**QUICK, "lr": 1e-2}, epochs=6)
    fit_command("value", rows, small, tmp_path / "out", settings, show="nothing")
    judge = json.loads((tmp_path / "out" / "model" / "judge.json").read_text())
    assert judge["temperature"] > 0
    assert "bias" in judge
    off = fit_command("value", rows, small, tmp_path / "off", Settings(**{**QUICK, "dev": 0.0}), show="nothing")
    assert "No rows were held back, so the values are not calibrated." in off.told
    assert off.best is None


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("ppo", {}, "'ppo' cannot be fitted. Choose one of: sft, dpo"),
        ("sft", {"beta": 0.1}, "`beta` is not a setting of 'sft', but of dpo"),
        ("dpo", {"balance": "dataset"}, "`balance` is not a setting of 'dpo', but of kto, implicit-ce"),
        ("process", {"reference": "none"}, "`reference` is not a setting of 'process'"),
        ("value", {"responses": 2}, "`responses` is not a setting of 'value'"),
        ("kto", {"reference": "none"}, "kto needs a reference"),
        ("dpo", {"beta": -1.0}, "`beta` is -1.0, but must be above 0"),
        ("outcome-steps", {"splitter": "("}, "is no regular expression"),
        ("dpo", {"dev": 2.0}, "the share of rows held back is 2.0"),
        ("dpo", {"batch": 0}, "`batch` is 0"),
        ("value", {"together": True}, "cannot be `together`. Set buckets=false"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(kind, settings, message, small, tmp_path):
    shape = KINDS[kind].shape if kind in KINDS else "paired"
    with pytest.raises(InputError, match=message) as caught:
        fit_command(kind, rows_of(shape), small, tmp_path / "out", Settings(**QUICK | settings), show="nothing")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "recipe.yaml").exists()


def test_warm_up_is_a_share():
    with pytest.raises(InputError, match="`warmup` is 30"):
        Settings(warmup=30)


@pytest.mark.parametrize("kind", ["sft", "outcome-bt", "implicit-ce", "process", "value"])
def test_a_share_that_holds_no_prompt_back_is_told(kind, small, tmp_path):
    rows = [row for row in rows_of(KINDS[kind].shape) if row["prompt"] in ("0+0=", "1+1=", "2+2=")]
    told = "No row was held back to measure on: none of 3 prompts fell into the share of 0.001. Raise `dev`, or"
    for dev, more, says in ((0.001, {}, True), (0.0, {}, False), (0.0, {"dev_data": rows}, False)):
        settings = Settings(**{**QUICK, "dev": dev})
        found = fit_command(kind, rows, small, tmp_path / "out", settings, overwrite=True, show="nothing", **more)
        assert (found.dev_rows == 0) == (not more)
        assert any(said.startswith(told) for said in found.told) == says


def test_bad_data_leaves_no_run_behind(small, tmp_path):
    path = write(tmp_path / "data.jsonl", [{"prompt": "1", "chosen": "2"}])
    for source in (path, tmp_path / "none.jsonl"):
        with pytest.raises(ReckonError, match=r"data\.jsonl, row 1: there is no column|no such file"):
            fit_command("dpo", source, small, tmp_path / "out", Settings(**QUICK), show="nothing")
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_there_is_not_overwritten(small, tmp_path):
    given = (rows_of("paired"), small, tmp_path / "out", Settings(**QUICK))
    fit_command("dpo", *given, show="nothing")
    with pytest.raises(RunError, match=r"holds a run already\. Go on with it \(reckon fit dpo \.\.\. --resume\)"):
        fit_command("dpo", "gone.jsonl", "./no-such-model", given[2])  # before anything is read
    with pytest.raises(MissingError, match=r"there is no fit in .*elsewhere to go on with\. Leave --resume"):
        fit_command("dpo", "gone.jsonl", "./no-such-model", tmp_path / "elsewhere", resume=True)
    assert fit_command("dpo", *given, overwrite=True, show="nothing").finished


def test_a_judge_does_not_outlive_the_fit_that_made_it(small, tmp_path):
    out = tmp_path / "out"
    fit_command("outcome-bce", rows_of("unpaired"), small, out, Settings(**QUICK), show="nothing")
    assert is_fitted(out)
    with pytest.raises(InputError, match=r"the model .*model is that of the run in .*out, which --overwrite deletes"):
        fit_command("sft", rows_of("imitation"), str(out / "model"), out, Settings(**QUICK), overwrite=True)
    assert is_fitted(out)
    fit_command("sft", rows_of("imitation"), small, out, Settings(**QUICK), overwrite=True, show="nothing")
    assert not is_fitted(out)
    assert not (out / "classifier").exists()
    assert not (out / "model" / "value_head.safetensors").exists()


def test_all_of_a_prompts_responses_right_make_no_pair(small, tmp_path):
    rows = [{"prompt": "1", "completion": text, "label": 1} for text in "ab"]
    with pytest.raises(InputError, match="no prompt has both a right and a wrong response"):
        fit_command("nca", rows, small, tmp_path / "out", Settings(**QUICK), show="nothing")


def test_rows_to_measure_on_are_told_and_part_of_the_recipe(small, tmp_path):
    dev, settings = rows_of("unpaired")[:4], Settings(**{**QUICK, "dev": 0.0}, on_bad="drop")
    given = ("outcome-bce", iter(rows_of("unpaired")), small, tmp_path / "out", settings)
    found = fit_command(*given, dev_data=(row for row in [*dev, {"prompt": "p"}]), show="nothing")
    assert (found.rows, found.dev_rows) == (16, 4)
    (said,) = found.told
    assert said.startswith("Of the rows to measure on: 1 rows could not be used and were dropped")
    again = ("outcome-bce", rows_of("unpaired"), small, tmp_path / "out", settings)
    with pytest.raises(RunError, match="dev_data_sha256"):
        fit_command(*again, dev_data=dev, resume=True, show="nothing")
    with pytest.raises(InputError, match="`dev` is the share of rows held back, but rows to measure on are given"):
        fit_command("sft", rows_of("unpaired"), small, tmp_path / "no", Settings(**QUICK), dev_data=dev)


def test_a_generator_may_be_the_pairs_source_and_cap_is_not_for_pairs(small, tmp_path):
    settings = Settings(**QUICK, cap=1)
    assert fit_command("dpo", iter(rows_of("unpaired")), small, tmp_path / "out", settings, show="nothing").finished
    for made in (settings, Settings(**QUICK, responses=1)):
        with pytest.raises(InputError, match="but the rows are pairs already"):
            fit_command("dpo", rows_of("paired"), small, tmp_path / "no", made)


def test_fewer_responses_and_prompts_and_the_same_rows_to_measure_on(small, tmp_path):
    """8 prompts with 2 right and 2 wrong responses each: of 2 responses 1 or 0 pairs, and of half the prompts half."""
    rows = [{**row, "completion": f"{row['completion']}{i}"} for row in rows_of("unpaired") for i in (0, 1)]
    dev, plain = rows[:8], {**QUICK, "dev": 0.0}

    def fitted(name, kind="outcome-bce", **settings):
        how = Settings(**plain | settings)
        return fit_command(kind, rows, small, tmp_path / name, how, dev_data=dev, show="nothing")

    found = fitted("few", responses=3, prompts=0.5)
    assert (found.rows, found.dev_rows) == (12, 8)
    assert found.told == (
        "24 of 32 responses were kept, at most 3 to a prompt.",
        "Of 0.5 of the prompts 12 of 24 rows were kept to learn from.",
    )
    made = fitted("pairs", kind="dpo", responses=3)
    assert made.rows == 16  # of 3 responses 2 are alike, so that 2 of the 4 pairs are left
    assert made.dev_rows == 8
    assert made.told[1] == "16 pairs were made of 24 responses to 8 prompts."
    held = fit_command("sft", rows, small, tmp_path / "held", Settings(**QUICK, prompts=0.5), show="nothing")
    whole = fit_command("sft", rows, small, tmp_path / "whole", Settings(**QUICK), show="nothing")
    assert held.dev_rows == whole.dev_rows > 0
    assert held.rows < whole.rows


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompts": 0.0}, "`prompts` is 0.0"),
        ({"prompts": 1.5}, "`prompts` is 1.5"),
        ({"responses": 0}, "`responses` is 0, but must be at least 1"),
        ({"head_lr": float("inf")}, "`head_lr` is inf"),
    ],
)
def test_shares_and_numbers_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        Settings(**settings)


@pytest.mark.parametrize("name", ["on_bad", "on_long", "balance", "pairs", "step_loss", "schedule", "dtype"])
def test_words_that_are_no_choice_are_refused(name):
    with pytest.raises(InputError, match=f"`{name}` is 'dorp', but must be one of: "):
        Settings(**{name: "dorp"})


def test_a_value_says_that_the_empty_prefix_was_not_learned(small, tmp_path):
    settings = Settings(**QUICK)
    found = fit_command("value", rows_of("stepwise"), small, tmp_path / "out", settings, show="nothing")
    assert any(said.startswith("No row has an empty prefix") for said in found.told)
    found = fit_command("value", rows_of("prefix"), small, tmp_path / "with", settings, show="nothing")
    assert not any(said.startswith("No row has an empty prefix") for said in found.told)


def test_a_shown_answer_is_needed_and_counts_to_the_length(small, tmp_path):
    rows, how = rows_of("unpaired"), {**QUICK, "show_reference": True}
    bare, long = {**rows[0], "answer": None}, {**rows[0], "answer": "9" * 250}
    for row, message in ((bare, "no reference answer to show"), (long, "make a text of .* tokens, and the model's")):
        with pytest.raises(InputError, match=message):
            fit_command("outcome-bce", [*rows, row], small, tmp_path / "no", Settings(**how))
        assert not (tmp_path / "no").exists()
    settings = Settings(**how, on_bad="drop", on_long="drop")
    found = fit_command("outcome-bce", [*rows, bare, long], small, tmp_path / "out", settings, show="nothing")
    assert found.rows + found.dev_rows == 16
    assert len(found.told) == 2
