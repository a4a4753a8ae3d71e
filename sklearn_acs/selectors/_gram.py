"""GramRows computes the inner products that matching pursuits ask for, for a batch of problems at once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sklearn_acs.gradients import LastLayerGradients, add_up

_DOUBLE_BYTES = 2**26  # size up to which a Gram matrix is computed as a whole in float64
_WHOLE_BYTES = 2**27  # and in the gradients' own precision
_CHUNK = 4096  # columns of a factor that one product converts
_BLOCK = 256  # rows of the Gram matrix that one product computes


Branches = list[tuple[Tensor, Tensor]]
"""Factors of B problems, (B, n, C) and (B, n, D + 1), a pair for each branch."""


class GramRows:
    """Gives rows of ``K = G G^T`` for B matrices G, and keeps those of the chosen gradients side by side in memory.

    A small K of which most rows will be needed is computed as a whole, and a row is brought forward by exchanging it
    with another. Of a large K each row is computed from the factors when it is asked for.

    Parameters
    ----------
    problems : sequence of LastLayerGradients
        The matrices, in float32 or float64, alike in width, number of branches, type and device. Shorter ones are
        padded with rows of zeros.
    n_chosen : int
        Number of rows that will be asked for, roughly.
    capacity : int
        Number of places for them.
    """

    def __init__(self, problems: Sequence[LastLayerGradients], n_chosen: int, capacity: int) -> None:
        self.n_rows = [len(problem) for problem in problems]
        n = max(self.n_rows)
        self.branches = stack_branches(problems)
        self.shape = (len(problems), n)
        self.device = problems[0].device
        self._every = torch.arange(len(problems), device=self.device)[:, None]

        own = self.branches[0][0].dtype
        dtype = torch.float64 if 8 * n * n <= _DOUBLE_BYTES else own
        self.is_whole = n < 16 * n_chosen and dtype.itemsize * n * n <= _WHOLE_BYTES
        self.dtype = dtype if self.is_whole else own
        self.n_places = max(n, capacity) if self.is_whole else capacity
        self._rows = torch.empty(len(problems), self.n_places, n, dtype=self.dtype, device=self.device)
        if self.is_whole:
            self._compute_all()
            self._rows[:, n:] = 0  # places without a row, for gaps
            # The row at each place, and the place of each row.
            self._held = torch.arange(self.n_places, device=self.device).repeat(len(problems), 1)
            self._place = self._held.clone()

    def chosen(self, t: int) -> Tensor:
        """Return the rows at the first t places, (B, t, n)."""
        return self._rows[:, :t]

    def bring(self, rows: Tensor, asked: Tensor, start: int) -> Tensor:
        """Bring the `rows` (B, m) that are `asked` for to the places from `start` on; return these (B, m, n)."""
        stop = start + rows.shape[1]
        if self.is_whole:
            for row, wanted, place in zip(rows.split(1, dim=1), asked.split(1, dim=1), range(start, stop), strict=True):
                self._exchange(torch.where(wanted, row, self._held[:, place, None]), place)
        else:
            picked = take_rows(self.branches, rows)
            self._rows[:, start:stop] = add_up(
                (g_a @ g.transpose(1, 2)) * (h_a @ h.transpose(1, 2)) for g_a, h_a in picked for g, h in self.branches
            )
        return self._rows[:, start:stop]

    def bring_one(self, rows: list[int], start: int) -> np.ndarray:
        """Bring the `rows` of a single problem on the CPU to the places from `start` on; return them, (m, n)."""
        stop = start + len(rows)
        if not self.is_whole:
            return self.bring(torch.tensor([rows]), torch.ones(1, len(rows), dtype=torch.bool), start)[0].numpy()
        for row, place in zip(rows, range(start, stop), strict=True):
            self.swap(int(self._place[0, row]), place)
        return self._rows[0, start:stop].numpy()

    def swap(self, a: int, b: int) -> None:
        """Exchange the rows at two places of a single problem on the CPU."""
        rows = self._rows[0].numpy()
        rows[[a, b]] = rows[[b, a]]
        if self.is_whole:
            held, place = self._held[0].numpy(), self._place[0].numpy()
            held[[a, b]] = held[[b, a]]
            place[held[[a, b]]] = a, b

    def reorder(self, order: Tensor) -> None:
        """Reorder the rows at the first t places by `order` (B, t)."""
        n_places = order.shape[1]
        self._rows[:, :n_places] = self._rows[self._every, order]
        if self.is_whole:
            self._held[:, :n_places] = self._held[self._every, order]
            self._place = self._held.argsort(dim=1)

    def squares(self) -> Tensor:
        """Compute the squared norms of all gradients in float64, (B, n)."""
        pairs = [(left, right) for left in self.branches for right in self.branches]
        return add_up(_row_dots(g_a, g_b) * _row_dots(h_a, h_b) for (g_a, h_a), (g_b, h_b) in pairs).clamp(min=0)

    def correlations(self, rows: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Compute the inner products, in float64, of all gradients with a weighted sum of them, (B, n).

        `rows` (B, t) are those at the first t places, which the sum is over, and `weights` (B, t) their weights.
        Without them the sum is over all gradients.
        """
        if rows is None or weights is None:
            sums = [_product(g.transpose(1, 2), h.transpose(1, 2)) for g, h in self.branches]
        elif self.is_whole and self.dtype == torch.float64:
            return (weights[:, None] @ self.chosen(weights.shape[1]))[:, 0]
        else:
            picked = take_rows(self.branches, rows)
            sums = [(g.double() * weights[:, :, None]).transpose(1, 2) @ h.double() for g, h in picked]
        total = add_up(sums)  # (B, C, D + 1)
        return add_up(_dots(g, h, total) for g, h in self.branches)

    def _compute_all(self) -> None:
        """Compute K block by block, and mirror each block at the diagonal."""
        n, branches = self.shape[1], self.branches
        if self.dtype.itemsize * sum(factor.numel() for pair in branches for factor in pair) <= _WHOLE_BYTES:
            branches = [(g.to(self.dtype), h.to(self.dtype)) for g, h in branches]  # once instead of block by block
        pairs = [(left, right) for left in branches for right in branches]
        for start in range(0, n, _BLOCK):
            stop = min(start + _BLOCK, n)
            block = add_up(
                _product(g_a[:, start:stop], g_b[:, start:], self.dtype)
                * _product(h_a[:, start:stop], h_b[:, start:], self.dtype)
                for (g_a, h_a), (g_b, h_b) in pairs
            )
            self._rows[:, start:stop, start:] = block
            self._rows[:, start:n, start:stop] = block.transpose(1, 2)

    def _exchange(self, rows: Tensor, place: int) -> None:
        """Exchange `rows` (B, 1) with those that are at `place`."""
        others, from_place = self._held[:, place, None].clone(), self._place.gather(1, rows)
        forward = self._rows[self._every, from_place]
        self._rows[self._every, from_place] = self._rows[:, place, None].clone()
        self._rows[:, place, None] = forward
        self._held.scatter_(1, from_place, others)
        self._held[:, place, None] = rows
        self._place.scatter_(1, others, from_place)
        self._place.scatter_(1, rows, place)


def stack_branches(problems: Sequence[LastLayerGradients]) -> Branches:
    """Stack the factors of every branch to batches (B, n, C) and (B, n, D + 1), padding shorter problems with zeros."""
    branches = zip(*(problem.branches for problem in problems), strict=True)
    return [(_stack([g for g, _ in branch]), _stack([h for _, h in branch])) for branch in branches]


def take_rows(branches: Branches, rows: Tensor) -> Branches:
    """Take the `rows` (B, m) of each problem."""
    every = torch.arange(len(rows), device=rows.device)[:, None]
    return [(g[every, rows], h[every, rows]) for g, h in branches]


def _stack(factors: list[Tensor]) -> Tensor:
    """Stack matrices to one batch; a single one is not copied."""
    return factors[0][None] if len(factors) == 1 else pad_sequence(factors, batch_first=True)


def _product(a: Tensor, b: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Compute ``a b^T`` in the precision `dtype`, to which some columns of both are converted at a time."""
    pairs = zip(a.split(_CHUNK, dim=2), b.split(_CHUNK, dim=2), strict=True)
    return add_up(left.to(dtype) @ right.to(dtype).transpose(1, 2) for left, right in pairs)


def _row_dots(a: Tensor, b: Tensor) -> Tensor:
    """Compute in float64 the inner product of each row of a with the same row of b."""
    return torch.cat([(x.double() * y.double()).sum(2) for x, y in zip(_blocks(a), _blocks(b), strict=True)], dim=1)


def _dots(g: Tensor, h: Tensor, total: Tensor) -> Tensor:
    """Compute ``g_i^T total h_i`` in float64 for every row i."""
    blocks = zip(_blocks(g), _blocks(h), strict=True)
    return torch.cat([((y.double() @ total.transpose(1, 2)) * x.double()).sum(2) for x, y in blocks], dim=1)


def _blocks(factor: Tensor) -> tuple[Tensor, ...]:
    return factor.split(_BLOCK, dim=1)
