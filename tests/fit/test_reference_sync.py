"""Preferences against a reference that follows the model: what each step was measured by, resuming, the command."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from reckon.errors import InputError
from reckon.fit import CachedReference, Plan, Preference, Settings, fit, fit_command, schedule
from reckon.models import Lora, Optimization, tiny
from reckon.runs import Run

PLAN = Plan(epochs=3, batch=2, save_every=1, evaluate_every=2, show="nothing")  # 4 pairs: 2 steps a pass, 6 in all


@pytest.fixture
def begin(make):
    """begin(**settings) -> a model and the loss of its preferences against itself as it was, or slowly follows."""

    def begun(sync_every=4, sync_alpha=0.5, lora=None):
        model = make(optimizer=Optimization(lr=1e-2), lora=lora)
        reference = model.reference(sync_every=sync_every, sync_alpha=sync_alpha)
        return model, Preference(reference=CachedReference(reference), beta=0.5)

    return begun


def losses(run):
    return [line["fit/loss"] for line in run.metrics() if "fit/loss" in line]


def test_it_moves_between_two_steps_and_is_asked_anew(begin, make, paired):
    """The reference of a step is 1/2 of the model after step 2 and 1/2 of the start from step 3 on, and so forth."""
    model, loss = begin(sync_every=2)
    start = {name: weight.clone() for name, weight in loss.reference.reference.weights().items()}
    by_hand = make()
    told = []

    class Told(Preference):
        def prepare(self, model, rows):
            seq, columns = super().prepare(model, rows)
            now = {name: p.detach().clone() for name, p in model.network.named_parameters()}
            told.append((seq, columns["reference"], now))
            return seq, columns

    assert fit(model, paired, Told(reference=loss.reference, beta=0.5), PLAN)
    assert len(told) == len(schedule(paired, PLAN)) == 6  # nothing was remembered before the first
    assert len(loss.reference) == 0
    for step, (seq, found, now) in enumerate(told):
        if step in (2, 4):
            start = {name: 0.5 * own + 0.5 * now[name] for name, own in start.items()}
        with torch.no_grad():
            for name, parameter in by_hand.network.named_parameters():
                parameter.copy_(start[name])
        torch.testing.assert_close(found, by_hand.outputs(seq).logprobs, rtol=1e-5, atol=1e-5)


def test_right_after_a_whole_move_the_loss_is_that_of_no_difference(begin, paired, tmp_path):
    """-log sigmoid(0) = log 2 = .693147 where model and reference are one: at the first step and after each move."""
    model, loss = begin(sync_every=3, sync_alpha=1.0)
    with Run.create(tmp_path / "run", recipe={}) as run:
        fit(model, paired, loss, PLAN, run)
        found = losses(run)
    assert [found[0], found[3]] == pytest.approx([0.693147, 0.693147], abs=1e-5)
    assert min(abs(found[i] - 0.693147) for i in (1, 2, 4, 5)) > 1e-3


def test_a_reference_that_never_comes_to_move_changes_no_number(begin, paired, tmp_path):
    lines = []
    for name, every in (("stays", None), ("follows", 100)):
        model, loss = begin(sync_every=every)
        with Run.create(tmp_path / name, recipe={}) as run:
            fit(model, paired, loss, PLAN, run)
            lines.append(losses(run))
    assert lines[1] == pytest.approx(lines[0], rel=1e-5)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
@pytest.mark.parametrize("after", [1, 4, 5])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does_to_the_last_bit(
    begin, paired, tmp_path, monkeypatch, after, lora
):
    """Before the move after step 4, at it, and after it."""
    model, loss = begin(lora=lora)
    with Run.create(tmp_path / "whole", recipe={}) as run:
        assert fit(model, paired, loss, PLAN, run)
        wanted = losses(run), model.state_dict()
    prepare, calls = Preference.prepare, []

    def interrupting(self, model, rows):
        calls.append(len(rows))
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGINT)
        return prepare(self, model, rows)

    model, loss = begin(lora=lora)
    with monkeypatch.context() as patch, Run.create(tmp_path / "cut", recipe={}) as run:
        patch.setattr(Preference, "prepare", interrupting)
        assert not fit(model, paired, loss, PLAN, run)
        assert run.checkpoints[-1] == after
    model, loss = begin(lora=lora)
    with Run.resume(tmp_path / "cut") as run:
        assert fit(model, paired, loss, PLAN, run)
        assert losses(run) == wanted[0]
    found = model.state_dict()
    for part in ("weights", "references"):
        for name, weight in _flat(found[part]).items():
            assert torch.equal(weight, _flat(wanted[1][part])[name]), name


def _flat(state, before=""):
    found = {}
    for name, value in state.items():
        found |= {before + name: value} if isinstance(value, torch.Tensor) else _flat(value, f"{before}{name}/")
    return found


# --- by name

QUICK = {"batch": 4, "dev": 0.3, "lr": 1e-2, "dtype": "float32", "device": "cpu"}
ROWS = [{"prompt": f"{i}+{i}=", "chosen": f"{2 * i}", "rejected": f"{2 * i + 1}"} for i in range(8)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    tiny.make_network(layers=1, width=32).save_pretrained(folder)
    tiny.make_tokenizer().save_pretrained(folder)
    return str(folder)


def test_the_command_makes_a_policy_of_it_and_no_judge(small, tmp_path):
    settings = Settings(**QUICK, epochs=3, sync_every=2)
    found = fit_command("dpo", ROWS, small, tmp_path / "moved", settings, show="nothing")
    assert found.told[-1].startswith(
        "The reference followed the model, so the model is a policy and no implicit reward"
    )
    assert (found.folder / "model" / "model.safetensors").is_file()
    assert not (found.folder / "model" / "judge.json").exists()
    assert json.loads((found.folder / "fitted.json").read_text())["fit"] == "dpo"
    plain = fit_command("dpo", ROWS, small, tmp_path / "plain", Settings(**QUICK, epochs=3), show="nothing")
    assert (plain.folder / "model" / "judge.json").is_file()
    moved, stayed = ([line["fit/loss"] for line in Run.open(each.folder).metrics()[1:]] for each in (found, plain))
    assert moved[:2] == pytest.approx(stayed[:2], rel=1e-5)
    assert moved[2:] != pytest.approx(stayed[2:], rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("dpo", {"sync_every": 0}, "`sync_every` is 0; it must be 1 or more"),
        ("dpo", {"sync_every": 2, "sync_alpha": 0.0}, "`sync_alpha` is 0.0; it must be above 0"),
        ("dpo", {"sync_alpha": 0.5}, "`sync_alpha` says how a reference is moved, and none is. Give `sync_every` too"),
        ("kto", {"sync_every": 2, "reference": "none"}, "`reference` is 'none'. Leave it at 'start'"),
        ("nca", {"sync_every": 2, "reference": "tiny"}, "`reference` is 'tiny'. Leave it at 'start'"),
        ("implicit-ce", {"sync_every": 2}, "`sync_every` is not a setting of 'implicit-ce', but of dpo, dpo-norm, ipo"),
        ("simpo", {"sync_every": 2}, "`sync_every` is not a setting of 'simpo'"),
    ],
)
def test_refused(kind, settings, message, small, tmp_path):
    with pytest.raises(InputError, match=message):
        fit_command(kind, ROWS, small, tmp_path / "out", Settings(**QUICK | settings), show="nothing")
