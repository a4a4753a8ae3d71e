"""Adversarial training after Madry et al.: cross-entropy on adversarial examples."""

from torch import Tensor

from sklearn_acs.objectives.base import ADVERSARIAL, CrossEntropyObjective, Logits


class Adversarial(CrossEntropyObjective):
    """Adversarial training, ``CE(f(x'), y)`` with x' the worst point found in the attack's ball.

    Parameters
    ----------
    attack : Attack, str or None, default=None
        The inner maximiser; None is ``PGD()``: linf, eps 8/255, 10 steps from a uniform start.
    label_smoothing : float, default=0.0
        Share of a label, in [0, 1), that the loss, and not the attack, spreads evenly over all classes.

    See Also
    --------
    TRADES : Weighs clean accuracy against robustness.

    References
    ----------
    Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks",
    ICLR 2018, Eq. 2.1.
    Pang, Yang, Dong, Su, Zhu, "Bag of tricks for adversarial training", ICLR 2021 (`label_smoothing`).

    Examples
    --------
    >>> from sklearn_acs import PGD, Adversarial
    >>> Adversarial(attack=PGD(eps=0.5, norm="l2"))
    Adversarial(attack=PGD(eps=0.5, norm='l2'))
    """

    branches = (ADVERSARIAL,)

    def loss(self, logits: Logits, y: Tensor) -> Tensor:
        """Cross-entropy of the adversarial logits, per sample."""
        return self.cross_entropy(logits[ADVERSARIAL], y)
