"""A ball in a network's activations holds the inputs that look like a given one; two projections lead back into it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sklearn_acs.attacks.balls import length, per_sample
from sklearn_acs.attacks.features import Features
from sklearn_acs.data.formats import Clip

NEWTON_STEPS = 10
HALVINGS = 10
AIM = 0.995  # the share of the bound that Newton's steps aim at: at the bound itself none would arrive inside


@dataclass(frozen=True)
class PerceptualBall:
    """The inputs whose activations differ by at most `bound` from those of a batch, cut to the box `clip`.

    Parameters
    ----------
    features : callable
        ``features(x) -> (batch, n)``.
    x : Tensor of shape (batch, ...)
        The centres.
    phi : Tensor of shape (batch, n)
        Their activations.
    bound : float
        The radius.
    clip : (float, float) or None
        The box.
    scale : float or Tensor of the shape of one sample
        Unit of each input: gradients and directions are taken in ``x / scale``.
    """

    features: Features
    x: Tensor
    phi: Tensor
    bound: float
    clip: Clip
    scale: float | Tensor

    @property
    def limit(self) -> float:
        """What samples have to keep to: a hair below the bound, since another batch rounds differently."""
        return self.bound * (1 - 1e-4)

    def take(self, rows: Tensor) -> "PerceptualBall":
        """The balls of some of the samples."""
        return replace(self, x=self.x[rows], phi=self.phi[rows])

    def cut(self, x_adv: Tensor) -> Tensor:
        """Cut inputs to the box; where there is none, move them no farther than a root mean square of 1 `scale`.

        Stretching its inputs hardly turns the activations of a ReLU network that are far from 0 already, and so the
        samples that look alike may reach to infinity, and the loss with them. In a box of width `scale` no move is
        longer than this.
        """
        if self.clip is not None:
            return x_adv.clamp(*self.clip)
        move = x_adv - self.x
        size = length((move / self.scale).nan_to_num(0.0)) / self.x[0].numel() ** 0.5
        return self.x + move / per_sample(size.clamp(min=1), move)

    def distance(self, phi_adv: Tensor) -> Tensor:
        """Tell how far each sample is, by its activations; the gradient at the centre is 0."""
        return torch.linalg.vector_norm(phi_adv - self.phi, dim=1)

    def newton(self, x_adv: Tensor) -> Tensor:
        """Go down the distance's gradient until inside; what is not after 10 steps is halved back.

        Parameters
        ----------
        x_adv : Tensor of shape (batch, ...)
            Samples, inside or outside.

        Returns
        -------
        Tensor of shape (batch, ...)
            Those inside as they were, the others moved inside.
        """
        x_adv, left, ball = x_adv.clone(), torch.arange(len(x_adv), device=x_adv.device), self
        for _ in range(NEWTON_STEPS):
            point = x_adv[left].requires_grad_()
            distance = ball.distance(ball.features(point))
            outside = (~(distance <= self.limit)).nonzero().squeeze(1)
            if len(outside) == 0:
                return x_adv
            gradient = torch.autograd.grad(distance.sum(), point)[0][outside].nan_to_num(0.0) * self.scale
            left, ball = left[outside], ball.take(outside)
            excess = distance.detach()[outside] - AIM * self.bound
            step = excess / length(gradient).square().clamp(min=1e-12)
            x_adv[left] = ball.cut(x_adv[left] - self.scale * gradient * per_sample(step, gradient))
        x_adv[left] = ball.bisection(x_adv[left])
        return x_adv

    @torch.no_grad()
    def bisection(self, x_adv: Tensor) -> Tensor:
        """Find the last point inside, to 1/1024, on the segment from each centre to its sample.

        Parameters
        ----------
        x_adv : Tensor of shape (batch, ...)
            Samples, inside or outside.

        Returns
        -------
        Tensor of shape (batch, ...)
            Those inside as they were, the others moved inside.
        """
        outside = (~(self.distance(self.features(x_adv)) <= self.limit)).nonzero().squeeze(1)
        if len(outside) == 0:
            return x_adv
        ball, move = self.take(outside), x_adv[outside] - self.x[outside]

        def at(share: Tensor) -> Tensor:
            return ball.cut(ball.x + per_sample(share, move) * move)

        inside = torch.zeros(len(outside), dtype=move.dtype, device=move.device)
        for halving in range(1, HALVINGS + 1):
            further = inside + 0.5**halving
            holds = ball.distance(self.features(at(further))) <= self.limit
            inside = torch.where(holds, further, inside)
        return x_adv.index_copy(0, outside, at(inside))


PROJECTIONS = {"newton": PerceptualBall.newton, "bisection": PerceptualBall.bisection}
