"""Evaluation attacks a model in many ways, takes the worst case, and looks for signs of masked gradients."""

from sklearn_acs.evaluation.accuracy import robust_accuracy
from sklearn_acs.evaluation.evaluating import evaluate
from sklearn_acs.evaluation.masking import MaskingCheck
from sklearn_acs.evaluation.result import Evaluation
from sklearn_acs.evaluation.scorer import robust_scorer
from sklearn_acs.evaluation.suites import SUITES

__all__ = ["SUITES", "Evaluation", "MaskingCheck", "evaluate", "robust_accuracy", "robust_scorer"]
