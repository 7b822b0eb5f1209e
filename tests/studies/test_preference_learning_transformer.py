"""E3's digits: aspects and labels by hand, what arms share, and both learners on a world of seconds."""

import json
import math

import numpy as np
import pytest

from reckon.errors import InputError
from reckon.recipe import Recipe
from reckon.studies import _digit_learn as learn
from reckon.studies import _digit_texts as texts
from reckon.studies import run_study
from reckon.studies.preference_learning_grid import LEVELS
from reckon.studies.preference_learning_transformer import ARMS, CLAIMS, DATA, STUDY, gap, spread_of_data
from reckon.types import Problem, Rng

SORT = Problem(id="s31724", prompt="s31724=", answer="12347.")


@pytest.mark.parametrize(
    ("text", "order", "content", "form", "brevity"),
    [
        ("12347.", 1, 1, 1, 1),
        ("12347", 1, 1, 0, 1),  # no full stop
        ("31724.", 0, 1, 1, 1),  # the right digits, not one in its place
        ("1234.", 4 / 5, 4 / 5, 1, 1),
        ("12347777.", 1, 5 / 8, 1, 6 / 9),  # three digits too many: five of eight, nine characters
        ("1.2347", 1, 1, 0, 1),
        ("", 0, 0, 0, 1),
        ("99999.", 0, 0, 1, 1),
    ],
)
def test_aspects_by_hand(text, order, content, form, brevity):
    found = texts.aspects(SORT, text)
    assert found == pytest.approx({"order": order, "content": content, "format": form, "brevity": brevity})
    assert texts.gold(SORT, text) == pytest.approx((order + content + form + brevity) / 4)


def test_problems_are_what_they_say():
    task = texts.DigitTexts(seed=3, train=400, dev=20, test=20)
    for problem in task.problems("train"):
        order, digits = problem.prompt[0], problem.prompt[1:-1]
        wanted = {"c": digits, "s": "".join(sorted(digits)), "r": "".join(reversed(digits))}[order]
        assert problem.answer == wanted + "."
        assert task.check(problem, problem.answer).outcome == 1
    ids = [{problem.id for problem in task.problems(split)} for split in ("train", "dev", "test")]
    assert [len(own) for own in ids] == [400, 20, 20]
    assert len(set.union(*ids)) == 440
    rest = texts.DigitTexts(seed=3, train=400, dev=20, test=20, skip=300)
    assert list(rest.problems("train")) == list(task.problems("train"))[300:]
    assert list(rest.problems("test")) == list(task.problems("test"))


@pytest.mark.parametrize(("settings", "says"), [({"skip": 7000}, "`skip` must leave one"), ({"dev": 0}, "each split")])
def test_sizes_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        texts.DigitTexts(**settings)
    with pytest.raises(InputError, match="there are 300000 problems"):
        texts.DigitTexts(train=300_000)


def test_who_errs_never_and_always():
    assert texts.sloppy(SORT, 0.0, Rng((0,))) == "12347."
    worst = [texts.sloppy(SORT, 1.0, Rng((i,))) for i in range(200)]
    assert all(6 <= len(text) <= 8 and "." not in text for text in worst)
    often = [texts.aspects(SORT, texts.sloppy(SORT, 0.3, Rng((i,)))) for i in range(1000)]
    assert np.mean([one["format"] for one in often]) == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 1000))


def test_labels_by_hand():
    """1234. has gold (0.8 + 0.8 + 1 + 1) / 4 = 0.9; the noise of four scores is averaged, that of one is not."""
    noise = np.array([1.0, -1.0, 2.0, 2.0])
    assert learn.labeled(SORT, "1234.", noise, "fine") == pytest.approx(0.9 + 0.1 * 1.0)
    assert learn.labeled(SORT, "1234.", noise, "overall") == pytest.approx(0.9 + 0.3 * 1.0)


SIZE = {"shown": 640, "passes": 1, "pairs": 48, "asked": 10}


@pytest.fixture(scope="module")
def world():
    return learn.make_world(learn.Size(**SIZE), 5)


def test_pairs_of_the_data_sets(world):
    pairs = {data: learn.draw_preferences(world, data) for data in DATA}
    problems = [problem.id for problem in world.task.problems("train")]
    assert all([pair.problem.id for pair in own] == problems for own in pairs.values())
    for fine, flipped, (one, other) in zip(pairs["fine"], pairs["flipped"], world.own, strict=True):
        assert {fine.chosen, fine.rejected} == {flipped.chosen, flipped.rejected} == {one, other}
        assert sorted(fine.ended) == sorted(flipped.ended)
    turned = [
        a.chosen != b.chosen for a, b in zip(pairs["fine"], pairs["flipped"], strict=True) if a.chosen != a.rejected
    ]
    assert 0.05 < np.mean(turned) < 0.6
    better = {
        data: np.mean([texts.gold(pair.problem, pair.chosen) - texts.gold(pair.problem, pair.rejected) for pair in own])
        for data, own in pairs.items()
    }
    assert better["fine"] > better["overall"]
    assert better["fine"] > better["flipped"]
    assert {pair.chosen for pair in pairs["off-policy"]} - {text for two in world.own for text in two}


def test_shown_problems_are_not_asked_again(world):
    whole = texts.DigitTexts(seed=5, train=SIZE["shown"] + SIZE["pairs"], dev=10, test=10)
    shown = {problem.id for problem in whole.problems("train")[: SIZE["shown"]]}
    assert not shown & {problem.id for split in ("train", "dev", "test") for problem in world.task.problems(split)}


def test_the_start_is_at_no_distance_from_itself(world):
    found = learn.measure(world, world.start.open(), "dev")
    assert found["KL"] == pytest.approx(0, abs=1e-5)
    assert found == learn.measure(world, world.reference, "dev")
    assert found["gold"] == pytest.approx(sum(found[name] for name in texts.ASPECTS) / 4)


def test_the_judge_has_learned_from_its_pairs(world):
    """More often than not it prefers what was chosen, of the pairs it has seen four times."""
    pairs = learn.draw_preferences(world, "fine")
    judge = learn.learn_reward(world, pairs)
    texts_of = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    ended = [over for pair in pairs for over in pair.ended]
    seq = judge.tokenize([pair.problem for pair in pairs for _ in range(2)], texts_of, ended)
    scores = judge.outputs(seq, ("scores",)).scores
    read = scores.gather(1, seq.mask.sum(dim=1, keepdim=True) - 1)[:, 0]
    assert (read[0::2] > read[1::2]).float().mean() > 0.5
    assert 0 <= learn.judge_accuracy(world, judge, "dev") <= 1


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """A `--fast` run of one seed, and what its cells found by arm."""
    folder = tmp_path_factory.mktemp("fast")
    results = run_study("preference-learning-transformer", folder, fast=True, seeds=[0])
    cells = [json.loads(path.read_text()) for path in (folder / "cells").iterdir()]
    return results, {cell["arm"]: cell for cell in cells}


def test_fast_runs_every_line(fast):
    assert all(set(STUDY.fast) <= set(arm) for arm in ARMS.values())
    assert not fast[0]["not run"]
    assert set(fast[1]) == set(ARMS)


def test_arms_begin_as_one_and_end_apart(fast):
    cells = list(fast[1].values())
    firsts = [{name: curve[0] for name, curve in cell["curves"].items()} for cell in cells]
    assert all(first == firsts[0] for first in firsts)
    assert len({cell["metrics"]["KL"] for cell in cells}) == len(ARMS)
    assert all(cell["curves"]["step"] == [0.0, 1.0] for cell in cells)


def test_rows_read_what_is_there(fast):
    for row in STUDY.rows:
        assert math.isfinite(fast[1][row.arm]["metrics"][row.metric])


def test_spread_and_gap_by_hand():
    golds = {"DPO": (0.8, 0.7, 0.75, 0.6), "PPO": (0.82, 0.72, 0.7, 0.66)}
    found = {
        f"{algorithm}, {data}": {"gold": value}
        for algorithm, values in golds.items()
        for data, value in zip(DATA, values, strict=True)
    }
    assert spread_of_data(found) == pytest.approx((0.2 + 0.16) / 2)
    assert gap(found) == pytest.approx((0.02 + 0.02 - 0.05 + 0.06) / 4)


def test_every_claim_reads_arms_there_are():
    names = ("gold", "gold at first", "accuracy", *(f"gold at {level:g} nats" for level in LEVELS))
    everything = {arm: dict.fromkeys(names, 0.5) for arm in ARMS}
    for claim in CLAIMS:
        assert all(math.isfinite(effect.of(everything)) for effect in claim.effects)


def test_the_task_can_be_named_in_a_recipe():
    recipe = Recipe.parse(f"{{model: tiny, task: {{kind: '{texts.__file__}:DigitTexts', seed: 4, skip: 10}}}}")
    assert recipe.made_task.problems("train")[0] == texts.DigitTexts(seed=4, skip=10).problems("train")[0]
