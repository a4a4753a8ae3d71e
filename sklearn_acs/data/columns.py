"""Columns of a table, and channels of images, are constant, two-valued, or more."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from sklearn_acs.data.statistics import chunks


def count_values(
    x: Tensor, spread: Tensor, rows: np.ndarray | None = None, to_model: Callable[[Tensor], Tensor] = lambda x: x
) -> tuple[Tensor, tuple[float, float]]:
    """Count the distinct values of each column or channel, and find the range of all.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        Samples as given; uint8 images are in [0, 1] by definition.
    spread : Tensor of shape (features,) or (C,)
        Their standard deviations, 0 for what is constant.
    rows : ndarray of int or None, default=None
        Which of the samples count; None is all.
    to_model : callable
        Turns a batch as given into one for the model: (n, features) or (n, C, H, W).

    Returns
    -------
    n_values : Tensor of int64, of the shape of `spread`
        1 for a constant one, 2, or 3 for more; for images 1 or 3.
    limits : (float, float)
        Smallest and largest value.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.data.columns import count_values
    >>> count_values(torch.tensor([[1.0, 0.0, 5.0], [1.0, 1.0, 7.0], [1.0, 0.0, 6.0]]), torch.tensor([0.0, 0.5, 0.8]))
    (tensor([1, 2, 3]), (0.0, 7.0))
    """

    def parts() -> Iterator[Tensor]:  # a large table is never beside itself in bools
        return map(to_model, chunks(x, rows))

    axes = [0, *range(2, len(next(parts()).shape))]
    low = torch.stack([part.amin(axes) for part in parts()]).amin(0)
    high = torch.stack([part.amax(axes) for part in parts()]).amax(0)
    several = torch.full(spread.shape, 3)
    if len(axes) == 1:
        two = torch.stack([((part == low) | (part == high)).all(0) for part in parts()]).all(0)
        several = torch.where(two.cpu(), 2, 3)
    levels = 255 if x.dtype == torch.uint8 else 1
    return torch.where(spread == 0, 1, several), (low.min().item() / levels, high.max().item() / levels)
