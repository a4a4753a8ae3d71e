"""TRADES adds to clean cross-entropy a penalty on how far an attack can move the prediction."""

from typing import ClassVar

from torch import Tensor

from sklearn_acs._compat import StrOptions
from sklearn_acs.attacks.base import NOT_NEGATIVE, Attack
from sklearn_acs.objectives.base import ADVERSARIAL, CLEAN, CrossEntropyObjective, Logits


class TRADES(CrossEntropyObjective):
    """TRADES, ``CE(f(x), y) + beta * KL(f(x) || f(x'))`` with x' the point that moves the prediction farthest.

    Parameters
    ----------
    beta : float, default=6.0
        Weight of robustness against clean accuracy, 1 to 10 being useful; 1/lambda in the paper.
    divergence : {"kl", "ce"}, default="kl"
        "kl" is the authors' code; "ce" is the paper's formula, the cross-entropy ``-sum f(x) log f(x')``, which
        differs by the entropy of the clean prediction and so in the clean branch's gradient.
    attack : Attack, str or None, default=None
        The inner maximiser of the divergence; None is ``PGD()``.
    label_smoothing : float, default=0.0
        Share of a label, in [0, 1), that the cross-entropy spreads evenly over all classes.

    See Also
    --------
    Adversarial : Cross-entropy on adversarial examples.

    Notes
    -----
    1. The attack starts at ``x + 0.001 N(0, I)`` unless it says otherwise: at x itself the divergence has gradient
       zero.
    2. The clean prediction that the attack moves away from is computed once per batch; the authors' code computes
       it anew in each attack step.
    3. Clean and adversarial samples go through the network in two forward passes, each with its own batch
       statistics, as in the authors' code.

    References
    ----------
    Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan, "Theoretically principled trade-off between robustness and accuracy",
    ICML 2019, Eq. 5.

    Examples
    --------
    >>> from sklearn_acs import PGD, TRADES
    >>> TRADES(beta=1.0, attack=PGD())
    TRADES(attack=PGD(), beta=1.0)
    """

    _parameter_constraints: ClassVar[dict] = {
        **CrossEntropyObjective._parameter_constraints,
        "beta": [NOT_NEGATIVE],
        "divergence": [StrOptions({"kl", "ce"})],
    }

    branches = (CLEAN, ADVERSARIAL)
    attack_init = "normal"

    def __init__(
        self,
        beta: float = 6.0,
        *,
        divergence: str = "kl",
        attack: Attack | str | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(attack, label_smoothing=label_smoothing)
        self.beta = beta
        self.divergence = divergence

    def inner_loss(self, adv_logits: Tensor, y: Tensor, clean_logits: Tensor | None) -> Tensor:
        """How far the adversarial prediction is from the clean one; the entropy in "kl" is constant here."""
        assert clean_logits is not None
        return -(clean_logits.softmax(1) * adv_logits.log_softmax(1)).sum(1)

    def loss(self, logits: Logits, y: Tensor) -> Tensor:
        """Clean cross-entropy plus `beta` times the divergence, per sample."""
        log_p, log_q = logits[CLEAN].log_softmax(1), logits[ADVERSARIAL].log_softmax(1)
        moved = log_p - log_q if self.divergence == "kl" else -log_q
        return self.cross_entropy(logits[CLEAN], y) + self.beta * (log_p.exp() * moved).sum(1)
