"""PRESTO as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from reckon.ordinal._fitting import Domain, check_number, fit_path
from reckon.ordinal._inputs import encode, order_of, read_features, read_rows, read_weights
from reckon.ordinal._likelihood import Floats, Monotone, class_probabilities
from reckon.ordinal._rows import Matrix


class PrestoClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Ordered classes with a weight vector for each boundary, shrunk towards equal ones (Faletto and Bien, ICML 2023).

    The model is logit P(Y <= k | x) = alpha_k + x . beta_k. Minimized is the weighted mean of -log P(Y = y | x) plus

        lam * sum_j c_j * (b |psi_j1| + sum_{k>=2} |psi_jk|),   psi_1 = beta_1,  psi_k = beta_k - beta_{k-1},

    and with l1_ratio = a the elastic net of the same terms: a |psi| + (1 - a) psi^2 / 2 in place of |psi|. Intercepts
    are free. A positive coefficient pushes mass to *low* classes; R's `polr` and statsmodels have the other sign.

    With base_penalty b = 1, the paper's code, a large lam leaves intercepts alone; with b = 0 it leaves the
    proportional-odds model. Two classes make it a penalized logistic regression.

    Args:
        lam: the penalty, 0 or more, on the scale of standardized columns and of a mean over rows.
        l1_ratio: 1 for the lasso, 0 for a ridge (the paper's PRESTO_L2), between them the elastic net.
        base_penalty: b, 0 or more: what the first boundary's weights cost.
        feature_penalties: [p] factors c_j, 0 or more; None: all 1.
        standardize: solve with columns of weighted mean 0 and population sd 1; a constant column (its sd is below 1e-12
            of its mean) is divided by 1. `coef_` is on the scale of X in either case.
        domain: "observed" lets the boundaries of a training row cross where its own class keeps a probability above 0;
            "all" does not, as in R, and may jam before the optimum.
        monotone: what `predict_proba` does where boundaries cross: "keep_last" lowers earlier boundaries and leaves
            P(Y = K) as it is, "cummax" raises later ones, "none" returns the negative probabilities.
        categories: the classes in their order, lowest first. None: that of y where it is an ordered categorical of
            pandas, else ascending, which is right for numbers. Words are then sorted by letter, with a warning.
        released_faults: reproduce the published R code where it is wrong: intercepts taken back from centered columns
            by means times psi, and, in `PrestoClassifierCV`, lambda chosen by models whose psi are not summed up. For
            comparisons only.
        max_iter: Newton steps at most.
        tol: how closely the optimality conditions must hold.

    Attributes:
        classes_: [K] in their order.
        intercepts_: [K-1] float64, alpha.
        coef_: [K-1, p] float64, row k the weights of boundary k.
        psi_: [K-1, p] float64, the first row of `coef_` and its differences.
        lambda_: the penalty.
        lambda_max_: the least penalty that leaves nothing penalized, for a ridge a hundred times the lasso's.
        kkt_: by how much the optimality conditions are missed.
        n_iter_: Newton steps, 1 at least.
        n_crossing_train_: training rows whose boundaries cross.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    def __init__(
        self,
        *,
        lam: float = 0.01,
        l1_ratio: float = 1.0,
        base_penalty: float = 1.0,
        feature_penalties: ArrayLike | None = None,
        standardize: bool = True,
        domain: Domain = "observed",
        monotone: Monotone = "keep_last",
        categories: Sequence[Any] | None = None,
        released_faults: bool = False,
        max_iter: int = 100,
        tol: float = 1e-8,
    ) -> None:
        self.lam = lam
        self.l1_ratio = l1_ratio
        self.base_penalty = base_penalty
        self.feature_penalties = feature_penalties
        self.standardize = standardize
        self.domain = domain
        self.monotone = monotone
        self.categories = categories
        self.released_faults = released_faults
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: ArrayLike | Matrix, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Learns from rows.

        Args:
            X: [n, p] numbers, dense or sparse.
            y: [n] labels.
            sample_weight: [n], 0 or more. A weight of 2 is the row twice, one of 0 no row; only their ratios matter.

        Raises:
            InputError: settings or data that cannot be used.
        """
        x, labels = read_rows(self, X, y)
        self.classes_, codes = encode(labels, order_of(y, self.categories))
        weights = read_weights(sample_weight, len(codes))
        path = fit_path(self, self.classes_, (x, codes, weights), (check_number("lam", self.lam),))
        self.intercepts_, self.psi_ = path.intercepts[0], path.psi[0]
        self.coef_ = self.psi_.cumsum(axis=0)
        self.lambda_, self.lambda_max_ = float(self.lam), path.lambda_max
        self.kkt_, self.n_iter_ = float(path.kkt[0]), max(1, int(path.steps[0]))
        scores = x @ self.coef_.T + self.intercepts_
        self.n_crossing_train_ = int((np.diff(scores, axis=1) < 0).any(axis=1).sum())
        return self

    def boundary_scores(self, X: ArrayLike | Matrix) -> Floats:  # noqa: N803
        """[n, K-1] float64: logit P(Y <= k), as fitted, crossing or not."""
        check_is_fitted(self)
        return np.asarray(read_features(self, X) @ self.coef_.T + self.intercepts_)

    def predict_proba(self, X: ArrayLike | Matrix) -> Floats:  # noqa: N803
        """[n, K] float64 in the order of `classes_`; rows sum to 1."""
        return class_probabilities(self.boundary_scores(X), self.monotone)

    def predict_rare(self, X: ArrayLike | Matrix) -> Floats:  # noqa: N803
        """[n] float64: the probability of the last class."""
        return self.predict_proba(X)[:, -1]

    def predict(self, X: ArrayLike | Matrix) -> NDArray[Any]:  # noqa: N803
        """[n]: the likeliest class. Of a rare class the probability is what is worth having."""
        place = self.predict_proba(X).argmax(axis=1)
        likeliest: NDArray[Any] = self.classes_[place]
        return likeliest

    @available_if(lambda self: len(getattr(self, "classes_", ())) == 2)  # type: ignore[untyped-decorator]
    def decision_function(self, X: ArrayLike | Matrix) -> Floats:  # noqa: N803
        """[n] float64: the log-odds of the second class, where there are two."""
        return -self.boundary_scores(X)[:, 0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.poor_score = True  # the order of unordered labels is an accident
        return tags
