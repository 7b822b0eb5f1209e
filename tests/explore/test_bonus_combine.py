"""Products, sums and scales of bonuses: numbers by hand, and NumPy over everything seen as oracle."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from walks import paid, path, random_walk

from reckon import bonuses
from reckon.combinations import merged_moments, updated_moments
from reckon.errors import InputError
from reckon.explore import Combined, EpisodicCount, Normalized
from reckon.types import Rng


class Given:
    """A bonus that pays what it was told to, [T, N] each time."""

    def __init__(self, *values):
        self.values = [torch.as_tensor(value, dtype=torch.float32) for value in values]
        self.learned = []

    def start(self, obs, keys):
        pass

    def score(self, rollout):
        return self.values.pop(0)

    def learn(self, rollout, rng):
        self.learned.append(rng)
        return {"loss": 1.0}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


ROLLOUT = path([[0.0]] * 3)  # two steps of one environment
ONE, OTHER = [[2.0], [0.5]], [[3.0], [4.0]]


def test_product_and_sum_by_hand():
    assert paid(Combined({"a": Given(ONE), "b": Given(OTHER)}), ROLLOUT) == [6, 2]
    assert paid(Combined({"a": Given(ONE), "b": Given(OTHER)}, how="sum"), ROLLOUT) == [5, 4.5]
    weighted = Combined({"a": Given(ONE), "b": Given(OTHER)}, how="sum", weights={"b": 0.5})
    assert paid(weighted, ROLLOUT) == [3.5, 2.5]


def test_what_is_logged_of_a_part_is_its_own_and_not_the_product():
    """The released code logs the product in the place of its episodic factor: section 3.2, item 8."""
    a, b = Given(ONE), Given(OTHER)
    bonus = Combined({"a": a, "b": b})
    paid(bonus, ROLLOUT)
    told = bonus.learn(ROLLOUT, Rng((1,)))
    assert told == {"a/mean": 1.25, "b/mean": 3.5, "a/loss": 1.0, "b/loss": 1.0}
    assert a.learned != b.learned  # no part shares another's random numbers


def test_a_product_does_not_care_for_its_parts_scales():
    parts = [Given(ONE, [[20.0], [5.0]]), Given(OTHER, OTHER)]
    bonus = Normalized(Combined(dict(zip("ab", parts, strict=True))), decay=1e-12)
    bonus.start(ROLLOUT.obs[0], {})
    torch.testing.assert_close(bonus.score(ROLLOUT), bonus.score(ROLLOUT))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Combined({"a": Given()}), "1 parts are too few. Give two or more"),
        (lambda: Combined({"a": Given(), "b": Given()}, how="mean"), "`how` is 'mean'; it must be product or sum"),
        (lambda: Combined({"a": Given(), "b": Given()}, weights={"a": 1.0}), "`weights` are those of a sum"),
        (lambda: Combined({"a": Given(), "b": Given()}, how="sum", weights={"c": 1.0}), "weight of 'c'.*are a, b"),
        (lambda: Combined({"a": Given(), "b": Given()}, how="sum", weights={"a": -1.0}), "weight of 'a' is -1.0"),
        (lambda: Combined(dict.fromkeys("ab", Given())), "one object stands for two parts"),
        (lambda: Normalized(Given(), norm="var"), "`norm` is 'var'; it must be std, reference or none"),
        (lambda: Normalized(Given(), decay=0.0), "`decay` is 0.0; it must be above 0 and at most 1"),
        (lambda: Normalized(Given(), norm="none", decay=0.5), "norm='none' does not read `decay`"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


# Scale


def steps(values):
    """A rollout as large as `values` [T, N], in which nothing ends."""
    return random_walk(*np.shape(values), ends=0.0).rollout()


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 10_000)), min_size=1, max_size=5))
def test_the_deviation_by_chunks_is_that_of_everything(chunks):
    values = [np.random.default_rng(seed).exponential(size=(t, 3)) for t, seed in chunks]
    bonus = Normalized(Given(*values))
    for place, value in enumerate(values):
        found = bonus.score(steps(value))
        everything = np.concatenate([v.flatten() for v in values[: place + 1]])
        assert bonus.deviation == pytest.approx(everything.std(), rel=1e-5)
        assert found.numpy() == pytest.approx(value / everything.std(), rel=1e-4)


def test_what_does_not_vary_is_left_as_it_is():
    assert Normalized(Given([[0.5, 0.5]])).score(steps([[1, 1]])).tolist() == [[0.5, 0.5]]


def test_what_was_is_forgotten_by_decay():
    """0 and 2, then 4 with the two counting half: count 2, squares 1 + 9 / 2, as in tests/test_bonuses.py."""
    bonus = Normalized(Given([[0.0, 2.0]], [[4.0]]), decay=0.5)
    assert bonus.score(steps([[0, 2]])).tolist() == [[0, 2]]  # in deviations of 1
    assert bonus.score(steps([[4]])).item() == pytest.approx(4 / math.sqrt(5.5 / 2))


def test_moments_of_two_samples_together():
    """0 and 2; 4: count 3, mean 2, squares 8."""
    assert merged_moments((2.0, 1.0, 2.0), (1.0, 4.0, 0.0)) == (3, 2, 8)
    assert merged_moments((0.0, 0.0, 0.0), (1.0, 4.0, 0.0)) == (1, 4, 0)
    assert updated_moments(2.0, 1.0, 2.0, torch.tensor([4.0])) == (3, 2, 8)


def test_released_moments_by_hand():
    """1, 0; 1, 0 of two environments: 2 of them for 2 steps, so the mean is 1, and the squares 0 + 1 + 0 + 1."""
    assert bonuses.released_moments(torch.tensor([[1.0, 0.0], [1.0, 0.0]])) == (2, 1, 2)


def test_what_released_code_divides_by():
    """sqrt(B (s^2 + (B - 1)^2 m^2)) = sqrt(8 (1/4 + 49/4)) = 10 for an indicator in 8 environments (3.2, item 1)."""
    rng = np.random.default_rng(0)
    values = [rng.integers(2, size=(80, 8)) for _ in range(60)]
    bonus, exact = (Normalized(Given(*values), norm=norm) for norm in ("reference", "std"))
    for value in values:
        found = bonus.score(steps(value))
        exact.score(steps(value))
    assert bonus.deviation == pytest.approx(10, rel=0.02)
    assert exact.deviation == pytest.approx(0.5, rel=0.02)
    assert found.numpy() == pytest.approx(values[-1] / bonus.deviation)


def test_in_one_environment_released_code_is_right():
    values = np.random.default_rng(0).normal(size=(50, 1)) ** 2
    bonus = Normalized(Given(values), norm="reference")
    bonus.score(steps(values))
    assert bonus.deviation == pytest.approx(values.std(), rel=1e-5)


def test_without_a_norm_it_is_paid_as_it_is():
    assert Normalized(Given([[3.0, 7.0]]), norm="none").score(steps([[3, 7]])).tolist() == [[3, 7]]


@pytest.mark.parametrize(("terminal", "truncated", "wanted"), [(False, False, 0), (False, True, 1), (True, False, 1)])
def test_nothing_is_paid_for_dying(terminal, truncated, wanted):
    rollout = path([[0.0]] * 3, keys=[9, 9, 0], ends=[0], final=[[0.0]], final_keys=[1], truncated=truncated)
    bonus = Normalized(EpisodicCount(), norm="none", terminal=terminal)
    assert paid(bonus, rollout) == [wanted, 1]


def test_what_is_not_paid_for_does_not_count_in_the_deviation():
    """The 9 that ended the episode is 0: the deviation is that of 0 and 2."""
    bonus = Normalized(Given([[9.0], [2.0]]))
    assert paid(bonus, path([[0.0]] * 3, ends=[0], final=[[0.0]])) == [0, 2]
    assert bonus.deviation == 1


def test_what_is_logged_of_a_scale():
    bonus = Normalized(Given([[0.0], [2.0]]))
    paid(bonus, ROLLOUT)
    assert bonus.learn(ROLLOUT, Rng(())) == {"mean": 1.0, "deviation": 1.0, "loss": 1.0}
