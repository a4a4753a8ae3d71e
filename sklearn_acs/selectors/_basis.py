"""A matching pursuit refits its weights with a factor of an inverse Gram matrix, the `Basis`."""

import numpy as np
from numpy.typing import DTypeLike

ROUNDING = 1e-12  # relative error of float64 inner products: anything smaller is noise
PANEL = 256  # rows of the basis that one product reads


class Basis:
    """Holds weight vectors W with ``W (K + lambda I) W^T = I``, K being the Gram matrix of the members.

    W always satisfies ``(K + lambda I)^-1 = W^T W``. As long as no member leaves, W is the inverse of the Cholesky
    factor of ``K + lambda I``. A new member adds a vector by one Gram-Schmidt step. Before a member leaves, a
    reflection makes all vectors but one zero at its place, and that one is removed. Both multiply W by a vector.

    Parameters
    ----------
    capacity : int
        The largest number of members.
    dtype : dtype
        Precision of W. Reading W is most of the work, so that float32, where it is enough, takes half the time.
    """

    def __init__(self, capacity: int, dtype: DTypeLike = np.float64) -> None:
        self.size = 0
        self._vectors = np.zeros((capacity, capacity), dtype=dtype)  # the system assigns memory as rows are written
        self._reach = np.zeros(capacity, dtype=np.int64)  # length of each vector without its trailing zeros

    def project(self, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute ``right W^T`` and ``right W^T W`` for right-hand sides (..., t)."""
        projected, solved = np.empty_like(right), np.zeros_like(right)
        for start in range(0, self.size, PANEL):  # skips most of the zeros of a triangle
            stop = min(start + PANEL, self.size)
            panel = self._vectors[start:stop, : self._reach[start:stop].max()]
            products = right[..., : panel.shape[1]].astype(panel.dtype, copy=False) @ panel.T
            projected[..., start:stop] = products
            solved[..., : panel.shape[1]] += products @ panel
        return projected, solved

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Compute ``(K + lambda I)^-1 right``."""
        return self.project(right)[1]

    def append(self, inner: np.ndarray, diagonal: np.ndarray) -> np.ndarray | None:
        """Add m members, given their inner products (m, t + m) with the earlier ones and themselves.

        Returns the new vectors, (m, t + m), or None if a member is linearly dependent on the others.
        """
        t, m = self.size, len(inner)
        projected, solved = self.project(inner[:, :t].astype(float))
        own = inner[:, t:] - projected @ projected.T
        np.fill_diagonal(own, diagonal - (projected**2).sum(1))
        vectors = np.hstack([-solved, np.eye(m)])
        for i in range(m):
            if own[i, i] <= ROUNDING * diagonal[i]:
                return None
            vectors[i] /= np.sqrt(own[i, i])
            if i + 1 < m:
                shares = own[i, i + 1 :] / np.sqrt(own[i, i])
                own[i + 1 :, i + 1 :] -= np.outer(shares, shares)
                vectors[i + 1 :] -= np.outer(shares, vectors[i])
        self._vectors[t : t + m, : t + m] = vectors
        self._reach[t : t + m] = t + m
        self.size = t + m
        return vectors

    def delete(self, place: int) -> None:
        """Remove a member and move the last one to its place."""
        t, last = self.size, self.size - 1
        vectors = self._vectors[:t, :t]
        mirror = vectors[:, place].copy()  # its reflection is the unit vector of `place`
        mirror[place] += np.copysign(np.linalg.norm(mirror), mirror[place])
        vectors -= np.outer(2 / (mirror @ mirror) * mirror, mirror @ vectors)
        vectors[place] = vectors[last]
        vectors[:, place] = vectors[:, last]
        vectors[last], vectors[:, last] = 0, 0
        self._reach[:last] = self.size = last
