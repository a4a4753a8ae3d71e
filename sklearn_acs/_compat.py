"""scikit-learn's private names that this library uses, all imported here: what to look at when scikit-learn changes."""

from fractions import Fraction
from typing import Any

import numpy as np
from sklearn.base import _fit_context as fit_context
from sklearn.metrics._scorer import _BaseScorer as BaseScorer
from sklearn.preprocessing._data import _is_constant_feature as is_constant_feature
from sklearn.utils import _param_validation
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import StrOptions, validate_parameter_constraints
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _get_feature_names as feature_names
from sklearn.utils.validation import _num_samples as num_samples

__all__ = [
    "BaseScorer",
    "Interval",
    "StrOptions",
    "check_sample_weight",
    "feature_names",
    "fit_context",
    "is_constant_feature",
    "num_samples",
    "safe_indexing",
    "validate_parameter_constraints",
]


class Interval(_param_validation.Interval):
    """Allows the numbers of an interval, Python's and NumPy's: neither bools, which Python counts, nor fractions."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Tell whether a parameter is such a number."""
        plain = val.item() if isinstance(val, np.generic) else val  # a float32 is no float
        return not isinstance(plain, bool | Fraction) and super().is_satisfied_by(plain)
