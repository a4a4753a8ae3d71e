"""Copies of a module's weights: its parameters and everything that belongs to them."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

Weights = dict[str, Any]
"""Parameters, all buffers and extra states of a module, by name."""


def weights_of(module: nn.Module) -> Weights:
    """Name the weights of a module: its `state_dict`, and the buffers that are not part of that."""
    return {**module.state_dict(), **dict(module.named_buffers())}


def copy_of_weights(module: nn.Module) -> Weights:
    """Copy the weights of a module, so that training it further does not change them."""
    return deepcopy(weights_of(module))


def load_weights(module: nn.Module, weights: Weights) -> None:
    """Give a module other weights, also for a buffer that `forward` has put another tensor in the place of."""
    for name, buffer in module.named_buffers():
        if (buffer.shape, buffer.dtype) != (weights[name].shape, weights[name].dtype):
            replace_buffer(module, name, weights[name])
    module.load_state_dict({name: weights[name] for name in module.state_dict()})
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(weights[name])


def replace_buffer(module: nn.Module, name: str, value: Tensor) -> None:
    """Put a copy of another tensor in the place of a buffer."""
    owner, _, short = name.rpartition(".")
    module.get_submodule(owner)._buffers[short] = value.clone()


def finite_buffers(module: nn.Module) -> set[str]:
    """Names of the buffers that hold numbers alone; masks of -inf are none of them."""
    return {name for name, value in module.named_buffers() if all_finite([value])}


def diverged(module: nn.Module, buffers: set[str]) -> bool:
    """Whether a parameter, or one of those buffers, which were finite before, has become NaN or infinite."""
    now = [value for name, value in module.named_buffers() if name in buffers]
    return not all_finite([*module.parameters(), *now])


def all_finite(values: Iterable[Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity, read from the device once."""
    found = [value.isfinite().all() for value in values]
    return not found or bool(torch.stack(found).all())
