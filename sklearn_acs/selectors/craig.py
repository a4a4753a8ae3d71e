"""CRAIG: the coreset whose gradients cover all gradients."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors._facility_location import facility_location
from sklearn_acs.selectors.base import BaseSelector, Coreset

DISTANCE_BYTES = 2**30  # the distance matrix is kept up to this size, and beyond it computed row by row


class CRAIG(BaseSelector):
    """Coreset by facility location: every gradient has a chosen one close by.

    Greedily minimises ``sum_i min_{j in S} d(G_i, G_j)``, an upper bound on the distance between the sum of
    all gradients and the weighted sum of the chosen. A row's weight is the number of rows nearest to it.

    Parameters
    ----------
    n_select : int or float, default=0.1
        Size of the coreset: a count, or a fraction of the samples in (0, 1].
    metric : {"euclidean", "sqeuclidean"}, default="euclidean"
        The distance. The paper bounds the error by the Euclidean one; CORDS and ACS square it.
    per_class : bool, default=False
        Whether to choose in every class of y on its own, in proportion to its size, as the paper does.

    n_jobs : int or None, default=None
        Threads that classes are spread over. None is as many as torch uses, -1 one for each core.

    Attributes
    ----------
    indices_ : ndarray or Tensor of shape (n_select,)
        The chosen rows, distinct, in the order chosen.
    weights_ : ndarray or Tensor of shape (n_select,)
        How many rows each stands for; they add up to the number of samples.
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
    Takes ``O(n^2 (C + D + log k))`` operations, and memory for the n x n float32 distances up to 1 GiB; above
    that (n > 16384) they are computed again where needed, which is slower by the factor ``C + D``.

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

    _parameter_constraints: dict = {
        **BaseSelector._parameter_constraints,
        "metric": [StrOptions({"euclidean", "sqeuclidean"})],
    }

    def __init__(
        self,
        *,
        n_select: int | float = 0.1,
        metric: str = "euclidean",
        per_class: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self.n_select = n_select
        self.metric = metric
        self.per_class = per_class
        self.n_jobs = n_jobs

    def _solve(self, gradients: LastLayerGradients, k: int, rng: np.random.RandomState, rows: np.ndarray) -> Coreset:
        n, gradients = len(gradients), gradients.to(torch.float64)
        squares = gradients.norms() ** 2

        def distances(i: Tensor) -> Tensor:
            """Rows i of the distance matrix, in float64: squared norms of near copies cancel."""
            i = i.to(gradients.device)
            d = (squares[i, None] + squares - 2 * gradients.gram(i)).clamp(min=0)
            d[torch.arange(len(i), device=i.device), i] = 0
            return d.sqrt() if self.metric == "euclidean" else d

        look_up: Callable[[Tensor], Tensor] = distances
        if 4 * n * n <= DISTANCE_BYTES:
            look_up = torch.cat([distances(part).float() for part in torch.arange(n).split(1024)]).__getitem__
        picks, sizes = facility_location(look_up, n, k)
        return Coreset(picks, sizes.astype(np.float64), k, "all of the budget is used")
