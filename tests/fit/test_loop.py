"""The loop: exact resume, the best checkpoint, early logs, orders that are counted."""

from __future__ import annotations

import dataclasses
import os
import signal

import pytest
import torch

from reckon.errors import InputError
from reckon.fit import (
    KTO,
    SFT,
    CachedReference,
    ImplicitCE,
    OutcomeBCE,
    Plan,
    Prefix,
    PrefixValues,
    Unpaired,
    by_buckets,
    by_prompt,
    fit,
    measure,
    schedule,
    shuffled,
)
from reckon.models import Optimization
from reckon.runs import Run
from reckon.types import Problem, Rng

PLAN = Plan(epochs=3, batch=4, save_every=2, evaluate_every=2, show="nothing")  # 6 rows: 2 steps a pass, 6 in all


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model._trained.items()}


def interrupting(loss, after):
    """The loss, with a Ctrl-C while it prepares its mini-batch number `after`, counted from 1 after the reference."""

    @dataclasses.dataclass(frozen=True)
    class Interrupting:
        inner: object
        seen: list

        want = loss.want
        reference = getattr(loss, "reference", None)

        def prepare(self, model, rows):
            self.seen.append(len(rows))
            if len(self.seen) == after + (self.reference is not None):
                os.kill(os.getpid(), signal.SIGINT)
            return self.inner.prepare(model, rows)

        def __call__(self, outputs, columns):
            return self.inner(outputs, columns)

        def diagnostics(self, outputs, columns):
            return self.inner.diagnostics(outputs, columns)

    return Interrupting(loss, [])


@pytest.mark.parametrize("after", [1, 3, 4])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does_to_the_last_bit(make, unpaired, tmp_path, after):
    def begin():
        model = make(optimizer=Optimization(lr=1e-3, schedule="cosine", warmup=1, total=6))
        return model, ImplicitCE(reference=CachedReference(model.reference()), beta=1.0)

    model, loss = begin()
    with Run.create(tmp_path / "whole", recipe={}) as run:
        assert fit(model, unpaired, loss, PLAN, run)
    expected, lines = weights(model), run.metrics()

    model, loss = begin()
    with Run.create(tmp_path / "cut", recipe={}) as run:
        assert not fit(model, unpaired, interrupting(loss, after), PLAN, run)
        assert run.checkpoints[-1] == after
    model, loss = begin()
    with Run.resume(tmp_path / "cut") as run:
        assert fit(model, unpaired, loss, PLAN, run)
    for name, weight in weights(model).items():
        assert torch.equal(weight, expected[name]), name
    again = run.metrics()
    assert [line["step"] for line in again] == [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["fit/loss"] for line in again] == [line["fit/loss"] for line in lines]


def test_the_first_step_is_logged_and_the_dev_rows_before_it(make, unpaired, tmp_path):
    model = make(value_head=True)
    with Run.create(tmp_path / "run", recipe={}) as run:
        fit(model, unpaired[:4], OutcomeBCE(), PLAN, run, dev=unpaired[4:])
    lines = {int(line["step"]): line for line in run.metrics()}
    assert sorted(lines) == [0, 1, 2, 3]
    assert "dev/loss" in lines[0]
    assert "fit/loss" not in lines[0]
    assert {"fit/loss", "fit/accuracy", "fit/grad_norm", "fit/lr", "fit/rows", "time/step"} <= set(lines[1])
    assert "dev/loss" not in lines[1]  # every 2 steps, and at the end
    assert {"dev/loss", "dev/accuracy", "dev/brier"} <= set(lines[2])
    assert "dev/loss" in lines[3]


def test_the_lowest_dev_loss_is_the_best_checkpoint(make, unpaired, tmp_path):
    """Learning the opposite of the dev labels, every step is worse than the one before."""
    model = make(value_head=True, optimizer=Optimization(lr=1e-2))
    opposite = [dataclasses.replace(row, label=1 - row.label) for row in unpaired]
    plan = Plan(epochs=4, batch=6, evaluate_every=1, save_every=100, show="nothing")
    with Run.create(tmp_path / "run", recipe={}) as run:
        fit(model, opposite, OutcomeBCE(), plan, run, dev=unpaired)
    losses = [line["dev/loss"] for line in run.metrics()]
    assert losses[4] > losses[1]
    assert run.best == 1 + losses[1:].index(min(losses[1:]))
    last = float(measure(model, unpaired, OutcomeBCE())["dev/loss"])
    run.load({"model": model}, "best")
    assert measure(model, unpaired, OutcomeBCE())["dev/loss"] == pytest.approx(min(losses[1:]), abs=1e-6)
    assert last == pytest.approx(losses[4], abs=1e-6)


def test_without_a_run_it_leaves_no_trace_and_learns_the_same(make, unpaired, tmp_path):
    models = [make(), make()]
    with Run.create(tmp_path / "run", recipe={}) as run:
        fit(models[0], unpaired, SFT(), PLAN, run)
    fit(models[1], unpaired, SFT(), PLAN)
    for name, weight in weights(models[0]).items():
        assert torch.equal(weight, models[1]._trained[name])


def test_learning_lowers_the_loss(make, unpaired):
    model = make(value_head=True, optimizer=Optimization(lr=1e-2))
    before = measure(model, unpaired, OutcomeBCE())
    fit(model, unpaired, OutcomeBCE(), Plan(epochs=30, batch=6, show="nothing"))
    after = measure(model, unpaired, OutcomeBCE())
    assert after["dev/loss"] < 0.5 * before["dev/loss"]
    assert after["dev/accuracy"] == 1.0


def test_a_last_mini_batch_that_is_too_small_joins_the_one_before(make, unpaired):
    """5 rows by 2: [2, 2, 1]; KTO needs 2, so [2, 3]."""
    assert [len(batch) for batch in schedule(unpaired[:5], Plan(batch=2))] == [2, 2, 1]
    assert [len(batch) for batch in schedule(unpaired[:5], Plan(batch=2), least=2)] == [2, 3]
    model = make()
    assert fit(model, unpaired[:5], KTO(reference=CachedReference(model.reference())), Plan(batch=2, show="nothing"))


def test_a_pass_takes_each_row_once_and_each_pass_has_its_own_order(unpaired):
    first, second = (
        [place for batch in schedule(unpaired, Plan(batch=4, epochs=2))[2 * e : 2 * e + 2] for place in batch]
        for e in range(2)
    )
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4, 5]
    assert first != second
    assert list(shuffled(unpaired, Rng((0, "fit", 0)))) == first


def test_buckets_come_equally_often_and_in_turn():
    """90 low and 10 high: 50 draws each; every high row 5 times, no low row twice."""
    problem = Problem(id="p", prompt="1")
    rows = [Prefix(problem=problem, text=str(i), q=0.0 if i < 90 else 1.0) for i in range(100)]
    order = by_buckets(rows, Rng((0,)))
    assert len(order) == 100
    assert [rows[place].q for place in order] == [0.0, 1.0] * 50
    counted = torch.bincount(torch.tensor(order), minlength=100)
    assert counted[90:].tolist() == [5] * 10
    assert counted[:90].max() == 1
    assert order != by_buckets(rows, Rng((1,)))


def test_buckets_of_an_odd_number_and_with_one_empty():
    problem = Problem(id="p", prompt="1")
    rows = [Prefix(problem=problem, text=str(i), q=q) for i, q in enumerate([0.1, 0.5, 0.9])]
    order = by_buckets(rows, Rng((0,)))
    assert sorted(rows[place].q >= 0.5 for place in order) == [False, False, True]
    assert sorted(by_buckets(rows[1:], Rng((0,)))) == [0, 1]


def test_buckets_are_of_prefixes(unpaired):
    with pytest.raises(InputError, match="not of rows of kind Unpaired"):
        by_buckets(unpaired, Rng((0,)))


def test_rows_of_a_prompt_stay_together():
    """5 prompts of 3 rows: every row once, each prompt in one run of 3, and another order every pass."""
    problems = [Problem(id=str(i), prompt=f"{i}?") for i in range(5)]
    rows = [Unpaired(problem=problems[i % 5], text=str(i), label=1.0) for i in range(15)]
    first, second = by_prompt(rows, Rng((0, 0))), by_prompt(rows, Rng((0, 1)))
    assert sorted(first) == list(range(15))
    for order in (first, second):
        prompts = [rows[place].problem.prompt for place in order]
        assert [prompt for i, prompt in enumerate(prompts) if i % 3 == 0] == list(dict.fromkeys(prompts))
        assert all(len(set(prompts[i : i + 3])) == 1 for i in range(0, 15, 3))
    assert first != second
    assert any(sorted(first[i : i + 3]) != first[i : i + 3] for i in range(0, 15, 3))  # rows are shuffled too


def test_a_prompt_of_rows_together_is_computed_once(make):
    """4 prompts of 4 rows in steps of 4: one prompt a step together, and more than that shuffled."""
    problems = [Problem(id=str(i), prompt=f"{i}+{i}=") for i in range(4)]
    rows = [Unpaired(problem=problems[i % 4], text=str(i), label=float(i % 2)) for i in range(16)]
    model, loss = make(value_head=True), OutcomeBCE()
    steps = schedule(rows, Plan(batch=4), by_prompt)
    assert [len(loss.prepare(model, [rows[i] for i in step])[0].prompts) for step in steps] == [1, 1, 1, 1]


def test_a_verifier_is_fitted_with_buckets(make, prefixes):
    model = make(value_head=True, optimizer=Optimization(lr=1e-2))
    before = measure(model, prefixes, PrefixValues())
    fit(model, prefixes, PrefixValues(), Plan(epochs=20, batch=4, show="nothing"), order=by_buckets)
    assert measure(model, prefixes, PrefixValues())["dev/brier"] < before["dev/brier"]


@pytest.mark.parametrize("name", ["epochs", "batch", "save_every", "evaluate_every"])
def test_plans_below_one_are_refused(name):
    with pytest.raises(InputError, match=f"`{name}` is 0"):
        Plan(**{name: 0})


def test_no_rows_are_refused(make):
    with pytest.raises(InputError, match="There are 0 rows to learn from, and at least 1"):
        fit(make(), [], SFT(), Plan())
    with pytest.raises(InputError, match="`batch` is 1, but this loss needs at least 2"):
        schedule([None] * 4, Plan(batch=1), least=2)


def test_kto_is_resumed_exactly_in_its_second_pass(make, problems, tmp_path, monkeypatch):
    """30 rows by 7: 5 steps a pass, interrupted in the sixth."""
    rows = [Unpaired(problem=problems[i % 3], text="x" * (i % 7) + str(i), label=float(i % 2)) for i in range(30)]
    plan = Plan(epochs=2, batch=7, save_every=100, show="nothing")

    def begin():
        model = make(optimizer=Optimization(lr=1e-2))
        return model, KTO(reference=CachedReference(model.reference()))

    model, loss = begin()
    with Run.create(tmp_path / "whole", recipe={}) as run:
        assert fit(model, rows, loss, plan, run)
    expected, lines = weights(model), run.metrics()
    prepare, calls = KTO.prepare, []

    def interrupting(self, model, rows):
        calls.append(len(self.reference))
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return prepare(self, model, rows)

    model, loss = begin()
    monkeypatch.setattr(KTO, "prepare", interrupting)
    with Run.create(tmp_path / "cut", recipe={}) as run:
        assert not fit(model, rows, loss, plan, run)
        assert run.checkpoints[-1] == 6
    assert calls == [30] * 6  # all rows before the first step, and no mismatched pair
    monkeypatch.undo()
    model, loss = begin()
    with Run.resume(tmp_path / "cut") as run:
        assert fit(model, rows, loss, plan, run)
    assert [line["fit/loss"] for line in run.metrics()] == [line["fit/loss"] for line in lines]
    for name, weight in weights(model).items():
        assert torch.equal(weight, expected[name]), name


def test_what_kto_cannot_read_is_said_before_anything_is_learned(make, unpaired):
    """256 tokens of context: 'a longer prompt: ' has 17, so beside it 239 fit, and beside '1+1=' 252 do."""
    model = make()
    loss = KTO(reference=CachedReference(model.reference()))
    with pytest.raises(InputError, match="1 row is held back to measure on, and this loss needs at least 2"):
        fit(model, unpaired[:4], loss, PLAN, dev=unpaired[4:5])
    long = dataclasses.replace(unpaired[0], text="x" * 239)
    message = "longest response has 240 tokens, and beside the longest prompt the model's context has room for 239"
    with pytest.raises(InputError, match=message):
        fit(model, [long, *unpaired[1:]], loss, PLAN)
    assert len(loss.reference) == 0
    assert fit(model, [dataclasses.replace(long, text="x" * 238), *unpaired[1:]], loss, PLAN)
