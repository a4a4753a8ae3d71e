"""These networks train quickly on a CPU: fully connected ones for tables, convolutional ones for images."""

from collections.abc import Sequence

import torch
from torch import nn

from sklearn_acs.models.shapes import Shape, image_shape, widths


def mlp(input_shape: Shape, n_classes: int, *, hidden: int | Sequence[int] = (128, 128)) -> nn.Sequential:
    """Build a fully connected ReLU network, which flattens images.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one sample.
    n_classes : int
        Number of logits.
    hidden : int or sequence of int, default=(128, 128)
        Widths of the hidden layers; a number is one layer, and an empty sequence makes the model linear.

    Returns
    -------
    nn.Sequential
        The network.

    Examples
    --------
    >>> from sklearn_acs.models import mlp
    >>> mlp((4,), 3, hidden=(8,))
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=4, out_features=8, bias=True)
      (2): ReLU()
      (3): Linear(in_features=8, out_features=3, bias=True)
    )
    """
    layers: list[nn.Module] = [nn.Flatten()]
    n_in = torch.Size(input_shape).numel()
    for n_out in widths("hidden", hidden):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        n_in = n_out
    return nn.Sequential(*layers, nn.Linear(n_in, n_classes))


def convnet(input_shape: Shape, n_classes: int, *, width: int = 16, hidden: int = 128) -> nn.Sequential:
    """Build a small convolutional network, quick on a CPU, for 8 x 8 digits as for CIFAR.

    Convolutions of 4 x 4 with stride 2 halve the image at least twice and until no side is longer than 8, each with
    twice the channels of the one before. One hidden layer follows. There is no batch normalisation, whose statistics
    clean and adversarial batches would share, and no dropout, which would blur the attacks.

    Parameters
    ----------
    input_shape : tuple of int
        (C, H, W).
    n_classes : int
        Number of logits.
    width : int, default=16
        Channels after the first convolution.
    hidden : int, default=128
        Width of the hidden layer: the number of features that selectors see.

    Returns
    -------
    nn.Sequential
        The network.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.models import convnet
    >>> convnet((1, 28, 28), 10)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    n_in, *sides = image_shape("convnet", input_shape, min_side=4)
    (n_out,), (hidden,) = widths("width", width), widths("hidden", hidden)
    layers: list[nn.Module] = []
    while len(layers) < 4 or (max(sides) > 8 and min(sides) > 1):
        layers += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=1), nn.ReLU()]
        sides = [side // 2 for side in sides]
        n_in, n_out = n_out, 2 * n_out
    layers += [nn.Flatten(), nn.Linear(n_in * sides[0] * sides[1], hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, n_classes))
