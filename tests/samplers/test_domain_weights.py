"""The weights against the specification's numbers, and what they must obey whatever comes."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reckon.samplers import domain_counts, domain_weights
from reckon.types import Rng

accuracies = st.lists(st.floats(0, 1), min_size=1, max_size=9)
taus = st.floats(0.05, 5)
epsilons = st.floats(0, 2)


@pytest.mark.parametrize(
    ("eps", "weights"),
    [
        # exp(.2), exp(1), exp(1.8) = 1.2214, 2.7183, 6.0496; with .1 added to each their sum is 10.2893
        (0.1, (0.128425, 0.273903, 0.597672)),
        (0.0, (0.122271, 0.272118, 0.605611)),
    ],
)
def test_the_papers_weights(eps, weights):
    assert domain_weights([0.9, 0.5, 0.1], tau=0.5, eps=eps) == pytest.approx(weights, abs=5e-7)


def test_the_bounds_of_eight_domains():
    """(1 + .1) / (1 + .1 + 7 (e^2 + .1)) and (e^2 + .1) / (e^2 + .1 + 7 (1 + .1)), with e^2 = 7.38906."""
    assert domain_weights([1.0] + [0.0] * 7, tau=0.5, eps=0.1)[0] == pytest.approx(1.1 / 53.52339, abs=1e-7)
    assert domain_weights([0.0] + [1.0] * 7, tau=0.5, eps=0.1)[0] == pytest.approx(7.48906 / 15.18906, abs=1e-6)
    assert pytest.approx(0.02055, abs=5e-6) == 1.1 / 53.52339
    assert pytest.approx(0.49306, abs=5e-6) == 7.48906 / 15.18906


def test_the_control_turned_round():
    """exp(1.8) + .1 : exp(1) + .1 : exp(.2) + .1"""
    found = domain_weights([0.9, 0.5, 0.1], tau=0.5, eps=0.1, invert=True)
    assert found == pytest.approx([0.597672, 0.273903, 0.128425], abs=5e-7)


@given(accuracies, taus, epsilons, st.floats(0, 1), st.booleans())
def test_they_sum_to_1_and_none_falls_below_the_floor(accuracy, tau, eps, share, invert):
    floor = share / len(accuracy)
    weights = domain_weights(accuracy, tau=tau, eps=eps, floor=floor, invert=invert)
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    assert min(weights) >= floor - 1e-15


@given(accuracies, taus, epsilons, st.randoms(use_true_random=False))
def test_permuting_the_domains_permutes_the_weights(accuracy, tau, eps, random):
    order = random.sample(range(len(accuracy)), len(accuracy))
    permuted = domain_weights([accuracy[i] for i in order], tau=tau, eps=eps)
    weights = domain_weights(accuracy, tau=tau, eps=eps)
    assert permuted == pytest.approx([weights[i] for i in order], abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), taus, epsilons, st.data())
def test_a_domain_that_goes_better_gets_less_and_all_others_more(accuracy, tau, eps, data):
    d = data.draw(st.integers(0, len(accuracy) - 1))
    better = data.draw(st.floats(0, 1))
    assume(better > accuracy[d] + 1e-3)
    before = domain_weights(accuracy, tau=tau, eps=eps)
    after = domain_weights([better if i == d else a for i, a in enumerate(accuracy)], tau=tau, eps=eps)
    assert after[d] < before[d]
    assert all(after[i] > before[i] for i in range(len(accuracy)) if i != d)


@given(st.floats(0, 1), st.integers(1, 20), taus, epsilons)
def test_equal_accuracies_get_equal_weights(accuracy, n, tau, eps):
    assert domain_weights([accuracy] * n, tau=tau, eps=eps) == pytest.approx([1 / n] * n)


def test_the_ends_of_the_temperature():
    accuracy = [0.7, 0.2, 0.5]
    assert domain_weights(accuracy, tau=1e9, eps=0.1) == pytest.approx([1 / 3] * 3)
    assert domain_weights(accuracy, tau=1e-4, eps=0.1) == pytest.approx([0, 1, 0])  # exp(8000) would overflow
    assert domain_weights(accuracy, tau=1e-4, eps=0.1, floor=0.1) == pytest.approx([0.1, 0.8, 0.1])


# --- whole numbers


def test_the_papers_counts():
    assert domain_counts(domain_weights([0.9, 0.5, 0.1], tau=0.5, eps=0.1), 64) == [8, 17, 39]
    # 4, 2.4, 1.6: one place is left, and the heaviest has it; the largest remainder would give 4, 2, 2
    assert domain_counts([0.5, 0.3, 0.2], 8) == [5, 2, 1]


def test_of_equals_the_first_have_the_places_left_over():
    assert domain_counts([0.25] * 4, 6) == [2, 2, 1, 1]
    assert domain_counts([0.3, 0.4, 0.3], 5) == [1, 3, 1]  # 1.5, 2, 1.5
    assert domain_counts([1 / 49] * 49, 49) == [1] * 49  # though 49 * (1 / 49) is a little under 1


weights = st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda w: sum(w) > 1e-6)


@given(weights, st.integers(1, 200), st.integers(0, 5))
def test_counts_add_up_and_are_within_one(raw, n, seed):
    shares = [w / sum(raw) for w in raw]
    for counts in (domain_counts(shares, n), domain_counts(shares, n, Rng((seed,)))):
        assert sum(counts) == n
        assert all(abs(count - n * share) < 1 + 1e-6 for count, share in zip(counts, shares, strict=True))


def test_chance_gives_every_domain_what_it_is_due():
    """Of 3 places a domain of weight 0.1 gets none by the paper's rule, and 0.3 on average by chance."""
    shares = [0.6, 0.3, 0.1]
    assert domain_counts(shares, 3) == [2, 1, 0]  # of 1.8, 0.9, 0.3
    mean = np.mean([domain_counts(shares, 3, Rng((seed,))) for seed in range(2000)], axis=0)
    assert mean == pytest.approx([1.8, 0.9, 0.3], abs=4 * np.sqrt(0.25 / 2000))
