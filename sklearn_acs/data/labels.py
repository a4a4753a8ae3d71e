"""Labels of any kind become the codes 0 to C-1 that a model is trained on."""

import warnings
from collections.abc import Sized
from typing import Any, cast

import numpy as np
import torch
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor
from torch.utils.data import Dataset, Subset

from sklearn_acs.data.tensors import refuse_masked

UNKNOWN = -2
"""Code of a label that the model does not have: no prediction equals it, nor -1, which stands for NaN logits."""


def read_labels(X: Any, y: Any, n_samples: int) -> np.ndarray:
    """Read the labels given, or those of a Dataset, as a one-dimensional array without NaN, one for each sample.

    Raises
    ------
    ValueError
        Labels are missing, not finite, not classes, or not as many as samples.
    """
    if y is None:
        if not isinstance(X, Dataset):
            raise ValueError("requires y to be passed, but the target y is None: only a Dataset brings its own labels")
        y = dataset_labels(X)
    y = y.detach().cpu().numpy() if isinstance(y, Tensor) else refuse_masked(y, "y")
    labels: np.ndarray = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    check_classification_targets(labels)
    if len(labels) != n_samples:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {[n_samples, len(labels)]}")
    return labels


def dataset_labels(dataset: Dataset) -> np.ndarray:
    """Find the labels of a Dataset: its `targets` or `labels`, as torchvision's have them, or by one pass over it."""
    if isinstance(dataset, Subset):
        return dataset_labels(dataset.dataset)[list(dataset.indices)]
    for name in ("targets", "labels"):
        if hasattr(dataset, name) and getattr(dataset, "target_transform", None) is None:
            return np.asarray(getattr(dataset, name))
    return np.asarray([dataset[i][1] for i in range(len(cast(Sized, dataset)))])


def encode_labels(labels: np.ndarray, classes: np.ndarray, *, scoring: bool = False, advice: str = "") -> Tensor:
    """Turn labels into their positions in the sorted `classes`.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Labels.
    classes : ndarray of shape (n_classes,)
        What the model knows, sorted.
    scoring : bool, default=False
        Whether a label that is none of the classes gets the code `UNKNOWN`, with a warning, as it counts as wrong in
        a score. Otherwise it is an error.
    advice : str, default=""
        How its message ends.

    Returns
    -------
    Tensor of int64, of shape (n,)

    Raises
    ------
    ValueError
        Labels are strings and classes numbers or the other way round, or, unless `scoring`, a label is unknown.
    """
    if _are_strings(labels) != _are_strings(classes):
        raise ValueError(
            f"Mix of label input types (string and number): y has {labels[0]!r}, and the classes are {classes.tolist()}"
        )
    known = np.isin(labels, classes)
    if not known.all():
        strangers = np.unique(labels[~known]).tolist()
        if not scoring:
            raise ValueError(
                f"y contains the label {strangers[0]!r}, which is none of the classes {classes.tolist()}{advice}"
            )
        warnings.warn(
            f"y contains {strangers}, which are none of the classes {classes.tolist()}: they count as wrong",
            UserWarning,
            stacklevel=3,
        )
    codes = np.full(len(labels), UNKNOWN, dtype=np.int64)
    codes[known] = np.searchsorted(classes, labels[known])
    return torch.from_numpy(codes)


def check_module_labels(labels: np.ndarray, n_classes: int) -> None:
    """Raise ValueError for labels other than 0 to C-1, which are all that a module without a classifier knows."""
    if labels.dtype.kind not in "iufb" or not np.isin(labels, np.arange(n_classes)).all():
        raise ValueError(
            f"y must have labels 0 to C-1 for a module with logits of shape (batch, C), here 0 to {n_classes - 1}; got "
            f"{np.unique(labels)[:10].tolist()}"
        )


def _are_strings(labels: np.ndarray) -> bool:
    return labels.dtype.kind == "U" or (labels.dtype.kind == "O" and isinstance(labels.flat[0], str))
