"""Formats tell how users' samples look (tables, images, Datasets) and turn them into what a model takes."""

from collections.abc import Sized
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch.utils.data import Dataset, Subset

from sklearn_acs.data.batches import ArrayData, StreamedData
from sklearn_acs.data.tensors import as_tensor, image_tensor, plain_tensor, refuse_masked

Clip = tuple[float, float] | None
"""Smallest and largest value an input may have; None where there is no such box."""

CHANNELS = (1, 3, 4)
"""Channel counts by which the last axis of (n, H, W, C) images is recognised."""

SAMPLES_FOR_STATISTICS = 512
"""Evenly spaced samples of a streamed Dataset that its shape, mean, scale and range are taken from."""


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
    def of(cls, shape: tuple[int, ...], feature_names: np.ndarray | None = None) -> "InputFormat":
        """Recognise tables (n, features), grey images (n, H, W), and (n, C, H, W) or (n, H, W, C) images."""
        if len(shape) not in (2, 3, 4):
            raise ValueError(
                f"X must be a table (n, features) or images (n, H, W), (n, C, H, W) or (n, H, W, C); got shape {shape}"
            )
        if len(shape) < 4:
            return cls(shape[1:], None, feature_names)
        return cls(shape[1:], 3 if shape[1] not in CHANNELS and shape[3] in CHANNELS else 1)

    @property
    def is_table(self) -> bool:
        """Whether a sample is a row of features."""
        return len(self.given_shape) == 1

    @property
    def model_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the model gets it: (features,) or (C, H, W)."""
        return tuple(self.to_model(torch.empty(1, *self.given_shape, device="meta")).shape[1:])

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse samples of another shape than those of `fit`."""
        if tuple(shape) != self.given_shape:
            raise ValueError(f"X has samples of shape {tuple(shape)}, but fit saw samples of shape {self.given_shape}")

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

    def encode_one(self, x: Any) -> Tensor:
        """Turn one sample of a Dataset into one for the model."""
        sample = plain_tensor(x)
        sample = sample.float() if self.is_table else sample
        self.check(tuple(sample.shape))
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


Samples = Tensor | Dataset
"""What `read_samples` returns."""


def read_samples(X: Any, form: InputFormat | None = None, owner: str = "RobustClassifier") -> Samples:
    """Turn samples as given into one tensor (uint8 or float32); a Dataset is handed back and not read.

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
    Tensor or Dataset
    """
    if isinstance(X, Dataset):
        if not hasattr(X, "__len__"):
            raise TypeError(f"a Dataset must have a length and be read by index; got {type(X).__name__}")
        return X
    if _n_axes(X) > 2:
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
    table = validate_data(estimator, refuse_masked(X), dtype=[np.float64, np.float32], reset=form is None)
    return as_tensor(table).float()


def _n_axes(X: Any) -> int:
    """Count the axes of an array or of nested lists; 2 for whatever else scikit-learn may make a table of."""
    return np.ndim(X) if isinstance(X, list | tuple) else getattr(X, "ndim", 2)


def n_samples(samples: Samples) -> int:
    """Count the samples."""
    return len(cast(Sized, samples))


def take_samples(samples: Samples, rows: np.ndarray) -> Samples:
    """Take the samples `rows`; of a Dataset a part that is not read."""
    return Subset(samples, rows.tolist()) if isinstance(samples, Dataset) else samples[rows]


def example_of(samples: Samples) -> Tensor:
    """Take a batch that stands for all samples: the tensor itself, or evenly spaced samples of a Dataset."""
    if isinstance(samples, Tensor):
        return samples
    n = n_samples(samples)
    rows = np.linspace(0, n - 1, min(n, SAMPLES_FOR_STATISTICS)).astype(int)
    found = torch.stack([plain_tensor(samples[i][0]) for i in rows])
    return found.float() if found.ndim == 2 else found  # uint8 means pixels in images alone


def make_data(
    samples: Samples, y: Tensor, form: InputFormat, clip: Clip, device: torch.device
) -> ArrayData | StreamedData:
    """Check the shape and range of samples, and turn them into what batches are cut from."""
    if isinstance(samples, Dataset):
        return StreamedData(samples, y, device, form.encode_one, partial(check_range, clip=clip))
    form.check(tuple(samples.shape[1:]))
    check_range(samples, clip)
    return ArrayData(form.to_model(samples), y, device)


def find_clip(clip: str | Clip, is_table: bool) -> Clip:
    """Find the box that inputs live in; "auto" is (0, 1) for images and none for tables."""
    if isinstance(clip, str):
        return None if is_table else (0.0, 1.0)
    if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
        raise ValueError(f"clip={clip!r} must be 'auto', None or (low, high) with low < high")
    return clip


def check_range(x: Tensor, clip: Clip) -> None:
    """Refuse inputs that are not finite or outside the clip range (uint8 images are in [0, 1] by definition)."""
    if x.dtype == torch.uint8:
        return
    low, high = x.min().item(), x.max().item()
    if not (isfinite(low) and isfinite(high)):
        raise ValueError("Input X contains NaN or infinity.")
    if clip is None:
        return
    tolerance = 1e-6 * (clip[1] - clip[0])
    if low < clip[0] - tolerance or high > clip[1] + tolerance:
        raise ValueError(
            f"X has values from {low:g} to {high:g}, outside clip={clip}. Scale images to that range (uint8 images are "
            "scaled by themselves; normalisation belongs in the model), or set clip to the range of the data"
        )


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean and scale that standardise a batch, per feature of a table and per channel of images.

    The scale of something constant is 1, as in scikit-learn's StandardScaler.
    """
    if x.dtype == torch.uint8:
        # Counted on the 256 levels of each channel: exact, and without a float copy of all images.
        levels = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.stack([torch.bincount(channel.flatten().cpu(), minlength=256) for channel in x.unbind(1)])
        share = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
        mean = share @ levels
        deviation = (share * (levels - mean[:, None]) ** 2).sum(1).sqrt()
    else:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        mean, deviation = x.double().mean(axes), x.double().std(axes, correction=0)
    deviation = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
    return mean.float().cpu(), deviation.float().cpu()
