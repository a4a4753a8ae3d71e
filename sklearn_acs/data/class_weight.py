"""class_factors weighs samples by their class, as scikit-learn's `class_weight` says."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight


def class_factors(
    class_weight: str | Mapping[Any, float], labels: np.ndarray, weight: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Compute each sample's factor from its class.

    Parameters
    ----------
    class_weight : "balanced" or mapping of label to float
        "balanced" gives every class the same weight in sum. A class that is not in the mapping has weight 1.
    labels : ndarray of shape (n,)
        The samples' labels.
    weight : ndarray of shape (n,)
        The samples' own weights, by which "balanced" counts.
    classes : ndarray of shape (n_classes,)
        Labels that there are beside those.

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    ValueError
        The mapping has keys that are no labels, while a class has none, or a weight is negative or not finite.
    """
    every, codes = np.unique(labels, return_inverse=True)
    if isinstance(class_weight, str):
        counts = np.bincount(codes, weight)
        return (counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1e-30)))[codes]
    every = np.union1d(every, classes)
    factors = compute_class_weight(dict(class_weight), classes=every, y=labels)
    if not (np.isfinite(factors) & (factors >= 0)).all():
        raise ValueError(f"class_weight must have finite weights of 0 or more; got {class_weight!r}")
    return factors[np.searchsorted(every, labels)]
