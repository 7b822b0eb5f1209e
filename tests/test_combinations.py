"""Section 6 of the specification reward-transformation, number by number, with oracles from SciPy, NumPy and TRL."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_expit
from scipy.stats import norm

from reckon import advantages
from reckon import combinations as c

NAN = float("nan")
numbers = st.floats(-20, 20, allow_nan=False, width=32)


def t(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def matrices(elements=numbers, k=3, n=4):
    return st.lists(st.lists(elements, min_size=n, max_size=n), min_size=k, max_size=k).map(t)


# -- one property (checks 1, 2, 6) --


def test_one_property_is_the_log_sigmoid():
    z = t([[-2.0, -1.0, 0.0, 1.0, 2.0, 5.0]])
    # log sigmoid(-2) = -log(1 + e^2) = -log 8.389056; log sigmoid(0) = -log 2
    assert c.and_(z).tolist() == pytest.approx(
        [-2.126928, -1.313262, -0.693147, -0.313262, -0.126928, -0.006715], abs=5e-7
    )
    zero = t([[0.0]]).requires_grad_()
    c.and_(zero).sum().backward()
    assert zero.grad.item() == 0.5


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=5))
def test_log_sigmoid_as_scipy_has_it(values):
    assert c.and_(t([values])).tolist() == pytest.approx(log_expit(np.array(values)).tolist(), rel=1e-12, abs=1e-300)


def closed_form(u, gamma):
    """pi0 exp(u / gamma) / Z by brute force, with a uniform pi0, and its KL."""
    weights = [math.exp(value / gamma) for value in u]
    law = [weight / sum(weights) for weight in weights]
    return law, sum(p * math.log(p * len(law)) for p in law)


def test_the_optimum_on_three_answers():
    rewards = t([[-1.0, 0.0, 2.0]])
    u = c.and_(rewards).tolist()
    # exp u = sigmoid: .268941, .5, .880797, which sum to 1.649738
    law, kl = closed_form(u, 1.0)
    assert law == pytest.approx([0.163021, 0.303078, 0.533901], abs=1e-6)
    assert kl == pytest.approx(0.106062, abs=1e-6)
    assert kl <= 0.597996  # -log mean sigmoid = -log(1.649738 / 3): the budget a prompt can spend
    assert -math.log(sum(map(math.exp, u)) / 3) == pytest.approx(0.597996, abs=1e-6)
    assert closed_form(u, 0.5)[0] == pytest.approx([0.065866, 0.227659, 0.706475], abs=1e-6)
    assert closed_form(c.linear(rewards).tolist(), 1.0)[0] == pytest.approx([0.042010, 0.114195, 0.843795], abs=1e-6)


def test_a_far_reference_gives_back_the_raw_reward():
    rewards = t([-1.0, 0.0, 2.0])
    assert (c.and_((rewards - 20)[None]) + 20).tolist() == pytest.approx(rewards.tolist(), abs=1e-6)


# -- several properties (checks 3, 4, 5, 12) --


def test_and_prefers_no_failure_where_the_sum_prefers_excellence():
    a, b = [4.0, -3.0], [0.2, 0.2]
    z = t([a, b]).T
    assert c.linear(z).tolist() == pytest.approx([1.0, 0.4])
    # log sigmoid(4) + log sigmoid(-3) = -.018150 - 3.048587; 2 log sigmoid(.2) = 2 * -.598139
    assert c.and_(z).tolist() == pytest.approx([-3.066737, -1.196278], abs=1e-6)


def test_and_or_not_by_hand():
    z = t([[0.0, 2.0], [0.0, -1.0]])
    # 1/2 * 1/2; .880797 * .268941 = .236882
    assert c.and_(z).tolist() == pytest.approx([math.log(0.25), -1.440190], abs=1e-6)
    # 1 - 1/4; 1 - .119203 * .731059 = .912856
    assert c.or_(z).tolist() == pytest.approx([-0.287682, -0.091177], abs=1e-6)
    assert (c.not_(z[0]).exp() + c.and_(z[:1]).exp()).tolist() == pytest.approx([1.0, 1.0])
    # odds of 1/4: log(1/3)
    assert c.and_odds(z)[0].item() == pytest.approx(math.log(1 / 3))
    assert c.or_odds(z)[0].item() == pytest.approx(math.log(3))


def test_weights_temper_the_and():
    z = t([[0.0], [0.0]])
    # 2 * log .5 + .5 * log .5 = 2.5 log .5; p = .5^2.5 = .176777, odds log(.176777 / .823223)
    assert c.and_(z, t([2.0, 0.5])).item() == pytest.approx(2.5 * math.log(0.5))
    assert c.and_odds(z, t([2.0, 0.5])).item() == pytest.approx(math.log(0.17677670 / 0.82322330), abs=1e-7)


@given(matrices())
def test_de_morgan(z):
    assert c.log1mexp(c.or_(z)).tolist() == pytest.approx(c.and_(-z).tolist(), rel=1e-10, abs=1e-10)


@given(matrices())
def test_or_as_the_formula_has_it(z):
    """log1mexp of the sum of log sigmoid(-z_k), in NumPy."""
    failing = log_expit(-z.numpy()).sum(axis=0)
    naive = np.where(failing > -math.log(2), np.log(-np.expm1(failing)), np.log1p(-np.exp(failing)))
    assert c.or_(z).tolist() == pytest.approx(naive.tolist(), rel=1e-10, abs=1e-300)


@given(matrices(k=4))
def test_nesting_by_odds_equals_all_at_once(z):
    pair = torch.stack([c.and_odds(z[:2]), c.and_odds(z[2:])])
    assert c.and_(pair).tolist() == pytest.approx(c.and_(z).tolist(), rel=1e-9, abs=1e-12)
    pair = torch.stack([c.or_odds(z[:2]), c.or_odds(z[2:])])
    assert c.or_(pair).tolist() == pytest.approx(c.or_(z).tolist(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("a", [-1e-12, -1e-3, -0.5, -math.log(2), -0.7, -5.0, -20.0, -40.0, -700.0])
def test_log1mexp_in_both_branches(a):
    """Against exact arithmetic: 1 - exp(a) as a series, sum of (-1)^(k+1) |a|^k / k!, in rationals."""
    from fractions import Fraction

    if a > -1:
        x, term, total = Fraction(-a), Fraction(1), Fraction(0)
        for k in range(1, 40):
            term = term * x / k
            total += term if k % 2 else -term
        exact = math.log(float(total))
    else:  # log(1 - y) = -y - y^2/2 - ...
        y = math.exp(a)
        exact = -sum(y**k / k for k in range(1, 60))
    assert c.log1mexp(t([a])).item() == pytest.approx(exact, rel=1e-13, abs=1e-320)


EXTREME = [-1e4, -200.0, -20.0, 0.0, 20.0, 200.0, 1e4]
COMBINED = {
    "and": c.and_,
    "and, weights": lambda z: c.and_(z, torch.tensor([0.5, 2.0])),
    "or": c.or_,
    "not": c.not_,
    "odds of and": c.and_odds,
    "odds of and, weights": lambda z: c.and_odds(z, torch.tensor([0.5, 2.0])),
    "odds of or": c.or_odds,
    "min": c.min_,
    "softmin": lambda z: c.softmin(z, 0.5),
    "uwo": lambda z: c.ensemble_uwo(z, 1.0),
    "linear": c.linear,
    "sigmoid centered": lambda z: c.sigmoid_centered(z[0], z[1:]),
}


@pytest.mark.parametrize("name", COMBINED)
def test_extremes_are_finite_in_float32(name):
    z = torch.tensor([[x, y] for x in EXTREME for y in EXTREME]).T.requires_grad_()
    out = COMBINED[name](z)
    out.sum().backward()
    assert out.isfinite().all()
    assert z.grad.isfinite().all()


def test_a_certain_or_is_not_lost_below():
    """Both properties sure in float32: 1 - p underflows, and the odds still say how sure."""
    z = torch.tensor([[200.0], [150.0]])
    assert c.and_odds(z).item() == pytest.approx(150.0)  # 1 - p = e^-200 + e^-150
    assert c.or_odds(z).item() == pytest.approx(350.0)  # 1 - p = e^-350
    assert c.not_(c.or_odds(z)).item() == pytest.approx(-350.0)
    # 1 - p = 2 e^-200 + .5 e^-150: log odds 150 - log .5 = 150.693147
    assert c.and_odds(z, torch.tensor([2.0, 0.5])).item() == pytest.approx(150.693147)
    assert c.and_odds(torch.tensor([[200.0], [NAN]])).item() == pytest.approx(200.0)


# -- what does not apply (2.4) --


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        (c.linear, [3.0, 2.0]),
        (c.and_, [math.log(1 / (1 + math.exp(-1))) + math.log(1 / (1 + math.exp(-2))), -0.126928]),
        (c.or_, [math.log(1 - 0.268941421 * 0.119202922), -0.126928]),  # 1 - sigmoid(-1) sigmoid(-2)
        (c.min_, [1.0, 2.0]),
        (lambda z: c.softmin(z, 1.0), [-math.log((math.exp(-1) + math.exp(-2)) / 2), 2.0]),
        (lambda z: c.ensemble_uwo(z, 2.0), [1.5 - 2 * 0.25, 2.0]),  # mean 1.5, variance .25
        (lambda z: c.product(z / 4), [0.125, 0.5]),
    ],
)
def test_what_does_not_apply_is_left_out(combine, expected):
    z = t([[1.0, NAN, NAN], [2.0, 2.0, NAN]]).requires_grad_()
    out = combine(z)
    assert out[:2].tolist() == pytest.approx(expected, abs=1e-6)
    assert out[2].isnan()
    out[:2].sum().backward()
    assert z.grad.isfinite().all()  # the gradient of a discarded NaN is not NaN
    assert z.grad[0, 1] == 0


def test_not_of_what_does_not_apply():
    assert c.not_(t([NAN])).isnan().all()
    assert c.log_odds(t([NAN]), 0.01).isnan().all()


# -- the others of 2.5 --


def test_softmin_between_the_minimum_and_the_mean():
    z = t([[1.0], [2.0], [6.0]])
    # t = 1: -log((e^-1 + e^-2 + e^-6) / 3) = -log(.5056935 / 3)
    assert c.softmin(z, 1.0).item() == pytest.approx(1.780437, abs=1e-6)
    assert c.softmin(z, 1e-3).item() == pytest.approx(1.0 + 1e-3 * math.log(3))
    assert c.softmin(z, 1e6).item() == pytest.approx(3.0, abs=1e-5)
    with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
        c.softmin(z, 0)


def test_ensembles():
    models = t([[1.0, 5.0], [3.0, 5.0]])
    assert c.ensemble_min(models).tolist() == [1.0, 5.0]
    assert c.ensemble_uwo(models, 0.5).tolist() == [1.5, 5.0]  # mean 2, variance 1


def test_probabilities():
    assert c.product(t([[0.5, 1.0], [0.5, 0.0]])).tolist() == [0.25, 0.0]
    odds = c.log_odds(t([0.0, 0.5, 1.0]), 0.01)
    # log(.01 / .99)
    assert odds.tolist() == pytest.approx([-4.595120, 0.0, 4.595120], abs=1e-6)


def test_against_base_samples():
    references = t([[0.0, 0.0], [2.0, NAN]])
    rewards = t([1.0, 0.0])
    # (sigmoid(1) + sigmoid(-1)) / 2 = 1/2; sigmoid(0)
    assert c.sigmoid_centered(rewards, references).tolist() == pytest.approx([0.5, 0.5])
    assert c.quantile_reward(rewards, references).tolist() == [0.5, 1.0]  # one of two; a tie counts
    assert c.quantile_reward(t([NAN, 1.0]), t([[0.0, NAN]])).isnan().all()


def test_running_statistics():
    rewards = t([0.0, 2.0, 5.0, NAN])
    assert c.standardized(rewards, 1.0, 2.0, 0.0)[:3].tolist() == [-0.5, 0.5, 2.0]
    assert c.minmax(rewards, 0.0, 4.0)[:3].tolist() == [0.0, 0.5, 1.25]
    assert c.minmax(rewards, 1.0, 1.0)[:3].tolist() == [0.0, 0.0, 0.0]
    assert c.clip(rewards, 1.0, 3.0)[:3].tolist() == [1.0, 2.0, 3.0]
    for values in (c.standardized(rewards, 1.0, 2.0), c.minmax(rewards, 0.0, 4.0), c.clip(rewards, 1.0, 3.0)):
        assert values[3].isnan()


def test_costs_that_exceed_their_limits():
    costs, limits, prices = t([[0.4, NAN], [0.1, 0.3]]), t([0.2, 0.5]), t([2.0, 1.0])
    # 1 - 2 (.4 - .2) - (.1 - .5) = 1; 0 - (.3 - .5) = .2: below the limit is a gain
    assert c.constrained(t([1.0, 0.0]), costs, limits, prices).tolist() == pytest.approx([1.0, 0.2])
    # 2 + 1 (.4 - .2); max(0, 1 + 5 (.2 - .5)) with lr 5
    assert c.updated_multipliers(prices, costs, limits, 1.0).tolist() == pytest.approx([2.2, 0.7])
    assert c.updated_multipliers(prices, costs, limits, 5.0).tolist() == pytest.approx([3.0, 0.0])
    assert c.updated_multipliers(prices, t([[NAN], [NAN]]), limits, 1.0).tolist() == [2.0, 1.0]


# -- groups (checks 9, 10) --


@given(st.lists(st.tuples(st.integers(0, 2), st.one_of(numbers, st.just(NAN))), min_size=1, max_size=9))
def test_zscore_as_the_advantages_have_it(rows):
    group, rewards = torch.tensor([g for g, _ in rows]), t([r for _, r in rows])
    wanted = advantages.group_normalized(rewards, group, eps=1e-4)
    assert torch.allclose(c.zscore(rewards, group), wanted, equal_nan=True)


def test_zscore_of_equal_rewards_is_exactly_zero():
    assert c.zscore(torch.full((7,), 0.1), torch.zeros(7, dtype=torch.int64)).tolist() == [0.0] * 7


@pytest.mark.parametrize("transform", [lambda r: c.and_(r[None]), lambda r: 3 * r - 1, lambda r: r.exp(), c.not_])
def test_binary_rewards_are_beyond_transforms_in_grpo(transform):
    """Two values stay two values, and the z-score forgets which; a decreasing transform only turns the sign."""
    rewards, group = t([0.0, 1.0, 1.0, 0.0, 1.0]), torch.tensor([0, 0, 0, 1, 1])
    before = advantages.group_normalized(rewards, group, eps=0)
    after = advantages.group_normalized(transform(rewards), group, eps=0)
    sign = -1 if transform is c.not_ else 1
    assert after.tolist() == pytest.approx((sign * before).tolist())


def test_normalized_before_the_sum_two_rewards_weigh_twice():
    """Two rollouts, two rewards: (0, 0), (1, 0) and (0, 0), (1, 1). Deviations are the sample's: |1 - 0| / sqrt 2."""
    group = torch.tensor([0, 0, 1, 1])
    rewards = t([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    summed = advantages.group_normalized(c.linear(rewards), group, eps=0)
    assert summed.tolist() == pytest.approx([-0.70711, 0.70711, -0.70711, 0.70711], abs=1e-5)
    apart = c.normalize_then_sum(rewards, group, eps=1e-12, whiten=False)
    assert apart.tolist() == pytest.approx([-0.70711, 0.70711, -1.41421, 1.41421], abs=1e-5)
    # Whitened: mean 0, squares .5 + .5 + 2 + 2 = 5, deviation sqrt(5 / 3) = 1.290994
    white = c.normalize_then_sum(rewards, group, eps=1e-12)
    assert white.tolist() == pytest.approx([-0.547723, 0.547723, -1.095445, 1.095445], abs=1e-6)
    weighted = c.normalize_then_sum(rewards, group, t([1.0, 0.5]), eps=1e-12, whiten=False)
    assert weighted.tolist() == pytest.approx([-0.70711, 0.70711, -1.06066, 1.06066], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows", [[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], [[0.3, 1.0], [0.1, NAN], [2.0, 0.0], [NAN, NAN]]]
)
def test_normalize_then_sum_as_trl_does_it(rows, tmp_path):
    """TRL's own lines, run on its own trainer's fields: they stand in the middle of a method, so they are cut out."""
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    import inspect
    import textwrap
    from types import SimpleNamespace

    from trl.trainer import grpo_trainer

    if not hasattr(grpo_trainer, "nanstd"):
        pytest.skip(f"TRL {trl.__version__} has no normalize_then_sum")
    source = inspect.getsource(grpo_trainer.GRPOTrainer._generate_and_score_completions)
    begin, end = (
        'elif self.multi_objective_aggregation == "normalize_then_sum":',
        "else:\n            raise ValueError(",
    )
    if begin not in source:
        pytest.skip(f"TRL {trl.__version__} computes it elsewhere")
    body = source.split(begin)[1]
    body = textwrap.dedent(body[: body.index(end)].rstrip("\n ") + "\n")
    scope = {
        "torch": torch,
        "nanstd": grpo_trainer.nanstd,
        "device": "cpu",
        "num_generations": 2,
        "rewards_per_func": torch.tensor(rows),
        "unscorable_mask": torch.tensor(rows).isnan().all(dim=1),
        "self": SimpleNamespace(reward_funcs=[0, 0], reward_weights=torch.tensor([1.0, 0.5])),
    }
    exec(compile(body, "trl", "exec"), scope)
    ours = c.normalize_then_sum(torch.tensor(rows).T, torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 0.5]))
    assert ours.tolist() == pytest.approx(scope["advantages"].tolist(), abs=1e-5, nan_ok=True)


# -- reference levels (check 7) --


def test_levels_of_four_samples():
    samples = t([0.0, 1.0, 2.0, 3.0])
    assert c.level(samples, "quantile").item() == pytest.approx(2.55)  # 3 * .85 = 2.55 of the way
    # mean 1.5, z = 1.0364334; deviations sqrt(5/4) = 1.118034 and sqrt(5/3) = 1.290994
    assert c.level(samples, "gaussian").item() == pytest.approx(2.658768, abs=1e-6)
    assert c.level(samples, "gaussian", sample_std=True).item() == pytest.approx(2.838030, abs=1e-6)
    assert c.level(samples, "mean").item() == 1.5
    assert c.level(t([0.0, 1.0, 5.0]), "median").item() == 1.0
    assert c.level(t([2.0, NAN]), "gaussian").item() == 2.0
    for how in ("quantile", "gaussian", "mean", "median"):
        assert c.level(t([NAN, NAN]), how).isnan()
    with pytest.raises(ValueError, match="q must lie between 0 and 1, not 1"):
        c.level(samples, "quantile", 1)


@given(st.lists(numbers, min_size=1, max_size=12), st.floats(0.01, 0.99))
def test_levels_as_numpy_and_scipy_have_them(values, q):
    samples = t([values, values]).T
    assert c.level(samples, "quantile", q).tolist() == pytest.approx([np.quantile(values, q)] * 2)
    wanted = np.mean(values) + norm.ppf(q) * np.std(values)
    assert c.level(samples, "gaussian", q).tolist() == pytest.approx([wanted] * 2, abs=1e-9)


# -- invariances (checks 8, 11) --


@given(matrices(k=2, n=5), numbers, numbers)
def test_a_shift_of_a_prompt_s_rewards_changes_nothing(rewards, first, second):
    shifted = rewards + t([[first], [second]])
    for how in ("quantile", "gaussian", "mean", "median"):
        z, moved = (r - torch.stack([c.level(row, how) for row in r])[:, None] for r in (rewards, shifted))
        assert c.and_(moved).tolist() == pytest.approx(c.and_(z).tolist(), abs=1e-9)
        assert c.or_(moved).tolist() == pytest.approx(c.or_(z).tolist(), abs=1e-9)


def test_scale_is_not_an_invariance():
    z = t([[1.0, -1.0], [-2.0, 0.5]])
    assert c.and_(z).argmax() != c.and_(t([[1.0], [0.1]]) * z).argmax()


@given(matrices(k=3, n=4), st.permutations(range(3)))
def test_the_order_of_properties_does_not_matter(z, order):
    for combine in (c.linear, c.and_, c.or_, c.min_, lambda z: c.softmin(z, 0.7), lambda z: c.ensemble_uwo(z, 0.3)):
        assert combine(z[list(order)]).tolist() == pytest.approx(combine(z).tolist(), rel=1e-9, abs=1e-12)


@given(st.lists(st.integers(-40, 40), min_size=2, max_size=8, unique=True))
def test_the_best_of_one_reward_stays_the_best(values):
    r = t(values) / 4
    level = r.mean()
    strictly = (
        lambda r: c.and_((r - level)[None]),
        lambda r: -c.not_(r - level),
        lambda r: c.sigmoid_centered(r, level[None, None]),
    )
    group = torch.zeros(len(values), dtype=torch.int64)
    others = (lambda r: c.standardized(r, 1.0, 2.0), lambda r: c.minmax(r, -9.0, 9.0), lambda r: c.zscore(r, group))
    for transform in (*strictly, *others):
        assert transform(r).argsort().tolist() == r.argsort().tolist()


@pytest.mark.parametrize(("k", "bound"), [(4, 0.6363), (16, 1.8351), (64, 3.1745)])
def test_best_of_k_stays_below_its_bound(k, bound):
    """log K - (K - 1)/K is the KL of best-of-K for continuous rewards; on 400 candidates it is a little less."""
    from reckon.studies.reward_transformation import best_of, divergence

    assert math.log(k) - (k - 1) / k == pytest.approx(bound, abs=1e-4)
    law = best_of(torch.randn(1, 400, generator=torch.Generator().manual_seed(0)).double(), k)
    assert bound - 0.01 < divergence(law).item() < bound
