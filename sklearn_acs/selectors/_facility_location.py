"""Greedy facility location on a matrix of distances: no estimator in sight."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_TIE = 1e-6  # distances may come in float32: closer than this, relatively, is equal
_BLOCK_BYTES = 2**26  # that one block of rows may take in float64


def facility_location(rows: Callable[[Tensor], Tensor], n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose k of n points greedily so that every point is close to its nearest chosen one.

    Maximises ``F(S) = sum_i max_{j in S} (d_max - d_ij)``, of which greedy choice reaches at least the share
    ``1 - 1/e``.

    Parameters
    ----------
    rows : callable
        Gives the rows of the symmetric (n, n) matrix of distances at a tensor of indices: ``d.__getitem__``,
        or a function that computes them where the matrix is too large to keep.
    n, k : int
        How many points there are, and how many to choose, 1 to n.

    Returns
    -------
    picks : ndarray of shape (k,)
        The chosen points, distinct, in the order chosen; the lowest index on ties.
    sizes : ndarray of shape (k,)
        How many points each stands for: those nearest to it, itself always, and of those as near to several
        the ones that no earlier pick has. They add up to n.

    Notes
    -----
    1. The picks are those of the naive and of the lazy greedy algorithm, found without a queue. Point j gains
       ``sum_i max(0, c_i - d_ij)``, where c_i is i's distance to its nearest pick. A new pick lowers c_i
       in its own cluster only, about n / t points at step t, and all gains are corrected for these rows:
       ``n^2 (1 + 1/2 + ... + 1/k)`` operations in a few large blocks.
    2. The first pick is the medoid whatever ``d_max`` is, so that it is never computed.
    3. A pick belongs to itself even where it equals an earlier one. The published code looks up the first
       largest similarity instead, and leaves duplicates with weight 0.
    """
    block = max(1, _BLOCK_BYTES // (8 * n))
    everyone = torch.arange(n, device=rows(torch.tensor([0])).device)

    total = torch.stack([rows(part).sum(0, dtype=torch.float64) for part in everyone.split(block)]).sum(0)
    picks = [_first_best(-total, _TIE * total.min())]
    nearest = rows(everyone[picks])[0].double()  # distances to the nearest pick, whose position is `owner`
    owner = torch.zeros_like(everyone)

    def gained(points: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Add up, per candidate, what it gains at `points` at distance `before` and no more at `after`."""
        result = torch.zeros_like(total)
        for i in points.split(block):
            d = rows(i).double()  # (block, n)
            result += (before[i, None] - d.clamp(after[i, None], before[i, None])).sum(0)
        return result

    gains = gained(everyone, nearest, torch.zeros_like(nearest))
    rounding = 1e-12 * gains.sum() / n  # that the corrections leave behind: gains below are none
    for position in range(1, k):
        gains[picks[-1]] = -torch.inf
        picks.append(_first_best(gains, torch.maximum(_TIE * gains.max(), rounding)))
        d = rows(everyone[picks[-1:]])[0].double()
        owner[d < (1 - _TIE) * nearest] = position
        owner[picks[-1]] = position
        closer = torch.minimum(d, nearest)
        gains -= gained((closer < nearest).nonzero()[:, 0], nearest, closer)
        nearest = closer
    return np.array(picks), torch.bincount(owner, minlength=k).cpu().numpy()


def _first_best(values: Tensor, tolerance: Tensor) -> int:
    """Find the lowest index whose value is the largest up to the tolerance."""
    return int((values >= values.max() - tolerance).int().argmax())
