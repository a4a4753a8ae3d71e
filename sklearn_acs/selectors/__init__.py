"""Coreset selectors choose samples and weights that stand for all samples."""

from sklearn_acs.selectors._coreset import ClassSelection, Coreset
from sklearn_acs.selectors.base import BaseSelector
from sklearn_acs.selectors.craig import CRAIG
from sklearn_acs.selectors.glister import Glister
from sklearn_acs.selectors.gradmatch import GradMatch
from sklearn_acs.selectors.infobatch import InfoBatch
from sklearn_acs.selectors.random import RandomSelector
from sklearn_acs.selectors.score import ScoreSelector

SELECTORS: dict[str, type[BaseSelector]] = {
    "random": RandomSelector,
    "craig": CRAIG,
    "gradmatch": GradMatch,
    "glister": Glister,
    "infobatch": InfoBatch,
    "score": ScoreSelector,
}

__all__ = [
    "CRAIG",
    "SELECTORS",
    "BaseSelector",
    "ClassSelection",
    "Coreset",
    "Glister",
    "GradMatch",
    "InfoBatch",
    "RandomSelector",
    "ScoreSelector",
]
