"""Coreset selectors: which samples, with which weights, stand for all."""

from sklearn_acs.selectors.base import BaseSelector, Coreset
from sklearn_acs.selectors.craig import CRAIG
from sklearn_acs.selectors.gradmatch import GradMatch
from sklearn_acs.selectors.random import RandomSelector

SELECTORS: dict[str, type[BaseSelector]] = {"random": RandomSelector, "craig": CRAIG, "gradmatch": GradMatch}

__all__ = ["CRAIG", "SELECTORS", "BaseSelector", "Coreset", "GradMatch", "RandomSelector"]
