"""Coreset selectors: which samples, with which weights, stand for all."""

from .base import BaseSelector, Coreset
from .craig import CRAIG
from .gradmatch import GradMatch
from .random import RandomSelector

SELECTORS: dict[str, type[BaseSelector]] = {"random": RandomSelector, "craig": CRAIG, "gradmatch": GradMatch}

__all__ = ["CRAIG", "SELECTORS", "BaseSelector", "Coreset", "GradMatch", "RandomSelector"]
