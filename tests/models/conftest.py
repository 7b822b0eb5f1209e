"""A tiny network with random weights and every feature of a language model that the tests compare."""

from __future__ import annotations

import pytest
import torch

from reckon.models import LanguageModel, Sampling, tiny
from reckon.types import Problem, Sequences


@pytest.fixture
def make():
    """make(**settings) -> a float32 LanguageModel on the CPU whose laws are far from uniform."""

    def build(**settings) -> LanguageModel:
        network = tiny.make_network(width=32, heads=4, seed=3)
        with torch.no_grad():
            network.lm_head.weight.mul_(12)  # peaked, so that a wrong mask or position shows
        settings.setdefault("sampling", Sampling(max_new_tokens=12))
        return LanguageModel(network, tiny.make_tokenizer(), dtype="float32", device="cpu", **settings)

    return build


@pytest.fixture
def problems() -> list[Problem]:
    return [Problem(id=str(i), prompt=text) for i, text in enumerate(["1+1=", "a much longer prompt: ", "x"])]


@pytest.fixture
def ragged() -> Sequences:
    """Three prompts of other lengths, five responses of other lengths, one of them alone in its group."""
    generator = torch.Generator().manual_seed(0)
    prompts = tuple(torch.randint(3, 90, (n,), generator=generator) for n in (4, 9, 1))
    mask = torch.arange(6) < torch.tensor([6, 2, 1, 5, 3])[:, None]
    return Sequences(
        prompts=prompts,
        group=torch.tensor([0, 0, 1, 2, 2]),
        tokens=torch.randint(3, 90, (5, 6), generator=generator) * mask,
        mask=mask,
    )
