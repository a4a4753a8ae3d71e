"""Shape is the shape of one sample, and image_shape checks that it is an image's."""

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
