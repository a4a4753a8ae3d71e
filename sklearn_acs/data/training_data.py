"""TrainingData holds what a fit trains on: samples of positive weight, encoded labels, and their format."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sklearn_acs._compat import feature_names
from sklearn_acs.data.batches import ArrayData, OwnLabels, StreamedData
from sklearn_acs.data.class_weight import class_factors
from sklearn_acs.data.columns import count_values
from sklearn_acs.data.datasets import Items, is_dataset
from sklearn_acs.data.formats import (
    Clip,
    DataFormat,
    InputFormat,
    Samples,
    check_range,
    find_clip,
    make_data,
    n_samples,
    read_samples,
)
from sklearn_acs.data.labels import codes_of, encode_labels, read_labels
from sklearn_acs.data.sample_weights import read_sample_weight
from sklearn_acs.data.statistics import statistics

LATER = (
    ". A fit fixes the classes: give the first partial_fit all labels that will ever come as classes=, or fit again "
    "with warm_start=False"
)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Holds samples as they came, with their labels and weights.

    Attributes
    ----------
    samples : Tensor or Items
        All that were given.
    y : Tensor of int64, of shape (n,)
        Labels 0 to C-1.
    weight : Tensor of shape (n,)
        Factors of the losses, of mean 1.
    rows : ndarray of int, of shape (n,)
        Where in X the samples stand that count: those of positive weight, and of a part of the data those in it.
    n_given : int
        Samples in X.
    format : DataFormat
        How they look.
    of_items : bool
        Whether labels are those of a Dataset's items, which are then compared whenever they are read.
    """

    samples: Samples
    y: Tensor
    weight: Tensor
    rows: np.ndarray
    n_given: int
    format: DataFormat
    of_items: bool = False

    @classmethod
    def read(
        cls,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        *,
        clip: str | Clip = "auto",
        channels: str = "auto",
        classes: ArrayLike | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        like: DataFormat | None = None,
        loader_options: Mapping[str, Any] = MappingProxyType({}),
        verbose: int = 0,
        advice: str = LATER,
    ) -> "TrainingData":
        """Read and check what `fit` is given.

        Parameters
        ----------
        X, y, sample_weight : objects
            As `RobustClassifier.fit` takes them.
        clip : (float, float), "auto" or None, default="auto"
            The box that samples live in.
        channels : {"auto", "first", "last"}, default="auto"
            Where images have their channels.
        classes : array-like or None, default=None
            All labels there are; None: those that `y` has.
        class_weight : mapping, "balanced" or None, default=None
            Factors of the sample weights by class, see `class_factors`.
        like : DataFormat or None, default=None
            The format of the data that a model was trained on before, which these must have too; `clip`, `channels`
            and `classes` are then not looked at.
        loader_options : mapping
            Options of torch's DataLoader, with which a Dataset that lists no labels is read for them.
        verbose : int, default=0
            1 shows the progress of that.
        advice : str
            How the error ends that tells of a label which is none of the classes.

        Returns
        -------
        TrainingData
        """
        samples = read_samples(X, None if like is None else like.inputs)
        n_given, streamed = n_samples(samples), isinstance(samples, Items)
        of_items = streamed and y is None
        every = np.empty(0) if of_items else read_labels(y, n_given)
        weight = read_sample_weight(sample_weight, n_given, np.float32)
        rows = np.flatnonzero(weight)
        if isinstance(samples, Items):
            items = samples.take(rows)
            example, at, seen = items.example()
            every = items.labels(at, seen, loader_options, verbose) if of_items else every
        else:
            example = samples
        labels, weight = every if of_items else every[rows], weight[rows]
        listed = None if classes is None or like is not None else read_labels(classes, name="classes")
        if class_weight is not None:
            known = like.classes if like is not None else every if listed is None else listed
            weight = weight * class_factors(class_weight, labels, weight, known).astype(np.float32)
            kept = np.flatnonzero(weight)
            rows, labels, weight = rows[kept], labels[kept], weight[kept]
        if like is None:
            counted, names = (None, None) if streamed else (rows, feature_names(X))
            like = _format_of(example, counted, names, clip, channels, np.unique(labels if listed is None else listed))
        factors = torch.from_numpy(weight / weight.mean())
        return cls(samples, encode_labels(labels, like.classes, advice=advice), factors, rows, n_given, like, of_items)

    def on(self, device: torch.device) -> ArrayData | StreamedData:
        """Make of the data what batches are cut from; in memory it is not copied where it is float32 already."""
        form, own = self.format, OwnLabels(codes_of, self.format.classes) if self.of_items else None
        return make_data(self.samples, self.y, form.inputs, form.clip, device, self.rows, own)

    def repeats(self) -> bool:
        """Tell whether a sample is the same each time it is read; of a Dataset some are read to see."""
        return not isinstance(self.samples, Items) or self.samples.take(self.rows).repeats()

    def take(self, at: np.ndarray) -> "TrainingData":
        """Take a part, with the weights that its samples have."""
        return replace(self, y=self.y[at], weight=self.weight[at], rows=self.rows[at])

    def split(self, kept: np.ndarray, held: np.ndarray) -> tuple["TrainingData", "TrainingData"]:
        """Split into samples to train on, with weights of mean 1 again, and samples held out."""
        of_kept, of_held = self.take(kept), self.take(held)
        return replace(of_kept, weight=of_kept.weight / of_kept.weight.mean()), of_held


def check_validation(X_val: Any, y_val: Any, sample_weight_val: Any) -> bool:
    """Tell whether validation samples are given; labels or weights without samples, or samples alone, are an error."""
    if X_val is None and (y_val is not None or sample_weight_val is not None):
        raise ValueError("y_val or sample_weight_val is provided, but X_val was not provided.")
    if X_val is not None and y_val is None and not is_dataset(X_val):
        raise ValueError("X_val is provided, but y_val was not provided.")
    return X_val is not None


def read_validation(X_val: Any, y_val: Any, sample_weight_val: Any, like: DataFormat, **reading: Any) -> TrainingData:
    """Read validation samples, which must look like those to train on."""
    try:
        data = TrainingData.read(X_val, y_val, sample_weight_val, like=like, advice=", those of y", **reading)
        if isinstance(data.samples, Tensor):
            like.inputs.check(tuple(data.samples.shape[1:]))
            check_range(data.samples, like.clip, data.rows)
        return data
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"X_val, y_val or sample_weight_val cannot be used: {error}") from error


def _format_of(
    example: Tensor, rows: np.ndarray | None, names: Any, clip: str | Clip, channels: str, classes: np.ndarray
) -> DataFormat:
    if len(classes) < 2:
        raise ValueError(
            f"y must have at least two classes among samples of positive weight; got {len(classes)} class: "
            f"{classes.tolist()}"
        )
    inputs = InputFormat.of(tuple(example.shape), names, channels)
    box = find_clip(clip, inputs.is_table)
    if inputs.is_table and example.dtype == torch.uint8:
        example = example.float()  # of a Dataset: it means pixels in images alone
    check_range(example, box, rows)
    mean, scale, spread = statistics(example, rows, inputs.to_model, names)
    return DataFormat(inputs, box, classes, mean, scale, *count_values(example, spread, rows, inputs.to_model))
