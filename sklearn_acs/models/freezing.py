"""Freeze a model, or run it for trial: look at it and change nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
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


@contextmanager
def rehearsing(model: nn.Module) -> Iterator[None]:
    """Run `model` for trial, in any mode: leave its modes and buffers and torch's generators as they were found."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()]
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.is_cuda}
    with torch.no_grad(), torch.random.fork_rng(devices):
        try:
            for module, name, buffer in buffers:  # copies: some cannot be written back, several numbers in one place
                setattr(module, name, None if buffer is None else buffer.clone())
            yield
        finally:
            for module, training in modes:
                module.training = training
            for module, name, buffer in buffers:
                setattr(module, name, buffer)
