"""Non-negative orthogonal matching pursuit on gradients: no estimator in sight."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg.lapack import dtrtrs

from sklearn_acs.gradients import LastLayerGradients

BUDGET = "all of the budget is matched"
TOLERANCE = "the residual fell below the tolerance"
UNCORRELATED = "no gradient is left that correlates with the residual"
DEPENDENT = "the rank of the gradients is exhausted"

_ROUNDING = 1e-12  # of float64 arithmetic on inner products: what is smaller, relatively, is no signal
_MAX_ADMISSIONS = 3  # of one row, which may be dropped in between


class Matching(NamedTuple):
    """What the pursuit found, in the order found; the first `n_matched` are matched, the others filled up."""

    indices: np.ndarray
    weights: np.ndarray
    n_matched: int
    stop_reason: str


def orthogonal_matching_pursuit(
    gradients: LastLayerGradients,
    k: int,
    *,
    ridge: float = 0.0,
    center: float = 0.0,
    tolerance: float = 0.0,
    atoms_per_step: int = 1,
) -> Matching:
    """Choose k rows of G and weights w >= 0 so that ``sum_j w_j G_j`` comes close to ``b = sum_i G_i``.

    Approximately minimises ``||b - G^T w||^2 + lambda ||w - center||^2`` over w >= 0 with at most k weights above 0,
    where ``lambda = ridge * mean_i ||G_i||^2``: each step admits the row that correlates best with the residual
    ``r = b - G_S^T w`` and refits all weights.

    Parameters
    ----------
    gradients : LastLayerGradients
        The n rows to choose from, in float64.
    k : int
        How many to choose, 1 to n.
    ridge : float
        Penalty on the weights' distance from `center`, relative to the mean squared row norm.
    center : float
        The weight that the penalty pulls towards: 0 in the paper.
    tolerance : float
        Stop matching when ``||r|| <= tolerance * ||b||``.
    atoms_per_step : int
        Rows admitted between two refits.

    Returns
    -------
    Matching
        Always k rows. When matching stops early the rest is filled with the rows that correlate best with the
        last residual, each with the mean weight of the matched (1.0 if there is none).

    Notes
    -----
    Differences from GRAD-MATCH's published solver:

    1. Weights are kept non-negative by the inner loop of Lawson and Hanson's NNLS: walk from the old weights
       towards the refitted ones and drop the row whose weight first reaches zero. The published solver drops
       the most negative and keeps the rest, which can raise the residual.
    2. A dropped row may come back. As the objective falls with every step, no support comes twice and the
       pursuit ends; rounding cannot make it circle, for no row is admitted more than three times.
    3. The factor of the normal equations grows by a row per step, O(k^2), where the published solver solves
       them anew, O(k^3).
    4. Correlations come from the residual itself and not from ``G b - K w`` with stored columns of the Gram
       matrix K: that difference of large numbers loses the digits that decide between the last candidates,
       takes ``n k`` numbers to store, and is slower once k exceeds a small part of the gradients' width.
       The factor takes ``k^2`` of them: for very large k, choose per class.
    5. The fill is the best of what is left and is counted, instead of random rows of weight 1.
    """
    norms = gradients.norms().cpu().numpy()
    penalty = ridge * np.mean(norms**2)
    b = gradients.sum()
    b_norm = float(b.norm())
    pull = penalty * center  # of the ridge term on a weight of zero
    pulled = gradients.dot(b).cpu().numpy() + pull
    noise = _ROUNDING * norms * b_norm

    admissions = np.where(norms > 0, 0, _MAX_ADMISSIONS)  # so far; a row of zeros has none
    support, weights = np.empty(0, dtype=np.int64), np.empty(0)
    factor = GrowingCholesky(k)
    while True:
        matched = len(support)
        residual = b - gradients.take(support).sum(torch.from_numpy(weights))
        correlations = gradients.dot(residual).cpu().numpy()
        if matched == k:
            stop_reason = BUDGET
            break
        if float(residual.norm()) <= tolerance * b_norm:
            stop_reason = TOLERANCE
            break

        allowed = (correlations + pull > noise) & (admissions < _MAX_ADMISSIONS)
        allowed[support] = False
        candidates = _largest(correlations, allowed, min(atoms_per_step, k - matched))
        if not len(candidates):
            stop_reason = UNCORRELATED
            break

        for j in candidates:
            column = gradients.gram(support, [j])[:, 0].cpu().numpy()
            if factor.append(column, norms[j] ** 2 + penalty):
                support, weights = np.append(support, j), np.append(weights, 0.0)
                admissions[j] += 1
        if len(support) == matched:
            stop_reason = DEPENDENT
            break
        support, weights = _refit(factor, support, weights, pulled)

    outside = np.ones(len(norms), dtype=bool)
    outside[support] = False
    filler = _largest(correlations, outside, k - matched)
    filler_weights = np.full(len(filler), weights.mean() if matched else 1.0)
    return Matching(np.append(support, filler), np.append(weights, filler_weights), matched, stop_reason)


def _refit(
    factor: "GrowingCholesky", support: np.ndarray, weights: np.ndarray, pulled: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the weights to b, and drop the rows whose weight reaches zero on the way from the old ones."""
    while True:
        fitted = factor.solve(pulled[support])
        falling = fitted <= 0
        if not falling.any():
            return support, fitted
        until_zero = np.full(len(weights), np.inf)  # the share of the way at which a weight gets there
        way = np.maximum(weights - fitted, np.finfo(float).tiny)
        until_zero[falling] = weights[falling] / way[falling]
        step = until_zero.min()
        weights = np.maximum(weights + step * (fitted - weights), 0.0)
        stay = until_zero > step
        for position in np.flatnonzero(~stay)[::-1]:
            factor.delete(position)
        support, weights = support[stay], weights[stay]


def _largest(values: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """Find the indices of the `count` largest of the allowed values; the lowest index on ties."""
    indices = np.flatnonzero(allowed)
    return indices[np.argsort(-values[indices], kind="stable")[:count]]


class GrowingCholesky:
    """The lower Cholesky factor L of a symmetric matrix that gains and loses rows.

    Parameters
    ----------
    capacity : int
        The largest number of rows. Memory is only touched as rows come in.
    """

    def __init__(self, capacity: int) -> None:
        self.size = 0
        self._rows = np.empty((capacity, capacity))

    def append(self, column: np.ndarray, diagonal: float) -> bool:
        """Add a row to the matrix, given by its inner products with the earlier rows and with itself.

        False, and nothing done, when the new row depends linearly on the earlier ones.
        """
        t = self.size
        row = self._solve_triangular(column, transposed=False)
        pivot = diagonal - row @ row
        if pivot <= _ROUNDING * diagonal:
            return False
        self._rows[t, :t], self._rows[t, t] = row, np.sqrt(pivot)
        self.size += 1
        return True

    def delete(self, position: int) -> None:
        """Take a row and the same column out of the matrix.

        What remains below `position` is the factor of ``T (I + z z^T) T^T``, T being the block of L there and
        ``T z`` the column taken out. ``I + z z^T`` has a factor in closed form, so that T times it is a
        scaling of T's columns and a cumulative sum along its rows: no loop, and O(t^2).
        """
        t, p = self.size, position
        block = np.tril(self._rows[p + 1 : t, p + 1 : t])
        lost = self._rows[p + 1 : t, p]
        if len(lost):
            z = dtrtrs(block.T, lost, lower=0, trans=1)[0]
            grown = 1 + np.cumsum(z**2)
            before = np.append(1.0, grown[:-1])
            # sums over the columns right of each, taken from the right: small terms first
            tails = np.cumsum((block * z)[:, ::-1], axis=1)[:, ::-1] - block * z
            block *= np.sqrt(grown / before)
            block += tails * (z / np.sqrt(grown * before))
        self._rows[p : t - 1, :p] = self._rows[p + 1 : t, :p]
        self._rows[p : t - 1, p : t - 1] = block
        self.size -= 1

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """Solve with the matrix itself, ``L L^T x = rhs``."""
        return self._solve_triangular(self._solve_triangular(rhs, transposed=False), transposed=True)

    def _solve_triangular(self, rhs: np.ndarray, *, transposed: bool) -> np.ndarray:
        if not self.size:
            return rhs
        # LAPACK sees our rows as columns of L^T, with their stride: nothing is copied
        return dtrtrs(self._rows[: self.size].T, rhs, lower=0, trans=int(not transposed))[0]
