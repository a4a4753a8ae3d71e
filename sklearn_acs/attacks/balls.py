"""Perturbations live in balls: each norm's has a random point, an ascent step and a way back into it.

A ball is made for one batch, so what depends on the clean inputs alone is computed once and not in every step.
Perturbations are tensors of the batch's shape; per-sample scalars are kept as (batch, 1, ...).
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from sklearn_acs.data.formats import Clip

NORMAL_START = 0.001
"""Standard deviation of the start that TRADES and MART use, in input units."""

_TINY = 1e-12  # what lengths are kept above where they divide


class Ball(ABC):
    """The perturbations of size at most `eps` around a batch, cut to the box `clip`."""

    def __init__(self, x: Tensor, eps: float | Tensor, clip: Clip) -> None:
        self.x, self.eps, self.clip = x, eps, clip

    @abstractmethod
    def uniform(self, generator: torch.Generator) -> Tensor:
        """Draw a point uniformly from the ball (before the box)."""

    @abstractmethod
    def ascend(self, delta: Tensor, gradient: Tensor, step_size: float | Tensor) -> Tensor:
        """Take one step of size `step_size`, in this norm, that raises the loss fastest."""

    @abstractmethod
    def project(self, delta: Tensor) -> Tensor:
        """Project onto the ball and then cut to the box, which never enlarges a perturbation in any norm."""

    @abstractmethod
    def size(self, delta: Tensor) -> Tensor:
        """Length of each sample's perturbation in this norm, (batch,); in units of `eps` where that is a tensor."""

    def cut(self, delta: Tensor) -> Tensor:
        """Cut a perturbation so that the perturbed inputs stay in the box."""
        return delta if self.clip is None else self.perturbed(delta).sub_(self.x)

    def perturbed(self, delta: Tensor) -> Tensor:
        """Add a perturbation to the inputs; at the box's edge it may round to one unit beyond, which is cut off."""
        return self.x + delta if self.clip is None else (self.x + delta).clamp_(*self.clip)

    def start(self, init: str, generator: torch.Generator) -> Tensor:
        """Draw the first perturbation: "uniform" in the ball, "normal" (0.001 N(0, 1) a pixel), or "zero"."""
        if init == "zero":
            return torch.zeros_like(self.x)
        if init == "normal":
            return self.project(NORMAL_START * gaussian(self.x, generator))
        return self.project(self.uniform(generator))


class LinfBall(Ball):
    """Every coordinate moves by at most eps, a number or one per feature."""

    def __init__(self, x: Tensor, eps: float | Tensor, clip: Clip) -> None:
        super().__init__(x, eps, clip)
        # Ball and box are both boxes here: one clamp does the whole projection.
        # Numbers stay numbers: as tensors they would be copied to the device, which stops a GPU.
        self.low: Any = -eps
        self.high: Any = eps
        if clip is not None:
            self.low, self.high = (clip[0] - x).clamp_(min=-eps), (clip[1] - x).clamp_(max=eps)

    def uniform(self, generator: torch.Generator) -> Tensor:
        return self.eps * (2 * uniform(self.x.shape, self.x, generator) - 1)

    def ascend(self, delta: Tensor, gradient: Tensor, step_size: float | Tensor) -> Tensor:
        return gradient.sign().mul_(step_size).add_(delta)  # in place: memory traffic is what a step adds on a CPU

    def project(self, delta: Tensor) -> Tensor:
        return delta.clamp(self.low, self.high)

    def size(self, delta: Tensor) -> Tensor:
        size = delta.abs()
        if isinstance(self.eps, Tensor) and self.eps.ndim:
            size = torch.where(size > 0, size / self.eps, size)  # a feature that may not move has an eps of 0
        return size.flatten(1).amax(1)


class L2Ball(Ball):
    """Euclidean length at most eps per sample."""

    def uniform(self, generator: torch.Generator) -> Tensor:
        # A normal direction, and a radius that gives every shell its share of the volume. The published code drew
        # each pixel from (-eps, eps), a point far outside the ball.
        direction = gaussian(self.x, generator)
        radius = uniform((len(self.x),), self.x, generator) ** (1 / self.x[0].numel())
        return direction * per_sample(self.eps * radius / length(direction).clamp_(min=_TINY), self.x)

    def ascend(self, delta: Tensor, gradient: Tensor, step_size: float | Tensor) -> Tensor:
        return delta + gradient * per_sample(step_size / length(gradient).clamp_(min=_TINY), self.x)

    def project(self, delta: Tensor) -> Tensor:
        return self.cut(delta * per_sample((self.eps / length(delta).clamp_(min=_TINY)).clamp_(max=1.0), self.x))

    def size(self, delta: Tensor) -> Tensor:
        return length(delta)


class L1Ball(Ball):
    """Sum of absolute changes at most eps per sample."""

    share_of_coordinates = 0.05
    """A step moves this share of the coordinates, those with the steepest gradient (Tramer and Boneh 2019): one
    coordinate alone, the exact steepest ascent, is too slow, and all of them spread the step too thin."""

    def uniform(self, generator: torch.Generator) -> Tensor:
        # Exponential variables over their sum, with one more for the gap to the surface, are uniform in the simplex.
        batch, size = len(self.x), self.x[0].numel()
        spacings = -uniform((batch, size + 1), self.x, generator).clamp_min_(1e-12).log_()
        signs = uniform((batch, size), self.x, generator).sub_(0.5).sign_()
        point = signs * spacings[:, 1:] / spacings.sum(1, keepdim=True)
        return self.eps * point.reshape(self.x.shape)

    def ascend(self, delta: Tensor, gradient: Tensor, step_size: float | Tensor) -> Tensor:
        # Coordinates already at the box in the gradient's direction cannot move: they give their place to others.
        if self.clip is not None:
            # Compared as `cut` leaves them: x + (high - x) is not always high in floating point.
            low, high = self.clip[0] - self.x, self.clip[1] - self.x
            stuck = ((delta <= low) & (gradient < 0)) | ((delta >= high) & (gradient > 0))
            gradient = gradient.masked_fill(stuck, 0.0)
        flat = gradient.flatten(1)
        moved = max(1, round(self.share_of_coordinates * flat.shape[1]))
        top = flat.abs().topk(moved, dim=1).indices
        direction = torch.zeros_like(flat).scatter_(1, top, flat.gather(1, top).sign())
        return delta + step_size / moved * direction.reshape(delta.shape)

    def project(self, delta: Tensor) -> Tensor:
        # Duchi et al. 2008: subtract the threshold that leaves a sum of eps, found on the sorted magnitudes.
        flat = delta.flatten(1)
        magnitude = flat.abs()
        ordered = magnitude.sort(1, descending=True).values
        excess = ordered.cumsum(1) - self.eps
        rank = torch.arange(1, flat.shape[1] + 1, device=flat.device)
        last = (ordered * rank > excess).sum(1, keepdim=True).clamp_(min=1)
        threshold = (excess.gather(1, last - 1) / last).clamp_(min=0)
        return self.cut((flat.sign() * (magnitude - threshold).clamp_(min=0)).reshape(delta.shape))

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().sum(1)


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}


def length(batch: Tensor) -> Tensor:
    """Measure the Euclidean length of each sample, (batch,)."""
    return batch.flatten(1).norm(dim=1)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Shape (batch,) values as (batch, 1, ...), to broadcast over samples shaped as those of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def gaussian(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers shaped like `like`."""
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw numbers from [0, 1) of the given shape, with the type and device of `like`."""
    return torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)
