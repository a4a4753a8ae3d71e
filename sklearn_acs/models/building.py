"""build_model makes a model from a name, a factory or a module; last_linear finds the layer that makes its logits."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sklearn_acs.models.resnets import preact_resnet18, resnet18, resnet50, wide_resnet
from sklearn_acs.models.shapes import Shape
from sklearn_acs.models.small import convnet, mlp

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
    """Computes ``(x - mean) / scale``, per feature of a table or per channel of images.

    As this layer is part of the model, attacks, their eps and their clipping work in input units.

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
        """Show the values in the module's repr if they are few."""
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
        "auto" is "convnet" for images and "mlp" for everything else. A module is copied. A callable, such as a class,
        is called with ``(input_shape, n_classes, **options)``.
    input_shape : tuple of int
        Shape of one sample: (n_features,) or (C, H, W).
    n_classes : int
        Number of logits.
    mean, scale : float or array-like of shape (n_features,) or (channels,), default=None
        If both are given, named models standardise their inputs with them. A user's own module or callable is left
        as it is: its normalisation is the user's.
    **options
        Passed on to the model's function or to the callable.

    Returns
    -------
    nn.Module
        The model, for float inputs.

    Raises
    ------
    ValueError
        If the name is unknown, or its model cannot take the shape.
    TypeError
        If `module` is anything else, does not have the options, or is built already and options are given.

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

    Gradient-based selectors need only its input and the loss's gradient at its output.

    Parameters
    ----------
    module : nn.Module
        A classifier. Each of its submodules keeps its train or eval mode.
    example : Tensor
        A batch, on the module's device.

    Returns
    -------
    nn.Linear
        The layer, a submodule of `module`.

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

    def record(name: str, _layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.pop(name, None)
        outputs[name] = output.clone()  # later layers may change it in place

    training = {child: child.training for child in module.modules()}
    layers = {name: child for name, child in module.named_modules() if isinstance(child, nn.Linear)}
    hooks = [layer.register_forward_hook(partial(record, name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            logits = module.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
        for child, mode in training.items():
            child.training = mode

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
