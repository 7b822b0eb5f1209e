"""The page of the adapters: its examples run, and every key it translates is there."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import inspect
import re
from pathlib import Path

import pytest

from reckon.methods import METHODS
from reckon.models import Lora, Optimization, Sampling, load_model
from reckon.recipe import KINDS
from reckon.types import Refill

PAGE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
TRL_TABLES = ("GRPOConfig", "RLOOConfig", "SFTConfig", "RewardConfig", "DPOConfig", "KTOConfig", "PRMConfig")
VERL_TABLES = ("actor_rollout_ref", "critic", "algorithm", "reward and data", "trainer")


def rows(title: str) -> list[tuple[list[str], str]]:
    """Of the table under a heading: the code spans of the first cell, and the second cell."""
    section = PAGE.split(f"\n### {title}\n")[1].split("\n##")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert lines
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(row) == 3 for row in cells), [row for row in cells if len(row) != 3]
    return [(re.findall(r"`([^`]+)`", first), second) for first, second, _ in cells]


def kind(role: str, name: str) -> object:
    module, _, made = KINDS[role][name].partition(":")
    return getattr(importlib.import_module(module), made)


def settings_of(owner: str) -> set[str]:
    """The settings that a section of a recipe, or a part of a role, may have."""
    from reckon.recipe._schema import Evaluate, Frame, Save, SyncReference, Warmup

    one = {
        "model": load_model,
        "model.lora": Lora,
        "sampling": Sampling,
        "optimizer": Optimization,
        "refill": Refill,
        "evaluate": Evaluate,
        "save": Save,
        "warmup": Warmup,
        "sync_reference": SyncReference,
    }
    if owner in one:
        return set(inspect.signature(one[owner]).parameters) - {"sampling", "optimizer", "value_head", "total"}
    if owner == "critic":
        return settings_of("model") | {"optimizer"}
    if owner in ("critic.optimizer", "critic.lora"):
        return settings_of({"critic.optimizer": "optimizer", "critic.lora": "model.lora"}[owner])
    if owner == "advantage.learn":
        return set(inspect.signature(kind("objective", "value_loss")).parameters)
    if owner == "":
        return {f.name for f in dataclasses.fields(Frame)}
    if owner == "method":
        return {name for make in METHODS.values() for name in inspect.signature(make).parameters} - {"task"}
    if owner == "fit":
        from reckon.fit import Settings

        return {f.name for f in dataclasses.fields(Settings)}
    role = owner.removesuffix(".NAME")
    found = {name for k in KINDS[role] for name in inspect.signature(kind(role, k)).parameters}
    return found | ({"kind", "weight", "watch"} if role == "reward" else set())


def resolves(span: str) -> bool:
    """Whether a code span of the second column names something that is there."""
    if span.startswith("fit "):
        from reckon.fit import KINDS as FITS

        return span.removeprefix("fit ") in FITS
    if ": " in span:
        role, _, name = span.partition(": ")
        return name in (METHODS if role == "method" else KINDS[role])
    if span.startswith("reckon."):
        module, _, name = span.rpartition(".")
        return hasattr(importlib.import_module(module), name)
    owner, _, name = span.rpartition(".")
    return name in settings_of(owner)


@pytest.mark.parametrize("title", TRL_TABLES + VERL_TABLES)
def test_every_key_of_ours_is_there(title):
    for first, second in rows(title):
        spans = re.findall(r"`([^`]+)`", second)
        assert spans or second == "-", first
        for span in spans:
            assert resolves(span), f"{title}, {first}: `{span}` is not there"


def test_keys_that_are_not_there_are_seen():
    assert not resolves("optimizer.gama")
    assert not resolves("critic.sampling")
    assert not resolves("critic.optimizer.gama")
    assert not resolves("advantage.learn.low")
    assert not resolves("keep: drop_evrything")
    assert not resolves("answer")


@pytest.mark.parametrize("title", [name for name in TRL_TABLES if name != "PRMConfig"])
def test_every_key_of_trls_is_there_and_none_is_left_out(title):
    """Of what TRL adds to transformers' TrainingArguments every key is translated; of those, some."""
    trl = pytest.importorskip("trl", reason="TRL is not installed (extra `bench`)")
    transformers = pytest.importorskip("transformers")
    config = getattr(trl, title)
    have = {field.name for field in dataclasses.fields(config)}
    named = [key for keys, _ in rows(title) for key in keys]
    assert len(set(named)) == len(named)
    for key in named:
        assert any(fnmatch.fnmatchcase(name, key) for name in have), f"{title} has no `{key}`"
    usual = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    left = [name for name in sorted(have - usual) if not any(fnmatch.fnmatchcase(name, key) for key in named)]
    assert not left


BLOCKS = PAGE.split("```python\n")[1:]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_examples_run(number, capsys):
    exec(compile(BLOCKS[number].split("```")[0], f"adapters.md, example {number + 1}", "exec"), {})
    assert "nan" not in capsys.readouterr().out


def test_the_numbers_of_the_first_example_are_right(capsys):
    """The right answer: 1, and 8 tokens of 16 are the peak of the length reward, 1. The other: 0 - (12 - 8) / 8."""
    exec(BLOCKS[0].split("```")[0], {})
    assert capsys.readouterr().out.strip() == "[2.0, -0.5]"
