"""Labels of any kind become the codes 0 to C-1 that a model is trained on."""

import warnings
from collections.abc import Mapping, Sized
from numbers import Real
from typing import Any, cast

import numpy as np
import torch
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from skorch.helper import SliceDataset
from torch import Tensor
from torch.utils.data import Dataset

from sklearn_acs.data.tensors import refuse_masked

UNKNOWN = -2
"""Code of a label that the model does not have: no prediction equals it, nor -1, which stands for NaN logits."""

UNREAD = -3
"""Code of a label that stands in an item of a Dataset which has not been read yet."""


def read_labels(y: Any, n_samples: int | None = None, name: str = "y") -> np.ndarray:
    """Read labels as a one-dimensional array of numbers, bools or strings.

    Parameters
    ----------
    y : array-like, Tensor or Dataset of shape (n,)
        Labels.
    n_samples : int or None, default=None
        How many there must be; None is any number.
    name : str, default="y"
        What to call them in errors.

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    ValueError
        Labels are missing, not finite, not classes, or not as many as samples.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None: only a Dataset brings its own labels")
    refuse_masked(y, name)
    if isinstance(y, Dataset | SliceDataset):
        y = [y[i] for i in range(len(cast(Sized, y)) if n_samples is None else n_samples)]
        if any(isinstance(label, tuple | list | Mapping) for label in y):
            raise ValueError(f"{name} is a Dataset of samples with labels; leave {name} out where it is X, too")
    try:
        array = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
        if array.dtype.kind not in "iufbUO":
            raise ValueError(f"they have the type {array.dtype}; labels are numbers, bools or strings")
        if array.dtype.kind == "U" and isinstance(y, list | tuple):  # numbers among them have become strings, too
            _checked_objects(np.array(y, dtype=object).ravel())
        labels: np.ndarray = column_or_1d(array, warn=True)
        labels = _checked_objects(labels) if labels.dtype == object else labels
        assert_all_finite(labels, input_name=name)
        check_classification_targets(labels)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{name} must be an array of labels: {error}") from error
    if n_samples is not None and len(labels) != n_samples:
        raise ValueError(
            f"{name} must have one label for each sample: Found input variables with inconsistent numbers of samples: "
            f"{[n_samples, len(labels)]}"
        )
    return labels


def _checked_objects(labels: np.ndarray) -> np.ndarray:
    """Turn objects that are numbers into an array of numbers, refuse gaps and mixtures, and keep strings."""
    for row, label in enumerate(labels):
        if not isinstance(label, str | Real | np.bool_) or label != label:
            raise ValueError(f"row {row} has {label!r}, which is no label; labels are numbers, bools or strings")
    strings = {isinstance(label, str) for label in labels}
    if len(strings) > 1:
        raise ValueError("strings and numbers are mixed, which have no order; astype(str) makes all of them strings")
    return labels if True in strings else np.array(labels.tolist())


def codes_of(labels: np.ndarray, classes: np.ndarray) -> Tensor:
    """Turn labels into their positions in the sorted `classes`; those that are none of them become `UNKNOWN`."""
    codes = np.full(len(labels), UNKNOWN, dtype=np.int64)
    if _are_strings(labels) == _are_strings(classes):
        known = np.isin(labels, classes)
        codes[known] = np.searchsorted(classes, labels[known])
    return torch.from_numpy(codes)


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
        (first,) = labels[:1].tolist()
        raise ValueError(
            f"Mix of label input types (string and number): y has {first!r}, and the classes are {classes.tolist()}"
        )
    codes = codes_of(labels, classes)
    if (codes == UNKNOWN).any():
        strangers = np.unique(labels[codes == UNKNOWN]).tolist()
        if not scoring:
            raise ValueError(
                f"y contains the label {strangers[0]!r}, which is none of the classes {classes.tolist()}{advice}"
            )
        warnings.warn(
            f"y contains {strangers}, which are none of the classes {classes.tolist()}: they count as wrong",
            UserWarning,
            stacklevel=3,
        )
    return codes


def module_codes(labels: np.ndarray, classes: np.ndarray) -> Tensor:
    """Take labels as codes; others than 0 to C-1, all that a module without a classifier knows, are a ValueError."""
    if labels.dtype.kind not in "iufb" or not np.isin(labels, classes).all():
        raise ValueError(
            f"y must have labels 0 to C-1 for a module with logits of shape (batch, C), here 0 to {len(classes) - 1}; "
            f"got {np.unique(labels)[:10].tolist()}"
        )
    return codes_of(labels, classes)


def _are_strings(labels: np.ndarray) -> bool:
    return labels.dtype.kind == "U" or (labels.dtype.kind == "O" and isinstance(next(labels.flat, ""), str))
