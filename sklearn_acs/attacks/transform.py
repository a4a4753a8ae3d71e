"""Attacks that bend an image by a bounded transform: they ascend on the transform's parameters."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from sklearn_acs.attacks.base import COUNT, NOT_NEGATIVE, POSITIVE, Attack
from sklearn_acs.attacks.problem import Problem, margin_loss
from sklearn_acs.data.formats import Clip

Transform = Callable[[Tensor], Tensor]
"""From parameters, one set a sample, to the batch's transformed images."""


class TransformAttack(Attack):
    """Base class of attacks on the parameters of an image transform, each at most `bound`, 0 changing nothing.

    Of all the points that the ascent comes by, each sample keeps the best: one where the attack has succeeded if there
    is any, and among equals the one of highest loss.

    Attributes
    ----------
    sizes_ : Tensor of shape (batch,)
        Largest parameter of each sample in the last batch, in the units of `bound`; on the CPU.
    """

    _parameter_constraints: ClassVar[dict] = {
        "bound": [POSITIVE],
        "steps": [COUNT],
    }

    bound: float
    steps: int

    def measure(self, model: nn.Module, x: Tensor, x_adv: Tensor, *, clip: Clip = None) -> Tensor:
        """Tell the largest of each sample's parameters; see `Attack.measure`.

        They cannot be told from images: what `perturb` found last is remembered, and `x_adv` must be that.
        """
        if len(x_adv) != len(self.sizes_):
            raise ValueError(f"x_adv must be the last batch, of {len(self.sizes_)} samples; got {len(x_adv)}")
        return self.sizes_.to(x_adv.device)

    def _attack(self, problem: Problem, start: Tensor | None) -> Tensor:
        x = problem.x
        if x.ndim != 4:
            raise ValueError(f"{type(self).__name__} is for images; got samples of shape {tuple(x.shape[1:])}")
        transform = self._transform(x, problem.clip)
        first = self._start(x, problem.generator)
        if start is not None:
            if start.shape != first.shape:
                raise ValueError(f"start must be of shape {tuple(first.shape)}; got {tuple(start.shape)}")
            first = start.clamp(-self.bound, self.bound)
        if not (x.isfinite().all() and first.isfinite().all()):  # resampling along NaN reads memory that is not there
            raise ValueError(f"x and start of {type(self).__name__} must be finite; one has NaN or infinity")
        parameters = first.clone().requires_grad_()
        ascend = self._ascent(parameters)
        best, best_value = x, torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        best_done, sizes = torch.zeros_like(best_value).bool(), torch.zeros_like(best_value)
        for step in range(self.steps + 1):
            with torch.set_grad_enabled(step < self.steps):
                x_adv = transform(parameters)
                if problem.clip is not None:  # which rounding, at least, may leave
                    x_adv = x_adv.clamp(*problem.clip)
                logits = problem.model(x_adv)
                value = problem.goal.value(logits)
            with torch.no_grad():
                done = problem.goal.reached(logits)
                better = (done & ~best_done) | ((done == best_done) & (value > best_value))
                best = torch.where(better[:, None, None, None], x_adv, best)
                sizes = torch.where(better, parameters.flatten(1).abs().amax(1), sizes)
                best_value, best_done = torch.where(better, value, best_value), best_done | done
            if step < self.steps:
                gradient = problem.differentiate(value - self._penalty(parameters), parameters)
                with torch.no_grad():
                    ascend(gradient)
                    parameters.clamp_(-self.bound, self.bound)
        self.sizes_ = sizes.cpu()
        return best

    @abstractmethod
    def _transform(self, x: Tensor, clip: Clip) -> Transform:
        """Make the transform of one batch; what does not depend on parameters is computed here, once.

        What it returns is cut to the box `clip` by whoever calls it.
        """

    @abstractmethod
    def _start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """First parameters, (batch, ...)."""

    @abstractmethod
    def _ascent(self, parameters: Tensor) -> Callable[[Tensor], object]:
        """Make the function that moves `parameters`, in place, up the gradient that it is given."""

    def _penalty(self, parameters: Tensor) -> Tensor:
        """What is taken off the loss of each sample, (batch,)."""
        return torch.zeros(len(parameters), dtype=parameters.dtype, device=parameters.device)


class SmoothTransformAttack(TransformAttack):
    """Base class of transform attacks that raise the margin with Adam, from no change, and keep parameters smooth."""

    _parameter_constraints: ClassVar[dict] = {
        **TransformAttack._parameter_constraints,
        "step_size": [POSITIVE],
        "smoothness": [NOT_NEGATIVE],
    }

    step_size: float
    smoothness: float

    def default_loss(self, logits: Tensor, y: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """What the attack raises unless told otherwise, per sample: the margin of the best wrong class."""
        return margin_loss(logits, y)

    def _ascent(self, parameters: Tensor) -> Callable[[Tensor], object]:
        # Adam works on each number by itself: one sample's steps do not depend on the others in its batch.
        optimizer = torch.optim.Adam([parameters], lr=self.step_size, maximize=True)

        def ascend(gradient: Tensor) -> None:
            parameters.grad = gradient
            optimizer.step()

        return ascend

    def _penalty(self, parameters: Tensor) -> Tensor:
        return self.smoothness / self.bound * roughness(parameters)


def roughness(field: Tensor) -> Tensor:
    """Sum up how much a field changes from each point of its grid to the neighbours.

    ``sum_p sum_q sqrt(|field(p) - field(q)|^2 + 1e-10)`` over points p and their neighbours q in the grid.

    Parameters
    ----------
    field : Tensor of shape (batch, components, ...)
        Vectors on a grid of any number of axes.

    Returns
    -------
    Tensor of shape (batch,)
    """
    total = torch.zeros(len(field), dtype=field.dtype, device=field.device)
    for axis in range(2, field.ndim):
        change = field.diff(dim=axis).pow(2).sum(1)
        # The small number keeps the gradient finite where neighbours agree. Each pair counts once from either side.
        total = total + 2 * (change + 1e-10).sqrt().flatten(1).sum(1)
    return total
