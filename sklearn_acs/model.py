"""FittedModel gives logits of a trained network, attacks it, and judges what stays right."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from sklearn_acs.attacks import ATTACKS, Attack
from sklearn_acs.attacks.slips import check_radius
from sklearn_acs.checks import check_clip
from sklearn_acs.data.batches import ArrayData, OwnLabels, Reader, StreamedData
from sklearn_acs.data.datasets import Items
from sklearn_acs.data.formats import (
    CHANNELS,
    Clip,
    DataFormat,
    InputFormat,
    Samples,
    check_range,
    example_of,
    make_data,
    n_samples,
    read_samples,
)
from sklearn_acs.data.labels import UNREAD, encode_labels, module_codes, read_labels
from sklearn_acs.data.sample_weights import read_sample_weight
from sklearn_acs.data.tensors import plain_tensor, to_float
from sklearn_acs.models import are_probabilities, device_of, frozen, giving_logits
from sklearn_acs.models.logits import predicted
from sklearn_acs.params import make_part

PREDICT_BATCH = 512
"""Samples that go through the model together outside training."""


@dataclass(frozen=True, eq=False)
class FittedModel:
    """Holds a module and what must be known to use it: its inputs' format and box, the classes, the features' scale.

    Attributes
    ----------
    module : nn.Module
        From inputs to logits.
    format : DataFormat
        How samples look, the box that they live in, the labels, and the scale of each feature or channel.
    seed : int
        Seed of attacks.
    loader_options : mapping
        Options of torch's DataLoader, for a Dataset.
    name : str
        What errors call it.
    """

    module: nn.Module
    format: DataFormat
    seed: int = 0
    loader_options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "RobustClassifier"

    @classmethod
    def of(cls, model: Any, X: Any, clip: Clip = (0.0, 1.0), seed: int = 0) -> "FittedModel":
        """Take that of a fitted classifier, or make one of a module for samples like `X`.

        Parameters
        ----------
        model : RobustClassifier or nn.Module
            A classifier knows everything itself. Where it ends a search or a pipeline, see `last_step`.
        X : array-like, DataFrame, Tensor or Dataset
            Samples, by which the format of a module's inputs is told.
        clip : (float, float) or None, default=(0, 1)
            The box that a module's inputs live in.
        seed : int, default=0
            Seed of attacks on a module.

        Returns
        -------
        FittedModel

        Raises
        ------
        TypeError
            The model is neither.
        ValueError
            A module cannot be run on the samples, or gives no logits of two classes or more.

        Warns
        -----
        UserWarning
            A module gives probabilities.
        """
        if not isinstance(model, nn.Module):
            if not hasattr(type(model), "model_"):
                raise TypeError(
                    "model must be a fitted RobustClassifier, perhaps at the end of a Pipeline or a search, or an "
                    f"nn.Module from inputs to logits; got {type(model).__name__}"
                )
            return model.model_
        name, clip = type(model).__name__, check_clip(clip)
        example = example_of(read_samples(X, owner=name))
        # A module takes images channels first, however many there are; only files have their few channels last.
        inputs = InputFormat.of(tuple(example.shape), channels="auto" if example.shape[-1] in CHANNELS else "first")
        check_range(example, clip)
        few = to_float(inputs.to_model(plain_tensor(example[:8].clone()))).to(device_of(model))
        module = giving_logits(model, few, name="model")
        with frozen(module), torch.no_grad():
            logits = module(few)
        if are_probabilities(logits):
            warnings.warn(
                f"the outputs of model={name} are probabilities, which add up to 1: attacks on them are weak, since "
                "gradients vanish in the softmax at its end. Give the module without it",
                stacklevel=3,
            )
        return cls(module, DataFormat(inputs, clip, np.arange(logits.shape[1])), seed, {}, name)

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return device_of(self.module)

    def read(self, X: Any) -> Samples:
        """Read samples as given; those of a wrong shape, type or number of features are a ValueError."""
        return read_samples(X, self.format.inputs, self.name)

    def data(self, X: Any, y: Any = None, *, labelled: bool = True, scoring: bool = True) -> ArrayData | StreamedData:
        """Read samples and true labels into what batches for the model are cut from.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or Dataset
            Samples.
        y : array-like of shape (n,) or None, default=None
            Labels; None for a Dataset, whose labels are read with its samples: until then their codes are `UNREAD`.
        labelled : bool, default=True
            Whether labels are needed; without them codes are 0.
        scoring : bool, default=True
            Whether a label that a classifier does not know counts as wrong, with a warning; otherwise, and for a
            module, which knows 0 to C-1 alone, it is a ValueError.

        Returns
        -------
        ArrayData or StreamedData
        """
        samples, form = self.read(X), self.format
        codes = module_codes if form.mean is None else partial(encode_labels, scoring=scoring)
        of_items = labelled and y is None and isinstance(samples, Items)
        if of_items or not labelled:
            known = torch.full((n_samples(samples),), UNREAD if of_items else 0)
        else:
            known = codes(read_labels(y, n_samples(samples)), form.classes)
        own = OwnLabels(codes, form.classes) if of_items else None
        return make_data(samples, known, form.inputs, form.clip, self.device, own=own)

    def logits(self, X: Any) -> Tensor:
        """Compute the logits of every sample in eval mode, on the CPU."""
        return self.forward(self.data(X, labelled=False))

    def forward(self, data: ArrayData | StreamedData, batch_size: int = PREDICT_BATCH) -> Tensor:
        """Compute the logits of data that have been read; the codes of a Dataset's labels are then in its `y`."""
        with frozen(self.module), torch.no_grad():
            return torch.cat([self.module(x).float().cpu() for x, _ in self._in_order(data, batch_size)])

    def reader(self, data: ArrayData | StreamedData) -> Reader:
        """Make what reads batches of indices, with the workers asked for."""
        return data.reader(**self.loader_options)

    def settled(self, attack: Attack | str) -> Attack:
        """Fit an attack to the samples: one without a radius gets one in their scale."""
        made: Attack = make_part("attack", attack, ATTACKS, base=Attack)
        return made.settled(self.format)

    def _one(self, attack: Attack | str) -> Attack:
        """Fit the one attack that is asked for, and warn where its radius is surely a slip."""
        made = self.settled(attack).without_memory()
        check_radius(made, self.format)
        return made

    def perturb(self, X: Any, y: Any, attack: Attack | str, batch_size: int = PREDICT_BATCH) -> Tensor:
        """Make adversarial examples of the shape of `X`, for labels that the model knows."""
        made, clip = self._one(attack), self.format.clip
        batches, generator = self._in_order(self.data(X, y, scoring=False), batch_size), self.generator()
        parts = [made.perturb(self.module, x, y, clip=clip, generator=generator) for x, y in batches]
        return self.format.inputs.to_given(torch.cat(parts))

    def accuracy(
        self,
        X: Any,
        y: Any,
        attack: Attack | str | None,
        sample_weight: ArrayLike | None = None,
        batch_size: int = PREDICT_BATCH,
    ) -> float:
        """Compute the share of samples that are predicted rightly as they are and, with an attack, after it too.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or Dataset
            Samples.
        y : array-like of shape (n,) or None
            True labels; None for a Dataset.
        attack : Attack, str or None
            What attacks them.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in the share.
        batch_size : int, default=512
            Samples predicted, and attacked, together.

        Returns
        -------
        float
        """
        made = None if attack is None else self._one(attack)
        data = self.data(X, y)
        weight = read_sample_weight(sample_weight, len(data))
        right = robust_correct(self.module, self._in_order(data, batch_size), made, self.format.clip, self.generator())
        return float(np.average(right.numpy(), weights=weight))

    def generator(self) -> torch.Generator:
        """Make a generator for attacks, the same every time."""
        return torch.Generator(device=self.device).manual_seed(self.seed)

    def _in_order(
        self, data: ArrayData | StreamedData, batch_size: int = PREDICT_BATCH
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return self.reader(data)(list(torch.arange(len(data)).split(min(batch_size, len(data)))))


def last_step(model: Any, X: Any) -> tuple[Any, Any]:
    """Take what a search found and the last step of a pipeline, and what the steps before it make of samples.

    Parameters
    ----------
    model : estimator or nn.Module
        A model; what is neither a fitted search nor a Pipeline, scikit-learn's or imbalanced-learn's, stays what it is.
    X : array-like
        What the model takes; None where only the model is asked for.

    Returns
    -------
    model : estimator or nn.Module
        The one at the end.
    X : array-like
        What that takes.
    """
    if hasattr(model, "best_estimator_"):
        return last_step(model.best_estimator_, X)
    if not isinstance(model, Pipeline):
        return model, X
    for _, step in model.steps[:-1]:
        if X is not None and hasattr(step, "transform"):  # samplers have none: they act in fit alone
            X = step.transform(X)
    return last_step(model.steps[-1][1], X)


def correct(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Tell which samples of a batch a module predicts rightly, in eval mode; NaN logits are never right."""
    with frozen(module), torch.no_grad():
        return predicted(module(x)) == y


def robust_correct(
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    attack: Attack | None,
    clip: Clip,
    generator: torch.Generator,
) -> Tensor:
    """Tell which samples a module predicts rightly both as they are and under attack; wrong ones are not attacked.

    Parameters
    ----------
    module : nn.Module
        From inputs to logits; left as it was found.
    batches : iterable of (Tensor of shape (batch, ...), Tensor of shape (batch,))
        Samples and their labels 0 to C-1; `UNKNOWN` for a label that the model does not have, which is never right.
    attack : Attack or None
        Raises its own loss; None leaves samples as they are.
    clip : (float, float) or None
        The box that inputs live in.
    generator : torch.Generator
        Source of random starts, on the module's device.

    Returns
    -------
    Tensor of bool, of shape (n,), on the CPU
    """
    results = []
    for x, y in batches:
        right = correct(module, x, y)
        if attack is not None and right.any():
            x_adv = attack.perturb(module, x[right], y[right], clip=clip, generator=generator)
            right[right.clone()] = correct(module, x_adv, y[right])
        results.append(right.cpu())
    return torch.cat(results)
