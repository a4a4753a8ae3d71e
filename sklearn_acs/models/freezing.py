"""Freeze a model: look at it and change nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode without parameter gradients, and leave it exactly as it was found.

    Evaluation mode keeps BatchNorm's running statistics untouched and makes a sample's attack independent of the
    other samples in its batch. Switching `requires_grad` off means that autograd differentiates with respect to
    the input alone and keeps no activation for weight gradients.
    """
    modes = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trained:
            parameter.requires_grad_(True)
