"""Greedy facility location picks points from a matrix of distances; this file knows arrays, not estimators."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
import torch
from torch import Tensor

_TIE = 1e-6  # relative difference up to which distances, perhaps in float32, count as equal
_BLOCK_BYTES = 2**23  # that rows looked up together may take

Rows = Callable[[Any], np.ndarray]
"""``rows(which)`` gives rows of a symmetric matrix, (m, n) for a slice or an array of indices, (n,) for an index."""


def facility_location(rows: Rows, n: int, k: int, *, at_once: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Choose k of n points greedily so that every point is close to its nearest chosen one.

    Maximises ``F(S) = sum_i max_{j in S} (d_max - d_ij)``, of which greedy choice reaches at least the share
    ``1 - 1/e``.

    Parameters
    ----------
    rows : callable
        Gives the rows of the symmetric (n, n) matrix of distances at an index, a slice or an array of
        indices: ``d.__getitem__``, or a function that computes them where the matrix is too large to keep.
    n, k : int
        Number of points, and number to choose, 1 to n.
    at_once : int
        The largest number of rows that a step looks up together: more than 1 where that is cheaper than one by one.

    Returns
    -------
    picks : ndarray of shape (k,)
        The chosen points, distinct, in the order chosen; the lowest index on ties.
    sizes : ndarray of shape (k,)
        Number of points assigned to each pick, n in total. A pick is assigned to itself, every other point to its
        nearest pick, and to the earliest of several equally near ones.

    Notes
    -----
    1. Point j gains ``sum_i max(0, c_i - d_ij)``, where c_i is i's distance to its nearest pick. Gains only fall, so
       that an old gain bounds the new one from above. A step therefore computes anew only the gains whose old value
       is not below the best new one, and picks what the naive greedy algorithm picks (Minoux' lazy greedy).
    2. The first pick is the medoid whatever ``d_max`` is, so that ``d_max`` is never computed.
    3. A pick is assigned to itself even if it equals an earlier one. The published code looks up the first
       largest similarity instead, and leaves duplicates with weight 0.
    """
    size = max(1, _BLOCK_BYTES // (8 * n))
    blocks = [slice(start, start + size) for start in range(0, n, size)]
    totals = np.concatenate([found @ np.ones(n, dtype=found.dtype) for found in map(rows, blocks)])
    cover = _Cover(n)
    medoid = int((totals <= totals.min() * (1 + _TIE)).argmax())
    cover.add(medoid, rows(medoid))
    # A heap of each point's last computed gain, which is at least its gain now.
    gains = [cover.gain(row) for block in blocks for row in rows(block)]
    heap = [(-gain, j) for j, gain in enumerate(gains) if j != medoid]
    heapify(heap)
    while len(cover.picks) < k:
        best, enough, several = -1.0, -1.0, 1
        seen: dict[int, float] = {}  # gains computed in this step
        good: dict[int, np.ndarray] = {}  # rows of the points that may be the best
        while heap and -heap[0][0] > enough:
            stale = [heappop(heap)[1] for _ in range(min(several, len(heap)))]
            for j, row in zip(stale, [rows(stale[0])] if several == 1 else rows(np.array(stale)), strict=True):
                gain = cover.gain(row)
                seen[j] = gain
                if gain > best:
                    best, enough = gain, gain * (1 - _TIE)
                    good = {i: kept for i, kept in good.items() if seen[i] >= enough}
                if gain >= enough:
                    good[j] = row if several == 1 else row.copy()  # without the rows looked up with it
            several = min(2 * several, at_once)
        if best <= 0:  # so that no point gains anything
            for j in sorted([*seen, *(j for _, j in heap)])[: k - len(cover.picks)]:
                cover.add(j, rows(j))
            break
        pick = min(good)
        cover.add(pick, good[pick])
        for j, gain in seen.items():
            if j != pick:
                heappush(heap, (-gain, j))
    return cover.result()


def stochastic_facility_location(
    rows: Rows, n: int, k: int, n_candidates: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Choose k of n points as `facility_location` does, each as the best of `n_candidates` points that `rng` draws."""
    left, cover, size = np.arange(n), _Cover(n), max(1, _BLOCK_BYTES // (8 * n))
    for _ in range(k):
        drawn = np.sort(rng.choice(len(left), min(n_candidates, len(left)), replace=False))
        blocks = np.split(left[drawn], range(size, len(drawn), size))
        gains = np.array([cover.gain(row) for block in blocks for row in rows(block)])
        best = drawn[(gains >= gains.max() - _TIE * abs(gains.max())).argmax()]
        cover.add(int(left[best]), rows(int(left[best])))
        left = np.delete(left, best)
    return cover.result()


class _Cover:
    """Tracks the picks and, for each point, its nearest pick and the distance to it."""

    def __init__(self, n: int) -> None:
        self.picks: list[int] = []
        self.owner = np.zeros(n, dtype=np.int64)

    def gain(self, row: np.ndarray) -> float:
        """Sum up by how much a pick at these distances would shorten those to the nearest pick, infinite ones alike."""
        if not self.picks:
            return -float(row.sum())
        np.subtract(self.nearest, row, out=self._gap)
        np.maximum(self._gap, self._zeros, out=self._gap)  # four times as fast as with a plain 0
        return float(self._gap @ self._ones)

    def add(self, pick: int, row: np.ndarray) -> None:
        """Add a pick, given its distances to all points."""
        if not self.picks:
            self.nearest, self._close = np.full_like(row, np.inf), np.full_like(row, np.inf)
            self._gap, self._zeros, self._ones = (np.full_like(row, value) for value in (0, 0, 1))
        closer = (row < self._close).nonzero()[0]
        self.owner[closer] = len(self.picks)
        self.owner[pick] = len(self.picks)
        self.nearest[closer] = row[closer]
        self._close[closer] = row[closer] * (1 - _TIE)
        self.picks.append(pick)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the picks, and the number of points assigned to each."""
        return np.array(self.picks), np.bincount(self.owner, minlength=len(self.picks))


def batched_facility_location(
    distances: Tensor, sizes: list[int], budgets: list[int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Solve several problems of `facility_location` in one batch, as a GPU likes it.

    Every step computes the gains of all points, which is faster on a GPU than finding out which ones to compute.
    Nothing is read from the device before the end.

    Parameters
    ----------
    distances : Tensor of shape (B, n, n)
        One matrix for each problem, padded with any numbers.
    sizes : list of int
        Number of points in each problem.
    budgets : list of int
        Number of points to choose in each problem, 1 to all.

    Returns
    -------
    list of (ndarray of shape (k,), ndarray of shape (k,))
        The picks and sizes of each problem.
    """
    n_problems, n, _ = distances.shape
    device = distances.device
    every = torch.arange(n_problems, device=device)
    real = torch.arange(n, device=device) < torch.tensor(sizes, device=device)[:, None]
    distances = torch.where(real[:, :, None] & real[:, None], distances, 0)  # every pick covers padding
    gains = torch.where(real, -distances.sum(2, dtype=torch.float64), -torch.inf)
    nearest = distances.amax((1, 2))[:, None].expand(-1, n).clone()
    owner = torch.zeros(n_problems, n, dtype=torch.long, device=device)
    wanted = torch.tensor(budgets, device=device)[:, None]
    picks = []
    for position in range(max(budgets)):
        best = gains.amax(1, keepdim=True)
        pick = (gains >= best - _TIE * best.abs()).byte().argmax(1)
        row = distances[every, pick]
        mine = (row < (1 - _TIE) * nearest) | (torch.arange(n, device=device) == pick[:, None])
        owner[mine & (position < wanted)] = position
        picks.append(pick)
        nearest = torch.minimum(row, nearest) if position else row.clone()
        gains = (nearest[:, None] - distances).clamp_(min=0).sum(2, dtype=torch.float64)
        gains[~real] = -torch.inf
        gains.scatter_(1, torch.stack(picks, 1), -torch.inf)
    chosen, owners = torch.stack(picks, 1).cpu().numpy(), owner.cpu().numpy()
    return [
        (chosen[b, :k], np.bincount(owners[b, :size], minlength=k))
        for b, (size, k) in enumerate(zip(sizes, budgets, strict=True))
    ]
