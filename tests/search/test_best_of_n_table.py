"""The table of choices: every cell by hand on two problems, and what must hold in any."""

import json
import math

import numpy as np
import pytest

from reckon.errors import InputError
from reckon.evaluate import vote_of_n
from reckon.search import best_of_n_table, table_sizes
from reckon.types import Rng

NAN = math.nan
# Problem 7: right answers a at places 0 and 2; problem 3: a single right answer of three, one outcome unknown.
GROUP = [7, 7, 7, 7, 3, 3, 3, 3]
OUTCOME = [1, 0, 1, 0, 0, 0, 1, NAN]
ANSWERS = ["a", "b", "a", None, "x", "x", "y", "z"]
GOOD = [3, 2, 1, 0, -1, -2, 4, 9]  # ranks a, b, a, none and y, x, x
TABLE = {"group": GROUP, "outcome": OUTCOME, "answers": ANSWERS}


def curve(table, way, signal=None):
    (found,) = [c for c in table.curves if (c.way, c.signal) == (way, signal)]
    return found


def test_every_cell_by_hand():
    table = best_of_n_table(**TABLE, scores={"good": GOOD}, n=[1, 2, 3, 4])
    assert (table.n, table.problems, table.responses, table.unknown) == ((1, 2, 3, 4), (2, 2, 2, 1), 7, 1)
    # problem 7: 1/2 for any N; problem 3: 1/3; N = 4 has problem 7 alone
    assert curve(table, "pass@1").accuracy == pytest.approx([5 / 12, 5 / 12, 5 / 12, 1 / 2])
    # 7: best of two of (1, 0, 1, 0 in order): 0 wins 3 of 6 pairs (right), 1 wins 2 (wrong), 2 wins 1 (right): 4/6
    # of three: 0 wins 3 of 4, 1 wins the last. Problem 3: y wins 2 of 3 pairs
    assert curve(table, "best of N", "good").accuracy == pytest.approx([5 / 12, 2 / 3, (3 / 4 + 1) / 2, 1.0])
    # 1 - C(2,2)/C(4,2) = 5/6 and 1 - C(2,2)/C(3,2) = 2/3
    assert curve(table, "oracle").accuracy == pytest.approx([5 / 12, (5 / 6 + 2 / 3) / 2, 1.0, 1.0])
    # 7: of the pairs ab aa a- ba b- a- ties count half: 1/2 1 1 1/2 0 1, 4/6; of aba ab- aa- ba-: 1 1/2 1 1/2, 3/4
    # 3 (y is right): of the pairs xx xy xy 0 1/2 1/2, 1/3; of xxy: x
    assert curve(table, "majority vote").accuracy == pytest.approx([5 / 12, (4 / 6 + 1 / 3) / 2, (3 / 4) / 2, 1.0])
    # 7 weighs a .95, b .88, a .73, none: the same winners. 3 weighs x .27, x .12, y .98: of the pairs x y y, of three y
    assert curve(table, "weighted vote", "good").accuracy == pytest.approx([5 / 12, 2 / 3, (3 / 4 + 1) / 2, 1.0])


def test_gains_and_errors_are_taken_problem_by_problem():
    table = best_of_n_table(**TABLE, scores={"good": GOOD}, n=[2])
    found = curve(table, "best of N", "good")
    gains = [4 / 6 - 1 / 2, 2 / 3 - 1 / 3]
    assert found.gain == pytest.approx([np.mean(gains)])
    assert found.gain_error == pytest.approx([np.std(gains, ddof=1) / math.sqrt(2)])
    assert found.error == pytest.approx([0.0], abs=1e-12)


def test_one_is_pass_at_1_for_every_way_that_must_answer_and_nothing_beats_the_oracle():
    random = np.random.default_rng(0)
    group, answers = np.repeat(np.arange(20), 8), random.choice(list("abcd"), 160).tolist()
    outcome = [float(answer == "a") for answer in answers]
    scores = {"noise": random.normal(size=160), "tied": random.integers(0, 2, 160)}
    table = best_of_n_table(group, outcome, answers, scores)
    assert table.n == (1, 2, 4, 8)
    oracle = np.array(curve(table, "oracle").accuracy)
    for found in table.curves:
        assert found.accuracy[0] == pytest.approx(np.mean(outcome))
        assert (np.array(found.accuracy) <= oracle + 1e-12).all()
    # a constant score is no score: every N is pass@1
    flat = best_of_n_table(group, outcome, answers, {"flat": np.zeros(160)})
    assert curve(flat, "best of N", "flat").accuracy == pytest.approx([np.mean(outcome)] * 4)
    # and weights that are all equal are the majority's
    assert curve(flat, "weighted vote", "flat").accuracy == curve(flat, "majority vote").accuracy


def test_costs_scales_and_what_has_no_score():
    table = best_of_n_table(
        **TABLE,
        scores={"p": [0.5, NAN, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], "raw": GOOD},
        scale={"p": None, "raw": 0.5},
        n=[1, 4],
        generated=[10] * 7 + [1000],
        scored={"raw": [20] * 7 + [0]},
    )
    assert (curve(table, "weighted vote", "p").scale, curve(table, "weighted vote", "raw").scale) == (None, 0.5)
    assert (table.generated, curve(table, "best of N", "raw").scored) == (10, 20)
    assert curve(table, "best of N", "p").scored is None
    assert table.missing == {"p": pytest.approx(1 / 7), "raw": 0}
    text = table.markdown()
    assert "weighted vote: raw, scale 0.5 |" in text
    assert "| *generated tokens* | 10 | 40 |" in text
    assert "p has no score for 14.3% of them." in text
    assert "left out as unknown: 1" in text
    assert json.loads(json.dumps(table.to_json(), allow_nan=False))["curves"][0]["way"] == "pass@1"
    assert table.to_json()["curves"][0]["error"][1] is None  # one problem has no standard error


def test_probabilities_vote_as_they_are_and_rank_as_they_are():
    """b (right) weighs .7 against a's .3 + .3, under a sigmoid .67 against 1.15; the best score is b's either way."""
    rows = {"group": [0, 0, 0], "outcome": [0, 0, 1], "answers": ["a", "a", "b"], "n": [3]}
    chances = [0.3, 0.3, 0.7]
    table = best_of_n_table(**rows, scores={"p": chances, "raw": np.log([3 / 7, 3 / 7, 7 / 3])})
    voted = curve(table, "weighted vote", "p")
    assert (voted.name, voted.scale, voted.accuracy) == ("weighted vote: p, scale none", None, (1.0,))
    # The same chances as logits: their sigmoid is the chance.
    assert (curve(table, "weighted vote", "raw").scale, curve(table, "weighted vote", "raw").accuracy) == (1, (1.0,))
    squeezed = best_of_n_table(**rows, scores={"p": chances}, scale=1.0)
    assert curve(squeezed, "weighted vote", "p").accuracy == (0.0,)
    for found in (table, squeezed):
        assert curve(found, "best of N", "p").accuracy == (1.0,)
        assert curve(found, "best of N", "p").scale is None


def test_its_votes_are_those_of_the_signal_bench():
    """Of C(12, 6) = 924 subsets 256 are drawn, in the bench and here by one function under one name."""
    random = np.random.default_rng(1)
    group, answers = np.repeat([3, 8], 12), random.choice(list("abc"), 24).tolist()
    outcome = np.array([float(answer == "a") for answer in answers])
    table = best_of_n_table(group, outcome, answers, {}, n=[6], seed=5)
    voted = [
        vote_of_n(answers[place : place + 12], outcome[place : place + 12], 6, Rng((5, "signals", "vote", 6, number)))
        for place, number in ((0, 3), (12, 8))
    ]
    assert voted[0] != voted[1]
    assert curve(table, "majority vote").accuracy == (np.mean(voted),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": [NAN] * 8}, "none of 8 responses has a known outcome"),
        ({"answers": ["a"]}, "`answers` is of shape"),
        ({"scores": {"good": [1.0]}}, "scores"),
        ({"n": [5]}, "from 1 to 4"),
        ({"n": [2, 1]}, "ascending"),
        ({"n": []}, "ascending"),
        ({"scale": {"god": 1.0}}, "`scale` names"),
        ({"scored": {"god": [1] * 8}}, "`scored` names"),
        ({"generated": [1]}, "`generated` is of shape"),
        ({"scale": {"good": None}}, "Give a scale"),
    ],
)
def test_input_that_does_not_fit(change, message):
    with pytest.raises(InputError, match=message):
        best_of_n_table(**{**TABLE, "scores": {"good": GOOD}, **change})


def test_its_sizes_are_known_before_anything_is_scored():
    group, outcome = TABLE["group"], TABLE["outcome"]
    assert table_sizes(group, outcome) == best_of_n_table(**{**TABLE, "n": None}, scores={}).n
    assert table_sizes(group, outcome, [1, 3]) == (1, 3)
    for n, known, says in (
        ([1, 5], outcome, "from 1 to 4"),
        (None, [NAN] * 8, "none of 8 responses has a known outcome"),
    ):
        with pytest.raises(InputError, match=says):
            table_sizes(group, known, n)


def test_the_table_without_any_signal():
    table = best_of_n_table(**TABLE, scores={})
    assert [found.name for found in table.curves] == ["pass@1", "majority vote", "oracle"]
