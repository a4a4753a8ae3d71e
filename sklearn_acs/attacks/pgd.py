"""Projected gradient ascent on the loss, in linf, l2 and l1; FGSM is its one-step form."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sklearn_acs._compat import Interval, StrOptions
from sklearn_acs.attacks.balls import BALLS, Ball
from sklearn_acs.attacks.base import Attack, Problem
from sklearn_acs.data.formats import Clip


class PGD(Attack):
    """Projected gradient descent (PGD): repeated small steps up the loss, kept inside a norm ball.

    Parameters
    ----------
    eps : float or array-like of the shape of one sample, default=8/255
        Radius of the ball, in input units. An array gives each feature its own bound (linf only).
    steps : int, default=10
        Gradient steps, each one forward and one backward pass through the model.
    step_size : float or None, default=None
        Length of a step in the same norm and units; None is ``2.5 * eps / steps``, enough to cross the ball, and
        ``eps / steps`` with ``init="previous"``, whose steps go on from one epoch to the next.
    norm : {"linf", "l2", "l1"}, default="linf"
        The norm that `eps` bounds.
    init : {"auto", "uniform", "normal", "zero", "previous"}, default="auto"
        Where the ascent starts: uniformly in the ball, at 0.001 N(0, 1) a pixel (TRADES and MART), or at the sample
        itself. "auto" is the start that the training objective asks for, and uniform on its own. "previous" is, in
        training, the perturbation that the same sample had last, and uniform where there is none: one step an epoch
        then does the work of many.
    max_age : int or None, default=None
        Epochs after which a remembered perturbation that was not renewed is forgotten; None is never. Of use with
        ``init="previous"`` alone.
    restarts : int, default=1
        Runs from fresh starts. Samples that are broken leave; for the others the run of highest loss is kept.

    See Also
    --------
    FGSM : The one-step form.

    Notes
    -----
    Costs ``steps`` forward and backward passes per sample and restart, and one forward more per run when there is
    more than one restart.

    1. The l2 start is uniform in the l2 ball, not per pixel as in the published code of adversarial coresets.
    2. A remembered perturbation is kept as 8-bit steps, moved along with crops, flips and cutouts, and forgotten when
       `fit` ends. Selections read it instead of attacking. Robustness is measured with 10 steps from a uniform start.
    3. An l1 step moves the steepest 5 % of the coordinates by equal amounts (Tramer and Boneh 2019).

    References
    ----------
    Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks",
    ICLR 2018.
    Zheng, Zhang, Gu, Lee, Prakash, "Efficient adversarial training with transferable adversarial examples", CVPR 2020,
    for remembered perturbations.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import PGD
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
    >>> x_adv = PGD(eps=0.1, steps=5).perturb(model, x, y, clip=(0, 1))
    >>> bool((x_adv - x).abs().max() <= 0.1 + 1e-6)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "eps": [Interval(Real, 0, None, closed="neither"), "array-like"],
        "steps": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
        "norm": [StrOptions(set(BALLS))],
        "init": [StrOptions({"auto", "uniform", "normal", "zero", "previous"})],
        "max_age": [Interval(Integral, 1, None, closed="left"), None],
        "restarts": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        eps: float | ArrayLike = 8 / 255,
        *,
        steps: int = 10,
        step_size: float | None = None,
        norm: str = "linf",
        init: str = "auto",
        max_age: int | None = None,
        restarts: int = 1,
    ) -> None:
        self.eps = eps
        self.steps = steps
        self.step_size = step_size
        self.norm = norm
        self.init = init
        self.max_age = max_age
        self.restarts = restarts

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

    def ball(self, x: Tensor, clip: Clip) -> Ball:
        """The perturbations that are allowed around a batch."""
        eps: Any = self.eps
        if np.ndim(eps) > 0:
            eps = torch.as_tensor(eps, dtype=x.dtype, device=x.device)
        return BALLS[self.norm](x, eps, clip)

    @property
    def metric(self) -> str:
        """The norm, "linf", "l2" or "l1"; "linf/eps" where `eps` is an array."""
        return f"{self.norm}/eps" if np.ndim(self.eps) else self.norm

    def measure(self, model: nn.Module, x: Tensor, x_adv: Tensor, *, clip: Clip = None) -> Tensor:
        """Size of perturbations in the norm.

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
        return self.ball(x, clip).size(x_adv - x)

    def start(self) -> str:
        """Where a run without a start given begins: `init`, and uniform for "auto" and "previous"."""
        return "uniform" if self.init in ("auto", "previous") else self.init

    def default_step(self, eps: float | Tensor) -> float | Tensor:
        """Length of a step when `step_size` is None."""
        return (1.0 if self.remembers else 2.5) * eps / self.steps

    @property
    def remembering(self) -> Attack | None:
        """Itself with ``init="previous"``."""
        return self if self.init == "previous" else None

    def for_evaluation(self) -> Attack:
        """The attack that measures robustness against this one; not remembering, it takes 10 steps at least."""
        if not self.remembers:
            return self
        return PGD(self.eps, steps=max(self.steps, 10), norm=self.norm, restarts=self.restarts)

    def _attack(self, problem: Problem, start: Tensor | None) -> Tensor:
        x, clip = problem.x, problem.clip
        ball = self.ball(x, clip)
        step_size = self.default_step(ball.eps) if self.step_size is None else self.step_size
        delta = ball.start(self.start(), problem.generator) if start is None else ball.project(start)
        for _ in range(self.steps):
            x_adv = (x + delta).requires_grad_()
            gradient = torch.autograd.grad(problem.value(x_adv).sum(), x_adv)[0]
            delta = ball.project(ball.ascend(delta, gradient, step_size))
        # A perturbation at the box's edge may round to one unit beyond it.
        return x + delta if clip is None else (x + delta).clamp_(*clip)


class FGSM(PGD):
    """Fast gradient sign method: one step up the loss, from the sample itself or from a random start.

    Parameters
    ----------
    eps : float or array-like of the shape of one sample, default=8/255
        Radius of the ball, in input units.
    random_start : bool, default=False
        Start uniformly in the ball (FGSM-RS), which makes one-step training work.
    step_size : float or None, default=None
        Length of the step; None is `eps`, or ``1.25 * eps`` from a random start, as published.
    norm : {"linf", "l2", "l1"}, default="linf"
        The norm that `eps` bounds.

    See Also
    --------
    PGD : The same with many steps.

    References
    ----------
    Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015.
    Wong, Rice, Kolter, "Fast is better than free: revisiting adversarial training", ICLR 2020.

    Examples
    --------
    >>> from sklearn_acs import FGSM
    >>> FGSM(eps=8 / 255, random_start=True)
    FGSM(random_start=True)
    """

    _parameter_constraints: ClassVar[dict] = {
        **{name: PGD._parameter_constraints[name] for name in ("eps", "step_size", "norm")},
        "random_start": ["boolean"],
    }

    steps = 1
    restarts = 1
    remembering = None

    def __init__(
        self,
        eps: float | ArrayLike = 8 / 255,
        *,
        random_start: bool = False,
        step_size: float | None = None,
        norm: str = "linf",
    ) -> None:
        self.eps = eps
        self.random_start = random_start
        self.step_size = step_size
        self.norm = norm

    def start(self) -> str:
        """Where the step starts."""
        return "uniform" if self.random_start else "zero"

    def default_step(self, eps: float | Tensor) -> float | Tensor:
        """Length of a step when `step_size` is None."""
        return 1.25 * eps if self.random_start else eps
