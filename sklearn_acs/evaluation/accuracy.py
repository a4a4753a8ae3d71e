"""Accuracy under attack: for one model, and as a scorer for scikit-learn's model selection."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from sklearn_acs.attacks import ATTACKS, Attack
from sklearn_acs.attacks.judging import robust_correct
from sklearn_acs.data.batches import ArrayData
from sklearn_acs.data.formats import Clip, InputFormat, check_labels, check_range, image_tensor
from sklearn_acs.params import make_part


class RobustModel(Protocol):
    """What a robust scorer needs of an estimator."""

    def robust_score(self, X: Any, y: Any = None, attack: Any = None, sample_weight: Any = None) -> float:
        """Share of samples that stay right under `attack`."""
        ...


def robust_accuracy(
    model: nn.Module | RobustModel,
    X: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    attack: Attack | str = "pgd",
    *,
    clip: Clip = (0.0, 1.0),
    batch_size: int = 256,
    random_state: int = 0,
) -> float:
    """Share of samples that a model classifies rightly and that an attack cannot change.

    Parameters
    ----------
    model : RobustClassifier or nn.Module
        A fitted classifier (which knows its own labels, clip range and seed: the last three parameters are for
        modules), or any module from inputs to logits.
    X : array-like
        Table (n, features) or images (n, H, W), (n, C, H, W) or (n, H, W, C), uint8 or floats in `clip`. A module
        gets images channels first, as floats.
    y : array-like of shape (n,)
        True labels; for a module, 0 to C-1.
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
    made: Attack = make_part("attack", attack, ATTACKS, base=Attack)
    if not isinstance(model, nn.Module):
        return model.robust_score(X, y, attack=attack)  # a name as such: for tables it means a radius in their scale
    weight = next(model.parameters(), torch.empty(0))
    x = image_tensor(X)
    form = InputFormat.of(tuple(x.shape))
    x = x.float() if form.is_table else x  # uint8 means pixels in images alone
    check_range(x, clip)
    labels = torch.from_numpy(check_labels(y, len(x)).astype(np.int64))
    data = ArrayData(form.to_model(x), labels, weight.device)
    generator = torch.Generator(device=weight.device).manual_seed(random_state)
    batches = data.fetch(list(torch.arange(len(data)).split(batch_size)))
    return robust_correct(model, batches, made.without_memory(), clip, generator).double().mean().item()


class RobustScorer:
    """Scorer with scikit-learn's signature ``(estimator, X, y) -> float``; made by `robust_scorer`."""

    def __init__(self, attack: Attack | str | None) -> None:
        self.attack = attack

    def __call__(self, estimator: RobustModel, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Robust accuracy of a fitted estimator, of a search's best one, or of the last step of a pipeline."""
        estimator = getattr(estimator, "best_estimator_", estimator)
        if isinstance(estimator, Pipeline):
            X = estimator[:-1].transform(X) if len(estimator) > 1 else X
            estimator = estimator[-1]
        if not hasattr(estimator, "robust_score"):
            raise TypeError(f"robust_scorer needs an estimator with robust_score, got {type(estimator).__name__}")
        return estimator.robust_score(X, y, attack=self.attack, sample_weight=sample_weight)

    def __repr__(self) -> str:
        return f"robust_scorer({self.attack!r})"


def robust_scorer(attack: Attack | str | None = None) -> RobustScorer:
    """Make a scorer that measures accuracy under an attack, for GridSearchCV and cross_validate.

    Parameters
    ----------
    attack : Attack, str or None, default=None
        The attack; None is the one each candidate was trained against. Candidates that are trained against
        different attacks compare only under one and the same, so name it. At the end of a Pipeline it moves what the
        last step gets, in those units.

    Returns
    -------
    callable
        ``scorer(estimator, X, y) -> float``, greater being better.

    See Also
    --------
    robust_accuracy : The same number for one model.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_acs import PGD, RobustClassifier, robust_scorer
    >>> search = GridSearchCV(
    ...     RobustClassifier(objective="trades"),
    ...     {"objective__beta": [1, 6], "coreset_frac": [0.3, 0.5]},
    ...     scoring={"clean": "accuracy", "robust": robust_scorer(PGD(eps=0.1, steps=20))},
    ...     refit="robust",
    ... )
    """
    made = attack if attack is None else make_part("attack", attack, ATTACKS, base=Attack)
    return RobustScorer(attack if isinstance(attack, str) else made)
