"""From what users hold (tables, images, Datasets) to the tensors a model takes, and back."""

from collections.abc import Sized
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch.utils.data import Dataset, Subset

from sklearn_acs.data.batches import ArrayData, StreamedData

Clip = tuple[float, float] | None
"""Smallest and largest value an input may have; None where there is no such box."""

CHANNELS = (1, 3, 4)
"""Channel counts by which the last axis of (n, H, W, C) images is recognised."""

UNKNOWN = -2
"""Code of a label that the model does not have: it is never predicted, not even as -1, and so never right."""

SAMPLES_FOR_STATISTICS = 512
"""Evenly spaced samples of a streamed Dataset that its shape, mean, scale and range are taken from."""


@dataclass(frozen=True)
class InputFormat:
    """How the samples given to `fit` look, and what the model gets for each of them.

    Attributes
    ----------
    given_shape : tuple of int
        Shape of one sample as users give it.
    channel_axis : int or None
        Axis of the channels in a batch as given: 1, 3, or None for grey images (n, H, W) and for tables.
    """

    given_shape: tuple[int, ...]
    channel_axis: int | None = None

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "InputFormat":
        """Recognise tables (n, features), grey images (n, H, W), and (n, C, H, W) or (n, H, W, C) images."""
        if len(shape) not in (2, 3, 4):
            raise ValueError(
                f"X must be a table (n, features) or images (n, H, W), (n, C, H, W) or (n, H, W, C); got shape {shape}"
            )
        if len(shape) < 4:
            return cls(shape[1:])
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
        """Batch as given -> batch for the model, channels first."""
        if self.is_table or self.channel_axis == 1:
            return x
        return x.unsqueeze(1) if self.channel_axis is None else x.movedim(3, 1).contiguous()

    def to_given(self, x: Tensor) -> Tensor:
        """Batch for the model -> batch as given."""
        if self.is_table or self.channel_axis == 1:
            return x
        return x.squeeze(1) if self.channel_axis is None else x.movedim(1, 3).contiguous()

    def encode_one(self, x: Any) -> Tensor:
        """One sample of a Dataset -> one sample for the model."""
        sample = plain_tensor(x)
        sample = sample.float() if self.is_table else sample
        self.check(tuple(sample.shape))
        return self.to_model(sample[None])[0]


def image_tensor(X: ArrayLike | Tensor) -> Tensor:
    """Images as a tensor, uint8 left as it is and floats as float32; NaN and infinity are refused."""
    if not isinstance(X, Tensor):
        X = check_array(cast(Any, X), allow_nd=True, ensure_2d=False, dtype=None, input_name="X")
        X = torch.tensor(X)  # a copy: memory maps may be read-only
    if len(X) == 0:
        raise ValueError(f"Found 0 sample(s) (shape={tuple(X.shape)}) while a minimum of 1 is required.")
    if X.is_floating_point() and not X.isfinite().all():
        raise ValueError("Input X contains NaN or infinity.")
    if not (X.dtype == torch.uint8 or X.is_floating_point()):
        raise ValueError(f"images must be uint8 or float; got {X.dtype}")
    return plain_tensor(X)


def plain_tensor(x: Any) -> Tensor:
    """Tensor of a tensor, an array or a PIL image: uint8 stays, everything else becomes float32."""
    x = x if isinstance(x, Tensor) else torch.tensor(np.asarray(x))
    return x if x.dtype == torch.uint8 else x.float()


def find_clip(clip: str | Clip, is_table: bool) -> Clip:
    """The box that inputs live in; "auto" is (0, 1) for images and none for tables."""
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


def check_labels(y: ArrayLike | Tensor, n_samples: int) -> np.ndarray:
    """Labels as a one-dimensional array without NaN, one for each sample."""
    labels: np.ndarray = column_or_1d(y.cpu().numpy() if isinstance(y, Tensor) else y, warn=True)
    assert_all_finite(labels, input_name="y")
    check_classification_targets(labels)
    if len(labels) != n_samples:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {[n_samples, len(labels)]}")
    return labels


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale that standardise a batch, per feature of a table and per channel of images.

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


def encode_labels(y: np.ndarray, classes: np.ndarray) -> Tensor:
    """Labels -> their positions in the sorted `classes`; a label that is not there is refused."""
    codes = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    unknown = y[classes[codes] != y]
    if len(unknown):
        raise ValueError(
            f"y contains the label {unknown.tolist()[0]!r}, which is none of the classes {classes.tolist()}"
        )
    return torch.from_numpy(codes.astype(np.int64))


Samples = Tensor | Dataset
"""What `read_samples` returns."""


def n_samples(samples: Samples) -> int:
    """Number of samples."""
    return len(cast(Sized, samples))


def take_samples(samples: Samples, rows: np.ndarray) -> Samples:
    """The samples `rows`; of a Dataset a part that is not read."""
    return Subset(samples, rows.tolist()) if isinstance(samples, Dataset) else samples[rows]


def read_samples(estimator: BaseEstimator, X: Any, *, reset: bool) -> Samples:
    """Samples as given -> one tensor (uint8 or float32), or the Dataset itself, which is not read.

    Tables go through scikit-learn's validation, which sets (`reset`) or checks `n_features_in_` of the estimator.
    """
    if isinstance(X, Dataset):
        if not hasattr(X, "__len__"):
            raise TypeError(f"a Dataset must have a length and be read by index; got {type(X).__name__}")
        return X
    if n_axes(X) > 2:
        return image_tensor(X)
    X = X.detach().cpu().numpy() if isinstance(X, Tensor) else X
    return torch.tensor(validate_data(estimator, X, dtype=[np.float64, np.float32], reset=reset)).float()


def n_axes(X: Any) -> int:
    """Number of axes of an array or of nested lists; 2 for whatever else scikit-learn may make a table of."""
    return np.ndim(X) if isinstance(X, list | tuple) else getattr(X, "ndim", 2)


def make_data(
    samples: Samples, y: Tensor, form: InputFormat, clip: Clip, device: torch.device
) -> ArrayData | StreamedData:
    """Samples as given and encoded labels -> what batches are cut from, after a check of shape and range."""
    if isinstance(samples, Dataset):
        return StreamedData(samples, y, device, form.encode_one, partial(check_range, clip=clip))
    form.check(tuple(samples.shape[1:]))
    check_range(samples, clip)
    return ArrayData(form.to_model(samples), y, device)


def dataset_labels(dataset: Dataset) -> np.ndarray:
    """Labels of a Dataset of (x, y): its `targets` or `labels`, as torchvision's have them, or one pass over it."""
    if isinstance(dataset, Subset):
        return dataset_labels(dataset.dataset)[list(dataset.indices)]
    for name in ("targets", "labels"):
        if hasattr(dataset, name) and getattr(dataset, "target_transform", None) is None:
            return np.asarray(getattr(dataset, name))
    return np.asarray([dataset[i][1] for i in range(len(cast(Sized, dataset)))])


def dataset_sample(dataset: Dataset) -> Tensor:
    """A batch of evenly spaced samples of a Dataset, as given."""
    n = len(cast(Sized, dataset))
    rows = np.linspace(0, n - 1, min(n, SAMPLES_FOR_STATISTICS)).astype(int)
    samples = torch.stack([plain_tensor(dataset[i][0]) for i in rows])
    return samples.float() if samples.ndim == 2 else samples  # uint8 means pixels in images alone
