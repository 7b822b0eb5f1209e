"""PRESTO as scikit-learn sees it, the choice of lambda, and bad input."""

import time
import warnings

import numpy as np
import pytest
from ordinal_data import draw, recipe
from scipy import sparse
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from reckon.errors import InputError
from reckon.ordinal import PrestoClassifier, PrestoClassifierCV


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([PrestoClassifier(), PrestoClassifierCV(n_lambdas=3, cv=2)])
def test_scikit_learns_contract(estimator, check):
    """All of it: none is expected to fail. The tag `poor_score` says that labels of blobs have no order."""
    check(estimator)


def test_order_is_the_users():
    """Sorted by letter, "correct" would come before "parsed"."""
    x, y = draw(0)
    names = np.array(["nothing", "parsed", "formatted", "correct"])
    model = PrestoClassifier(categories=names.tolist()).fit(x, names[y])
    assert model.coef_ == pytest.approx(PrestoClassifier().fit(x, y).coef_, abs=1e-12)
    assert model.classes_.tolist() == names.tolist()
    assert set(model.predict(x)) <= set(names)
    assert (model.predict_rare(x) == model.predict_proba(x)[:, 3]).all()
    assert model.predict_rare(x) == pytest.approx(expit(-model.boundary_scores(x)[:, -1]))
    with pytest.warns(UserWarning, match="correct < formatted < nothing < parsed"):
        PrestoClassifier().fit(x, names[y])


def test_two_words_have_no_order_either():
    """By letter, "wrong" comes last; numbers, and True after False, are in no doubt."""
    x, y = draw(0)
    words = np.where(y > 1, "right", "wrong")
    for make in (PrestoClassifier(), PrestoClassifierCV(n_lambdas=3, cv=2)):
        with pytest.warns(UserWarning, match="right < wrong. Give the order as categories"):
            make.fit(x, words)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = PrestoClassifier(categories=["wrong", "right"]).fit(x, words)
        same = [PrestoClassifier().fit(x, labels) for labels in (y > 1, (y > 1).astype(int))]
    for model in same:
        assert told.predict_rare(x) == pytest.approx(model.predict_rare(x), abs=1e-12)


def test_the_order_of_an_ordered_categorical_is_that_of_pandas():
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    x, y = draw(0)
    names = ["nothing", "parsed", "formatted", "correct"]
    labels = pandas.Series(pandas.Categorical.from_codes(y, names, ordered=True))
    plain = PrestoClassifier().fit(x, y)
    for given in (labels, labels.to_numpy(), labels.array):
        if isinstance(given, np.ndarray):  # the order is lost with the type, and that is told
            with pytest.warns(UserWarning, match="correct < formatted"):
                PrestoClassifier().fit(x, given)
            continue
        model = PrestoClassifier().fit(x, given)
        assert model.classes_.tolist() == names
        assert model.coef_ == pytest.approx(plain.coef_, abs=1e-12)
    assert PrestoClassifierCV(n_lambdas=3, cv=2).fit(x, labels).classes_.tolist() == names
    other = PrestoClassifier(categories=names[::-1]).fit(x, labels)
    assert other.classes_.tolist() == names[::-1]


def test_scores_of_three_classes_are_no_decision_function():
    x, y = draw(0)
    model = PrestoClassifier().fit(x, y)
    assert not hasattr(model, "decision_function")
    assert model.boundary_scores(x).shape == (len(y), 3)
    assert hasattr(PrestoClassifier().fit(x, y > 0), "decision_function")


@pytest.mark.parametrize("scoring", ["brier", "log_loss", "rare_brier"])
def test_lambda_is_chosen_as_by_a_loop_over_folds(scoring):
    """One fit for each lambda and fold, scored by scikit-learn's metrics."""
    x, y = recipe()
    folds = list(KFold(4, shuffle=True, random_state=1).split(x))
    weights = np.random.default_rng(0).uniform(0.5, 2, len(y))
    lambdas = np.geomspace(0.08, 0.002, 5)
    ours = PrestoClassifierCV(lambdas=lambdas[::-1], cv=folds, scoring=scoring).fit(x, y, sample_weight=weights)

    def score(probabilities, labels, weight):
        if scoring == "log_loss":
            return log_loss(labels, probabilities, labels=[1, 2, 3, 4], sample_weight=weight)
        each = [brier_score_loss(labels == k + 1, probabilities[:, k], sample_weight=weight) for k in range(4)]
        return sum(each) if scoring == "brier" else each[3]

    theirs = np.empty((5, 4))
    for i, lam in enumerate(lambdas):
        for j, (train, test) in enumerate(folds):
            model = PrestoClassifier(lam=lam).fit(x[train], y[train], sample_weight=weights[train])
            theirs[i, j] = score(model.predict_proba(x[test]), y[test], weights[test])
    assert ours.cv_scores_ == pytest.approx(theirs, abs=1e-6)
    best = theirs.mean(axis=1).argmin()
    assert ours.lambda_ == lambdas[best]
    assert ours.coef_ == pytest.approx(PrestoClassifier(lam=lambdas[best]).fit(x, y, weights).coef_, abs=1e-8)


def test_of_equal_scores_the_largest_lambda_wins():
    """Above the largest lambda every fit is the null model."""
    x, y = recipe()
    assert PrestoClassifierCV(lambdas=[1.0, 3.0, 2.0]).fit(x, y).lambda_ == 3.0


def test_folds_keep_the_rare_class_and_whole_groups():
    x, y = recipe()
    model = PrestoClassifierCV(cv=5)
    for _, test in model._folds(x, y - 1, None):
        assert np.count_nonzero(y[test] == 4) in (4, 5)  # of 22
    groups = np.arange(len(y)) // 10
    for train, test in model._folds(x, y - 1, groups):
        assert not set(groups[train]) & set(groups[test])
    grouped = PrestoClassifierCV(cv=GroupKFold(3)).fit(x, y, groups=groups)
    assert grouped.cv_scores_.shape == (20, 3)
    assert PrestoClassifierCV().fit(x, y, groups=groups).cv_scores_.shape == (20, 5)


def test_random_state_chooses_the_folds():
    x, y = recipe()
    one, same, other = (PrestoClassifierCV(random_state=seed).fit(x, y).cv_scores_ for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()


def test_the_released_code_scores_another_model():
    """Fault 2: alpha_k + x . psi_k in the folds. The path itself is the same."""
    x, y = recipe()
    lambdas = [1.0, 0.02, 0.005]
    right = PrestoClassifierCV(lambdas=lambdas).fit(x, y)
    released = PrestoClassifierCV(PrestoClassifier(released_faults=True), lambdas=lambdas).fit(x, y)
    assert released.coef_path_ == pytest.approx(right.coef_path_, abs=1e-12)
    assert released.cv_scores_[0] == pytest.approx(right.cv_scores_[0], abs=1e-12)  # all psi are 0
    assert np.abs(released.cv_scores_ - right.cv_scores_).max() > 1e-3


def test_a_path_and_its_folds_of_the_experiments_size_take_about_a_second():
    """n = 2500, p = 10, K = 4, 20 lambdas, five folds and the refit, in processor time; twice what was asked for."""
    x, y = draw(0, n=2500, p=10, alpha=(0.0, 3.5, 5.5))
    began = time.process_time()
    PrestoClassifierCV().fit(x, y)
    assert time.process_time() - began < 2.0


def bad(make, match, x=None, y=None, **more):
    found_x, found_y = recipe()
    with pytest.raises(InputError, match=match):
        make.fit(found_x if x is None else x, found_y if y is None else y, **more)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"lam": -1.0}, "lam is -1.0; it must be a finite number of 0 or more"),
        ({"lam": float("nan")}, "lam is nan"),
        ({"lam": "much"}, "lam is 'much'"),
        ({"lam": True}, "lam is True"),
        ({"l1_ratio": 1.5}, "between 0 .ridge. and 1 .lasso."),
        ({"base_penalty": -0.5}, "base_penalty is -0.5"),
        ({"max_iter": 0}, "at least one Newton step"),
        ({"max_iter": 2.5}, "max_iter is 2.5; give a whole number"),
        ({"tol": float("inf")}, "tol is inf"),
        ({"domain": "mine"}, "domain is 'mine'; choose one of observed, all"),
        ({"monotone": "sorted"}, "choose one of keep_last, cummax, none"),
        ({"feature_penalties": [1.0]}, "must be 4 numbers of 0 or more"),
        ({"feature_penalties": ["much"]}, "feature_penalties must be numbers, and is not"),
        ({"feature_penalties": [1.0, 1.0, 1.0, -1.0]}, "must be 4 numbers of 0 or more"),
        ({"categories": [1, 2, 3]}, "y, row .*: .*4.* is not among the categories"),
        ({"categories": [1, 2, 2, 3, 4]}, "each must be there once"),
        ({"categories": [1, 2, 3, 4, 5]}, "the rows hold no row of class .*5.*merge it with its neighbor"),
    ],
)
def test_bad_settings(settings, match):
    bad(PrestoClassifier(**settings), match)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"cv": 1}, "cv is 1, and there are 300 rows"),
        ({"cv": 301}, "cv is 301, and there are 300 rows"),
        ({"cv": 200}, "cv is 200: .*Ask for fewer folds"),
        ({"scoring": "auc"}, "choose one of brier, log_loss, rare_brier"),
        ({"lambdas": []}, "give a list of numbers"),
        ({"lambdas": ["small"]}, "lambdas must be numbers, and is not"),
        ({"lambdas": [0.1, -0.1]}, "give a list of numbers"),
        ({"n_lambdas": 1}, "a choice needs 2 or more"),
        ({"min_ratio": 1.0}, "must lie between 0 and 1"),
        ({"min_ratio": 0.0}, "must lie between 0 and 1"),
        ({"estimator": "presto"}, "must be a PrestoClassifier or None"),
    ],
)
def test_bad_settings_of_the_choice(settings, match):
    bad(PrestoClassifierCV(**settings), match)


def test_bad_rows():
    x, y = recipe()
    hole = x.copy()
    hole[7, 2] = np.nan
    bad(PrestoClassifier(), "NaN or inf in row 7, column 2", x=hole)
    bad(PrestoClassifierCV(), "NaN or inf in row 7, column 2", x=hole)
    bad(PrestoClassifier(), "X, column 1: numbers as large as .* cannot be squared", x=x * [1.0, 1e200, 1.0, 1.0])
    bad(PrestoClassifier(standardize=False), "X, column 1: numbers as large as", x=x * [1.0, 1e120, 1.0, 1.0])
    bad(PrestoClassifier(), "X, column 1: numbers", x=sparse.csr_array(x * [1.0, 1e200, 1.0, 1.0]))
    bad(PrestoClassifier(), "one class only", y=np.ones(300, dtype=int))
    bad(PrestoClassifier(), "Unknown label type", y=x[:, 0])
    bad(PrestoClassifier(), "inconsistent numbers of samples", y=y[:10])
    bad(PrestoClassifier(), "sample_weight has shape", sample_weight=np.ones(3))
    bad(PrestoClassifier(), "sample_weight must be numbers, and is not", sample_weight=["heavy"] * 300)
    names = np.array(["", "a", "b", "c", "d"], dtype=object)[y]
    names[7] = None
    bad(PrestoClassifier(categories=["a", "b", "c", "d"]), "labels of different types", y=names)
    for k in (2, 4):
        none = np.where(y == k, 1e-20, 1.0)
        bad(PrestoClassifier(), f"no row of class .*{k}.* with more than 1e-12 of all weight", sample_weight=none)
    bad(PrestoClassifier(), "sample_weight, row 4: -1.0", sample_weight=np.where(np.arange(300) == 4, -1.0, 1.0))
    bad(PrestoClassifier(), "zero in every row", sample_weight=np.zeros(300))
    bad(PrestoClassifier(), "no row of class .*4", sample_weight=(y < 4).astype(float))
    fitted = PrestoClassifier().fit(x, y)
    with pytest.raises(InputError, match="NaN or inf in row 7, column 2"):
        fitted.predict_proba(hole)
    with pytest.raises(InputError, match="expecting 4 features"):
        fitted.predict_proba(x[:, :3])


def test_a_class_that_a_fold_cannot_learn_is_named():
    _, y = recipe()
    lone = np.where((y == 4) & (np.cumsum(y == 4) > 1), 3, y)  # one row of class 4
    bad(PrestoClassifierCV(), "training rows of fold . hold no row of class .*4.*ask for fewer", y=lone)
    bad(PrestoClassifierCV(), "no row of class .*4", groups=np.where(y == 4, 0, np.arange(300) % 30 + 1))
    bad(PrestoClassifierCV(cv=5), "there are 3 groups", groups=np.arange(300) % 3)
    bad(PrestoClassifierCV(), r"groups have shape \(299,\), but X has 300 rows", groups=np.arange(299) % 30)


def test_rows_left_out_without_weight_cannot_score():
    test = np.arange(0, 300, 3)
    folds = [(np.setdiff1d(np.arange(300), test), test)]
    weights = np.ones(300)
    weights[test] = 0.0
    bad(PrestoClassifierCV(cv=folds), "fold 1 leaves out no row of a weight above 0", sample_weight=weights)
