"""Ordinary training: cross-entropy on clean samples."""

from torch import Tensor

from sklearn_acs.attacks.base import cross_entropy
from sklearn_acs.objectives.base import CLEAN, Logits, Objective


class Natural(Objective):
    """Natural training, ``CE(f(x), y)``: no attack in training, the baseline of every robust objective.

    Parameters
    ----------
    attack : Attack, str or None, default=None
        Used by ``robust_score`` and ``perturb`` alone; None is ``PGD()``.

    See Also
    --------
    Adversarial : The same loss on adversarial examples.

    Examples
    --------
    >>> from sklearn_acs import RobustClassifier
    >>> RobustClassifier(objective="natural", selector="gradmatch")
    RobustClassifier(objective='natural')
    """

    branches = (CLEAN,)

    def loss(self, logits: Logits, y: Tensor) -> Tensor:
        """Cross-entropy of the clean logits, per sample."""
        return cross_entropy(logits[CLEAN], y)
