"""A threat says what an attack may do: which norm bounds perturbations, and how far."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_acs.attacks.balls import BALLS, Ball
from sklearn_acs.attacks.radius import spreads
from sklearn_acs.data.formats import Clip


@dataclass(frozen=True, eq=False)
class Threat:
    """The ball of a norm: everything that asks where perturbations live asks this, and no class of attack.

    Parameters
    ----------
    norm : {"linf", "l2", "l1"}
        The norm.
    eps : float or array-like of the shape of one sample
        Radius, in input units. An array gives each feature its own bound (linf only).

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import FGSM
    >>> threat = FGSM(eps=0.5, norm="l2").threat
    >>> threat
    Threat(norm='l2', eps=0.5)
    >>> x = torch.zeros(1, 2)
    >>> threat.ball(x, None).project(torch.tensor([[3.0, 4.0]]))
    tensor([[0.3000, 0.4000]])
    """

    norm: str
    eps: Any

    @property
    def metric(self) -> str:
        """The norm; "linf/eps" where `eps` is an array, and sizes are told in units of it."""
        return f"{self.norm}/eps" if np.ndim(self.eps) else self.norm

    def scaled(self, factor: float) -> "Threat":
        """The ball of `factor` times the radius."""
        return self if factor == 1 else Threat(self.norm, times(factor, self.eps))

    def ball(self, x: Tensor, clip: Clip) -> Ball:
        """The perturbations that are allowed around a batch."""
        eps = self.eps
        if np.ndim(eps):  # a number stays one: as a tensor it would be copied to the device, which stops a GPU
            eps = torch.as_tensor(eps, dtype=x.dtype, device=x.device)
            given, full = tuple(eps.shape), tuple(x.shape[1:])
            if not spreads(given, full):
                raise ValueError(f"eps must be a number or of the shape of one sample, {full}; got shape {given}")
        return BALLS[self.norm](x, eps, clip)


def times(factor: float, radius: Any) -> Any:
    """Multiply a number or an array of them."""
    return factor * (np.asarray(radius) if np.ndim(radius) else float(radius))
