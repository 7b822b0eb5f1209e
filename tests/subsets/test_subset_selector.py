"""SubsetSelector as a user meets it: pairs in, subsets out, and one sentence for whatever cannot be used."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reckon.errors import InputError
from reckon.subsets import EnergyBased, Greedy, Sets, SubsetSelector, Training, random_jaccard

QUICK = Training(epochs=12, lr=5e-3)
SHORT = pytest.mark.filterwarnings("ignore:SubsetSelector. psi is")  # an epoch or two teach nothing


def pairs(count=48, seed=0):
    """Sets of 4 to 7 elements; wanted are those with a positive first number."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        features = rng.standard_normal((int(rng.integers(4, 8)), 3))
        features[0, 0], features[1, 0] = 1.0, -1.0
        found.append((features, features[:, 0] > 0))
    return found


@pytest.fixture(scope="module")
def chooser():
    return SubsetSelector(training=QUICK).fit(pairs())


def test_it_learns_and_predicts(chooser):
    test = pairs(40, seed=1)
    assert chooser.score(test) > 0.8
    right = [np.mean(chooser.predict(features)[0] == wanted) for features, wanted in test]
    assert np.mean(right) > 0.8
    features = test[0][0]
    mask, psi = chooser.predict(features, size=2)
    assert (mask.shape, mask.dtype, psi.shape, psi.dtype) == ((len(features),), bool, (len(features),), np.float32)
    assert mask.sum() == 2
    assert psi[mask].min() >= psi[~mask].max()
    found = [chooser.predict(features) for features, _ in test]
    assert all(((psi > 0.5) == mask).all() for mask, psi in found)
    assert any(((psi > 0.3) & (psi < 0.5)).any() for _, psi in found)
    assert any(((psi > 0.5) & (psi < 0.7)).any() for _, psi in found)


def test_a_set_has_the_same_answer_alone_beside_others_and_padded(chooser):
    grounds = [features for features, _ in pairs(10, seed=2)]
    sets = Sets.of(grounds)
    sizes = [len(ground) // 2 for ground in grounds]
    masks, psis = chooser.predict(sets, size=sizes)
    for i, ground in enumerate(grounds):
        mask, psi = chooser.predict(ground, size=sizes[i])
        np.testing.assert_allclose(psis[i, : len(ground)], psi, atol=1e-6)
        np.testing.assert_array_equal(masks[i, : len(ground)], mask)
        assert not masks[i, len(ground) :].any()
    stacked = np.stack([ground[:4] for ground in grounds])
    masks, psis = chooser.predict(stacked, size=1)
    assert masks.shape == psis.shape == (10, 4)
    np.testing.assert_allclose(psis[3], chooser.predict(stacked[3])[1], atol=1e-6)


@SHORT
def test_the_seed_decides_and_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    found = [
        SubsetSelector(training=Training(epochs=2), seed=seed).fit(pairs(8)).predict(pairs(1)[0][0])[1]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(before, torch.random.get_rng_state())
    assert (found[0] == found[1]).all()
    assert not np.allclose(found[0], found[2])


@SHORT
def test_the_seed_decides_first_weights_and_draws_each_by_itself():
    still = Training(epochs=1, lr=1e-12, weight_decay=0.0)
    first = [next(SubsetSelector(training=still, seed=seed).fit(pairs(8)).model_.parameters()) for seed in (0, 0, 1)]
    assert torch.equal(first[0], first[1])
    assert not torch.allclose(first[0], first[2], atol=1e-3)
    made = EnergyBased()((3,))
    losses = [
        SubsetSelector(lambda _: deepcopy(made), training=Training(epochs=2), seed=seed).fit(pairs(8)).history_.loss
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


@SHORT
def test_fitting_again_forgets_and_a_users_encoder_is_left_as_it_is():
    torch.manual_seed(0)
    mine = nn.Linear(3, 32)
    weights = mine.weight.detach().clone()
    model = SubsetSelector(EnergyBased(encoder=mine), training=Training(epochs=2))
    first = model.fit(pairs(8)).predict(pairs(1)[0][0])[1]
    again = model.fit(pairs(8)).predict(pairs(1)[0][0])[1]
    assert (first == again).all()
    assert torch.equal(mine.weight, weights)


@SHORT
def test_pictures_with_an_encoder_of_ones_own():
    rng = np.random.default_rng(0)
    pictures, wanted = rng.random((6, 5, 1, 6, 6)), np.zeros((6, 5))
    wanted[:, 2] = 1
    encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 32))
    model = SubsetSelector(EnergyBased(encoder=encoder), training=Training(epochs=1))
    mask, _ = model.fit(list(zip(pictures, wanted, strict=True))).predict(pictures[0], size=1)
    assert mask.shape == (5,)


@SHORT
def test_a_random_start_is_about_as_good_as_chance():
    """An untrained energy has nothing to say, so its score is that of random subsets."""
    rng = np.random.default_rng(0)
    chosen = [rng.permutation([1, 1, 0, 0, 0, 0, 0, 0]) for _ in range(400)]
    noise = [(rng.standard_normal((8, 3)), mask) for mask in chosen]
    score = SubsetSelector(training=Training(epochs=1, lr=1e-6)).fit(noise).score(noise)
    assert score == pytest.approx(random_jaccard(8, 2), abs=0.06)


FEATURES, FEATURES_3 = np.zeros((3, 2)), np.zeros((3, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "there is no set"),
        ([(FEATURES, [0, 0, 0])], "set 0: its optimal subset is empty, from which nothing can be learned. Give others"),
        ([(FEATURES, [0, 1, 0]), (FEATURES, [1, 1, 1])], "set 1: its optimal subset is the whole set.*'skip'"),
        ([(np.zeros((0, 2)), [])], "set 0 has no elements"),
        ([(FEATURES, [0, 1, 0]), (np.zeros((0, 2)), [])], "set 1 has no elements"),
        ([(np.full((3, 2), math.nan), [0, 1, 0])], "set 0, element 0: a feature is NaN or infinite"),
        ([(FEATURES, [0, 1, math.nan])], "set 0: what is chosen.*1 for an element"),
        ([(FEATURES, [0, 0.5, 0])], "set 0: what is chosen"),
        ([(FEATURES, [0, 1])], "set 0: what is chosen is of shape \\(2,\\)"),
        ([(FEATURES, [0, 1, 0]), (np.zeros((3, 4)), [0, 1, 0])], "set 1: its elements are of shape \\(4,\\)"),
        ([(np.zeros(3), [0, 1, 0])], "one row an element"),
        ([(["a", "b"], [0, 1])], "no array of numbers"),
        ([(FEATURES, ["x", "y", "z"])], "no array of 0 and 1"),
        ([(FEATURES, [0, 1, 0], 1)], "must be a pair"),
        (Sets.of([FEATURES]), "the optimal subsets are not known"),
    ],
)
def test_examples_that_cannot_be_used(given, message):
    with pytest.raises(InputError, match=message):
        SubsetSelector(training=Training(epochs=1)).fit(given)


@SHORT
def test_examples_that_say_nothing_can_be_skipped():
    usual = pairs(8)
    odd = [(FEATURES_3, [0, 0, 0]), *usual, (FEATURES_3, [1, 1, 1])]
    settings = {"training": Training(epochs=2)}
    skipped = SubsetSelector(uninformative="skip", **settings).fit(odd)
    plain = SubsetSelector(**settings).fit(usual)
    assert (skipped.skipped_, plain.skipped_) == (2, 0)
    assert skipped.history_.loss == plain.history_.loss
    assert 0 <= skipped.score(odd) <= 1
    with pytest.raises(InputError, match="Give others"):
        SubsetSelector(uninformative="skip").fit([(FEATURES, [0, 0, 0]), (FEATURES, [1, 1, 1])])


@pytest.mark.parametrize(
    ("ground", "size", "message"),
    [
        (np.zeros((4, 2)), None, "elements are of shape \\(2,\\), and \\(3,\\) in `fit`"),
        (np.full((4, 3), math.inf), None, "set 0, element 0"),
        (np.zeros((0, 3)), None, "set 0 has no elements"),
        ([np.zeros((4, 3)), np.zeros((2, 3))], None, "Sets of different sizes go in as `Sets.of`"),
        (np.zeros(3), None, "one row an element"),
        (np.zeros((4, 3)), 5, "set 0: 5 elements of 4 cannot be chosen"),
        (np.zeros((4, 3)), -1, "cannot be chosen"),
        (np.zeros((4, 3)), 1.5, "a whole number"),
        (np.zeros((2, 4, 3)), [1, 2, 3], "one for each of 2 sets"),
        (np.zeros((4, 3)), "2", "size is .2.; give a whole number"),
        (np.zeros((4, 3)), [1, None], "a whole number"),
        (np.zeros((2, 4, 3)), [[1], [2, 3]], "a whole number"),
        (np.zeros((4, 3)), 2**70, "a whole number"),
        (np.zeros((4, 3)), True, "size is True; give a whole number"),
        (np.zeros((4, 3)), 1j, "a whole number"),
        (Sets.of([np.zeros((4, 3)), np.zeros((2, 3))]), [1, 3], "set 1: 3 elements of 2"),
    ],
)
def test_predictions_that_cannot_be_made(chooser, ground, size, message):
    with pytest.raises(InputError, match=message):
        chooser.predict(ground, size)


def test_the_whole_set_and_nothing_can_be_asked_for(chooser):
    assert chooser.predict(np.zeros((4, 3)), 4)[0].all()
    assert not chooser.predict(np.zeros((4, 3)), 0)[0].any()


def test_other_things_that_cannot_be():
    with pytest.raises(InputError, match="call `fit` first"):
        SubsetSelector().predict(FEATURES)
    with pytest.raises(InputError, match="'error' or 'skip'"):
        SubsetSelector(uninformative="drop").fit(pairs(4))
    with pytest.raises(InputError, match="those of validation"):
        SubsetSelector().fit(pairs(4), [(FEATURES, [0, 1, 0])])
    with pytest.raises(InputError, match="no probabilities to cut"):
        SubsetSelector(Greedy(), training=Training(epochs=1)).fit(pairs(4)).predict(pairs(1)[0][0])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 99))
def test_sets_are_padded_and_taken_apart_again(sizes, seed):
    rng = np.random.default_rng(seed)
    grounds = [rng.standard_normal((n, 2)) for n in sizes]
    chosen = [rng.random(n) < 0.5 for n in sizes]
    sets = Sets.of(grounds, chosen)
    assert sets.sizes.tolist() == sizes
    for i in range(len(sizes)):
        one = sets.take(torch.tensor([i]))
        assert one.mask.shape == (1, sizes[i])
        np.testing.assert_allclose(one.features[0].numpy(), grounds[i], rtol=1e-6)
        assert one.chosen[0].tolist() == chosen[i].tolist()


def test_padded_sets_that_cannot_be():
    features, mask = torch.zeros((1, 3, 2)), torch.tensor([[True, True, False]])
    with pytest.raises(InputError, match="element 2 is chosen, but it is padding"):
        Sets(features=features, mask=mask, chosen=torch.tensor([[True, False, True]]))
    with pytest.raises(InputError, match="give bool of"):
        Sets(features=features, mask=mask, chosen=torch.tensor([[1, 0, 0]]))
    with pytest.raises(InputError, match="numbers and"):
        Sets(features=features, mask=mask.float())
    with pytest.raises(InputError, match="2 sets and 1 subsets"):
        Sets.of([FEATURES, FEATURES], [[0, 1, 0]])
    Sets(features=features.masked_fill(~mask.unsqueeze(-1), math.nan), mask=mask)  # padding may hold anything


@SHORT
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_padded_sets_of_any_real_numbers_are_those_of_float32(dtype):
    numbers = torch.tensor([[[0, 1], [1, 0], [1, 1]]] * 4)
    settings = {"mask": torch.ones((4, 3), dtype=torch.bool), "chosen": torch.tensor([[True, False, False]] * 4)}
    plain, other = (Sets(features=features, **settings) for features in (numbers.float(), numbers.to(dtype)))
    assert other.features.dtype == torch.float32
    found = [SubsetSelector(training=Training(epochs=1)).fit(sets).predict(sets)[1] for sets in (plain, other)]
    assert (found[0] == found[1]).all()


def test_features_that_float32_cannot_hold():
    features, mask = torch.zeros((1, 2, 2), dtype=torch.float64), torch.ones((1, 2), dtype=torch.bool)
    with pytest.raises(InputError, match=r"torch\.complex64; give real numbers"):
        Sets(features=features.to(torch.complex64), mask=mask)
    features[0, 1, 0] = 1e300
    with pytest.raises(InputError, match="set 0, element 1: a feature is NaN or infinite as float32"):
        Sets(features=features, mask=mask)
