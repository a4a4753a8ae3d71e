"""scikit-learn's private names that this library uses, all imported here: what to look at when scikit-learn changes."""

from typing import Any

import numpy as np
from sklearn.base import _fit_context as fit_context
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils._param_validation import RealNotInt, StrOptions
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _get_feature_names as feature_names

__all__ = [
    "Interval",
    "RealNotInt",
    "StrOptions",
    "check_sample_weight",
    "feature_names",
    "fit_context",
    "safe_indexing",
]


class Interval(_Interval):
    """Allows the numbers of an interval, NumPy's too, and no bools, which Python counts among them."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Tell whether a parameter is such a number."""
        plain = val.item() if isinstance(val, np.generic) else val  # a float32 is no float
        return not isinstance(plain, bool) and super().is_satisfied_by(plain)
