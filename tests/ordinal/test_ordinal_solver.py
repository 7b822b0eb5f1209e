"""The solver against finite differences, brute force, other solvers, and what must not change a fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ordinal_data import draw, log_likelihood, objective, recipe, two_cells
from scipy import sparse
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from reckon.ordinal import PrestoClassifier, PrestoClassifierCV
from reckon.ordinal._inputs import prepare
from reckon.ordinal._likelihood import class_probabilities, curvatures, log_probabilities, slopes
from reckon.ordinal._path import Penalty, null_model, solve_path
from reckon.ordinal._quadratic import minimize_quadratic

SEEDS = st.integers(min_value=0, max_value=10_000)


def rows_of(seed, **more):
    x, y = draw(seed, **more)
    weights = np.random.default_rng(seed).uniform(0.5, 2, len(y))
    return prepare(x, y, weights, int(y.max()) + 1, standardize=True).rows


def inside(rows, seed):
    """Increments whose boundaries keep their order, with slopes of their own."""
    theta = 0.05 * np.random.default_rng(seed).normal(size=(rows.boundaries, rows.columns))
    theta[:, 0] = 1.0
    return theta


@settings(max_examples=20)
@given(SEEDS)
def test_gradient_and_hessian_are_those_of_finite_differences(seed):
    rows = rows_of(seed, n=40)
    theta = inside(rows, seed)
    gradient, hessian = rows.gradient(*rows.ends(theta)), rows.hessian(*rows.ends(theta))
    h = 1e-5
    for i, unit in enumerate(np.eye(theta.size)):
        step = h * unit.reshape(theta.shape)
        up, down = rows.ends(theta + step), rows.ends(theta - step)
        assert (rows.loss(*up) - rows.loss(*down)) / (2 * h) == pytest.approx(gradient.ravel()[i], abs=1e-8)
        column = (rows.gradient(*up) - rows.gradient(*down)).ravel() / (2 * h)
        assert column == pytest.approx(hessian[:, i], abs=1e-7)
    assert np.linalg.eigvalsh(hessian).min() > -1e-12


@settings(max_examples=10)
@given(SEEDS)
def test_sparse_rows_far_from_0_are_the_dense_ones(seed):
    """Centered without being written out, as they are where they are written out; the first column has no zeros."""
    x, y = draw(seed, n=40)
    chance = np.random.default_rng(seed).uniform(size=x.shape)
    x = np.where(chance < [0.0, 0.5, 0.5], 0.0, x + np.array([100.0, 0.0, -7.0]))
    weights = np.random.default_rng(seed).uniform(0.5, 2, len(y))
    dense, lean = (prepare(form, y, weights, 4, standardize=True) for form in (x, sparse.csr_array(x)))
    assert sparse.issparse(lean.rows.design)
    assert lean.rows.design.nnz < 3 * 40 + 40
    assert lean.scale == pytest.approx(dense.scale, rel=1e-10)
    theta = inside(dense.rows, seed)
    assert np.stack(lean.rows.ends(theta)) == pytest.approx(np.stack(dense.rows.ends(theta)), abs=1e-10)
    assert lean.rows.gaps(theta) == pytest.approx(dense.rows.gaps(theta), abs=1e-10)
    ends = dense.rows.ends(theta)
    assert lean.rows.gradient(*ends) == pytest.approx(dense.rows.gradient(*ends), abs=1e-10)
    assert lean.rows.hessian(*ends) == pytest.approx(dense.rows.hessian(*ends), abs=1e-9)
    some = np.array([True, False, True, True])
    part, whole = lean.rows.only(some), dense.rows.only(some)
    assert part.hessian(*ends) == pytest.approx(whole.hessian(*ends), abs=1e-9)


@given(st.floats(-30, 30), st.floats(1e-3, 30))
def test_the_likelihood_is_the_naive_one_where_that_can_be_trusted(lo, gap):
    """The naive difference loses what its result is smaller than its terms by."""
    hi = lo + gap
    naive = 1 / (1 + np.exp(-hi)) - 1 / (1 + np.exp(-lo)) if lo < 0 else 1 / (1 + np.exp(lo)) - 1 / (1 + np.exp(hi))
    assert log_probabilities(np.array([lo]), np.array([hi]))[0] == pytest.approx(np.log(naive), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("lo", "hi"), [(-800.0, 800.0), (700.0, 701.0), (-1e-9, 1e-9), (-np.inf, 900.0), (-900.0, np.inf)]
)
def test_saturated_scores_stay_finite(lo, hi):
    lo, hi = np.array([lo]), np.array([hi])
    for values in (log_probabilities(lo, hi), *slopes(lo, hi), *curvatures(lo, hi)):
        assert np.isfinite(values).all()


def test_a_closed_gap_has_no_likelihood():
    assert log_probabilities(np.array([1.0, 2.0]), np.array([1.0, 0.0])).tolist() == [-np.inf, -np.inf]


@settings(max_examples=50)
@given(SEEDS, st.integers(2, 6))
def test_the_quadratic_with_signs_is_solved_as_by_brute_force(seed, size):
    """Every pattern of signs, a linear system each; the best that keeps its signs."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    hessian = root @ root.T + 0.1 * np.eye(size)
    linear, l1 = 2 * rng.normal(size=size), rng.uniform(0, 2, size)
    l1[0] = 0.0
    start = rng.normal(size=size) * (rng.uniform(size=size) < 0.5)

    def value(z):
        return z @ hessian @ z / 2 + linear @ z + (l1 * np.abs(z)).sum()

    best = np.inf
    for pattern in np.ndindex(*(3,) * (size - 1)):
        sign = np.array([1, *(np.array(pattern) - 1)], dtype=float)
        kept = sign != 0
        z = np.zeros(size)
        z[kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], -(linear + l1 * sign)[kept])
        best = min(best, value(z))  # a wrong sign only makes this larger, so no check is needed
    found = minimize_quadratic(hessian, linear, l1, start)
    assert value(found) == pytest.approx(best, rel=1e-10, abs=1e-10)


def test_a_hessian_that_is_no_number_is_no_endless_loop():
    hessian = np.array([[1.0, np.nan], [np.nan, 1.0]])
    with pytest.raises(FloatingPointError, match="not finite"):
        minimize_quadratic(hessian, np.ones(2), np.zeros(2), np.zeros(2))


@settings(max_examples=25)
@given(SEEDS, st.floats(0.002, 0.2), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_optimality_conditions_hold_as_written(seed, lam, l1_ratio, base):
    """Section 6.6, with a gradient by differences of the objective as written."""
    x, y = draw(seed, n=120)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    model = PrestoClassifier(lam=lam, l1_ratio=l1_ratio, base_penalty=base, standardize=False).fit(x, y)

    def smooth(parameters):
        intercepts, psi = parameters[:3], parameters[3:].reshape(3, 3)
        return objective(intercepts, psi, x, y, lam * (1 - l1_ratio), l1_ratio=0.0, base=base)

    at = np.concatenate([model.intercepts_, model.psi_.ravel()])
    gradient = np.array([(smooth(at + 1e-5 * e) - smooth(at - 1e-5 * e)) / 2e-5 for e in np.eye(len(at))])
    bound = lam * l1_ratio * np.concatenate([np.zeros(3), np.full(3, base), np.ones(6)])
    moved = at != 0
    assert gradient[moved] == pytest.approx(-(bound * np.sign(at))[moved], abs=1e-6)
    assert (np.abs(gradient[~moved]) <= bound[~moved] + 1e-6).all()
    assert model.kkt_ <= 1e-8


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
def test_no_general_solver_finds_less(l1_ratio):
    """L-BFGS on positive and negative parts, where the penalty is smooth."""
    x, y = recipe()
    codes = y - 1
    lam = 0.02
    model = PrestoClassifier(lam=lam, l1_ratio=l1_ratio, standardize=False).fit(x, y)
    ours = objective(model.intercepts_, model.psi_, x, codes, lam, l1_ratio=l1_ratio)

    def split(parameters):
        intercepts, up, down = parameters[:3], parameters[3:15].reshape(3, 4), parameters[15:].reshape(3, 4)
        psi = up - down
        smooth = objective(intercepts, psi, x, codes, lam * (1 - l1_ratio), l1_ratio=0.0)
        return smooth + lam * l1_ratio * (up + down).sum()

    start = np.concatenate([[0.0, 1.5, 2.5], np.zeros(24)])
    bounds = [(None, None)] * 3 + [(0, None)] * 24
    theirs = minimize(split, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": 5000, "ftol": 1e-13}).fun
    assert ours <= theirs + 1e-9
    assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
def test_two_classes_are_logistic_regression(l1_ratio):
    """scikit-learn minimizes the sum over rows times C plus the penalty, so C = 1 / (n lambda)."""
    x, y = draw(3, alpha=(1.0,))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    lam = 0.03
    ours = PrestoClassifier(lam=lam, l1_ratio=l1_ratio).fit(x, y)
    theirs = LogisticRegression(
        C=1 / (len(y) * lam), l1_ratio=l1_ratio, solver="saga", tol=1e-10, max_iter=100_000
    ).fit(x, y)
    assert -ours.coef_ == pytest.approx(theirs.coef_, abs=1e-5)  # of P(Y > 1), where ours is of P(Y <= 1)
    assert ours.predict_proba(x) == pytest.approx(theirs.predict_proba(x), abs=1e-5)
    assert ours.decision_function(x) == pytest.approx(theirs.decision_function(x), abs=1e-5)


def test_the_objective_never_rises_and_warm_is_cold():
    x, y = recipe()
    rows = prepare(x, y - 1, np.ones(len(y)), 4, standardize=True).rows
    factors = np.ones((3, 5))
    factors[:, 0] = 0.0
    reached = []
    for most in range(1, 8):
        penalty = Penalty(factors=factors, l1_ratio=1.0, tol=0.0, max_iter=most, everywhere=False)
        (found,) = solve_path(rows, penalty, [0.002], null_model(rows, penalty))
        reached.append(rows.loss(*rows.ends(found.theta)) + 0.002 * np.abs(factors * found.theta).sum())
    assert (np.diff(reached) <= 1e-14).all()
    assert reached[0] - reached[-1] > 1e-4
    penalty = Penalty(factors=factors, l1_ratio=1.0, tol=1e-10, max_iter=100, everywhere=False)
    null = null_model(rows, penalty)
    warm = solve_path(rows, penalty, np.geomspace(0.07, 0.002, 12), null)[-1]
    (cold,) = solve_path(rows, penalty, [0.002], null)
    assert warm.theta == pytest.approx(cold.theta, abs=1e-8)


def test_choosing_columns_is_the_same_as_taking_all():
    """250 columns of three boundaries are beyond what is solved at once."""
    x, y = draw(5, n=150, p=250, spread=0.1)
    model = PrestoClassifier(lam=0.05).fit(x, y)
    told = np.flatnonzero(model.psi_.any(axis=0))
    assert 0 < len(told) < 100
    few = PrestoClassifier(lam=0.05).fit(x[:, told], y)
    assert model.coef_[:, told] == pytest.approx(few.coef_, abs=1e-6)
    assert model.kkt_ <= 1e-8  # over all 250, not over those chosen


@settings(max_examples=15)
@given(SEEDS, st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]))
def test_what_must_not_matter_does_not(seed, l1_ratio, base):
    x, y = draw(seed)
    make = PrestoClassifier(lam=0.01, l1_ratio=l1_ratio, base_penalty=base)
    fitted = make.fit(x, y)
    plain, coef = fitted.predict_proba(x), fitted.coef_
    shifted = x + np.array([100.0, -7.0, 3.0])
    assert make.fit(shifted, y).predict_proba(shifted) == pytest.approx(plain, abs=1e-6)
    scaled = x * [10.0, 0.1, 1.0]
    assert make.fit(scaled, y).coef_ * [10.0, 0.1, 1.0] == pytest.approx(coef, abs=1e-6)
    order = np.random.default_rng(seed).permutation(len(y))
    assert make.fit(x[order], y[order]).coef_ == pytest.approx(coef, abs=1e-6)
    assert make.fit(sparse.csr_array(x), y).coef_ == pytest.approx(coef, abs=1e-6)
    assert make.fit(sparse.csc_matrix(shifted), y).predict_proba(shifted) == pytest.approx(plain, abs=1e-6)


@settings(max_examples=15)
@given(SEEDS)
def test_a_weight_of_two_is_the_row_twice_and_of_nothing_no_row(seed):
    x, y = draw(seed)
    times = np.random.default_rng(seed).integers(0, 4, len(y))
    times[:4] = 1
    weighted = PrestoClassifier().fit(x, y, sample_weight=times)
    repeated = PrestoClassifier().fit(np.repeat(x, times, axis=0), np.repeat(y, times))
    assert weighted.coef_ == pytest.approx(repeated.coef_, abs=1e-7)
    assert weighted.intercepts_ == pytest.approx(repeated.intercepts_, abs=1e-7)
    assert weighted.lambda_max_ == pytest.approx(repeated.lambda_max_, abs=1e-12)


@settings(max_examples=15)
@given(SEEDS)
def test_the_order_reversed_with_a_free_base_reverses_the_weights(seed):
    """beta_k becomes -beta_{K-k}: the differences are the same ones, seen from the other side."""
    x, y = draw(seed)
    there = PrestoClassifier(lam=0.01, base_penalty=0.0).fit(x, y)
    back = PrestoClassifier(lam=0.01, base_penalty=0.0).fit(x, 3 - y)
    assert back.coef_ == pytest.approx(-there.coef_[::-1], abs=1e-6)
    assert back.intercepts_ == pytest.approx(-there.intercepts_[::-1], abs=1e-6)


def test_a_saturated_design_gives_back_the_shares_of_its_cells():
    x, y = two_cells()
    model = PrestoClassifier(lam=0.0).fit(x, y)
    assert model.predict_proba(np.array([[0.0], [1.0]])) == pytest.approx(
        np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]]), abs=1e-7
    )
    merged = PrestoClassifier(lam=0.0).fit(x, np.minimum(y, 2))
    assert merged.coef_[0] == pytest.approx(model.coef_[0], abs=1e-6)


def test_factors_of_the_features():
    """A free feature is never shrunk, a dear one is gone, and twice the factor is half of the column."""
    x, y = draw(1)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    held = PrestoClassifier(lam=10.0, feature_penalties=[0.0, 1.0, 1.0]).fit(x, y)
    assert (held.coef_[:, 0] != 0).all()
    assert not held.coef_[:, 1:].any()
    alone = PrestoClassifier(lam=0.0).fit(x[:, :1], y)
    assert held.coef_[:, 0] == pytest.approx(alone.coef_[:, 0], abs=1e-6)
    twice = PrestoClassifier(lam=0.01, feature_penalties=[2.0, 1.0, 1.0], standardize=False).fit(x, y)
    half = PrestoClassifier(lam=0.01, standardize=False).fit(x * [0.5, 1.0, 1.0], y)
    assert twice.coef_ == pytest.approx(half.coef_ * [0.5, 1.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("values", [(0.1,), (1e9,), (0.0,), (0.3, 0.1 + 0.2)])  # 0.1 + 0.2 is an ulp above 0.3
def test_a_constant_column_gets_nothing(values, form):
    x, y = draw(2)
    with_one = form(np.column_stack([x, np.resize(values, len(y))]))
    model = PrestoClassifier(lam=0.01).fit(with_one, y)
    assert not model.coef_[:, 3].any()
    assert model.coef_[:, :3] == pytest.approx(PrestoClassifier(lam=0.01).fit(x, y).coef_, abs=1e-7)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_columns_far_from_0_are_the_same_columns(form):
    """Seconds since 1970 that differ by minutes, and spreads down to 1e-10 of the mean.

    Columns hold multiples of 2^-12, and an ulp at 1.7e9 is 2^-22, so none of them changes on its way there. What is
    left is the rounding of scores: with A = sum |coef| |mean|, half an eps of A for each of three products and sums
    and of a last sum, once as means leave the intercepts and once in predicting, and for the means themselves: nine.
    """
    x, y = draw(0)
    spread, away = np.array([100.0, 1.0, 1 / 64]), np.array([1.7e9, 1e8, 1e8])
    x = np.round(64 * x) / 64 * spread
    near = PrestoClassifier(lam=0.01, tol=1e-11).fit(x, y)
    far = PrestoClassifier(lam=0.01, tol=1e-11).fit(form(x + away), y)
    assert far.lambda_max_ == pytest.approx(near.lambda_max_, rel=1e-9)
    assert far.coef_ * spread == pytest.approx(near.coef_ * spread, abs=1e-8)
    rounding = 4.5 * np.finfo(float).eps * (np.abs(far.coef_) @ away).max()
    assert rounding < 1e-4
    assert far.boundary_scores(form(x + away)) == pytest.approx(near.boundary_scores(x), abs=rounding + 1e-7)


def test_the_same_column_twice_is_solved_and_shared_or_not_as_good():
    x, y = draw(4)
    once = PrestoClassifier(lam=0.01).fit(x, y)
    twice = PrestoClassifier(lam=0.01).fit(np.column_stack([x, x[:, 0]]), y)
    assert twice.kkt_ <= 1e-8
    assert twice.predict_proba(np.column_stack([x, x[:, 0]])) == pytest.approx(once.predict_proba(x), abs=1e-6)


def test_too_few_steps_are_told():
    x, y = recipe()
    with pytest.warns(ConvergenceWarning, match="1 of 1 PRESTO fits stopped short"):
        PrestoClassifier(lam=0.001, max_iter=1).fit(x, y)


def test_an_accuracy_that_rounding_forbids_ends_soon():
    """No step gains anything after a few; a hundred would be taken if nothing else stopped them."""
    x, y = draw(0)
    with pytest.warns(ConvergenceWarning, match="stopped short"):
        model = PrestoClassifier(tol=0.0).fit(x, y)
    assert model.n_iter_ < 12
    assert model.kkt_ < 1e-10


def test_crossing_boundaries():
    """Scores (2, 1, 3): boundary 1 lies above boundary 2."""
    scores = np.array([[2.0, 1.0, 3.0]])
    s1, s2, s3 = 1 / (1 + np.exp(-np.array([2.0, 1.0, 3.0])))
    assert class_probabilities(scores, "keep_last")[0] == pytest.approx((s2, 0.0, s3 - s2, 1 - s3))
    assert class_probabilities(scores, "cummax")[0] == pytest.approx((s1, 0.0, s3 - s1, 1 - s3))
    assert class_probabilities(scores, "none")[0] == pytest.approx((s1, s2 - s1, s3 - s2, 1 - s3))
    falls = np.array([[1.0, 3.0, 2.0]])
    assert class_probabilities(falls, "keep_last")[0, -1] == pytest.approx(1 - 1 / (1 + np.exp(-2.0)))
    assert class_probabilities(falls, "cummax")[0, -1] == pytest.approx(1 - 1 / (1 + np.exp(-3.0)))


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=6), st.sampled_from(["keep_last", "cummax", "none"]))
def test_rows_of_probabilities_sum_to_one(scores, monotone):
    found = class_probabilities(np.array([scores]), monotone)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    if monotone != "none":
        assert (found >= 0).all()


def test_crossing_training_rows_are_counted():
    x, y = recipe()
    model = PrestoClassifier(lam=0.00078756, monotone="none").fit(x, y)
    raw = model.predict_proba(x)
    assert model.n_crossing_train_ == int((raw < 0).any(axis=1).sum())
    assert model.n_crossing_train_ > 0
    assert PrestoClassifier(lam=1.0).fit(x, y).n_crossing_train_ == 0
    assert np.isfinite(log_likelihood(model, x, y))


def test_the_path_is_the_fits_at_its_lambdas():
    x, y = recipe()
    path = PrestoClassifierCV(n_lambdas=6).fit(x, y)
    for lam, intercepts, coef in zip(path.lambdas_, path.intercept_path_, path.coef_path_, strict=True):
        alone = PrestoClassifier(lam=lam).fit(x, y)
        assert coef == pytest.approx(alone.coef_, abs=1e-6)
        assert intercepts == pytest.approx(alone.intercepts_, abs=1e-6)
    assert not path.coef_path_[0].any()
    assert path.lambdas_[[0, -1]] == pytest.approx([0.0787558026816, 0.000787558026816], abs=1e-9)
