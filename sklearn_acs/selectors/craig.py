"""CRAIG chooses a coreset whose gradients are close to all gradients."""

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from math import ceil, log
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sklearn_acs._compat import Interval, StrOptions
from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors._classes import Solved, Task, fits, n_threads, on_gpu, solve_in_batches, solve_on_cpu
from sklearn_acs.selectors._coreset import Coreset
from sklearn_acs.selectors._facility_location import (
    batched_facility_location,
    facility_location,
    stochastic_facility_location,
)
from sklearn_acs.selectors.base import BaseSelector

_BLOCK = 256  # rows of the matrix of distances that one product computes
_AT_ONCE = 64  # the most rows that are looked up together while choosing


@dataclass(kw_only=True, eq=False, repr=False)
class CRAIG(BaseSelector):
    """Chooses a coreset by facility location: every gradient has a chosen one close by.

    Greedily minimises ``sum_i min_{j in S} d(G_i, G_j)``, an upper bound on the distance between the sum of
    all gradients and the weighted sum of the chosen. A row's weight is the number of rows nearest to it.

    Parameters
    ----------
    n_select : int or float, default=0.1
        Size of the coreset: a count, or a fraction of the samples in (0, 1].
    per_class : bool, default=False
        Whether to choose in every class of y on its own, in proportion to its size, as the paper does.
    n_jobs : int or None, default=None
        Threads that classes are spread over, -1 for one for each core. None is 1: the greedy algorithm's small steps
        hardly run side by side, and torch computes the distances with its own threads anyway.
    metric : {"euclidean", "sqeuclidean"}, default="euclidean"
        The distance. The paper bounds the error by the Euclidean one; CORDS and ACS square it.
    optimizer : {"lazy", "stochastic"}, default="lazy"
        "lazy" computes the gain of every row that could be the best one, and so picks what the naive greedy algorithm
        picks. "stochastic" computes those of ``(n / k) log(1 / subsample_eps)`` random rows for each pick.
    subsample_eps : float, default=0.01
        How much worse "stochastic" may be: it reaches at least the share ``1 - 1/e - subsample_eps`` of the optimum
        in expectation.
    memory_budget : int, default=2**30
        Bytes that the distances may take, shared by all classes that are solved at the same time. If n x n float32
        distances fit they are kept; else rows are computed when they are needed, in blocks of this size at most.
    random_state : int, RandomState instance or None, default=None
        Draws the rows of "stochastic".

    Attributes
    ----------
    indices_ : ndarray or Tensor of shape (n_select,)
        The chosen rows, distinct, in the order chosen.
    weights_ : ndarray or Tensor of shape (n_select,)
        Number of rows that each stands for, of its class with `per_class`. They add up to the number of samples, less
        those of classes without a chosen row, which exist if n_select is less than the number of classes.
    support_ : ndarray or Tensor of shape (n_samples,)
        Boolean mask of the chosen rows.
    approximation_error_ : float
        ``||sum_j w_j G_j - sum_i G_i|| / ||sum_i G_i||`` over the whole set.
    n_matched_ : int
        The size of the coreset.
    stop_reason_ : str
        Why it stopped: the budget is used up.
    coreset_ : Coreset
        All of this in one object.
    gradients_ : LastLayerGradients
        The gradients of the coreset.
    n_features_in_ : int
        Length of one gradient.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only when G has string feature names.

    See Also
    --------
    GradMatch : Matches the sum of the gradients itself.
    RandomSelector : The baseline.

    Notes
    -----
    With the distances kept, ``O(n^2 (C + D))`` operations for them and about ``n`` for each look at a row; lazy greedy
    looks at each row a few times, whatever k. Memory is ``4 n^2`` bytes, or `memory_budget`. Computed when needed,
    every look takes ``n (C + D)`` operations.

    On a GPU "lazy" solves as many classes as its memory has room for as one batch. Each step looks at all rows, which
    takes ``O(k n^2)`` operations in all, and nothing is read before the end; `memory_budget` does not matter then.
    "stochastic" runs on the CPU, wherever the gradients are, and so does "lazy", with all classes, where the ``20 n^2``
    bytes that the largest one takes do not fit into half of the GPU's free memory.

    References
    ----------
    .. [1] B. Mirzasoleiman, J. Bilmes, J. Leskovec. "Coresets for Data-efficient Training of Machine Learning
       Models", ICML 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs.selectors import CRAIG
    >>> G = np.array([[0.0, 0.1], [0.0, 0.0], [0.0, -0.1], [9.0, 0.0]])
    >>> selector = CRAIG(n_select=2).fit(G)
    >>> selector.indices_, selector.weights_
    (array([1, 3]), array([3., 1.]))
    """

    metric: str = "euclidean"
    optimizer: str = "lazy"
    subsample_eps: float = 0.01
    memory_budget: int = 2**30
    random_state: int | np.random.RandomState | None = None

    _parameter_constraints: ClassVar[dict] = {
        **BaseSelector._parameter_constraints,
        "metric": [StrOptions({"euclidean", "sqeuclidean"})],
        "optimizer": [StrOptions({"lazy", "stochastic"})],
        "subsample_eps": [Interval(Real, 0, 1, closed="neither")],
        "memory_budget": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def _solve_tasks(self, tasks: list[Task]) -> Generator[Solved]:
        largest = max(len(task.rows) for task in tasks)
        if self.optimizer == "lazy" and on_gpu(tasks[0].gradients) and fits(20 * largest**2, tasks[0].gradients):
            return solve_in_batches(tasks, self._solve_batch, lambda n, k, width: 20 * n * n + 8 * n * width)
        # Rather fewer threads, whose matrices fit side by side, than rows that are computed again and again.
        n_jobs = min(n_threads(tasks, self.n_jobs or 1), max(1, self.memory_budget // (4 * largest**2)))
        return solve_on_cpu(tasks, partial(self._solve, memory=self.memory_budget // n_jobs), n_jobs)

    def _solve(
        self, gradients: LastLayerGradients, k: int, rng: np.random.RandomState, rows: np.ndarray, memory: int = 0
    ) -> Coreset:
        n = len(gradients)
        distances = _Distances(gradients.to("cpu"), self.metric, memory)
        kept = 4 * n * n <= memory
        look_up = distances.matrix().numpy().__getitem__ if kept else distances.rows
        if self.optimizer == "stochastic":
            n_candidates = ceil(n / k * log(1 / self.subsample_eps))
            return _coreset(*stochastic_facility_location(look_up, n, k, n_candidates, rng))
        return _coreset(*facility_location(look_up, n, k, at_once=1 if kept else distances.at_once))

    def _solve_batch(
        self, problems: list[LastLayerGradients], budgets: list[int], rngs: list[np.random.RandomState]
    ) -> list[Coreset]:
        n = max(len(gradients) for gradients in problems)
        matrices = torch.zeros(len(problems), n, n, device=problems[0].device)
        for matrix, gradients in zip(matrices, problems, strict=True):
            _Distances(gradients, self.metric, self.memory_budget).matrix(matrix[: len(gradients), : len(gradients)])
        found = batched_facility_location(matrices, [len(gradients) for gradients in problems], budgets)
        return [_coreset(picks, sizes) for picks, sizes in found]


class _Distances:
    """Computes distances between gradients in float64, and rounds them to float32.

    In float32, the squared norms of near copies would cancel. Gradients come scaled, so that float32 can hold all
    distances and their squares.

    Parameters
    ----------
    gradients : LastLayerGradients
        Of n samples.
    metric : str
        "euclidean" or "sqeuclidean".
    memory : int
        Bytes that rows computed together may take.
    """

    def __init__(self, gradients: LastLayerGradients, metric: str, memory: int) -> None:
        self.gradients, self.metric = gradients.to(torch.float64), metric
        self.squares = self.gradients.norms() ** 2
        self.at_once = max(1, min(_AT_ONCE, memory // (32 * len(gradients))))

    def matrix(self, out: Tensor | None = None) -> Tensor:
        """Compute all distances, (n, n)."""
        n = len(self.squares)
        out = torch.empty(n, n) if out is None else out
        for start in range(0, n, _BLOCK):
            stop = min(start + _BLOCK, n)
            block = self._between(slice(start, stop), slice(start, n))
            out[start:stop, start:], out[start:, start:stop] = block, block.T
        out.fill_diagonal_(0)
        return out

    def rows(self, which: Any) -> np.ndarray:
        """Compute the rows at an index, a slice or an array of indices."""
        indices = np.atleast_1d(np.arange(len(self.squares))[which])
        found = np.empty((len(indices), len(self.squares)), dtype=np.float32)
        for start in range(0, len(indices), self.at_once):
            some = indices[start : start + self.at_once]
            found[start : start + len(some)] = self._between(torch.from_numpy(some), slice(None)).numpy()
        found[np.arange(len(indices)), indices] = 0
        return found[0] if np.isscalar(which) else found

    def _between(self, left: Any, right: slice) -> Tensor:
        products = self.gradients.take(left).gram(self.gradients.take(right))
        squares = products.mul_(-2).add_(self.squares[left][:, None]).add_(self.squares[right]).clamp_(min=0)
        return (squares.sqrt_() if self.metric == "euclidean" else squares).float()


def _coreset(picks: np.ndarray, sizes: np.ndarray) -> Coreset:
    return Coreset(picks, sizes.astype(np.float64), len(picks), "all of the budget is used")
