"""FGSM takes one step up the loss."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from torch import Tensor

from sklearn_acs.attacks.base import POSITIVE
from sklearn_acs.attacks.norm_bounded import NormBoundedAttack
from sklearn_acs.attacks.pgd import PGD
from sklearn_acs.attacks.problem import Problem


@dataclass(eq=False, repr=False)
class FGSM(NormBoundedAttack):
    """Fast gradient sign method (FGSM): it takes one step up the loss, from the sample itself or from a random start.

    Parameters
    ----------
    eps : float, array-like, dict of str to float, or None, default=None
        Radius of the ball, for each feature alike or for each its own; None is 8/255 in linf, fitted to the
        data by a classifier. See `NormBoundedAttack`.
    norm : {"linf", "l2", "l1"}, default="linf"
        The norm that `eps` bounds.
    unit : {"input", "std"}, default="input"
        What `eps` is counted in: units of X, or standard deviations of each column; see `NormBoundedAttack`.
    random_start : bool, default=False
        Start uniformly in the ball (FGSM-RS), which makes one-step training work.
    step_size : float or None, default=None
        Length of the step; None is `eps`, or ``1.25 * eps`` from a random start, as published.

    See Also
    --------
    PGD : The same with many steps.

    References
    ----------
    Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015.
    Wong, Rice, Kolter, "Fast is better than free: revisiting adversarial training", ICLR 2020.

    Examples
    --------
    >>> from sklearn_acs import FGSM
    >>> FGSM(random_start=True)
    FGSM(random_start=True)
    """

    _parameter_constraints: ClassVar[dict] = {
        **NormBoundedAttack._parameter_constraints,
        "step_size": [POSITIVE, None],
        "random_start": ["boolean"],
    }

    steps = 1

    _: KW_ONLY
    random_start: bool = False
    step_size: float | None = None

    @property
    def starts_at_sample(self) -> bool:
        """Whether it has no random start."""
        return not self.random_start

    def _attack(self, problem: Problem, start: Tensor | None) -> Tensor:
        init, share = ("uniform", 1.25) if self.random_start else ("zero", 1.0)
        rel_step_size = share if self.step_size is None else None
        one = PGD(
            self.threat.eps, norm=self.norm, steps=1, step_size=self.step_size, rel_step_size=rel_step_size, init=init
        )
        return one._attack(problem, start)
