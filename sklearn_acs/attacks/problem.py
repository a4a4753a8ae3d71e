"""An attack solves a problem: it raises a loss for some samples of a batch until it succeeds."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sklearn_acs.checks import check_clip
from sklearn_acs.data.formats import Clip

AttackLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""``loss(adv_logits, y, clean_logits) -> (batch,)``: what the attack raises, per sample.

It may have an attribute `success`, a function of the same three that returns a bool per sample.
"""

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def cross_entropy(logits: Tensor, y: Tensor, clean_logits: Tensor | None = None) -> Tensor:
    """Cross-entropy per sample: the loss that attacks raise unless told otherwise."""
    return F.cross_entropy(logits, y, reduction="none")


def margin_loss(logits: Tensor, y: Tensor, cap: float = inf) -> Tensor:
    """Largest other logit minus that of `y`, at most `cap`: above 0 where the prediction is another.

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
class Goal:
    """What an attack raises for each sample, and what counts as success.

    Both look at the logits, labels or targets, and clean logits of the whole batch, so that a loss may hold something
    of its own for each sample of it. Where `rows` alone are under attack, the others' logits are given as 0.
    """

    loss: AttackLoss
    success: AttackLoss  # the same, of bools
    y: Tensor  # (batch,)
    clean_logits: Tensor | None = None  # (batch, C)
    rows: Tensor | None = None  # None is all

    def value(self, logits: Tensor) -> Tensor:
        """What is raised, for each sample under attack."""
        found = self._of_rows(self.loss, logits)
        if not isinstance(found, Tensor) or found.shape != logits.shape[:1]:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
            raise ValueError(f"loss must return a tensor with one value for each sample, {len(logits)} here; got {got}")
        return found

    def reached(self, logits: Tensor) -> Tensor:
        """Whether the attack on each sample has succeeded; False where that is not known."""
        return self._of_rows(self.success, logits)

    def take(self, rows: Tensor) -> "Goal":
        """The goal for some of the samples under attack."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def _of_rows(self, function: AttackLoss, logits: Tensor) -> Tensor:
        if self.rows is None:
            return function(logits, self.y, self.clean_logits)
        whole = logits.new_zeros(len(self.y), *logits.shape[1:]).index_copy(0, self.rows, logits)
        found = function(whole, self.y, self.clean_logits)
        return found[self.rows] if isinstance(found, Tensor) and found.ndim == 1 else found


@dataclass(frozen=True)
class Problem:
    """What an attack has to solve for one batch; the model is frozen."""

    model: nn.Module
    x: Tensor  # (batch, ...), clean
    y: Tensor  # (batch,)
    goal: Goal
    clip: Clip
    generator: torch.Generator
    clean_logits: Tensor | None = None  # (batch, C)
    # A bool on the device: whether a gradient was NaN. It is read once, by whoever has the problem solved.
    saw_nan: Tensor = field(default_factory=lambda: torch.tensor(False))

    def gradient(self, x_adv: Tensor) -> Tensor:
        """Gradient of what is raised, by the inputs."""
        x_adv = x_adv.detach().requires_grad_()
        return self.differentiate(self.goal.value(self.model(x_adv)), x_adv)

    def differentiate(self, values: Tensor, by: Tensor, *, retain_graph: bool = False) -> Tensor:
        """Gradient of the samples' values, with zeros, which make no step, where it is NaN."""
        gradient = torch.autograd.grad(values.sum(), by, retain_graph=retain_graph)[0]
        self.saw_nan.logical_or_(gradient.isnan().any())
        return gradient.nan_to_num(0.0)

    @torch.no_grad()
    def judge(self, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """What is raised, and whether it has succeeded, per sample."""
        logits = self.model(x_adv)
        return self.goal.value(logits), self.goal.reached(logits)

    def take(self, rows: Tensor) -> Self:
        """The problem for some samples of the batch."""
        clean_logits = None if self.clean_logits is None else self.clean_logits[rows]
        return replace(self, x=self.x[rows], y=self.y[rows], goal=self.goal.take(rows), clean_logits=clean_logits)


def check_batch(model: Any, x: Any, y: Any, clip: Any, **others: Any) -> Clip:
    """Check the types and shapes of what `perturb` is given, and the box, which is returned in Python's numbers."""
    loss, generator = others.pop("loss"), others.pop("generator")
    for name, given, kind in (("model", model, nn.Module), ("generator", generator, torch.Generator)):
        if not isinstance(given, kind) and not (given is None and name == "generator"):
            raise TypeError(f"{name} must be a torch {kind.__name__}; got {type(given).__name__}")
    if loss is not None and not callable(loss):
        raise TypeError(f"loss must be callable, loss(adv_logits, y, clean_logits) -> (batch,); got {loss!r}")
    for name, given in {"x": x, "y": y, **others}.items():
        if not isinstance(given, Tensor) and not (given is None and name in others):
            raise TypeError(f"{name} must be a torch tensor; got {type(given).__name__}")
    y_target, start = others["y_target"], others["start"]
    if start is not None and (start.shape[:1] != x.shape[:1] or not start.is_floating_point()):
        raise ValueError(
            f"start must have floats for each sample of x, and shape {tuple(x.shape)}; got {start.dtype} of shape "
            f"{tuple(start.shape)}"
        )
    if not x.is_floating_point():
        raise ValueError(f"x must hold floats, as the model takes them; got {x.dtype}")
    for name, labels in (("y", y), ("y_target", y_target)):
        if labels is not None and (labels.shape != x.shape[:1] or labels.dtype not in INTEGERS):
            raise ValueError(
                f"{name} must have one int for each sample of x, and shape {tuple(x.shape[:1])}; got {labels.dtype} of "
                f"shape {tuple(labels.shape)}"
            )
    box = check_clip(clip)
    return None if box is None else (float(box[0]), float(box[1]))


def check_labels(problem: Problem, y_target: Tensor | None, error: Exception) -> None:
    """Find out whether an error comes from labels that the model has no class for, and say so."""
    with torch.no_grad():
        n_classes = problem.model(problem.x[:1]).shape[1]
    for name, labels in (("y", problem.y), ("y_target", y_target)):
        if labels is not None and not (0 <= labels.min() and labels.max() < n_classes):
            raise ValueError(
                f"{name} has labels from {labels.min()} to {labels.max()}; the model has classes 0 to {n_classes - 1}"
            ) from error
