"""RandomSelector draws a coreset at random, as the baseline."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sklearn_acs.gradients import LastLayerGradients
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
    Redrawn at every selection this is a strong baseline, according to the authors of CORDS hard to beat [1]_.

    The draw takes ``O(n)`` operations and numbers in memory, whatever the gradients; n samples of C classes and D
    features take ``O(n C D)`` more to measure `approximation_error_`, as with every selector, and ``C D`` numbers.
    Wherever the gradients are, the draw is the CPU's.

    References
    ----------
    .. [1] https://github.com/decile-team/cords/issues/81

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs.selectors import RandomSelector
    >>> selector = RandomSelector(n_select=0.25, random_state=0).fit(np.eye(8))
    >>> selector.weights_
    array([4., 4.])
    """

    random_state: int | np.random.RandomState | None = None

    fit_inputs = ()

    _parameter_constraints: ClassVar[dict] = {**BaseSelector._parameter_constraints, "random_state": ["random_state"]}

    def _solve(self, gradients: LastLayerGradients, k: int, rng: np.random.RandomState, rows: np.ndarray) -> Coreset:
        n = len(gradients)
        return Coreset(rng.permutation(n)[:k], np.full(k, n / k), k, "all of the budget is drawn")
