"""The loss of marginals, whom it counts, and Jaccard indices: by hand, and against scikit-learn."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from set_functions import draws

from reckon.errors import InputError
from reckon.subsets import balanced_weights, jaccard, largest, marginal_loss, random_jaccard

PSI = torch.tensor([[0.9, 0.2, 0.6, 0.1]], dtype=torch.float64)
CHOSEN = torch.tensor([[True, False, True, False]])


def test_the_loss_by_hand():
    # ln .9 + ln .8 + ln .6 + ln .9 = -.944690, without the last -.839330
    assert float(marginal_loss(PSI, CHOSEN, torch.ones(1, 4))) == pytest.approx(0.944690, abs=1e-6)
    assert float(marginal_loss(PSI, CHOSEN, torch.tensor([[1.0, 1, 1, 0]]))) == pytest.approx(0.839330, abs=1e-6)


def test_the_loss_of_certain_and_wrong_is_large_and_finite():
    psi = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = marginal_loss(psi, torch.tensor([[True, False]]), torch.ones(1, 2))
    loss.sum().backward()
    assert loss.item() == pytest.approx(-2 * math.log(1e-12), rel=1e-3)
    assert psi.grad.isfinite().all()


@given(
    st.lists(st.tuples(st.integers(2, 8), st.integers(1, 7)), min_size=1, max_size=5),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(0, 1000),
)
def test_weights_are_the_subset_and_as_many_others(sizes, negatives, seed):
    n = 9
    mask = torch.tensor([[i < size for i in range(n)] for size, _ in sizes])
    chosen = torch.tensor([[i < min(k, size - 1) for i in range(n)] for size, k in sizes])
    weights = balanced_weights(chosen, mask, negatives, draws(seed))
    assert set(weights.unique().tolist()) <= {0.0, 1.0}
    assert (weights[chosen] == 1).all()
    assert (weights[~mask] == 0).all()
    for b, (size, k) in enumerate(sizes):
        wanted = min(k, size - 1)
        assert int(weights[b][~chosen[b]].sum()) == min(round(negatives * wanted), size - wanted)


def test_others_are_drawn_anew_and_evenly_and_none_means_all():
    chosen, mask = torch.tensor([[True, False, False, False]]), torch.tensor([[True, True, True, False]])
    uniform = draws()
    counts = sum(balanced_weights(chosen, mask, 1.0, uniform) for _ in range(2000))[0]
    assert counts.tolist()[0] == 2000
    assert counts.tolist()[3] == 0
    assert float(counts[1]) == pytest.approx(1000, abs=5 * math.sqrt(500))
    assert balanced_weights(chosen, mask, None, draws()).tolist() == [[1, 1, 1, 0]]


@pytest.mark.parametrize(
    ("n", "k", "expected"),
    [(100, 10, 0.0551), (30, 5, 0.0993), (20, 4, 0.1237), (8, 2, 0.1786), (8, 3, 0.2589), (300, 15, 0.0265)],
)
def test_random_subsets_by_the_specification(n, k, expected):
    assert random_jaccard(n, k) == pytest.approx(expected, abs=5e-5)


def test_random_subsets_by_listing_them():
    for n, k in ((5, 2), (6, 3), (4, 4), (3, 0)):
        truth = set(range(k))
        found = [
            len(truth & set(other)) / len(truth | set(other)) if k else 1.0
            for other in itertools.combinations(range(n), k)
        ]
        assert random_jaccard(n, k) == pytest.approx(sum(found) / len(found))
    for n, k in ((3, 4), (0, 0), (3, -1)):
        with pytest.raises(InputError, match="impossible"):
            random_jaccard(n, k)


def test_jaccard_is_scikit_learns():
    from sklearn.metrics import jaccard_score

    generator = torch.Generator().manual_seed(0)
    found, chosen = (torch.rand((50, 7), generator=generator) < 0.4 for _ in range(2))
    found[:, 0], chosen[:, 0] = True, True  # scikit-learn has 0 for two empty sets
    expected = jaccard_score(chosen.numpy(), found.numpy(), average="samples")
    assert float(jaccard(found, chosen).mean()) == pytest.approx(expected, abs=1e-6)


def test_jaccard_by_hand():
    found = torch.tensor([[True, True, False], [False, False, False], [False, False, False]])
    chosen = torch.tensor([[False, True, True], [False, False, False], [True, False, False]])
    assert jaccard(found, chosen).tolist() == pytest.approx([1 / 3, 1.0, 0.0])


def test_the_largest_are_taken_ties_to_the_first_and_never_padding():
    psi = torch.tensor([[0.2, 0.7, 0.7, 0.7], [0.0, 0.0, 0.9, 0.9]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    assert largest(psi, torch.tensor([2, 2]), mask).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]
    assert not largest(psi, torch.tensor([0, 0]), mask).any()
