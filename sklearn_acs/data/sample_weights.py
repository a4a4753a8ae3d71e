"""Weights of samples are read here, for fits and for scores."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from torch import Tensor

from sklearn_acs._compat import check_sample_weight
from sklearn_acs.data.tensors import refuse_masked


def read_sample_weight(sample_weight: Any, n_samples: int, dtype: DTypeLike = np.float64) -> np.ndarray:
    """Read weights as floats, one for each sample; None means ones, and a number the same for all.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        As given.
    n_samples : int
        How many samples there are.
    dtype : float32 or float64, default=float64
        What to turn them into.

    Returns
    -------
    ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        They are not finite, negative, all zero, or not as many as samples.
    """
    given = sample_weight.detach().cpu().numpy() if isinstance(sample_weight, Tensor) else sample_weight
    try:
        weight: np.ndarray = check_sample_weight(
            refuse_masked(given, "sample_weight"), np.empty(n_samples), dtype=dtype, ensure_non_negative=True
        )
        if not weight.any():
            raise ValueError("they are all zero")
        if not np.isfinite(weight).all():
            raise ValueError(f"got {sample_weight!r}")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"sample_weight must be {n_samples} finite numbers, none below 0 and not all 0: {error}"
        ) from error
    return weight
