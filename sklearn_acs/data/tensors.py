"""Arrays, tensors, lists and images become tensors here, and nowhere else."""

import warnings
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils import check_array
from torch import Tensor

_ENCODE = "encode them first, for example with scikit-learn's OneHotEncoder or OrdinalEncoder"

ADVICE = {
    "M": ("dates", "turn them into seconds since one of them: (dates - dates.min()) / np.timedelta64(1, 's')"),
    "m": ("time differences", "divide them by a unit, such as np.timedelta64(1, 's')"),
    "S": ("bytes", _ENCODE),
    "U": ("strings", _ENCODE),
    "V": ("records", "take their fields apart, for example as the columns of a DataFrame"),
    "c": ("complex numbers", "give real and imaginary parts as features of their own. Complex data not supported"),
}
"""What an array has, by the kind of its type, and what to do about it."""


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


def check_numbers(values: Any, name: str = "X") -> Any:
    """Return what is given, lists and arrays of objects as arrays of numbers; refuse what has no numbers.

    Parameters
    ----------
    values : Tensor, array-like, DataFrame or sparse matrix
        What users give.
    name : str, default="X"
        What to call it in errors.

    Returns
    -------
    Tensor, ndarray, DataFrame or sparse matrix
        scikit-learn checks the rest.

    Raises
    ------
    ValueError, TypeError
        Gaps, dates, strings, complex numbers, rows of different lengths, or other objects; with what to do.
    """
    if isinstance(refuse_masked(values, name), Tensor):
        if values.is_complex():
            _refuse_kind("c", name)
        if values.layout != torch.strided:
            raise TypeError(f"{name} is a sparse tensor, but dense data is required; use {name}.to_dense()")
        return values
    if hasattr(values, "iloc") and hasattr(values, "columns"):
        for at, column in enumerate(values.columns):
            _check_array(values.iloc[:, at], f"{name}, column {column!r},")
        return values
    if issparse(values):
        return values
    if not (isinstance(values, list | tuple) or hasattr(values, "__array__") or hasattr(values, "__array_interface__")):
        raise TypeError(f"{name} must be an array, a list, a DataFrame, a tensor or a Dataset; got {values!r:.80}")
    array = _check_array(values, name)
    return array if isinstance(values, list | tuple) or array.dtype == object else values


def _check_array(values: Any, name: str) -> np.ndarray:
    """Turn into an array, objects into floats as scikit-learn does, but neither strings nor dates."""
    kind = getattr(getattr(values, "dtype", None), "kind", "O")
    if kind != "O":
        _refuse_kind(kind, name)
    try:
        array = np.asarray(values)
    except ValueError as error:  # what NumPy calls an inhomogeneous shape
        raise ValueError(f"{name} has rows of different lengths or shapes, and all must be alike: {error}") from error
    _refuse_kind(array.dtype.kind, name)
    if array.dtype != object:
        return array
    for value in array.flat:
        if value is None or type(value).__name__ == "NAType":
            raise ValueError(f"{name} contains NaN: {value!r} stands for no number; drop such rows, or fill them first")
        if isinstance(value, str | bytes | complex | np.datetime64 | np.timedelta64):
            _refuse_kind(np.asarray(value).dtype.kind, name)
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{name} must have numbers alone, and np.stack makes one array of many; it has other objects: {error}"
        ) from error


def _refuse_kind(kind: str, name: str) -> None:
    """Raise ValueError, with advice, for an array of a type, such as "M" for dates, that has no real numbers."""
    if kind in ADVICE:
        what, advice = ADVICE[kind]
        raise ValueError(f"{name} has {what} and must have numbers; {advice}")


def plain_tensor(values: Any) -> Tensor:
    """Turn samples into a tensor that batches are cut from: uint8 stays, everything else becomes float32."""
    x = as_tensor(values)
    return x if x.dtype == torch.uint8 else x.float()


def image_tensor(X: Any) -> Tensor:
    """Turn images into a tensor of their own type, uint8 or float; refuse NaN, infinity and other types."""
    if 0 in X.shape:
        raise ValueError(f"X has the shape {tuple(X.shape)}: Found 0 sample(s), or images without pixels")
    if not isinstance(X, Tensor):
        X = check_array(X, allow_nd=True, ensure_2d=False, dtype=None, input_name="X")
    x = as_tensor(X)
    if not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(
            f"X has images, which must be uint8 or float; got {x.dtype}. Give pixels 0 to 255 as uint8, others as "
            "floats in the clip range"
        )
    if x.is_floating_point() and not torch.stack(x.aminmax()).isfinite().all():
        raise ValueError("Input X contains NaN or infinity.")
    return x


def to_float(x: Tensor) -> Tensor:
    """Turn pixels 0 to 255 into floats in [0, 1]; floats stay what they are."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x
