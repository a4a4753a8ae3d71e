"""Norm-bounded attacks have a radius and a norm, and with them all that others ask of an attack."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sklearn_acs._compat import StrOptions
from sklearn_acs.attacks.balls import BALLS
from sklearn_acs.attacks.base import POSITIVE, Attack
from sklearn_acs.attacks.threat import Threat
from sklearn_acs.data.formats import Clip, InputFormat

TABLE_EPS = 0.1
"""Linf radius for tables of an attack given by name, in standard deviations of each feature."""


@dataclass(eq=False, repr=False)
class NormBoundedAttack(Attack):
    """Base class of attacks whose perturbations, or those they train against, are at most `eps` in a norm.

    A subclass has these parameters and writes `_attack`. It is then trained against, settled, measured and evaluated
    as the others are; with ``remembers = True`` and a `for_evaluation` that does not remember, training
    starts it from each sample's last perturbation. With a row in `ATTACKS` it has a name.

    Parameters
    ----------
    eps : float or array-like of the shape of one sample, default=8/255
        Radius of the ball, in input units. An array gives each feature its own bound (linf only).
    norm : {"linf", "l2", "l1"}, default="linf"
        The norm that `eps` bounds.

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
        "eps": [POSITIVE, "array-like"],
        "norm": [StrOptions(set(BALLS))],
    }

    eps: float | ArrayLike = 8 / 255
    _: KW_ONLY
    norm: str = "linf"

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        super().validate()
        if np.ndim(self.eps) > 0:
            bounds = np.asarray(self.eps)
            if self.norm != "linf":
                raise ValueError(f"eps must be one number for norm={self.norm!r}; an array is for 'linf' only")
            numbers = np.issubdtype(bounds.dtype, np.number) and np.isfinite(bounds).all()
            if not numbers or not (bounds >= 0).all() or not bounds.any():
                raise ValueError(f"eps must be finite numbers >= 0, one of them > 0; got {self.eps!r}")

    @property
    def threat(self) -> Threat:
        """The ball of radius `eps` in the norm."""
        return Threat(self.norm, self.eps)

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

    def settled(self, form: InputFormat, scale: Tensor, *, by_name: bool = False, **options: Any) -> Self:
        """Fit a copy to the data: the radius of an attack given by name, and the layout of an array `eps`.

        Parameters
        ----------
        form : InputFormat
            Shape and layout of the samples. An array `eps` may have the layout of the samples or that of the model.
        scale : Tensor of shape (features,) or (C,)
            By name, linf means `TABLE_EPS` of it for tables.
        by_name : bool, default=False
            Whether the radius is free to be fitted.
        **options
            See `Attack.settled`. By name, a `threat` gives norm and radius.

        Returns
        -------
        NormBoundedAttack
        """
        settled, threat = super().settled(form, scale, by_name=by_name, **options), options.get("threat")
        if by_name and threat is not None:
            settled.set_params(eps=threat.eps, norm=threat.norm)
        elif by_name and form.is_table and self.norm == "linf":
            settled.set_params(eps=TABLE_EPS * scale.numpy())
        shape = np.shape(settled.eps)
        if shape and shape not in (form.given_shape, form.model_shape):
            raise ValueError(
                f"eps must be a number or of the shape of one sample, {form.model_shape}; got shape {shape}"
            )
        if shape and shape != form.model_shape:
            settled.set_params(eps=form.to_model(torch.as_tensor(settled.eps)[None])[0].numpy())
        return settled
