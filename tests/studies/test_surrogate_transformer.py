r"""The five ways to write a sum, the arms' rewards by hand, and the rules of the study."""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reckon.errors import InputError
from reckon.recipe import Recipe
from reckon.studies import _boxed_sums as sums
from reckon.studies import judge, run_study, surrogate_transformer
from reckon.types import Batch, End, Problem, Rng, Rollouts, Sequences

SUM = Problem(id="345", prompt="3+4+5=", answer="12")
CLEAN = r"3+4=7;7+5=12;\boxed{12}"
SECOND = CLEAN + "\n" + r"2+8+1=2+8=10;10+1=11;\boxed{11}"
BARE = "3+4=7;7+5=12"
ENDLESS = "3+4=7;" * 10 + "3+4="


def drawn(way, n=400, **settings):
    return [sums.written(SUM, way, np.random.default_rng(i), **settings) for i in range(n)]


def test_splits_share_no_sum_and_another_seed_has_others():
    task = sums.BoxedSums(seed=3)
    splits = {split: {problem.id for problem in task.problems(split)} for split in ("train", "dev", "test")}
    assert [len(ids) for ids in splits.values()] == [700, 100, 200]
    assert len(set().union(*splits.values())) == 1000
    assert splits["test"] != {problem.id for problem in sums.BoxedSums(seed=4).problems("test")}
    for problem in task.problems("test"):
        a, b, c = map(int, problem.id)
        assert (problem.prompt, problem.answer) == (f"{a}+{b}+{c}=", str(a + b + c))


@pytest.mark.parametrize(("dev", "test"), [(500, 500), (-1, 5), (0, 1000)])
def test_splits_that_leave_nothing_are_refused(dev, test):
    with pytest.raises(InputError, match="leave some of the 1000 sums to train on"):
        sums.BoxedSums(dev=dev, test=test)


def test_the_ways_by_hand():
    assert set(drawn("clean", 5)) == {(CLEAN, True)}
    assert set(drawn("bare", 5)) == {(BARE, True)}
    assert set(drawn("endless", 5)) == {(ENDLESS, False)}
    assert len(ENDLESS) == sums.LIMIT
    for text, ended in drawn("second", 50):
        first, second = text.split("\n")
        assert (first, ended) == (CLEAN, True)
        prompt, response = re.fullmatch(r"(\d\+\d\+\d=)(.*)", second).groups()
        other = Problem(id="", prompt=prompt, answer=str(sum(map(int, re.findall(r"\d", prompt)))))
        assert sums.written(other, "clean", np.random.default_rng(0)) == (response, True)


def test_guesses_are_wrong_as_often_as_asked():
    right = np.mean([text == r"\boxed{12}" for text, _ in drawn("guess", 2000)])
    assert right == pytest.approx(0.4, abs=3 * math.sqrt(0.4 * 0.6 / 2000))
    numbers = {int(re.fullmatch(r"\\boxed\{(\d+)\}", text)[1]) for text, _ in drawn("guess", 2000)}
    assert numbers == set(range(28))


def test_who_cannot_add_is_shown_the_same_ways_with_numbers_of_chance():
    texts = [text for text, _ in drawn("clean", 4000, able=False)]
    steps = [re.fullmatch(r"3\+4=(\d+);\1\+5=(\d+);\\boxed\{\2\}", text) for text in texts]
    assert all(steps)
    first, last = ([int(step[i]) for step in steps] for i in (1, 2))
    assert set(first) == set(range(19))
    assert np.mean([n == 12 for n in last]) == pytest.approx(1 / 28, abs=3 * math.sqrt(1 / 28 / 4000))
    assert np.corrcoef(first, last)[0, 1] == pytest.approx(0, abs=3 / math.sqrt(4000))
    right = np.mean([text == r"\boxed{12}" for text, _ in drawn("guess", 4000, able=False)])
    assert right < 0.05  # never by knowledge


def way_of(text, ended):
    if not ended:
        return "endless"
    if "=" not in text:
        return "guess"
    return "second" if "\n" in text else "clean" if "boxed" in text else "bare"


def test_what_is_shown_has_the_shares_and_is_the_same_but_for_the_numbers():
    problems = sums.BoxedSums(seed=1).problems("train")[:50]
    able, not_able = (sums.shown(problems, 2000, sums.SHARES, Rng((5,)), able=able) for able in (True, False))
    ways = [way_of(text, ended) for text, ended in zip(*able[1:], strict=True)]
    assert ways == [way_of(text, ended) for text, ended in zip(*not_able[1:], strict=True)]
    assert able[0] == not_able[0]
    for way, share in sums.SHARES.items():
        assert ways.count(way) / 2000 == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / 2000))
    for turn in range(40):  # every problem once before any comes again, in an order of its own
        assert {p.id for p in able[0][50 * turn : 50 * turn + 50]} == {p.id for p in problems}
    assert able[0][:50] != able[0][50:100]
    assert able != sums.shown(problems, 2000, sums.SHARES, Rng((6,)))


def test_every_text_fits_with_its_end():
    """At most 25 characters for a sum, 7 for the other one's question and 25 for that one, and the end token."""
    worst = Problem(id="999", prompt="9+9+9=", answer="27")
    longest = max(len(sums.written(worst, "second", np.random.default_rng(i))[0]) for i in range(2000))
    assert 55 < longest <= 57
    assert len(worst.prompt) + sums.LIMIT < surrogate_transformer.CONTEXT


@pytest.mark.parametrize(
    ("text", "outcome", "working"),
    [
        (CLEAN, 1.0, True),
        (SECOND, 0.0, True),  # the last box counts
        (BARE, 0.0, True),
        (ENDLESS, 0.0, None),
        (r"\boxed{12}", 1.0, None),
        (r"3+4=8;8+5=13;\boxed{13}", 0.0, False),
        (r"3+4=8;8+5=12;\boxed{12}", 1.0, False),  # right by two errors
        (r"3+4=7;7+5=120", 0.0, None),
        (r"4+4=8;8+5=13;\boxed{12}", 1.0, False),  # another sum's working
        ("", 0.0, None),
    ],
)
def test_answers_and_working(text, outcome, working):
    assert sums.BoxedSums().check(SUM, text).outcome == outcome
    assert sums.working(SUM, text) is working


def test_working_that_repeats_is_right_where_the_sum_does():
    zeros = Problem(id="000", prompt="0+0+0=", answer="0")
    assert sums.working(zeros, r"0+0=0;0+0=0;\boxed{0}") is True


def batch_of(texts):
    """One response of each text; those of the limit's length are cut off."""
    lengths = torch.tensor([min(len(text) + 1, sums.LIMIT) for text in texts])
    mask = torch.arange(sums.LIMIT) < lengths[:, None]
    end = torch.tensor([int(End.LENGTH if len(text) >= sums.LIMIT else End.EOS) for text in texts])
    outcome = torch.tensor([sums.BoxedSums().check(SUM, text).outcome for text in texts])
    rollouts = Rollouts(
        seq=Sequences(
            prompts=(torch.zeros(6, dtype=torch.int64),),
            group=torch.zeros(len(texts), dtype=torch.int64),
            tokens=torch.zeros(mask.shape, dtype=torch.int64),
            mask=mask,
        ),
        problems=(SUM,),
        text=tuple(texts),
        pieces=tuple(tuple(text) for text in texts),
        logprobs=torch.zeros(mask.shape),
        end=end,
    )
    return Batch.given(rollouts, outcome, train=True)


@pytest.mark.parametrize(
    ("reward", "earned"),
    [
        # tokens with the end: 24, 56, 13, 11 and, cut off, 64; x = .375 .875 .203125 .171875 1
        ("correctness", [1, 0, 0, 0, 0]),
        ("format", [0.5, 0.5, 0, 0.5, 0]),
        # f = 1 - (1 - x / .5)^2 up to .5, 1 - 2 ((x - .5) / .5)^2 beyond: .9375, -.125, (no box), .5693359, -1
        ("format-length", [1.4375, 0.375, 0, 1.0693359, -1]),
        ("correctness+linear", [1.375, 0.875, 0.203125, 0.171875, 1]),
    ],
)
def test_what_each_way_earns(reward, earned):
    recipe = {
        "model": {"name": "smollm2-135m"},
        "task": {"kind": "chain_arithmetic"},
        "method": {"kind": "grpo"},
        "reward": surrogate_transformer.REWARDS[reward],
    }
    parts = Recipe.parse(json.dumps(recipe)).build(SimpleNamespace())
    streams = parts.reward.score(batch_of([CLEAN, SECOND, BARE, r"\boxed{13}", ENDLESS]))
    total = sum(stream.values for stream in streams.values() if stream.train)
    assert total.tolist() == pytest.approx(earned, abs=1e-6)


def test_fast_runs_end_to_end_and_arms_begin_alike(tmp_path):
    """And a cell depends on its settings and its seed alone."""
    study = surrogate_transformer
    results = run_study("surrogate-transformer", tmp_path, fast=True, seeds=[1])
    assert results["not run"] == []
    cells = [json.loads(path.read_text()) for path in (tmp_path / "cells").iterdir()]
    assert len(cells) == len(study.ARMS)
    begun = {True: set(), False: set()}
    for cell in cells:
        begun[study.ARMS[cell["arm"]]["able"]].add(tuple(cell["metrics"][f"{name}/0"] for name in study.LOOKED))
    assert [len(found) for found in begun.values()] == [1, 1]
    assert begun[True] != begun[False]
    first = next(cell["metrics"] for cell in cells if cell["arm"] == study.FORMAT)
    settings = {**study.ARMS[study.FORMAT], **study.STUDY.fast}
    known = {name: value for name, value in first.items() if value is not None}
    again, other = (study.cell(settings, seed).metrics for seed in (1, 2))
    assert {name: again[name] for name in known} == pytest.approx(known, rel=1e-5)  # a file has six digits
    assert {name: other[name] for name in known} != pytest.approx(known, rel=1e-5)


def made_up(good):
    """Numbers of every arm that the claims wish for, or the same for all of them."""
    study = surrogate_transformer
    start = {"accuracy": 0.5, "formatted": 0.8, "length": 30.0, "working": 0.9, "direct": 0.1, "commonest": 0.1}
    ends = {
        study.CORRECT: {"accuracy": 0.95, "formatted": 1.0, "length": 24.0},
        study.FORMAT: {"accuracy": 0.85, "formatted": 1.0, "length": 30.0},
        study.SURROGATE: {"accuracy": 0.2, "formatted": 1.0, "length": 26.0, "commonest": 0.9},
        study.CENTERED: {"accuracy": 0.94, "formatted": 1.0, "length": 24.0},
        study.LINEAR: {"accuracy": 0.6, "length": 50.0},
        study.BAD_FORMAT: {"accuracy": 0.5, "formatted": 1.0},
        study.BAD_SURROGATE: {"accuracy": 0.51, "formatted": 1.0},
    }
    arms = {}
    for arm in study.ARMS:
        end = start | (ends[arm] if good else {})
        arms[arm] = {f"{name}/0": value for name, value in start.items()}
        arms[arm] |= {f"{name}/{at}": value for name, value in end.items() for at in ("early", "end")}
    if not good:
        for arm in arms:
            arms[arm] |= {"accuracy/0": 0.3, "commonest/end": 0.9}
        arms[study.FORMAT]["accuracy/early"] = 0.3
    return arms


def test_the_rules_can_be_seen_and_can_fail():
    tested = [claim for claim in surrogate_transformer.CLAIMS if claim.effects]
    as_good = [claim.says.startswith("Format-length ends within") for claim in tested]
    hacked = [judge(claim, [made_up(True)] * 3, 3).verdict for claim in tested]
    assert hacked == ["not seen" if same else "seen" for same in as_good]
    equal = [judge(claim, [made_up(False)] * 3, 3).verdict for claim in tested]
    assert equal == ["seen" if same else "not seen" for same in as_good]
