"""`robust_accuracy` measures the accuracy of one model under one attack."""

from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor, nn

from sklearn_acs.attacks import Attack
from sklearn_acs.data.formats import Clip
from sklearn_acs.model import FittedModel


def robust_accuracy(
    model: Any,
    X: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    attack: Attack | str = "pgd",
    *,
    clip: Clip = (0.0, 1.0),
    batch_size: int = 256,
    random_state: int = 0,
) -> float:
    """Measure the share of samples that a model classifies rightly as they are and after an attack.

    Parameters
    ----------
    model : RobustClassifier or nn.Module
        A fitted classifier (which knows its own labels, clip range and seed: the last three parameters are for
        modules), or any module from inputs to logits.
    X : array-like, Tensor or Dataset
        Table (n, features) or images (n, H, W), (n, C, H, W) or (n, H, W, C), uint8 or floats in `clip`. A module
        gets images channels first, as floats.
    y : array-like of shape (n,)
        True labels; for a module, 0 to C-1. One that a classifier does not know counts as wrong, with a warning.
    attack : Attack or str, default="pgd"
        The attack, raising its own loss: cross-entropy for most. One that remembers perturbations in training is
        replaced by its ``for_evaluation()``.
    clip : (float, float) or None, default=(0, 1)
        The box that a module's inputs live in.
    batch_size : int, default=256
        Samples attacked together.
    random_state : int, default=0
        Seed of a module's attack.

    Returns
    -------
    float
        Between 0 and the clean accuracy.

    Raises
    ------
    ValueError
        A module gets labels other than 0 to C-1, or does not give logits of two classes or more.

    See Also
    --------
    robust_scorer : The same for GridSearchCV and cross_validate.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import PGD, robust_accuracy
    >>> model = torch.nn.Linear(1, 2)
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[-1.0], [1.0]])), model.bias.copy_(torch.tensor([0.5, -0.5]))
    >>> X, y = [[0.1], [0.45], [0.55], [0.9]], [0, 0, 1, 1]
    >>> robust_accuracy(model, X, y, PGD(eps=0.2))
    0.5
    """
    if not isinstance(model, nn.Module):
        return model.robust_score(X, y, attack=attack)  # a name as such: for tables it means a radius in their scale
    fitted = FittedModel.of(model, X, clip, random_state)
    return fitted.judge(X, y, attack, batch_size).double().mean().item()
