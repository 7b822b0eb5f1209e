"""What contexts share: variances by hand, and the estimate from rollouts against what it estimates."""

import math

import numpy as np
import pytest

from reckon.errors import InputError
from reckon.explore import estimate_structure, shared_structure


def test_one_context_shares_everything_with_itself():
    found = shared_structure(np.array([0.3, 0.9]), np.array([0, 1]), np.array([5, 5]))
    assert found.mean == 0
    assert found.values.tolist() == [[0.3], [0.9]]


def test_opposite_goals():
    """A corridor of three cells with the goal at either end, gamma .9: (.19 / 2)^2, 0, (.19 / 2)^2."""
    values = np.array([1, 0.9, 0.81, 0.81, 0.9, 1])
    found = shared_structure(values, np.array([0, 1, 2, 0, 1, 2]), np.repeat([0, 1], 3))
    assert found.variance == pytest.approx([0.009025, 0, 0.009025])
    assert found.mean == pytest.approx(2 * 0.009025 / 3)


def test_goals_that_look_the_same_share_everything():
    """The same corridor where a state is its distance from the goal."""
    values = np.array([1, 0.9, 0.81, 0.81, 0.9, 1])
    assert shared_structure(values, np.array([0, 1, 2, 2, 1, 0]), np.repeat([0, 1], 3)).mean == 0


def test_a_state_that_cannot_be_reached_is_worth_nothing():
    """.8 in one of two contexts: .4^2; in one of three: .64 / 3 - (.8 / 3)^2."""
    found = shared_structure(np.array([0.8, 0.0]), np.array([7, 8]), np.array([0, 1]))
    assert found.keys.tolist() == [7, 8]
    assert found.values.tolist() == [[0.8, 0], [0, 0]]
    assert found.variance == pytest.approx([0.16, 0])
    found = shared_structure(np.array([0.8, 0.0, 0.0]), np.array([7, 8, 8]), np.array([0, 1, 2]))
    assert found.variance[0] == pytest.approx(0.64 / 3 - 0.64 / 9)


def test_of_states_with_one_key_the_least_value_counts():
    found = shared_structure(np.array([0.5, 0.2, 0.6]), np.array([1, 1, 1]), np.array([0, 0, 1]))
    assert found.values.tolist() == [[0.2, 0.6]]
    assert found.mean == pytest.approx(0.04)


# From rollouts


def test_returns_by_hand():
    """Two contexts, two steps, gamma 1/2: returns 1/2, 1 and 0, 0. Variances 1/16 and 1/4."""
    rewards = np.array([[0.0, 0.0], [1.0, 0.0]])
    done = np.array([[False, False], [True, True]])
    keys, contexts = np.array([[0, 0], [1, 1]]), np.array([[0, 1], [0, 1]])
    found = estimate_structure(rewards, done, keys, contexts, gamma=0.5)
    assert found.values.tolist() == [[0.5, 0], [1, 0]]
    assert found.variance == pytest.approx([1 / 16, 1 / 4])
    assert found.mean == pytest.approx(5 / 32)


def test_an_episode_whose_end_was_not_seen_is_left_out():
    """The environment's second episode (key 3) earns 1 and goes on."""
    rewards, done = np.array([[0.0], [1.0], [1.0]]), np.array([[False], [True], [False]])
    found = estimate_structure(rewards, done, np.array([[0], [1], [3]]), np.zeros((3, 1), dtype=int), gamma=0.5)
    assert found.keys.tolist() == [0, 1]
    assert found.values.tolist() == [[0.5], [1]]


def visits(p, n, z, seed):
    """n one-step episodes in every state and context; the reward in context c is 1 with probability p[c]."""
    rng, c = np.random.default_rng(seed), len(p)
    keys = np.repeat(np.arange(z), c * n)[:, None]
    contexts = np.tile(np.repeat(np.arange(c), n), z)[:, None]
    rewards = (rng.random(keys.shape) < np.asarray(p)[contexts]).astype(float)
    return rewards, np.ones(keys.shape, dtype=bool), keys, contexts


@pytest.mark.parametrize("p", [[0.5, 0.5, 0.5, 0.5], [0.2, 0.4, 0.6, 0.8]], ids=["shared", "not"])
def test_the_estimate_is_right_on_average(p):
    """Over 2,000 states; the variance of means alone is too large by p (1 - p) / 5 * 3/4, .0375 in the first case."""
    estimate = estimate_structure(*visits(p, 5, 2000, seed=1))
    assert estimate.mean == pytest.approx(np.var(p), abs=0.004)
    naive = estimate.values.var(axis=1).mean()
    assert naive - estimate.mean == pytest.approx(np.mean(np.multiply(p, np.subtract(1, p))) / 5 * 3 / 4, abs=0.004)


def test_visits_of_one_episode_count_once():
    """Two contexts of equal value, two episodes each, the key met five times in an episode and its return 0 or 1 by a
    coin: a mean of two coins varies by 1/8. Five visits taken for independent ones would leave .056 on average."""
    rng, states, visits = np.random.default_rng(3), 4000, 5
    coins = rng.integers(0, 2, states * 4).astype(float)
    rewards = np.zeros((visits, states * 4))
    rewards[-1] = coins
    done = np.zeros(rewards.shape, dtype=bool)
    done[-1] = True
    keys = np.broadcast_to(np.repeat(np.arange(states), 4), rewards.shape)
    contexts = np.broadcast_to(np.tile([0, 0, 1, 1], states), rewards.shape)
    found = estimate_structure(rewards, done, keys, contexts, gamma=1.0)
    assert found.mean == pytest.approx(0, abs=0.005)
    assert found.values.var(axis=1).mean() == pytest.approx(1 / 16, abs=0.005)


def test_the_first_visit_of_each_episode_is_the_one_that_counts():
    """One column, two episodes: key 7 is met at steps 0 and 1 of the first, gamma 1/2, and at step 0 of the second."""
    rewards = np.array([[0.0], [0.0], [1.0], [0.0], [1.0]])
    done = np.array([[False], [False], [True], [False], [True]])
    keys = np.array([[7], [7], [8], [7], [8]])
    found = estimate_structure(rewards, done, keys, np.zeros((5, 1), dtype=int), gamma=0.5)
    assert found.values.tolist() == [[(1 / 4 + 1 / 2) / 2], [1]]


def test_many_visits_give_the_variance_itself():
    estimate = estimate_structure(*visits([0.0, 1.0], 50, 3, seed=0))
    assert estimate.mean == 0.25


def test_states_that_were_not_met_are_nothing_or_left_out():
    """Key 0 in both contexts (1 and 0), key 1 in the first alone (1)."""
    rewards, done = np.array([[1.0, 1.0, 0.0]]), np.ones((1, 3), dtype=bool)
    keys, contexts = np.array([[0, 1, 0]]), np.array([[0, 0, 1]])
    assert estimate_structure(rewards, done, keys, contexts).variance.tolist() == [0.25, 0.25]
    found = estimate_structure(rewards, done, keys, contexts, unvisited="skip")
    assert found.variance[0] == 0.25
    assert math.isnan(found.variance[1])
    assert found.mean == 0.25
    assert np.isnan(found.values[1, 1])


def test_without_a_reward_nothing_is_known():
    done, none = np.ones((2, 2), dtype=bool), np.zeros((2, 2))
    keys, contexts = np.zeros((2, 2), dtype=int), np.array([[0, 1], [0, 1]])
    assert math.isnan(estimate_structure(none, done, keys, contexts).mean)
    alone = estimate_structure(none + 1, done, keys, np.zeros((2, 2), dtype=int), unvisited="skip")
    assert math.isnan(alone.mean)


# Bad input

SQUARE = np.zeros((2, 2), dtype=int)


@pytest.mark.parametrize(
    ("values", "keys", "contexts", "message"),
    [
        (np.array([1.0, np.nan]), SQUARE[0], SQUARE[0], "value 1 is nan; all must be finite"),
        (np.ones(2), np.array([0.5, 1.0]), SQUARE[0], "keys are float64; they must be integers. See explore.key_of"),
        (np.ones(2), SQUARE[0], SQUARE, r"contexts \(2, 2\) and values \(2,\) must be of one shape"),
        (np.ones(0), np.zeros(0, dtype=int), np.zeros(0, dtype=int), "there are no values"),
    ],
)
def test_values_that_cannot_be(values, keys, contexts, message):
    with pytest.raises(InputError, match=message):
        shared_structure(values, keys, contexts)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"gamma": 1.5}, r"`gamma` is 1.5; it must be in \[0, 1\]"),
        ({"unvisited": "one"}, "`unvisited` is 'one'; it must be zero or skip"),
        ({"done": np.zeros((2, 2), dtype=bool)}, "no episode came to its end. Give longer rollouts"),
        ({"done": np.ones(2, dtype=bool)}, r"rewards \(2, 2\) and done \(2,\) must both be \[T, N\]"),
        ({"keys": SQUARE[0]}, r"keys and contexts must be of shape \(2, 2\)"),
    ],
)
def test_rollouts_that_cannot_be(others, message):
    given = {"rewards": np.ones((2, 2)), "done": np.ones((2, 2), dtype=bool), "keys": SQUARE, "contexts": SQUARE}
    with pytest.raises(InputError, match=message):
        estimate_structure(**{**given, **others})
