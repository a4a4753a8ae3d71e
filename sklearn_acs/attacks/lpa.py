"""Lagrangian perceptual attacks pay for distance: Fast-LPA for training, LPA for evaluation."""

from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sklearn_acs._compat import StrOptions
from sklearn_acs.attacks.balls import length, per_sample
from sklearn_acs.attacks.base import COUNT, NOT_NEGATIVE, POSITIVE
from sklearn_acs.attacks.perceptual import PerceptualAttack, PerceptualProblem
from sklearn_acs.attacks.perceptual_ball import PROJECTIONS, PerceptualBall

_REACH = 0.1  # how far ahead, in units of `scale`, a step looks to see how fast the distance grows
_DECAY = 0.1  # of the step size, from the first step to the last; of Fast-LPA's penalty, the other way round


@dataclass(eq=False, repr=False)
class FastLPA(PerceptualAttack):
    """Fast Lagrangian perceptual attack (Fast-LPA), the inner maximiser of perceptual adversarial training.

    Gradient ascent on ``loss(x') - lam_t * max(0, d(x', x) - bound)``, whose penalty grows tenfold from the first
    step to the last. d is the perceptual distance ``|phi(x') - phi(x)|``, with phi the activations of a network
    scaled as in LPIPS. Each step goes in the gradient's direction just as far as moves phi by the step size, which
    falls tenfold.

    Parameters
    ----------
    bound : float, default=0.5
        Largest distance; published: 0.5 for CIFAR-10, 0.25 for ImageNet.
    steps : int, default=10
        Gradient steps, two forward passes and one backward pass each.
    step_size : float or None, default=None
        How far the first step moves, in the same distance; None is `bound`.
    lam : float, default=10.0
        Weight of the penalty in the end.
    distance : {"self", "alex", "squeeze"} or nn.Module, default="self"
        The network that judges: the model under attack, AlexNet or SqueezeNet as in LPIPS, for images, or one's own,
        which takes what the model takes.
    layers : list of str or None, default=None
        What is compared, for "self" and for a module of one's own: names of layers as `named_modules` has them. None
        is the stages of ResNets, else the outputs of all activation modules, else of convolutions and linear layers.
    weights : str, Path or None, default=None
        File with torchvision's weights of AlexNet or SqueezeNet 1.1 (.npz, .pt or .pth) for machines that cannot
        download; None lets torchvision download them once.
    scale : "auto", float or array-like of the shape of one sample, default="auto"
        What start and steps are counted in, per feature. "auto" is the width of the box `clip`, 1 for images in
        [0, 1]; without one it is 1, and for tables `RobustClassifier` makes it each feature's standard deviation.
    only_correct : bool, default=True
        Attack only samples that are classified rightly; the others are returned as they are.
    projection : {"none", "newton", "bisection"}, default="none"
        How examples are brought back to distance `bound` in the end; "none" leaves a few beyond it.

    See Also
    --------
    LPA : Searches longer, and for the penalty too; for evaluation.
    PAT : The objective that trains against it.

    Notes
    -----
    Costs ``2 * steps + 1`` forward and `steps` backward passes for each sample attacked, and one forward pass for
    others. With another network than the model, it is `steps` of each through the model, one more forward pass with
    `only_correct` where the objective has no clean logits, and the rest through the judge.

    1. A model judges itself in eval mode, and its logits and activations come from one forward pass.
    2. Robustness is measured with ``projection="newton"``: see `for_evaluation`. A model's own opinion of what looks
       alike flatters it, though: also measure with `LPA` and `PPGD`, which ask AlexNet.

    References
    ----------
    Laidlaw, Singla, Feizi, "Perceptual adversarial robustness: defense against unseen threat models", ICLR 2021,
    Algorithm 3.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import FastLPA
    >>> from sklearn_acs.models import convnet
    >>> model, x, y = convnet((1, 8, 8), 3), torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    >>> attack = FastLPA(bound=0.3, projection="newton")
    >>> x_adv = attack.perturb(model, x, y, clip=(0, 1))
    >>> bool((attack.measure(model, x, x_adv) <= 0.3).all())
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **PerceptualAttack._parameter_constraints,
        "lam": [NOT_NEGATIVE],
        "projection": [StrOptions({"none", *PROJECTIONS})],
    }

    cap = inf

    _: KW_ONLY
    steps: int = 10
    lam: float = 10.0
    distance: str | nn.Module = "self"
    projection: str = "none"

    def for_evaluation(self) -> "FastLPA":
        """The same with every example brought back to the bound."""
        return self if self.projection != "none" else self.with_params(projection="newton")

    def _ascend(self, problem: PerceptualProblem, x_adv: Tensor) -> Tensor:
        step_size = self.bound if self.step_size is None else self.step_size
        for step in range(self.steps):
            done = step / self.steps
            point = x_adv.requires_grad_()
            logits, phi = problem.look(point)
            penalty = F.relu(problem.ball.distance(phi) - self.bound)
            value = problem.goal.value(logits) - self.lam * _DECAY ** (1 - done) * penalty
            gradient = problem.differentiate(value, point)
            x_adv = ascend(problem.ball, point.detach(), phi.detach(), gradient, step_size * _DECAY**done, 1e-4)
        return x_adv if self.projection == "none" else self._project(problem, x_adv)


@dataclass(eq=False, repr=False)
class LPA(PerceptualAttack):
    """Lagrangian perceptual attack (LPA): Fast-LPA's steps for evaluation, with a penalty sought for each sample.

    Starts with a small penalty, and raises it tenfold for the samples that end a round of `steps` steps too far
    away. A sample that is misclassified within the bound is done, or one whose `loss` says so; see `perturb`.

    Parameters
    ----------
    bound : float, default=0.5
        Largest distance, kept by every sample.
    steps : int, default=40
        Gradient steps in a round.
    step_size : float or None, default=None
        How far the first step of a round moves, in the same distance; it falls tenfold. None is `bound`.
    lam : float, default=0.01
        Weight of the penalty in the first round.
    rounds : int, default=5
        Rounds at most.
    distance : {"self", "alex", "squeeze"} or nn.Module, default="alex"
        The network that judges; see `FastLPA`. Not "self" for evaluation: ordinary networks, which perturbations
        below what anyone sees fool, take those for large ones.
    layers : list of str or None, default=None
        What is compared, for "self" and for a module of one's own; see `FastLPA`.
    weights : str, Path or None, default=None
        File with torchvision's weights; see `FastLPA`.
    scale : "auto", float or array-like of the shape of one sample, default="auto"
        What start and steps are counted in; see `FastLPA`.
    only_correct : bool, default=True
        Attack only samples that are classified rightly; the others are returned as they are.
    projection : {"newton", "bisection"}, default="newton"
        How samples that are too far away in the end are brought back.

    See Also
    --------
    PPGD : Takes steps that are the steepest ascent in this distance.
    FastLPA : For training.

    Notes
    -----
    1. Newton's projection falls back to halving sample by sample; the authors' code halves the whole batch as soon
       as one sample is left over.
    2. Newton's steps aim 0.5 % of the bound below it. The authors' aim 0.1 below it and go a tenth too far, which
       gives away a fifth of a bound of 0.5.
    3. Distances for the networks of LPIPS are taken at 32 pixels where images are smaller, and with gray as three
       equal colours.

    References
    ----------
    Laidlaw, Singla, Feizi, "Perceptual adversarial robustness: defense against unseen threat models", ICLR 2021,
    Algorithm 2.

    Examples
    --------
    >>> from sklearn_acs import LPA, robust_scorer
    >>> robust_scorer(LPA(bound=0.5))
    robust_scorer(LPA())
    """

    _parameter_constraints: ClassVar[dict] = {
        **PerceptualAttack._parameter_constraints,
        "lam": [POSITIVE],
        "rounds": [COUNT],
    }

    _: KW_ONLY
    lam: float = 0.01
    rounds: int = 5

    def _ascend(self, problem: PerceptualProblem, x_adv: Tensor) -> Tensor:
        step_size = self.bound if self.step_size is None else self.step_size
        x_adv, left = x_adv.clone(), torch.arange(len(x_adv), device=x_adv.device)
        lam = torch.full((len(x_adv),), self.lam, dtype=x_adv.dtype, device=x_adv.device)
        part = problem
        for _ in range(self.rounds):
            for step in range(self.steps):
                point = x_adv[left].requires_grad_()
                logits, phi = problem.look(point)
                distance = part.ball.distance(phi)
                value = part.goal.value(logits) - lam * F.relu(distance - self.bound)
                gradient = part.differentiate(value, point)
                found = part.goal.reached(logits) & (distance <= part.ball.limit)
                stride = step_size * _DECAY ** (step / self.steps)
                moved = ascend(part.ball, point.detach(), phi.detach(), gradient, stride, 1e-8)
                going = (~found).nonzero().squeeze(1)
                if len(going) < len(left):
                    left, lam, part = left[going], lam[going], part.take(going)
                    moved, distance = moved[going], distance[going]
                if len(left) == 0:
                    return x_adv
                x_adv[left] = moved
            lam = torch.where(distance.detach() >= self.bound, 10 * lam, lam)
        x_adv[left] = self._project(part, x_adv[left])
        return x_adv


def ascend(ball: PerceptualBall, x_adv: Tensor, phi: Tensor, gradient: Tensor, step_size: float, tiny: float) -> Tensor:
    """Go up the gradient just as far as moves the activations `phi` of `x_adv` by `step_size`, as a secant has it."""
    gradient = gradient * ball.scale
    direction = ball.scale * gradient / per_sample(length(gradient) + 1e-8, gradient)
    with torch.no_grad():
        speed = torch.linalg.vector_norm(ball.features(x_adv + _REACH * direction) - phi, dim=1) / _REACH
    return ball.cut(x_adv + direction * per_sample((step_size / (speed + tiny)).nan_to_num(0.0), direction))
