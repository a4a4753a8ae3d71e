"""Residual networks: torchvision's with a stem that fits the images, pre-activation ones and wide ones."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from sklearn_acs.models.shapes import Shape, image_shape

Stem = Literal["auto", "small", "imagenet"]


def resnet18(input_shape: Shape, n_classes: int, *, stem: Stem = "auto") -> nn.Module:
    """Build torchvision's ResNet-18 with a stem that fits the images.

    Parameters
    ----------
    input_shape : tuple of int
        (C, H, W), any number of channels.
    n_classes : int
        Number of logits.
    stem : {"auto", "small", "imagenet"}, default="auto"
        "imagenet" is torchvision's own, a 7 x 7 convolution and a max-pooling that divide the sides by 4. "small"
        is the usual one for CIFAR, a 3 x 3 convolution with stride 1. "auto" takes "small" up to 64 pixels.

    Returns
    -------
    torchvision.models.ResNet
        The network, not pretrained.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.
    """
    return _resnet("resnet18", input_shape, n_classes, stem)


def resnet50(input_shape: Shape, n_classes: int, *, stem: Stem = "auto") -> nn.Module:
    """Build torchvision's ResNet-50 with a stem that fits the images.

    Parameters
    ----------
    input_shape : tuple of int
        (C, H, W), any number of channels.
    n_classes : int
        Number of logits.
    stem : {"auto", "small", "imagenet"}, default="auto"
        As for `resnet18`.

    Returns
    -------
    torchvision.models.ResNet
        The network, not pretrained.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.
    """
    return _resnet("resnet50", input_shape, n_classes, stem)


def _resnet(name: str, input_shape: Shape, n_classes: int, stem: Stem) -> nn.Module:
    """Build torchvision's model of that name, and replace its stem by one for small images or other channels."""
    from torchvision.models import get_model

    channels, *sides = image_shape(name, input_shape)
    if stem not in ("auto", "small", "imagenet"):
        raise ValueError(f"stem={stem!r} is not known; it must be 'auto', 'small' or 'imagenet'")
    model = get_model(name, weights=None, num_classes=n_classes)
    if stem == "small" or (stem == "auto" and max(sides) <= 64):
        model.conv1 = _conv(channels, 64, 3)
        model.maxpool = nn.Identity()
    elif channels != 3:
        model.conv1 = _conv(channels, 64, 7, stride=2)
    return model


def preact_resnet18(input_shape: Shape, n_classes: int) -> nn.Sequential:
    """Build a ResNet-18 with pre-activation blocks and a stem for small images, as usual in adversarial training.

    Parameters
    ----------
    input_shape : tuple of int
        (C, H, W), any number of channels.
    n_classes : int
        Number of logits.

    Returns
    -------
    nn.Sequential
        The network.

    References
    ----------
    He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", ECCV 2016.
    """
    channels, *_ = image_shape("preact_resnet18", input_shape)
    return _preact_resnet(channels, n_classes, stem_width=64, widths=(64, 128, 256, 512), n_blocks=2)


def wide_resnet(input_shape: Shape, n_classes: int, *, depth: int = 28, width: int = 10) -> nn.Sequential:
    """Build a wide ResNet without dropout, by default WRN-28-10.

    Parameters
    ----------
    input_shape : tuple of int
        (C, H, W), any number of channels.
    n_classes : int
        Number of logits.
    depth : int, default=28
        Number of layers, 6 n + 4 for n blocks in each of the three stages.
    width : int, default=10
        The stages have 16, 32 and 64 times as many channels.

    Returns
    -------
    nn.Sequential
        The network.

    References
    ----------
    Zagoruyko, Komodakis, "Wide residual networks", BMVC 2016.
    """
    channels, *_ = image_shape("wrn-28-10", input_shape)
    n_blocks, rest = divmod(depth - 4, 6)
    if rest or n_blocks < 1:
        raise ValueError(f"depth must be 6 n + 4 with n >= 1 blocks in a stage (10, 16, 22, 28, ...); got {depth}")
    widths = (16 * width, 32 * width, 64 * width)
    return _preact_resnet(channels, n_classes, stem_width=16, widths=widths, n_blocks=n_blocks)


def _preact_resnet(
    channels: int, n_classes: int, *, stem_width: int, widths: Sequence[int], n_blocks: int
) -> nn.Sequential:
    """Build stem, stages of `n_blocks` blocks, pooling and last layer; all stages but the first halve the image."""
    layers: list[nn.Module] = [_conv(channels, stem_width, 3)]
    n_in = stem_width
    for stage, n_out in enumerate(widths):
        for block in range(n_blocks):
            layers.append(PreActBlock(n_in, n_out, stride=2 if stage > 0 and block == 0 else 1))
            n_in = n_out
    layers += [nn.BatchNorm2d(n_in), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(n_in, n_classes))


class PreActBlock(nn.Module):
    """Adds two 3 x 3 convolutions, each after batch normalisation and ReLU, to a shortcut.

    If the shape changes, the shortcut is a 1 x 1 convolution of the activated input.

    Parameters
    ----------
    n_in, n_out : int
        Channels before and after.
    stride : int
        Stride of the first convolution and of the shortcut.
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(n_in)
        self.conv1 = _conv(n_in, n_out, 3, stride)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.conv2 = _conv(n_out, n_out, 3)
        self.shortcut = None if stride == 1 and n_in == n_out else _conv(n_in, n_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        activated = self.bn1(x).relu()
        residual = self.conv2(self.bn2(self.conv1(activated)).relu())
        return residual + (x if self.shortcut is None else self.shortcut(activated))


def _conv(n_in: int, n_out: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """Build a padded convolution without bias, initialised as in torchvision's residual networks."""
    conv = nn.Conv2d(n_in, n_out, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
