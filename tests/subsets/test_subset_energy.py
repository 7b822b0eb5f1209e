"""Energies: the formulas written naively, invariances, padding, and the term that cancels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from set_functions import draws
from torch import nn

from reckon.errors import InputError
from reckon.subsets import MeanField, SetEnergy, mlp, sampled_gradient

CONTEXTS = ("none", "concat", "complement", "add")


def energy(context, hidden=8, **settings):
    torch.manual_seed(0)
    return SetEnergy(mlp(2, 8, 1, 6), 6, context=context, hidden=hidden, **settings)


def problem(b=3, n=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn((b, n, 2), generator=generator)
    rows = (torch.rand((b, 4, n), generator=generator) < 0.5).float()
    return features, torch.ones((b, n), dtype=torch.bool), rows


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_formula_one_subset_at_a_time(context):
    model, (features, mask, rows) = energy(context, scale=0.5), problem()
    found = model(features, mask, rows)
    for b in range(3):
        phi = [model.encoder(x[None])[0] for x in features[b]]
        whole = 0.5 * sum(phi)
        for r in range(4):
            inside = 0.5 * sum((p for p, on in zip(phi, rows[b, r], strict=True) if on), torch.zeros(6))
            outside = 0.5 * sum((p for p, on in zip(phi, rows[b, r], strict=True) if not on), torch.zeros(6))
            expected = {
                "none": lambda s, o, v: model.head(s),
                "concat": lambda s, o, v: model.head(torch.cat([s, v])),
                "complement": lambda s, o, v: model.head(s) + model.others(o),
                "add": lambda s, o, v: model.head(torch.relu(model.theta[0](s) + model.theta[1](v))),
            }[context](inside, outside, whole)
            torch.testing.assert_close(found[b, r], expected[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("context", CONTEXTS)
@given(seed=st.integers(0, 1000))
def test_order_does_not_matter(context, seed):
    model, (features, mask, rows) = energy(context), problem()
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        model(features[:, order], mask[:, order], rows[..., order]), model(features, mask, rows), rtol=1e-4, atol=1e-6
    )
    uniforms = draws(seed)((3, 4, 5, 5))
    field = MeanField(samples=4)
    with torch.no_grad():
        psi = field(model.on(features, mask), mask, lambda shape: uniforms)
        turned = field(model.on(features[:, order], mask), mask, lambda shape: uniforms[:, :, order][..., order])
    torch.testing.assert_close(turned, psi[:, order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("context", CONTEXTS)
def test_padding_adds_nothing_and_the_encoder_never_sees_it(context):
    model, (features, mask, rows) = energy(context), problem()
    padded = torch.cat([features, torch.full((3, 2, 2), float("nan"))], dim=1)
    more = torch.cat([mask, torch.zeros((3, 2), dtype=torch.bool)], dim=1)
    longer = torch.cat([rows, torch.ones((3, 4, 2))], dim=2)
    torch.testing.assert_close(model(padded, more, longer), model(features, mask, rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("context", ["concat", "complement", "add"])
def test_context_sees_the_rest_of_the_set_and_none_does_not(context):
    features, mask, rows = problem()
    rows[..., 4] = 0
    other = features.clone()
    other[:, 4] += 3  # an element outside of every subset
    wide = energy(context, hidden=64)  # of 8 units all may be off, and then nothing is seen at all
    with torch.no_grad():
        change = wide(other, mask, rows) - wide(features, mask, rows)
    assert float(change.abs().min()) > 1e-5
    same = energy("none")
    torch.testing.assert_close(same(other, mask, rows), same(features, mask, rows))


def test_a_term_of_the_whole_set_added_at_the_end_cancels():
    model, (features, mask, _) = energy("complement"), problem()
    pool, uniforms = model.on(features, mask), draws()((3, 4, 5, 5))
    term = 100 * features.square().sum(dim=(1, 2), keepdim=True)[..., 0]  # [B, 1]
    psi = torch.full((3, 5), 0.5)
    plain = sampled_gradient(pool, psi, uniforms).sigmoid()
    added = sampled_gradient(lambda rows: pool(rows).double() + term.double(), psi, uniforms).sigmoid()
    torch.testing.assert_close(added.float(), plain, rtol=0, atol=1e-6)


def test_one_set_of_one_element_keeps_its_axes():
    found = energy("complement")(torch.zeros((1, 1, 2)), torch.ones((1, 1), dtype=torch.bool), torch.ones((1, 3, 1)))
    assert found.shape == (1, 3)


def test_any_encoder_will_do():
    """A convolution on pictures, with gradients for its weights."""
    picture = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 6))
    model = SetEnergy(picture, 6)
    found = model(torch.randn((2, 3, 1, 4, 4)), torch.tensor([[True] * 3, [True, True, False]]), torch.ones((2, 1, 3)))
    found.sum().backward()
    assert found.shape == (2, 1)
    assert float(picture[0].weight.grad.abs().max()) > 0


def test_input_that_does_not_fit():
    with pytest.raises(InputError, match="the width that was set, 7"):
        SetEnergy(nn.Linear(2, 6), 7)(torch.zeros((1, 2, 2)), torch.ones((1, 2), dtype=torch.bool), torch.ones(1, 1, 2))
    with pytest.raises(InputError, match="one of none, concat, complement, add"):
        SetEnergy(nn.Identity(), 2, context="all")
    for settings in ({"scale": 0.0}, {"scale": float("nan")}, {"hidden": 0}, {"layers": -1}):
        with pytest.raises(InputError, match="at least 1"):
            SetEnergy(nn.Identity(), 2, **settings)
