"""Displays draw training and robustness, as scikit-learn's displays do, and a report puts them on one page."""

from sklearn_acs.inspection.coreset_display import CoresetDisplay
from sklearn_acs.inspection.cost_display import CostDisplay
from sklearn_acs.inspection.dynamics_display import DynamicsDisplay
from sklearn_acs.inspection.perturbation_display import PerturbationDisplay
from sklearn_acs.inspection.report import make_robustness_report
from sklearn_acs.inspection.robustness_curve_display import RobustnessCurveDisplay
from sklearn_acs.inspection.tradeoff_display import TradeoffDisplay

__all__ = [
    "CoresetDisplay",
    "CostDisplay",
    "DynamicsDisplay",
    "PerturbationDisplay",
    "RobustnessCurveDisplay",
    "TradeoffDisplay",
    "make_robustness_report",
]
