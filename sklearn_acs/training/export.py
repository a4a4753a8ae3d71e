"""exported makes of a trained module one that is PyTorch alone."""

from copy import deepcopy

import torch
from torch import nn

from sklearn_acs.training.precision import set_precision

_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks"),
)


def exported(module: nn.Module) -> nn.Module:
    """Copy a module to the CPU, in eval mode, in float32, uncompiled and without hooks.

    Parameters
    ----------
    module : nn.Module
        Is left as it is.

    Returns
    -------
    nn.Module
        The same weights and layers, in the ordinary memory format. The hooks by which torch itself keeps the weights
        of a layer, those of ``torch.nn.utils.weight_norm`` for example, stay.
    """
    plain = set_precision(deepcopy(getattr(module, "_orig_mod", module)), "fp32")  # what torch.compile has wrapped
    for part in plain.modules():
        for hooks in (getattr(part, kind) for kind in _HOOKS):
            for key, hook in list(hooks.items()):
                if not type(hook).__module__.startswith("torch.nn.utils."):
                    del hooks[key]
    return plain.to("cpu").to(memory_format=torch.contiguous_format).eval()
