"""Other people's solvers: statsmodels and mord where they are installed."""

import numpy as np
import pytest
from ordinal_data import draw, log_likelihood

from reckon.ordinal import PrestoClassifier


@pytest.mark.parametrize("seed", [0, 2])
def test_proportional_odds_is_statsmodels(seed):
    """Their score is threshold - x . beta, so slopes have the other sign."""
    ordinal = pytest.importorskip("statsmodels.miscmodels.ordinal_model", reason="pip install statsmodels")
    x, y = draw(seed, n=400)
    ours = PrestoClassifier(lam=100.0, base_penalty=0.0).fit(x, y)
    theirs = ordinal.OrderedModel(y, x, distr="logit").fit(method="newton", disp=False, maxiter=200, tol=1e-12)
    slopes, raw = theirs.params[:3], theirs.params[3:]
    thresholds = np.cumsum([raw[0], *np.exp(raw[1:])])
    assert ours.coef_ == pytest.approx(np.tile(-slopes, (3, 1)), abs=1e-5)
    assert ours.intercepts_ == pytest.approx(thresholds, abs=1e-5)
    assert log_likelihood(ours, x, y) == pytest.approx(theirs.llf, abs=1e-6)


def test_mord_points_the_same_way():
    """Its LogisticAT adds up the losses at all thresholds, which is another likelihood: directions agree, not sizes."""
    mord = pytest.importorskip("mord", reason="pip install mord")
    x, y = draw(1, n=400)
    theirs = mord.LogisticAT(alpha=0.0).fit(x, y)
    ours = PrestoClassifier(lam=100.0, base_penalty=0.0).fit(x, y)
    assert np.corrcoef(x @ ours.coef_[0], -x @ theirs.coef_)[0, 1] > 0.99
