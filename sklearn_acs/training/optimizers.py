"""Optimisers have names, and take over from one another."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

OPTIMIZERS: dict[str, tuple[type[Optimizer], float, dict[str, Any]]] = {
    "sgd": (SGD, 0.1, {"momentum": 0.9, "weight_decay": 5e-4}),
    "adam": (Adam, 2e-3, {}),
    "adamw": (AdamW, 2e-3, {}),
}
"""Each name with its learning rate, and its options unless ``optimizer__...`` parameters say otherwise."""

FUSED_DEVICES = ("cpu", "cuda")
"""Where these do a step in one pass over memory, a third of the time on a CPU, and on a GPU without waiting for it."""


def find_optimizer(
    optimizer: str | type[Optimizer], lr: float | None, options: Mapping[str, Any], device: torch.device
) -> tuple[type[Optimizer], float, dict[str, Any]]:
    """Find the class, the rate and the options that an optimiser's name or class means on a device."""
    if not isinstance(optimizer, str):
        if lr is None:
            raise ValueError(f"lr=None has no default for optimizer={optimizer!r}; give a number")
        return optimizer, lr, dict(options)
    made, default_lr, defaults = OPTIMIZERS[optimizer]
    options = {**defaults, **options}
    if device.type in FUSED_DEVICES and not options.keys() & {"fused", "foreach", "differentiable"}:
        options["fused"] = True
    return made, default_lr if lr is None else lr, options


def begin_late_momentum(optimizer: Optimizer) -> None:
    """Give parameters that get their first gradient later than others, as unfrozen ones do, a momentum of 0.

    torch's fused SGD cannot begin with some of a group. (Unfused, it begins with the gradient, which comes to the same
    unless there is `dampening`.)
    """
    for group in optimizer.param_groups:
        if not (isinstance(optimizer, SGD) and group["fused"] and group["momentum"]):
            continue
        moving = [parameter for parameter in group["params"] if parameter.grad is not None]
        late = [each for each in moving if optimizer.state.get(each, {}).get("momentum_buffer") is None]
        for parameter in late if len(late) < len(moving) else []:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def take_over(optimizer: Optimizer, before: Optimizer) -> None:
    """Let an optimiser go on with the momentum of one of its kind, at its own rate.

    Of a kind are those of one class and with the same switches, as Adam's `amsgrad`, which decide what state there is.
    """

    def kind(each: Optimizer) -> tuple:
        return type(each), {name: value for name, value in each.defaults.items() if isinstance(value, bool)}

    if kind(optimizer) == kind(before):
        load_optimizer(optimizer, {**before.state_dict(), "param_groups": optimizer.state_dict()["param_groups"]})


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Give an optimiser a copy of another's state, in the memory format that fused optimisers take for granted."""
    optimizer.load_state_dict(deepcopy(state))
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)
