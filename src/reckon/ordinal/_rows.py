"""Training rows sorted by class, so that what a boundary sees is a slice and not an index."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from reckon.ordinal._likelihood import Floats, curvatures, log_probabilities, slopes

Matrix: TypeAlias = Any  # [n, q] float64, a NumPy array or a SciPy matrix in CSR form


class Rows:
    """n rows with a leading column of ones, their weights, and where each class begins.

    Boundary k is seen by the classes k and k+1 alone: as the upper end of the one and the lower end of the other. So a
    pass over the data is over 2n boundary scores, whatever K is, and the information has blocks on three diagonals.

    The parameters are increments: theta [K-1, q], with beta = theta.cumsum(axis=0) the coefficients of each boundary.
    """

    def __init__(self, design: Matrix, weights: Floats, starts: NDArray[np.intp], shift: Floats) -> None:
        """Takes rows sorted by class.

        Args:
            design: [n, q], the first column ones.
            weights: [n] float64, above 0, with sum 1.
            starts: [K+1] where each class begins, and n. No class is empty.
            shift: [q], 0 for a dense design; taken from every row of a sparse one without being written into it, so
                that zeros stay zeros. Columns far from 0 are nearly a column of ones, and Newton's steps would crawl.
        """
        self.design, self.weights, self.starts, self.shift = design, weights, starts, shift
        self.boundaries, self.columns = len(starts) - 2, int(design.shape[1])
        self._seen = [design[starts[k] : starts[k + 2]] for k in range(self.boundaries)]
        self._middle = [design[starts[k] : starts[k + 1]] for k in range(1, self.boundaries)]

    def only(self, chosen: NDArray[np.bool_]) -> Rows:
        """The same rows with the chosen columns alone."""
        if chosen.all():
            return self
        return Rows(self.design[:, np.flatnonzero(chosen)], self.weights, self.starts, self.shift[chosen])

    def ends(self, theta: Floats) -> tuple[Floats, Floats]:
        """The scores below and above each row's class, [n] each, infinite at the ends of the order."""
        beta = theta.cumsum(axis=0)
        count = len(self.weights)
        lo, hi = np.full(count, -np.inf), np.full(count, np.inf)
        for k, seen in enumerate(self._seen):
            first, second, end = self.starts[k : k + 3]
            scores = seen @ beta[k] - self.shift @ beta[k]
            hi[first:second] = scores[: second - first]
            lo[second:end] = scores[second - first :]
        return lo, hi

    def gaps(self, theta: Floats) -> Floats:
        """[n, K-2]: how far each boundary lies above the one before it, in every row and whatever its class."""
        return np.asarray(self.design @ theta[1:].T) - self.shift @ theta[1:].T

    def loss(self, lo: Floats, hi: Floats) -> float:
        """The weighted mean of -log P(Y = y)."""
        return float(-(self.weights @ log_probabilities(lo, hi)))

    def gradient(self, lo: Floats, hi: Floats) -> Floats:
        """[K-1, q]: the gradient of the loss with respect to theta."""
        by_lo, by_hi = (-self.weights * slope for slope in slopes(lo, hi))
        each = [self._at(k, by_lo, by_hi) for k in range(self.boundaries)]
        by_beta = [seen.T @ own - own.sum() * self.shift for seen, own in zip(self._seen, each, strict=True)]
        return _from_the_end(np.stack(by_beta), axis=0)

    def hessian(self, lo: Floats, hi: Floats) -> Floats:
        """[(K-1) q, (K-1) q]: the Hessian of the loss with respect to theta, read row by row."""
        at_lo, at_hi, cross = (self.weights * curvature for curvature in curvatures(lo, hi))
        count, q = self.boundaries, self.columns
        blocks = np.zeros((count, q, count, q))
        for k, seen in enumerate(self._seen):
            blocks[k, :, k] = self._gram(seen, self._at(k, at_lo, at_hi))
        for k, middle in enumerate(self._middle):
            both = self._gram(middle, cross[self.starts[k + 1] : self.starts[k + 2]])
            blocks[k, :, k + 1] = blocks[k + 1, :, k] = -both
        return _from_the_end(_from_the_end(blocks, axis=0), axis=2).reshape(count * q, count * q)

    def _at(self, k: int, by_lo: Floats, by_hi: Floats) -> Floats:
        """What the rows that see boundary k have to say about it."""
        first, second, end = self.starts[k : k + 3]
        return np.concatenate([by_hi[first:second], by_lo[second:end]])

    def _gram(self, block: Matrix, weights: Floats) -> Floats:
        """[q, q]: block' diag(weights) block with the shift taken from a sparse block, as a correction of rank two."""
        if not sparse.issparse(block):
            return np.asarray(block.T @ (block * weights[:, None]))
        weighted = sparse.diags_array(weights) @ block
        lean = np.outer(np.asarray(weighted.sum(axis=0)).ravel() - weights.sum() / 2 * self.shift, self.shift)
        return np.asarray((block.T @ weighted).toarray()) - lean - lean.T


def _from_the_end(values: Floats, axis: int) -> Floats:
    # beta_k holds theta_1 ... theta_k, so theta_b is felt by every boundary from b on.
    return np.flip(np.flip(values, axis).cumsum(axis=axis), axis)
