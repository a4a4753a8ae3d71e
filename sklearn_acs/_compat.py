"""scikit-learn's private names that this library uses, all imported here: what to look at when scikit-learn changes."""

from sklearn.base import _fit_context as fit_context
from sklearn.preprocessing._data import _is_constant_feature as is_constant_feature
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _get_feature_names as feature_names

__all__ = [
    "Interval",
    "RealNotInt",
    "StrOptions",
    "check_sample_weight",
    "feature_names",
    "fit_context",
    "is_constant_feature",
    "safe_indexing",
]
