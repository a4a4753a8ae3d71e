"""PPGD takes the steepest steps in a perceptual distance, and after each goes back into its ball."""

import torch
from torch import Tensor

from sklearn_acs.attacks.balls import length, per_sample
from sklearn_acs.attacks.perceptual import PerceptualAttack, PerceptualProblem
from sklearn_acs.attacks.perceptual_ball import PerceptualBall

_REACH = 1e-3  # of the finite differences, in units of `scale`
_CG_STEPS = 5
_CG_RESIDUAL = 0.1  # relative to the gradient's length


class PPGD(PerceptualAttack):
    """Perceptual projected gradient descent (PPGD), for evaluation.

    Each step is the move that raises the loss most among those that move the activations phi by the step size, to
    first order: ``v = (J^T J)^-1 g`` up to its length, with g the gradient of the loss and J the Jacobian of phi,
    found by 5 steps of conjugate gradients. The sample is then projected back to distance `bound`.

    Parameters
    ----------
    bound : float, default=0.5
        Largest distance, kept by every sample.
    steps : int, default=40
        Steps at most, each a forward and backward pass through the model, six through the judge, and a projection. A
        sample stops where the loss is flat, which the margin is from 1 on.
    step_size : float or None, default=None
        How far a step moves, in the same distance; None is ``2 * bound / steps``.
    distance : {"self", "alex", "squeeze"} or nn.Module, default="alex"
        The network that judges; see `FastLPA`, and `LPA` on why it is not the model.
    layers : list of str or None, default=None
        What is compared, for "self" and for a module of one's own; see `FastLPA`.
    weights : str, Path or None, default=None
        File with torchvision's weights; see `FastLPA`.
    scale : "auto", float or array-like of the shape of one sample, default="auto"
        What start and steps are counted in; see `FastLPA`.
    only_correct : bool, default=True
        Attack only samples that are classified rightly; the others are returned as they are.
    projection : {"newton", "bisection"}, default="newton"
        How samples are brought back after each step.

    See Also
    --------
    LPA : The other attack of the same authors, mostly stronger.

    Notes
    -----
    1. Conjugate gradients end sample by sample, when the residual is below a tenth of the gradient; the authors'
       code waits for the whole batch.
    2. Their directions are scaled to length 0.001 for the finite difference, and the result is scaled back: the
       difference is no worse for long or short ones.
    3. A sample stays only where its gradient is 0; the authors' threshold of 0.0001 would keep every sample where
       the divergence of TRADES begins.
    4. Newton's projection falls back to halving sample by sample, and aims closer to the bound; see `LPA`.

    References
    ----------
    Laidlaw, Singla, Feizi, "Perceptual adversarial robustness: defense against unseen threat models", ICLR 2021,
    Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import PPGD
    >>> from sklearn_acs.models import mlp
    >>> model, x, y = mlp((4,), 3), torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
    >>> attack = PPGD(bound=0.3, steps=5, distance="self")
    >>> x_adv = attack.perturb(model, x, y)
    >>> bool((attack.measure(model, x, x_adv) <= 0.3).all())
    True
    """

    def _ascend(self, problem: PerceptualProblem, x_adv: Tensor) -> Tensor:
        step_size = 2 * self.bound / self.steps if self.step_size is None else self.step_size
        x_adv, part = self._project(problem, x_adv).clone(), problem
        left = torch.arange(len(x_adv), device=x_adv.device)
        for _ in range(self.steps):
            point = x_adv[left].requires_grad_()
            logits, phi = problem.look(point)
            gradient = part.differentiate(part.goal.value(logits), point, retain_graph=True)
            # Where the loss is flat a sample would stay in all further steps: it is done.
            steep = (length(gradient) > 0).nonzero().squeeze(1)
            if len(steep) == 0:
                break
            moved = point.detach() + steepest(part.ball, point, phi, gradient, step_size)
            left, part = left[steep], part.take(steep)
            x_adv[left] = self._project(part, part.ball.cut(moved[steep]))
        return x_adv


def steepest(ball: PerceptualBall, point: Tensor, phi: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    """Find the move along `gradient` that is steepest among those that move the activations by `step_size`.

    Parameters
    ----------
    ball : PerceptualBall
        For its features and scale.
    point, phi : Tensor of shape (batch, ...) and (batch, n)
        Where, and its activations with their graph, through which the Jacobian is multiplied.
    gradient : Tensor of shape (batch, ...)
        Of the loss.
    step_size : float
        Length of the move in the activations.

    Returns
    -------
    Tensor of shape (batch, ...)
        In input units; 0 where the gradient is.
    """
    start, here = point.detach(), phi.detach()

    @torch.no_grad()
    def pushed(move: Tensor) -> Tensor:
        """J move, (batch, n)."""
        size = length(move).clamp(min=1e-12)
        probe = start + ball.scale * move * per_sample(_REACH / size, move)
        return (ball.features(probe) - here) * (size / _REACH)[:, None]

    gradient = gradient * ball.scale
    residual = gradient / per_sample(length(gradient).clamp(min=1e-12), gradient)
    move, direction = torch.zeros_like(residual), residual
    squared = dot(residual, residual)
    for _ in range(_CG_STEPS):
        going = squared > _CG_RESIDUAL**2
        if not going.any():
            break
        image = torch.autograd.grad(phi, point, pushed(direction), retain_graph=True)[0] * ball.scale
        curvature = dot(direction, image)
        # Rounding may make a flat direction look bent downwards: the search ends there.
        rate = torch.where(going & (curvature > 1e-12), squared / curvature, 0.0)
        move = move + per_sample(rate, move) * direction
        residual = residual - per_sample(rate, move) * image
        before, squared = squared, torch.where(rate > 0, dot(residual, residual), 0.0)
        direction = residual + per_sample(squared / before.clamp(min=1e-12), move) * direction
    speed = torch.linalg.vector_norm(pushed(move), dim=1)
    return ball.scale * move * per_sample((step_size / speed.clamp(min=1e-8)).nan_to_num(0.0), move)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each pair of samples, (batch,)."""
    return (a * b).flatten(1).sum(1)
