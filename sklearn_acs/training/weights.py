"""A module's weights, its parameters and what belongs to them, are copied, restored and checked here."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

Weights = dict[str, Any]
"""Parameters, all buffers and extra states of a module, by name."""


def weights_of(module: nn.Module) -> Weights:
    """Name the weights of a module: its `state_dict`, and the buffers that are not part of that."""
    return {**module.state_dict(), **dict(module.named_buffers(remove_duplicate=False))}


def copy_of_weights(module: nn.Module) -> Weights:
    """Copy the weights of a module, so that training it further does not change them."""
    return deepcopy(weights_of(module))


def load_weights(module: nn.Module, weights: Weights) -> None:
    """Give a module other weights, also for a buffer that `forward` sets, or puts another tensor in the place of."""
    buffers = dict(_buffers(module))
    for name, place in buffers.items():
        short = name.rpartition(".")[2]
        place[short] = written(place[short], weights.get(name))
    rest = {name: value for name, value in weights.items() if name not in buffers}
    module.load_state_dict(rest, strict=False)


def misfits(module: nn.Module, weights: Weights) -> list[str]:
    """Tell what keeps weights from being those of a module: names that one of them lacks, and parameters' shapes.

    Buffers may have other shapes, and be set by `forward` alone.
    """
    own, buffers = weights_of(module), {name for name, _ in _buffers(module)}
    told = [f"{name} is not in the module" for name in weights if name not in own.keys() | buffers]
    told += [f"{name} is in the module alone" for name in own if name not in weights]
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in weights and weights[name].shape != parameter.shape:
            told.append(f"{name} has the shape {(*parameter.shape,)} in the module, not {(*weights[name].shape,)}")
    return told


def lay_out(module: nn.Module, weights: Weights) -> None:
    """Give a module's tensors the memory layout of weights that are to be loaded: another one makes other bits."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        value = weights[name]
        if value.shape == tensor.shape and value.stride() != tensor.stride():
            tensor.data = torch.empty_strided(value.shape, value.stride(), dtype=tensor.dtype, device=tensor.device)


def _buffers(module: nn.Module) -> Iterator[tuple[str, dict[str, Tensor | None]]]:
    """List the places of buffers, also of those that are None: each name, and where it is kept."""
    for prefix, part in module.named_modules():
        for short in part._buffers:
            yield f"{prefix}.{short}".lstrip("."), part._buffers


@torch.no_grad()
def written(buffer: Tensor | None, value: Tensor | None) -> Tensor | None:
    """Write a value into a buffer and return that, or return a copy of the value where it does not fit in."""
    if buffer is None or value is None or not fits(buffer, value):
        return None if value is None else value.clone()
    return buffer.copy_(value)


def fits(buffer: Tensor | None, value: Tensor) -> bool:
    """Tell whether a value can be written into a buffer, which is as large and has a place for each number."""
    if buffer is None or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
        return False
    return not any(stride == 0 < size - 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True))


def finite_buffers(module: nn.Module) -> set[str]:
    """Find the names of buffers that hold finite numbers alone; a mask of -inf is none of them."""
    return {name for name, value in module.named_buffers() if all_finite([value])}


def diverged(module: nn.Module, buffers: set[str]) -> bool:
    """Tell whether a parameter, or one of those buffers, finite before, has become NaN or infinite."""
    now = [value for name, value in module.named_buffers() if name in buffers]
    return not all_finite([*module.parameters(), *now])


def all_finite(values: Iterable[Tensor]) -> bool:
    """Tell whether no tensor holds NaN or infinity, with one reading from the device."""
    found = [value.isfinite().all() for value in values]
    return not found or bool(torch.stack(found).all())
