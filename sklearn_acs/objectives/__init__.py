"""Objectives say what training minimises: a loss per sample on clean logits, adversarial logits, or both."""

from sklearn_acs.objectives.adversarial import Adversarial
from sklearn_acs.objectives.base import ADVERSARIAL, CLEAN, Objective
from sklearn_acs.objectives.fast import FastAT
from sklearn_acs.objectives.mart import MART
from sklearn_acs.objectives.natural import Natural
from sklearn_acs.objectives.perceptual import PAT
from sklearn_acs.objectives.trades import TRADES

OBJECTIVES: dict[str, type[Objective]] = {
    "natural": Natural,
    "adversarial": Adversarial,
    "trades": TRADES,
    "mart": MART,
    "pat": PAT,
    "fast": FastAT,
}

__all__ = [
    "ADVERSARIAL",
    "CLEAN",
    "MART",
    "OBJECTIVES",
    "PAT",
    "TRADES",
    "Adversarial",
    "FastAT",
    "Natural",
    "Objective",
]
