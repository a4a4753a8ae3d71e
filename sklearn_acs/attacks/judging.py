"""Judge which samples a model gets right, as they are and under attack."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sklearn_acs.attacks.problem import frozen
from sklearn_acs.data.formats import Clip

if TYPE_CHECKING:  # attacks ask `predicted` themselves
    from sklearn_acs.attacks.base import Attack


def predicted(logits: Tensor) -> Tensor:
    """Predict the class of the largest logit; -1, which is never right, where a logit is NaN.

    Parameters
    ----------
    logits : Tensor of shape (batch, C)
        Logits. Their argmax would take NaN for the largest.

    Returns
    -------
    Tensor of shape (batch,)

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.attacks.judging import predicted
    >>> predicted(torch.tensor([[0.0, 2.0, 1.0], [5.0, torch.nan, 1.0]]))
    tensor([ 1, -1])
    """
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1))


def robust_correct(
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    attack: "Attack",
    clip: Clip,
    generator: torch.Generator,
) -> Tensor:
    """Tell which samples a model classifies rightly both as they are and under attack; it attacks no wrong ones.

    Parameters
    ----------
    module : nn.Module
        From inputs to logits; left as it was found.
    batches : iterable of (Tensor of shape (batch, ...), Tensor of shape (batch,))
        Samples and labels 0 to C-1; -2 for a label that the model does not have (`UNKNOWN`), which is never right.
    attack : Attack
        Raises its own loss.
    clip : (float, float) or None
        The box that inputs live in.
    generator : torch.Generator
        Source of the random starts, on the module's device.

    Returns
    -------
    Tensor of bool, of shape (n,), on the CPU
    """
    results = []
    for x, y in batches:
        with frozen(module), torch.no_grad():
            right = predicted(module(x)) == y
            if right.any():
                x_adv = attack.perturb(module, x[right], y[right], clip=clip, generator=generator)
                right[right.clone()] = predicted(module(x_adv)) == y[right]
        results.append(right.cpu())
    return torch.cat(results)
