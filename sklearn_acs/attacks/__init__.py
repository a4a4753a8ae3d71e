"""The inner maximiser: perturbations that raise a model's loss within a small ball around each sample."""

from sklearn_acs.attacks.base import Attack
from sklearn_acs.attacks.bullet import BulletTrain
from sklearn_acs.attacks.lpa import LPA, FastLPA
from sklearn_acs.attacks.n_fgsm import NFGSM
from sklearn_acs.attacks.pgd import FGSM, PGD
from sklearn_acs.attacks.ppgd import PPGD

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "n-fgsm": NFGSM,
    "pgd": PGD,
    "bullet": BulletTrain,
    "fast-lpa": FastLPA,
    "lpa": LPA,
    "ppgd": PPGD,
}

__all__ = ["ATTACKS", "FGSM", "LPA", "NFGSM", "PGD", "PPGD", "Attack", "BulletTrain", "FastLPA"]
