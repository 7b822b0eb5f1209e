"""Other people's solvers: statsmodels, mord and R's ordinal where they are installed."""

import shutil
import subprocess

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


R = """
if (!requireNamespace("ordinal", quietly = TRUE)) quit(status = 3)
rows <- read.csv(file("stdin"))
rows$y <- ordered(rows$y)
exact <- ordinal::clm.control(gradTol = 1e-9)
told <- function(fit) cat(sprintf("%.12g", c(logLik(fit), coef(fit))), "\\n")
told(ordinal::clm(y ~ a + b + c, data = rows, control = exact))
told(ordinal::clm(y ~ 1, nominal = ~ a + b + c, data = rows, control = exact))
told(ordinal::clm(y ~ b + c, nominal = ~ a, data = rows, control = exact))
"""


def test_common_slopes_slopes_apart_and_some_of_either_are_rs():
    """clm of R's package ordinal: slopes of its `formula` have the other sign, those of `nominal` ours."""
    if shutil.which("Rscript") is None:
        pytest.skip("apt-get install r-cran-ordinal")
    x, y = draw(0, n=400)
    rows = [",".join(map(repr, [*at, stage])) for at, stage in zip(x.tolist(), y.tolist(), strict=True)]
    table = "\n".join(["a,b,c,y", *rows])
    done = subprocess.run(["Rscript", "--vanilla", "-e", R], input=table, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("apt-get install r-cran-ordinal")
    assert done.returncode == 0, done.stderr
    odds, apart, some = (np.array(line.split(), dtype=float) for line in done.stdout.splitlines())

    def agrees(model, loglik, intercepts, slopes):
        fitted = model.fit(x, y)
        assert fitted.intercepts_ == pytest.approx(intercepts, abs=1e-6)
        assert fitted.coef_ == pytest.approx(slopes, abs=1e-6)
        assert log_likelihood(fitted, x, y) == pytest.approx(loglik, abs=1e-6)

    agrees(PrestoClassifier(lam=100.0, base_penalty=0.0), odds[0], odds[1:4], np.tile(-odds[4:], (3, 1)))
    agrees(PrestoClassifier(lam=0.0), apart[0], apart[1:4], apart[4:].reshape(3, 3).T)
    shared = np.column_stack([some[4:7], np.tile(-some[7:], (3, 1))])
    held = PrestoClassifier(lam=100.0, base_penalty=0.0, feature_penalties=[0.0, 1.0, 1.0])
    agrees(held, some[0], some[1:4], shared)
