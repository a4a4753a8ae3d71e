"""GRAD-MATCH chooses a coreset whose weighted gradients add up to the sum of all gradients."""

from collections.abc import Generator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch

from sklearn_acs._compat import Interval, StrOptions
from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors._classes import Solved, Task, on_gpu, solve_in_batches
from sklearn_acs.selectors._coreset import Coreset
from sklearn_acs.selectors._omp import Matching, fill_up, orthogonal_matching_pursuit
from sklearn_acs.selectors._omp_batch import batched_matching_pursuit
from sklearn_acs.selectors.base import BaseSelector

_SAFE_RIDGE = 1e-3  # the least ridge for which float32 gradients are precise enough


@dataclass(kw_only=True, eq=False, repr=False)
class GradMatch(BaseSelector):
    """Chooses a coreset by non-negative orthogonal matching pursuit on the gradients.

    Chooses k rows and weights w >= 0 that approximately minimise
    ``||sum_j w_j G_j - sum_i G_i||^2 + lambda ||w - c||^2``, so that the weighted gradients of the chosen add up to
    those of all.

    Parameters
    ----------
    n_select : int or float, default=0.1
        Size of the coreset: a count, or a fraction of the samples in (0, 1].
    per_class : bool, default=False
        Whether to choose in every class of y on its own, in proportion to its size.
    n_jobs : int or None, default=None
        Threads that classes are spread over. None is as many as torch uses, -1 one for each core.
    ridge : float, default=0.1
        Strength of the penalty: ``lambda = ridge * mean_i ||G_i||^2``, so that the scale of the gradients does not
        matter. It keeps the weights even, and with 0 no more rows can be matched than the gradients have rank.
    ridge_center : {"uniform", "zero"}, default="uniform"
        What the penalty pulls each weight towards: "uniform" is c = n / k, the weight of every row of a random
        subset; "zero" is c = 0, the paper's.
    tolerance : float, default=1e-6
        Matching stops when the residual is this small relative to ``||sum_i G_i||``.
    atoms_per_step : int, default=1
        Rows matched between two refits of all weights. More are faster and match less closely: of 5,000 gradients of
        a class with k = 2,500, 5 a step took 0.44 times as long for an error 1.03 times as large, 20 a step 0.22 times
        for 1.08 (``docs/results/selectors.md``).

    Attributes
    ----------
    indices_ : ndarray or Tensor of shape (n_select,)
        The chosen rows, distinct, in the order chosen.
    weights_ : ndarray or Tensor of shape (n_select,)
        Their weights: ``sum_j w_j G_j`` approximates ``sum_i G_i``.
    support_ : ndarray or Tensor of shape (n_samples,)
        Boolean mask of the chosen rows.
    approximation_error_ : float
        ``||sum_j w_j G_j - sum_i G_i|| / ||sum_i G_i||`` over the whole set.
    n_matched_ : int
        How many rows matching chose. The remaining ones fill the budget.
    stop_reason_ : str
        Why matching stopped.
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
    CRAIG : Covers the gradients instead of matching their sum.
    RandomSelector : The baseline.

    Notes
    -----
    Pulled towards zero, rows whose gradient happens to be small at the selection get hardly any weight and are
    forgotten in the epochs that follow. Pulled towards n / k they are kept, and weights differ only where matching
    asks for it: a difference from the paper, measured in ``docs/results/choose_defaults.md``.

    When matching stops before the budget is used up, because without a ridge there is nothing left to match beyond
    the gradients' rank, the coreset is filled with the rows that a ridge term of 0.1 pulling towards n / k chooses
    next, and all weights are refitted with it. `n_matched_` and `stop_reason_` say so, and `approximation_error_`
    includes it.

    Time is ``O(n k^2)``, and ``O(n k (C + D))`` to ``O(n^2 (C + D))`` for inner products. Memory is 4 to ``16 k^2``
    bytes and 4 or 8 for each pair of a chosen and any row, or of any two where most are needed. With `per_class`
    n and k are those of a class, as many at a time as there are threads. The deliberate differences from the published
    solver are listed in ``_omp.py``.

    On a GPU as many classes as its memory has room for are matched as one batch, step by step together, and a step
    reads one small tensor. Filling up the budget happens on the CPU, one class after the other: gradients of a class
    where matching stopped early are copied there.

    References
    ----------
    .. [1] K. Killamsetty, D. Sivasubramanian, G. Ramakrishnan, A. De, R. Iyer. "GRAD-MATCH: Gradient Matching
       based Data Subset Selection for Efficient Deep Model Training", ICML 2021.
    .. [2] H. M. Dolatabadi, S. Erfani, C. Leckie. "l-infinity-Robustness and Beyond: Unleashing Efficient
       Adversarial Training", ECCV 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs.selectors import GradMatch
    >>> G = np.random.default_rng(0).normal(size=(200, 20)) + 1
    >>> selector = GradMatch(n_select=15).fit(G)
    >>> selector.indices_.shape, selector.n_matched_
    ((15,), 15)
    >>> bool(selector.approximation_error_ < 0.1)
    True
    >>> G_S, w_S = selector.select(G, return_weights=True)
    """

    ridge: float = 0.1
    ridge_center: str = "uniform"
    tolerance: float = 1e-6
    atoms_per_step: int = 1

    _parameter_constraints: ClassVar[dict] = {
        **BaseSelector._parameter_constraints,
        "ridge": [Interval(Real, 0, None, closed="left")],
        "ridge_center": [StrOptions({"uniform", "zero"})],
        "tolerance": [Interval(Real, 0, None, closed="left")],
        "atoms_per_step": [Interval(Integral, 1, None, closed="left")],
    }

    def _solve(self, gradients: LastLayerGradients, k: int, rng: np.random.RandomState, rows: np.ndarray) -> Coreset:
        gradients = self._precise(gradients)
        found = orthogonal_matching_pursuit(gradients, k, center=self._center(gradients, k), **self._options())
        return _filled(found, gradients, k)

    def _solve_tasks(self, tasks: list[Task]) -> Generator[Solved]:
        if not on_gpu(tasks[0].gradients):
            return super()._solve_tasks(tasks)
        return solve_in_batches(tasks, self._solve_batch, lambda n, k, width: 8 * (k * k + n * n + 2 * n * width))

    def _solve_batch(
        self, problems: list[LastLayerGradients], budgets: list[int], rngs: list[np.random.RandomState]
    ) -> list[Coreset]:
        problems = [self._precise(gradients) for gradients in problems]
        centers = [self._center(gradients, k) for gradients, k in zip(problems, budgets, strict=True)]
        found = batched_matching_pursuit(problems, budgets, centers=centers, **self._options())
        return [_filled(*one) for one in zip(found, problems, budgets, strict=True)]

    def _options(self) -> dict[str, Any]:
        return {"ridge": self.ridge, "tolerance": self.tolerance, "atoms_per_step": self.atoms_per_step}

    def _precise(self, gradients: LastLayerGradients) -> LastLayerGradients:
        return gradients if self.ridge >= _SAFE_RIDGE else gradients.to(torch.float64)

    def _center(self, gradients: LastLayerGradients, k: int) -> float:
        return len(gradients) / k if self.ridge_center == "uniform" else 0.0


def _filled(found: Matching, gradients: LastLayerGradients, k: int) -> Coreset:
    """Make a coreset of k rows from those matched."""
    if len(found.indices) == k:
        return Coreset(found.indices, found.weights, k, found.stop_reason)
    indices, weights = fill_up(gradients.to("cpu"), k, found.indices)
    n_matched = int(np.isin(found.indices, indices).sum())
    return Coreset(indices, weights, n_matched, f"{found.stop_reason}, and the ridge term fills up the rest")
