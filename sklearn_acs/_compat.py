"""scikit-learn's private names that this library uses, all imported here: what to look at when scikit-learn changes."""

from typing import Any

from sklearn.base import _fit_context as fit_context
from sklearn.preprocessing._data import _is_constant_feature as is_constant_feature
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _get_feature_names as feature_names
from sklearn.utils.validation import _num_samples as num_samples

__all__ = [
    "Interval",
    "StrOptions",
    "check_sample_weight",
    "feature_names",
    "fit_context",
    "is_constant_feature",
    "num_samples",
    "safe_indexing",
]


class Interval(_Interval):
    """An interval of numbers, which True and False are not."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Tell whether a value is a number of the interval."""
        return not isinstance(val, bool) and super().is_satisfied_by(val)
