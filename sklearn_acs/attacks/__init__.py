"""The inner maximiser: perturbations that raise a model's loss within a small ball around each sample."""

from sklearn_acs.attacks.base import Attack
from sklearn_acs.attacks.pgd import FGSM, PGD

ATTACKS: dict[str, type[Attack]] = {"fgsm": FGSM, "pgd": PGD}

__all__ = ["ATTACKS", "FGSM", "PGD", "Attack"]
