"""Non-negative orthogonal matching pursuit on gradients, several problems as one batch: no estimator in sight."""

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors._gram import GramRows

REASONS = (
    BUDGET := "all of the budget is matched",
    TOLERANCE := "the residual fell below the tolerance",
    UNCORRELATED := "no gradient is left that correlates with the residual",
    DEPENDENT := "the rank of the gradients is exhausted",
)

_ROUNDING = 1e-12  # of float64 arithmetic on inner products: what is smaller, relatively, is no signal
_TIES = {torch.float32: 1e-6, torch.float64: 1e-10}  # correlations closer than this, relatively, are equal
_MAX_ADMISSIONS = 3  # of one row, which may be dropped in between
_REFRESH_EVERY = 64  # steps after which rounding errors are taken out of weights and correlations
_POLISHES = 2  # such refreshes before a result is final
_PANEL = 128  # rows of the basis that are read at a time on the CPU
_FILL_RIDGE = 0.1  # of the pursuit that goes on where matching had to stop, pulling towards n / k
_FILL_ATOMS = 32  # that it admits per step


class Matching(NamedTuple):
    """What the pursuit found, in the order found: at most k rows, and why it stopped."""

    indices: np.ndarray
    weights: np.ndarray
    stop_reason: str


def orthogonal_matching_pursuit(
    problems: Sequence[LastLayerGradients],
    budgets: Sequence[int],
    *,
    ridge: float = 0.0,
    centers: Sequence[float] | None = None,
    tolerance: float = 0.0,
    atoms_per_step: int = 1,
) -> list[Matching]:
    """Choose k rows of each G and weights w >= 0 so that ``sum_j w_j G_j`` comes close to ``b = sum_i G_i``.

    Approximately minimises ``||b - G^T w||^2 + lambda ||w - center||^2`` over w >= 0 with at most k weights above 0,
    where ``lambda = ridge * mean_i ||G_i||^2``: each step admits the row that correlates best with the residual
    ``r = b - G_S^T w`` and refits all weights.

    Parameters
    ----------
    problems : sequence of LastLayerGradients
        The matrices to choose from, in float32 or float64, on one device. On a GPU, give all classes at once.
    budgets : sequence of int
        How many rows to choose of each, 1 to n.
    ridge : float
        Penalty on the weights' distance from the center, relative to the mean squared row norm.
    centers : sequence of float or None
        The weights that the penalty pulls towards: 0 in the paper.
    tolerance : float
        Stop matching when ``||r|| <= tolerance * ||b||``.
    atoms_per_step : int
        Rows admitted between two refits.

    Returns
    -------
    list of Matching
        Fewer than k rows where matching stopped early; see `fill_up`.

    Notes
    -----
    A step with t rows chosen takes ``O(n (t + C + D) + t^2)`` operations, the whole ``O(k n (k + C + D))``. Memory is
    ``8 k^2`` bytes and a number for each pair of a chosen and any row. With a ridge, float32 gradients are precise
    enough; without one, give float64.

    Differences from GRAD-MATCH's published solver:

    1. Weights are kept non-negative by the inner loop of Lawson and Hanson's NNLS: walk from the old weights
       towards the refitted ones and drop the row whose weight first reaches zero. The published solver drops
       the most negative and keeps the rest, which can raise the residual.
    2. A dropped row may come back. As the objective falls with every step, no support comes twice and the
       pursuit ends; rounding cannot make it circle, for no row is admitted more than three times.
    3. Instead of solving the normal equations anew, O(k^3), a factor of their inverse grows by a row, O(k^2): the
       inverse of the Cholesky factor, so that all work is matrix times vector. See `_Support`.
    4. Residual correlations are updated by rows of the Gram matrix, and computed from the residual itself in
       float64 every 64 steps and before a result is final.
    """
    centers = [0.0] * len(problems) if centers is None else centers
    return _Pursuit(problems, budgets, ridge, centers, atoms_per_step).run(tolerance)


def fill_up(
    problems: Sequence[LastLayerGradients], budgets: Sequence[int], matched: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Choose k rows of each G, those `matched` first, where matching stopped before the budget was used up.

    The pursuit goes on with a ridge term that pulls the weights of all rows, the matched ones too, towards n / k. That
    keeps the error low, and spreads the weight over rows which matching alone cannot tell apart. (The published code
    fills with random rows of weight 1.)

    Returns
    -------
    list of (indices, weights)
        Exactly k rows each. A matched row that the ridge drops comes last or not at all.
    """
    filled: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    ridge, left = _FILL_RIDGE, list(range(len(problems)))
    while left:
        some, ks = [problems[i] for i in left], [budgets[i] for i in left]
        uniform = [len(problem) / k for problem, k in zip(some, ks, strict=True)]
        pursuit = _Pursuit(some, ks, ridge, uniform, _FILL_ATOMS, first=[matched[i] for i in left])
        filled |= {i: found[:2] for i, found in zip(left, pursuit.run(), strict=True)}
        # Rows whose weight would be negative stay out; a stronger pull makes every weight positive in the end.
        ridge, left = 10 * ridge, [i for i in left if len(filled[i][0]) < budgets[i]]
    return [filled[i] for i in range(len(problems))]


class _Pursuit:
    """The steps of the pursuit on B problems at once; every step reads one small tensor from the device.

    Parameters
    ----------
    problems, budgets, ridge, centers, atoms_per_step
        As in `orthogonal_matching_pursuit`.
    first : sequence of ndarray, optional
        Rows that each problem has to begin with; given that, rows of zeros are chosen from too.
    """

    def __init__(
        self,
        problems: Sequence[LastLayerGradients],
        budgets: Sequence[int],
        ridge: float,
        centers: Sequence[float],
        atoms_per_step: int,
        first: Sequence[np.ndarray] | None = None,
    ) -> None:
        k = max(budgets)
        self.atoms = min(atoms_per_step, k)
        capacity = k + self.atoms + k // 16 + 16  # dropped rows leave their place empty for a while
        self.gram = gram = GramRows(problems, k, capacity)
        self.support = _Support(gram, capacity)
        self.budgets = torch.tensor(budgets, device=gram.device)
        self.aim = gram.correlations()  # <G_i, b>, (B, n)
        self.residuals = self.aim.clone()  # <G_i, r>
        self.b_square = self.aim.sum(1).clamp(min=0)
        squares = gram.squares()
        n_rows = torch.tensor(gram.n_rows, device=gram.device)
        size = squares.sum(1) / n_rows
        self.penalty = ridge * torch.where(size > 0, size, 1.0)  # lambda, (B,)
        self.center = torch.tensor(centers, dtype=torch.float64, device=gram.device)
        self.pull = self.penalty * self.center
        self.diagonal = squares + self.penalty[:, None]
        self.noise = _ROUNDING * (squares * self.b_square[:, None]).sqrt()
        choosable = torch.arange(squares.shape[1], device=gram.device) < n_rows[:, None]
        if first is None:
            choosable &= squares > 0
        self.admissions = torch.where(choosable, 0, _MAX_ADMISSIONS)
        self.barred = ~choosable  # also while chosen
        self.urgency = None if first is None else _urgency(first, squares)

    def run(self, tolerance: float | None = None) -> list[Matching]:
        """Go on until every problem has stopped; without a tolerance, whatever the residual."""
        goal = torch.full_like(self.b_square, -torch.inf) if tolerance is None else tolerance**2 * self.b_square
        support = self.support
        no = torch.zeros(len(self.budgets), dtype=torch.bool, device=self.gram.device)
        running, blocked, dropping, exhausted = ~no, no, no, no
        victims, reason, polished = no.long(), no.long(), no.long() + _POLISHES
        for step in count(1):
            rows, found = self._choose()
            full = support.size >= self.budgets
            close = self._residual_square() <= goal
            waiting = running & ~blocked
            ending = waiting & (full | close | ~found[:, 0] | exhausted)
            why = torch.where(full, 0, torch.where(close, 1, torch.where(exhausted, 3, 2)))
            reason = torch.where(ending, why, reason)
            running = running & ~(ending & (polished >= _POLISHES))
            adding = waiting & ~ending
            state = torch.stack([running, adding, ending & running, blocked, dropping]).any(1).tolist()
            is_running, is_adding, is_ending, is_blocked, is_dropping = state
            if not is_running:
                break
            if is_dropping:
                self._drop(victims, dropping)
            if is_ending or step % _REFRESH_EVERY == 0:
                self.residuals = self.aim - self.gram.correlations(support.rows, support.weights)
                blocked, exhausted, polished = running, no, polished + 1
                is_blocked, is_adding = True, False
            if is_adding:
                support.make_room(self.atoms)
            way = (
                support.project(self._slope()[:, None])[1][:, 0] * blocked[:, None]
                if is_blocked
                else torch.zeros_like(support.weights)
            )
            if is_adding:
                polished = torch.where(adding, 0, polished)
                left = (self.budgets - support.size)[:, None] > torch.arange(self.atoms, device=self.gram.device)
                admitted, more = self._add(rows, found & left & adding[:, None])
                exhausted = adding & ~admitted.any(1)
                way = nn.functional.pad(way, (0, self.atoms)) + more
            dropping, victims = self._walk(way)
            blocked = dropping
        members = zip(support.members(), reason.tolist(), strict=True)
        return [Matching(rows, weights, REASONS[why]) for (rows, weights), why in members]

    def _choose(self) -> tuple[Tensor, Tensor]:
        """The best rows to admit next (B, m), the lowest index on ties, and whether there are so many."""
        hopeless = self.barred | (self.residuals + self.pull[:, None] <= self.noise)
        scores = torch.where(hopeless, -torch.inf, self.residuals)
        if self.urgency is not None:
            scores = torch.where(self.admissions == 0, torch.maximum(scores, self.urgency), scores)
        rows, best, tie = [], [], _TIES[self.gram.dtype]
        for _ in range(self.atoms):
            best.append(scores.amax(1, keepdim=True))
            rows.append((scores >= best[-1] - tie * best[-1].abs()).byte().argmax(1, keepdim=True))
            scores = scores.scatter(1, rows[-1], -torch.inf)
        return torch.cat(rows, 1), torch.cat(best, 1) > -torch.inf

    def _residual_square(self) -> Tensor:
        """``||r||^2``, given that the weights are fitted: ``K w + lambda (w - center) = G b``."""
        w, penalty = self.support.weights, self.penalty[:, None]
        aim = self.aim.gather(1, self.support.rows) + penalty * (w - self.center[:, None])
        return self.b_square - (w * aim).sum(1)

    def _slope(self) -> Tensor:
        """What the chosen rows' weights would still gain by, (B, t): zero when they are fitted."""
        support = self.support
        slope = self.residuals.gather(1, support.rows) - self.penalty[:, None] * support.weights + self.pull[:, None]
        return torch.where(support.active, slope, 0.0)

    def _add(self, rows: Tensor, adding: Tensor) -> tuple[Tensor, Tensor]:
        """Admit rows: which ones were, and the way from the fitted weights to those refitted with them."""
        slope = torch.where(adding, self.residuals.gather(1, rows) + self.pull[:, None], 0.0)
        admitted, way = self.support.append(rows, adding, self.diagonal.gather(1, rows), slope)
        self.barred.scatter_(1, rows, self.barred.gather(1, rows) | admitted)
        self.admissions.scatter_add_(1, rows, admitted.long())
        return admitted, way

    def _walk(self, way: Tensor) -> tuple[Tensor, Tensor]:
        """Go `way` as far as all weights stay positive: who stops short, and at which member."""
        support = self.support
        weights, fitted = support.weights, support.weights + way
        falling = support.active & (fitted <= 0)
        until_zero = weights / (weights - fitted).clamp(min=torch.finfo(weights.dtype).tiny)
        share, victims = torch.where(falling, until_zero, 2.0).min(1)
        moved = way * share.clamp(max=1)[:, None]
        support.weights = weights + moved
        self.residuals -= (moved[:, None].to(self.gram.dtype) @ self.gram.chosen(support.used))[:, 0]
        return share < 2, victims

    def _drop(self, victims: Tensor, dropping: Tensor) -> None:
        """Take a member out of each of the problems `dropping`; its row may come back."""
        rows = self.support.rows.gather(1, victims[:, None])
        spent = self.admissions.gather(1, rows) >= _MAX_ADMISSIONS
        barred = torch.where(dropping[:, None], spent, self.barred.gather(1, rows))
        self.barred.scatter_(1, rows, barred)
        self.support.delete(victims, dropping)


class _Support:
    """The chosen rows of B problems, their weights, and what it takes to refit these.

    That is a basis W of weight vectors with ``W (K + lambda I) W^T = I``, K being the chosen rows' Gram matrix: the
    inverse of its Cholesky factor while rows only come in. Then ``(K + lambda I)^-1 = W^T W``. A row that comes in adds
    a vector to W by one step of Gram and Schmidt, and a row that leaves takes one with it after a reflection which
    turns all others away from it. Either is two products with W. A row that left leaves its place empty: zeros, which
    change no product. So all problems of a batch fill their places in step.
    """

    def __init__(self, gram: GramRows, capacity: int) -> None:
        n_problems = gram.shape[0]
        self.gram, self.used = gram, 0
        self.size = torch.zeros(n_problems, dtype=torch.long, device=gram.device)
        self._rows = torch.zeros(n_problems, capacity, dtype=torch.long, device=gram.device)
        self._active = torch.zeros(n_problems, capacity, dtype=torch.bool, device=gram.device)
        self._weights = torch.zeros(n_problems, capacity, dtype=torch.float64, device=gram.device)
        self._basis = torch.zeros(n_problems, capacity, capacity, dtype=torch.float64, device=gram.device)
        self._reach = np.arange(1, capacity + 1)  # columns of W up to which its rows are not all zero

    @property
    def rows(self) -> Tensor:
        """Numbers of the rows, (B, t)."""
        return self._rows[:, : self.used]

    @property
    def active(self) -> Tensor:
        """Which places are taken, (B, t)."""
        return self._active[:, : self.used]

    @property
    def weights(self) -> Tensor:
        """Their weights, zero in empty places, (B, t)."""
        return self._weights[:, : self.used]

    @weights.setter
    def weights(self, values: Tensor) -> None:
        self._weights[:, : self.used] = values

    @property
    def basis(self) -> Tensor:
        """W, (B, t, t)."""
        return self._basis[:, : self.used, : self.used]

    def project(self, right: Tensor) -> tuple[Tensor, Tensor]:
        """``right W^T`` and ``right W^T W``, the latter solving with ``K + lambda I``, for (B, m, t)."""
        if self.gram.device.type != "cpu" or self.used < _PANEL:
            projected = right @ self.basis.transpose(1, 2)
            return projected, projected @ self.basis
        # Row by row W is triangular but for what deletions left: about half of it is zero and not worth reading.
        # And NumPy's product of a matrix and a vector is faster than torch's.
        projected, solved = torch.empty_like(right), torch.zeros_like(right)
        for basis, x, y, z in zip(self._basis.numpy(), right.numpy(), projected.numpy(), solved.numpy(), strict=True):
            for start in range(0, self.used, _PANEL):
                stop = min(start + _PANEL, self.used)
                reach = self._reach[start:stop].max()
                panel = basis[start:stop, :reach]
                y[:, start:stop] = x[:, :reach] @ panel.T
                z[:, :reach] += y[:, start:stop] @ panel
        return projected, solved

    def append(self, rows: Tensor, adding: Tensor, diagonal: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Add rows (B, m) where `adding` says so and they do not depend on the others.

        `diagonal` is their own entry of ``K + lambda I``, and `slope` that of a weight of zero. Returns which of them
        came in, and the way from fitted weights to those that are fitted with the new rows, (B, t + m).
        """
        t, m = self.used, rows.shape[1]
        self._rows[:, t : t + m] = rows
        inner = self.gram.bring(rows, adding, t).gather(2, self._rows[:, None, : t + m].expand(-1, m, -1)).double()
        projected, solved = self.project(inner[:, :, :t])
        own = inner[:, :, t:] - projected @ projected.transpose(1, 2)
        own.diagonal(dim1=1, dim2=2).copy_(diagonal - (projected * projected).sum(2))
        new = torch.cat([-solved, torch.eye(m, dtype=own.dtype, device=own.device).expand_as(own)], 2)
        admitted = []
        for i in range(m):  # Gram-Schmidt among the new vectors
            pivot = own[:, i, i]
            admitted.append(adding[:, i] & (pivot > _ROUNDING * diagonal[:, i]))
            scale = torch.where(admitted[-1], pivot.clamp(min=torch.finfo(own.dtype).tiny).rsqrt(), 0.0)[:, None]
            new[:, i] *= scale
            if i + 1 < m:
                row = own[:, i] * scale
                own = own - row[:, :, None] * row[:, None]
                new[:, i + 1 :] -= row[:, i + 1 :, None] * new[:, i, None]
        came = torch.stack(admitted, 1)
        self.used = t + m
        self._basis[:, t : t + m, : t + m] = new
        self._active[:, t : t + m] = came
        self._weights[:, t : t + m] = 0
        self.size = self.size + came.sum(1)
        return came, ((new[:, :, t:] @ slope[:, :, None]).transpose(1, 2) @ new)[:, 0]

    def delete(self, places: Tensor, leaving: Tensor) -> None:
        """Take the rows at `places` (B,) out where `leaving` says so."""
        basis, place = self.basis, places[:, None]
        lost = basis.gather(2, place[:, :, None].expand(-1, self.used, 1))[:, :, 0] * leaving[:, None]
        length = lost.norm(dim=1, keepdim=True)
        at_place = lost.gather(1, place)
        mirror = lost.scatter_add(1, place, torch.where(at_place < 0, -length, length))
        twice = 2 / (mirror * mirror).sum(1, keepdim=True).clamp(min=torch.finfo(lost.dtype).tiny)
        basis.baddbmm_((-twice * mirror)[:, :, None], mirror[:, None] @ basis)
        self._reach[: self.used] = self.used
        keep = (torch.arange(self.used, device=lost.device) != place) | ~leaving[:, None]
        every = torch.arange(len(places), device=lost.device)
        basis[every, places] *= ~leaving[:, None]
        basis[every, :, places] *= ~leaving[:, None]
        self._active[:, : self.used] &= keep
        self._weights[:, : self.used] *= keep
        self.size = self.size - leaving.long()

    def make_room(self, m: int) -> None:
        """Close the gaps if there is no place for m more."""
        if self.used + m <= self._rows.shape[1]:
            return
        order = (~self._active).byte().argsort(dim=1, stable=True)  # (B, capacity)
        every = torch.arange(len(order), device=order.device)[:, None]
        self.used = int(self.size.max())
        self._rows, self._active = self._rows[every, order], self._active[every, order]
        self._weights = self._weights[every, order]
        self.gram.reorder(order)
        self._basis = self._basis[every[:, :, None], order[:, :, None], order[:, None]]
        self._reach[:] = len(self._reach)

    def members(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows and weights of each problem, in the order chosen."""
        rows, weights, active = (x.cpu().numpy() for x in (self.rows, self.weights, self.active))
        return [(r[a], w[a]) for r, w, a in zip(rows, weights, active, strict=True)]


def _urgency(first: Sequence[np.ndarray], like: Tensor) -> Tensor:
    """Scores that put the rows `first` of each problem before all others, in that order."""
    scores = torch.full_like(like, -torch.inf)
    for row, chosen in zip(scores, first, strict=True):
        row[torch.from_numpy(chosen).to(like.device)] = 1e300 * (
            2 - torch.arange(len(chosen), device=like.device, dtype=like.dtype) / max(len(chosen), 1)
        )
    return scores
