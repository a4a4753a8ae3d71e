"""What selectors are given is checked here: the gradients, labels, and numbers for each sample."""

import re
from typing import Any

import numpy as np
from sklearn.utils import assert_all_finite, check_array
from torch import Tensor

from sklearn_acs._compat import num_samples


def real_matrix(G: Any, estimator: Any) -> np.ndarray:
    """Turn an array-like into a matrix of finite floats; an error says that it is G."""
    how = {"input_name": "G", "estimator": estimator}
    try:
        array = check_array(G, dtype=None, **how)
        if array.dtype.kind in "bSU":
            raise TypeError(f"G must be real numbers, one gradient per row, got {array.dtype}.")
        if array.dtype not in (np.float64, np.float32, np.float16):
            array = check_array(array, dtype=np.float64, **how)
    except (TypeError, ValueError) as error:
        if re.search(r"\bG\b", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"G cannot be used: {error}") from error
    return array


def check_per_sample(values: Any, n_samples: int, name: str, *, nan: bool = False) -> np.ndarray:
    """Convert numbers to float64, and check that they are finite, or, with `nan`, NaN, and one for each sample."""
    try:
        found = np.asarray(values.detach().cpu().double() if isinstance(values, Tensor) else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must have one number for each of the {n_samples} samples: {error}") from error
    if found.shape != (n_samples,):
        raise ValueError(f"{name} must have one value for each of the {n_samples} samples, got shape {found.shape}.")
    assert_all_finite(found, allow_nan=nan, input_name=name)
    return found


def length_of(y: Any) -> Any:
    """Count labels; what has no length is returned as it is."""
    try:
        return num_samples(y)
    except TypeError:
        return y
