"""Arrays, tensors, lists and images become tensors here, and nowhere else."""

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array
from torch import Tensor


def as_tensor(values: Any, name: str = "X") -> Tensor:
    """Turn an array, tensor, list or PIL image into a tensor that can be trained on and belongs to no graph.

    Memory is shared where that is possible; nothing in this library writes to it.

    Parameters
    ----------
    values : Tensor, array-like or PIL image
        Also with negative strides, of a foreign byte order, a read-only memory map, a tensor with gradients, or one
        made in inference mode.
    name : str, default="X"
        What to call it in errors.

    Returns
    -------
    Tensor
        Of the same numbers and type, detached.

    Raises
    ------
    ValueError
        For a masked array, whose gaps would be taken for numbers.
    """
    if isinstance(values, Tensor):
        with torch.inference_mode(False):
            return (values.clone() if values.is_inference() else values.detach()).resolve_neg()
    array = np.asarray(refuse_masked(values, name))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch takes neither foreign byte order nor negative strides
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)


def refuse_masked(values: Any, name: str = "X") -> Any:
    """Return what is given unless it is a masked array, which is a ValueError."""
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, and what is masked has no value; fill it first: {name}.filled(0)")
    return values


def plain_tensor(values: Any) -> Tensor:
    """Turn samples into a tensor that batches are cut from: uint8 stays, everything else becomes float32."""
    x = as_tensor(values)
    return x if x.dtype == torch.uint8 else x.float()


def image_tensor(X: Any) -> Tensor:
    """Turn images into a tensor, uint8 as it is and floats as float32; refuse NaN, infinity and other types."""
    if not isinstance(X, Tensor):
        X = check_array(refuse_masked(X), allow_nd=True, ensure_2d=False, dtype=None, input_name="X")
    x = as_tensor(X)
    if len(x) == 0:
        raise ValueError(f"Found 0 sample(s) (shape={tuple(x.shape)}) while a minimum of 1 is required.")
    if not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(f"images must be uint8 or float; got {x.dtype}")
    if x.is_floating_point() and not x.isfinite().all():
        raise ValueError("Input X contains NaN or infinity.")
    return plain_tensor(x)


def to_float(x: Tensor) -> Tensor:
    """Turn pixels 0 to 255 into floats in [0, 1]; floats stay what they are."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x
