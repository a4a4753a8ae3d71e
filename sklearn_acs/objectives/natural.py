"""Ordinary training: cross-entropy on clean samples."""

from torch import Tensor

from sklearn_acs.attacks import PGD, Attack
from sklearn_acs.objectives.base import CLEAN, CrossEntropyObjective, Logits


class Natural(CrossEntropyObjective):
    """Natural training, ``CE(f(x), y)``: no attack in training, the baseline of every robust objective.

    Parameters
    ----------
    attack : Attack, str or None, default=None
        Used by ``robust_score`` and ``perturb`` alone; None is ``PGD()``.
    label_smoothing : float, default=0.0
        Share of a label, in [0, 1), that is spread evenly over all classes.

    See Also
    --------
    Adversarial : The same loss on adversarial examples.

    Examples
    --------
    >>> from sklearn_acs import RobustClassifier
    >>> RobustClassifier(objective="natural", selector="gradmatch")
    RobustClassifier(objective='natural', selector='gradmatch')
    """

    branches = (CLEAN,)

    def default_attack(self) -> Attack:
        """Return what it is judged by: there is no training to remember perturbations from."""
        return PGD()

    def loss(self, logits: Logits, y: Tensor) -> Tensor:
        """Cross-entropy of the clean logits, per sample."""
        return self.cross_entropy(logits[CLEAN], y)
