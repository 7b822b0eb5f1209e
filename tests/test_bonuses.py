"""How new something is: the specification's numbers, NumPy and scikit-learn as oracles, and properties."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct

from reckon import bonuses
from reckon.combinations import updated_moments

RIDGE = 0.1
BY_HAND = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)


def random_features(n, d, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


def step_by_step(features, ridge):
    """The bonuses of an episode by `elliptical_step`, and the inverse after it."""
    inverse = torch.eye(features.shape[1], dtype=features.dtype) / ridge
    found = []
    for feature in features:
        bonus, inverse = bonuses.elliptical_step(inverse, feature)
        found.append(bonus)
    return torch.stack(found), inverse


def solved(feature, others, ridge):
    """phi' (ridge I + others' others)^-1 phi, by NumPy."""
    covariance = ridge * np.eye(len(feature)) + np.asarray(others).T @ np.asarray(others)
    return float(feature @ np.linalg.solve(covariance, feature))


def one_group(n):
    return torch.zeros(n, dtype=torch.int64)


# Counts


def test_visits_a_b_a_in_one_episode_and_a_in_the_next():
    """Section 6 of the specification: indicator, global count, product."""
    keys, episode = torch.tensor([0, 1, 0, 0]), torch.tensor([0, 0, 0, 1])
    indicator = bonuses.count_bonus(bonuses.visits(keys, episode), "first")
    everywhere = bonuses.count_bonus(bonuses.visits(keys, one_group(4)), "sqrt")
    assert indicator.tolist() == [1, 1, 0, 1]
    assert everywhere.tolist() == pytest.approx([1, 1, 0.70711, 0.57735], abs=1e-5)
    both = bonuses.product(torch.stack([indicator, everywhere]))
    assert both.tolist() == pytest.approx([1, 1, 0, 0.57735], abs=1e-5)


def test_copies_are_counted_within_the_group_wherever_they_stand():
    keys, group = torch.tensor([7, 7, 3, 7, 3, 7]), torch.tensor([0, 0, 0, 1, 1, 0])
    counts = bonuses.copies(keys, group)
    assert counts.tolist() == [3, 3, 1, 1, 1, 3]
    assert bonuses.count_bonus(counts, "inverse").tolist() == pytest.approx([1 / 3, 1 / 3, 1, 1, 1, 1 / 3])
    assert bonuses.visits(keys, group).tolist() == [1, 2, 1, 1, 1, 3]


def test_over_all_orders_the_first_of_copies_is_each_of_them_equally_often():
    """So that "first" of a group that has no order is "inverse" and noise: 120 orders of A, B, A, A, C."""
    keys = torch.tensor([0, 1, 0, 0, 2])
    total = torch.zeros(5)
    for order in itertools.permutations(range(5)):
        rows = torch.tensor(order)
        total[rows] += bonuses.count_bonus(bonuses.visits(keys[rows], one_group(5)), "first")
    assert (total / 120).tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3, 1])


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12).flatmap(
        lambda rows: st.tuples(st.just(rows), st.permutations(range(len(rows))))
    )
)
def test_copies_do_not_care_for_the_order(drawn):
    rows, order = drawn
    keys, group = (torch.tensor(column) for column in zip(*rows, strict=True))
    places = torch.tensor(order)
    assert torch.equal(bonuses.copies(keys, group)[places], bonuses.copies(keys[places], group[places]))
    naive = [rows.count(row) for row in rows]
    assert bonuses.copies(keys, group).tolist() == naive
    assert bonuses.visits(keys, group).tolist() == [rows[: i + 1].count(row) for i, row in enumerate(rows)]


def test_a_visit_that_is_not_counted_is_refused():
    with pytest.raises(ValueError, match="a count is below 1; the present visit"):
        bonuses.count_bonus(torch.tensor([1, 0]), "sqrt")
    with pytest.raises(ValueError, match="how must be 'inverse', 'sqrt' or 'first', not 'log'"):
        bonuses.count_bonus(torch.tensor([1, 2]), "log")
    with pytest.raises(ValueError, match=r"keys must be of shape \(2,\), not \(2, 1\)"):
        bonuses.copies(torch.zeros(2, 1), torch.zeros(2))


# The elliptical bonus, in its forms


def test_the_specification_s_four_states():
    """10; 1 / 1.1; 1 / 2.1 + 10; and (0, 1) with what is left of (1, 1)."""
    wanted = [10, 0.909091, 10.476190, 1.286307]
    found, inverse = step_by_step(BY_HAND, RIDGE)
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)
    assert bonuses.elliptical_sequence(BY_HAND, RIDGE).tolist() == pytest.approx(wanted, abs=1e-6)
    assert inverse.flatten().tolist() == pytest.approx([0.381125, -0.181488, -0.181488, 0.562613], abs=1e-6)


def test_the_product_of_1_and_the_bonuses_is_551_in_any_order():
    assert torch.linalg.det(torch.eye(2, dtype=torch.float64) + BY_HAND.T @ BY_HAND / RIDGE) == pytest.approx(551)
    for order in itertools.permutations(range(4)):
        rows = BY_HAND[list(order)]
        for found in (step_by_step(rows, RIDGE)[0], bonuses.elliptical_sequence(rows, RIDGE)):
            assert (1 + found).prod().item() == pytest.approx(551)


def test_of_one_hot_states_it_is_a_count():
    """1 / (n before + ridge)."""
    states = torch.eye(3, dtype=torch.float64)[[0, 0, 0, 0, 2]]
    found = bonuses.elliptical_sequence(states, RIDGE)
    assert found.tolist() == pytest.approx([10, 1 / 1.1, 1 / 2.1, 1 / 3.1, 10])
    left_out = bonuses.elliptical_leave_one_out(states, one_group(5), RIDGE)
    assert left_out.tolist() == pytest.approx([1 / 3.1] * 4 + [10])


@pytest.mark.parametrize(("n", "d"), [(6, 20), (20, 6), (1, 3)], ids=["short", "long", "alone"])
def test_step_by_step_at_once_and_solved_are_the_same(n, d):
    features = random_features(n, d)
    direct = [solved(features[t].numpy(), features[:t].numpy(), RIDGE) for t in range(n)]
    assert step_by_step(features, RIDGE)[0].tolist() == pytest.approx(direct, rel=1e-10)
    assert bonuses.elliptical_sequence(features, RIDGE).tolist() == pytest.approx(direct, rel=1e-10)


@pytest.mark.parametrize("d", [2, 5, 30])
def test_left_out_and_solved_are_the_same_and_the_leverages_say_so_too(d):
    group = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])
    features = random_features(8, d)
    found = bonuses.elliptical_leave_one_out(features, group, RIDGE)
    for i in range(8):
        others = [j for j in range(8) if j != i and group[j] == group[i]]
        assert found[i].item() == pytest.approx(solved(features[i].numpy(), features[others].numpy(), RIDGE), rel=1e-10)
        everyone = features[group == group[i]].numpy()
        leverage = solved(features[i].numpy(), everyone, RIDGE)
        assert found[i].item() == pytest.approx(leverage / (1 - leverage), rel=1e-8)


def test_it_is_the_variance_of_a_gaussian_process_over_its_noise():
    features = random_features(5, 3)
    found = bonuses.elliptical_leave_one_out(features, one_group(5), RIDGE)
    for i in range(5):
        others = features[[j for j in range(5) if j != i]].numpy()
        kernel = DotProduct(sigma_0=0.0, sigma_0_bounds="fixed")
        process = GaussianProcessRegressor(kernel=kernel, alpha=RIDGE, optimizer=None).fit(others, np.zeros(4))
        _, std = process.predict(features[i : i + 1].numpy(), return_std=True)
        assert found[i].item() == pytest.approx(std[0] ** 2 / RIDGE, rel=1e-8)


def test_a_small_bonus_keeps_its_digits():
    """4e-5 beside 0.9: x^2 / (ridge + y^2), of which 1 / (1 - h) - 1 left seven digits."""
    x, y = 4e-5, 0.9
    features = torch.tensor([[x], [y]], dtype=torch.float64)
    found = bonuses.elliptical_leave_one_out(features, one_group(2), RIDGE)
    assert found.tolist() == pytest.approx([x**2 / (RIDGE + y**2), y**2 / (RIDGE + x**2)], rel=1e-13)


def test_a_small_bonus_of_a_sequence_keeps_its_digits():
    """4e-5 in float32, alone and after 3e-5: x^2 / ridge, and x^2 / (ridge + y^2); diag^2 / ridge - 1 left none."""
    features = torch.tensor([[3e-5], [4e-5]])
    found = bonuses.elliptical_sequence(features, RIDGE)
    assert found.tolist() == pytest.approx([9e-10 / RIDGE, 16e-10 / (RIDGE + 9e-10)], rel=1e-6)


@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(1, 9))
@example(seed=117, n=2, d=1)  # features of 4e-5 and 0.9
def test_properties_of_the_elliptical_bonus(seed, n, d):
    features = random_features(n, d, seed)
    found = bonuses.elliptical_leave_one_out(features, one_group(n), RIDGE)
    assert (found >= 0).all()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    shuffled = bonuses.elliptical_leave_one_out(features[order], one_group(n), RIDGE)
    torch.testing.assert_close(shuffled, found[order])  # a group has no order
    rotation, _ = torch.linalg.qr(random_features(d, d, seed + 1))
    torch.testing.assert_close(bonuses.elliptical_leave_one_out(features @ rotation, one_group(n), RIDGE), found)
    with_copy = bonuses.elliptical_leave_one_out(torch.cat([features, features[:1]]), one_group(n + 1), RIDGE)
    assert (with_copy[:n] <= found + 1e-9).all()  # nothing becomes newer by company
    assert with_copy[0] < found[0]
    assert with_copy[0] == pytest.approx(with_copy[n].item())


def test_environments_side_by_side_do_not_disturb_each_other():
    """A batch of memories: each as if it were alone, and one that is begun anew pays |phi|^2 / ridge again."""
    features = random_features(6, 4).reshape(3, 2, 4)  # three steps of two environments
    inverse = torch.eye(4, dtype=torch.float64).expand(2, 4, 4) / RIDGE
    found = []
    for at_once in features:
        bonus, inverse = bonuses.elliptical_step(inverse, at_once)
        found.append(bonus)
    for i in range(2):
        torch.testing.assert_close(torch.stack(found)[:, i], step_by_step(features[:, i], RIDGE)[0])
    inverse = inverse.clone()
    inverse[1] = torch.eye(4, dtype=torch.float64) / RIDGE
    bonus, _ = bonuses.elliptical_step(inverse, features[0])
    assert bonus[1].item() == pytest.approx(features[0, 1].square().sum().item() / RIDGE)
    assert bonus[0].item() == pytest.approx(solved(features[0, 0].numpy(), features[:, 0].numpy(), RIDGE), rel=1e-8)


def test_float32_holds_for_a_thousand_steps():
    """Section 2.5 of the specification: within 4e-5 of the exact bonus, at 256 features."""
    features = random_features(1000, 256) / 16
    exact, _ = step_by_step(features, RIDGE)
    rough, _ = step_by_step(features.float(), RIDGE)
    assert ((rough.double() - exact).abs() / exact).max() < 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_where_rounding_is_larger_than_what_is_left_nothing_is_paid_and_nothing_spoiled(seed):
    """One direction of length 3,000, again and again in float32: a bonus is 1e7 times what is left of it and noise."""
    direction = random_features(1, 3, seed).float()
    found, inverse = step_by_step((3000 * direction / direction.norm()).expand(50, 3), RIDGE)
    assert found[0] == pytest.approx(9e7, rel=1e-4)
    assert (found >= 0).all()
    assert inverse.isfinite().all()
    assert inverse.abs().max() <= 1 / RIDGE


def test_a_ridge_of_nothing_is_refused():
    for ridge in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="ridge is"):
            bonuses.elliptical_sequence(BY_HAND, ridge)
        with pytest.raises(ValueError, match="ridge is"):
            bonuses.elliptical_leave_one_out(BY_HAND, one_group(4), ridge)


# Distillation, scale, combinations


def test_an_error_is_squared_and_its_target_does_not_learn():
    predicted = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    target = torch.tensor([[3.0, 2.0], [0.0, 3.0]], requires_grad=True)
    error = bonuses.distillation_error(predicted, target)
    assert error.tolist() == [4.0, 9.0]
    error.sum().backward()
    assert predicted.grad.tolist() == [[-4.0, 0.0], [0.0, -6.0]]
    assert target.grad is None


def test_what_is_less_known_than_where_it_came_from():
    """Section 6 of the specification: RND 1.0 -> .4 -> .9 with c = .5."""
    errors = torch.tensor([1.0, 0.4, 0.9])
    assert bonuses.clipped_difference(errors[1:], errors[:-1], 0.5).tolist() == pytest.approx([0, 0.7])
    assert torch.equal(bonuses.clipped_difference(errors[1:], errors[:-1], 0.0), errors[1:])


def test_impact_is_a_length():
    after, before = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert bonuses.impact(after, before).tolist() == [5, 0]


def test_divergence_by_hand():
    """p = (1/2, 1/2), q = (3/4, 1/4): ln(2/3) / 2 + ln(2) / 2; the other way 3/4 ln(3/2) + 1/4 ln(1/2)."""
    p, q = torch.tensor([7.0, 7.0]), torch.tensor([math.log(3.0), 0.0])
    assert bonuses.categorical_kl(p, q).item() == pytest.approx(0.143841, abs=1e-6)
    assert bonuses.categorical_kl(q, p).item() == pytest.approx(0.130812, abs=1e-6)
    assert bonuses.categorical_kl(p, p).item() == 0


def test_in_deviations_a_bonus_is_not_centered():
    bonus = torch.tensor([1.0, 3.0])
    assert bonuses.in_deviations(bonus, 2.0).tolist() == [0.5, 1.5]
    assert torch.equal(bonuses.in_deviations(bonus, 0.0), bonus)


def test_products_and_sums():
    two = torch.tensor([[1.0, 0.5, 0.0, math.nan], [0.5, 0.5, 3.0, 1.0]])
    assert bonuses.product(two)[:3].tolist() == [0.5, 0.25, 0.0]
    assert bonuses.weighted_sum(two)[:3].tolist() == [1.5, 1.0, 3.0]
    assert bonuses.weighted_sum(two, torch.tensor([1.0, 2.0]))[:3].tolist() == [2.0, 1.5, 6.0]
    for found in (bonuses.product(two), bonuses.weighted_sum(two)):
        assert found[3].isnan()
    # a factor on one is a factor on the whole product, so that it changes no comparison
    scaled = bonuses.product(two * torch.tensor([[10.0], [1.0]]))
    torch.testing.assert_close(scaled, 10 * bonuses.product(two), equal_nan=True)


# The moments that a bonus is measured by


@given(st.lists(st.lists(st.floats(-100, 100), min_size=1, max_size=5), min_size=1, max_size=6))
def test_moments_by_chunks_are_those_of_everything(chunks):
    moments = (0.0, 0.0, 0.0)
    for chunk in chunks:
        moments = updated_moments(*moments, torch.tensor([*chunk, math.nan], dtype=torch.float64))
    everything = np.concatenate(chunks)
    count, mean, squares = moments
    assert count == len(everything)
    assert mean == pytest.approx(everything.mean(), abs=1e-9)
    assert squares / count == pytest.approx(everything.var(), rel=1e-9, abs=1e-9)


def test_moments_that_forget_by_hand():
    """0 and 2 count half: 1 value at 1 with squares 1; with 4 beside it 2 values at 2.5, squares 1 + 9 / 2."""
    before = updated_moments(0.0, 0.0, 0.0, torch.tensor([0.0, 2.0]))
    assert before == (2, 1, 2)
    assert updated_moments(*before, torch.tensor([4.0]), decay=0.5) == (2, 2.5, 5.5)
    assert updated_moments(*before, torch.tensor([math.nan]), decay=0.5) == before
