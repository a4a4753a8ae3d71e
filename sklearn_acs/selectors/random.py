"""RandomSelector draws a coreset at random, as the baseline."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from sklearn_acs._compat import fit_context
from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors._checks import check_per_sample
from sklearn_acs.selectors._classes import solve_on_cpu
from sklearn_acs.selectors._coreset import Coreset
from sklearn_acs.selectors.base import BaseSelector


@dataclass(kw_only=True, eq=False, repr=False)
class RandomSelector(BaseSelector):
    """Draws a coreset at random without replacement, the baseline that every selector has to beat.

    Parameters
    ----------
    n_select : int or float, default=0.1
        Size of the coreset: a count, or a fraction of the samples in (0, 1].
    per_class : bool, default=False
        Whether to draw in every class of y on its own, in proportion to its size.
    n_jobs : int or None, default=None
        Threads that classes are spread over. None is as many as torch uses, -1 one for each core.
    random_state : int, RandomState instance or None, default=None
        An int draws the same coreset in every `fit`. A RandomState moves on, so that each `fit` draws a fresh
        one. None takes fresh entropy from the operating system and leaves NumPy's global generator alone.

    Attributes
    ----------
    indices_ : ndarray or Tensor of shape (n_select,)
        The chosen rows, distinct, in the order drawn.
    weights_ : ndarray or Tensor of shape (n_select,)
        ``n_samples / n_select`` each, which makes ``sum_j w_j G_j`` an unbiased estimate of ``sum_i G_i``;
        with `per_class`, the ratio of the class.
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
    CRAIG : Covers the gradients.
    GradMatch : Matches the sum of the gradients.

    Notes
    -----
    Drawn anew in every epoch this is a strong baseline, according to the authors of CORDS hard to beat [1]_. A
    classifier does so, whatever `select_every` says, and draws no sample again before all have been drawn [2]_.

    The draw takes ``O(n)`` operations and numbers in memory, whatever the gradients; n samples of C classes and D
    features take ``O(n C D)`` more to measure `approximation_error_`, as with every selector, and ``C D`` numbers.
    Wherever the gradients are, the draw is the CPU's.

    References
    ----------
    .. [1] https://github.com/decile-team/cords/issues/81
    .. [2] P. Okanovic, R. Waleffe, V. Mageirakos, K. Nikolakakis, A. Karbasi, D. Kalogerias, N. M. Gurel,
       T. Rekatsinas. "Repeated random sampling for minimizing the time-to-accuracy of learning", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs.selectors import RandomSelector
    >>> selector = RandomSelector(n_select=0.25, random_state=0).fit(np.eye(8))
    >>> selector.weights_
    array([4., 4.])
    """

    random_state: int | np.random.RandomState | None = None

    fit_inputs = ("seen",)

    _parameter_constraints: ClassVar[dict] = {**BaseSelector._parameter_constraints, "random_state": ["random_state"]}

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, G: Any, y: Any = None, seen: ArrayLike | None = None) -> Self:
        """Draw the coreset.

        Parameters
        ----------
        G : array-like or Tensor of shape (n_samples, n_features), or LastLayerGradients
            One gradient per sample, by which only the error is measured.
        y : array-like of shape (n_samples,), default=None
            Class labels; used, and needed, with ``per_class=True``.
        seen : array-like of bool, of shape (n_samples,), default=None
            Samples that are drawn only where there are not enough others; None is none.

        Returns
        -------
        self : object
            The fitted selector.
        """
        gradients = self._validate_gradients(G, reset=True)
        n = len(gradients)
        late = np.zeros(n, dtype=bool) if seen is None else check_per_sample(seen, n, "seen").astype(bool)

        def solve(gradients: LastLayerGradients, k: int, rng: np.random.RandomState, rows: np.ndarray) -> Coreset:
            drawn = rng.permutation(len(rows))
            drawn = drawn[np.argsort(late[rows][drawn], kind="stable")]
            return Coreset(drawn[:k], np.full(k, len(rows) / k), k, "all of the budget is drawn")

        return self._fit(G, gradients, y, lambda tasks: solve_on_cpu(tasks, solve, self.n_jobs))
