"""Non-negative orthogonal matching pursuit chooses gradients; this file knows arrays, not estimators."""

from typing import NamedTuple

import numpy as np
import torch

from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors._basis import ROUNDING, Basis
from sklearn_acs.selectors._gram import GramRows
from sklearn_acs.selectors._lookahead import Lookahead, first_best, steps_ahead

BUDGET = "all of the budget is matched"
TOLERANCE = "the residual fell below the tolerance"
UNCORRELATED = "no gradient is left that correlates with the residual"
DEPENDENT = "the rank of the gradients is exhausted"
REASONS = (BUDGET, TOLERANCE, UNCORRELATED, DEPENDENT)

TIES = {torch.float32: 1e-6, torch.float64: 1e-10}  # relative differences up to which correlations are equal
MAX_ADMISSIONS = 3  # the most admissions of one row, which may be dropped in between
REFRESH_EVERY = 128  # steps after which weights and correlations are corrected for rounding errors
POLISHES = 2  # such refreshes before a result is final
_FILL_RIDGE = 0.1  # of the pursuit that fills the budget, pulling towards n / k
_FILL_ATOMS = 32  # that it admits per step
_STRONGEST_RIDGE = 1e12


class Matching(NamedTuple):
    """Holds the rows that a pursuit chose, at most k in the order chosen, and why it stopped."""

    indices: np.ndarray
    weights: np.ndarray
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
        The n rows to choose from, in float32 or float64, on the CPU.
    k : int
        Number of rows to choose, 1 to n.
    ridge : float
        Penalty on the weights' squared distance from `center`, relative to the mean squared row norm.
    center : float
        The weight that the penalty pulls towards: 0 in the paper.
    tolerance : float
        Stop matching when ``||r|| <= tolerance * ||b||``.
    atoms_per_step : int
        Rows admitted between two refits.

    Returns
    -------
    Matching
        Fewer than k rows where matching stopped early; see `fill_up`.

    Notes
    -----
    A step with t rows chosen takes ``O(n t + t^2)`` operations, the pursuit ``O(n k^2)``, in addition to those for k to
    n rows of the Gram matrix. It keeps ``k^2 / 2`` numbers in memory, and one for each pair of a chosen and any row.
    With a ridge, float32 gradients are precise enough; without one, give float64.

    Differences from GRAD-MATCH's published solver:

    1. The inner loop of Lawson and Hanson's NNLS keeps weights non-negative: it walks from the old weights towards
       the refitted ones and drops the row whose weight first reaches zero. The published solver drops the most
       negative and keeps the rest, which can raise the residual.
    2. A dropped row may come back. As the objective falls with every step, no support comes twice and the
       pursuit ends; rounding cannot make it circle, for no row is admitted more than three times.
    3. Each step adds a row to a factor of the normal equations' inverse, O(k^2), instead of solving the equations
       anew, O(k^3); see `_basis.Basis`.
    4. Each step updates the residual correlations by rows of the Gram matrix. Every 128 steps, and before the result
       is final, they are computed from the residual itself in float64.
    5. Where there are many rows, the pursuit takes some steps among the best few hundred alone. Then one product gives
       the correlations of all rows at all of these steps, and the pursuit undoes all steps from the first on at which
       another row was better. It so picks what a search among all rows picks.
    """
    return _Pursuit(gradients, k, ridge, center, atoms_per_step).run(tolerance)


def fill_up(gradients: LastLayerGradients, k: int, matched: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill the budget of k rows where matching stopped before, starting from the rows `matched`.

    The pursuit goes on with a ridge term that pulls all weights, those of matched rows too, towards n / k. That keeps
    the error low, and spreads the weight over rows that matching alone cannot tell apart. (The published code fills
    with random rows of weight 1.)

    Returns
    -------
    indices, weights : ndarray of shape (k,)
        The matched rows come first, in their order, but for those that the pursuit dropped.
    """
    ridge = _FILL_RIDGE
    while True:
        pursuit = _Pursuit(gradients, k, ridge, len(gradients) / k, _FILL_ATOMS, first=matched.tolist())
        indices, weights, _ = pursuit.run()
        if len(indices) == k or ridge > _STRONGEST_RIDGE:
            break
        ridge *= 10  # Rows whose weight would be negative stay out; a stronger pull makes every weight positive.
    # Rows are left to add where norms differ so much that rounding hides some from the others.
    others = np.setdiff1d(np.arange(len(gradients)), indices)[: k - len(indices)]
    indices = np.append(indices, others)
    weights = np.append(weights, np.full(len(others), len(gradients) / k))
    order = np.argsort(~np.isin(indices, matched), kind="stable")
    return indices[order], weights[order]


class _Pursuit:
    """Keeps the state of one pursuit.

    `members` are the chosen rows in the order of their places in the Gram matrix and in the basis. `residuals` are the
    inner products of all rows with the residual; during a lookahead they are those of the step before it.

    Parameters
    ----------
    gradients, k, ridge, center, atoms_per_step
        As in `orthogonal_matching_pursuit`.
    first : list of int or None
        Rows to begin with; if given, even as an empty list, rows of zeros may be chosen too.
    """

    def __init__(
        self,
        gradients: LastLayerGradients,
        k: int,
        ridge: float,
        center: float,
        atoms_per_step: int,
        first: list[int] | None = None,
    ) -> None:
        self.k, self.atoms = k, min(atoms_per_step, k)
        self.gram = GramRows([gradients], k, k)
        self.rows = self.gram.chosen(self.gram.n_places)[0].numpy()  # (places, n), those of the members first
        self.tie = TIES[self.gram.dtype]
        self.basis = Basis(k, self.rows.dtype)
        self.aim = self.gram.correlations()[0].numpy()  # <G_i, b>
        self.residuals = self.aim.copy()
        self.b_square = max(self.aim.sum(), 0.0)
        squares = self.gram.squares()[0].numpy()
        self.penalty = ridge * (squares.mean() or 1.0)
        self.center, self.pull = center, self.penalty * center
        self.diagonal = squares + self.penalty
        self.noise = ROUNDING * np.sqrt(squares) * np.sqrt(self.b_square)
        self.first = first or []
        self.admissions = np.where((squares > 0) | (first is not None), 0, MAX_ADMISSIONS)
        self.barred = self.admissions > 0  # True for members too
        self.refused: list[int] = []  # barred until a member leaves: they depend on the members
        self.members = np.empty(k, dtype=np.int64)
        self.times = np.empty(k, dtype=np.int64)  # when each was admitted
        self.weights = np.empty(0)
        self.most_ahead = self.lookahead = steps_ahead(len(squares)) if self.atoms == 1 else 0
        self.ahead: Lookahead | None = None

    def run(self, tolerance: float | None = None) -> Matching:
        """Admit rows until there is a reason to stop; without a tolerance, a small residual is no reason."""
        goal = -np.inf if tolerance is None else tolerance**2 * self.b_square
        polished, step = POLISHES, 0
        while True:
            rows, reason, step = self._best(), "", step + 1
            if len(self.weights) == self.k:
                reason = BUDGET
            elif self._residual_square() <= goal:
                reason = TOLERANCE
            elif not rows:
                reason = DEPENDENT if self.refused else UNCORRELATED
            if reason and polished >= POLISHES:
                break
            if not reason and step % REFRESH_EVERY:
                self._admit(rows, step)
                polished = 0
            elif self._look_back():
                self._refresh()
                polished += 1
        t = len(self.weights)
        order = np.argsort(self.times[:t], kind="stable")
        return Matching(self.members[:t][order], self.weights[order], reason)

    def _best(self) -> list[int]:
        """Find the rows to admit next, the best first and the lowest index on ties."""
        room = min(self.atoms, self.k - len(self.weights))
        if self.first:
            return self.first[:room]
        if self.lookahead:
            self.ahead = self.ahead or Lookahead(
                self.residuals, self.noise - self.pull, self.barred, self._chosen_rows(), self.weights
            )
            return self.ahead.best(self.tie)
        scores = np.where(self.barred | (self.residuals + self.pull <= self.noise), -np.inf, self.residuals)
        best: list[int] = []
        while len(best) < room and (row := first_best(scores, self.tie)) is not None:
            best.append(row)
            scores[row] = -np.inf
        return best

    def _chosen_rows(self) -> np.ndarray:
        return self.rows[: len(self.weights)]

    def _residual_square(self) -> float:
        """Compute ``||r||^2`` for fitted weights, ``K w + lambda (w - center) = G b``."""
        w = self.weights
        return self.b_square - w @ (self.aim[self.members[: len(w)]] + self.penalty * (w - self.center))

    def _admit(self, rows: list[int], step: int) -> None:
        """Admit rows and refit the weights, or refuse rows that are linearly dependent on the members."""
        t, m = len(self.weights), len(rows)
        columns = self.gram.bring_one(rows, t)
        self.members[t : t + m], self.times[t : t + m] = rows, step * self.atoms + np.arange(m)
        vectors = self.basis.append(columns[:, self.members[: t + m]], self.diagonal[rows])
        if vectors is None and m > 1:
            for row in rows:
                self._admit([row], step)
            return
        self.first = self.first[m:]
        self.barred[rows] = True
        if vectors is None:
            self._look_back()
            self.refused += rows
            return
        self.admissions[rows] += 1
        residuals = self.residuals[rows] if self.ahead is None else self.ahead.admit(columns)
        self.weights = np.append(self.weights, np.zeros(m))
        self._walk((vectors[:, t:] @ (residuals + self.pull)) @ vectors)
        if self.ahead is not None and len(self.ahead.ways) >= self.lookahead:
            self._look_back()

    def _walk(self, way: np.ndarray) -> None:
        """Add `way` to the weights, which fits them, and drop the rows whose weight reaches zero before."""
        while True:
            fitted = self.weights + way
            falling = np.flatnonzero(fitted <= 0)
            if not len(falling):
                return self._move(way)
            before = self.weights[falling]
            until_zero = before / np.maximum(before - fitted[falling], np.finfo(float).tiny)
            first = until_zero.argmin()
            self._move(until_zero[first] * way)
            if not self._look_back():
                return None
            self._drop(falling[first])
            way = self.basis.solve(self._slope())

    def _move(self, way: np.ndarray) -> None:
        self.weights = self.weights + way
        if self.ahead is None:
            self.residuals -= way.astype(self.rows.dtype) @ self._chosen_rows()
        else:
            self.ahead.move(way)

    def _slope(self) -> np.ndarray:
        """Compute minus half the objective's gradient at the members' weights: zero when they are fitted."""
        members = self.members[: len(self.weights)]
        return self.residuals[members] - self.penalty * self.weights + self.pull

    def _drop(self, place: int) -> None:
        """Drop the member at `place` and move the last one there; the dropped row may come back."""
        row, last = self.members[place], len(self.weights) - 1
        self.barred[self.refused], self.refused = False, []
        self.barred[row] = self.admissions[row] >= MAX_ADMISSIONS
        for values in (self.members, self.times, self.weights):
            values[place] = values[last]
        self.weights = self.weights[:last]
        self.gram.swap(place, last)
        self.basis.delete(place)

    def _refresh(self) -> None:
        """Compute the residuals anew from the gradients, and correct the weights by them."""
        members = torch.from_numpy(self.members[None, : len(self.weights)])
        self.residuals = self.aim - self.gram.correlations(members, torch.from_numpy(self.weights)[None])[0].numpy()
        self._walk(self.basis.solve(self._slope()))

    def _look_back(self) -> bool:
        """End the lookahead and undo its wrong steps; tell whether there were none."""
        ahead, self.ahead = self.ahead, None
        if ahead is None or not ahead.ways:
            return True
        right, self.residuals, self.weights = ahead.check(self._chosen_rows(), self.tie)
        t = len(self.weights)
        undone = self.members[t : t + len(ahead.ways) - right]
        self.barred[undone] = False
        self.admissions[undone] -= 1
        self.basis.size = t
        self.lookahead = min(2 * self.lookahead, self.most_ahead) if not len(undone) else max(2, right)
        return not len(undone)
