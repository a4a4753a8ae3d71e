"""Formats tell how users' samples look (tables, images, Datasets) and turn them into what a model takes."""

from collections.abc import Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor

from sklearn_acs.checks import check_clip
from sklearn_acs.data.batches import ArrayData, OwnLabels, StreamedData
from sklearn_acs.data.datasets import Items, is_dataset
from sklearn_acs.data.statistics import chunks
from sklearn_acs.data.tensors import as_tensor, check_numbers, image_tensor, plain_tensor

Clip = tuple[float, float] | None
"""Smallest and largest value an input may have; None where there is no such box."""

CHANNELS = (1, 3, 4)
"""Channel counts by which the layout of (n, C, H, W) and (n, H, W, C) images is recognised."""

LAYOUTS = ("auto", "first", "last")
"""Where the channels of images are: "first" as torch has them, "last" as files do; "auto" goes by `CHANNELS`."""


@dataclass(frozen=True, eq=False)
class InputFormat:
    """Tells how the samples given to `fit` look, and what the model gets for each of them.

    Attributes
    ----------
    given_shape : tuple of int
        Shape of one sample as users give it.
    channel_axis : int or None
        Axis of the channels in a batch as given: 1, 3, or None for grey images (n, H, W) and for tables.
    feature_names : ndarray of str or None
        Names of a table's columns, where it was a DataFrame.
    """

    given_shape: tuple[int, ...]
    channel_axis: int | None = None
    feature_names: np.ndarray | None = None

    @classmethod
    def of(
        cls, shape: tuple[int, ...], feature_names: np.ndarray | None = None, channels: str = "auto"
    ) -> "InputFormat":
        """Recognise tables (n, features), grey images (n, H, W), and (n, C, H, W) or (n, H, W, C) images.

        By "auto" the axis of 1, 3 or 4 entries has the channels, axis 1 where both have so few, and where neither has,
        it is a ValueError.
        """
        if len(shape) not in (2, 3, 4):
            raise ValueError(
                f"X must be a table (n, features) or images (n, H, W), (n, C, H, W) or (n, H, W, C); got shape {shape}"
            )
        if len(shape) < 4:
            return cls(shape[1:], None, feature_names)
        if channels == "auto" and shape[1] not in CHANNELS and shape[3] not in CHANNELS:
            raise ValueError(
                f"X has the shape {shape}, and neither axis 1 nor axis 3 has 1, 3 or 4 channels; say channels='first' "
                "for (n, C, H, W) or channels='last' for (n, H, W, C)"
            )
        last = channels == "last" or (channels == "auto" and shape[1] not in CHANNELS)
        return cls(shape[1:], 3 if last else 1)

    @property
    def is_table(self) -> bool:
        """Whether a sample is a row of features."""
        return len(self.given_shape) == 1

    @property
    def model_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the model gets it: (features,) or (C, H, W)."""
        return tuple(self.to_model(torch.empty(1, *self.given_shape, device="meta")).shape[1:])

    def check(self, shape: tuple[int, ...], what: str = "X has samples of") -> None:
        """Refuse samples of another shape than those of `fit`."""
        if tuple(shape) != self.given_shape:
            raise ValueError(f"{what} shape {tuple(shape)}, but fit saw samples of shape {self.given_shape}")

    def to_model(self, x: Tensor) -> Tensor:
        """Turn a batch as given into one for the model, channels first."""
        if self.is_table or self.channel_axis == 1:
            return x
        return x.unsqueeze(1) if self.channel_axis is None else x.movedim(3, 1).contiguous()

    def to_given(self, x: Tensor) -> Tensor:
        """Turn a batch for the model into one as given."""
        if self.is_table or self.channel_axis == 1:
            return x
        return x.squeeze(1) if self.channel_axis is None else x.movedim(1, 3).contiguous()

    def encode_one(self, x: Tensor, name: str = "the sample") -> Tensor:
        """Turn one sample of a Dataset into one for the model."""
        sample = x.float() if self.is_table else plain_tensor(x)  # uint8 means pixels in images alone
        self.check(tuple(sample.shape), f"{name} has the")
        return self.to_model(sample[None])[0]


@dataclass(frozen=True, eq=False)
class DataFormat:
    """Holds what is known of data before any training, and what judging a model needs.

    Attributes
    ----------
    inputs : InputFormat
        Shape and layout of the samples.
    clip : (float, float) or None
        The box that they live in.
    classes : ndarray of shape (n_classes,)
        The labels, sorted.
    mean, scale : Tensor or None
        What standardises a feature of a table or a channel of images; None where only a module is known.
    n_values : Tensor of int64 or None
        Distinct values of each: 1, 2, or 3 for more; see `count_values`.
    limits : (float, float) or None
        Smallest and largest value that training samples have.
    """

    inputs: InputFormat
    clip: Clip
    classes: np.ndarray
    mean: Tensor | None = None
    scale: Tensor | None = None
    n_values: Tensor | None = None
    limits: tuple[float, float] | None = None


Samples = Tensor | Items
"""What `read_samples` returns."""


def read_samples(X: Any, form: InputFormat | None = None, owner: str = "RobustClassifier") -> Samples:
    """Turn samples as given into one tensor of uint8 or floats, not copied where possible; a Dataset is not read.

    Parameters
    ----------
    X : array-like, DataFrame, Tensor or Dataset
        The samples.
    form : InputFormat or None, default=None
        How samples have to look; None where they are the first.
    owner : str, default="RobustClassifier"
        Who asks, for errors.

    Returns
    -------
    Tensor or Items
    """
    if is_dataset(X):
        if len(X) == 0:
            raise ValueError("Found 0 sample(s) in X, a Dataset, while a minimum of 1 is required.")
        return Items(X)
    X = check_numbers(X)
    if getattr(X, "ndim", 2) > 2:
        return image_tensor(X)
    if isinstance(X, Tensor):
        x = as_tensor(X).cpu()
        X = (x.float() if x.dtype == torch.bfloat16 else x).numpy()  # a type that NumPy does not have
    # scikit-learn's validation needs an estimator to write on: it gets one of its own.
    estimator: Any = type(owner, (BaseEstimator,), {})()
    if form is not None and form.is_table:
        estimator.n_features_in_ = form.given_shape[0]
        if form.feature_names is not None:
            estimator.feature_names_in_ = form.feature_names
    try:
        return as_tensor(validate_data(estimator, X, dtype=[np.float64, np.float32], reset=form is None))
    except ValueError as error:
        raise ValueError(f"X cannot be read: {error}") from error


def n_samples(samples: Samples) -> int:
    """Count the samples."""
    return len(cast(Sized, samples))


def example_of(samples: Samples) -> Tensor:
    """Take a batch that stands for all samples: the tensor itself, or evenly spaced samples of a Dataset."""
    return samples if isinstance(samples, Tensor) else samples.example()[0]


def make_data(
    samples: Samples,
    y: Tensor,
    form: InputFormat,
    clip: Clip,
    device: torch.device,
    rows: np.ndarray | None = None,
    own: OwnLabels | None = None,
) -> ArrayData | StreamedData:
    """Check the shape and range of samples, and turn them into what batches are cut from, not copied if possible.

    Parameters
    ----------
    samples : Tensor or Items
        What `read_samples` returns.
    y : Tensor of shape (n,)
        Codes of the labels.
    form : InputFormat
        How samples have to look.
    clip : (float, float) or None
        The box that they live in.
    device : torch.device
        Where the model is.
    rows : ndarray of int, of shape (n,), or None, default=None
        Which of the samples to use; None is all.
    own : OwnLabels or None, default=None
        See `StreamedData`.

    Returns
    -------
    ArrayData or StreamedData
    """
    if isinstance(samples, Items):
        taken = samples if rows is None else samples.take(rows)
        return StreamedData(taken, y, device, form.encode_one, partial(check_range, clip=clip), own)
    form.check(tuple(samples.shape[1:]))
    check_range(samples, clip, rows)
    if rows is not None and len(rows) == len(samples):
        rows = None
    if samples.dtype in (torch.uint8, torch.float32) and form.channel_axis != 3 and device.type == "cpu":
        return ArrayData(form.to_model(samples), y, device, None if rows is None else torch.as_tensor(rows))
    x = torch.empty(len(y), *form.model_shape, dtype=plain_tensor(samples[:0]).dtype, device=device)
    end = 0
    for part in chunks(samples, rows):  # which are copied in any case, once
        begin, end = end, end + len(part)
        x[begin:end] = form.to_model(part)
    return ArrayData(x, y, device)


def find_clip(clip: str | Clip, is_table: bool) -> Clip:
    """Find the box that inputs live in; "auto" is (0, 1) for images and none for tables."""
    if isinstance(clip, str):
        return None if is_table else (0.0, 1.0)
    return check_clip(clip)


def check_range(x: Tensor, clip: Clip, rows: np.ndarray | None = None) -> None:
    """Refuse inputs that are no numbers of float32 or outside the clip range (uint8 images are in [0, 1] as such)."""
    if x.dtype == torch.uint8:
        return
    extremes = torch.stack([torch.stack(part.aminmax()) for part in chunks(x, rows)])
    low, high = extremes.min().item(), extremes.max().item()
    if not max(abs(low), abs(high)) <= torch.finfo(torch.float32).max:
        raise ValueError("Input X contains NaN, infinity or a value too large for float32.")
    if clip is None:
        return
    tolerance = 1e-6 * (clip[1] - clip[0])
    if low < clip[0] - tolerance or high > clip[1] + tolerance:
        raise ValueError(
            f"X has values from {low:g} to {high:g}, outside clip={clip}. Scale images to that range (uint8 images are "
            "scaled by themselves; normalisation belongs in the model), or set clip to the range of the data"
        )
