"""scikit-learn's private names that this library uses, all imported here: what to look at when scikit-learn changes."""

from fractions import Fraction
from typing import Any

from sklearn.base import _fit_context as fit_context
from sklearn.metrics._scorer import _BaseScorer as BaseScorer
from sklearn.utils import _param_validation
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import RealNotInt, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _get_feature_names as feature_names

__all__ = [
    "BaseScorer",
    "Interval",
    "RealNotInt",
    "StrOptions",
    "check_sample_weight",
    "feature_names",
    "fit_context",
    "safe_indexing",
    "validate_parameter_constraints",
]


class Interval(_param_validation.Interval):
    """Constrains a parameter to numbers in an interval: Python's and NumPy's, neither bools nor fractions."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Tell whether a value is allowed."""
        return not isinstance(val, bool | Fraction) and super().is_satisfied_by(val)
