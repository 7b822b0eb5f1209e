"""Section 6 of the specification rare-events-presto, number by number."""

import numpy as np
import pytest
from ordinal_data import log_likelihood, recipe, two_cells

from reckon.ordinal import PrestoClassifier, PrestoClassifierCV
from reckon.ordinal._likelihood import class_probabilities, log_probabilities, slopes

PROPORTIONAL_ODDS = PrestoClassifier(lam=100.0, base_penalty=0.0)


def test_one_row_of_the_middle_class():
    """log(s(2) - s(0)) = log(0.8807970780 - 0.5)."""
    lo, hi = np.array([0.0]), np.array([2.0])
    assert log_probabilities(lo, hi) == pytest.approx([-0.96548865], abs=1e-8)
    by_lo, by_hi = slopes(lo, hi)
    assert by_lo == pytest.approx([-0.65651764], abs=1e-8)
    assert by_hi == pytest.approx([0.27572056], abs=1e-8)


def test_probabilities_of_the_intercepts_alone():
    found = class_probabilities(np.array([[0.0, 3.0, 5.0]]), "keep_last")
    assert found == pytest.approx(np.array([[0.5, 0.45257413, 0.04073302, 0.00669285]]), abs=1e-8)


def test_largest_lambda_by_hand():
    assert PrestoClassifier(lam=1.0).fit(*two_cells()).lambda_max_ == pytest.approx(0.145, abs=1e-12)


def test_largest_lambda_is_less_for_dear_features_and_more_where_less_of_it_is_l1():
    x, y = two_cells()
    assert PrestoClassifier(feature_penalties=[2.0]).fit(x, y).lambda_max_ == pytest.approx(0.0725, abs=1e-12)
    assert PrestoClassifier(l1_ratio=0.5).fit(x, y).lambda_max_ == pytest.approx(0.29, abs=1e-12)
    assert PrestoClassifier(l1_ratio=0.0).fit(x, y).lambda_max_ == pytest.approx(14.5, abs=1e-12)  # as if 1%


@pytest.mark.parametrize(
    ("lam", "intercepts", "coef", "loglik"),
    [
        (0.145, (-0.6190392, 1.0986123), (0.0, 0.0), -216.1055253),
        (0.1, (-0.4630300, 1.2771976), (-0.3123326, -0.3123326), -212.2803792),
        (0.05, (-0.2903891, 1.4851302), (-0.6645900, -0.6645900), -209.6417463),
        (0.01, (-0.0557814, 1.4007747), (-1.2280930, -0.5643105), -206.1003610),
        (0.0, (0.0, 1.3862944), (-1.3862944, -0.5389965), -205.9306028),
    ],
)
def test_the_path_of_two_cells(lam, intercepts, coef, loglik):
    x, y = two_cells()
    model = PrestoClassifier(lam=lam).fit(x, y)
    assert model.intercepts_ == pytest.approx(intercepts, abs=2e-7)
    assert model.coef_[:, 0] == pytest.approx(coef, abs=2e-7)
    assert log_likelihood(model, x, y) == pytest.approx(loglik, abs=1e-6)


def test_ridge_of_two_cells():
    model = PrestoClassifier(lam=0.05, l1_ratio=0.0).fit(*two_cells())
    assert model.psi_[:, 0] == pytest.approx((-1.0519269, 0.5335093), abs=2e-7)
    assert model.intercepts_ == pytest.approx((-0.1274268, 1.3757372), abs=2e-7)


def test_a_free_base_falls_back_to_proportional_odds():
    x, y = two_cells()
    odds = PROPORTIONAL_ODDS.fit(x, y)
    assert odds.lambda_max_ == pytest.approx(0.0654361, abs=1e-7)
    assert odds.intercepts_ == pytest.approx((-0.1162365, 1.7069659), abs=2e-7)
    assert odds.coef_[:, 0] == pytest.approx((-1.0276306, -1.0276306), abs=2e-7)
    assert log_likelihood(odds, x, y) == pytest.approx(-208.7398912, abs=1e-6)
    above = PrestoClassifier(lam=0.0655, base_penalty=0.0).fit(x, y)
    assert above.psi_[1] == 0.0
    below = PrestoClassifier(lam=0.065, base_penalty=0.0).fit(x, y)
    assert below.psi_[1] != 0.0


def test_the_released_intercepts_are_wrong_off_center():
    """Fault 1 at lambda 0 gives P(. | x = 0) = (.5, .167, .333); the truth is (.5, .3, .2)."""
    x, y = two_cells()
    at = np.zeros((1, 1))
    right = PrestoClassifier(lam=0.0).fit(x, y).predict_proba(at)
    released = PrestoClassifier(lam=0.0, released_faults=True).fit(x, y).predict_proba(at)
    assert right[0] == pytest.approx((0.5, 0.3, 0.2), abs=1e-6)
    assert released[0] == pytest.approx((0.5, 0.167, 0.333), abs=5e-4)


def test_the_recipe_agrees_with_r():
    x, y = recipe()
    assert np.bincount(y)[1:].tolist() == [152, 93, 33, 22]
    model = PrestoClassifier(lam=0.0313532498).fit(x, y)
    assert model.lambda_max_ == pytest.approx(0.0787558026816, abs=1e-9)
    assert log_likelihood(model, x, y) == pytest.approx(-333.7133, abs=2e-4)
    model = PrestoClassifier(lam=0.0124819536).fit(x, y)
    assert log_likelihood(model, x, y) == pytest.approx(-328.8376, abs=2e-4)
    model = PrestoClassifier(lam=0.00078756).fit(x, y)
    assert log_likelihood(model, x, y) == pytest.approx(-327.397, abs=1e-3)


def test_the_domain_of_all_classes_jams_where_r_does():
    """R stops changing below 0.002, at -327.589; the optimum over the natural domain is -327.397."""
    x, y = recipe()
    settings = PrestoClassifier(domain="all")
    with pytest.warns(UserWarning, match="boundaries met"):
        model = PrestoClassifierCV(settings, lambdas=np.geomspace(0.0787558, 0.00078756, 20), cv=3).fit(x, y)
    last = PrestoClassifier(lam=0.0)
    last.classes_ = np.array([1, 2, 3, 4])
    last.n_features_in_ = 4
    last.intercepts_, last.coef_ = model.intercept_path_[-1], model.coef_path_[-1]
    assert (np.diff(last.boundary_scores(x), axis=1) >= 0).all()
    assert log_likelihood(last, x, y) < -327.45
    assert model.kkt_path_[-1] > 1e-8 >= model.kkt_path_[0]
