"""Adversarial training on coresets, behind scikit-learn's fit and predict."""

from sklearn_acs._version import __version__ as __version__
from sklearn_acs.attacks import (
    FGSM,
    JPEG,
    LPA,
    NFGSM,
    PGD,
    PGD5010,
    PPGD,
    Attack,
    AutoAttack,
    BulletTrain,
    FastLPA,
    ReColor,
    StAdv,
)
from sklearn_acs.callbacks.dynamics import Dynamics
from sklearn_acs.callbacks.guard import CollapseGuard
from sklearn_acs.callbacks.stability import StabilityTracker
from sklearn_acs.classifier import RobustClassifier
from sklearn_acs.evaluation import Evaluation, evaluate, robust_accuracy, robust_scorer
from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.inspection import (
    CoresetDisplay,
    CostDisplay,
    DynamicsDisplay,
    PerturbationDisplay,
    RobustnessCurveDisplay,
    TradeoffDisplay,
    make_robustness_report,
)
from sklearn_acs.objectives import MART, PAT, TRADES, Adversarial, FastAT, Natural, Objective
from sklearn_acs.selectors import CRAIG, Glister, GradMatch, RandomSelector, ScoreSelector
from sklearn_acs.training.averaging import EMA
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.schedule import CoresetSchedule

__all__ = [
    "CRAIG",
    "EMA",
    "FGSM",
    "JPEG",
    "LPA",
    "MART",
    "NFGSM",
    "PAT",
    "PGD",
    "PGD5010",
    "PPGD",
    "TRADES",
    "Adversarial",
    "Attack",
    "AutoAttack",
    "BulletTrain",
    "CollapseGuard",
    "CoresetDisplay",
    "CoresetSchedule",
    "CostDisplay",
    "Dynamics",
    "DynamicsDisplay",
    "Evaluation",
    "FastAT",
    "FastLPA",
    "Glister",
    "GradMatch",
    "InBatchSelection",
    "LastLayerGradients",
    "Natural",
    "Objective",
    "PerturbationDisplay",
    "RandomSelector",
    "ReColor",
    "RobustClassifier",
    "RobustnessCurveDisplay",
    "ScoreSelector",
    "StAdv",
    "StabilityTracker",
    "TradeoffDisplay",
    "evaluate",
    "make_robustness_report",
    "robust_accuracy",
    "robust_scorer",
]
