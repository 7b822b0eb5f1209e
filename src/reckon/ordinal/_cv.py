"""Lambda chosen by cross-validation."""

from __future__ import annotations

import warnings
from numbers import Integral
from types import NoneType
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from reckon.errors import InputError
from reckon.ordinal._fitting import Path, check_number, fit_path
from reckon.ordinal._inputs import Codes, encode, order_of, read_numbers, read_rows, read_weights
from reckon.ordinal._likelihood import Floats, class_probabilities
from reckon.ordinal._presto import PrestoClassifier
from reckon.ordinal._rows import Matrix

Scoring: TypeAlias = Literal["brier", "log_loss", "rare_brier"]
LEAST = float(np.finfo(np.float64).eps)  # a probability handed to a logarithm, as scikit-learn has it


class PrestoClassifierCV(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """PRESTO with the penalty that predicts rows left out best, refitted on all of them.

    Folds share the lambdas of the whole data and go down the path with warm starts. The score of a lambda is the mean
    over folds; the smallest wins, and of equal ones the largest lambda.

    Args:
        estimator: a `PrestoClassifier` with every other setting; its own `lam` does not matter. None: as it comes.
        lambdas: penalties to try, in any order. None: `n_lambdas` in equal ratios, from the largest that leaves
            anything to `min_ratio` of it.
        n_lambdas: how many; 2 or more.
        min_ratio: the least as a share of the largest, in (0, 1). A ridge wants a smaller one than the lasso.
        cv: number of folds, stratified by class, or where `fit` is given groups with every group in one fold; or a
            splitter or an iterable of (train, test) rows.
        scoring: "brier": sum_k (1[y=k] - p_k)^2; "log_loss": -log p_y; "rare_brier": (1[y=K] - p_K)^2; all averaged
            over rows by weight.
        random_state: which rows go to which fold, where cv is a number.

    Attributes:
        estimator_: the `PrestoClassifier` refitted at `lambda_`.
        classes_, intercepts_, coef_, psi_, lambda_, n_crossing_train_: its own.
        lambdas_: [L] float64, falling.
        intercept_path_: [L, K-1] float64, of fits on all rows.
        coef_path_: [L, K-1, p] float64, of the same.
        kkt_path_: [L] float64: by how much each of them misses the optimality conditions.
        cv_scores_: [L, folds] float64, smaller is better.
    """

    def __init__(
        self,
        estimator: PrestoClassifier | None = None,
        *,
        lambdas: ArrayLike | None = None,
        n_lambdas: int = 20,
        min_ratio: float = 0.01,
        cv: Any = 5,
        scoring: Scoring = "brier",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.lambdas = lambdas
        self.n_lambdas = n_lambdas
        self.min_ratio = min_ratio
        self.cv = cv
        self.scoring = scoring
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike | Matrix,  # noqa: N803
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Learns from rows.

        Args:
            X: [n, p] numbers, dense or sparse.
            y: [n] labels.
            sample_weight: [n], 0 or more; also the weights of rows left out.
            groups: [n] names of what must not be split between training and test, such as a person or a problem.

        Raises:
            InputError: settings or data that cannot be used; a class that is missing from a fold's training rows.
        """
        self._check_settings()
        model: PrestoClassifier = PrestoClassifier() if self.estimator is None else clone(self.estimator)
        x, labels = read_rows(self, X, y)
        self.classes_, codes = encode(labels, order_of(y, model.categories))
        weights = read_weights(sample_weight, len(codes))
        whole = fit_path(
            model, self.classes_, (x, codes, weights), self._lambdas(), count=self.n_lambdas, ratio=self.min_ratio
        )
        self.lambdas_, self.kkt_path_ = whole.lambdas, whole.kkt
        self.intercept_path_, self.coef_path_ = whole.intercepts, whole.psi.cumsum(axis=1)
        scores = []
        for i, (train, test) in enumerate(self._folds(x, codes, groups)):
            where = f"the training rows of fold {i + 1}"
            data = (x[train], codes[train], weights[train])
            path = fit_path(model, self.classes_, data, self.lambdas_, where=where)
            if not weights[test].any():
                raise InputError(f"fold {i + 1} leaves out no row of a weight above 0, so it cannot be scored.")
            probabilities = _left_out(model, path, x[test])
            losses = _losses(probabilities, codes[test], self.scoring)
            scores.append(np.average(losses, axis=0, weights=weights[test]))
        self.cv_scores_ = np.stack(scores, axis=1)
        best = int(self.cv_scores_.mean(axis=1).argmin())  # the first of equal ones: lambdas fall
        self.lambda_ = float(self.lambdas_[best])
        self.estimator_: PrestoClassifier = model.set_params(lam=self.lambda_).fit(X, y, sample_weight=sample_weight)
        self.intercepts_, self.coef_, self.psi_ = model.intercepts_, model.coef_, model.psi_
        self.n_crossing_train_ = model.n_crossing_train_
        return self

    def boundary_scores(self, X: ArrayLike | Matrix) -> Floats:  # noqa: N803
        """[n, K-1] float64: logit P(Y <= k), as fitted, crossing or not."""
        check_is_fitted(self)
        return self.estimator_.boundary_scores(X)

    def predict_proba(self, X: ArrayLike | Matrix) -> Floats:  # noqa: N803
        """[n, K] float64 in the order of `classes_`; rows sum to 1."""
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def predict_rare(self, X: ArrayLike | Matrix) -> Floats:  # noqa: N803
        """[n] float64: the probability of the last class."""
        check_is_fitted(self)
        return self.estimator_.predict_rare(X)

    def predict(self, X: ArrayLike | Matrix) -> NDArray[Any]:  # noqa: N803
        """[n]: the likeliest class. Of a rare class the probability is what is worth having."""
        check_is_fitted(self)
        return self.estimator_.predict(X)

    @available_if(lambda self: len(getattr(self, "classes_", ())) == 2)  # type: ignore[untyped-decorator]
    def decision_function(self, X: ArrayLike | Matrix) -> Floats:  # noqa: N803
        """[n] float64: the log-odds of the second class, where there are two."""
        return -self.boundary_scores(X)[:, 0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.poor_score = True  # the order of unordered labels is an accident
        return tags

    def _check_settings(self) -> None:
        if not isinstance(self.estimator, (PrestoClassifier, NoneType)):
            raise InputError(f"estimator is {self.estimator!r}; it must be a PrestoClassifier or None.")
        if self.scoring not in get_args(Scoring):
            raise InputError(f"scoring is {self.scoring!r}; choose one of {', '.join(get_args(Scoring))}.")
        if not isinstance(self.n_lambdas, Integral) or self.n_lambdas < 2:
            raise InputError(f"n_lambdas is {self.n_lambdas!r}; a choice needs 2 or more.")
        if not 0 < check_number("min_ratio", self.min_ratio) < 1:
            raise InputError(f"min_ratio is {self.min_ratio}; it must lie between 0 and 1, and be neither.")

    def _lambdas(self) -> Floats | None:
        """The user's, falling; None if they are to be found."""
        if self.lambdas is None:
            return None
        given = read_numbers("lambdas", self.lambdas)
        if given.ndim != 1 or not len(given) or not (given >= 0).all() or np.isinf(given).any():
            raise InputError(f"lambdas are {self.lambdas!r}; give a list of numbers of 0 or more, or None.")
        return np.unique(given)[::-1]

    def _folds(
        self, x: Matrix, codes: Codes, groups: ArrayLike | None
    ) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        if groups is not None and np.shape(groups)[:1] != (len(codes),):
            raise InputError(f"groups have shape {np.shape(groups)}, but X has {len(codes)} rows: give one name a row.")
        if not isinstance(self.cv, Integral):
            return list(check_cv(self.cv, codes, classifier=True).split(x, codes, groups))
        units = len(codes) if groups is None else len(np.unique(np.asarray(groups)))
        if not 2 <= int(self.cv) <= units:
            what = "rows" if groups is None else "groups"
            raise InputError(f"cv is {self.cv}, and there are {units} {what}: it must lie between 2 and that.")
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        with warnings.catch_warnings():
            # Rare classes are what this is for; one that a fold's training rows lack is an error of ours.
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            try:
                return list(kind(self.cv, shuffle=True, random_state=self.random_state).split(x, codes, groups))
            except ValueError as error:
                raise InputError(f"cv is {self.cv}: {error} Ask for fewer folds.") from error


def _left_out(model: PrestoClassifier, path: Path, x: Matrix) -> Floats:
    """[n, L, K]: probabilities of rows left out. The released code does not sum up psi here (its fault 2)."""
    coef = path.psi if model.released_faults else path.psi.cumsum(axis=1)
    count, boundaries, columns = coef.shape
    scores = (x @ coef.reshape(-1, columns).T).reshape(-1, count, boundaries) + path.intercepts
    return class_probabilities(scores, model.monotone)


def _losses(probabilities: Floats, codes: Codes, scoring: Scoring) -> Floats:
    """[n, L]: what each row left out costs, from probabilities [n, L, K]."""
    hit = codes[:, None] == np.arange(probabilities.shape[2])  # [n, K]
    if scoring == "log_loss":
        own = np.take_along_axis(probabilities, codes[:, None, None], axis=2)[..., 0]
        return -np.log(np.maximum(own, LEAST))
    squares: Floats = (hit[:, None, :] - probabilities) ** 2
    return squares.sum(axis=2) if scoring == "brier" else squares[..., -1]
