"""What every attack has in common: the model is left as it was found, and restarts only redo unbroken samples."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn
from torch.nn import functional as F

from sklearn_acs.data.formats import Clip

AttackLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""``loss(adv_logits, y, clean_logits) -> (batch,)``: what the attack raises, per sample."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode without parameter gradients, and leave it exactly as it was found.

    Evaluation mode keeps BatchNorm's running statistics untouched and makes a sample's attack independent of the
    other samples in its batch. Switching `requires_grad` off means that autograd differentiates with respect to
    the input alone and keeps no activation for weight gradients.
    """
    modes = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trained:
            parameter.requires_grad_(True)


def cross_entropy(logits: Tensor, y: Tensor, clean_logits: Tensor | None = None) -> Tensor:
    """Cross-entropy per sample: the loss that attacks raise unless told otherwise."""
    return F.cross_entropy(logits, y, reduction="none")


def margin_loss(logits: Tensor, y: Tensor, cap: float = inf) -> Tensor:
    """Largest other logit minus the true one, at most `cap`: above 0 where the prediction is wrong.

    Parameters
    ----------
    logits : Tensor of shape (batch, C)
        Logits.
    y : Tensor of shape (batch,)
        Labels 0 to C-1.
    cap : float, default=inf
        Where it ends, and its gradient with it.

    Returns
    -------
    Tensor of shape (batch,)
    """
    true = y[:, None]
    return (logits.scatter(1, true, -inf).amax(1) - logits.gather(1, true).squeeze(1)).clamp(max=cap)


@dataclass(frozen=True)
class Problem:
    """What an attack has to solve for one batch; the model is frozen."""

    model: nn.Module
    x: Tensor  # (batch, ...), clean
    y: Tensor  # (batch,)
    loss: AttackLoss  # raised, per sample
    clip: Clip
    generator: torch.Generator
    clean_logits: Tensor | None = None  # (batch, C), handed on to `loss`

    def value(self, x_adv: Tensor) -> Tensor:
        """What is raised, per sample."""
        return self.loss(self.model(x_adv), self.y, self.clean_logits)

    @torch.no_grad()
    def judge(self, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """What is raised, and whether the model gets the sample wrong."""
        logits = self.model(x_adv)
        return self.loss(logits, self.y, self.clean_logits), logits.argmax(1) != self.y

    def take(self, rows: Tensor) -> "Problem":
        """The problem for some samples of the batch."""
        clean_logits = None if self.clean_logits is None else self.clean_logits[rows]
        return replace(self, x=self.x[rows], y=self.y[rows], clean_logits=clean_logits)


class Attack(BaseEstimator, ABC):
    """Base class of attacks: a subclass says in `_attack` how one start becomes one adversarial example."""

    _parameter_constraints: ClassVar[dict] = {}
    restarts: int = 1
    sizes_: Tensor  # where sizes cannot be told from examples

    @property
    def remembering(self) -> "Attack | None":
        """The attack that training starts from the perturbation each sample had last: itself, one inside, or none."""
        return None

    @property
    def remembers(self) -> bool:
        """Whether training starts it from the perturbation that the same sample had last."""
        return self.remembering is not None

    @property
    def metric(self) -> str | None:
        """Name of what `measure` measures; None where there is no such thing."""
        return None

    def measure(self, model: nn.Module, x: Tensor, x_adv: Tensor, *, clip: Clip = None) -> Tensor | None:
        """Size of perturbations in the metric that bounds this attack.

        Parameters
        ----------
        model : nn.Module
            The model under attack, whose own activations some attacks measure by.
        x, x_adv : Tensor of shape (batch, ...)
            Clean inputs and their adversarial examples.
        clip : (float, float) or None, default=None
            The box that inputs live in.

        Returns
        -------
        Tensor of shape (batch,) or None
            In the units of the attack's bound; None where there is no such metric.
        """
        return None

    def default_loss(self, logits: Tensor, y: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """What the attack raises unless told otherwise, per sample: cross-entropy."""
        return cross_entropy(logits, y)

    def for_evaluation(self) -> "Attack":
        """The attack that measures robustness against this one: itself, unless it saves steps in training alone."""
        return self

    def forgetful(self) -> "Attack":
        """The attack for samples of which nothing is remembered: itself, or what measures it where it remembers."""
        return self.for_evaluation() if self.remembers else self

    def observe(self, adv_logits: Tensor, y: Tensor) -> None:
        """Be told the (detached) logits of a training step's adversarial examples, from which an attack may learn."""

    def resume(self, before: "Attack") -> None:
        """Take over what `before` has learned, the attack of a training that is continued."""

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        self._validate_params()

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        loss: AttackLoss | None = None,
        clip: Clip = None,
        generator: torch.Generator | None = None,
        start: Tensor | None = None,
        clean_logits: Tensor | None = None,
    ) -> Tensor:
        """Adversarial examples for one batch.

        Parameters
        ----------
        model : nn.Module
            Maps inputs to logits. Its modes, BatchNorm statistics and `requires_grad` flags are the same afterwards.
        x : Tensor of shape (batch, ...)
            Clean inputs.
        y : Tensor of shape (batch,)
            Labels 0 to C-1.
        loss : callable or None, default=None
            ``loss(adv_logits, y, clean_logits) -> (batch,)``, raised by the attack. None is the attack's own,
            cross-entropy for most.
        clip : (float, float) or None, default=None
            The box that inputs live in, (0, 1) for images.
        generator : torch.Generator or None, default=None
            Source of the random starts, on the device of `x`. None makes a fresh one with a fixed seed, so that the
            global generator is neither read nor changed.
        start : Tensor of shape (batch, ...) or None, default=None
            First perturbation, cut to the box and, in a norm's ball, projected into that; None draws it.
        clean_logits : Tensor of shape (batch, C) or None, default=None
            The model's (detached) logits at `x`, handed on to `loss`.

        Returns
        -------
        Tensor of shape (batch, ...)
            The adversarial examples, detached.
        """
        x, start = x.detach(), None if start is None else start.detach()
        if len(x) == 0:
            return x.clone()
        if generator is None:
            generator = torch.Generator(device=x.device).manual_seed(0)
        problem = Problem(model, x, y, loss or self.default_loss, clip, generator, clean_logits)
        with frozen(model), torch.enable_grad():
            x_adv = self._attack(problem, start)
            if self.restarts > 1:
                self._restart(problem, x_adv)
        return x_adv

    def _restart(self, problem: Problem, x_adv: Tensor) -> None:
        """Attack the samples that are still classified rightly again, writing better examples into `x_adv`."""
        value, broken = problem.judge(x_adv)
        sizes = getattr(self, "sizes_", None)  # of attacks that remember them; each run leaves its own
        for _ in range(self.restarts - 1):
            left = (~broken).nonzero().squeeze(1)
            if len(left) == 0:
                break
            part = problem.take(left)
            again = self._attack(part, None)
            new_value, new_broken = part.judge(again)
            better = new_broken | (new_value > value[left])
            x_adv[left[better]] = again[better]
            value[left[better]] = new_value[better]
            broken[left] = new_broken
            if sizes is not None:
                sizes[left[better].cpu()] = self.sizes_[better.cpu()]
        if sizes is not None:
            self.sizes_ = sizes

    @abstractmethod
    def _attack(self, problem: Problem, start: Tensor | None) -> Tensor:
        """One run from one start on a frozen model; returns detached adversarial examples."""
