"""Adversarial training on coresets, behind scikit-learn's fit and predict."""

from sklearn_acs.attacks import FGSM, LPA, NFGSM, PGD, PPGD, Attack, BulletTrain, FastLPA
from sklearn_acs.classifier import RobustClassifier
from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.metrics import robust_accuracy, robust_scorer
from sklearn_acs.objectives import MART, PAT, TRADES, Adversarial, FastAT, Natural, Objective
from sklearn_acs.selectors import CRAIG, Glister, GradMatch, RandomSelector, ScoreSelector
from sklearn_acs.training.dynamics import Dynamics
from sklearn_acs.training.guard import CollapseGuard
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.schedule import CoresetSchedule
from sklearn_acs.training.stability import StabilityTracker

__version__ = "0.1.0"

__all__ = [
    "CRAIG",
    "FGSM",
    "LPA",
    "MART",
    "NFGSM",
    "PAT",
    "PGD",
    "PPGD",
    "TRADES",
    "Adversarial",
    "Attack",
    "BulletTrain",
    "CollapseGuard",
    "CoresetSchedule",
    "Dynamics",
    "FastAT",
    "FastLPA",
    "Glister",
    "GradMatch",
    "InBatchSelection",
    "LastLayerGradients",
    "Natural",
    "Objective",
    "RandomSelector",
    "RobustClassifier",
    "ScoreSelector",
    "StabilityTracker",
    "robust_accuracy",
    "robust_scorer",
]
