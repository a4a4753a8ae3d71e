"""build_model makes a model from a name, a factory or a module; last_linear finds the layer that makes its logits."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from inspect import Signature, signature
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sklearn_acs.models.logits import device_of, giving_logits
from sklearn_acs.models.resnets import preact_resnet18, resnet18, resnet50, wide_resnet
from sklearn_acs.models.shapes import Shape
from sklearn_acs.models.small import convnet, mlp
from sklearn_acs.params import check_options

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
    module : {"auto"}, name in MODELS, nn.Module, class of nn.Module or callable
        "auto" is "convnet" for images and "mlp" for everything else. A module is copied. A class is called with the
        options, as in skorch, and with `input_shape` and `n_classes` if it has parameters of these names, or cannot
        be called without two more arguments. A function is called with ``(input_shape, n_classes, **options)``.
    input_shape : tuple of int
        Shape of one sample: (n_features,) or (C, H, W).
    n_classes : int
        Number of logits.
    mean, scale : float or array-like of shape (n_features,) or (channels,), default=None
        If both are given, named models standardise their inputs with them. A user's own module or callable is left
        as it is: its normalisation is the user's.
    **options
        Passed on to the model's function, to the class or to the callable.

    Returns
    -------
    nn.Module
        The model, for float32 inputs. A user's module that returns more than logits is in a `LogitsOf`.

    Raises
    ------
    ValueError
        If the name is unknown, its model cannot take the shape, or a user's module gives no logits or has no parameter
        to train.
    TypeError
        If `module` is anything else, does not have the options, or is built already and options are given.

    Warns
    -----
    UserWarning
        If a user's module is in another precision than float32, to which it is then converted.

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
        check_options("module", MODELS[module], options, "input_shape", "n_classes")
        try:
            model = MODELS[module](input_shape, n_classes, **options)
        except (TypeError, ValueError, RuntimeError) as error:
            if not options:
                raise
            given = ", ".join(f"module__{name}={value!r}" for name, value in options.items())
            raise ValueError(f"module={module!r} cannot be made with {given}: {error}") from error
        return model if mean is None or scale is None else standardized(model, mean, scale)
    if isinstance(module, nn.Module):
        if options:
            raise TypeError(f"module is built already and takes no options; got {sorted(options)}")
        try:
            copied = deepcopy(module)
        except Exception as error:  # torch.nn.utils.weight_norm keeps a tensor that cannot be copied
            raise ValueError(
                f"module={type(module).__name__} cannot be copied: {error}. Give a class or a function that makes it"
            ) from error
        return _ready(copied, input_shape, n_classes)
    if not callable(module):
        raise TypeError(
            f"module must be one of {['auto', *MODELS]}, an nn.Module, a class of them or a function (input_shape, "
            f"n_classes) -> nn.Module; got {module!r}"
        )
    model = _made(module, input_shape, n_classes, options)
    if not isinstance(model, nn.Module):
        raise TypeError(f"module={module!r} must return an nn.Module; it returned {model!r}")
    return _ready(model, input_shape, n_classes)


def _made(module: Callable[..., Any], input_shape: Shape, n_classes: int, options: dict[str, Any]) -> Any:
    """Call a class with the options, as skorch does, or with shape and classes too; a function always with these."""
    made = module.func if isinstance(module, partial) else module
    try:
        takes = signature(module)
    except ValueError as error:
        raise TypeError(
            f"module={module!r} must be a class of nn.Module or a function that makes one: {error}"
        ) from error
    check_options("module", module, options, *list(takes.parameters)[: 0 if isinstance(made, type) else 2])
    if isinstance(made, type):
        known = {"input_shape": input_shape, "n_classes": n_classes}
        asked = {name: value for name, value in known.items() if name in takes.parameters} | options
        if _binds(takes, **asked):
            return module(**asked)
        if not _binds(takes, input_shape, n_classes, **options):
            raise TypeError(
                f"module={made.__name__} cannot be made as {made.__name__}({', '.join(options)}): it takes {takes}. "
                f"Give the others as module__name, or give {made.__name__}(...) itself"
            )
    return module(input_shape, n_classes, **options)


def _binds(takes: Signature, *args: Any, **kwargs: Any) -> bool:
    """Tell whether a call with these arguments is possible."""
    try:
        takes.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _ready(model: nn.Module, input_shape: Shape, n_classes: int) -> nn.Module:
    """Make of a user's module one that can be trained: in float32, returning logits alone."""
    example = torch.zeros(2, *input_shape)
    if any(is_lazy(parameter) for parameter in (*model.parameters(), *model.buffers())):
        with torch.no_grad():
            model.eval()(example.to(device_of(model)))
        model.train()
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"module={type(model).__name__} has nothing to train: no parameter that has requires_grad=True"
        )
    kinds = {str(each.dtype).removeprefix("torch.") for each in model.parameters() if each.is_floating_point()}
    if kinds - {"float32"}:
        warnings.warn(
            f"module has parameters in {', '.join(sorted(kinds))}, and is trained in float32: give module.float(). To "
            "compute in half precision use precision='bf16' or 'fp16'",
            stacklevel=2,
        )
        model = deepcopy(model).float()
    return giving_logits(model, example, n_classes, trains=True)
