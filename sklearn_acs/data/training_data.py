"""TrainingData holds what a fit trains on: samples of positive weight, encoded labels, and their format."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from sklearn_acs._compat import check_sample_weight, feature_names
from sklearn_acs.data.columns import count_values
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
        rows, n_given = np.flatnonzero(weight), len(labels)
        if len(rows) < n_given:
            samples, labels, weight = take_samples(samples, rows), labels[rows], weight[rows]
        if like is None:
            names = None if isinstance(X, Dataset) else feature_names(X)
            like = _format_of(samples, names, clip, np.unique(labels if classes is None else np.asarray(classes)))
        codes, weight = encode_labels(labels, like.classes), torch.from_numpy(weight / weight.mean())
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
    x = inputs.to_model(example)
    mean, scale = statistics(x)
    return DataFormat(inputs, box, classes, mean, scale, *count_values(x, scale))
