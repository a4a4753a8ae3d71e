"""What a fitted classifier does with samples: predict them, attack them, and count what stays right."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.utils.data import Dataset

from sklearn_acs.attacks import ATTACKS, Attack, Threat
from sklearn_acs.attacks.base import frozen
from sklearn_acs.attacks.judging import robust_correct
from sklearn_acs.data.formats import (
    Clip,
    InputFormat,
    check_labels,
    dataset_labels,
    encode_labels,
    make_data,
    n_samples,
    read_samples,
)
from sklearn_acs.objectives import Objective
from sklearn_acs.params import RoutedParamsMixin, make_part
from sklearn_acs.training.net import AdversarialNet

PREDICT_BATCH = 512
"""Samples that go through the model together outside training."""


def settle_attack(
    attack: Attack,
    by_name: bool,
    form: InputFormat,
    scale: Tensor,
    objective: Objective | None = None,
    threat: Threat | None = None,
) -> Attack:
    """Fit an attack to the data, and to the objective that it trains: radius, start, and whether they can work."""
    init = None if objective is None else objective.attack_init
    settled = attack.settled(form, scale, by_name=by_name, init=init, threat=threat)
    if objective is not None:
        objective.check_attack(settled)
    return settled


class PredictionMixin(RoutedParamsMixin, ClassifierMixin):
    """Prediction, scores and adversarial examples of a classifier that has been fitted."""

    net_: AdversarialNet
    classes_: np.ndarray
    attack_: Attack
    clip_: Clip
    input_format_: InputFormat
    _evaluation_seed: int
    _statistics: tuple[Tensor, Tensor]

    def predict(self, X: Any) -> np.ndarray:
        """Predict a label for each sample.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,)
            Labels as in the `y` of `fit`.
        """
        codes = self._logits(X).argmax(1).numpy()
        return self.classes_[codes]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probability of each class.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, n_classes)
            In the order of `classes_`.
        """
        return self._logits(X).softmax(1).numpy()

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits, or their difference for two classes.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
            In the order of `classes_`; with two, positive values speak for the second.
        """
        logits = self._logits(X).numpy()
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Clean accuracy.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.
        y : array-like of shape (n,) or None
            True labels; None for a Dataset.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in the mean.

        Returns
        -------
        float
            Share of samples predicted rightly.
        """
        labels = dataset_labels(X) if y is None and isinstance(X, Dataset) else y
        return super().score(X, labels.cpu() if isinstance(labels, Tensor) else labels, sample_weight)

    def robust_score(
        self,
        X: Any,
        y: Any = None,
        attack: Attack | str | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Accuracy under attack: the share of samples predicted rightly as they are and after the attack.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.
        y : array-like of shape (n,) or None
            True labels; None for a Dataset.
        attack : Attack, str or None, default=None
            The attack, raising its own loss, cross-entropy for most. None is that trained against. Where that saves
            steps in training alone, or one given remembers perturbations, it is its ``for_evaluation()``.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in the mean.

        Returns
        -------
        float
            At most `score`.
        """
        correct = robust_correct(*self._attacked(X, y, attack)).numpy()
        return float(np.average(correct, weights=cast(Any, sample_weight)))

    def perturb(self, X: Any, y: Any = None, attack: Attack | str | None = None) -> Any:
        """Adversarial examples for this classifier.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.
        y : array-like of shape (n,) or None
            True labels; None for a Dataset.
        attack : Attack, str or None, default=None
            The attack, raising its own loss, cross-entropy for most. None is that trained against. Where that saves
            steps in training alone, or one given remembers perturbations, it is its ``for_evaluation()``.

        Returns
        -------
        ndarray or Tensor of the shape of `X`, float32
            A tensor for a tensor. For uint8 images the values are in [0, 1].
        """
        module, batches, made, clip, generator = self._attacked(X, y, attack)
        parts = [made.perturb(module, x, y, clip=clip, generator=generator) for x, y in batches]
        x_adv = self.input_format_.to_given(torch.cat(parts))
        return x_adv.to(X.device) if isinstance(X, Tensor) else x_adv.cpu().numpy()

    def _logits(self, X: Any) -> Tensor:
        """Logits of every sample in eval mode, on the CPU."""
        check_is_fitted(self)
        module = self.net_.module_
        with frozen(module), torch.no_grad():
            return torch.cat([module(x).float().cpu() for x, _ in self._in_order(X)])

    def _in_order(self, X: Any, y: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of samples as the model takes them, with their encoded labels (zeros where none are given)."""
        samples = read_samples(self, X, reset=False)
        n = n_samples(samples)
        y = torch.zeros(n, dtype=torch.long) if y is None else y
        data = make_data(samples, y, self.input_format_, self.clip_, torch.device(self.net_.device))
        read = data.reader(**self._routed("iterator_valid"))
        return read(list(torch.arange(n).split(PREDICT_BATCH)))

    def _attacked(
        self, X: Any, y: Any, attack: Attack | str | None
    ) -> tuple[nn.Module, Iterator[tuple[Tensor, Tensor]], Attack, Clip, torch.Generator]:
        """Everything that an attack on this classifier needs, in the order in which `robust_correct` takes it."""
        check_is_fitted(self)
        made = self.attack_.for_evaluation()
        if attack is not None:
            made = make_part("attack", attack, ATTACKS, base=Attack)
            made = settle_attack(
                made, isinstance(attack, str), self.input_format_, self._statistics[1]
            ).without_memory()
        labels = check_labels(dataset_labels(X) if y is None and isinstance(X, Dataset) else y, len(X))
        generator = torch.Generator(device=self.net_.device).manual_seed(self._evaluation_seed)
        batches = self._in_order(X, encode_labels(labels, self.classes_))
        return self.net_.module_, batches, made, self.clip_, generator
