"""A tiny float32 model, and rows of every kind."""

from __future__ import annotations

import pytest
import torch

from reckon.fit import Paired, Prefix, Stepwise, Unpaired
from reckon.models import LanguageModel, Optimization, Sampling, tiny
from reckon.types import Problem

TEXTS = ["2", "3 and more", "", "4\n5\n6", "7\n\n8", "9"]


@pytest.fixture
def make():
    """make(**settings) -> a float32 model on the CPU; its head, if it has one, is drawn at random."""

    def build(**settings) -> LanguageModel:
        network = tiny.make_network(width=32, heads=4, seed=3)
        with torch.no_grad():
            network.lm_head.weight.mul_(12)
        settings.setdefault("sampling", Sampling(max_new_tokens=12))
        settings.setdefault("optimizer", Optimization(lr=1e-3))
        model = LanguageModel(network, tiny.make_tokenizer(), dtype="float32", device="cpu", **settings)
        if model.head is not None:
            with torch.no_grad():
                model.head.weight.copy_(torch.randn(1, 32, generator=torch.Generator().manual_seed(1)) / 8)
        return model

    return build


@pytest.fixture
def problems() -> list[Problem]:
    return [Problem(id=f"p{i}", prompt=text) for i, text in enumerate(["1+1=", "a longer prompt: ", "x"])]


@pytest.fixture
def unpaired(problems) -> list[Unpaired]:
    """Six responses to three prompts, out of order; one was cut off."""
    labels = [1.0, 0.0, 0.0, 1.0, 0.25, 1.0]
    return [
        Unpaired(problem=problems[i % 3], text=text, label=label, ended=i != 1)
        for i, (text, label) in enumerate(zip(TEXTS, labels, strict=True))
    ]


@pytest.fixture
def paired(problems) -> list[Paired]:
    """Four pairs, two of them of one prompt."""
    return [
        Paired(problem=problems[0], chosen="2", rejected="3 and more", margin=0.5),
        Paired(problem=problems[1], chosen="4\n5", rejected="", ended=(False, True)),
        Paired(problem=problems[0], chosen="two", rejected="9"),
        Paired(problem=problems[2], chosen="long answer", rejected="no", margin=1.0),
    ]


@pytest.fixture
def stepwise(problems) -> list[Stepwise]:
    return [
        Stepwise(problem=problems[0], steps=("1\n", "2\n", "3"), labels=(1.0, 0.0, None)),
        Stepwise(problem=problems[1], steps=("ab\n", "c"), labels=(0.75, 0.25), ended=False),
        Stepwise(problem=problems[0], steps=("5",), labels=(1.0,)),
    ]


@pytest.fixture
def prefixes(problems) -> list[Prefix]:
    """Of two traces; the second's second step begins with what the first's does not."""
    return [
        Prefix(problem=problems[0], text="", q=0.25),
        Prefix(problem=problems[0], text="1\n", q=0.5),
        Prefix(problem=problems[0], text="1\n2\n", q=1.0),
        Prefix(problem=problems[1], text="ab", q=0.0),
        Prefix(problem=problems[0], text="3\n", q=0.0),
    ]
