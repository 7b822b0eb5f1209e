"""Generators: what is wanted is what they say, and the numbers are those of the specification."""

import math

import numpy as np
import pytest

from reckon.errors import InputError
from reckon.subsets import digit_pair_sets, gaussian_mixture_sets, nearest_sets, top_then_centers, two_moons_sets


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_wanted_are_nearest_to_the_mean():
    sets = nearest_sets(50, rng())
    assert sets.features.shape == (50, 20, 2)
    for points, chosen in zip(sets.features.double().numpy(), sets.chosen.numpy(), strict=True):
        far = np.linalg.norm(points - points.mean(axis=0), axis=1)
        assert chosen.sum() == 4
        assert far[chosen].max() <= far[~chosen].min() + 1e-6
    centers = sets.features.mean(dim=1).numpy()  # uniform on [-2, 2], variance 4/3, and 1/20 of the points'
    assert centers.var(axis=0) == pytest.approx([4 / 3 + 0.05] * 2, rel=0.35)


def test_a_mixture_has_its_centers_and_either_side_may_be_wanted():
    sets = gaussian_mixture_sets(300, rng())
    features, chosen = sets.features.double().numpy(), sets.chosen.numpy()
    assert (chosen.sum(axis=1) == 10).all()
    sides = np.sign(np.array([points[mask].mean() for points, mask in zip(features, chosen, strict=True)]))
    assert abs(sides.sum()) < 5 * math.sqrt(300)
    assert chosen.mean(axis=0) == pytest.approx([0.1] * 100, abs=5 * math.sqrt(0.09 / 300))  # any position
    for side in (-1, 1):
        rows = sides == side
        wanted, others = features[rows][chosen[rows]], features[rows][~chosen[rows]]
        assert wanted.mean(axis=0) == pytest.approx([side / math.sqrt(2)] * 2, abs=0.07)
        assert others.mean(axis=0) == pytest.approx([-side / math.sqrt(2)] * 2, abs=0.03)
        assert others.std(axis=0) == pytest.approx([0.5] * 2, abs=0.02)


def test_moons_without_noise_lie_on_scikit_learns():
    from sklearn.datasets import make_moons

    points, moon = make_moons(n_samples=2000, noise=None, shuffle=False)
    curves = [points[moon == which] * 2 + (-1, -0.2) for which in (0, 1)]
    sets = two_moons_sets(40, rng(), n=20, k=4, noise=0.0)
    inner = 0
    for found, chosen in zip(sets.features.double().numpy(), sets.chosen.numpy(), strict=True):
        away = np.stack(
            [np.linalg.norm(found[:, None] - curve[None], axis=2).min(axis=1) for curve in curves]
        )  # [2, n], the distance from each moon
        own = away.argmin(axis=0)
        assert away.min(axis=0).max() < 0.01
        assert len(set(own[chosen].tolist())) == len(set(own[~chosen].tolist())) == 1
        assert own[chosen][0] != own[~chosen][0]
        inner += int(own[chosen][0])
    assert 5 < inner < 35


def test_digit_pairs_show_one_number_several_times_and_others_once():
    from sklearn.datasets import load_digits

    pictures, digits = load_digits(return_X_y=True)
    names = {row.tobytes(): int(digit) for row, digit in zip(pictures.astype(np.float32) / 16, digits, strict=True)}

    def number(picture):
        left, right = (np.ascontiguousarray(half).reshape(-1).tobytes() for half in np.split(picture, 2, axis=1))
        return 10 * names[left] + names[right]

    sets = digit_pair_sets(20, rng(), n=8, least=2, most=4)
    assert sets.features.shape == (20, 8, 8, 16)
    sizes = set()
    for features, chosen in zip(sets.features.numpy(), sets.chosen.numpy(), strict=True):
        numbers = np.array([number(picture) for picture in features])
        assert len(set(numbers[chosen].tolist())) == 1
        assert len(set(numbers.tolist())) == (~chosen).sum() + 1
        sizes.add(int(chosen.sum()))
    assert sizes == {2, 3, 4}


def test_parts_of_the_digits_share_no_picture():
    def halves(part):
        sets = digit_pair_sets(30, rng(part), n=8, part=part)
        return {half.tobytes() for row in sets.features.numpy().reshape(-1, 8, 2, 8).swapaxes(1, 2) for half in row}

    assert not halves(0) & halves(1)
    assert len(halves(0)) > 100


def test_the_best_and_yet_different():
    """Three tight clusters of good elements and one of bad ones: one center of each good cluster, and no bad one."""
    corners = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
    points = np.concatenate([corner + 0.1 * rng(i).standard_normal((5, 2)) for i, corner in enumerate(corners)])
    scores = np.array([3.0] * 15 + [0.0] * 5) + 0.01 * rng().random(20)
    found = top_then_centers(points, scores, share=0.75)
    assert [int(found[i : i + 5].sum()) for i in (0, 5, 10, 15)] == [1, 1, 1, 0]
    # a third of 20 are the best 7
    assert set(np.flatnonzero(top_then_centers(points, scores))) <= set(np.argsort(-scores)[:7])


@pytest.mark.parametrize(
    ("share", "taken"),
    [
        (0.07, 7),  # 7.000000000000001 in floats
        (0.55, 55),  # 55.00000000000001
        (0.071, 8),
        (1e-12, 1),
        (1.0, 100),
    ],
)
def test_a_share_is_rounded_up_to_whole_elements_and_not_by_floats(share, taken):
    """So many of the best stand at one place, the others at a second, and of each place its best is chosen: the best of
    all alone if all that are taken are at the first, and if one is not, that one as well.
    """
    worth, order = -np.arange(100.0), np.arange(100)[:, None]
    assert np.flatnonzero(top_then_centers(1.0 * (order >= taken), worth, share=share)).tolist() == [0]
    two = np.flatnonzero(top_then_centers(1.0 * (order >= taken - 1), worth, share=share)).tolist()
    assert two == sorted({0, taken - 1})


def test_where_there_is_nothing_to_cluster():
    assert top_then_centers(np.zeros((6, 2)), [1, 5, 2, 2, 2, 2], share=1).tolist() == [False, True] + [False] * 4
    assert top_then_centers([[1.0]], [0.0]).tolist() == [True]
    # two places, the best of each
    assert top_then_centers([[0.0], [0.0], [1.0], [1.0]], [1, 2, 4, 3], share=1).tolist() == [False, True, True, False]


def test_the_same_generator_gives_the_same_sets():
    for draw in (nearest_sets, gaussian_mixture_sets, two_moons_sets, digit_pair_sets):
        a, b, other = draw(3, rng(1)), draw(3, rng(1)), draw(3, rng(2))
        assert a.features.equal(b.features)
        assert a.chosen.equal(b.chosen)
        assert not a.features.equal(other.features)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nearest_sets(0, rng()), "count >= 1"),
        (lambda: nearest_sets(1, rng(), n=4, k=4), "1 <= k < n"),
        (lambda: gaussian_mixture_sets(1, rng(), n=4, k=0), "1 <= k < n"),
        (lambda: two_moons_sets(1, rng(), n=1, k=1), "1 <= k < n"),
        (lambda: digit_pair_sets(1, rng(), least=1), "at least 2 elements"),
        (lambda: digit_pair_sets(1, rng(), n=200), "there are 100 numbers"),
        (lambda: digit_pair_sets(1, rng(), part=3), "parts are counted from 0"),
        (lambda: top_then_centers(np.zeros((0, 2)), []), "give \\[n, f\\] and \\[n\\]"),
        (lambda: top_then_centers(np.zeros((2, 2)), [1, math.nan]), "NaN or infinite"),
        (lambda: top_then_centers(np.zeros((2, 2)), [1, 2], share=0), "lie in \\(0, 1\\]"),
    ],
)
def test_input_that_does_not_fit(call, message):
    with pytest.raises(InputError, match=message):
        call()
