"""The elliptical bonus of agents that walk: the specification's numbers, NumPy, scikit-learn, and rllte's loop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct
from walks import Same, paid, path, random_walk

from reckon.bonuses import elliptical_sequence
from reckon.errors import InputError, RunError
from reckon.explore import Elliptical, RandomFeatures, mlp
from reckon.types import Rng

RIDGE = 0.1
NOTHING = [0.0, 0.0]  # a first state that leaves the memory as it is
X, Y, XY = [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]
BY_HAND = [10, 0.909091, 10.476190, 1.286307]  # 1 / .1; 1 / 1.1; 1 / 2.1 + 10; (0, 1) with what is left of (1, 1)


def scored(bonus, walk, final=True):
    walk.start(bonus)
    return bonus.score(walk.rollout(final=final))


def solved(feature, others):
    """phi' (ridge I + others' others)^-1 phi, by NumPy."""
    covariance = RIDGE * np.eye(len(feature)) + sum(np.outer(other, other) for other in others)
    return float(feature @ np.linalg.solve(covariance, feature))


def rllte(walk, size):
    """The loop of rllte-core's E3B (RLE-Foundation/rllte, e3b.py) with its encoder and its scale left out, in NumPy.

    Its bonus is on the state acted on, and the first state of an episode is paid for like any other.
    """
    done, obs = (walk.terminated | walk.truncated).numpy(), walk.obs.double().numpy()
    bonus = np.zeros(done.shape)
    inverses = np.stack([np.eye(size) / RIDGE] * done.shape[1])
    for t, n in np.ndindex(*done.shape):
        u = inverses[n] @ obs[t, n]
        bonus[t, n] = obs[t, n] @ u
        inverses[n] -= np.outer(u, u) / (1 + bonus[t, n])
        if done[t, n]:
            inverses[n] = np.eye(size) / RIDGE
    return bonus


def test_the_specification_s_four_states():
    bonus = Elliptical(Same(2), ridge=RIDGE)
    assert paid(bonus, path([NOTHING, X, X, XY, Y])) == pytest.approx(BY_HAND, abs=1e-6)
    inverse = bonus.state_dict()["matrix"][0]
    assert inverse.flatten().tolist() == pytest.approx([0.381125, -0.181488, -0.181488, 0.562613], abs=1e-6)
    assert torch.equal(inverse, inverse.T)


def test_the_first_state_is_remembered_and_not_paid_for():
    assert paid(Elliptical(Same(2), ridge=RIDGE), path([X, X, Y])) == pytest.approx([1 / 1.1, 10])


@pytest.mark.parametrize("truncated", [False, True], ids=["terminated", "truncated"])
def test_an_episode_begins_with_an_empty_memory(truncated):
    """X, then Y, which ends it; the next begins at XY: C = .1 I + XY XY', and X is 10 - 100 / 21 in it."""
    rollout = path([NOTHING, X, XY, X], ends=[1], final=[Y], truncated=truncated)
    found = paid(Elliptical(Same(2), ridge=RIDGE), rollout)
    assert found == pytest.approx([10, 10, 10 - 100 / 21])


def test_of_one_hot_features_it_is_a_count():
    assert paid(Elliptical(Same(2), ridge=RIDGE), path([NOTHING, X, X, X, X])) == pytest.approx(
        [10, 1 / 1.1, 1 / 2.1, 1 / 3.1]
    )


def test_released_code_pays_for_the_state_acted_on():
    """X unpaid, though it is remembered; X; XY. The last state is never paid for."""
    bonus = Elliptical(Same(2), ridge=RIDGE, on="current")
    assert paid(bonus, path([X, X, XY, Y])) == pytest.approx([0, *BY_HAND[1:3]], abs=1e-6)


@pytest.mark.parametrize("final", [True, False], ids=["final observations at hand", "not"])
def test_every_environment_and_episode_by_numpy(final):
    walk = random_walk(30, 3, seed=1)
    found, done = scored(Elliptical(Same(3), ridge=RIDGE), walk, final), walk.terminated | walk.truncated
    assert done.sum() > 5
    for n in range(3):
        memory = [walk.obs[0, n].double().numpy()]
        for t in range(30):
            over = bool(done[t, n])
            entered = (walk.last[t, n] if over else walk.obs[t + 1, n]).double().numpy()
            wanted = 0.0 if over and not final else solved(entered, memory)
            assert found[t, n].item() == pytest.approx(wanted, rel=1e-6)
            memory = [walk.obs[t + 1, n].double().numpy()] if over else [*memory, entered]


def test_it_is_the_kernel_form_of_its_episodes():
    walk = random_walk(12, 2, numbers=20, ends=0.0)
    found = scored(Elliptical(Same(20), ridge=RIDGE), walk)
    for n in range(2):
        wanted = elliptical_sequence(walk.obs[:, n].double(), RIDGE)[1:]
        torch.testing.assert_close(found[:, n], wanted.float())


def test_it_is_rllte_s_loop_less_the_first_states():
    walk = random_walk(40, 3, seed=2)
    found, theirs = scored(Elliptical(Same(3), ridge=RIDGE, on="current"), walk), rllte(walk, 3)
    done = (walk.terminated | walk.truncated).numpy()
    first = np.concatenate([np.ones((1, 3), dtype=bool), done[:-1]])
    assert found.numpy() == pytest.approx(np.where(first, 0, theirs), rel=1e-6)
    # Without ends, what it pays for the next state is what theirs pays a step later.
    walk = random_walk(40, 3, ends=0.0, seed=3)
    found, theirs = scored(Elliptical(Same(3), ridge=RIDGE), walk), rllte(walk, 3)
    assert found[:-1].numpy() == pytest.approx(theirs[1:], rel=1e-6)


def test_it_is_the_variance_of_a_gaussian_process_over_its_noise():
    walk = random_walk(6, 1, ends=0.0)
    found = scored(Elliptical(Same(3), ridge=RIDGE), walk)[:, 0]
    states = walk.obs[:, 0].double().numpy()
    for t in range(6):
        kernel = DotProduct(sigma_0=0.0, sigma_0_bounds="fixed")
        process = GaussianProcessRegressor(kernel=kernel, alpha=RIDGE, optimizer=None)
        process.fit(states[: t + 1], np.zeros(t + 1))
        _, std = process.predict(states[t + 1 : t + 2], return_std=True)
        assert found[t].item() == pytest.approx(std[0] ** 2 / RIDGE, rel=1e-6)


def test_a_lifelong_memory_is_one_for_all_environments_and_episodes():
    """Two begin at X: n = 2. Both enter X at once, 1 / 2.1 each: n = 4. One enters Y, which ends its episode, one X;
    the new episode begins at X: n = 6. Both enter X."""
    walk = random_walk(3, 2, numbers=2, ends=0.0)
    walk.obs = torch.tensor([[X, X], [X, X], [X, X], [X, X]])
    walk.last[1, 0] = torch.tensor(Y)
    walk.terminated[1, 0] = True
    bonus = Elliptical(Same(2), ridge=RIDGE, memory="run")
    found = scored(bonus, walk)
    assert found.flatten().tolist() == pytest.approx([1 / 2.1, 1 / 2.1, 10, 1 / 4.1, 1 / 6.1, 1 / 6.1])
    walk.start(bonus)  # two more episodes begin at X: n = 10 after the 8 before
    assert bonus.score(walk.rollout(0, 1))[0].tolist() == pytest.approx([1 / 10.1] * 2)


def test_a_lifelong_memory_that_cannot_be_factored_says_so():
    """1e20 in all four numbers of C, beside which the ridge is lost: no float tells what is new then."""
    huge = [1e10, 1e10]
    bonus = Elliptical(Same(2), ridge=RIDGE, memory="run")
    with pytest.raises(RunError, match=r"its features are so large that they cannot be compared any more. Put a layer"):
        paid(bonus, path([huge, huge, huge]))


def test_half_the_memory_is_nearly_as_good():
    walk = random_walk(200, 2, numbers=16, ends=0.0)
    exact = scored(Elliptical(Same(16), ridge=RIDGE), walk)
    rough = scored(Elliptical(Same(16), ridge=RIDGE, dtype=torch.float32), walk)
    assert ((rough - exact).abs() / exact).max() < 1e-4
    assert not torch.equal(rough, exact)


@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(1, 5))
def test_properties(seed, steps, size):
    walk = random_walk(steps, 1, numbers=size, ends=0.0, seed=seed)
    walk.obs = walk.obs.double()
    found = scored(Elliptical(Same(size), ridge=RIDGE), walk)[:, 0]
    assert (found >= 0).all()
    states = [*walk.obs[:, 0].tolist()]
    again = paid(Elliptical(Same(size), ridge=RIDGE), path([*states, states[-1]]))
    assert again[-1] < found[-1] or found[-1] < 1e-6  # a state that is repeated is less new
    more = paid(Elliptical(Same(size), ridge=RIDGE), path([states[1], *states]))  # one more state before all others
    assert all(after <= before + 1e-6 for after, before in zip(more[1:], found.tolist(), strict=True))
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    walk.obs = walk.obs @ torch.from_numpy(rotation)
    torch.testing.assert_close(scored(Elliptical(Same(size), ridge=RIDGE), walk)[:, 0], found)


# Bad input


def test_features_of_another_size_are_refused():
    bonus = Elliptical(RandomFeatures(mlp([3, 4], seed=0), size=5))
    with pytest.raises(InputError, match=r"its features are \[2, 4\] for 2 observations.*of size 5. Give `size`"):
        random_walk(2, 2).start(bonus)


def test_features_that_are_not_finite_are_refused():
    network = mlp([3, 4], seed=0)
    bonus = Elliptical(RandomFeatures(network, size=4))
    network[1].weight[0, 0] = torch.inf
    with pytest.raises(RunError, match=r"features are not finite any more. Put a layer normalization"):
        random_walk(2, 2).start(bonus)


def test_a_memory_of_other_features_is_refused():
    walk, bonus = random_walk(2, 2), Elliptical(Same(3))
    walk.start(bonus)
    with pytest.raises(InputError, match="the saved memory is of 3 features, and these are 4"):
        Elliptical(Same(4)).load_state_dict(bonus.state_dict())
    with pytest.raises(InputError, match="what was saved is not a memory of the run"):
        Elliptical(Same(3), memory="run").load_state_dict(bonus.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ridge": 0.0}, "`ridge` is 0.0; it must be above 0, and finite"),
        ({"memory": "life"}, "`memory` is 'life'; it must be episode or run"),
        ({"on": "last"}, "`on` is 'last'; it must be next or current"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Elliptical(Same(2), **settings)


def test_it_tells_how_long_its_features_are():
    bonus, rollout = Elliptical(Same(2), ridge=RIDGE), path([NOTHING, [3.0, 4.0], X, X])
    paid(bonus, rollout)
    assert bonus.learn(rollout, Rng(()))["length"] == pytest.approx((0 + 5 + 1 + 1) / 4)
