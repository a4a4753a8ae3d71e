"""Pictures of training and robustness, in the form of scikit-learn's displays, and a report of one page."""

from sklearn_acs.inspection.coreset import CoresetDisplay
from sklearn_acs.inspection.cost import CostDisplay
from sklearn_acs.inspection.dynamics import DynamicsDisplay
from sklearn_acs.inspection.perturbation import PerturbationDisplay
from sklearn_acs.inspection.report import make_robustness_report
from sklearn_acs.inspection.robustness_curve import RobustnessCurveDisplay
from sklearn_acs.inspection.tradeoff import TradeoffDisplay

__all__ = [
    "CoresetDisplay",
    "CostDisplay",
    "DynamicsDisplay",
    "PerturbationDisplay",
    "RobustnessCurveDisplay",
    "TradeoffDisplay",
    "make_robustness_report",
]
