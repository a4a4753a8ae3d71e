"""Attacks, the inner maximisers: they raise a model's loss within a small ball around each sample."""

from sklearn_acs.attacks.autoattack import AutoAttack
from sklearn_acs.attacks.base import ATTACKS, Attack
from sklearn_acs.attacks.bullet import BulletTrain
from sklearn_acs.attacks.color import ReColor
from sklearn_acs.attacks.fgsm import FGSM
from sklearn_acs.attacks.jpeg import JPEG
from sklearn_acs.attacks.lpa import LPA, FastLPA
from sklearn_acs.attacks.n_fgsm import NFGSM
from sklearn_acs.attacks.norm_bounded import NormBoundedAttack
from sklearn_acs.attacks.pgd import PGD
from sklearn_acs.attacks.pgd_50_10 import PGD5010
from sklearn_acs.attacks.ppgd import PPGD
from sklearn_acs.attacks.radius import TABLE_EPS
from sklearn_acs.attacks.spatial import StAdv
from sklearn_acs.attacks.threat import Threat

ATTACKS |= {
    "fgsm": FGSM,
    "n-fgsm": NFGSM,
    "pgd": PGD,
    "pgd-50-10": PGD5010,
    "bullet": BulletTrain,
    "fast-lpa": FastLPA,
    "lpa": LPA,
    "ppgd": PPGD,
    "stadv": StAdv,
    "recolor": ReColor,
    "jpeg": JPEG,
    "autoattack": AutoAttack,
}

__all__ = [
    "ATTACKS",
    "FGSM",
    "JPEG",
    "LPA",
    "NFGSM",
    "PGD",
    "PGD5010",
    "PPGD",
    "TABLE_EPS",
    "Attack",
    "AutoAttack",
    "BulletTrain",
    "FastLPA",
    "NormBoundedAttack",
    "ReColor",
    "StAdv",
    "Threat",
]
