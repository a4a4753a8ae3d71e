"""Columns of a table, and channels of images, are constant, two-valued, or more."""

import torch
from torch import Tensor

_ROWS = 65536  # compared at a time, so that a large table is never beside itself in bools


def count_values(x: Tensor, scale: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Count the distinct values of each column or channel, and find the range of all.

    Parameters
    ----------
    x : Tensor of shape (n, features) or (n, C, H, W)
        Samples as the model gets them; uint8 images are in [0, 1] by definition.
    scale : Tensor of shape (features,) or (C,)
        Their standard deviations, 1 for what is constant.

    Returns
    -------
    n_values : Tensor of int64, of the shape of `scale`
        1 for a constant one, 2, or 3 for more; for images 1 or 3.
    limits : (float, float)
        Smallest and largest value.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.data.columns import count_values
    >>> count_values(torch.tensor([[1.0, 0.0, 5.0], [1.0, 1.0, 7.0], [1.0, 0.0, 6.0]]), torch.tensor([1.0, 0.5, 0.8]))
    (tensor([1, 2, 3]), (0.0, 7.0))
    """
    axes = [axis for axis in range(x.ndim) if axis != 1]
    low, high = x.amin(axes).cpu(), x.amax(axes).cpu()
    several = torch.full(scale.shape, 3)
    if x.ndim == 2:
        two = torch.ones_like(low, dtype=torch.bool)
        for rows in x.split(_ROWS):
            two &= ((rows == low) | (rows == high)).all(0)
        several = torch.where(two, 2, 3)
    levels = 255 if x.dtype == torch.uint8 else 1
    # No range is below two standard deviations: one that is has the scale 1 of a constant.
    n_values = torch.where((high.float() - low.float()) / levels < scale, 1, several)
    return n_values, (low.min().item() / levels, high.max().item() / levels)
