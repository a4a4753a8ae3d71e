"""PGD takes small steps up the loss and stays in a ball, in linf, l2 or l1."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from sklearn_acs._compat import StrOptions
from sklearn_acs.attacks.base import COUNT, POSITIVE
from sklearn_acs.attacks.norm_bounded import NormBoundedAttack
from sklearn_acs.attacks.problem import Problem
from sklearn_acs.data.formats import DataFormat


@dataclass(eq=False, repr=False)
class PGD(NormBoundedAttack):
    """Projected gradient descent (PGD): it takes many small steps up the loss, each followed by one into a norm's ball.

    Parameters
    ----------
    eps : float, array-like, dict of str to float, or None, default=None
        Radius of the ball, for each feature alike or for each its own; None is 8/255 in linf, fitted to the
        data by a classifier. See `NormBoundedAttack`.
    norm : {"linf", "l2", "l1"}, default="linf"
        The norm that `eps` bounds.
    unit : {"input", "std"}, default="input"
        What `eps` is counted in: units of X, or standard deviations of each column; see `NormBoundedAttack`.
    steps : int, default=10
        Gradient steps, each one forward and one backward pass through the model.
    step_size : float or None, default=None
        Length of a step in the same norm and units; None leaves it to `rel_step_size`.
    rel_step_size : float or None, default=None
        Length of a step as a share of `eps`; None is ``2.5 / steps``, enough to cross the ball, and ``1.25 / steps``
        with ``init="previous"``, whose steps go on from one epoch to the next.
    init : {"auto", "uniform", "normal", "zero", "previous"}, default="auto"
        Where the ascent starts: uniformly in the ball, at 0.001 N(0, 1) a pixel (TRADES and MART), or at the sample
        itself. "auto" is the start that the training objective asks for, and uniform on its own. "previous" is, in
        training, the perturbation that the same sample had last, and uniform where there is none: one step an epoch
        then does the work of many.
    max_age : int or None, default=None
        Epochs after which a remembered perturbation that was not renewed is forgotten; None is never. Of use with
        ``init="previous"`` alone.
    restarts : int, default=1
        Runs from fresh starts. Samples whose attack has succeeded leave; for the others the run of highest loss is
        kept.

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
        **NormBoundedAttack._parameter_constraints,
        "steps": [COUNT],
        "step_size": [POSITIVE, None],
        "rel_step_size": [POSITIVE, None],
        "init": [StrOptions({"auto", "uniform", "normal", "zero", "previous"})],
        "max_age": [COUNT, None],
        "restarts": [COUNT],
    }

    _: KW_ONLY
    steps: int = 10
    step_size: float | None = None
    rel_step_size: float | None = None
    init: str = "auto"
    max_age: int | None = None
    restarts: int = 1

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        super().validate()
        if self.step_size is not None and self.rel_step_size is not None:
            raise ValueError(
                f"step_size={self.step_size!r} and rel_step_size={self.rel_step_size!r} both say how long a step is; "
                "give one of them"
            )

    @property
    def remembers(self) -> bool:
        """Whether ``init="previous"``."""
        return self.init == "previous"

    @property
    def starts_at_sample(self) -> bool:
        """Whether ``init="zero"``."""
        return self.init == "zero"

    def for_evaluation(self) -> "PGD":
        """The attack that measures robustness against this one; not remembering, it takes 10 steps at least."""
        if not self.remembers:
            return self
        return PGD(self.eps, steps=max(self.steps, 10), norm=self.norm, unit=self.unit, restarts=self.restarts)

    def shortened(self, steps: int, stride: float) -> Self:
        """Make the same attack with `steps` steps at most, `stride` times as long as these where they are fewer."""
        if steps >= self.steps:
            return self
        if self.step_size is not None:
            return self.with_params(steps=steps, step_size=stride * self.step_size)
        return self.with_params(steps=steps, rel_step_size=self._step(stride))

    def settled(self, format: DataFormat, *, init: str | None = None, **options: Any) -> Self:
        """Fit a copy to the data, and ``init="auto"`` to the training; see `Attack.settled`."""
        settled = super().settled(format, **options)
        return settled if init is None or self.init != "auto" else settled.set_params(init=init)

    def _step(self, eps: Any) -> Any:
        """Length of a step that goes by the radius."""
        if self.rel_step_size is not None:
            return self.rel_step_size * eps
        return (1.25 if self.remembers else 2.5) * eps / self.steps

    def _attack(self, problem: Problem, start: Tensor | None) -> Tensor:
        ball = self.threat.ball(problem.x, problem.clip)
        step_size = self._step(ball.eps) if self.step_size is None else self.step_size
        init = "uniform" if self.init in ("auto", "previous") else self.init
        delta = ball.start(init, problem.generator) if start is None else ball.project(start)
        for _ in range(self.steps):
            gradient = problem.gradient(problem.x + delta)
            delta = ball.project(ball.ascend(delta, gradient, step_size))
        return ball.perturbed(delta)
