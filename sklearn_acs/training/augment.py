"""Random crops and flips of a whole batch at once, on its device, drawn from a generator of one's own."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sklearn_acs.training.batches import Augment

PADDING = 4
"""Pixels of black border from which crops are cut, as is usual for CIFAR-10."""


def crop(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pad each image of (batch, C, H, W) by 4 pixels and cut a window of the old size at random."""
    batch, _, height, width = x.shape
    padded = F.pad(x, [PADDING] * 4)
    offset = torch.randint(2 * PADDING + 1, (2, batch, 1), device=x.device, generator=generator)
    rows = offset[0] + torch.arange(height, device=x.device)  # (batch, H)
    columns = offset[1] + torch.arange(width, device=x.device)  # (batch, W)
    sample = torch.arange(batch, device=x.device)[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image of (batch, C, H, W) left to right with probability one half."""
    mirrored = torch.rand(len(x), 1, 1, 1, device=x.device, generator=generator) < 0.5
    return torch.where(mirrored, x.flip(3), x)


def crop_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Crop, then flip: the usual augmentation of CIFAR-10."""
    return flip(crop(x, generator), generator)


AUGMENTS: dict[str, Augment] = {"crop": crop, "flip": flip, "crop-flip": crop_flip}
