"""PAT trains against whatever changes an image less than the eye, or the model, would see."""

from torch import Tensor

from sklearn_acs.attacks.base import Attack
from sklearn_acs.attacks.lpa import FastLPA
from sklearn_acs.attacks.problem import margin_loss
from sklearn_acs.objectives.adversarial import Adversarial


class PAT(Adversarial):
    """Perceptual adversarial training (PAT), ``CE(f(x'), y)`` with x' within a perceptual distance of x.

    The ball has no shape that pixels know of: it holds everything that moves a network's activations little, and so
    training in it defends against kinds of perturbations that it never saw.

    Parameters
    ----------
    attack : Attack, str or None, default=None
        The inner maximiser, of the margin of the best wrong class; None is ``FastLPA()``: bound 0.5, 10 steps, and
        the model itself judges how far x' is from x.
    label_smoothing : float, default=0.0
        Share of a label, in [0, 1), that the loss, and not the attack, spreads evenly over all classes.

    See Also
    --------
    FastLPA : What judges the distance, and which samples are attacked.
    LPA : To measure what training has brought, with another judge than the model.

    Notes
    -----
    1. The attack runs in eval mode, and the update in train mode.
    2. The authors also clip each gradient to [-1, 1]; here that is left to skorch's callbacks
       (``GradientNormClipping``, by their norm).

    References
    ----------
    Laidlaw, Singla, Feizi, "Perceptual adversarial robustness: defense against unseen threat models", ICLR 2021,
    Eq. 4.

    Examples
    --------
    >>> from sklearn_acs import PAT, FastLPA
    >>> PAT(attack=FastLPA(bound=0.25))
    PAT(attack=FastLPA(bound=0.25))
    """

    def default_attack(self) -> Attack:
        """Return Fast-LPA, which looks at the model's own activations."""
        return FastLPA()

    def inner_loss(self, adv_logits: Tensor, y: Tensor, clean_logits: Tensor | None) -> Tensor:
        """Largest other logit minus the true one, per sample."""
        return margin_loss(adv_logits, y)
