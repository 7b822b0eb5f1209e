"""Balancing, pairs out of scored responses, calibration: counts and numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.errors import InputError
from reckon.fit import (
    OutcomeBCE,
    Preference,
    Scored,
    StepRewards,
    Unpaired,
    balanced,
    by_problem,
    fitting,
    pairs,
    read_examples,
    read_logits,
    recalibrate,
)
from reckon.fit._draw import thinned
from reckon.types import Problem, Rng

P, Q = Problem(id="p", prompt="1"), Problem(id="q", prompt="2")


def rows(problem, labels):
    return [Unpaired(problem=problem, text=f"{i}", label=label) for i, label in enumerate(labels)]


def test_balancing_over_the_data_set_and_by_prompt():
    """p: 3 right, 1 wrong; q: 2 wrong. In all 3 : 3. By prompt 1 : 1 of p, and q vanishes."""
    found = rows(P, [1, 1, 0, 1]) + rows(Q, [0, 0])
    assert balanced(found, "none", Rng((0,))) == found
    assert balanced(found, "dataset", Rng((0,))) == found
    by_prompt = balanced(found, "instruction", Rng((0,)))
    assert [row.problem.id for row in by_prompt] == ["p", "p"]
    assert sorted(row.label for row in by_prompt) == [0, 1]
    more = balanced(found + rows(Q, [0.6]), "dataset", Rng((0,)))  # 4 right, 3 wrong
    assert [sum(row.label >= 0.5 for row in more), len(more)] == [3, 6]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 5))
def test_fewer_rows_are_part_of_more_rows(drawn, seed):
    """In order, whole prompts, at most so many of each; what a smaller number keeps, a larger one keeps too."""
    found = [Unpaired(problem=Problem(id=str(i), prompt=str(i)), text=str(n)) for n, i in enumerate(drawn)]
    count = {i: drawn.count(i) for i in set(drawn)}
    before = set()
    for share in (0.01, 0.25, 0.5, 1.0):
        kept = thinned(found, Rng((seed,)), prompts=share)
        left = {int(row.problem.id) for row in kept}
        assert len(left) == max(1, round(share * len(count)))
        assert kept == [row for row in found if int(row.problem.id) in left]
        assert before <= left
        before = left
    texts = set()
    for most in (1, 2, 8):
        kept = thinned(found, Rng((seed,)), responses=most)
        assert [int(row.text) for row in kept] == sorted(int(row.text) for row in kept)
        assert all(sum(row.problem.id == str(i) for row in kept) == min(most, n) for i, n in count.items())
        assert texts <= {row.text for row in kept}
        texts = {row.text for row in kept}
    one, other = thinned(found, Rng((seed,)), prompts=0.5), thinned(found, Rng((seed,)), responses=2)
    both = thinned(found, Rng((seed,)), prompts=0.5, responses=2)
    assert both == [row for row in found if row in one and row in other]


def test_which_rows_stay_is_drawn():
    found = rows(P, [1] * 30)
    kept = [thinned(found, Rng((seed,)), responses=3) for seed in range(4)]
    assert len({tuple(row.text for row in one) for one in kept}) == 4
    assert kept[0] == thinned(found, Rng((0,)), responses=3)


def test_balancing_that_leaves_nothing_and_rows_without_labels_are_refused():
    with pytest.raises(InputError, match="balancing by instruction leaves no row"):
        balanced(rows(P, [1]) + rows(Q, [0]), "instruction", Rng((0,)))
    with pytest.raises(InputError, match="'p' has no label"):
        balanced([Unpaired(problem=P, text="1")], "dataset", Rng((0,)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30), st.integers(0, 5))
def test_balance_is_a_balance(drawn, seed):
    problems = [Problem(id=str(i), prompt=str(i)) for i in range(4)]
    found = [Unpaired(problem=problems[i], text="x", label=float(right)) for i, right in drawn]
    for how in ("dataset", "instruction"):
        try:
            kept = balanced(found, how, Rng((seed,)))
        except InputError:
            continue
        assert sum(row.label for row in kept) * 2 == len(kept)


def scored(scores, problem=P):
    return Scored(problem=problem, texts=tuple("abcdefgh"[: len(scores)]), scores=tuple(scores))


def test_the_cross_product():
    """2 right and 2 wrong make 4 pairs; equal scores make none."""
    found = pairs([scored([1, 0, 1, 0])], Rng((0,)), higher_is_better=True)
    assert {(pair.chosen, pair.rejected) for pair in found} == {("a", "b"), ("a", "d"), ("c", "b"), ("c", "d")}
    assert all(pair.margin is None for pair in found)


def test_lower_may_be_better():
    found = pairs([scored([3, 1])], Rng((0,)), higher_is_better=False, margins=True)
    assert [(pair.chosen, pair.rejected, pair.margin) for pair in found] == [("b", "a", 2)]


def test_a_cap_limits_each_problem_alone():
    """4 x 4 = 16 pairs and 7 x 1 = 7, both capped at 5."""
    groups = [scored([1, 1, 1, 1, 0, 0, 0, 0]), scored([1, 0, 0, 0, 0, 0, 0, 0], Q)]
    found = pairs(groups, Rng((0,)), higher_is_better=True, cap=5)
    assert [pair.problem.id for pair in found] == ["p"] * 5 + ["q"] * 5
    assert len({(pair.chosen, pair.rejected) for pair in found[:5]}) == 5
    assert found != pairs(groups, Rng((1,)), higher_is_better=True, cap=5)


def test_the_best_against_a_random_worse_one():
    groups = [scored([0.2, 0.9, 0.5])] * 40
    found = pairs(groups, Rng((0,)), higher_is_better=True, how="best_vs_random", margins=True)
    assert {pair.chosen for pair in found} == {"b"}
    assert {pair.rejected for pair in found} == {"a", "c"}
    assert {round(pair.margin, 3) for pair in found} == {0.7, 0.4}
    assert pairs([scored([1, 1])], Rng((0,)), higher_is_better=True, how="best_vs_random") == []


def test_equal_texts_make_no_pair():
    same = Scored(problem=P, texts=("a", "a"), scores=(1.0, 0.0))
    assert pairs([same], Rng((0,)), higher_is_better=True) == []


def test_a_cut_off_response_stays_flagged_in_its_pairs():
    found = replace(scored([1, 0]), ended=(False, True))
    assert pairs([found], Rng((0,)), higher_is_better=True)[0].ended == (False, True)


def test_labelled_rows_gathered_by_prompt():
    found = by_problem([*rows(P, [1, 0]), *rows(Q, [1]), Unpaired(problem=P, text="x")])
    assert [(group.problem.id, group.scores) for group in found] == [("p", (1, 0)), ("q", (1,))]


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="`cap` is 0"):
        pairs([], Rng((0,)), higher_is_better=True, cap=0)
    with pytest.raises(InputError, match="one score for each of its 2 responses"):
        Scored(problem=P, texts=("a", "b"), scores=(1.0,))


def test_calibration_finds_the_temperature_and_bias_that_made_the_targets():
    """Targets are sigmoid(logit / 2 - 1): soft labels without noise have one best fit."""
    logits = torch.linspace(-6, 6, 50)
    found = recalibrate(logits, torch.sigmoid(logits / 2 - 1))
    assert found.temperature == pytest.approx(2.0, abs=1e-4)
    assert found.bias == pytest.approx(-1.0, abs=1e-4)
    torch.testing.assert_close(found(logits), torch.sigmoid(logits / 2 - 1), atol=1e-5, rtol=0)


def test_calibration_undoes_the_tilt_of_balanced_sampling():
    """10 % are right. Balanced sampling adds log 9 to every logit; the bias takes it back."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, generator=generator) * 2 - 3
    targets = (torch.rand(4000, generator=generator) < truth.sigmoid()).float()
    found = recalibrate(truth + torch.log(torch.tensor(9.0)), targets)
    assert found.bias == pytest.approx(-2.197 / found.temperature, abs=0.25)
    assert found.temperature == pytest.approx(1.0, abs=0.15)
    assert float(found(truth + torch.log(torch.tensor(9.0))).mean()) == pytest.approx(float(targets.mean()), abs=1e-4)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        ([0.0], [1.0], "got 1 rows"),
        ([0.0, 1.0], [1.0, 1.0], "rows of both kinds"),
        ([0.0, 1.0, 2.0], [1.0, 0.4, 0.0], "higher scores are not right more often"),
        ([0.0, 1.0, 2.0], [0.25, 0.25, 0.25], "with a mean of 0.25, all alike"),
        ([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 1.0, 0.0], "higher scores are not right more often"),
        ([1.0, 1.0, 1.0], [0.0, 0.5, 0.25], "higher scores are not right more often"),
        ([0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 1.0, 1.0], "tells right from wrong without an error in 4 rows"),
        ([0.0, 1.0, 1.0, 3.0], [0.0, 0.0, 1.0, 1.0], "tells right from wrong without an error in 4 rows"),
        ([0.0, 1.0, 1.0, 3.0], [0.0, 0.5, 0.25, 1.0], "tells right from wrong without an error in 4 rows"),
    ],
)
def test_calibration_that_cannot_be_is_refused(logits, targets, message):
    with pytest.raises(InputError, match=message):
        recalibrate(torch.tensor(logits), torch.tensor(targets))


def test_logits_to_calibrate_are_read_at_labelled_places(make, unpaired):
    model = make(value_head=True)
    logits, targets = read_logits(model, unpaired, OutcomeBCE())
    assert logits.shape == (6,)
    assert sorted(targets.tolist()) == [0.0, 0.0, 0.25, 1.0, 1.0, 1.0]


def test_words_that_are_no_choice_are_refused(make, unpaired):
    for call in (
        lambda: balanced(unpaired, "datset", Rng((0,))),
        lambda: pairs([], Rng((0,)), higher_is_better=True, how="crss"),
        lambda: Preference(kind="dop"),
        lambda: StepRewards(how="cee"),
        lambda: read_examples([], "unpared"),
        lambda: read_examples([], "unpaired", on_bad="dorp"),
        lambda: fitting(make(), unpaired, "dorp"),
    ):
        with pytest.raises(InputError, match=r"` is '\w+', but must be one of: "):
            call()
