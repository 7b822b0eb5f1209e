"""Passes over a batch: what the ratio of the first one must be."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from reckon.losses import ClippedRatio, EntropyBonus, Objectives
from reckon.models import LanguageModel, Optimization, Sampling, tiny
from reckon.samplers import All, collect
from reckon.types import Credit, Problem, Rng, Verdict


class Three:
    """Poses the same three problems, of other lengths."""

    def draw(self, n, rng):
        return [Problem(id=str(i), prompt=text) for i, text in enumerate(["1+1=", "a longer prompt: ", "x"])]

    def learn(self, seen):
        return {}


@pytest.mark.parametrize("silent", [[], [1, 4, 7]])  # rows whose advantage is 0
@pytest.mark.parametrize("passes", [(1, 1), (2, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_nothing_learned_between_two_passes_is_a_ratio_of_exactly_one(dtype, level, passes, silent):
    """With lr 0 all passes are of one policy. Rounding, which depends on a row's company, must not show."""
    network = tiny.make_network(width=32, heads=4, seed=3)
    with torch.no_grad():
        network.lm_head.weight.mul_(12)
    settings = Optimization(lr=0.0, epochs=passes[0], minibatches=passes[1])
    model = LanguageModel(
        network,
        tiny.make_tokenizer(),
        sampling=Sampling(max_new_tokens=12),
        optimizer=settings,
        dtype=dtype,
        device="cpu",
        tokens_per_batch=60,
    )
    unknown = [Verdict(outcome=None, answer=None, reason="crashed")] * 12
    batch = collect(Three(), model, lambda _: unknown, All(), 3, 4, Rng((0,)), step=0)
    mask = batch.seq.mask & (torch.arange(12) % 3 != 0)[:, None]  # a third of the rows train nothing
    advantages = torch.linspace(-1, 1, 12)
    advantages[silent] = 0.0
    credit = Credit(advantages=mask * advantages[:, None], weights=torch.ones(mask.shape), mask=mask)
    metrics = model.update(ClippedRatio(level=level, low=3e-4, high=4e-4), batch, credit, Rng((1,)))
    assert metrics["policy/steps"] == passes[0] * passes[1]
    assert metrics["policy/silent"] == len(silent) / 8
    assert metrics["policy/clip_fraction"] == 0
    assert metrics["policy/kl_sampled"] == 0


def drawn(make, **settings):
    """A model that is to learn, and three groups of four responses of its own."""
    model = make(**settings)
    unknown = [Verdict(outcome=None, answer=None, reason="crashed")] * 12
    return model, collect(Three(), model, lambda _: unknown, All(), 3, 4, Rng((0,)), step=0)


def credited(batch, advantages) -> Credit:
    """Each response's advantage at each of its tokens."""
    mask = batch.seq.mask
    values = torch.where(mask, torch.tensor(advantages)[:, None], 0.0)
    return Credit(advantages=values, weights=torch.ones(mask.shape), mask=mask)


SECOND_GROUP_IS_SILENT = [1.0, -1.0, 0.5, -0.5, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, -1.0, -1.0]  # and row 9


class Deaf:
    """The same objective without knowing its silent rows: all of them are computed."""

    def __init__(self, objective):
        self.want, self.prepare, self.diagnostics = objective.want, objective.prepare, objective.diagnostics
        self._objective = objective

    def __call__(self, outputs, columns):
        return self._objective(outputs, columns)


@pytest.mark.parametrize("average", ["tokens", "sequences"])
def test_rows_without_an_advantage_are_not_computed_and_change_no_gradient(make, average):
    objective = Objectives({"policy": ClippedRatio(average=average), "watched": EntropyBonus(coef=0)})
    found, computed, weights = [], [], []
    for each in (objective, Deaf(objective)):
        model, batch = drawn(make, optimizer=Optimization(lr=1e-3))
        found.append(model.update(each, batch, credited(batch, SECOND_GROUP_IS_SILENT), Rng((1,))))
        computed.append(model.counters["learn"])
        weights.append(model.state_dict()["weights"])
    lengths = batch.seq.mask.sum(dim=1)
    loud = torch.tensor(SECOND_GROUP_IS_SILENT) != 0
    prompts = [len(prompt) for prompt in batch.seq.prompts]
    assert computed[0] == prompts[0] + prompts[2] + int((lengths[loud] - 1).sum())
    assert computed[1] == sum(prompts) + int((lengths - 1).sum())
    assert found[0]["policy/silent"] == pytest.approx(5 / 12)
    assert found[1]["policy/silent"] == 0
    assert found[0]["tokens/trained"] == int(lengths[loud].sum())
    assert found[0]["policy/grad_norm"] == pytest.approx(found[1]["policy/grad_norm"], rel=1e-4)
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, rtol=1e-3, atol=1e-5)
    model, batch = drawn(make)
    entropy = model.outputs(batch.seq, ("entropy",)).entropy[loud]
    assert found[0]["policy/entropy"] == pytest.approx(float(entropy.sum() / lengths[loud].sum()), rel=1e-4)
    assert found[0]["policy/ratio_mean"] == pytest.approx(1)


def test_a_penalty_on_every_row_leaves_none_out(make):
    model, batch = drawn(make)
    objective = Objectives({"policy": ClippedRatio(), "entropy": EntropyBonus(coef=0.1)})
    metrics = model.update(objective, batch, credited(batch, SECOND_GROUP_IS_SILENT), Rng((1,)))
    assert metrics["policy/silent"] == 0
    assert metrics["tokens/trained"] == int(batch.seq.mask.sum())


def test_a_batch_of_silent_rows_makes_no_step(make):
    model, batch = drawn(make, optimizer=Optimization(lr=1.0, weight_decay=0.5))
    before = {name: weight.clone() for name, weight in model.state_dict()["weights"].items()}
    metrics = model.update(ClippedRatio(), batch, credited(batch, [0.0] * 12), Rng((1,)))
    assert (metrics["policy/steps"], metrics["tokens/trained"], metrics["policy/silent"]) == (0, 0, 1)
    for name, weight in model.state_dict()["weights"].items():
        assert torch.equal(weight, before[name])


LOUD, SILENT = [1.0, -1.0, 0.5, -0.5] * 3, [0.0] * 12


def test_the_schedule_ends_with_the_run_however_many_batches_were_silent(make):
    """Linear over four steps, of which the second and third teach nothing: 1, -, -, 1/4; and so after a resume."""
    optimizer = Optimization(lr=1e-3, schedule="linear", total=4)
    model, batch = drawn(make, optimizer=optimizer)
    rates = []
    for step, advantages in enumerate([LOUD, SILENT, SILENT, LOUD]):
        if step == 3:
            resumed, _ = drawn(make, optimizer=optimizer)
            resumed.load_state_dict(deepcopy(model.state_dict()))
        found = model.update(ClippedRatio(), replace(batch, step=step), credited(batch, advantages), Rng((1, step)))
        rates.append(found.get("policy/lr"))
    assert rates == [1e-3, None, None, pytest.approx(2.5e-4)]
    found = resumed.update(ClippedRatio(), replace(batch, step=3), credited(batch, LOUD), Rng((1, 3)))
    assert found["policy/lr"] == rates[3]
    for name, weight in resumed.state_dict()["weights"].items():
        assert torch.equal(weight, model.state_dict()["weights"][name])


def test_silent_minibatches_count_toward_the_schedule_too(make):
    """Three of a step's mini-batches, one of them silent: two steps at 6/6 and 5/6, then three at 3/6, 2/6 and 1/6."""
    model, batch = drawn(make, optimizer=Optimization(lr=1.0, schedule="linear", total=6, minibatches=3, clip=1e-6))
    found = [
        model.update(ClippedRatio(), replace(batch, step=step), credited(batch, advantages), Rng((1, step)))
        for step, advantages in enumerate([SECOND_GROUP_IS_SILENT, LOUD])
    ]
    assert [each["policy/steps"] for each in found] == [2, 3]
    assert [each["policy/lr"] for each in found] == pytest.approx([11 / 12, 1 / 3])
