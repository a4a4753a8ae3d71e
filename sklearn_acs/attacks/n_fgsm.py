"""N-FGSM takes one step from far-off noise, which keeps single-step training from collapsing."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from torch import Tensor

from sklearn_acs.attacks.base import POSITIVE, Attack
from sklearn_acs.attacks.norm_bounded import NormBoundedAttack
from sklearn_acs.attacks.pgd import PGD
from sklearn_acs.attacks.problem import Problem


@dataclass(eq=False, repr=False)
class NFGSM(NormBoundedAttack):
    """Noisy fast gradient sign method (N-FGSM): it steps up the loss from noise larger than the ball; for training.

    ``x' = x + eta + eps * sign(grad CE(f(x + eta), y))`` with eta uniform in ``(-noise * eps, noise * eps)``. The
    result is not brought back into the ball of radius `eps`, only into the box: that is what sets it apart from FGSM
    with a random start, and what lets one-step training withstand larger radii.

    Parameters
    ----------
    eps : float, array-like, dict of str to float, or None, default=None
        Radius of the ball that training defends, for each feature alike or for each its own; None is 8/255 in linf,
        fitted to the data by a classifier. See `NormBoundedAttack`.
    norm : {"linf", "l2", "l1"}, default="linf"
        The norm of `eps`, of the noise and of the step; the paper has linf alone.
    unit : {"input", "std"}, default="input"
        What `eps` is counted in: units of X, or standard deviations of each column; see `NormBoundedAttack`.
    noise : float, default=2.0
        Radius of the noise in multiples of `eps`.
    step_size : float or None, default=None
        Length of the step; None is `eps`.

    See Also
    --------
    FGSM : Its examples stay in the ball.
    FastAT : Single-step training with it: ``FastAT(start="noise")``.

    Notes
    -----
    1. Examples are up to ``(noise + 1) * eps`` away from the sample, so robustness is measured with PGD in the ball of
       radius `eps`: see `for_evaluation`.
    2. The authors' code takes the step in train mode; attacks here run in eval mode.
    3. Costs one forward and one backward pass per sample.

    References
    ----------
    de Jorge, Bibi, Volpi, Sanyal, Torr, Rogez, Dokania, "Make some noise: Reliable and efficient single-step
    adversarial training", NeurIPS 2022.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import NFGSM
    >>> model, x, y = torch.nn.Linear(40, 3), torch.rand(5, 40), torch.tensor([0, 1, 2, 0, 1])
    >>> moved = (NFGSM(eps=0.1).perturb(model, x, y) - x).abs().max()
    >>> bool(moved > 0.2), bool(moved <= 0.3 + 1e-6)
    (True, True)
    """

    _parameter_constraints: ClassVar[dict] = {
        **NormBoundedAttack._parameter_constraints,
        "step_size": [POSITIVE, None],
        "noise": [POSITIVE],
    }

    steps = 1

    _: KW_ONLY
    noise: float = 2.0
    step_size: float | None = None

    def for_evaluation(self) -> Attack:
        """``PGD`` in the ball of radius `eps`, which these examples leave."""
        return PGD(eps=self.eps, norm=self.norm, unit=self.unit)

    def _attack(self, problem: Problem, start: Tensor | None) -> Tensor:
        ball = self.threat.ball(problem.x, problem.clip)
        wide = type(ball)(problem.x, self.noise * ball.eps, problem.clip)
        eta = wide.start("uniform", problem.generator) if start is None else wide.project(start)
        step_size = ball.eps if self.step_size is None else self.step_size
        return wide.perturbed(wide.ascend(eta, problem.gradient(problem.x + eta), step_size))
