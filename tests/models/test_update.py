"""Passes over a batch: what the ratio of the first one must be."""

from __future__ import annotations

import pytest
import torch

from reckon.losses import ClippedRatio
from reckon.models import LanguageModel, Optimization, Sampling, tiny
from reckon.samplers import All, collect
from reckon.types import Credit, Problem, Rng, Verdict


class Three:
    """Poses the same three problems, of other lengths."""

    def draw(self, n, rng):
        return [Problem(id=str(i), prompt=text) for i, text in enumerate(["1+1=", "a longer prompt: ", "x"])]

    def learn(self, seen):
        return {}


@pytest.mark.parametrize("passes", [(1, 1), (2, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_nothing_learned_between_two_passes_is_a_ratio_of_exactly_one(dtype, level, passes):
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
    credit = Credit(advantages=mask * torch.linspace(-1, 1, 12)[:, None], weights=torch.ones(mask.shape), mask=mask)
    metrics = model.update(ClippedRatio(level=level, low=3e-4, high=4e-4), batch, credit, Rng((1,)))
    assert metrics["policy/steps"] == passes[0] * passes[1]
    assert metrics["policy/clip_fraction"] == 0
    assert metrics["policy/kl_sampled"] == 0
