"""Norm-bounded attacks have a radius and a norm, and with them all that others ask of an attack."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sklearn_acs._compat import StrOptions
from sklearn_acs.attacks.balls import BALLS
from sklearn_acs.attacks.base import POSITIVE, Attack
from sklearn_acs.attacks.radius import IMAGE_EPS, fitted_radius
from sklearn_acs.attacks.threat import Threat
from sklearn_acs.data.formats import Clip, DataFormat


@dataclass(eq=False, repr=False)
class NormBoundedAttack(Attack):
    """Base class of attacks whose perturbations, or those they train against, are at most `eps` in a norm.

    A subclass has these parameters and writes `_attack`. It is then trained against, settled, measured and evaluated
    as the others are; with ``remembers = True`` and a `for_evaluation` that does not remember, training
    starts it from each sample's last perturbation. With a row in `ATTACKS` it has a name.

    Parameters
    ----------
    eps : float, array-like, dict of str to float, or None, default=None
        Radius of the ball. In linf, an array of the shape of one sample, in the user's layout or the model's and with
        sides of 1 where it is the same along them, gives each feature its own; a dict gives columns of a DataFrame
        theirs, and those it does not name do not move. None is 8/255 of the width of the box, for tables of a
        `RobustClassifier` 0.1 standard deviations of each column, constant and two-valued ones aside, and at selections
        that of training; it is for linf alone.
    norm : {"linf", "l2", "l1"}, default="linf"
        The norm that `eps` bounds.
    unit : {"input", "std"}, default="input"
        What `eps` is counted in: units of X, or standard deviations of each column, or channel, of the samples that
        a `RobustClassifier` was trained on (linf only). One number in "std" moves neither constant columns nor those of
        two values, unless all have no more.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.attacks import NormBoundedAttack
    >>> class Noise(NormBoundedAttack):
    ...     def _attack(self, problem, start):
    ...         ball = self.threat.ball(problem.x, problem.clip)
    ...         return ball.perturbed(ball.start("uniform", problem.generator) if start is None else start)
    >>> x = torch.rand(5, 3)
    >>> x_adv = Noise(eps=0.1).perturb(torch.nn.Linear(3, 2), x, torch.zeros(5, dtype=torch.long))
    >>> bool((x_adv - x).abs().max() <= 0.1 + 1e-6)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "eps": [POSITIVE, "array-like", dict, None],
        "norm": [StrOptions(set(BALLS))],
        "unit": [StrOptions({"input", "std"})],
    }

    eps: float | ArrayLike | Mapping[str, float] | None = None
    _: KW_ONLY
    norm: str = "linf"
    unit: str = "input"

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        super().validate()
        if self.norm != "linf" and self.eps is None:
            raise ValueError(
                f"norm={self.norm!r} asks for its eps: the default, 8/255, is a radius in 'linf'. For images in [0, 1] "
                "eps=0.5 is usual in 'l2', and eps=12 in 'l1'"
            )
        if self.norm != "linf" and self.unit == "std":
            raise ValueError(f"unit='std' gives each column its own radius, for 'linf' only, not norm={self.norm!r}")
        if self.unit == "std" and getattr(self, "step_size", None) is not None:
            raise ValueError("step_size is in units of X, and unit='std' is not; use rel_step_size, or leave it out")
        eps: Any = list(self.eps.values()) if isinstance(self.eps, Mapping) else self.eps
        if np.ndim(eps) > 0 or isinstance(eps, np.ndarray | Tensor):
            bounds = np.asarray(eps)
            if self.norm != "linf" and bounds.ndim > 0:
                raise ValueError(f"eps must be one number for norm={self.norm!r}; an array is for 'linf' only")
            numbers = np.issubdtype(bounds.dtype, np.number) and np.isfinite(bounds).all()
            if not numbers or not (bounds >= 0).all() or not bounds.any():
                raise ValueError(f"eps must be finite numbers >= 0, one of them > 0; got {self.eps!r}")

    @property
    def threat(self) -> Threat:
        """The ball of radius `eps` in the norm."""
        if self.unit == "std" or isinstance(self.eps, Mapping):
            what = f"eps={self.eps!r} with unit={self.unit!r}"
            raise ValueError(f"{what} goes by columns that a RobustClassifier knows; a module needs eps in units of X")
        return Threat(self.norm, IMAGE_EPS if self.eps is None else self.eps)

    @property
    def metric(self) -> str:
        """The norm, "linf", "l2" or "l1"; "linf/eps" where `eps` is an array."""
        return self.threat.metric

    def measure(self, model: nn.Module, x: Tensor, x_adv: Tensor, *, clip: Clip = None) -> Tensor:
        """Measure perturbations in the norm.

        Where `eps` is an array it is the largest change of a feature in units of its own `eps`, so that 1 is the bound.

        Parameters
        ----------
        model : nn.Module
            Not looked at.
        x, x_adv : Tensor of shape (batch, ...)
            Clean inputs and their adversarial examples.
        clip : (float, float) or None, default=None
            Not looked at.

        Returns
        -------
        Tensor of shape (batch,)
        """
        return self.threat.ball(x, clip).size(x_adv - x)

    def settled(self, format: DataFormat, *, threat: Threat | None = None, **options: Any) -> Self:
        """Fit a copy to the data: its radius, if it has none, and the layout and unit of one that it has.

        Parameters
        ----------
        format : DataFormat
            Shape, layout, box and scale of the samples.
        threat : Threat or None, default=None
            Norm and radius to take where `eps` is None; None is `fitted_radius`.
        **options
            See `Attack.settled`.

        Returns
        -------
        NormBoundedAttack
        """
        settled = super().settled(format, threat=threat, **options)
        if self.eps is None and threat is not None:
            return settled.set_params(eps=threat.eps, norm=threat.norm)
        settled.set_params(eps=fitted_radius(self.eps, self.unit, format))
        return settled.set_params(unit="input") if self.unit == "std" else settled
