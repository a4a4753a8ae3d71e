"""Which samples a model gets right although they are attacked."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sklearn_acs.attacks.base import Attack, frozen
from sklearn_acs.data.formats import Clip


def robust_correct(
    module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], attack: Attack, clip: Clip, generator: torch.Generator
) -> Tensor:
    """Whether each sample is classified rightly both as it is and under attack; the wrong ones are not attacked."""
    results = []
    for x, y in batches:
        with frozen(module), torch.no_grad():
            right = module(x).argmax(1) == y
            if right.any():
                x_adv = attack.perturb(module, x[right], y[right], clip=clip, generator=generator)
                right[right.clone()] = module(x_adv).argmax(1) == y[right]
        results.append(right.cpu())
    return torch.cat(results)
