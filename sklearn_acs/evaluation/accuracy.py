"""`robust_accuracy` measures the accuracy of one model under one attack."""

from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from sklearn_acs.attacks import Attack
from sklearn_acs.checks import COUNT, SEED, checked
from sklearn_acs.data.formats import Clip
from sklearn_acs.model import FittedModel, last_step


@checked(batch_size=[*COUNT, None], random_state=SEED)
def robust_accuracy(
    model: Any,
    X: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    attack: Attack | str = "pgd",
    *,
    clip: Clip = (0.0, 1.0),
    batch_size: int | None = None,
    random_state: int = 0,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Measure the share of samples that a model classifies rightly as they are and after an attack.

    Parameters
    ----------
    model : RobustClassifier or nn.Module
        A fitted classifier, which knows its own labels, clip range and seed, or any module from inputs to logits. A
        classifier at the end of a Pipeline is attacked in what the steps before it make of X.
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
    batch_size : int or None, default=None
        Samples attacked together; None is 256 for a module, and for a classifier as in its `robust_score`.
    random_state : int, default=0
        Seed of a module's attack.
    sample_weight : array-like of shape (n,) or None, default=None
        Weights of the samples in the share.

    Returns
    -------
    float
        Between 0 and the clean accuracy.

    Raises
    ------
    TypeError
        The model is neither.
    ValueError
        A parameter or the data cannot be used, a module gets labels other than 0 to C-1, or does not give logits of
        two classes or more.

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
    model, X = last_step(model, X)
    if hasattr(model, "robust_score") and not isinstance(model, type):  # a name, for tables, is a radius in their scale
        given = {} if batch_size is None else {"batch_size": batch_size}
        return model.robust_score(X, y, attack=attack, sample_weight=sample_weight, **given)
    fitted = FittedModel.of(model, X, clip, int(random_state))
    return fitted.accuracy(X, y, attack, sample_weight, 256 if batch_size is None else int(batch_size))
