"""Displays refuse what is no fitted classifier."""

from typing import Any

from sklearn.utils.validation import check_is_fitted

from sklearn_acs.classifier import RobustClassifier


def fitted(estimator: Any, parameter: str = "estimator") -> RobustClassifier:
    """Return the classifier if it is one and has been fitted."""
    if not isinstance(estimator, RobustClassifier):
        raise TypeError(f"{parameter} must be a fitted RobustClassifier; got {type(estimator).__name__}")
    check_is_fitted(estimator)
    return estimator
