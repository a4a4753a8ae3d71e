"""Perceptual distances compare activations of a network, weighed so that every layer counts alike."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest

import torch
from torch import Tensor, nn

from sklearn_acs.models.resnets import PreActBlock

Look = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``look(x) -> (output, phi)``: a network's output and its activations (batch, n), from one forward pass."""

Features = Callable[[Tensor], Tensor]
"""``features(x) -> phi``: the activations alone."""

ACTIVATIONS = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardtanh,  # ReLU6 is one
    nn.LeakyReLU,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
)

_STAGE = re.compile(r"(layer|stage)_?\d+")


def unit_features(maps: Tensor) -> Tensor:
    """Scale the channels at each pixel to length 1, and a map of many pixels so that it counts as one of few.

    Parameters
    ----------
    maps : Tensor of shape (batch, C, ...)
        Activations of one layer; (batch, C) ones have one pixel.

    Returns
    -------
    Tensor of shape (batch, C * ...)
        ``maps / (|maps| + 1e-10) / sqrt(H * W)``, the length taken over the channels. Where all of them are 0 the
        gradient is finite: the length's is 0 there.
    """
    length = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    return (maps / (length + 1e-10) / maps.shape[2:].numel() ** 0.5).flatten(1)


def find_layers(network: nn.Module) -> list[str]:
    """Find the layers whose outputs are compared where the user names none.

    The first of these that the network has: its stages, which are blocks of layers named ``layer1``, ``layer2``, ...
    as in ResNets, or runs of pre-activation blocks of one width; its activation modules; its convolutions and linear
    layers but the last, for networks that apply their activations as functions.

    Parameters
    ----------
    network : nn.Module
        Any network.

    Returns
    -------
    list of str
        As `named_modules` has them, in its order.

    Examples
    --------
    >>> from sklearn_acs.attacks.features import find_layers
    >>> from sklearn_acs.models import convnet
    >>> find_layers(convnet((1, 8, 8), 10))
    ['1', '3', '6']
    """
    named = [(name, module) for name, module in network.named_modules() if name]
    stages = [name for name, module in named if _STAGE.fullmatch(name.rpartition(".")[2]) and list(module.children())]
    blocks = [(name, module) for name, module in named if isinstance(module, PreActBlock)]
    ends = [name for (name, _), then in zip_longest(blocks, blocks[1:]) if not then or then[1].shortcut is not None]
    activations = [name for name, module in named if isinstance(module, ACTIVATIONS)]
    weighted = [name for name, module in named if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)]
    return stages or ends or activations or weighted[:-1]


@contextmanager
def looking(network: nn.Module, layers: Sequence[str] | None = None) -> Iterator[Look]:
    """Record what the layers of a network put out, as long as the context lasts.

    Parameters
    ----------
    network : nn.Module
        The network; hooks are on its layers within the context.
    layers : sequence of str or None, default=None
        Names as `named_modules` has them. None is `find_layers`, without the layer that puts out the logits.

    Yields
    ------
    callable
        ``look(x) -> (output, phi)``: what the network returns, and the `unit_features` of all layers side by side,
        in the order in which they ran; a layer that runs twice is there twice.

    Raises
    ------
    ValueError
        For a name that the network does not have, for a layer that does not put out one tensor, or if none is left.
    """
    modules = dict(network.named_modules())
    names = find_layers(network) if layers is None else list(layers)
    for name in names:
        if name not in modules:
            known = [known for known in modules if known]
            raise ValueError(f"layers={names!r}: {type(network).__name__} has no layer {name!r}; it has {known}")
    seen: list[tuple[bool, Tensor, Tensor]] = []

    def record(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2:
            kind = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"layers: {name!r} puts out {kind}, and not one tensor (batch, channels, ...)")
        may_be_logits = layers is None and not isinstance(module, ACTIVATIONS)
        seen.append((may_be_logits, output, unit_features(output.clone())))  # what follows may work in place

    def look(x: Tensor) -> tuple[Tensor, Tensor]:
        seen.clear()
        output = network(x)
        phi = [features for may_be_logits, found, features in seen if not (may_be_logits and found is output)]
        seen.clear()
        if not phi:
            raise ValueError(
                f"no layer of {type(network).__name__} to compare: layers={layers!r} gives {names}. "
                "Name layers that run before its output"
            )
        return output, torch.cat(phi, dim=1)

    hooks = [modules[name].register_forward_hook(partial(record, name)) for name in names]
    try:
        yield look
    finally:
        for hook in hooks:
            hook.remove()
