"""InfoBatch drops a random part of the samples with small losses, and counts the others of these more."""

from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from sklearn_acs._compat import Interval, fit_context
from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors._checks import check_per_sample
from sklearn_acs.selectors._classes import solve_on_cpu
from sklearn_acs.selectors._coreset import Coreset
from sklearn_acs.selectors.base import BaseSelector

SHARE_BELOW_MEAN = 0.6
"""Share of the samples that are taken to have a loss below the mean: losses are skewed (0.63 if exponential)."""


@dataclass(kw_only=True, eq=False, repr=False)
class InfoBatch(BaseSelector):
    """Keeps all samples of high loss; drops those below the mean loss at random, and weights what is left of them.

    Each sample whose loss is below the mean is dropped with probability `prune`, or else weighted
    ``1 / (1 - prune)``, so that the weighted sum of gradients is an unbiased estimate of the sum of all. In a
    classifier it costs no pass: losses are those that training had last, and it drops anew in every epoch.

    Parameters
    ----------
    per_class : bool, default=False
        Whether to compare with the mean of the sample's own class.
    n_jobs : int or None, default=None
        Threads that classes are spread over. None is as many as torch uses, -1 one for each core.
    prune : float, default=0.5
        Probability, in (0, 1), that a sample of small loss is dropped. It stands in place of `n_select`, and in a
        classifier of `coreset_frac`.
    random_state : int, RandomState instance or None, default=None
        An int drops the same samples in every `fit`. A RandomState moves on. None takes fresh entropy from the
        operating system and leaves NumPy's global generator alone.

    Attributes
    ----------
    indices_ : ndarray or Tensor of shape (n_selected,)
        The rows that are kept, in order.
    weights_ : ndarray or Tensor of shape (n_selected,)
        1 for high losses, ``1 / (1 - prune)`` for small ones.
    support_ : ndarray or Tensor of shape (n_samples,)
        Boolean mask of the rows that are kept.
    approximation_error_ : float
        ``||sum_j w_j G_j - sum_i G_i|| / ||sum_i G_i||`` over the whole set.
    n_matched_ : int
        How many rows are kept.
    stop_reason_ : str
        How many were dropped.
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
    RandomSelector : Drops without a look at losses.

    Notes
    -----
    1. A sample whose loss is not known yet (NaN) is kept, with weight 1, and has no part in the mean.
    2. Weights are scaled in a classifier as those of other coresets are, to a mean of gradients; the published code
       does not, and so takes larger steps in epochs with fewer samples.
    3. As published, the last 12.5 % of the epochs train on all samples: `final_full` of the classifier.

    References
    ----------
    Qin, Wang, Zheng, Gu, Peng, Xu, Zhou, Shang, Sun, Xie, You, "InfoBatch: Lossless training speed up by unbiased
    dynamic data pruning", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs.selectors import InfoBatch
    >>> selector = InfoBatch(random_state=0).fit(np.eye(6), losses=[0.1, 0.2, 0.1, 0.3, 5.0, 6.0])
    >>> selector.indices_, selector.weights_
    (array([1, 2, 4, 5]), array([2., 2., 1., 1.]))
    """

    n_select: float = field(default=1.0, init=False)  # no parameter: how many are kept is what comes of it
    prune: float = 0.5
    random_state: int | np.random.RandomState | None = None

    fit_inputs = ("losses",)
    final_full = 0.125

    _parameter_constraints: ClassVar[dict] = {
        "per_class": BaseSelector._parameter_constraints["per_class"],
        "n_jobs": BaseSelector._parameter_constraints["n_jobs"],
        "prune": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    }

    @property
    def expected_frac(self) -> float:
        """The share of samples that is kept, as far as it can be told before any loss is known."""
        return 1 - SHARE_BELOW_MEAN * self.prune

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, G: Any, y: Any = None, losses: ArrayLike | None = None) -> Self:
        """Choose the coreset.

        Parameters
        ----------
        G : array-like or Tensor of shape (n_samples, n_features), or LastLayerGradients
            One gradient per sample, by which only the error is measured.
        y : array-like of shape (n_samples,), default=None
            Class labels; used, and needed, with ``per_class=True``.
        losses : array-like or Tensor of shape (n_samples,), default=None
            The loss of each sample; NaN where it is not known. None is not known of any, and keeps all.

        Returns
        -------
        self : object
            The fitted selector.

        Raises
        ------
        ValueError
            Losses are infinite or not one for each sample.
        """
        gradients = self._validate_gradients(G, reset=True)
        n = len(gradients)
        values = np.full(n, np.nan) if losses is None else check_per_sample(losses, n, "losses", nan=True)

        def solve(gradients: LastLayerGradients, k: int, rng: np.random.RandomState, rows: np.ndarray) -> Coreset:
            of_class = values[rows]
            known = of_class[~np.isnan(of_class)]
            small = of_class < known.mean() if len(known) else np.zeros(len(rows), dtype=bool)
            kept = np.flatnonzero(~small | (rng.uniform(size=len(rows)) >= self.prune))
            weights = np.where(small, 1 / (1 - self.prune), 1.0)[kept]
            reason = f"{len(rows) - len(kept)} of {small.sum()} samples of small loss are dropped"
            return Coreset(kept, weights, len(kept), reason)

        return self._fit(G, gradients, y, lambda tasks: solve_on_cpu(tasks, solve, self.n_jobs))
