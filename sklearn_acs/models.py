"""Networks by name, input standardisation as a layer, and the search for the layer that makes the logits."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Literal, cast

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

__all__ = [
    "MODELS",
    "Standardize",
    "build_model",
    "convnet",
    "last_linear",
    "mlp",
    "preact_resnet18",
    "resnet18",
    "resnet50",
    "standardized",
    "wide_resnet",
]

Shape = tuple[int, ...]
Stem = Literal["auto", "small", "imagenet"]


def mlp(input_shape: Shape, n_classes: int, *, hidden: Sequence[int] = (128, 128)) -> nn.Sequential:
    """Fully connected ReLU network; images are flattened.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one sample.
    n_classes : int
        Number of logits.
    hidden : sequence of int, default=(128, 128)
        Widths of the hidden layers; none makes the model linear.

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
    for n_out in hidden:
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        n_in = n_out
    return nn.Sequential(*layers, nn.Linear(n_in, n_classes))


def convnet(input_shape: Shape, n_classes: int, *, width: int = 16, hidden: int = 128) -> nn.Sequential:
    """Small convolutional network, quick on a CPU, for 8 x 8 digits as for CIFAR.

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
        Width of the hidden layer, which is the number of features a coreset selection sees.

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
    n_in, *sides = _image_shape("convnet", input_shape, min_side=4)
    n_out = width
    layers: list[nn.Module] = []
    while len(layers) < 4 or (max(sides) > 8 and min(sides) > 1):
        layers += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=1), nn.ReLU()]
        sides = [side // 2 for side in sides]
        n_in, n_out = n_out, 2 * n_out
    layers += [nn.Flatten(), nn.Linear(n_in * sides[0] * sides[1], hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, n_classes))


def resnet18(input_shape: Shape, n_classes: int, *, stem: Stem = "auto") -> nn.Module:
    """ResNet-18 of torchvision, with the stem that fits the images.

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
    from torchvision import models

    return _resnet("resnet18", models.resnet18, input_shape, n_classes, stem)


def resnet50(input_shape: Shape, n_classes: int, *, stem: Stem = "auto") -> nn.Module:
    """ResNet-50 of torchvision, with the stem that fits the images.

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
    from torchvision import models

    return _resnet("resnet50", models.resnet50, input_shape, n_classes, stem)


def _resnet(name: str, build: Callable[..., nn.Module], input_shape: Shape, n_classes: int, stem: Stem) -> nn.Module:
    channels, *sides = _image_shape(name, input_shape)
    if stem not in ("auto", "small", "imagenet"):
        raise ValueError(f"stem={stem!r} is not known; it must be 'auto', 'small' or 'imagenet'")
    model = build(weights=None, num_classes=n_classes)
    if stem == "small" or (stem == "auto" and max(sides) <= 64):
        model.conv1 = _conv(channels, 64, 3)
        model.maxpool = nn.Identity()
    elif channels != 3:
        model.conv1 = _conv(channels, 64, 7, stride=2)
    return model


def preact_resnet18(input_shape: Shape, n_classes: int) -> nn.Sequential:
    """ResNet-18 with pre-activation blocks and the stem for small images, as usual in adversarial training.

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
    channels, *_ = _image_shape("preact_resnet18", input_shape)
    return _preact_resnet(channels, n_classes, stem_width=64, widths=(64, 128, 256, 512), n_blocks=2)


def wide_resnet(input_shape: Shape, n_classes: int, *, depth: int = 28, width: int = 10) -> nn.Sequential:
    """Wide ResNet, WRN-28-10 unless told otherwise, without dropout.

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
    channels, *_ = _image_shape("wrn-28-10", input_shape)
    n_blocks, rest = divmod(depth - 4, 6)
    if rest or n_blocks < 1:
        raise ValueError(f"depth must be 6 n + 4 with n >= 1 blocks in a stage (10, 16, 22, 28, ...); got {depth}")
    widths = (16 * width, 32 * width, 64 * width)
    return _preact_resnet(channels, n_classes, stem_width=16, widths=widths, n_blocks=n_blocks)


def _preact_resnet(
    channels: int, n_classes: int, *, stem_width: int, widths: Sequence[int], n_blocks: int
) -> nn.Sequential:
    """Stem, stages of `n_blocks` blocks, each stage but the first halving the image, pooling, logits."""
    layers: list[nn.Module] = [_conv(channels, stem_width, 3)]
    n_in = stem_width
    for stage, n_out in enumerate(widths):
        for block in range(n_blocks):
            layers.append(PreActBlock(n_in, n_out, stride=2 if stage > 0 and block == 0 else 1))
            n_in = n_out
    layers += [nn.BatchNorm2d(n_in), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(n_in, n_classes))


class PreActBlock(nn.Module):
    """Two 3 x 3 convolutions, each after batch normalisation and ReLU, added to a shortcut.

    Where the shape changes, the shortcut is a 1 x 1 convolution of the activated input.

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
    """Convolution of residual networks: padded, without bias, initialised as torchvision's are."""
    conv = nn.Conv2d(n_in, n_out, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _image_shape(name: str, input_shape: Shape, min_side: int = 1) -> tuple[int, int, int]:
    """Check that `input_shape` is an image that the model takes."""
    if len(input_shape) != 3 or min(input_shape[1:]) < min_side:
        raise ValueError(
            f"module={name!r} takes images (channels, height, width) with sides of {min_side} or more; got samples "
            f"of shape {tuple(input_shape)}. Use module='mlp', which takes any shape, or a module of your own"
        )
    return cast(tuple[int, int, int], input_shape)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "convnet": convnet,
    "resnet18": resnet18,
    "preact_resnet18": preact_resnet18,
    "resnet50": resnet50,
    "wrn-28-10": wide_resnet,
}
"""Names of models, each a function ``(input_shape, n_classes, **options) -> nn.Module``."""


class Standardize(nn.Module):
    """The layer ``(x - mean) / scale``, per feature of a table or per channel of images.

    As a part of the model it lets attacks, their eps and their clipping, work in input units.

    Parameters
    ----------
    mean, scale : float or array-like of shape (n_features,) or (channels,)
        What to subtract, and what to divide by.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.models import Standardize
    >>> Standardize([1.0, 2.0], [1.0, 0.5])(torch.tensor([[1.0, 3.0]]))
    tensor([[0., 2.]])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: ArrayLike | Tensor, scale: ArrayLike | Tensor) -> None:
        super().__init__()
        # Copies: the buffers must not follow the caller's arrays.
        self.register_buffer("mean", torch.asarray(mean, dtype=torch.float32, copy=True).reshape(-1))
        self.register_buffer("scale", torch.asarray(scale, dtype=torch.float32, copy=True).reshape(-1))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise a batch."""
        shape = (-1,) + (1,) * (x.ndim - 2)  # (C, 1, 1) for images, (n_features,) for tables
        return (x - self.mean.view(shape)) / self.scale.view(shape)

    def extra_repr(self) -> str:
        """Values shown when the module is printed, if they are few."""
        return f"mean={self.mean.tolist()}, scale={self.scale.tolist()}" if len(self.mean) <= 4 else ""


def standardized(module: nn.Module, mean: ArrayLike | Tensor, scale: ArrayLike | Tensor) -> nn.Sequential:
    """Put a `Standardize` in front of a module.

    Parameters
    ----------
    module : nn.Module
        Takes standardised inputs.
    mean, scale : float or array-like of shape (n_features,) or (channels,)
        As for `Standardize`.

    Returns
    -------
    nn.Sequential
        Takes inputs in their own units.
    """
    return nn.Sequential(Standardize(mean, scale), module)


def build_model(
    module: str | nn.Module | Callable[..., nn.Module],
    input_shape: Shape,
    n_classes: int,
    *,
    mean: ArrayLike | Tensor | None = None,
    scale: ArrayLike | Tensor | None = None,
    **options: Any,
) -> nn.Module:
    """Build a model from a name or a factory, or copy the module given.

    Parameters
    ----------
    module : {"auto"}, name in MODELS, nn.Module or callable
        "auto" is "convnet" for images and "mlp" for everything else. A module is copied. A callable, which may be a
        class, is called with ``(input_shape, n_classes, **options)``.
    input_shape : tuple of int
        Shape of one sample: (n_features,) or (C, H, W).
    n_classes : int
        Number of logits.
    mean, scale : float or array-like of shape (n_features,) or (channels,), default=None
        Given both, named models standardise their inputs with them. A user's own module or callable is left as it
        is: its normalisation is the user's.
    **options
        Passed on to the model's function or to the callable.

    Returns
    -------
    nn.Module
        The model, for float inputs.

    Raises
    ------
    ValueError
        For an unknown name, or a name whose model cannot take the shape.
    TypeError
        For anything else as `module`, for options that it does not have, or for options to a built module.

    Examples
    --------
    >>> from sklearn_acs.models import build_model
    >>> build_model("auto", (2,), 3, mean=[0.0, 1.0], scale=[1.0, 2.0], hidden=())
    Sequential(
      (0): Standardize(mean=[0.0, 1.0], scale=[1.0, 2.0])
      (1): Sequential(
        (0): Flatten(start_dim=1, end_dim=-1)
        (1): Linear(in_features=2, out_features=3, bias=True)
      )
    )
    """
    if isinstance(module, str):
        if module == "auto":
            module = "convnet" if len(input_shape) == 3 else "mlp"
        if module not in MODELS:
            raise ValueError(f"module={module!r} is not known; the known names are {['auto', *MODELS]}")
        model = MODELS[module](input_shape, n_classes, **options)
        return model if mean is None or scale is None else standardized(model, mean, scale)
    if isinstance(module, nn.Module):
        if options:
            raise TypeError(f"module is built already and takes no options; got {sorted(options)}")
        return deepcopy(module)
    if callable(module):
        model = module(input_shape, n_classes, **options)
        if isinstance(model, nn.Module):
            return model
        raise TypeError(f"module={module!r} must return an nn.Module; it returned {model!r}")
    raise TypeError(
        f"module must be one of {['auto', *MODELS]}, an nn.Module or a callable (input_shape, n_classes) -> "
        f"nn.Module; got {module!r}"
    )


def last_linear(module: nn.Module, example: Tensor) -> nn.Linear:
    """Find the linear layer whose output is the module's output.

    Its input and the loss's gradient at its output are all that gradient-based selectors need.

    Parameters
    ----------
    module : nn.Module
        A classifier. Each of its parts keeps the train or eval mode it has.
    example : Tensor
        A batch, on the module's device.

    Returns
    -------
    nn.Linear
        The layer, a part of `module`.

    Raises
    ------
    ValueError
        If the module does not end in a linear layer.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.models import last_linear, mlp
    >>> last_linear(mlp((4,), 3), torch.zeros(2, 4))
    Linear(in_features=128, out_features=3, bias=True)
    """
    outputs: dict[str, Tensor] = {}  # in the order in which the layers ran

    def record(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs.pop(name, None)
            outputs[name] = output.clone()  # what follows may work in place

        return hook

    training = {part: part.training for part in module.modules()}
    layers = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    hooks = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            logits = module.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
        for part, mode in training.items():
            part.training = mode

    for name, output in reversed(outputs.items()):
        if isinstance(logits, Tensor) and torch.equal(output.to(logits.dtype), logits):
            return layers[name]
    found = "no nn.Linear ran"
    if outputs:
        found = f"the last nn.Linear that ran, {next(reversed(outputs))!r}, gave something else than the module"
    raise ValueError(
        "selectors that use gradients need a module whose output is that of its last nn.Linear; in "
        f"{type(module).__name__}, {found}. End the module in nn.Linear that outputs the logits, without softmax, or "
        "use selector='random', or None"
    )
