"""Choosing k of N responses of a rollout table: by hand, and against top-k and random where the answer is planted."""

import math

import numpy as np
import pyarrow as pa
import pytest

from reckon.errors import InputError
from reckon.subsets import (
    Greedy,
    SubsetSelector,
    Training,
    candidates,
    choose_responses,
    compare_choices,
)

# Problem q stands at rows 1, 3, 4 (row 3 of unknown worth), problem p at the others.
TABLE = pa.table(
    {
        "problem": ["p", "q", "p", "q", "q", "p"],
        "text": list("abcdef"),
        "outcome": pa.array([1.0, 0.0, 0.5, None, 1.0, 0.25], pa.float32()),
        "correct": [True, False, True, None, True, False],
    }
)
FEATURES = np.array([[0.0], [5.0], [1.0], [9.0], [7.0], [0.5]])


def test_a_table_becomes_a_set_for_each_problem():
    pool = candidates(TABLE, FEATURES, worth="outcome", share=0.5)
    assert pool.problems == ("p", "q")
    assert pool.rows.tolist() == [[0, 2, 5], [1, 4, -1]]
    assert pool.worth.tolist() == [[1.0, 0.5, 0.25], [0.0, 1.0, 0.0]]
    assert (pool.height, pool.unknown) == (6, 1)
    assert pool.sets.features[..., 0].tolist() == [[0.0, 1.0, 0.5], [5.0, 7.0, 0.0]]
    assert pool.sets.mask.tolist() == [[True] * 3, [True, True, False]]
    # the better half, rounded up: rows 0 and 2 of p, apart from each other; row 4 of q
    assert pool.sets.chosen.tolist() == [[True, True, False], [False, True, False]]
    plain = candidates(TABLE, FEATURES)
    assert plain.rows.tolist() == [[0, 2, 5], [1, 3, 4]]
    assert plain.worth is plain.sets.chosen is None
    assert candidates(TABLE, FEATURES, worth="correct").worth.tolist() == [[1, 1, 0], [0, 1, 0]]


def test_the_largest_numbers_and_random_ones_of_every_problem():
    pool = candidates(TABLE, FEATURES)
    numbers = [0.1, 5.0, 0.3, math.nan, 5.0, 0.3]
    assert choose_responses(pool, 1, numbers).tolist() == [False, True, True, False, False, False]  # ties to the first
    assert choose_responses(pool, 2, numbers).tolist() == [False, True, True, False, True, True]  # nan last
    assert choose_responses(pool, 9, numbers).all()
    counts = np.zeros(6)
    for seed in range(600):
        found = choose_responses(pool, 1, "random", seed=seed)
        assert found[[0, 2, 5]].sum() == found[[1, 3, 4]].sum() == 1
        counts += found
    assert counts == pytest.approx([200] * 6, abs=5 * math.sqrt(600 * 2 / 9))
    assert (choose_responses(pool, 1, "random") == choose_responses(pool, 1, "random")).all()
    assert TABLE.filter(pa.array(choose_responses(pool, 1, numbers)))["text"].to_pylist() == ["b", "c"]


def test_choices_are_measured_by_hand():
    pool = candidates(TABLE, FEATURES, worth="outcome", share=0.5)
    found = compare_choices(
        pool,
        {"some": [True, False, False, False, True, False], "others": [False, True, False, False, False, True]},
    )
    some, others = found
    assert (some.way, some.responses, others.responses) == ("some", 2, 2)
    assert some.worth == pytest.approx((1.0, 0.0))  # 1 and 1
    assert others.worth == pytest.approx((0.125, 0.125))  # .25 and 0
    # p: squared distances .25, .25, 1, median .25; wanted are 0 and 1, chosen 0: (1 + e^-4) / 2. q: wanted 7, chosen 7
    assert some.coverage[0] == pytest.approx(((1 + math.exp(-4)) / 2 + 1) / 2)
    # p: chosen .5: e^-1 for both. q: median 4, wanted 7, chosen 5: e^-1
    assert others.coverage == pytest.approx((math.exp(-1), 0.0))
    assert some.coverage_gain == (0.0, 0.0)
    assert others.coverage_gain[0] == pytest.approx(others.coverage[0] - some.coverage[0])


def planted(problems, seed, n=15):
    """Responses of three kinds, each kind at a place of its own, and one of them worth nothing."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, (problems, n))
    kinds[:, :3] = [0, 1, 2]
    places = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]])[kinds] + 0.1 * rng.standard_normal((problems, n, 2))
    # kind 1 is worth a little more than kind 0, so that the two best are mostly both of it
    worth = np.array([0.8, 1.0, 0.0])[kinds] + 0.05 * rng.standard_normal((problems, n))
    table = pa.table({"problem": np.repeat(np.arange(problems), n).astype(str), "stream/gain": worth.flatten()})
    return table, places.reshape(-1, 2), worth.flatten()


def test_a_selector_covers_what_is_good_where_top_k_repeats_itself():
    table, features, _ = planted(60, seed=0)
    learned = SubsetSelector(Greedy(), training=Training(epochs=40, lr=5e-3), uninformative="skip")
    learned.fit(candidates(table, features, worth="stream/gain", share=0.6).sets)
    table, features, worth = planted(40, seed=1)
    pool = candidates(table, features, worth="stream/gain", share=0.6)
    found = compare_choices(
        pool,
        {
            "top-k": choose_responses(pool, 2, worth),
            "random": choose_responses(pool, 2, "random"),
            "selector": choose_responses(pool, 2, learned),
        },
    )
    top, random, selector = found
    assert top.responses == random.responses == selector.responses == 80
    assert top.worth[0] > selector.worth[0] > random.worth[0]
    assert selector.coverage_gain[0] - 2 * selector.coverage_gain[1] > 0
    assert selector.coverage[0] > random.coverage[0]


POOL = candidates(TABLE, FEATURES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: candidates(TABLE, FEATURES[:4]), "the table has 6 rows"),
        (lambda: candidates(TABLE, FEATURES, worth="reward"), "no column `reward`. Columns: problem, text"),
        (lambda: candidates(TABLE, FEATURES, worth="text"), "`text` is no column of numbers"),
        (lambda: candidates(TABLE.select(["text"]), FEATURES), "no column `problem`"),
        (lambda: candidates(TABLE, np.where(FEATURES == 9, np.nan, FEATURES)), "a feature is NaN or infinite"),
        (
            lambda: candidates(pa.table({"problem": ["p"], "w": [math.inf]}), [[1.0]], worth="w"),
            "`w` is infinite in row 0",
        ),
        (lambda: candidates(pa.table({"problem": ["p"], "w": [math.nan]}), [[1.0]], worth="w"), "known for none"),
        (
            lambda: candidates(pa.table({"problem": ["p", None]}), [[1.0], [2.0]]),
            "`problem` is null in row 1. Say which problem",
        ),
        (lambda: candidates(TABLE.slice(0, 0), np.zeros((0, 1))), "it is empty"),
        (lambda: choose_responses(POOL, 0, "random"), "k is 0"),
        (lambda: choose_responses(POOL, 1, "best"), "by is 'best'"),
        (lambda: choose_responses(POOL, 1, ["much"] * 6), "by is no array of numbers"),
        (lambda: choose_responses(POOL, 1, [1.0]), "by is of shape \\(1,\\)"),
        (lambda: choose_responses(POOL, 1, SubsetSelector()), "call `fit` first"),
        (lambda: compare_choices(POOL, {"a": np.ones(6, dtype=bool)}), "made with `worth`"),
        (lambda: compare_choices(candidates(TABLE, FEATURES, worth="outcome"), {}), "at least one choice"),
        (
            lambda: compare_choices(candidates(TABLE, FEATURES, worth="outcome"), {"a": np.zeros(6, dtype=bool)}),
            "`a` has chosen no response to problem 'p'",
        ),
        (lambda: compare_choices(candidates(TABLE, FEATURES, worth="outcome"), {"a": np.ones(6)}), "`a` is float64"),
    ],
)
def test_input_that_does_not_fit(call, message):
    with pytest.raises(InputError, match=message):
        call()
