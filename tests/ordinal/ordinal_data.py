"""The specification's fixtures, and a draw of ordered classes."""

import numpy as np
from scipy.special import expit


def two_cells():
    """6.2: x = 0 with class counts (50, 30, 20), x = 1 with (20, 50, 30)."""
    x = np.repeat([0.0, 1.0], 100)[:, None]
    y = np.concatenate([np.repeat([1, 2, 3], counts) for counts in ((50, 30, 20), (20, 50, 30))])
    return x, y


def recipe():
    """6.4: 300 rows, four features, four classes of 152, 93, 33 and 22 rows."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (300, 4))
    alpha = np.array([0, 1.5, 3])
    slopes = np.array([[0.5, 0.5, 1], [0.5, 0, 0], [0, 0, 0], [-0.5, -0.5, -0.5]])
    u = rng.uniform(size=300)
    return x, 1 + (u[:, None] > expit(alpha + x @ slopes)).sum(axis=1)


def draw(seed, n=200, p=3, alpha=(-0.5, 1.0, 2.0), spread=0.6):
    """Rows of an order whose boundaries have slopes of their own."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    slopes = spread * rng.normal(size=(p, 1)) + 0.2 * rng.normal(size=(p, len(alpha)))
    y = (rng.uniform(size=n)[:, None] > expit(np.array(alpha) + x @ slopes)).sum(axis=1)
    y[: len(alpha) + 1] = np.arange(len(alpha) + 1)  # every class is there
    return x, y


def log_likelihood(model, x, y):
    """The sum of log P(Y = y), naively, of a fitted model."""
    probabilities = expit(model.boundary_scores(x))
    edges = np.hstack([np.zeros((len(y), 1)), probabilities, np.ones((len(y), 1))])
    codes = np.searchsorted(model.classes_, y)
    rows = np.arange(len(y))
    return float(np.log(edges[rows, codes + 1] - edges[rows, codes]).sum())


def objective(intercepts, psi, x, y, lam, *, l1_ratio=1.0, base=1.0):
    """Section 2.2 as it is written, from intercepts [K-1] and psi [K-1, p] on the scale of x; y are places from 0."""
    scores = x @ psi.cumsum(axis=0).T + intercepts
    edges = np.hstack([np.zeros((len(y), 1)), expit(scores), np.ones((len(y), 1))])
    rows = np.arange(len(y))
    loss = -np.log(edges[rows, y + 1] - edges[rows, y]).mean()
    factors = np.ones_like(psi)
    factors[0] = base
    return loss + lam * (factors * (l1_ratio * np.abs(psi) + (1 - l1_ratio) / 2 * psi**2)).sum()
