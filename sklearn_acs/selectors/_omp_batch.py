"""The matching pursuit of `_omp.py` solves several problems in one batch, as a GPU likes it."""

from collections.abc import Sequence
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors._basis import ROUNDING
from sklearn_acs.selectors._gram import GramRows
from sklearn_acs.selectors._omp import MAX_ADMISSIONS, POLISHES, REASONS, REFRESH_EVERY, TIES, Matching


def batched_matching_pursuit(
    problems: Sequence[LastLayerGradients],
    budgets: Sequence[int],
    *,
    ridge: float,
    centers: Sequence[float],
    tolerance: float,
    atoms_per_step: int = 1,
) -> list[Matching]:
    """Solve several problems of `orthogonal_matching_pursuit` in one batch, each as it would be alone.

    A step reads one small tensor from the device, which tells what is still running; shapes do not depend on the data.
    A dropped row therefore leaves a gap of zeros, which changes no product. Parameters and results are those of
    `orthogonal_matching_pursuit`; `problems`, `budgets`, `centers` and results hold one for each problem.
    """
    return _Pursuits(problems, budgets, ridge, centers, atoms_per_step).run(tolerance)


class _Pursuits:
    """Keeps the state of B pursuits; parameters as in `batched_matching_pursuit`."""

    def __init__(
        self,
        problems: Sequence[LastLayerGradients],
        budgets: Sequence[int],
        ridge: float,
        centers: Sequence[float],
        atoms_per_step: int,
    ) -> None:
        k = max(budgets)
        self.atoms = min(atoms_per_step, k)
        capacity = k + self.atoms + k // 16 + 16  # dropped rows leave gaps for a while
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
        self.noise = ROUNDING * squares.sqrt() * self.b_square.sqrt()[:, None]
        self.admissions = torch.where(squares > 0, 0, MAX_ADMISSIONS)  # rows of zeros, padding too, are never admitted
        self.barred = squares == 0  # True for members too
        self.refused = torch.zeros_like(self.barred)  # barred until a member leaves: they depend on the members

    def run(self, tolerance: float) -> list[Matching]:
        """Admit and drop rows until every pursuit has a reason to stop."""
        goal = tolerance**2 * self.b_square
        support = self.support
        no = torch.zeros(len(self.budgets), dtype=torch.bool, device=self.gram.device)
        running, blocked, dropping = ~no, no, no
        victims, reason, polished = no.long(), no.long(), no.long() + POLISHES
        for step in count(1):
            rows, found = self._choose()
            full = support.sizes() >= self.budgets
            close = self._residual_square() <= goal
            waiting = running & ~blocked
            ending = waiting & (full | close | ~found[:, 0])
            why = torch.where(full, 0, torch.where(close, 1, torch.where(self.refused.any(1), 3, 2)))  # of REASONS
            reason = torch.where(ending, why, reason)
            running = running & ~(ending & (polished >= POLISHES))
            adding = waiting & ~ending
            state = torch.stack([running, adding, ending & running, blocked, dropping]).any(1).tolist()
            is_running, is_adding, is_ending, is_blocked, is_dropping = state
            if not is_running:
                break
            if is_dropping:
                self._drop(victims, dropping)
            if is_ending or step % REFRESH_EVERY == 0:
                self.residuals = self.aim - self.gram.correlations(support.rows, support.weights)
                blocked, polished = running, polished + 1
                is_blocked, is_adding = True, False
            if is_adding:
                support.make_room(self.atoms)
            way = torch.zeros_like(support.weights)
            if is_blocked:
                way = support.project(self._slope()[:, None])[1][:, 0] * blocked[:, None]
            if is_adding:
                polished = torch.where(adding, 0, polished)
                left = (self.budgets - support.sizes())[:, None] > torch.arange(self.atoms, device=self.gram.device)
                way = nn.functional.pad(way, (0, self.atoms)) + self._add(rows, found & left & adding[:, None])
            dropping, victims = self._walk(way)
            blocked = dropping
        members = zip(support.members(), reason.tolist(), strict=True)
        return [Matching(rows, weights, REASONS[why]) for (rows, weights), why in members]

    def _choose(self) -> tuple[Tensor, Tensor]:
        """Find the best rows to admit next (B, m), the lowest index on ties, and tell which of them exist."""
        hopeless = self.barred | (self.residuals + self.pull[:, None] <= self.noise)
        scores = torch.where(hopeless, -torch.inf, self.residuals)
        rows, best, tie = [], [], TIES[self.gram.dtype]
        for _ in range(self.atoms):
            best.append(scores.amax(1, keepdim=True))
            rows.append((scores >= best[-1] - tie * best[-1].abs()).byte().argmax(1, keepdim=True))
            scores = scores.scatter(1, rows[-1], -torch.inf)
        return torch.cat(rows, 1), torch.cat(best, 1) > -torch.inf

    def _residual_square(self) -> Tensor:
        """Compute ``||r||^2`` for fitted weights, ``K w + lambda (w - center) = G b``."""
        w, penalty = self.support.weights, self.penalty[:, None]
        aim = self.aim.gather(1, self.support.rows) + penalty * (w - self.center[:, None])
        return self.b_square - (w * aim).sum(1)

    def _slope(self) -> Tensor:
        """Compute minus half the objective's gradient at the members' weights (B, t): zero when they are fitted."""
        support = self.support
        slope = self.residuals.gather(1, support.rows) - self.penalty[:, None] * support.weights + self.pull[:, None]
        return torch.where(support.active, slope, 0.0)

    def _add(self, rows: Tensor, adding: Tensor) -> Tensor:
        """Admit rows or refuse those that depend on the members; return the way from fitted to refitted weights."""
        slope = torch.where(adding, self.residuals.gather(1, rows) + self.pull[:, None], 0.0)
        admitted, way = self.support.append(rows, adding, self.diagonal.gather(1, rows), slope)
        # With few candidates `rows` may hold a row several times: scatter_add_ counts where scatter_ would overwrite.
        self.admissions.scatter_add_(1, rows, admitted.long())
        self.refused |= torch.zeros_like(self.admissions).scatter_add_(1, rows, (adding & ~admitted).long()) > 0
        self.barred |= self.refused | (torch.zeros_like(self.admissions).scatter_add_(1, rows, admitted.long()) > 0)
        return way

    def _walk(self, way: Tensor) -> tuple[Tensor, Tensor]:
        """Add `way` to the weights, or the share of it at which a first weight is zero.

        Returns which problems stopped short (B,), and the place of the member whose weight is zero in each (B,).
        """
        support = self.support
        weights, fitted = support.weights, support.weights + way
        falling = support.active & (fitted <= 0)
        until_zero = weights / (weights - fitted).clamp(min=torch.finfo(weights.dtype).tiny)
        share, victims = torch.where(falling, until_zero, 2.0).min(1)
        moved = way * share.clamp(max=1)[:, None]
        support.weights = weights + moved
        self.residuals -= (moved[:, None].to(self.gram.dtype) @ self.gram.chosen(support.rows.shape[1]))[:, 0]
        return share < 2, victims

    def _drop(self, victims: Tensor, dropping: Tensor) -> None:
        """Drop the member at the place `victims` of each problem `dropping`; the dropped row may come back."""
        rows = self.support.rows.gather(1, victims[:, None])
        freed = self.refused & dropping[:, None]
        self.barred, self.refused = self.barred & ~freed, self.refused & ~freed
        spent = self.admissions.gather(1, rows) >= MAX_ADMISSIONS
        barred = torch.where(dropping[:, None], spent, self.barred.gather(1, rows))
        self.barred.scatter_(1, rows, barred)
        self.support.delete(victims, dropping)


class _Support:
    """Keeps the members of B problems, their weights, and the basis W that refits them: see `_basis.Basis`.

    There are t places. `rows` (B, t) says which row is at each, `active` (B, t) whether it is a member or a gap, and
    `weights` (B, t) its weight, which is zero in gaps.
    """

    def __init__(self, gram: GramRows, capacity: int) -> None:
        nothing = torch.zeros(gram.shape[0], 0, device=gram.device)
        self.gram = gram
        self.rows, self.active, self.weights = nothing.long(), nothing.bool(), nothing.double()
        self._basis = nothing.new_zeros(gram.shape[0], capacity, capacity, dtype=torch.float64)

    @property
    def basis(self) -> Tensor:
        """The matrices W, (B, t, t)."""
        t = self.rows.shape[1]
        return self._basis[:, :t, :t]

    def sizes(self) -> Tensor:
        """Count the members of each problem, (B,)."""
        return self.active.sum(1)

    def project(self, right: Tensor) -> tuple[Tensor, Tensor]:
        """Compute ``right W^T`` and ``right W^T W = right (K + lambda I)^-1`` for right-hand sides (B, m, t)."""
        projected = right @ self.basis.transpose(1, 2)
        return projected, projected @ self.basis

    def append(self, rows: Tensor, adding: Tensor, diagonal: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Admit those of the rows (B, m) that `adding` marks and that are linearly independent of the members.

        `diagonal` is the rows' entry of ``K + lambda I``, and `slope` that of a weight of zero. Returns which rows were
        admitted (B, m), and the way from the fitted weights to those refitted with these rows, (B, t + m).
        """
        t, m = self.rows.shape[1], rows.shape[1]
        places = torch.cat([self.rows, rows], 1)
        inner = self.gram.bring(rows, adding, t).gather(2, places[:, None].expand(-1, m, -1)).double()
        projected, solved = self.project(inner[:, :, :t])
        own = inner[:, :, t:] - projected @ projected.transpose(1, 2)
        own.diagonal(dim1=1, dim2=2).copy_(diagonal - (projected * projected).sum(2))
        new = torch.cat([-solved, torch.eye(m, dtype=own.dtype, device=own.device).expand_as(own)], 2)
        admitted = []
        for i in range(m):  # Gram-Schmidt among the new vectors
            pivot = own[:, i, i]
            admitted.append(adding[:, i] & (pivot > ROUNDING * diagonal[:, i]))
            scale = torch.where(admitted[-1], pivot.clamp(min=torch.finfo(own.dtype).tiny).rsqrt(), 0.0)[:, None]
            new[:, i] *= scale
            if i + 1 < m:
                row = own[:, i] * scale
                own = own - row[:, :, None] * row[:, None]
                new[:, i + 1 :] -= row[:, i + 1 :, None] * new[:, i, None]
        came = torch.stack(admitted, 1)
        self._basis[:, t : t + m, : t + m] = new
        self.rows, self.active = places, torch.cat([self.active, came], 1)
        self.weights = nn.functional.pad(self.weights, (0, m))
        return came, ((new[:, :, t:] @ slope[:, :, None]).transpose(1, 2) @ new)[:, 0]

    def delete(self, places: Tensor, leaving: Tensor) -> None:
        """Remove the members at `places` (B,) from the problems that `leaving` marks."""
        basis, place = self.basis, places[:, None]
        lost = basis.gather(2, place[:, :, None].expand(-1, basis.shape[1], 1))[:, :, 0] * leaving[:, None]
        length = lost.norm(dim=1, keepdim=True)
        at_place = lost.gather(1, place)
        mirror = lost.scatter_add(1, place, torch.where(at_place < 0, -length, length))
        twice = 2 / (mirror * mirror).sum(1, keepdim=True).clamp(min=torch.finfo(lost.dtype).tiny)
        basis.baddbmm_((-twice * mirror)[:, :, None], mirror[:, None] @ basis)
        keep = (torch.arange(basis.shape[1], device=lost.device) != place) | ~leaving[:, None]
        every = torch.arange(len(places), device=lost.device)
        basis[every, places] *= ~leaving[:, None]
        basis[every, :, places] *= ~leaving[:, None]
        self.active, self.weights = self.active & keep, self.weights * keep

    def make_room(self, m: int) -> None:
        """Close the gaps if there are not m places left."""
        if self.rows.shape[1] + m <= self._basis.shape[1]:
            return
        order = (~self.active).byte().argsort(dim=1, stable=True)  # (B, t)
        every = torch.arange(len(order), device=order.device)[:, None, None]
        self.gram.reorder(order)
        self.basis[:] = self.basis[every, order[:, :, None], order[:, None]]
        left = order[:, : int(self.sizes().max())]
        self.rows, self.active, self.weights = (x.gather(1, left) for x in (self.rows, self.active, self.weights))

    def members(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the rows and weights of each problem, in the order chosen."""
        rows, weights, active = (x.cpu().numpy() for x in (self.rows, self.weights, self.active))
        return [(r[a], w[a]) for r, w, a in zip(rows, weights, active, strict=True)]
