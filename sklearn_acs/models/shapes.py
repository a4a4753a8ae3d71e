"""Shape is the shape of one sample; image_shape checks that it is an image's, and widths those of layers."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np

Shape = tuple[int, ...]
"""Shape of one sample as the model gets it: (n_features,) or (C, H, W)."""


def image_shape(name: str, input_shape: Shape, min_side: int = 1) -> Shape:
    """Check that `input_shape` is that of an image that the model `name` can take."""
    if len(input_shape) != 3 or min(input_shape[1:]) < min_side:
        raise ValueError(
            f"module={name!r} takes images (channels, height, width) with sides of {min_side} or more; got samples "
            f"of shape {tuple(input_shape)}. Use module='mlp', which takes any shape, or a module of your own"
        )
    return input_shape


def widths(parameter: str, given: int | Sequence[int]) -> list[int]:
    """List the widths of layers that a number or a sequence means, each an int of at least 1."""
    found = np.atleast_1d(np.asarray(given, dtype=object)).tolist()
    if any(not isinstance(width, Integral) or isinstance(width, bool) or width < 1 for width in found):
        raise ValueError(
            f"module__{parameter} must be an int of at least 1, or several for several layers; got {given!r}"
        )
    return [int(width) for width in found]
