"""TrainingData holds what a fit trains on: samples of positive weight, encoded labels, and their format."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from sklearn_acs._compat import check_sample_weight, feature_names
from sklearn_acs.data.class_weight import class_factors
from sklearn_acs.data.formats import (
    Clip,
    DataFormat,
    InputFormat,
    Samples,
    check_range,
    example_of,
    find_clip,
    n_samples,
    read_samples,
    statistics,
    take_samples,
)
from sklearn_acs.data.labels import encode_labels, read_labels

LATER = (
    ". A fit fixes the classes: give the first partial_fit all labels that will ever come as classes=, or fit again "
    "with warm_start=False"
)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Holds samples as they came, with their labels and weights.

    Attributes
    ----------
    samples : Tensor or Dataset
        Those of positive weight.
    y : Tensor of int64, of shape (n,)
        Labels 0 to C-1.
    weight : Tensor of shape (n,)
        Factors of the losses, of mean 1.
    rows : ndarray of int, of shape (n,)
        Where in X the samples stand.
    n_given : int
        Samples in X.
    format : DataFormat
        How they look.
    """

    samples: Samples
    y: Tensor
    weight: Tensor
    rows: np.ndarray
    n_given: int
    format: DataFormat

    @classmethod
    def read(
        cls,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        *,
        clip: str | Clip = "auto",
        classes: ArrayLike | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        like: DataFormat | None = None,
    ) -> "TrainingData":
        """Read and check what `fit` is given.

        Parameters
        ----------
        X, y, sample_weight : objects
            As `RobustClassifier.fit` takes them.
        clip : (float, float), "auto" or None, default="auto"
            The box that samples live in.
        classes : array-like or None, default=None
            All labels there are; None: those that `y` has.
        class_weight : mapping, "balanced" or None, default=None
            Factors of the sample weights by class, see `class_factors`.
        like : DataFormat or None, default=None
            The format of the data that a model was trained on before, which these must have too; `clip` and `classes`
            are then not looked at.

        Returns
        -------
        TrainingData
        """
        samples = read_samples(X, None if like is None else like.inputs)
        labels = read_labels(X, y, n_samples(samples))
        weight = check_sample_weight(sample_weight, labels, dtype=np.float32, ensure_non_negative=True)
        if class_weight is not None:
            known = np.asarray(labels if classes is None else classes) if like is None else like.classes
            weight = weight * class_factors(class_weight, labels, weight, known).astype(np.float32)
        rows, n_given = np.flatnonzero(weight), len(labels)
        if len(rows) < n_given:
            samples, labels, weight = take_samples(samples, rows), labels[rows], weight[rows]
        if like is None:
            names = None if isinstance(X, Dataset) else feature_names(X)
            like = _format_of(samples, names, clip, np.unique(labels if classes is None else np.asarray(classes)))
        codes, weight = encode_labels(labels, like.classes, advice=LATER), torch.from_numpy(weight / weight.mean())
        return cls(samples, codes, weight, rows, n_given, like)

    def split(self, kept: np.ndarray, held: np.ndarray) -> tuple["TrainingData", "TrainingData"]:
        """Split into samples to train on, with weights of mean 1 again, and samples held out."""
        of_kept, of_held = (
            replace(
                self, samples=take_samples(self.samples, at), y=self.y[at], weight=self.weight[at], rows=self.rows[at]
            )
            for at in (kept, held)
        )
        return replace(of_kept, weight=of_kept.weight / of_kept.weight.mean()), of_held


def check_validation(X_val: Any, y_val: Any, sample_weight_val: Any) -> bool:
    """Tell whether validation samples are given; labels or weights without samples, or samples alone, are an error."""
    if X_val is None and (y_val is not None or sample_weight_val is not None):
        raise ValueError("y_val or sample_weight_val is provided, but X_val was not provided.")
    if X_val is not None and y_val is None and not isinstance(X_val, Dataset):
        raise ValueError("X_val is provided, but y_val was not provided.")
    return X_val is not None


def read_validation(X_val: Any, y_val: Any, sample_weight_val: Any, like: DataFormat) -> TrainingData:
    """Read validation samples, which must look like those to train on."""
    try:
        data = TrainingData.read(X_val, y_val, sample_weight_val, like=like)
        if isinstance(data.samples, Tensor):
            like.inputs.check(tuple(data.samples.shape[1:]))
            check_range(data.samples, like.clip)
        return data
    except (TypeError, ValueError) as error:
        raise type(error)(f"X_val, y_val or sample_weight_val cannot be used: {error}") from error


def _format_of(samples: Samples, names: Any, clip: str | Clip, classes: np.ndarray) -> DataFormat:
    if len(classes) < 2:
        raise ValueError(
            f"y must have at least two classes among samples of positive weight; got {len(classes)} class: "
            f"{classes.tolist()}"
        )
    example = example_of(samples)
    inputs = InputFormat.of(tuple(example.shape), names)
    box = find_clip(clip, inputs.is_table)
    check_range(example, box)
    return DataFormat(inputs, box, classes, *statistics(inputs.to_model(example)))
