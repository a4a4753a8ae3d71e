"""FastAT trains on single steps: FGSM-RS and N-FGSM, with GradAlign and a guard."""

from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sklearn_acs._compat import Interval, StrOptions
from sklearn_acs.attacks import FGSM, NFGSM
from sklearn_acs.attacks.base import NOT_NEGATIVE, Attack
from sklearn_acs.attacks.problem import cross_entropy
from sklearn_acs.data.formats import Clip
from sklearn_acs.objectives.adversarial import Adversarial


class FastAT(Adversarial):
    """Fast adversarial training, ``CE(f(x'), y)`` with x' one gradient step away, and what keeps it from collapsing.

    One step costs a fifth of PGD-10, but such training may collapse from one epoch to the next: the model learns to
    withstand the one step and nothing else, and its accuracy under PGD falls to 0. Against that there are a start
    away from the sample, GradAlign's regulariser
    ``gradalign * (1 - cos(grad_x CE(f(x), y), grad_x CE(f(x + eta), y)))`` with eta uniform in the attack's ball, and
    a guard that ends training at the last good epoch.

    Parameters
    ----------
    start : {"random", "noise", "zero"}, default="random"
        Where the step begins: in the ball (``FGSM(random_start=True)``, "Fast"), in noise of twice its radius
        (``NFGSM()``), or at the sample itself (``FGSM()``, which needs `gradalign` or a small radius).
    gradalign : float, default=0.0
        Weight of the regulariser; 0 leaves it out. Published for CIFAR-10 with eps in linf:
        ``0.02 * 10 ** (255 * eps / 8)``, thus 0.2 at 8/255 and 2 at 16/255.
    guard : float or None, default=0.2
        Largest fall in robust training accuracy from one epoch to the next, beyond that under one step; see
        `CollapseGuard`. None does not look.
    attack : Attack, str or None, default=None
        Another inner maximiser, in place of `start`'s.
    label_smoothing : float, default=0.0
        Share of a label, in [0, 1), that the cross-entropy spreads evenly over all classes; neither the attack nor the
        regulariser does.

    See Also
    --------
    Adversarial : The same loss, with PGD unless told otherwise.
    CollapseGuard : The guard, for any objective.
    NFGSM : The step from noise.

    Notes
    -----
    1. The gradient at x is taken as a constant; training differentiates, to second order, the one at ``x + eta``. The
       authors' code does the same and reports little difference to differentiating both. It takes FGSM's own gradient
       for the first, which from a random start is not at x; here it always is at x.
    2. The regulariser looks at the network in train mode, as the authors' code does, but on copies of its buffers:
       BatchNorm's running statistics come from the training step's own forward pass alone.
    3. A sample that has no gradient at either point has no direction: its term is 0. It counts in the batch's mean,
       where the authors' code leaves it out.
    4. Coresets are chosen by the gradients of the cross-entropy alone.
    5. Costs two forward and two backward passes per sample, and with `gradalign` two forward and three backward passes
       more, some of them of second order.

    References
    ----------
    Wong, Rice, Kolter, "Fast is better than free: Revisiting adversarial training", ICLR 2020.
    Andriushchenko, Flammarion, "Understanding and improving fast adversarial training", NeurIPS 2020.
    de Jorge, Bibi, Volpi, Sanyal, Torr, Rogez, Dokania, "Make some noise: Reliable and efficient single-step
    adversarial training", NeurIPS 2022.

    Examples
    --------
    >>> from sklearn_acs import FastAT, RobustClassifier
    >>> FastAT(start="zero", gradalign=0.2).default_attack()
    FGSM()
    >>> RobustClassifier(objective=FastAT(start="noise"), attack__eps=0.1)
    RobustClassifier(attack__eps=0.1, objective=FastAT(start='noise'))
    """

    _parameter_constraints: ClassVar[dict] = {
        **Adversarial._parameter_constraints,
        "start": [StrOptions({"random", "noise", "zero"})],
        "gradalign": [NOT_NEGATIVE],
        "guard": [Interval(Real, 0, 1, closed="right"), None],
    }

    def __init__(
        self,
        start: str = "random",
        *,
        gradalign: float = 0.0,
        guard: float | None = 0.2,
        attack: Attack | str | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(attack, label_smoothing=label_smoothing)
        self.start = start
        self.gradalign = gradalign
        self.guard = guard

    def default_attack(self) -> Attack:
        """Return the single step from `start`."""
        return NFGSM() if self.start == "noise" else FGSM(random_start=self.start == "random")

    def check_attack(self, attack: Attack) -> None:
        """Raise ValueError where GradAlign or the guard have no ball to draw from."""
        super().check_attack(attack)
        for name, value, without in (("gradalign", self.gradalign, 0), ("guard", self.guard, None)):
            if value and attack.for_evaluation().threat is None:
                raise ValueError(
                    f"{name}={value!r} draws from the ball of a norm, and attack={attack!r} has none; use FGSM, NFGSM, "
                    f"PGD or one of them inside another attack, or {name}={without}"
                )

    def penalty(
        self, model: nn.Module, x: Tensor, y: Tensor, *, attack: Attack, clip: Clip, generator: torch.Generator
    ) -> Tensor | None:
        """GradAlign's regulariser per sample, times its weight."""
        if not self.gradalign:
            return None
        threat = attack.for_evaluation().threat
        assert threat is not None  # `check_attack` has seen to that
        eta = threat.ball(x, clip).start("uniform", generator)
        buffers = {name: value.clone() for name, value in model.named_buffers()}

        def gradient(at: Tensor, create_graph: bool) -> Tensor:  # (batch, features)
            at = at.detach().requires_grad_()
            loss = cross_entropy(functional_call(model, buffers, (at,)), y).sum()
            return torch.autograd.grad(loss, at, create_graph=create_graph)[0].flatten(1)

        first, second = gradient(x, create_graph=False), gradient(x + eta, create_graph=True)
        smallest = torch.finfo(x.dtype).tiny ** 0.5  # the squares of shorter gradients underflow
        lengths = [g.norm(dim=1).clamp(min=smallest) for g in (first, second)]
        cosine = (first / lengths[0][:, None] * (second / lengths[1][:, None])).sum(1)
        directed = (lengths[0] > smallest) & (lengths[1] > smallest)
        return self.gradalign * torch.where(directed, 1 - cosine, 0.0)
