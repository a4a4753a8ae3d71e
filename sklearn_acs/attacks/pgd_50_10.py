"""PGD-50-10: the PGD that coreset papers evaluate with."""

from typing import ClassVar

from numpy.typing import ArrayLike
from torch import Tensor

from sklearn_acs._compat import StrOptions
from sklearn_acs.attacks.pgd import PGD


class PGD5010(PGD):
    """PGD with 50 steps from each of 10 random starts ("pgd-50-10"), for evaluation.

    Parameters
    ----------
    eps : float or array-like of the shape of one sample, default=8/255
        Radius of the ball, in input units. Published with the l2 norm: 80/255.
    steps : int, default=50
        Gradient steps of a run.
    step_size : float or None, default=None
        Length of a step; None is as published: ``eps / 8`` for linf, ``eps / 10`` for other norms.
    norm : {"linf", "l2", "l1"}, default="linf"
        The norm that `eps` bounds.
    init : {"auto", "uniform", "normal", "zero"}, default="auto"
        Where a run starts; see `PGD`.
    restarts : int, default=10
        Runs. Samples that are broken leave, so that robust ones alone cost them all.

    See Also
    --------
    PGD : The same with other defaults.

    References
    ----------
    Wong, Rice, Kolter, "Fast is better than free: revisiting adversarial training", ICLR 2020.
    Dolatabadi, Erfani, Leckie, "Adversarial coreset selection for efficient robust training", IJCV 2023.

    Examples
    --------
    >>> from sklearn_acs import PGD, PGD5010
    >>> isinstance(PGD5010(eps=80 / 255, norm="l2"), PGD)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **{name: PGD._parameter_constraints[name] for name in ("eps", "steps", "step_size", "norm", "restarts")},
        "init": [StrOptions({"auto", "uniform", "normal", "zero"})],  # nothing to remember: it is for evaluation
    }

    def __init__(
        self,
        eps: float | ArrayLike = 8 / 255,
        *,
        steps: int = 50,
        step_size: float | None = None,
        norm: str = "linf",
        init: str = "auto",
        restarts: int = 10,
    ) -> None:
        super().__init__(eps, steps=steps, step_size=step_size, norm=norm, init=init, restarts=restarts)

    def default_step(self, eps: float | Tensor) -> float | Tensor:
        """Length of a step when `step_size` is None."""
        return eps / 8 if self.norm == "linf" else eps / 10
