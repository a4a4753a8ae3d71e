"""Statistics standardise features and channels: mean, deviation and scale, as StandardScaler has them, in float64."""

import warnings
from collections.abc import Callable, Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_acs._compat import is_constant_feature

CHUNK_BYTES = 2**23
"""What samples take at most in float64 while they are looked at, so that no copy of all of them is made."""

LOST = 0.1
"""How large float32's rounding of a feature may be, in its standard deviations, before it is told."""


class Statistics(NamedTuple):
    """Holds what standardises each feature of a table, or each channel of images."""

    mean: Tensor
    scale: Tensor  # what to divide by: the standard deviation, or 1 for something constant
    spread: Tensor  # the same, but 0 for something constant


def chunks(x: Tensor, rows: np.ndarray | None = None) -> Iterator[Tensor]:
    """Yield samples, or the `rows` among them, a few at a time.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        Samples.
    rows : ndarray of int or None, default=None
        Which of them; None is all.
    """
    size = max(1, CHUNK_BYTES // (8 * max(1, x[:1].numel())))
    if rows is None or len(rows) == len(x):
        yield from x.split(size)
    else:
        yield from (x[part] for part in torch.as_tensor(rows).split(size))


def statistics(
    x: Tensor,
    rows: np.ndarray | None = None,
    to_model: Callable[[Tensor], Tensor] = lambda x: x,
    names: np.ndarray | None = None,
) -> Statistics:
    """Compute what standardises samples, per feature of a table and per channel of images.

    Something constant, by StandardScaler's rule, has the scale 1. Models work in float32: where that rounds a feature
    by more than a tenth of its standard deviation, a warning says so, and the scale takes the rounding in.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        Samples as given.
    rows : ndarray of int or None, default=None
        Which of them count; None is all.
    to_model : callable
        Turns a batch as given into one for the model: (n, features) or (n, C, H, W).
    names : ndarray of str or None, default=None
        Names of the features, for the warning.

    Returns
    -------
    Statistics

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.data.statistics import statistics
    >>> statistics(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    Statistics(mean=tensor([2., 7.]), scale=tensor([1., 1.]), spread=tensor([1., 0.]))
    """
    if x.dtype == torch.uint8:
        return _of_bytes(x, rows, to_model)

    def parts() -> Iterator[Tensor]:
        return map(to_model, chunks(x, rows))

    axes = [0, *range(2, len(next(parts()).shape))]
    n = sum(part.numel() // part.shape[1] for part in parts())
    mean = sum_up(part.sum(axes, dtype=torch.float64) for part in parts()) / n
    middle = mean.view(-1, *[1] * (len(axes) - 1))
    variance = sum_up((part.double() - middle).square_().sum(axes) for part in parts()) / n
    rounding = sum_up((part - part.float()).double().square_().sum(axes) for part in parts()) / n
    return _settled(mean, variance, rounding.sqrt(), n, names)


def _of_bytes(x: Tensor, rows: np.ndarray | None, to_model: Callable[[Tensor], Tensor]) -> Statistics:
    """Count the 256 levels of each channel: exact, and without a float copy of all images."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = sum_up(
        torch.stack([torch.bincount(channel.flatten().cpu(), minlength=256) for channel in to_model(part).unbind(1)])
        for part in chunks(x, rows)
    )
    share = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(1)
    return _settled(mean, variance, torch.zeros_like(mean), int(counts[0].sum()))


def _settled(mean: Tensor, variance: Tensor, rounding: Tensor, n: int, names: np.ndarray | None = None) -> Statistics:
    """Make float32 statistics of float64 ones, where `rounding` is what float32 changes a value by."""
    mean, variance, rounding = mean.cpu(), variance.cpu(), rounding.cpu()
    constant = torch.from_numpy(is_constant_feature(variance.numpy(), mean.numpy(), n))
    deviation = variance.sqrt()
    lost = ~constant & (rounding > LOST * deviation)
    if lost.any():
        columns = (np.arange(len(lost)) if names is None else names)[lost.numpy()].tolist()
        warnings.warn(
            f"columns {columns[:10]} of X{' and others' if len(columns) > 10 else ''} vary so little around so large a "
            "value that float32, in which models work, rounds off more than a tenth of their standard deviation; "
            "subtract an offset from them first, as StandardScaler does",
            UserWarning,
            stacklevel=2,
        )
    spread = torch.where(lost, torch.hypot(deviation, rounding), deviation).masked_fill_(constant, 0)
    return Statistics(mean.float(), spread.masked_fill(constant, 1).float(), spread.float())


def sum_up(parts: Iterator[Tensor]) -> Tensor:
    """Add up what was calculated of each part."""
    return reduce(torch.add, parts)
