"""MART cares most about samples that are misclassified under attack, or nearly so."""

from typing import ClassVar

import torch
from torch import Tensor

from sklearn_acs.attacks.base import NOT_NEGATIVE, Attack
from sklearn_acs.objectives.base import ADVERSARIAL, CLEAN, Logits, Objective

_ROOM = 1e-4  # keeps the margin term finite where the prediction is certain and wrong, as in the authors' code


class MART(Objective):
    """Misclassification-aware adversarial training (MART).

    ``BCE(f(x'), y) + beta * KL(f(x) || f(x')) * (1 - f_y(x))``, where f are probabilities and the boosted
    cross-entropy is ``BCE = -log f_y(x') - log(1 - max_{c != y} f_c(x'))``: the adversarial example has to be right
    with a margin, and its prediction to stay where the clean one is, the more so the less certain that was.

    Parameters
    ----------
    beta : float, default=5.0
        Weight of the second term; 5 to 6 are published.
    attack : Attack, str or None, default=None
        The inner maximiser, of cross-entropy; None is ``PGD()``.

    See Also
    --------
    TRADES : Weighs all samples alike.

    Notes
    -----
    1. The attack starts at ``x + 0.001 N(0, I)`` unless it says otherwise.
    2. The gradient flows through ``f(x)`` and ``f_y(x)`` as well; nothing is detached.
    3. Labels cannot be smoothed: both terms weigh samples by the probability of the one true label.
    4. The logarithm's argument ``1 - max`` is kept at 0.0001 or more, as in the authors' code.

    References
    ----------
    Wang, Zou, Yi, Bailey, Ma, Gu, "Improving adversarial robustness requires revisiting misclassified examples",
    ICLR 2020, Eq. 11.

    Examples
    --------
    >>> from sklearn_acs import MART, PGD
    >>> MART(attack=PGD())
    MART(attack=PGD())
    """

    _parameter_constraints: ClassVar[dict] = {
        **Objective._parameter_constraints,
        "beta": [NOT_NEGATIVE],
    }

    branches = (CLEAN, ADVERSARIAL)
    attack_init = "normal"
    attack_uses_clean = False

    def __init__(self, beta: float = 5.0, *, attack: Attack | str | None = None) -> None:
        super().__init__(attack)
        self.beta = beta

    def loss(self, logits: Logits, y: Tensor) -> Tensor:
        """Boosted cross-entropy plus the weighted divergence, per sample."""
        log_p, log_q = logits[CLEAN].log_softmax(1), logits[ADVERSARIAL].log_softmax(1)
        label = y[:, None]
        wrong = log_q.scatter(1, label, -torch.inf).amax(1).exp()
        boosted = -log_q.gather(1, label)[:, 0] - (1 + _ROOM - wrong).log()
        p = log_p.exp()
        return boosted + self.beta * (p * (log_p - log_q)).sum(1) * (1 - p.gather(1, label)[:, 0])
