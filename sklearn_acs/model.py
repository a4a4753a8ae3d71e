"""FittedModel gives logits of a trained network, attacks it, and judges what stays right."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_acs.attacks import ATTACKS, Attack
from sklearn_acs.attacks.slips import check_radius
from sklearn_acs.data.batches import ArrayData, StreamedData
from sklearn_acs.data.formats import (
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
from sklearn_acs.data.labels import check_module_labels, encode_labels, read_labels
from sklearn_acs.data.tensors import to_float
from sklearn_acs.models import frozen
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
            A classifier knows everything itself.
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
            A module's output is not (batch, C) logits of two classes or more.
        """
        if not isinstance(model, nn.Module):
            if not hasattr(type(model), "model_"):
                raise TypeError(f"model must be a fitted RobustClassifier or an nn.Module; got {type(model).__name__}")
            return model.model_
        name = type(model).__name__
        example = example_of(read_samples(X, owner=name))
        inputs = InputFormat.of(tuple(example.shape))
        check_range(example, clip)
        made = cls(model, DataFormat(inputs, clip, np.arange(0)), seed, {}, name)
        with frozen(model), torch.no_grad():
            shape = tuple(model(to_float(inputs.to_model(example[:1].clone())).to(made.device)).shape)
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(
                f"{name} must give logits of shape (batch, C) for C >= 2 classes; one sample gives {shape}"
            )
        return cls(model, DataFormat(inputs, clip, np.arange(shape[1])), seed, {}, name)

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return next((t.device for t in (*self.module.parameters(), *self.module.buffers())), torch.device("cpu"))

    def read(self, X: Any) -> Samples:
        """Read samples as given; those of a wrong shape, type or number of features are a ValueError."""
        return read_samples(X, self.format.inputs, self.name)

    def data(self, samples: Samples, y: Tensor | None = None) -> ArrayData | StreamedData:
        """Make of samples what batches for the model are cut from, with codes of labels or zeros."""
        y = torch.zeros(n_samples(samples), dtype=torch.long) if y is None else y
        return make_data(samples, y, self.format.inputs, self.format.clip, self.device)

    def codes(self, X: Any, y: Any, *, scoring: bool = True) -> Tensor:
        """Turn true labels into numbers 0 to C-1.

        A label that a classifier does not know counts as wrong in `scoring`, with a warning; otherwise, and for a
        module, which knows 0 to C-1 alone, it is a ValueError.
        """
        labels = read_labels(X, y, len(X))
        if self.format.mean is None:
            check_module_labels(labels, len(self.format.classes))
        return encode_labels(labels, self.format.classes, scoring=scoring)

    def logits(self, X: Any, batch_size: int = PREDICT_BATCH) -> Tensor:
        """Compute the logits of every sample in eval mode, on the CPU."""
        batches = self._in_order(self.data(self.read(X)), batch_size)
        with frozen(self.module), torch.no_grad():
            return torch.cat([self.module(x).float().cpu() for x, _ in batches])

    def settled(self, attack: Attack | str) -> Attack:
        """Fit an attack to the samples: one without a radius gets one in their scale."""
        made: Attack = make_part("attack", attack, ATTACKS, base=Attack)
        return made.settled(self.format)

    def _one(self, attack: Attack | str) -> Attack:
        """Fit the one attack that is asked for, and warn where its radius is surely a slip."""
        made = self.settled(attack).without_memory()
        check_radius(made, self.format)
        return made

    def perturb(self, X: Any, y: Any, attack: Attack | str) -> Tensor:
        """Make adversarial examples of the shape of `X`, for labels that the model knows."""
        data, generator = self.data(self.read(X), self.codes(X, y, scoring=False)), self.generator()
        made, clip = self._one(attack), self.format.clip
        parts = [made.perturb(self.module, x, y, clip=clip, generator=generator) for x, y in self._in_order(data)]
        return self.format.inputs.to_given(torch.cat(parts))

    def judge(self, X: Any, y: Any, attack: Attack | str, batch_size: int = PREDICT_BATCH) -> Tensor:
        """Say of each sample whether it is predicted rightly as it is and after the attack; on the CPU.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or Dataset
            Samples.
        y : array-like of shape (n,) or None
            True labels; None for a Dataset.
        attack : Attack or str
            What attacks them.
        batch_size : int, default=512
            Samples attacked together.

        Returns
        -------
        Tensor of bool, of shape (n,)
        """
        made, samples = self._one(attack), self.read(X)
        batches = self._in_order(self.data(samples, self.codes(X, y)), batch_size)
        return robust_correct(self.module, batches, made, self.format.clip, self.generator())

    def generator(self) -> torch.Generator:
        """Make a generator for attacks, the same every time."""
        return torch.Generator(device=self.device).manual_seed(self.seed)

    def _in_order(
        self, data: ArrayData | StreamedData, batch_size: int = PREDICT_BATCH
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return data.reader(**self.loader_options)(list(torch.arange(len(data)).split(batch_size)))


def correct(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Tell which samples of a batch a module predicts rightly, in eval mode; NaN logits are never right."""
    with frozen(module), torch.no_grad():
        return predicted(module(x)) == y


def robust_correct(
    module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], attack: Attack, clip: Clip, generator: torch.Generator
) -> Tensor:
    """Tell which samples a module predicts rightly both as they are and under attack; wrong ones are not attacked.

    Parameters
    ----------
    module : nn.Module
        From inputs to logits; left as it was found.
    batches : iterable of (Tensor of shape (batch, ...), Tensor of shape (batch,))
        Samples and their labels 0 to C-1; `UNKNOWN` for a label that the model does not have, which is never right.
    attack : Attack
        Raises its own loss.
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
        if right.any():
            x_adv = attack.perturb(module, x[right], y[right], clip=clip, generator=generator)
            right[right.clone()] = correct(module, x_adv, y[right])
        results.append(right.cpu())
    return torch.cat(results)
