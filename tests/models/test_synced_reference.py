"""A reference that follows the model: the mix by hand and against TRL, adapters, resuming, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reckon.errors import InputError
from reckon.models import Lora, Optimization

QUICK = Optimization(lr=1e-2)


def nll(outputs, columns):
    return -outputs.logprobs * columns["scale"]


def learn(model, seq, steps=1):
    for _ in range(steps):
        model.step(seq, {"scale": seq.mask / seq.mask.sum()}, nll)


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}


def logprobs(model, seq):
    return model.outputs(seq).logprobs


def assert_same(one, other):
    assert set(one) == set(other)
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


def test_left_alone_it_stays_and_is_not_saved_with_the_model(make, ragged):
    model = make(optimizer=QUICK)
    start = weights(model)
    reference = model.reference()
    learn(model, ragged, 3)
    assert_same(dict(reference.weights()), start)
    assert set(model.state_dict()) == {"steps", "weights", "adamw"}


def test_every_so_many_steps_it_takes_over_a_part_of_the_model(make, ragged):
    """ref <- .75 theta + .25 ref, each product rounded once and the sum once, after the steps 2 and 4 and no other."""
    model = make(optimizer=QUICK)
    wanted = weights(model)
    reference = model.reference(sync_every=2, sync_alpha=0.75)
    for step in range(1, 6):
        learn(model, ragged)
        if step in (2, 4):
            now = weights(model)
            wanted = {name: 0.25 * own + 0.75 * now[name] for name, own in wanted.items()}
        found = dict(reference.weights())
        assert set(found) == set(wanted)
        for name, own in found.items():
            torch.testing.assert_close(own, wanted[name], rtol=1e-6, atol=1e-8)
    assert not torch.equal(logprobs(reference, ragged), logprobs(model, ragged))


def test_a_part_of_1_is_the_model_itself(make, ragged):
    model = make(optimizer=QUICK)
    reference = model.reference(sync_every=1, sync_alpha=1.0)
    learn(model, ragged)
    assert torch.equal(logprobs(reference, ragged), logprobs(model, ragged))


def test_a_step_that_is_not_made_does_not_count(make, ragged):
    model = make(optimizer=QUICK)
    reference, start = model.reference(sync_every=1), weights(model)
    endless = {"scale": torch.full(ragged.mask.shape, torch.inf)}
    assert model.step(ragged, endless, nll)["policy/skipped"] == 1
    assert_same(dict(reference.weights()), start)


def test_its_head_follows_too(make, ragged):
    model = make(optimizer=QUICK, value_head=True)
    reference = model.reference(sync_every=1, sync_alpha=0.5)
    model.step(ragged, {}, lambda outputs, _: (outputs.values - 1) ** 2 * ragged.mask, ("values",))
    assert (model.head.weight != 0).any()
    assert torch.equal(reference.weights()["value_head.weight"], 0.5 * model.head.weight.detach())  # it was 0


ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "reference.json").read_text())


def test_the_arithmetic_is_that_of_trls_callback(make, ragged):
    """Its weights are put into model and reference, and mixed twice."""
    model = make(optimizer=Optimization(lr=0.0))
    reference = model.reference(sync_every=1, sync_alpha=ORACLE["alpha"])
    live = dict(model.network.named_parameters())
    sizes = [len(values) for values in ORACLE["model"]]
    names = [name for name, weight in reference.weights().items() if weight.numel() >= max(sizes)][: len(sizes)]
    for name, theirs, own in zip(names, ORACLE["model"], ORACLE["reference"], strict=True):
        for weight, values in ((live[name], theirs), (reference.weights()[name], own)):
            with torch.no_grad():
                weight.view(-1)[: len(values)] = torch.tensor(values)
    for after in ORACLE["after"]:
        learn(model, ragged)
        for name, values in zip(names, after, strict=True):
            found = reference.weights()[name].flatten()[: len(values)]
            torch.testing.assert_close(found, torch.tensor(values), rtol=1e-6, atol=1e-8)


# --- adapters


def test_with_adapters_it_has_weights_of_its_own_and_mixes_what_they_come_to(make, ragged):
    """A mix of weights, W + (1 - a) BA + a B'A', which is not one of A and of B."""
    model = make(lora=Lora(rank=2, alpha=4), optimizer=Optimization(lr=5e-2))
    start = weights(make())
    reference = model.reference(sync_every=3, sync_alpha=0.6)
    assert torch.equal(logprobs(reference, ragged), logprobs(model, ragged))
    learn(model, ragged, 2)
    assert_same(dict(reference.weights()), start)
    learn(model, ragged)
    merged = weights_merged(model)
    moved = 0
    for name, own in reference.weights().items():
        torch.testing.assert_close(own, 0.4 * start[name] + 0.6 * merged[name], rtol=1e-6, atol=1e-7)
        moved += not torch.equal(own, start[name])
    assert moved > 3
    assert not torch.allclose(logprobs(reference, ragged), logprobs(model, ragged), atol=1e-4)


def weights_merged(model):
    """W + alpha / rank B A of every adapted layer, from the adapters' own numbers."""
    found, scale = {}, model.lora.alpha / model.lora.rank
    layers = dict(model.network.named_modules())
    for name, parameter in model.network.named_parameters():
        if "lora_" in name:
            continue
        plain = name.replace(".base_layer", "")
        found[plain] = parameter.detach().clone()
        if plain != name:
            layer = layers[name.rpartition(".base_layer")[0]]
            found[plain] += scale * layer.lora_B["default"].weight.detach() @ layer.lora_A["default"].weight.detach()
    return found


def test_a_twin_on_the_same_weights_is_not_mixed_in(make, ragged):
    model = make(lora=Lora(rank=2), optimizer=QUICK)
    reference = model.reference(sync_every=1, sync_alpha=1.0)
    twin = model.twin(Optimization(lr=1e-1))
    learn(twin, ragged, 3)
    learn(model, ragged)
    learn(twin, ragged)  # whose adapters are the ones in use now
    torch.testing.assert_close(logprobs(reference, ragged), logprobs(model, ragged), rtol=1e-4, atol=1e-4)


# --- resuming


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
@pytest.mark.parametrize("stopped", [1, 2, 3])
def test_it_goes_on_exactly_with_the_model(make, ragged, lora, stopped):
    def begun():
        model = make(lora=lora, optimizer=QUICK)
        return model, model.reference(sync_every=2)

    whole, reference = begun()
    for step in range(5):
        if step == stopped:
            saved = _copied(whole.state_dict())
        learn(whole, ragged)
    again, other = begun()
    again.load_state_dict(saved)
    learn(again, ragged, 5 - stopped)
    assert_same(dict(other.weights()), dict(reference.weights()))
    assert torch.equal(logprobs(other, ragged), logprobs(reference, ragged))


def _copied(state):
    if isinstance(state, torch.Tensor):
        return state.clone()
    return {name: _copied(value) for name, value in state.items()} if isinstance(state, dict) else state


def test_a_model_that_is_only_examined_takes_the_checkpoint_without_its_reference(make, ragged):
    model = make(optimizer=QUICK)
    model.reference(sync_every=1)
    learn(model, ragged)
    alone = make()
    alone.load_state_dict(model.state_dict())
    assert torch.equal(logprobs(alone, ragged), logprobs(model, ragged))


def test_a_checkpoint_without_a_reference_is_refused_by_one_that_follows(make, ragged):
    model = make()
    saved = make().state_dict()
    model.reference(sync_every=1)
    with pytest.raises(InputError, match="does not hold the reference that follows the model"):
        model.load_state_dict(saved)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sync_every": 0}, "`sync_every` is 0; it must be 1 or more"),
        ({"sync_every": 1, "sync_alpha": 0.0}, "`sync_alpha` is 0.0; it must be above 0 and at most 1"),
        ({"sync_every": 1, "sync_alpha": float("nan")}, "`sync_alpha` is nan"),
        ({"sync_alpha": 1.5}, "`sync_alpha` is 1.5"),
    ],
)
def test_refused(make, settings, message):
    with pytest.raises(InputError, match=message):
        make().reference(**settings)
